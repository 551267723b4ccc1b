//! A repeatable request that comes again is computed in the same steps and the same sequence.

use super::*;

fn enqueue(bench: &mut Bench, request: u64, prompt: &[Token], choices: u32, repeatable: bool) {
    let job = Job {
        prompts: vec![prompt.into()],
        choices,
        output_max: 9,
        scored: false,
        salt: Some("a".into()),
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
    // What isn't asked to be repeatable forks what is there, and leaves the answer for whoever goes on from it.
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
    // Its prompt is another's beginning, not the same.
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
