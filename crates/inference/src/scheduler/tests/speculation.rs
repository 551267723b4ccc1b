use std::ops::RangeInclusive;

use proptest::prelude::*;

use super::*;

/// Enqueues a request of one choice with speculative decoding.
fn enqueue(scheduler: &mut Scheduler, request: u64, prompt: &[Token], output_max: u32) {
    let job = Job {
        prompts: vec![prompt.into()],
        choices: 1,
        output_max,
        scored: false,
        cache_salt: None,
        account: Arc::default(),
        weight: NonZeroU32::MIN,
        repeatable: false,
        drafts: true,
    };
    scheduler.enqueue(RequestId(request), &job);
}

fn scheduler(rows: u32, outputs: u32, cells: u32) -> Scheduler {
    let capacity = Capacity {
        cells,
        sequences: 8,
        rows,
        outputs,
        batching: Batching::Together,
        forks: Forks::Anywhere,
    };
    Scheduler::new(capacity, 0, Some(4_096))
}

fn plan(scheduler: &mut Scheduler, row_cost: f32, quota: u32) -> Step {
    let room = StepBudget {
        rows: 300,
        streams: 300,
        longest: 300,
        prompts: 300,
        row_cost: Some(row_cost),
    };
    scheduler.plan(room, |_| quota)
}

/// The draft tokens of the only choice.
fn drafted(step: &Step) -> Vec<Token> {
    let rows = step.drafted.values().cloned().flatten();
    rows.map(|row| step.rows[row].token).collect()
}

/// Generates `text`, whatever is drafted. Returns the drafts of all steps.
fn say(scheduler: &mut Scheduler, text: &[Token], row_cost: f32) -> Vec<Vec<Token>> {
    let (mut said, mut drafts) = (0, Vec::new());
    while said < text.len() {
        let step = plan(scheduler, row_cost, u32::MAX);
        let draft = drafted(&step);
        let right = draft.iter().zip(&text[said..text.len() - 1]);
        let accepted = right.take_while(|(a, b)| a == b).count();
        said += accepted + 1;
        let chosen = Chosen {
            accepted: u32::try_from(accepted).unwrap(),
            next: Next::Token(text[said - 1]),
        };
        scheduler.commit(&step, &[chosen]);
        let lengths = scheduler.running.values();
        let lengths = lengths.map(|(id, sequence)| (scheduler.kv.length(*id), sequence.known()));
        for (there, known) in lengths {
            assert_eq!(there + 1, known, "what was wrong is not in the cache");
        }
        drafts.push(draft);
    }
    drafts
}

#[test]
fn drafts_are_what_followed() {
    // One more token costs next to nothing: everything that may come is drafted.
    let check = |prompt: &[Token], text: &[Token], first: &[&[Token]]| {
        let mut scheduler = scheduler(64, 64, 1_000);
        enqueue(&mut scheduler, 0, prompt, 40);
        let drafts = say(&mut scheduler, text, 0.0001);
        let drafts: Vec<_> = drafts
            .iter()
            .map(|draft| &draft[..draft.len().min(4)])
            .collect();
        assert_eq!(&drafts[..first.len()], first, "{prompt:?} {text:?}");
    };
    // The last tokens were nowhere before.
    check(&[1, 2, 3], &[4, 5], &[&[], &[]]);
    // The prompt ends with the two tokens that it began with, which are enough.
    check(&[1, 2, 3, 4, 5, 1, 2], &[3], &[&[3, 4, 5, 1]]);
    check(&[1, 2, 3, 4, 5, 2], &[3], &[&[]]);
    // A match of four tokens goes before one of two; of equal matches the last one counts.
    check(
        &[1, 2, 3, 4, 5, 3, 4, 9, 1, 2, 3, 4],
        &[0],
        &[&[5, 3, 4, 9]],
    );
    check(&[1, 2, 3, 4, 1, 2, 5, 6, 1, 2], &[0], &[&[5, 6, 1, 2]]);
    // Matches in the answer go before matches in the prompt.
    check(
        &[1, 2, 3, 4],
        &[1, 2, 7, 1, 2, 0],
        &[&[], &[], &[3, 4, 1, 2], &[], &[], &[7, 1, 2, 7]],
    );
    // A loop is continued.
    check(&[1, 7, 8, 7, 8], &[0], &[&[7, 8, 7, 8]]);
    // After a wrong prediction, its place isn't used any more.
    check(&[1, 2, 3, 4, 5, 1, 2], &[9, 8], &[&[3, 4, 5, 1], &[]]);
}

