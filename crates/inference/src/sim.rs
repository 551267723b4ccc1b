//! A simulated model without a file, for tests: its logits are a function of a seed and of the tokens so far.
//!
//! Each cell of its cache keeps a hash of all tokens up to it. A wrong position, a wrong fork, a cell freed too early
//! or shared by mistake therefore changes the text, and [`solo`] tells what the text should have been. The model also
//! asserts the whole contract of [`Model`].

mod cache;
mod documents;
mod embedder;
mod gate;
mod masks;
mod tokenizer;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use weir_engine::Token;
use weir_engine::event::FinishReason;
use weir_engine::request::{Sampling, Stop};

use crate::constraint::{Constraint, Next};
use crate::local::{CacheSharing, LocalEngine, Options, Speculation};
use crate::model::{
    Aside, AsideCapacity, BatchToken, Batching, Capacity, DecodeError, Forks, Model, ModelFacts,
    SequenceId, Tokenizer,
};
use crate::sampler::{Sampler, Scratch};
use crate::sim::cache::Cache;
use crate::text::TextStream;

pub use crate::sim::documents::random_text;
pub use crate::sim::embedder::SimEmbedder;
pub use crate::sim::gate::{Gate, Probe, Work};
pub use crate::sim::masks::{LateMasks, PromptMasks};
pub use crate::sim::tokenizer::{END, SimTokenizer};

/// An engine with a simulated model: big enough for any test, always the same texts for a seed.
pub fn engine(seed: u64) -> LocalEngine {
    engine_with(SimModel::new(SimOptions {
        seed,
        ..SimOptions::default()
    }))
}

/// An engine around this model, with the default options and a clock that stands at 1970.
pub fn engine_with(model: SimModel) -> LocalEngine {
    LocalEngine::spawn(model, options()).expect("the simulated model has a good template")
}

/// The default options with a clock that stands at 1970, no prefix cache and no speculative decoding: only running
/// requests hold cells, and a step yields one token of each choice.
pub fn options() -> Options {
    let mut options = Options::new(|| Timestamp::UNIX_EPOCH);
    options.prefix_cache = CacheSharing::Off;
    options.speculation = Speculation::Off;
    options
}

#[derive(Debug, Clone)]
pub struct SimOptions {
    pub seed: u64,
    pub capacity: Capacity,
    pub context_tokens: u32,
    /// How likely each token is to be the last.
    pub end_probability: f64,
    /// How likely each token is the one that always follows the token before it, so that texts repeat themselves.
    pub habit: f64,
    /// Whether a token that is computed beside others has other logits than one that is alone, as kernels round
    /// differently.
    pub noise: bool,
    /// Whether the model has a chat template.
    pub chat: bool,
    /// The limits of the model's background prefill, if it has any.
    pub aside: Option<AsideCapacity>,
    pub faults: Faults,
}

impl Default for SimOptions {
    fn default() -> Self {
        SimOptions {
            seed: 0,
            capacity: Capacity {
                cells: 16_384,
                sequences: 64,
                rows: 256,
                outputs: 64,
                batching: Batching::Together,
                forks: Forks::Anywhere,
            },
            context_tokens: 4_096,
            end_probability: 0.02,
            habit: 0.0,
            noise: false,
            chat: true,
            aside: None,
            faults: Faults::default(),
        }
    }
}

/// The faults that the model has. Steps are counted from 0, failed ones included.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// How likely a step with more than one token fails with [`DecodeError::CacheFull`].
    pub cache_full_probability: f64,
    /// The number of cells that the cache has less than it says.
    pub cells_missing: u32,
    /// This step fails with [`DecodeError::Fault`].
    pub fault_at: Option<u64>,
    /// How likely a step fails with [`DecodeError::Lost`].
    pub lost_probability: f64,
    /// This step and all that follow fail with [`DecodeError::Damaged`].
    pub damaged_from: Option<u64>,
    /// This step panics.
    pub panic_at: Option<u64>,
}

