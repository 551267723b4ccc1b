//! Models with a recurrent state, alone (Mamba) or beside KV cells (Jamba; LFM2, with a sliding window): small ones with
//! random weights, whose tokens are letters.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::future::join_all;
use jiff::Timestamp;
use weir_engine::Token;
use weir_inference::local::{CacheSharing, LocalEngine, Options, Speculation};
use weir_inference::model::{BatchToken, DecodeError, Forks, Model, SequenceId};
use weir_llama::{EmbedOptions, KvFormat, KvLayout, LlamaModel, LoadOptions, Workload, load, open};

#[path = "support/common.rs"]
mod common;
use common::{answers, best, compute, distance, essay, rows, small, tiny, tiny_file, tokens};

const MODELS: [&str; 3] = ["mamba", "jamba", "lfm2"];
/// The largest accepted difference of logits: kernels add up in another order when a step has other tokens.
const NOISE: f32 = 1e-3;

fn options() -> LoadOptions {
    LoadOptions {
        cells: Some(2_048),
        sequences: Some(8),
        // A cache rounded to 16 bits would differ by more than `NOISE`.
        kv_format: KvFormat::F32,
        ..small()
    }
}

/// A prompt with its greedy answer, and the logits after the prompt and each token of the answer.
#[derive(Debug, Clone, PartialEq)]
struct Stream {
    known: Vec<Token>,
    computed: usize,
    logits: Vec<Vec<f32>>,
}

impl Stream {
    fn new(prompt: &[Token]) -> Self {
        Stream {
            known: prompt.to_vec(),
            computed: 0,
            logits: Vec::new(),
        }
    }

    fn step(&self, sequence: u32, chunk: usize) -> Vec<BatchToken> {
        let end = self.known.len().min(self.computed + chunk);
        let mut rows = rows(sequence, self.computed, &self.known[self.computed..end]);
        if let Some(last) = rows.last_mut() {
            last.output = end == self.known.len();
        }
        rows
    }

    fn assert_like(&self, other: &Stream, what: &str) {
        assert_eq!(self.known, other.known, "{what}");
        for (at, (a, b)) in self.logits.iter().zip(&other.logits).enumerate() {
            let apart = distance(a, b);
            assert!(apart < NOISE, "{what}: {apart} apart after {at} tokens");
        }
    }
}

/// Computes all streams side by side until each has `answer` tokens of its answer. The first stream is sequence `first`.
fn go_on(model: &mut LlamaModel, first: u32, streams: &mut [Stream], chunk: usize, answer: usize) {
    loop {
        let mut step = Vec::new();
        let mut last = Vec::new();
        for (sequence, stream) in (first..).zip(streams.iter_mut()) {
            let rows = if stream.logits.len() <= answer {
                stream.step(sequence, chunk)
            } else {
                Vec::new()
            };
            stream.computed += rows.len();
            step.extend(rows);
            last.push(step.len().wrapping_sub(1));
        }
        if step.is_empty() {
            return;
        }
        model.decode(&step).expect("the step fits");
        for (stream, row) in streams.iter_mut().zip(last) {
            if stream.computed == stream.known.len() && stream.logits.len() <= answer {
                let logits = model.logits(row).to_vec();
                stream.known.push(best(&logits));
                stream.logits.push(logits);
            }
        }
    }
}

fn alone(model: &mut LlamaModel, prompt: &[Token], answer: usize) -> Stream {
    let mut stream = [Stream::new(prompt)];
    go_on(model, 0, &mut stream, 100, answer);
    model.forget(SequenceId(0));
    let [stream] = stream;
    stream
}

fn prompts(model: &LlamaModel) -> Vec<Vec<Token>> {
    let essay = essay(120);
    [1, 7, 40, 121, 300]
        .map(|length| tokens(model, &essay[length..length * 2]))
        .into()
}

