use super::*;
use crate::scheduler::prefix::PrefixCache;

/// Enqueues a request of one choice with these tokens and this salt.
fn enqueue(
    bench: &mut Bench,
    request: u64,
    cache_salt: &str,
    prompt: impl IntoIterator<Item = Token>,
) {
    let job = Job {
        prompts: vec![prompt.into_iter().collect()],
        choices: 1,
        output_max: 9,
        scored: false,
        cache_salt: Some(cache_salt.into()),
        account: Arc::default(),
        weight: NonZeroU32::MIN,
        repeatable: false,
        drafts: false,
    };
    bench.scheduler.enqueue(RequestId(request), &job);
}

/// Plans and commits a step in which every choice ends. Returns its description, and the cached tokens of each prompt.
fn last_step(bench: &mut Bench) -> (String, Vec<u32>) {
    let step = bench.plan();
    let next = vec![Next::Ended.into(); step.sampled.len()];
    bench.scheduler.commit(&step, &next);
    let cached = step.sampled.iter().map(|sampled| sampled.cached);
    (describe(&step), cached.collect())
}

fn bench(cells: u32, sequences: u32) -> Bench {
    let mut bench = Bench::new(cells, sequences);
    bench.scheduler.capacity.rows = 100;
    bench.scheduler.rows_max = 100;
    bench.budget = 100;
    bench
}

#[test]
fn what_is_kept_is_not_computed_again() {
    let mut bench = bench(200, 4);
    enqueue(&mut bench, 0, "a", 0..30);
    check(&mut bench, &["0:0+30=0.0"]);
    assert_eq!(last_step(&mut bench).0, "0:30+1=0.0");
    // The next turn of the conversation continues in the same cells, with the answer (a 9) in them.
    let turn = (0..30).chain([9, 50, 51]);
    enqueue(&mut bench, 1, "a", turn.clone());
    assert_eq!(last_step(&mut bench), ("0:31+2=1.0".to_owned(), vec![31]));
    // A prompt that diverges earlier forks the sequence, and the last token is always computed.
    enqueue(&mut bench, 2, "a", (0..25).chain([70]));
    enqueue(&mut bench, 3, "a", turn.clone());
    assert_eq!(
        last_step(&mut bench),
        (
            "fork(0→1,25) fork(0→2,32) 1:25+1=2.0 2:32+1=3.0".to_owned(),
            vec![25, 32]
        )
    );
    // A request with another salt reuses nothing, nor does a prompt that has little in common.
    enqueue(&mut bench, 4, "b", turn);
    enqueue(&mut bench, 5, "a", (0..15).chain([70]));
    let (_, cached) = last_step(&mut bench);
    assert_eq!(cached, [0, 0]);
    assert_eq!(
        bench.scheduler.kv().used_cells(),
        bench.scheduler.kv().idle_cells()
    );
    assert!(bench.scheduler.forget_kept());
    assert_eq!(bench.scheduler.kv().used_cells(), 0);
}

/// A request whose prefix is being computed waits for it; others pass.
#[test]
fn a_prefix_is_computed_once_while_it_is_computed() {
    let mut bench = bench(400, 8);
    bench.budget = 20;
    enqueue(&mut bench, 0, "a", 0..50);
    enqueue(&mut bench, 1, "a", (0..45).chain([70, 71]));
    enqueue(&mut bench, 2, "b", 0..8);
    check(
        &mut bench,
        &[
            "0:0+20",
            "0:20+20",
            // Five more common tokens are being computed, which isn't worth waiting for.
            "fork(0→1,40) 0:40+10=0.0 1:40+7=1.0 2:0+3",
        ],
    );
    // A blocked request isn't waited for.
    bench.scheduler.remove(RequestId(0));
    bench.scheduler.remove(RequestId(1));
    bench.scheduler.remove(RequestId(2));
    bench.scheduler.forget_kept();
    enqueue(&mut bench, 3, "a", 100..150);
    check(&mut bench, &["forget(2) forget(0) forget(1) 0:0+20"]);
    enqueue(&mut bench, 4, "a", 100..148);
    bench.blocked = Some(3);
    check(&mut bench, &["fork(0→1,20) 1:20+20"]);
}

#[test]
fn what_is_kept_makes_way() {
    let mut bench = bench(100, 3);
    for request in 0..3 {
        let first = 100 * u32::try_from(request).unwrap();
        enqueue(&mut bench, request, "a", first..first + 30);
        last_step(&mut bench);
    }
    assert_eq!(bench.scheduler.kept(), 3);
    // The second entry is used, so that the first is the least recently used.
    enqueue(&mut bench, 3, "a", 100..133);
    assert_eq!(last_step(&mut bench).1, [30]);
    enqueue(&mut bench, 4, "b", 500..510);
    let (step, _) = last_step(&mut bench);
    assert_eq!(step, "forget(0) 0:0+10=4.0", "it needs a sequence");
    enqueue(&mut bench, 5, "a", (200..230).chain(600..645));
    let (step, cached) = last_step(&mut bench);
    assert_eq!(step, "forget(0) cut(1,17) 2:30+45=5.0");
    assert_eq!(cached, [30]);
    // A cache that is full too early loses all kept sequences before a choice is preempted.
    enqueue(&mut bench, 6, "b", 700..705);
    let step = bench.plan();
    assert_eq!(bench.scheduler.cache_full(&step), []);
    assert_eq!(
        (bench.scheduler.kept(), bench.scheduler.preemptions()),
        (0, 0)
    );
}

