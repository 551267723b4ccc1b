//! Models whose sequences can be forked only at their end, through the whole engine except its thread: a prefix that
//! several requests share is computed about once, and the answers are the same as without the prefix cache.

#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy only knows those inside a function with #[test]"
)]

use std::time::Duration;

use futures::FutureExt;
use weir_engine::event::{self, Event};
use weir_engine::request::{Choices, Input, Prompt, Request, Sampling, SamplingFields};
use weir_inference::local::{CacheSharing, Core, Progress};
use weir_inference::model::{Capacity, Forks};
use weir_inference::prepared::PreparedRequest;
use weir_inference::sim::{self, LateMasks, SimModel, SimOptions};

const STEM: u32 = 300;
const OWN: u32 = 20;
const REQUESTS: u32 = 8;
const OUTPUT: u32 = 10;

/// Requests with a common stem and tokens of their own, of only a few letters, so that some of these begin alike, too.
fn prepared(request: u32, choices: u32) -> PreparedRequest {
    let stem = (0..STEM).map(|at| 65 + (at * at) % 23);
    let own = (0..OWN).map(|at| 70 + (request >> (at % 4)) % 2);
    let prompt: Vec<u32> = stem.chain(own).collect();
    let fields = SamplingFields {
        seed: Some(i64::from(request)),
        ..SamplingFields::default()
    };
    let request = Request {
        sampling: Sampling::new(fields).unwrap(),
        choices: Choices::new(i64::from(choices)).unwrap(),
        ..Request::new(Input::Prompts(vec![Prompt::Tokens(prompt.clone())]))
    };
    PreparedRequest::new(request, vec![prompt.into()], OUTPUT)
}

/// The answers to all requests, and the tokens of the batches that computed them.
fn run(prefix_cache: CacheSharing, choices: u32, sequences: u32, apart: u32) -> (Vec<String>, u64) {
    let model = SimModel::new(SimOptions {
        capacity: Capacity {
            sequences,
            rows: 64,
            forks: Forks::AtEnd,
            ..SimOptions::default().capacity
        },
        end_probability: 0.0,
        chat: false,
        ..SimOptions::default()
    });
    let probe = model.probe();
    let mut options = sim::options();
    options.prefix_cache = prefix_cache;
    let clock = Box::new(|| Duration::ZERO);
    let mut core = Core::new(model, &options, Box::new(LateMasks::default()), clock);
    let mut all = Vec::new();
    for request in 0..REQUESTS {
        let (sender, events) = event::channel(event::EVENTS_MAX);
        core.start(prepared(request, choices), sender);
        all.push(events);
        for _ in 0..apart {
            core.step();
        }
    }
    let mut texts = vec![String::new(); (REQUESTS * choices) as usize];
    loop {
        let progress = core.step();
        for (request, events) in (0..).zip(&mut all) {
            while let Some(Some(event)) = events.next().now_or_never() {
                if let Event::Text { choice, text, .. } = event {
                    texts[(request * choices + choice) as usize].push_str(&text);
                }
            }
        }
        if progress == Progress::Idle {
            return (texts, probe.rows());
        }
    }
}

#[test]
fn a_common_beginning_is_computed_about_once() {
    // The second request is the first to show where prompts differ: a request that is far ahead by then computes the stem
    // for itself.
    for (choices, sequences, apart, stems) in [
        (1, 16, 0, 1),
        (3, 16, 0, 1),
        (3, 6, 0, 2),
        (1, 16, 3, 1),
        (2, 16, 100, 2),
    ] {
        let case = (choices, sequences, apart);
        let (expected, all) = run(CacheSharing::Off, choices, sequences, apart);
        let (texts, rows) = run(CacheSharing::Account, choices, sequences, apart);
        assert_eq!(texts, expected, "{case:?}");
        let answers = u64::from(REQUESTS * choices * OUTPUT);
        let (stem, own) = (u64::from(STEM), u64::from(REQUESTS * OWN));
        // Without the cache each request computes its prompt about once, for all its choices: if no sequence is free to
        // hold the state, another choice computes the prompt again.
        let prompts = u64::from(REQUESTS) * stem + own;
        assert!(
            all >= prompts && all < prompts + prompts / 4 + answers,
            "{case:?}: {all} rows"
        );
        // A choice whose state is gone computes the rest of its prompt.
        let most = stems * stem + own + answers + own;
        assert!(rows <= most, "{case:?}: {rows} rows, {most} expected");
    }
}
