use std::num::NonZeroU32;

use super::*;

mod aside;
mod fair;
mod prefix;
mod repeat;
mod snapshots;
mod speculation;

/// A scheduler whose steps always succeed; every choice continues with token 9.
struct Bench {
    scheduler: Scheduler,
    budget: u32,
    rows: u32,
    blocked: Option<u64>,
}

impl Bench {
    fn new(cells: u32, sequences: u32) -> Self {
        let capacity = Capacity {
            cells,
            sequences,
            rows: 16,
            outputs: 16,
            batching: Batching::Together,
            forks: Forks::Anywhere,
        };
        Bench {
            scheduler: Scheduler::new(capacity, 0, Some(4_096)),
            budget: 8,
            rows: 0,
            blocked: None,
        }
    }

    fn enqueue(&mut self, request: u64, prompt: usize, choices: u32, output_max: u32) {
        let prompt: Arc<[Token]> = (0..).take(prompt).collect();
        self.scheduler.enqueue(
            RequestId(request),
            &Job {
                prompts: vec![prompt],
                choices,
                output_max,
                scored: false,
                cache_salt: None,
                account: Arc::default(),
                weight: NonZeroU32::MIN,
                repeatable: false,
                drafts: false,
            },
        );
    }

    fn enqueue_scored(&mut self, request: u64, prompt: u32, choices: u32) {
        let job = Job {
            prompts: vec![(0..prompt).collect()],
            choices,
            output_max: 2,
            scored: true,
            cache_salt: None,
            account: Arc::default(),
            weight: NonZeroU32::MIN,
            repeatable: false,
            drafts: false,
        };
        self.scheduler.enqueue(RequestId(request), &job);
    }

    fn plan(&mut self) -> Step {
        let blocked = self.blocked;
        let budget = StepBudget {
            rows: self.rows,
            streams: self.rows,
            longest: u32::MAX,
            prompts: self.budget,
            row_cost: None,
        };
        self.scheduler.plan(budget, |request| {
            if Some(request.0) == blocked {
                0
            } else {
                u32::MAX
            }
        })
    }

    /// Plans and commits a step. Describes it: for each sequence `id:from+tokens`, and `=request.choice` if a choice is
    /// sampled.
    fn step(&mut self) -> String {
        let step = self.plan();
        let next: Vec<_> = step.sampled.iter().map(|_| Next::Token(9).into()).collect();
        self.scheduler.commit(&step, &next);
        describe(&step)
    }
}

fn describe(step: &Step) -> String {
    let mut words: Vec<String> = step
        .cache
        .iter()
        .map(|op| match op {
            CacheOp::Fork { from, to, length } => format!("fork({}→{},{length})", from.0, to.0),
            CacheOp::Truncate { sequence, length } => format!("cut({},{length})", sequence.0),
            CacheOp::Forget(id) => format!("forget({})", id.0),
        })
        .collect();
    let mut row = 0;
    for (_, count) in &step.advanced {
        let (from, id) = (step.rows[row].position, step.rows[row].sequence);
        row += *count as usize;
        let sampled = step.sampled.iter().find(|sampled| sampled.row + 1 == row);
        let choice = sampled.map_or(String::new(), |s| {
            format!("={}.{}", s.choice.request.0, s.choice.choice)
        });
        words.push(format!("{}:{from}+{count}{choice}", id.0));
    }
    words.join(" ")
}

fn check(bench: &mut Bench, steps: &[&str]) {
    for (number, expected) in steps.iter().enumerate() {
        assert_eq!(bench.step(), *expected, "step {number}");
    }
}

#[test]
fn prompts_come_in_chunks_beside_streams() {
    let mut bench = Bench::new(100, 4);
    bench.enqueue(0, 3, 1, 9);
    check(&mut bench, &["0:0+3=0.0", "0:3+1=0.0"]);
    bench.enqueue(1, 25, 1, 9);
    // One token of the stream and eight of the prompt are nine: the kernels would compute twelve anyway.
    check(
        &mut bench,
        &[
            "0:4+1=0.0 1:0+11",
            "0:5+1=0.0 1:11+11",
            "0:6+1=0.0 1:22+3=1.0",
            "0:7+1=0.0 1:25+1=1.0",
        ],
    );
    // A step never has more tokens than the model takes.
    bench.budget = 1000;
    bench.enqueue(2, 40, 1, 9);
    check(&mut bench, &["0:8+1=0.0 1:26+1=1.0 2:0+14"]);
}

