//! Prefix sharing where sequences fork only at their end.

use super::*;

/// A bench with [`Forks::AtEnd`] and steps of up to 100 tokens.
fn bench(cells: u32, sequences: u32) -> Bench {
    let capacity = Capacity {
        cells,
        sequences,
        rows: 100,
        outputs: 16,
        batching: Batching::Together,
        forks: Forks::AtEnd,
    };
    Bench {
        scheduler: Scheduler::new(capacity, 0, Some(4_096)),
        budget: 100,
        rows: 0,
        blocked: None,
    }
}

fn enqueue(bench: &mut Bench, request: u64, prompt: impl IntoIterator<Item = Token>, choices: u32) {
    let job = Job {
        prompts: vec![prompt.into_iter().collect()],
        choices,
        output_max: 9,
        scored: false,
        cache_salt: Some("a".into()),
        account: Arc::default(),
        weight: NonZeroU32::MIN,
        repeatable: false,
        drafts: true,
    };
    bench.scheduler.enqueue(RequestId(request), &job);
}

/// Runs until nothing is left; each choice ends after one token. Returns the steps, and the cached tokens of the
/// prompts that were sampled.
fn run(bench: &mut Bench) -> (Vec<String>, Vec<u32>) {
    let (mut steps, mut cached) = (Vec::new(), Vec::new());
    loop {
        let step = bench.plan();
        if step.rows.is_empty() {
            return (steps, cached);
        }
        cached.extend(step.sampled.iter().map(|sampled| sampled.cached));
        let ended = vec![Next::Ended.into(); step.sampled.len()];
        bench.scheduler.commit(&step, &ended);
        steps.push(describe(&step));
    }
}

/// A prompt pauses before its last token as long as other choices of it wait, even without a salt.
#[test]
fn choices_fork_the_prompt_where_it_pauses() {
    let mut bench = bench(400, 8);
    bench.enqueue(0, 5, 3, 9);
    check(
        &mut bench,
        &[
            "0:0+4",
            // The first fork is the snapshot for choices that don't fit this step; it is evicted when no choice waits.
            "fork(0→1,4) fork(1→2,4) fork(1→3,4) forget(1) 0:4+1=0.0 2:4+1=0.1 3:4+1=0.2",
            "0:5+1=0.0 2:5+1=0.1 3:5+1=0.2",
        ],
    );
    assert_eq!(bench.scheduler.kept(), 0);
    // The last choice takes the snapshot over if no other sequence is free; those before it wait for one.
    let last = "fork(0→1,29) fork(1→2,29) 0:29+1=0.0 2:29+1=0.1 1:29+1=0.2";
    let first = "fork(0→1,29) fork(1→2,29) 0:29+1=0.0 2:29+1=0.1";
    let then = "forget(0) forget(2) fork(1→0,29) fork(1→2,29) forget(1) 0:29+1=0.2 2:29+1=0.3";
    for (choices, steps) in [(3, vec![last]), (4, vec![first, then])] {
        let mut bench = self::bench(400, 3);
        bench.enqueue(0, 30, choices, 9);
        check(&mut bench, &["0:0+29"]);
        assert_eq!(run(&mut bench).0, steps);
        assert_eq!(bench.scheduler.kept(), 0);
        assert_eq!(bench.scheduler.kv().used_cells(), 0);
    }
}

/// Requests that diverge after 40 tokens compute these once: the first one pauses there, and the others wait for it.
#[test]
fn a_common_beginning_is_computed_once() {
    let mut bench = bench(1_000, 8);
    let prompt = |request: u32| (0..40).chain([100 + request]).chain(50..60);
    (0..3).for_each(|request| enqueue(&mut bench, u64::from(request), prompt(request), 1));
    let (steps, cached) = run(&mut bench);
    assert_eq!(
        steps,
        [
            "0:0+40",
            "fork(0→1,40) fork(1→2,40) fork(1→3,40) 0:40+11=0.0 2:40+11=1.0 3:40+11=2.0",
        ]
    );
    assert_eq!(cached, [0, 40, 40]);
    // Later requests reuse the snapshot as well, and it stays for those after them.
    for request in 3..5 {
        enqueue(&mut bench, u64::from(request), prompt(request), 1);
        assert_eq!(run(&mut bench).1, [40]);
    }
    // A request that arrives while the prompt is computed lets it pause at the branch point.
    bench.scheduler.forget_kept();
    bench.scheduler.take_cache_ops();
    bench.budget = 12;
    enqueue(&mut bench, 5, prompt(5), 1);
    check(&mut bench, &["0:0+12"]);
    enqueue(&mut bench, 6, prompt(6), 1);
    bench.budget = 100;
    check(&mut bench, &["0:12+28"]);
    assert_eq!(run(&mut bench).1, [0, 40]);
}

