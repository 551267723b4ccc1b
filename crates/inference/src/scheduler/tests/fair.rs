use std::collections::HashMap;

use super::*;

fn enqueue(bench: &mut Bench, request: u64, account: &str, prompt: u32, output_max: u32) {
    let job = Job {
        prompts: vec![(0..prompt).collect()],
        choices: 1,
        output_max,
        scored: false,
        cache_salt: None,
        account: account.into(),
        weight: NonZeroU32::MIN,
        repeatable: false,
        drafts: false,
    };
    bench.scheduler.enqueue(RequestId(request), &job);
}

/// An account that had many tokens goes after the others, which go in the order of arrival.
#[test]
fn who_had_less_comes_first() {
    let mut bench = Bench::new(400, 20);
    (0..3).for_each(|request| enqueue(&mut bench, request, "many", 12, 9));
    check(&mut bench, &["0:0+8"]);
    enqueue(&mut bench, 5, "one", 12, 9);
    enqueue(&mut bench, 6, "two", 12, 9);
    // All accounts are equals until one had many tokens.
    check(&mut bench, &["0:8+4=0.0 1:0+4"]);
    bench.scheduler.accounts.serve(&"many".into(), 6_200);
    check(
        &mut bench,
        &[
            "0:12+1=0.0 2:0+11",
            "0:13+1=0.0 2:11+1=5.0 3:0+10",
            "0:14+1=0.0 2:12+1=5.0 3:10+2=6.0 1:4+8=1.0",
        ],
    );
}

/// Beside other accounts, only a few streams of an account continue in each step, in turn; alone, all do.
#[test]
fn streams_beyond_a_few_make_way() {
    let mut bench = Bench::new(400, 20);
    (0..6).for_each(|request| enqueue(&mut bench, request, "many", 1, 50));
    bench.rows = 6;
    check(
        &mut bench,
        &["0:0+1=0.0 1:0+1=1.0 2:0+1=2.0 3:0+1=3.0 4:0+1=4.0 5:0+1=5.0"],
    );
    bench.scheduler.accounts.serve(&"many".into(), 6_200);
    enqueue(&mut bench, 6, "one", 15, 50);
    check(
        &mut bench,
        &[
            "0:1+1=0.0 1:1+1=1.0 6:0+10",
            "2:1+1=2.0 3:1+1=3.0 6:10+5=6.0",
            // The prompt of request 6 is computed, so that there is room for more streams.
            "0:2+1=0.0 1:2+1=1.0 2:2+1=2.0 4:1+1=4.0 5:1+1=5.0 6:15+1=6.0",
        ],
    );
}

/// An account's choices beyond its share are preempted for a lighter account, even if no choice ends.
#[test]
fn what_is_beyond_a_part_makes_way() {
    let mut bench = Bench::new(40, 20);
    (0..4).for_each(|request| enqueue(&mut bench, request, "many", 8, 4));
    bench.budget = 100;
    bench.scheduler.capacity.rows = 100;
    bench.scheduler.rows_max = 100;
    check(&mut bench, &["0:0+8=0.0 1:0+8=1.0 2:0+8=2.0 3:0+8=3.0"]);
    // Among equals, one choice makes way for an account that has none running, …
    enqueue(&mut bench, 4, "one", 6, 3);
    check(
        &mut bench,
        &["forget(3) 0:8+1=0.0 1:8+1=1.0 2:8+1=2.0 3:0+6=4.0"],
    );
    // … and none for that account's second choice.
    enqueue(&mut bench, 5, "one", 7, 3);
    check(&mut bench, &["0:9+1=0.0 1:9+1=1.0 2:9+1=2.0 3:6+1=4.0"]);
    bench.scheduler.accounts.serve(&"many".into(), 6_200);
    check(
        &mut bench,
        &["forget(2) 0:10+1=0.0 1:10+1=1.0 3:7+1=4.0 2:0+7=5.0"],
    );
    assert_eq!(bench.scheduler.preemptions(), 2);
    // The account's share is 20 cells: for more, it waits.
    enqueue(&mut bench, 6, "one", 11, 4);
    let choice = ChoiceId {
        request: RequestId(6),
        choice: 0,
    };
    assert_eq!(bench.scheduler.rival(choice, |_| false), None);
}

/// In a full cache it may be the turn of the youngest choice, which is preempted itself: then it is the other one's
/// turn.
#[test]
fn who_loses_its_cells_leaves_its_turn() {
    let mut bench = Bench::new(19, 20);
    (0..2).for_each(|request| enqueue(&mut bench, request, "many", 8, 9));
    bench.budget = 100;
    check(&mut bench, &["0:0+8=0.0 1:0+8=1.0"]);
    // A prompt that doesn't fit and is more than its account's share waits, and one stream a step continues beside it.
    enqueue(&mut bench, 2, "one", 12, 4);
    bench.scheduler.accounts.serve(&"many".into(), 10_000);
    check(
        &mut bench,
        &[
            "0:8+1=0.0",
            "1:8+1=1.0",
            "0:9+1=0.0",
            "forget(1) 0:10+1=0.0",
            "0:11+1=0.0",
        ],
    );
}