#[test]
fn what_they_say_of_themselves() {
    for (name, cells) in [("mamba", 32_768), ("jamba", 16_384), ("lfm2", 16_384)] {
        let model = tiny(
            name,
            &LoadOptions {
                threads: Some(1),
                ..LoadOptions::default()
            },
        );
        let capacity = model.capacity();
        assert_eq!((capacity.cells, capacity.sequences), (cells, 16), "{name}");
        assert_eq!(capacity.forks, Forks::AtEnd);
        assert_eq!(model.facts().context_tokens, 2_048);
        let check = |options: LoadOptions, expected: &str| {
            let error = load(&tiny_file(name), &options).expect_err("it can't be");
            assert_eq!(
                error.to_string(),
                format!("{expected} isn't possible with a recurrent or hybrid model")
            );
        };
        let split = LoadOptions {
            kv_layout: KvLayout::Split,
            ..options()
        };
        check(split, "kv_layout = \"split\"");
        let reproducible = LoadOptions {
            reproducible: true,
            ..options()
        };
        check(reproducible, "reproducible = true");
        let file = open(&tiny_file(name)).expect("it is a model");
        let error = file.embedder(&EmbedOptions::default()).unwrap_err();
        assert!(error.to_string().contains("recurrent or hybrid"), "{error}");
    }
}

/// Checks that the answers depend on early tokens; otherwise the other tests would show nothing.
#[test]
fn what_they_say_depends_on_what_was_long_ago() {
    for name in MODELS {
        let mut model = tiny(name, &options());
        let prompt = tokens(&model, &essay(10));
        let ends = [&prompt[..], &prompt[prompt.len() - 12..]];
        let [long, short] = ends.map(|end| {
            let logits = compute(&mut model, 0, 0, end, 512);
            model.forget(SequenceId(0));
            logits
        });
        let apart = distance(&long, &short);
        assert!(apart > 100.0 * NOISE, "{name}: {apart}");
    }
}

#[test]
fn in_chunks_and_side_by_side_they_say_what_each_says_alone() {
    for name in MODELS {
        let mut model = tiny(name, &options());
        let prompts = prompts(&model);
        let expected: Vec<_> = prompts
            .iter()
            .map(|prompt| alone(&mut model, prompt, 24))
            .collect();
        for chunk in [1, 3, 16, 25] {
            let mut streams: Vec<_> = prompts.iter().map(|prompt| Stream::new(prompt)).collect();
            go_on(&mut model, 2, &mut streams, chunk, 24);
            for (stream, expected) in streams.iter().zip(&expected) {
                stream.assert_like(expected, &format!("{name}, {chunk} rows"));
            }
            (2..7).for_each(|sequence| model.forget(SequenceId(sequence)));
        }
    }
}

