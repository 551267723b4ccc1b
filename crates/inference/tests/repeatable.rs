//! The same request is sent twice, one after the other, to a model whose kernels round differently for one token of the
//! batch than for several. The second time its prompt is in the prefix cache.

#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy only knows those inside a function with #[test]"
)]

use weir_engine::request::{OutputLimit, Overflow, Prompt, Sampling, SamplingFields};
use weir_engine::{Event, Input, Request};
use weir_inference::local::{CacheSharing, LocalEngine, Speculation};
use weir_inference::model::AsideCapacity;
use weir_inference::sim::{self, SimModel, SimOptions};

/// Pairs of equal requests of each kind.
const PAIRS: u64 = 40;
/// Tokens of each answer.
const TOKENS: u32 = 24;

/// The settings of a model, and the requests that are sent to it.
#[derive(Debug, Clone, Copy)]
struct Kind {
    speculation: Speculation,
    /// Whether long prompts are computed by background prefill.
    aside: bool,
    prompt_tokens: u32,
    /// Tokens with which all prompts begin.
    common_tokens: u32,
    temperature: f64,
    /// Whether the second answer sometimes differs from the first, if the request isn't repeatable.
    differs: bool,
}

const PLAIN: Kind = Kind {
    speculation: Speculation::Off,
    aside: false,
    prompt_tokens: 30,
    common_tokens: 0,
    temperature: 1.0,
    differs: true,
};

const KINDS: &[Kind] = &[
    PLAIN,
    Kind {
        temperature: 0.0,
        ..PLAIN
    },
    Kind {
        speculation: Speculation::Ngram,
        ..PLAIN
    },
    Kind {
        prompt_tokens: 700,
        ..PLAIN
    },
    Kind {
        prompt_tokens: 100,
        common_tokens: 60,
        ..PLAIN
    },
    // Background prefill computes the last token of a prompt alone in any case.
    Kind {
        prompt_tokens: 700,
        aside: true,
        differs: false,
        ..PLAIN
    },
    // Prefixes this short aren't cached.
    Kind {
        prompt_tokens: 2,
        differs: false,
        ..PLAIN
    },
];

#[tokio::test]
async fn a_repeatable_request_has_the_same_answer_again() {
    for &kind in KINDS {
        assert_eq!(differing(kind, true).await, 0, "{kind:?}");
    }
}

/// Otherwise the test above would prove nothing.
#[tokio::test]
async fn other_requests_have_another_answer_now_and_then() {
    for &kind in KINDS {
        assert_eq!(differing(kind, false).await > 0, kind.differs, "{kind:?}");
    }
}

/// The number of pairs whose answers differ.
async fn differing(kind: Kind, repeatable: bool) -> usize {
    let engine = engine(kind);
    let mut differing = 0;
    for number in 0..PAIRS {
        let request = request(kind, number, repeatable);
        let first = answer(&engine, request.clone()).await;
        differing += usize::from(first != answer(&engine, request).await);
    }
    engine.stop_and_wait();
    differing
}

fn engine(kind: Kind) -> LocalEngine {
    let model = SimModel::new(SimOptions {
        aside: kind.aside.then_some(AsideCapacity {
            rows: 256,
            rows_min: 256,
            tokens: 4_096,
        }),
        end_probability: 0.0,
        habit: 0.5,
        noise: true,
        ..SimOptions::default()
    });
    let mut options = sim::options();
    options.prefix_cache = CacheSharing::Account;
    options.speculation = kind.speculation;
    LocalEngine::spawn(model, options).unwrap()
}

fn request(kind: Kind, number: u64, repeatable: bool) -> Request {
    let own = kind.common_tokens..kind.prompt_tokens;
    let own = own.map(|at| 65 + (at * 7 + u32::try_from(number).unwrap() * (at % 5 + 1)) % 26);
    let prompt = (0..kind.common_tokens).map(|at| 65 + at % 26).chain(own);
    let fields = SamplingFields {
        temperature: Some(kind.temperature),
        seed: Some(i64::try_from(number).unwrap()),
        ..SamplingFields::default()
    };
    Request {
        sampling: Sampling::new(fields).unwrap(),
        output: OutputLimit {
            tokens: Some(TOKENS),
            overflow: Overflow::Refuse,
        },
        repeatable,
        ..Request::new(Input::Prompts(vec![Prompt::Tokens(prompt.collect())]))
    }
}

async fn answer(engine: &LocalEngine, request: Request) -> String {
    let prepared = engine.render(request).await.unwrap();
    let mut events = engine.start(prepared).unwrap();
    let mut answer = String::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Text { text, .. } => answer.push_str(&text),
            Event::Failed(error) => panic!("{error}"),
            Event::Prompt { .. } | Event::Done(_) | Event::Finished { .. } | Event::Call { .. } => {
            }
        }
    }
    answer
}
