//! Prompts that are computed by background prefill.

use super::*;
use crate::model::AsideCapacity;

/// A bench whose model computes background chunks of up to 10 tokens, if at least 6 are left, within the first 40
/// tokens.
fn bench(cells: u32) -> Bench {
    let mut bench = Bench::new(cells, 4);
    bench.scheduler.aside.capacity = Some(AsideCapacity {
        rows: 10,
        rows_min: 6,
        tokens: 40,
    });
    bench
}

fn enqueue(bench: &mut Bench, request: u64, account: &str, prompt: Range<u32>) {
    let job = Job {
        prompts: vec![prompt.collect()],
        choices: 1,
        output_max: 9,
        scored: false,
        cache_salt: Some(Arc::from("salt")),
        account: Arc::from(account),
        weight: NonZeroU32::MIN,
        repeatable: false,
        drafts: false,
    };
    bench.scheduler.enqueue(RequestId(request), &job);
}

/// Plans and commits a step; describes it and the background chunk that begins with it.
fn step(bench: &mut Bench) -> String {
    let step = bench.plan();
    let next: Vec<_> = step.sampled.iter().map(|_| Next::Token(9).into()).collect();
    bench.scheduler.commit(&step, &next);
    let rows = describe(&step);
    match (step.aside.first(), step.aside.len()) {
        (Some(first), count) => {
            let piece = format!("aside {}:{}+{count}", first.sequence.0, first.position);
            [rows, piece].join(" ").trim().to_owned()
        }
        (None, _) => rows,
    }
}

#[test]
fn a_long_prompt_is_computed_aside_and_its_last_token_in_a_step() {
    let mut bench = bench(100);
    enqueue(&mut bench, 0, "a", 0..3);
    assert_eq!(step(&mut bench), "0:0+3=0.0");
    enqueue(&mut bench, 1, "a", 100..126);
    // 25 tokens are three chunks.
    assert_eq!(step(&mut bench), "0:3+1=0.0 aside 1:0+10");
    assert_eq!(step(&mut bench), "0:4+1=0.0");
    assert_eq!(
        (
            bench.scheduler.aside(),
            bench.scheduler.kv().reserved_cells()
        ),
        (Some(RequestId(1)), 10)
    );
    assert_eq!(bench.scheduler.commit_aside(), 10);
    assert_eq!(step(&mut bench), "0:5+1=0.0 aside 1:10+8");
    bench.scheduler.commit_aside();
    assert_eq!(step(&mut bench), "0:6+1=0.0 aside 1:18+7");
    assert!(bench.scheduler.awaits_aside(|_| 1));
    bench.scheduler.commit_aside();
    assert!(!bench.scheduler.awaits_aside(|_| 1));
    assert_eq!(step(&mut bench), "0:7+1=0.0 1:25+1=1.0");
    assert_eq!(bench.scheduler.kv().used_cells(), 8 + 26);
}

#[test]
fn what_is_beyond_or_short_or_scored_is_computed_in_steps() {
    let mut bench = bench(100);
    enqueue(&mut bench, 0, "a", 0..46);
    for piece in 0..4 {
        assert_eq!(step(&mut bench), format!("aside 0:{}+10", piece * 10));
        bench.scheduler.commit_aside();
    }
    assert_eq!(step(&mut bench), "0:40+6=0.0");
    enqueue(&mut bench, 1, "a", 100..106);
    assert_eq!(step(&mut bench), "0:46+1=0.0 1:0+6=1.0");
    bench.enqueue_scored(2, 14, 1);
    assert_eq!(step(&mut bench), "0:47+1=0.0 1:6+1=1.0 2:0+10");
}

/// A second prompt of the same account waits for its turn; another account's prompt is computed in steps.
#[test]
fn one_piece_is_under_way_at_a_time() {
    let mut bench = bench(200);
    enqueue(&mut bench, 0, "a", 0..21);
    enqueue(&mut bench, 1, "a", 100..121);
    assert_eq!(step(&mut bench), "aside 0:0+10");
    // The waiting request holds no sequence meanwhile.
    assert_eq!(bench.scheduler.kv().free_sequences(), 3);
    assert!(bench.scheduler.awaits_aside(|_| 0));
    enqueue(&mut bench, 2, "b", 200..221);
    assert_eq!(step(&mut bench), "1:0+8");
    bench.scheduler.commit_aside();
    assert_eq!(step(&mut bench), "1:8+8 aside 0:10+10");
    bench.scheduler.commit_aside();
    assert_eq!(step(&mut bench), "0:20+1=0.0 1:16+5=2.0 aside 2:0+10");
}

#[test]
fn who_is_gone_has_nothing_under_way() {
    let mut bench = bench(100);
    enqueue(&mut bench, 0, "a", 0..21);
    enqueue(&mut bench, 1, "a", 100..121);
    assert_eq!(step(&mut bench), "aside 0:0+10");
    bench.scheduler.remove(RequestId(0));
    assert_eq!(
        (
            bench.scheduler.aside(),
            bench.scheduler.kv().reserved_cells()
        ),
        (None, 0)
    );
    assert_eq!(step(&mut bench), "aside 0:0+10");
    bench.scheduler.discard(RequestId(1));
    assert_eq!(
        (bench.scheduler.aside(), step(&mut bench)),
        (None, String::new())
    );
}

/// After steps have computed a part of the prompt, a chunk of a few tokens isn't worth copying all its cells.
#[test]
fn what_has_gone_on_in_steps_is_long_again_or_ends_there() {
    let mut bench = bench(200);
    enqueue(&mut bench, 0, "a", 0..31);
    assert_eq!(step(&mut bench), "aside 0:0+10");
    bench.scheduler.commit_aside();
    let aside = bench.scheduler.aside.capacity.take();
    assert_eq!(step(&mut bench), "0:10+8");
    assert_eq!(step(&mut bench), "0:18+8");
    bench.scheduler.aside.capacity = aside;
    // Four tokens are left before the last one; six would be worth a chunk.
    assert_eq!(step(&mut bench), "0:26+5=0.0");
}

#[test]
fn what_is_refused_goes_on_in_steps() {
    let mut bench = bench(100);
    enqueue(&mut bench, 0, "a", 0..21);
    assert_eq!(step(&mut bench), "aside 0:0+10");
    bench.scheduler.refuse_aside();
    assert_eq!(step(&mut bench), "0:0+8");
    assert_eq!(step(&mut bench), "0:8+8");
    assert_eq!(step(&mut bench), "0:16+5=0.0");
}

/// Other choices can't use the reserved cells; a choice that needs cells preempts the youngest.
#[test]
fn cells_of_what_is_under_way_are_spoken_for() {
    let mut bench = bench(28);
    enqueue(&mut bench, 0, "a", 0..5);
    assert_eq!(step(&mut bench), "0:0+5=0.0");
    enqueue(&mut bench, 1, "a", 100..119);
    assert_eq!(step(&mut bench), "0:5+1=0.0 aside 1:0+10");
    bench.scheduler.commit_aside();
    assert_eq!(step(&mut bench), "0:6+1=0.0 aside 1:10+8");
    assert_eq!(bench.scheduler.kv().free_cells(), 3);
    for at in 7..10 {
        assert_eq!(step(&mut bench), format!("0:{at}+1=0.0"));
    }
    assert_eq!(step(&mut bench), "forget(1) 0:10+1=0.0");
    assert_eq!(bench.scheduler.aside(), None);
    assert_eq!(bench.scheduler.preemptions(), 1);
}