/// A fork of a fork continues as if it had computed all its tokens, whatever happens to the other sequences.
#[test]
fn forks_at_the_end_go_on_alike() {
    for name in MODELS {
        let mut model = tiny(name, &options());
        let stem = tokens(&model, &essay(20));
        let ends = ["", " of stone", " and the quiet weather of"]
            .map(|end| tokens(&model, end)[1..].to_vec());
        let whole = ends.map(|end| [&stem[..], &end].concat());
        let expected = whole.clone().map(|prompt| alone(&mut model, &prompt, 16));

        // The common prefix in sequence 7, a snapshot of it in sequence 0, which is never computed, and three forks of the snapshot.
        let length = stem.len() as u32 - 1;
        compute(&mut model, 7, 0, &stem[..stem.len() - 1], 10);
        model.fork(SequenceId(7), SequenceId(0), length);
        compute(&mut model, 7, stem.len() - 1, &stem[..30], 7);
        for round in 0..2 {
            let mut streams = whole.clone().map(|prompt| Stream {
                computed: stem.len() - 1,
                ..Stream::new(&prompt)
            });
            (1..4).for_each(|to| model.fork(SequenceId(0), SequenceId(to), length));
            go_on(&mut model, 1, &mut streams, 4, 16);
            for (stream, expected) in streams.iter().zip(&expected) {
                stream.assert_like(expected, &format!("{name}, round {round}"));
            }
            (1..4).for_each(|sequence| model.forget(SequenceId(sequence)));
            model.forget(SequenceId(7));
        }
        // The last fork takes the snapshot's place.
        let mut last = [Stream {
            computed: stem.len() - 1,
            ..Stream::new(&whole[2])
        }];
        go_on(&mut model, 0, &mut last, 100, 16);
        last[0].assert_like(&expected[2], name);
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for name in MODELS {
        let mut model = tiny(name, &options());
        let prompt = tokens(&model, &essay(10));
        let stream = alone(&mut model, &prompt, 4);
        compute(&mut model, 0, 0, &prompt, 512);
        let mut refuse = |what: &dyn Fn(&mut LlamaModel)| {
            let refused = catch_unwind(AssertUnwindSafe(|| what(&mut model)));
            assert!(refused.is_err(), "{name}");
        };
        refuse(&|model| model.fork(SequenceId(0), SequenceId(1), 5));
        refuse(&|model| model.truncate(SequenceId(0), 5));
        let again = model.decode(&rows(0, 3, &prompt[3..]));
        assert!(matches!(again, Err(DecodeError::Fault(_))), "{again:?}");
        // A step runs to its end although it isn't wanted any more.
        let next = &stream.known[prompt.len()..=prompt.len()];
        let row = rows(0, prompt.len(), next);
        model.decode_while(&row, &|| false).expect("it is computed");
        assert!(distance(model.logits(0), &stream.logits[1]) < NOISE);
    }
}

/// A full cache is noticed before anything has changed: all states are as they were.
#[test]
fn a_full_cache_leaves_states_alone() {
    for name in ["jamba", "lfm2"] {
        let cells = LoadOptions {
            cells: Some(256),
            ..options()
        };
        let mut model = tiny(name, &cells);
        let all = tokens(&model, &essay(60));
        let prompt = &all[..100];
        let expected = alone(&mut model, prompt, 20);
        let mut streams = [Stream::new(prompt), Stream::new(prompt)];
        go_on(&mut model, 0, &mut streams, 60, 10);
        let mut more = rows(2, 0, &all[..60]);
        more.push(rows(0, 110, &all[..1])[0]);
        assert_eq!(model.decode(&more), Err(DecodeError::CacheFull), "{name}");
        go_on(&mut model, 0, &mut streams, 60, 20);
        for stream in &streams {
            stream.assert_like(&expected, name);
        }
    }
}

/// Requests with a common beginning, some with several choices, one after the other and all at once: from the third on, the
/// prefix cache has most of the beginning, and the texts are the same as without it.
#[test]
fn an_engine_shares_what_they_begin_with() {
    for name in MODELS {
        let stem = &essay(60)[..230];
        let requests: Vec<_> = ["", " a river", " and old stone", " under it", " seven"]
            .into_iter()
            .zip([1, 1, 3, 2, 1])
            .map(|(end, choices)| (format!("{stem}{end}"), choices))
            .collect();
        let run = |prefix_cache, at_once| {
            let mut options = Options::new(|| Timestamp::UNIX_EPOCH);
            options.prefix_cache = prefix_cache;
            options.speculation = Speculation::Ngram;
            let engine = LocalEngine::spawn(tiny(name, &self::options()), options);
            let engine = engine.expect("the engine starts");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime");
            let all = requests
                .iter()
                .map(|(prompt, choices)| answers(&engine, prompt, *choices, 20));
            let all: Vec<_> = runtime.block_on(async {
                if at_once {
                    return join_all(all).await;
                }
                let mut one_by_one = Vec::new();
                for answers in all {
                    one_by_one.push(answers.await);
                }
                one_by_one
            });
            engine.stop_and_wait();
            let (texts, usages): (Vec<_>, Vec<_>) = all.into_iter().unzip();
            let cached: Vec<_> = usages.iter().map(|usage| usage.cached).collect();
            (texts, cached)
        };
        let (expected, none) = run(CacheSharing::Off, false);
        assert_eq!(none, [0; 5]);
        assert!(expected.iter().flatten().all(|text| text.len() == 20));
        for at_once in [false, true] {
            let (texts, cached) = run(CacheSharing::Account, at_once);
            assert_eq!(texts, expected, "{name}, at once: {at_once}");
            let shared = cached.iter().filter(|&&tokens| tokens > 200).count();
            assert!(shared >= 3, "{name}, at once: {at_once}: {cached:?}");
            let (texts, _) = run(CacheSharing::Off, at_once);
            assert_eq!(texts, expected, "{name}, at once: {at_once}");
        }
    }
}

#[test]
fn their_speed_can_be_measured() {
    for name in MODELS {
        let mut model = tiny(name, &options());
        let workload = Workload::fit(&mut model, 3, None).expect("there is room");
        for _ in 0..2 {
            let speed = workload.measure(&mut model).expect("there is room");
            assert!(speed.prompt > 0.0 && speed.one > 0.0 && speed.many > 0.0);
        }
    }
}