pub struct SimModel {
    options: SimOptions,
    facts: ModelFacts,
    tokenizer: Arc<SimTokenizer>,
    cache: Cache,
    logits: Vec<Option<Vec<f32>>>,
    piece: Option<Piece>,
    gate: Option<gate::Waiter>,
    probe: Probe,
}

/// The background chunk under way, and how many of its tokens are left.
struct Piece {
    rows: Vec<BatchToken>,
    left: usize,
}

/// Tokens that a call of `go_aside` computes.
const TURN_ROWS: usize = 8;

impl std::fmt::Debug for SimModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimModel")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A chat template that renders `<|user|>hello<|end|><|assistant|>`.
const TEMPLATE: &str = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

impl SimModel {
    pub fn new(options: SimOptions) -> Self {
        let facts = ModelFacts {
            context_tokens: options.context_tokens,
            chat_template: options.chat.then(|| TEMPLATE.to_owned()),
            bos: "<|bos|>".to_owned(),
            eos: "<|end|>".to_owned(),
            digest: format!("simulated from seed {}", options.seed),
        };
        let cache = Cache::new(options.seed, options.capacity);
        let tokenizer = Arc::new(SimTokenizer);
        SimModel {
            options,
            facts,
            tokenizer,
            cache,
            logits: Vec::new(),
            piece: None,
            gate: None,
            probe: Probe::default(),
        }
    }

    /// Lets each step wait until the gate lets it pass.
    pub fn gated(mut self) -> (Self, Gate) {
        let (gate, waiter) = gate::gate();
        self.gate = Some(waiter);
        (self, gate)
    }

    /// A probe, which tells from outside what the model holds and has done.
    pub fn probe(&self) -> Probe {
        self.probe.clone()
    }

    fn fault(&self, step: u64, rows: &[BatchToken]) -> Result<(), DecodeError> {
        let faults = &self.options.faults;
        assert!(faults.panic_at != Some(step), "this step was to panic");
        if faults.damaged_from.is_some_and(|from| step >= from) {
            return Err(DecodeError::Damaged("the file was to be cut".to_owned()));
        }
        if faults.fault_at == Some(step) {
            return Err(DecodeError::Fault("this step was to fail".to_owned()));
        }
        if unit(mix(self.options.seed ^ 0x1057, step)) < faults.lost_probability {
            return Err(DecodeError::Lost("the cache was to be lost".to_owned()));
        }
        let unlucky = unit(mix(self.options.seed ^ 0xfa17, step)) < faults.cache_full_probability;
        let usable = self
            .options
            .capacity
            .cells
            .saturating_sub(faults.cells_missing);
        if (unlucky && rows.len() > 1) || self.cache.used() + count(rows) > usable {
            return Err(DecodeError::CacheFull);
        }
        Ok(())
    }

    fn publish(&self) {
        self.probe.set(self.cache.used(), self.cache.sequences());
    }
}