#[test]
fn drafts_are_as_long_as_they_are_worth_it() {
    let prompt: Vec<Token> = (0..40).chain(0..4).collect();
    // Checks the lengths of the second step's draft and of the longest later one, with all tokens as in the prompt
    // (`right`) or every fourth another.
    let check =
        |row_cost: f32, right: bool, second: RangeInclusive<usize>, late: RangeInclusive<usize>| {
            let mut scheduler = scheduler(64, 64, 1_000);
            enqueue(&mut scheduler, 0, &prompt, 200);
            let text: Vec<Token> = (0..60)
                .map(|i| {
                    if right || i % 4 != 3 {
                        (4 + i) % 40
                    } else {
                        100 + i
                    }
                })
                .collect();
            let drafts = say(&mut scheduler, &text, row_cost);
            let longest = drafts[drafts.len() / 2..]
                .iter()
                .map(Vec::len)
                .max()
                .unwrap();
            assert!(
                second.contains(&drafts[1].len()) && late.contains(&longest),
                "{} and {longest} at {row_cost}, {right}",
                drafts[1].len()
            );
        };
    check(0.02, true, 4..=16, 12..=16);
    check(0.3, true, 2..=2, 5..=16);
    check(0.3, false, 2..=2, 0..=2);
    check(2.0, false, 0..=0, 0..=0);
}

/// A prediction is compared with the token that comes even if it isn't drafted: at this cost, drafting is worth it only
/// after some were right.
#[test]
fn guesses_are_learnt_from_without_drafts() {
    let mut scheduler = scheduler(300, 64, 1_000);
    enqueue(&mut scheduler, 0, &(0..200).collect::<Vec<_>>(), 400);
    let drafts = say(&mut scheduler, &(0..20).collect::<Vec<_>>(), 2.0);
    let first = drafts.iter().position(|draft| !draft.is_empty());
    assert_eq!(first, Some(8), "{drafts:?}");
}

#[test]
fn a_full_cache_is_tried_without_drafts() {
    let mut scheduler = scheduler(64, 64, 100);
    enqueue(&mut scheduler, 0, &[1, 2, 3, 1, 2], 40);
    let step = plan(&mut scheduler, 0.02, u32::MAX);
    assert!(!drafted(&step).is_empty());
    assert_eq!(scheduler.cache_full(&step), []);
    let step = plan(&mut scheduler, 0.02, u32::MAX);
    assert!(drafted(&step).is_empty());
    assert_eq!((step.rows.len(), scheduler.preemptions()), (5, 0));
}

#[test]
fn reproducible_models_and_who_does_not_want_it_have_no_drafts() {
    let mut scheduler = scheduler(64, 64, 100);
    scheduler.capacity.batching = Batching::OneSequence;
    enqueue(&mut scheduler, 0, &[1, 2, 1, 2], 40);
    for _ in 0..10 {
        let step = plan(&mut scheduler, 0.02, u32::MAX);
        assert!(drafted(&step).is_empty());
        let chosen = vec![Next::Token(1).into(); step.sampled.len()];
        scheduler.commit(&step, &chosen);
    }

    let mut bench = Bench::new(100, 4);
    bench.enqueue(0, 3, 1, 40);
    for _ in 0..10 {
        let step = plan(&mut bench.scheduler, 0.02, u32::MAX);
        assert!(drafted(&step).is_empty());
        bench.scheduler.commit(&step, &[Next::Token(9).into()]);
    }
}

proptest! {
    /// Drafts take what is left of the batch, the outputs, the cells, the output tokens and the quota, and nothing else.
    #[test]
    fn drafts_stay_within_what_is_left(
        rows in 1..40u32, outputs in 1..20u32, cells in 30..120u32, quota in 1..9u32,
        room in 1..40u32, output_max in 1..12u32, requests in 1..6u64,
        right in prop::collection::vec(0..5u32, 40),
    ) {
        let mut scheduler = scheduler(rows, outputs.min(rows), cells);
        for request in 0..requests {
            enqueue(&mut scheduler, request, &[1, 2, 3, 1, 2, 3, 1, 2], output_max);
        }
        let mut generated = [0; 6];
        for right in right {
            let room = StepBudget { rows: room, streams: room, longest: room, prompts: 4, row_cost: Some(0.02) };
            let step = scheduler.plan(room, |_| quota);
            let drafted: usize = step.drafted.values().map(|rows| rows.len()).sum();
            let others = step.rows.len() - drafted;
            prop_assert!(step.rows.len() <= rows as usize);
            prop_assert!(step.rows.iter().filter(|row| row.output).count() <= outputs as usize);
            prop_assert!(drafted == 0 || step.rows.len() <= room.rows as usize);
            prop_assert!(step.rows.len() <= scheduler.kv().free_cells() as usize);
            prop_assert!(step.drafted.values().all(|drafted| drafted.start >= others));
            let mut chosen = Vec::new();
            for sampled in &step.sampled {
                let drafted = step.drafted.get(&sampled.choice).cloned().unwrap_or(0..0);
                let generated = &mut generated[sampled.choice.request.0 as usize];
                prop_assert!(drafted.len() < quota as usize);
                prop_assert!(*generated + drafted.len() < output_max as usize);
                let accepted = right.min(u32::try_from(drafted.len()).unwrap());
                *generated += accepted as usize + 1;
                let done = *generated == output_max as usize;
                let next = if done { Next::Ended } else { Next::Token(3) };
                chosen.push(Chosen { accepted, next });
            }
            scheduler.commit(&step, &chosen);
        }
        let running = scheduler.running.values();
        let used = running.map(|(id, _)| scheduler.kv.length(*id)).sum::<u32>();
        prop_assert_eq!(scheduler.kv().used_cells(), used);
    }
}