#[test]
fn choices_fork_the_prompt() {
    let mut bench = Bench::new(100, 8);
    bench.enqueue(0, 5, 3, 9);
    check(
        &mut bench,
        &[
            "0:0+5=0.0",
            "fork(0→1,4) fork(0→2,4) 0:5+1=0.0 1:4+1=0.1 2:4+1=0.2",
            "0:6+1=0.0 1:5+1=0.1 2:5+1=0.2",
        ],
    );
    assert_eq!(bench.scheduler.kv().used_cells(), 4 + 3 + 2 + 2);
    bench.scheduler.remove(RequestId(0));
    assert_eq!(bench.scheduler.kv().used_cells(), 0);
    check(&mut bench, &["forget(0) forget(1) forget(2)"]);

    // A prompt of a single token has nothing to share.
    bench.enqueue(1, 1, 2, 9);
    check(&mut bench, &["0:0+1=1.0 1:0+1=1.1"]);
}

#[test]
fn choices_wait_for_sequences() {
    let mut bench = Bench::new(100, 2);
    bench.enqueue(0, 5, 3, 9);
    check(
        &mut bench,
        &["0:0+5=0.0", "fork(0→1,4) 0:5+1=0.0 1:4+1=0.1"],
    );
    let step = bench.plan();
    assert_eq!(describe(&step), "0:6+1=0.0 1:5+1=0.1");
    bench
        .scheduler
        .commit(&step, &[Next::Ended.into(), Next::Token(9).into()]);
    check(&mut bench, &["forget(0) fork(1→0,4) 1:6+1=0.1 0:4+1=0.2"]);

    // With a single sequence and nothing kept, the second choice computes the prompt again.
    let mut bench = Bench::new(100, 1);
    bench.enqueue(0, 5, 2, 9);
    check(&mut bench, &["0:0+5=0.0"]);
    let step = bench.plan();
    bench.scheduler.commit(&step, &[Next::Ended.into()]);
    check(&mut bench, &["forget(0) 0:0+5=0.1"]);
}

#[test]
fn a_full_cache_takes_from_the_youngest() {
    let mut bench = Bench::new(16, 4);
    bench.enqueue(0, 6, 1, 10);
    bench.enqueue(1, 6, 1, 10);
    check(
        &mut bench,
        &[
            "0:0+6=0.0 1:0+2",
            "0:6+1=0.0 1:2+4=1.0",
            "0:7+1=0.0 1:6+1=1.0",
        ],
    );
    // 17 tokens don't fit 16 cells; what request 1 has generated is computed again when request 0 is done.
    check(&mut bench, &["forget(1) 0:8+1=0.0", "0:9+1=0.0"]);
    let step = bench.plan();
    bench.scheduler.commit(&step, &[Next::Ended.into()]);
    check(&mut bench, &["forget(0) 0:0+8=1.0", "0:8+1=1.0"]);
    assert_eq!(bench.scheduler.preemptions(), 1);
}

#[test]
fn the_oldest_comes_in_first() {
    let mut bench = Bench::new(20, 4);
    bench.enqueue(0, 8, 1, 4);
    bench.enqueue(1, 13, 1, 4);
    bench.enqueue(2, 2, 1, 4);
    bench.budget = 1000;
    // Request 2 would fit, but request 1 was there before and needs the cells that request 2 would take.
    check(&mut bench, &["0:0+8=0.0", "0:8+1=0.0"]);
    bench.scheduler.remove(RequestId(0));
    check(&mut bench, &["forget(0) 0:0+13=1.0 1:0+2=2.0"]);
}