impl Model for SimModel {
    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::clone(&self.tokenizer) as Arc<dyn Tokenizer>
    }

    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn capacity(&self) -> Capacity {
        self.options.capacity
    }

    fn decode_while(
        &mut self,
        rows: &[BatchToken],
        wanted: &dyn Fn() -> bool,
    ) -> Result<(), DecodeError> {
        let capacity = self.options.capacity;
        let outputs = rows.iter().filter(|row| row.output).count();
        assert!(!rows.is_empty(), "a step without rows");
        assert!(
            rows.len() <= capacity.rows as usize,
            "{} rows in a step of {capacity:?}",
            rows.len()
        );
        assert!(
            outputs <= capacity.outputs as usize,
            "{outputs} outputs in a step of {capacity:?}"
        );
        if let Some(gate) = &self.gate {
            gate.wait();
        }
        if capacity.forks == Forks::Anywhere && !wanted() {
            self.probe.unwanted();
            return Err(DecodeError::Unwanted);
        }
        let step = self.probe.step(rows);
        if let Err(error) = self.fault(step, rows) {
            self.probe.fault();
            if matches!(error, DecodeError::Lost(_)) {
                self.cache.lose();
                self.publish();
            }
            return Err(error);
        }
        self.logits.clear();
        let shape = step_shape(&self.options, rows);
        for row in rows {
            let state = self.cache.append(*row, shape);
            self.logits
                .push(row.output.then(|| state.logits(&self.options)));
        }
        self.publish();
        Ok(())
    }

    fn logits(&self, row: usize) -> &[f32] {
        self.logits[row]
            .as_deref()
            .expect("logits of a row without output")
    }

    fn aside(&self) -> Option<AsideCapacity> {
        self.options.aside
    }

    fn begin_aside(&mut self, rows: &[BatchToken]) -> Result<(), DecodeError> {
        let most = self.options.aside.expect("something is computed aside");
        let (first, last) = (rows[0], rows[rows.len() - 1]);
        assert!(
            rows.len() <= most.rows as usize && last.position < most.tokens,
            "{} rows aside of {most:?}",
            rows.len()
        );
        assert!(
            rows.iter()
                .all(|row| row.sequence == first.sequence && !row.output),
            "a piece of several sequences, or with outputs"
        );
        let step = self.probe.steps();
        let unlucky = unit(mix(self.options.seed ^ 0xa51d, step));
        if unlucky < self.options.faults.cache_full_probability {
            return Err(DecodeError::Fault("this piece was to fail".to_owned()));
        }
        let (rows, left) = (rows.to_vec(), rows.len());
        self.piece = Some(Piece { rows, left });
        Ok(())
    }

    fn go_aside(&mut self, _: Duration) -> Result<Aside, DecodeError> {
        let piece = self.piece.as_mut().expect("a piece was begun");
        self.probe.turn();
        piece.left = piece.left.saturating_sub(TURN_ROWS);
        if piece.left > 0 {
            return Ok(Aside::Paused);
        }
        let rows = self.piece.take().expect("it is there").rows;
        let step = self.probe.steps();
        if let Err(error) = self.fault(step, &rows) {
            self.probe.fault();
            return Err(match error {
                DecodeError::Lost(why) => DecodeError::Fault(why),
                error => error,
            });
        }
        for row in rows {
            self.cache.append(row, ALONE);
        }
        self.publish();
        Ok(Aside::Done)
    }

    fn fork(&mut self, from: SequenceId, to: SequenceId, length: u32) {
        self.probe.fork();
        self.cache.fork(from, to, length);
        self.publish();
    }

    fn truncate(&mut self, sequence: SequenceId, length: u32) {
        self.probe.cut();
        self.cache.truncate(sequence, length);
        self.publish();
    }

    fn forget(&mut self, sequence: SequenceId) {
        self.piece
            .take_if(|piece| piece.rows[0].sequence == sequence);
        self.cache.forget(sequence);
        self.publish();
    }
}

/// The model's logits after these tokens, computed without a cache. Of their sequence the first `prompt_tokens` are the
/// prompt, in which `tokens` may end.
pub fn logits(model: &SimOptions, prompt_tokens: u32, tokens: &[Token]) -> Vec<f32> {
    let mut state = cache::State::start(model.seed);
    for (position, &token) in (0..).zip(tokens) {
        state = state.then(
            token,
            position,
            shape(model.capacity, prompt_tokens, position),
        );
    }
    state.logits(model)
}

/// The answer that a choice should have, computed without scheduler, threads or channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Solo {
    pub text: String,
    pub reason: FinishReason,
    /// The number of generated tokens, the one that ended the text included.
    pub tokens: u64,
    /// The tokens that have text, also text that a stop string cut off.
    pub spoken: Vec<Token>,
}

