//! A repeatable request that comes again is computed in the same steps and the same sequence.

use super::*;

fn enqueue(bench: &mut Bench, request: u64, prompt: &[Token], choices: u32, repeatable: bool) {
    let job = Job {
        prompts: vec![prompt.into()],
        choices,
        output_max: 9,
        scored: false,
        cache_salt: Some("a".into()),
        account: Arc::default(),
        weight: NonZeroU32::MIN,
        repeatable,
        drafts: false,
    };
    bench.scheduler.enqueue(RequestId(request), &job);
}

fn bench() -> Bench {
    let mut bench = Bench::new(400, 4);
    bench.scheduler.capacity.rows = 100;
    bench.scheduler.rows_max = 100;
    bench.budget = 100;
    bench
}

/// The steps of a request that is alone and gets three tokens.
fn steps(bench: &mut Bench, request: u64, prompt: &[Token], repeatable: bool) -> Vec<String> {
    enqueue(bench, request, prompt, 1, repeatable);
    let mut steps = Vec::new();
    let mut sampled = 0;
    while sampled < 3 {
        let step = bench.plan();
        sampled += step.sampled.len();
        let next = if sampled < 3 {
            Next::Token(9)
        } else {
            Next::Ended
        };
        let next = vec![next.into(); step.sampled.len()];
        bench.scheduler.commit(&step, &next);
        steps.push(describe(&step));
    }
    steps
}

#[test]
fn the_last_token_is_computed_alone_and_where_it_was() {
    let mut bench = bench();
    let prompt: Vec<Token> = (0..30).collect();
    let first = steps(&mut bench, 0, &prompt, true);
    assert_eq!(first, ["0:0+29", "0:29+1=0.0", "0:30+1=0.0", "0:31+1=0.0"]);
    let again = ["cut(0,29) 0:29+1=1.0", "0:30+1=1.0", "0:31+1=1.0"];
    assert_eq!(steps(&mut bench, 1, &prompt, true), again);
    // A request that isn't repeatable forks the kept sequence, whose answer stays there to be continued.
    let fork = ["fork(0→1,29) 1:29+1=2.0", "1:30+1=2.0", "1:31+1=2.0"];
    assert_eq!(steps(&mut bench, 2, &prompt, false), fork);
    assert_eq!(bench.scheduler.kept(), 1);
}

#[test]
fn what_others_go_on_from_stays() {
    let mut bench = bench();
    let prompt: Vec<Token> = (0..30).collect();
    let conversation: Vec<Token> = (0..60).collect();
    steps(&mut bench, 0, &conversation, true);
    // The prompt is the beginning of the kept one, not the same.
    let fork = ["fork(0→1,29) 1:29+1=1.0", "1:30+1=1.0", "1:31+1=1.0"];
    assert_eq!(steps(&mut bench, 1, &prompt, true), fork);
}

#[test]
fn beside_others_no_step_is_added() {
    let mut bench = bench();
    let prompt: Vec<Token> = (0..30).collect();
    enqueue(&mut bench, 0, &[50, 51, 52], 1, false);
    check(&mut bench, &["0:0+3=0.0"]);
    enqueue(&mut bench, 1, &prompt, 1, true);
    check(&mut bench, &["0:3+1=0.0 1:0+30=1.0"]);
}

#[test]
fn choices_share_the_step_of_the_last_token() {
    let mut bench = bench();
    let prompt: Vec<Token> = (0..30).collect();
    enqueue(&mut bench, 0, &prompt, 3, true);
    check(
        &mut bench,
        &[
            "0:0+29",
            "fork(0→1,29) fork(0→2,29) 0:29+1=0.0 1:29+1=0.1 2:29+1=0.2",
        ],
    );
}

#[test]
fn a_short_prompt_is_not_computed_again_elsewhere() {
    let mut bench = bench();
    let prompt = [1, 2, 3];
    let first = ["0:0+2", "0:2+1=0.0", "0:3+1=0.0", "0:4+1=0.0"];
    assert_eq!(steps(&mut bench, 0, &prompt, true), first);
    let again = ["cut(0,2) 0:2+1=1.0", "0:3+1=1.0", "0:4+1=1.0"];
    assert_eq!(steps(&mut bench, 1, &prompt, true), again);
    // For a request that isn't repeatable, so few tokens aren't worth a fork.
    let other = steps(&mut bench, 2, &prompt, false);
    assert_eq!(other, ["1:0+3=2.0", "1:3+1=2.0", "1:4+1=2.0"]);
}

#[test]
fn no_cell_becomes_free_while_it_runs_alone() {
    let mut bench = bench();
    // Kept sequences expire after two decode tokens.
    bench.scheduler = Scheduler::new(bench.scheduler.capacity, 0, Some(8));
    let (other, prompt): (Vec<Token>, Vec<Token>) = ((0..30).collect(), (50..80).collect());
    steps(&mut bench, 0, &other, false);
    let first = ["1:0+29", "1:29+1=1.0", "1:30+1=1.0", "1:31+1=1.0"];
    assert_eq!(steps(&mut bench, 1, &prompt, true), first);
    let again = ["cut(1,29) 1:29+1=2.0", "1:30+1=2.0", "1:31+1=2.0"];
    assert_eq!(steps(&mut bench, 2, &prompt, true), again);
    // The expired sequence is evicted when the next request begins.
    let next: Vec<Token> = (100..130).collect();
    let first = steps(&mut bench, 3, &next, true);
    assert!(first[0].starts_with("forget(0) "), "{first:?}");
    assert!(
        first[1..].iter().all(|step| !step.contains("forget")),
        "{first:?}"
    );
}

#[test]
fn room_is_made_before_it_runs() {
    let mut bench = bench();
    bench.scheduler = Scheduler::new(bench.scheduler.capacity, 9, Some(4_096));
    let full: Vec<Token> = (0..380).collect();
    steps(&mut bench, 0, &full, false);
    let prompt: Vec<Token> = (500..516).collect();
    // 400 cells, of which 382 are kept: 16 for the prompt and 9 for the answer aren't free.
    let first = steps(&mut bench, 1, &prompt, true);
    assert!(first[0].starts_with("cut(0,"), "{first:?}");
    assert!(
        first[1..].iter().all(|step| !step.contains("cut")),
        "{first:?}"
    );
}
