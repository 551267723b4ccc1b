//! A model with a sliding window behind an engine: a prompt longer than the window gets the same answer from a shared prefix as
//! without. Gemma 3 270M in `F16`, whose noise is small enough to compare texts; nothing is tested if the file isn't there.

#![expect(
    unsafe_code,
    reason = "llama.cpp's quantization, which has no safe name here"
)]

use std::ffi::CString;
use std::path::Path;

use jiff::Timestamp;
use llama_cpp_sys_2 as sys;
use weir_engine::event::TokenLogprob;
use weir_engine::request::{Logprobs, OutputLimit, Overflow, Prompt, SamplingFields};
use weir_engine::{Event, Input, Request, Sampling, Token};
use weir_inference::local::{CacheSharing, LocalEngine, Options};
use weir_llama::{LoadOptions, load};

#[path = "support/common.rs"]
mod common;
use common::{essay, models, tokens};

/// The largest accepted difference: ten times that of any token's log-probability with and without sharing.
const NOISE: f32 = 0.05;
/// The sliding window of most of the model's layers, in tokens.
const WINDOW: usize = 512;

fn write_f16(from: &Path, to: &Path) {
    let name = |path: &Path| CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL");
    let (from, to) = (name(from), name(to));
    // SAFETY: returns a plain struct.
    let mut params = unsafe { sys::llama_model_quantize_default_params() };
    params.ftype = sys::LLAMA_FTYPE_MOSTLY_F16;
    params.allow_requantize = true;
    params.nthread = 2;
    // SAFETY: both names end with NUL, and the parameters came from llama.cpp's defaults.
    let code = unsafe { sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &raw const params) };
    assert_eq!(code, 0);
}

/// The tokens of the greedy answer, each with the two best, and the number of prompt tokens that came from the prefix cache.
async fn answer(engine: &LocalEngine, prompt: &[Token], count: u32) -> (Vec<TokenLogprob>, u64) {
    let greedy = SamplingFields {
        temperature: Some(0.0),
        ..SamplingFields::default()
    };
    let request = Request {
        sampling: Sampling::new(greedy).expect("a greedy sampler"),
        logprobs: Some(Logprobs::new("", 2).expect("two")),
        output: OutputLimit {
            tokens: Some(count),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Tokens(prompt.to_vec())]))
    };
    let prepared = engine.render(request).await.expect("it fits");
    let mut events = engine.start(prepared).expect("it is accepted");
    let mut said = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Text { logprobs, .. } => said.extend(logprobs),
            Event::Done(usage) => return (said, usage.cached),
            Event::Failed(error) => panic!("{error}"),
            Event::Prompt { .. } | Event::Finished { .. } | Event::Call { .. } => {}
        }
    }
    panic!("the last event is missing")
}

#[test]
#[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
fn a_shared_prompt_beyond_the_window_is_continued_alike() {
    let quantized = models().join("gemma-3-270m-q4_k_m.gguf");
    if !quantized.is_file() {
        return eprintln!("{} is missing: nothing is tested", quantized.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gemma-f16.gguf");
    // Also starts the kernels.
    drop(weir_llama::open(&quantized).unwrap());
    write_f16(&quantized, &file);
    let options = LoadOptions {
        threads: Some(2),
        cells: Some(1_056),
        sequences: Some(4),
        ..LoadOptions::default()
    };
    let model = load(&file, &options).unwrap();
    let all = tokens(&model, &essay(1_000));
    drop(model);
    let (first, second) = (
        &all[..WINDOW + 400],
        [&all[..WINDOW + 60], &all[40..60]].concat(),
    );
    let run = |prefix_cache, before: &[&[Token]]| {
        let mut engine = Options::new(|| Timestamp::UNIX_EPOCH);
        engine.prefix_cache = prefix_cache;
        let engine = LocalEngine::spawn(load(&file, &options).unwrap(), engine).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        for prompt in before {
            runtime.block_on(answer(&engine, prompt, 8));
        }
        let answer = runtime.block_on(answer(&engine, &second, 64));
        engine.stop_and_wait();
        answer
    };
    let (expected, none) = run(CacheSharing::Off, &[]);
    // `first` continues beyond the point where `second` forks from it. In the cache it lies behind a short prompt, whose cells a third
    // prompt takes; the search for more cells then reaches those that `first` has left behind its window.
    let others = [&all[100..200], &all[300..700]];
    let (shared, cached) = run(CacheSharing::Account, &[others[0], first, others[1]]);
    assert_eq!(none, 0);
    assert!(cached as usize >= WINDOW + 60, "{cached} tokens");
    let differs = (0..expected.len()).find(|&at| expected[at].token != shared[at].token);
    let same = differs.unwrap_or(expected.len());
    let both = expected.iter().zip(&shared).take(same);
    let apart = both.map(|(a, b)| (a.logprob.unwrap() - b.logprob.unwrap()).abs());
    let apart = apart.fold(0.0, f32::max);
    assert!(
        apart < NOISE,
        "the same tokens with log-probabilities {apart} apart"
    );
    assert!(same >= 16, "only {same} tokens are the same");
    if let Some(at) = differs {
        let best = &expected[at].top;
        let lead = best[0].logprob - best[1].logprob;
        assert!(
            lead < NOISE,
            "another token after {at}, with a lead of {lead}"
        );
    }
}