#[test]
fn whoever_cannot_go_on_makes_way() {
    let mut bench = Bench::new(10, 4);
    bench.enqueue(0, 8, 1, 2);
    check(&mut bench, &["0:0+8=0.0"]);
    bench.enqueue(1, 6, 1, 2);
    check(&mut bench, &["0:8+1=0.0"]);
    bench.blocked = Some(0);
    check(&mut bench, &["forget(0) 0:0+6=1.0", "0:6+1=1.0"]);
    bench.blocked = Some(1);
    check(&mut bench, &["forget(0) 0:0+8", "0:8+2=0.0"]);
    // If no choice is ready, none is preempted.
    bench.scheduler.remove(RequestId(1));
    bench.blocked = Some(0);
    check(&mut bench, &["", ""]);
}

#[test]
fn a_model_whose_cache_is_full_too_early() {
    let mut bench = Bench::new(100, 4);
    (0..3).for_each(|request| bench.enqueue(request, 6, 1, 10));
    bench.budget = 100;
    check(&mut bench, &["0:0+6=0.0 1:0+6=1.0 2:0+4"]);
    let step = bench.plan();
    assert_eq!(bench.scheduler.cache_full(&step), []);
    // The youngest is preempted, and not admitted again until another choice has ended.
    check(
        &mut bench,
        &["forget(2) 0:6+1=0.0 1:6+1=1.0", "0:7+1=0.0 1:7+1=1.0"],
    );
    let step = bench.plan();
    bench
        .scheduler
        .commit(&step, &[Next::Token(9).into(), Next::Ended.into()]);
    check(&mut bench, &["forget(1) 0:9+1=0.0 1:0+6=2.0"]);
}

#[test]
fn who_has_the_cache_alone_tries_fewer_rows_and_ends() {
    let mut bench = Bench::new(100, 4);
    bench.enqueue(0, 12, 1, 10);
    bench.budget = 100;
    for expected in ["0:0+12=0.0", "0:0+6", "0:0+3", "0:0+1"] {
        let step = bench.plan();
        assert_eq!(describe(&step), expected);
        let lost = bench.scheduler.cache_full(&step);
        assert_eq!(lost.len(), usize::from(expected == "0:0+1"));
    }
    assert!(!bench.scheduler.knows(RequestId(0)));
    assert_eq!(
        (
            bench.scheduler.kv().free_sequences(),
            bench.scheduler.decoding()
        ),
        (4, 0)
    );
}

#[test]
fn a_quota_is_kept_within_a_step() {
    let mut bench = Bench::new(100, 8);
    bench.enqueue(0, 1, 4, 9);
    let budget = StepBudget {
        rows: 100,
        streams: 100,
        longest: 100,
        prompts: 16,
        row_cost: None,
    };
    let step = bench.scheduler.plan(budget, |_| 3);
    assert_eq!(step.sampled.len(), 3);
    assert_eq!(bench.scheduler.not_begun().count(), 0);
}

/// Each position of a prompt but the last is scored once, and there are never more outputs than the
/// model has.
#[test]
fn prompts_are_scored_once_each() {
    let check = |outputs: u32, choices: u32, expected: &[&str]| {
        let mut bench = Bench::new(100, 4);
        bench.scheduler.capacity.outputs = outputs;
        bench.budget = 16;
        bench.enqueue(0, 2, 1, 50);
        bench.step();
        bench.enqueue_scored(1, 6, choices);
        for (number, expected) in expected.iter().enumerate() {
            let step = bench.plan();
            let used = step.rows.iter().filter(|row| row.output).count();
            assert_eq!(used, step.scored.len() + step.sampled.len());
            assert!(used <= outputs as usize);
            let scored: Vec<u32> = step.scored.iter().map(|scored| scored.position).collect();
            let next: Vec<_> = step.sampled.iter().map(|_| Next::Token(9).into()).collect();
            bench.scheduler.commit(&step, &next);
            assert_eq!(
                format!("{} {scored:?}", describe(&step)),
                *expected,
                "step {number}"
            );
        }
    };
    check(
        16,
        1,
        &[
            "0:2+1=0.0 1:0+6=1.0 [0, 1, 2, 3, 4]",
            "0:3+1=0.0 1:6+1=1.0 []",
        ],
    );
    check(
        4,
        1,
        &[
            "0:2+1=0.0 1:0+3 [0, 1, 2]",
            "0:3+1=0.0 1:3+3=1.0 [3, 4]",
            "0:4+1=0.0 1:6+1=1.0 []",
        ],
    );
    check(
        16,
        2,
        &[
            "0:2+1=0.0 1:0+6=1.0 [0, 1, 2, 3, 4]",
            "fork(1→2,5) 0:3+1=0.0 1:6+1=1.0 2:5+1=1.1 []",
        ],
    );
    // Positions that were scored before a preemption aren't scored again.
    let mut bench = Bench::new(100, 4);
    bench.budget = 4;
    bench.enqueue_scored(0, 9, 1);
    let step = bench.plan();
    bench.scheduler.commit(&step, &[]);
    bench.scheduler.preempt(ChoiceId {
        request: RequestId(0),
        choice: 0,
    });
    bench.budget = 16;
    let step = bench.plan();
    assert_eq!(step.rows.len(), 9);
    let scored: Vec<u32> = step.scored.iter().map(|scored| scored.position).collect();
    assert_eq!(scored, [4, 5, 6, 7]);
}

