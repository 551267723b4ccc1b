//! The store's script and the counts in memory give the same answers, for every order of events.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

use super::*;

/// An operation that a player does after some time has passed; the clock may go back.
#[derive(Debug, Clone)]
enum Op {
    Admit { subjects: Vec<Index> },
    Reserve { permit: Index, tokens: u64 },
    End { permit: Index, used: u64 },
}

#[derive(Debug, Clone)]
struct Step {
    passed_us: i64,
    op: Op,
}

/// Small numbers, where limits are hit, and large ones, where the arithmetic might overflow.
fn units() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..50_u64, 2 => 0..100_000_u64, 1 => 0..1_000_000_000_000_u64]
}

fn step() -> impl Strategy<Value = Step> {
    let passed = prop_oneof![
        150 => Just(0),
        200 => 0..20_000_000_i64,
        50 => 0..400_000_000_i64,
        // The clock goes back in about half of the histories.
        10 => -50_000_000..0_i64,
    ];
    let op = prop_oneof![
        4 => vec(any::<Index>(), 1..4).prop_map(|subjects| Op::Admit { subjects }),
        4 => (any::<Index>(), units()).prop_map(|(permit, tokens)| Op::Reserve { permit, tokens }),
        3 => (any::<Index>(), units()).prop_map(|(permit, used)| Op::End { permit, used }),
    ];
    (passed, op).prop_map(|(passed_us, op)| Step { passed_us, op })
}

fn quotas() -> impl Strategy<Value = Quotas> {
    let rare = |limit: BoxedStrategy<u64>| proptest::option::weighted(0.7, limit);
    (
        rare(prop_oneof![1..20_u64, 1..1_000_000_u64].boxed()),
        rare(prop_oneof![1..200_u64, 1..1_000_000_000_000_u64].boxed()),
        rare((1..6_u64).boxed()),
    )
        .prop_map(|(requests, tokens, concurrent)| Quotas {
            requests_per_minute: requests.map(|limit| u32::try_from(limit).unwrap()),
            tokens_per_minute: tokens,
            concurrent_requests: concurrent.map(|limit| u32::try_from(limit).unwrap()),
        })
}

/// Makes requests, and holds the permits of those that are open.
struct Player {
    limits: Limits,
    open: Vec<Permit>,
}

impl Player {
    fn new(limits: Limits) -> Self {
        let open = Vec::new();
        Player { limits, open }
    }

    async fn play(&mut self, op: &Op, subjects: &[Subject], now: Instant) -> Option<Denied> {
        match op {
            Op::Admit { subjects: some } => {
                let some: BTreeSet<usize> = some.iter().map(|i| i.index(subjects.len())).collect();
                let some: Vec<_> = some.into_iter().map(|i| subjects[i].clone()).collect();
                match admit(&self.limits, &some, now).await {
                    Ok(permit) => self.open.push(permit),
                    Err(denied) => return Some(denied),
                }
            }
            Op::Reserve { permit, tokens } if !self.open.is_empty() => {
                let at = permit.index(self.open.len());
                let permit = &mut self.open[at];
                // Each permit reserves tokens once, as requests do.
                if permit.reservation.is_none() {
                    return reserve(permit, *tokens, now).await.err();
                }
            }
            Op::End { permit, used } if !self.open.is_empty() => {
                let at = permit.index(self.open.len());
                self.open.swap_remove(at).end(*used, now).await;
            }
            Op::Reserve { .. } | Op::End { .. } => {}
        }
        None
    }
}

/// The names differ between cases, so that all cases can share one server.
fn subjects(case: usize, quotas: Vec<Quotas>) -> Vec<Subject> {
    let named = |(i, quotas)| subject(&format!("{{{case}}}{i}"), quotas);
    quotas.into_iter().enumerate().map(named).collect()
}

async fn same(subjects: Vec<Subject>, url: String, steps: Vec<Step>) {
    let start = Instant::now();
    let mut here = Player::new(Limits::new(start));
    let mut there = Player::new(at_a_store(url, start).await);
    let mut now_us = 1_000_000_000_i64;
    // With a store, the shown quota is that of the store's last answer; a clock that goes back makes it stale.
    let shown = steps.iter().all(|step| step.passed_us >= 0);
    for Step { passed_us, op } in steps {
        now_us += passed_us;
        let now = start + Duration::from_micros(now_us.unsigned_abs());
        assert_eq!(
            here.play(&op, &subjects, now).await,
            there.play(&op, &subjects, now).await,
            "{op:?}"
        );
        for subject in subjects.iter().filter(|_| shown) {
            let subject = std::slice::from_ref(subject);
            assert_eq!(
                here.limits.quota(subject, now),
                there.limits.quota(subject, now),
                "{op:?}: {subject:?}"
            );
        }
    }
    there.limits.close().await;
}

/// A caller that waits for `retry_after` is admitted, if no other request came meanwhile.
async fn the_wait_is_true(subjects: Vec<Subject>, steps: Vec<Step>, tokens: u64) {
    let mut now = Instant::now();
    let mut player = Player::new(Limits::new(now));
    for Step { passed_us, op } in steps {
        now += Duration::from_micros(passed_us.unsigned_abs());
        player.play(&op, &subjects, now).await;
    }
    let refused = match admit(&player.limits, &subjects, now).await {
        Ok(mut permit) => reserve(&mut permit, tokens, now).await,
        Err(denied) => Err(denied),
    };
    let Err(denied) = refused else {
        return;
    };
    now += denied.retry_after;
    let again = admit(&player.limits, &subjects, now).await;
    let mut again = again.unwrap_or_else(|again| panic!("{denied:?}, and then {again:?}"));
    // A refusal of the request doesn't include the wait for its tokens.
    if denied.which == Which::Tokens {
        let reserved = reserve(&mut again, tokens, now).await;
        assert_eq!(reserved, Ok(()), "{denied:?}");
    }
}

/// Runs `test` on random limits and histories.
fn random<F: Future<Output = ()>>(cases: u32, test: impl Fn(Vec<Subject>, Vec<Step>, u64) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let case = Cell::new(0);
    let inputs = (vec(quotas(), 1..5), vec(step(), 1..60), units());
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let ran = runner.run(&inputs, |(quotas, steps, tokens)| {
        case.set(case.get() + 1);
        runtime.block_on(test(subjects(case.get(), quotas), steps, tokens));
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn the_script_and_the_memory_give_the_same_answers() {
    let valkey = Valkey::start();
    random(200, |subjects, steps, _| {
        same(subjects, valkey.url(), steps)
    });
}

#[test]
fn retry_after_is_true() {
    random(2000, |subjects, steps, tokens| async move {
        // For concurrency, `retry_after` is only a guess.
        let subjects = subjects
            .into_iter()
            .map(|Subject { name, quotas }| Subject {
                name,
                quotas: Quotas {
                    concurrent_requests: None,
                    ..quotas
                },
            });
        the_wait_is_true(subjects.collect(), steps, tokens).await;
    });
}