/// The next turn of a conversation continues where the last one ended, and a third request finds where two have
/// diverged.
#[test]
fn ends_are_gone_on_from_and_branches_are_found() {
    let mut bench = bench(1_000, 8);
    enqueue(&mut bench, 0, 0..30, 1);
    bench.step();
    let (steps, _) = run(&mut bench);
    assert_eq!(steps, ["0:30+1=0.0"]);
    // The answer was a 9.
    enqueue(&mut bench, 1, (0..30).chain([9, 50, 51]), 1);
    assert_eq!(run(&mut bench), (vec!["0:31+2=1.0".to_owned()], vec![31]));
    // There is no state for a request that diverges earlier; but it leaves a snapshot at that point.
    enqueue(&mut bench, 2, (0..25).chain([70, 71]), 1);
    let (steps, cached) = run(&mut bench);
    assert_eq!(steps, ["1:0+25", "fork(1→2,25) 1:25+2=2.0"]);
    assert_eq!(cached, [0]);
    enqueue(&mut bench, 3, (0..25).chain([80, 81]), 1);
    assert_eq!(run(&mut bench).1, [25]);
    // A state of more tokens is of no use to a prompt that is a prefix of them.
    enqueue(&mut bench, 4, 0..20, 1);
    assert_eq!(run(&mut bench).1, [0]);
}

/// A turn that continues differently from the generated answer marks the end of its prompt: so will the turn after it.
#[test]
fn conversations_whose_answers_are_changed_share_their_prompts() {
    let mut bench = bench(1_000, 8);
    let mut turn = |number: u64| {
        let prompt = (0..=number).flat_map(|turn| (0..30).map(move |n| 100 * turn as Token + n));
        enqueue(&mut bench, number, prompt, 1);
        loop {
            let step = bench.plan();
            let said = vec![Next::Token(9).into(); step.sampled.len()];
            bench.scheduler.commit(&step, &said);
            if let Some(sampled) = step.sampled.first() {
                run(&mut bench);
                return sampled.cached;
            }
        }
    };
    // The second turn notices this, and those after it reuse the snapshots.
    assert_eq!([0, 1, 2, 3].map(&mut turn), [0, 0, 59, 89]);
}

/// Kept sequences are never truncated: when cells are needed, whole ones are evicted, and also when an id is needed.
#[test]
fn what_is_kept_makes_way_as_a_whole() {
    let mut bench = bench(100, 3);
    for request in 0..2 {
        let first = 100 * u32::try_from(request).unwrap();
        enqueue(&mut bench, request, first..first + 30, 1);
        run(&mut bench);
    }
    enqueue(&mut bench, 2, 500..550, 1);
    let (steps, _) = run(&mut bench);
    assert_eq!(steps, ["forget(0) 2:0+50=2.0"]);
    enqueue(&mut bench, 3, 600..610, 1);
    enqueue(&mut bench, 4, 700..710, 1);
    let (steps, _) = run(&mut bench);
    assert_eq!(steps, ["forget(1) 0:0+10=3.0 1:0+10=4.0"]);
}

/// After the cache's content is lost, the scheduler counts on none of it.
#[test]
fn a_cache_that_was_lost_is_computed_again() {
    let mut bench = bench(400, 8);
    enqueue(&mut bench, 0, 0..30, 1);
    run(&mut bench);
    enqueue(&mut bench, 1, 100..130, 3);
    check(&mut bench, &["1:0+29"]);
    bench.step();
    bench.scheduler.lost();
    assert_eq!(
        (bench.scheduler.kept(), bench.scheduler.kv().used_cells()),
        (0, 0)
    );
    bench.scheduler.take_cache_ops();
    // The prompt is computed again, once, and so is the token generated after it.
    check(
        &mut bench,
        &[
            "0:0+29",
            "fork(0→1,29) fork(1→2,29) fork(1→3,29) 0:29+2=1.0 2:29+2=1.1 3:29+2=1.2",
        ],
    );
}