/// An account's counter decays while tokens are computed for others.
#[test]
fn counters_decay() {
    let mut bench = Bench::new(4_000, 20);
    enqueue(&mut bench, 0, "many", 8, 9);
    enqueue(&mut bench, 1, "one", 8, 9);
    let accounts = &mut bench.scheduler.accounts;
    accounts.serve(&"many".into(), 20_000);
    let first = |accounts: &Accounts| *accounts.by_class(|_| ())[0].1.choices.first().unwrap();
    assert_eq!(first(accounts).request, RequestId(1));
    let mut rows = 0;
    while first(accounts).request == RequestId(1) {
        enqueue_other(accounts, rows);
        rows += 1_024;
    }
    assert!((30_000..150_000).contains(&rows), "{rows}");
}

/// Another account has 1,024 tokens computed, and leaves.
fn enqueue_other(accounts: &mut Accounts, rows: u64) {
    let (name, choice) = (
        Arc::from(format!("other {rows}")),
        ChoiceId {
            request: RequestId(1_000 + rows),
            choice: 0,
        },
    );
    accounts.add(&name, NonZeroU32::MIN, choice);
    accounts.serve(&name, 1_024);
    accounts.remove(&name, choice);
}

/// Equals that only decode don't take turns: one long step serves all of them sooner than two short ones.
#[test]
fn equals_that_decode_share_a_step() {
    let mut bench = Bench::new(400, 20);
    (0..6).for_each(|request| enqueue(&mut bench, request, "one", 1, 50));
    (6..12).for_each(|request| enqueue(&mut bench, request, "two", 1, 50));
    (bench.rows, bench.budget) = (8, 16);
    let rows = |bench: &mut Bench| {
        let step = bench.plan();
        bench
            .scheduler
            .commit(&step, &vec![Next::Token(9).into(); step.sampled.len()]);
        step.sampled.len()
    };
    assert_eq!(rows(&mut bench), 12, "all begin");
    assert_eq!(rows(&mut bench), 12, "nobody waits");
    enqueue(&mut bench, 12, "one", 100, 50);
    assert_eq!(rows(&mut bench), 8, "a prompt has come");
    bench.scheduler.remove(RequestId(12));
    assert_eq!(rows(&mut bench), 12);
    // An account that had many tokens isn't an equal any more.
    bench.scheduler.accounts.serve(&"one".into(), 6_200);
    assert_eq!(rows(&mut bench), 8);
}

/// Two accounts that always have more to do get tokens by their weights.
#[test]
fn a_weight_is_a_part() {
    let check = |weights: [u32; 2], expected: std::ops::RangeInclusive<f64>| {
        let mut bench = Bench::new(400, 20);
        (bench.rows, bench.budget) = (16, 8);
        let mut next = 0;
        let mut add = |bench: &mut Bench, account: usize| {
            let job = Job {
                prompts: vec![(0..12).collect()],
                choices: 1,
                output_max: 8,
                scored: false,
                cache_salt: None,
                account: ["one", "two"][account].into(),
                weight: NonZeroU32::new(weights[account]).unwrap(),
                repeatable: false,
                drafts: false,
            };
            bench.scheduler.enqueue(RequestId(next), &job);
            next += 1;
            next - 1
        };
        let mut left: HashMap<u64, (usize, u32)> = HashMap::new();
        for account in [0, 1].repeat(30) {
            left.insert(add(&mut bench, account), (account, 8));
        }
        let mut ended = [0.0; 2];
        for _ in 0..20_000 {
            let step = bench.plan();
            let mut over = Vec::new();
            let chosen = step.sampled.iter().map(|sampled| {
                let (account, tokens) = left.get_mut(&sampled.choice.request.0).unwrap();
                *tokens -= 1;
                if *tokens > 0 {
                    return Next::Token(9).into();
                }
                over.push((sampled.choice.request.0, *account));
                Next::Ended.into()
            });
            bench.scheduler.commit(&step, &chosen.collect::<Vec<_>>());
            for (request, account) in over {
                left.remove(&request);
                left.insert(add(&mut bench, account), (account, 8));
                ended[account] += 1.0;
            }
        }
        let ratio = ended[0] / ended[1];
        assert!(expected.contains(&ratio), "{ratio} for {weights:?}");
    };
    check([1, 1], 0.9..=1.1);
    check([3, 1], 2.7..=3.3);
    check([1, 8], 0.11..=0.14);
}