/// The answer of choice number `choice`, which has at most `output_max` tokens.
pub fn solo(
    model: &SimOptions,
    prompt: &[Token],
    sampling: &Sampling,
    stop: &Stop,
    output_max: u32,
    constraint: Option<&Constraint>,
    choice: u32,
) -> Solo {
    let mut state = cache::State::start(model.seed);
    for (position, &token) in (0..).zip(prompt) {
        state = state.then(
            token,
            position,
            shape(model.capacity, count(prompt), position),
        );
    }
    let (mut sampler, mut text) = (
        Sampler::new(sampling, prompt, choice),
        TextStream::new(stop),
    );
    let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
    let mut solo = Solo {
        text: String::new(),
        reason: FinishReason::Length,
        tokens: 0,
        spoken: Vec::new(),
    };
    let mut walk = constraint.map(Constraint::begin);
    for position in (count(prompt)..).take(output_max as usize) {
        let logits = state.logits(model);
        let token = match walk.as_mut().map(|walk| walk.ahead()) {
            None => sampler.sample(&logits, &mut scratch),
            Some(Next::Allowed(allowed)) => sampler
                .sample_allowed(&logits, allowed, &mut scratch)
                .expect("all logits are numbers"),
            Some(Next::End) => {
                solo.reason = FinishReason::Stop;
                break;
            }
            Some(next @ (Next::Pending | Next::Failed(_))) => panic!("{next:?} in solo"),
        };
        solo.tokens += 1;
        if SimTokenizer.is_end(token) {
            solo.reason = FinishReason::Stop;
            break;
        }
        solo.spoken.push(token);
        bytes.clear();
        SimTokenizer.token_bytes(token, &mut bytes);
        let pushed = text.push(&bytes);
        solo.text.push_str(&pushed.text);
        if pushed.stopped {
            solo.reason = FinishReason::Stop;
            return solo;
        }
        state = state.then(token, position, ALONE);
        if let Some(walk) = &mut walk {
            walk.advance(token, &mut PromptMasks);
        }
    }
    // An answer that is complete with its last allowed token counts as cut by its limit.
    solo.text.push_str(&text.finish());
    solo
}

/// The shape of a batch, on which real kernels' logits depend: with [`Batching::Together`] it matters only with
/// `noise`.
fn step_shape(options: &SimOptions, rows: &[BatchToken]) -> u64 {
    let capacity = options.capacity;
    if capacity.batching == Batching::Together {
        return match options.noise && rows.len() > 1 {
            true => BESIDE_OTHERS,
            false => ALONE,
        };
    }
    let (first, chunk) = (rows[0], capacity.chunk());
    let alone = rows.iter().all(|row| row.sequence == first.sequence);
    assert!(alone, "rows of several sequences in a step of {capacity:?}");
    let count = count(rows);
    if count == 1 {
        ALONE
    } else if count == chunk && first.position.is_multiple_of(chunk) {
        CHUNKS
    } else {
        rest(first.position, count)
    }
}

/// The shape of the batch that computes this position, which is in a prompt of `prompt` tokens or after it.
fn shape(capacity: Capacity, prompt: u32, position: u32) -> u64 {
    let (chunked, chunk) = (prompt - 1, capacity.chunk());
    if capacity.batching == Batching::Together || position >= chunked || chunk == 1 {
        return ALONE;
    }
    let full = chunked / chunk * chunk;
    if position < full {
        CHUNKS
    } else if chunked - full == 1 {
        ALONE
    } else {
        rest(full, chunked - full)
    }
}

const ALONE: u64 = 0;
const CHUNKS: u64 = 1;
const BESIDE_OTHERS: u64 = 2;

fn rest(first: u32, rows: u32) -> u64 {
    u64::from(first) << 32 | u64::from(rows)
}

fn count<T>(items: &[T]) -> u32 {
    u32::try_from(items.len()).expect("a simulation is small")
}

/// A number that looks random and depends on both arguments.
fn mix(a: u64, b: u64) -> u64 {
    // SplitMix64's finisher.
    let mut z = a
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(b)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to 1.
fn unit(number: u64) -> f64 {
    (number >> 11) as f64 / (1u64 << 53) as f64
}