/// Sequences take turns. A prompt without its last token comes in chunks of four and a rest, and then one token a step.
#[test]
fn sequences_that_must_not_share_a_step_take_turns() {
    let mut bench = Bench::new(100, 3);
    let capacity = &mut bench.scheduler.capacity;
    capacity.batching = Batching::OneSequence;
    capacity.outputs = 4;
    bench.enqueue(0, 11, 1, 9);
    check(&mut bench, &["0:0+4", "0:4+4", "0:8+2", "0:10+1=0.0"]);
    bench.enqueue(1, 5, 2, 9);
    bench.enqueue(2, 1, 1, 9);
    check(
        &mut bench,
        &[
            "1:0+4",
            "fork(1→2,4) 2:4+1=1.1",
            "0:11+1=0.0",
            "1:4+1=1.0",
            "2:5+1=1.1",
            "0:12+1=0.0",
        ],
    );
    // A blocked request is passed over. Each generated token that is computed again has a step of its own.
    bench.blocked = Some(1);
    check(&mut bench, &["0:13+1=0.0", "0:14+1=0.0"]);
    bench.blocked = Some(0);
    bench.scheduler.remove(RequestId(1));
    check(&mut bench, &["forget(1) forget(2) 1:0+1=2.0"]);
    bench.blocked = None;
    bench.scheduler.preempt(ChoiceId {
        request: RequestId(0),
        choice: 0,
    });
    bench.blocked = Some(2);
    check(
        &mut bench,
        &[
            "forget(0) 0:0+4",
            "0:4+4",
            "0:8+2",
            "0:10+1",
            "0:11+1",
            "0:12+1",
            "0:13+1",
            "0:14+1",
            "0:15+1=0.0",
        ],
    );
}

/// A parked choice keeps its sequence and its cells, while others continue and are admitted.
#[test]
fn a_parked_choice_waits_and_nobody_waits_for_it() {
    let mut bench = Bench::new(20, 3);
    bench.enqueue(0, 4, 1, 6);
    let step = bench.plan();
    bench.scheduler.commit(&step, &[Next::Parked.into()]);
    assert_eq!(bench.scheduler.decoding(), 1);
    assert!(bench.plan().rows.is_empty());
    bench.enqueue(1, 3, 1, 3);
    check(&mut bench, &["1:0+3=1.0", "1:3+1=1.0"]);
    // The parked choice is older than the one that doesn't fit, so it keeps its cells.
    bench.enqueue(2, 12, 1, 3);
    check(&mut bench, &["1:4+1=1.0"]);
    let parked = ChoiceId {
        request: RequestId(0),
        choice: 0,
    };
    bench.scheduler.resume(parked, Next::Token(9));
    check(&mut bench, &["0:4+1=0.0 1:5+1=1.0"]);
    assert_eq!(bench.scheduler.preemptions(), 0);
}