/// The attention of each decode token passes over kept cells, so that nothing is kept for ever, and little where
/// nothing is reused.
#[test]
fn what_nobody_uses_is_let_go() {
    let mut bench = bench(80_000, 4);
    bench.enqueue(1, 1, 1, 78_000);
    bench.step();
    // Returns the number of decode tokens for which a sequence of 30 tokens from `first` on is kept, and its cached
    // tokens.
    let mut kept_for = |request: u64, first: u32| {
        enqueue(&mut bench, request, "a", first..first + 30);
        let step = bench.plan();
        bench
            .scheduler
            .commit(&step, &[Next::Token(9).into(), Next::Ended.into()]);
        let cached = step.sampled[1].cached;
        let mut rows = 0;
        while bench.scheduler.kept() > 0 {
            bench.step();
            rows += 1;
        }
        (rows, cached)
    };
    assert_eq!(kept_for(2, 100), (513, 0));
    assert_eq!(kept_for(3, 200), (449, 0), "an eighth less");
    // The entry that has expired would have been of use.
    assert_eq!(kept_for(4, 200), (785, 0));
    assert_eq!(kept_for(5, 200), (1_373, 0));
    let last = (0..40).map(|n| kept_for(10 + u64::from(n), 1_000 + 100 * n));
    assert_eq!(last.last(), Some((129, 0)));
}

/// With `ttl_tokens` of `None`, because attention skips kept cells.
#[test]
fn what_costs_nothing_is_kept_until_its_place_is_needed() {
    let mut bench = bench(80_000, 4);
    bench.scheduler.kept = PrefixCache::new(Forks::Anywhere, None);
    bench.enqueue(1, 1, 1, 78_000);
    bench.step();
    enqueue(&mut bench, 2, "a", 0..30);
    let step = bench.plan();
    let next = [Next::Token(9).into(), Next::Ended.into()];
    bench.scheduler.commit(&step, &next);
    (0..10_000).for_each(|_| drop(bench.step()));
    assert_eq!(bench.scheduler.kept(), 1);
    enqueue(&mut bench, 3, "a", 0..30);
    let cached: Vec<_> = bench.plan().sampled.iter().map(|it| it.cached).collect();
    assert_eq!(cached, [0, 29]);
}

/// With [`Batching::OneSequence`], only whole chunks are shared, but everything between equal prompts.
#[test]
fn pieces_are_shared_where_they_are_cut_alike() {
    let mut bench = bench(400, 8);
    bench.scheduler.capacity.batching = Batching::OneSequence;
    bench.scheduler.capacity.outputs = 8;
    let mut run = |request: u64, prompt: Vec<Token>| {
        enqueue(&mut bench, request, "a", prompt);
        let mut steps = Vec::new();
        while bench.scheduler.knows(RequestId(request)) {
            steps.push(last_step(&mut bench).0);
        }
        steps.join(", ")
    };
    assert_eq!(
        run(0, (0..30).collect()),
        "0:0+8, 0:8+8, 0:16+8, 0:24+5, 0:29+1=0.0"
    );
    assert_eq!(run(1, (0..31).collect()), "fork(0→1,24) 1:24+6, 1:30+1=1.0");
    assert_eq!(run(2, (0..30).collect()), "fork(0→2,29) 2:29+1=2.0");
}

/// Equal sequences are kept once.
#[test]
fn what_is_kept_already_is_not_kept_twice() {
    let mut bench = bench(400, 8);
    bench.budget = 100;
    let prompt: Arc<[Token]> = (0..30).collect();
    let job = Job {
        prompts: vec![prompt],
        choices: 4,
        output_max: 1,
        weight: NonZeroU32::MIN,
        repeatable: false,
        drafts: false,
        scored: false,
        cache_salt: Some("a".into()),
        account: "a".into(),
    };
    for (request, cache_salt, kept) in [(0, "a", 1), (1, "a", 1), (2, "b", 2)] {
        let cache_salt = Some(cache_salt.into());
        let job = Job {
            cache_salt,
            ..job.clone()
        };
        bench.scheduler.enqueue(RequestId(request), &job);
        for _ in 0..2 {
            let step = bench.plan();
            let ended = vec![Next::Ended.into(); step.sampled.len()];
            bench.scheduler.commit(&step, &ended);
        }
        assert!(!bench.scheduler.knows(RequestId(request)));
        assert_eq!(bench.scheduler.kept(), kept, "after request {request}");
        assert_eq!(bench.scheduler.kv().used_cells(), 30 * kept as u32);
    }
}
