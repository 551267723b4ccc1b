//! `[[models]]`: the models and their engines.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The largest price: a thousand dollars per token.
const PRICE_MAX: u64 = 10_000_000_000_000;

/// A model that is offered. Prices are in 0.0001 USD per million tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub(crate) struct Model {
    /// The model's name in the API. Required.
    #[schemars(extend("x-needs" = "a name"))]
    pub(crate) id: String,
    /// A name for people, in `GET models`. Absent: the id.
    #[schemars(extend("x-live" = true))]
    pub(crate) title: Option<String>,
    /// A sentence or two, in `GET models`.
    #[schemars(extend("x-live" = true))]
    pub(crate) description: Option<String>,
    /// Price of prompt tokens in 0.0001 USD per million: 200 is $0.02. Required; write 0 for a free model.
    #[schemars(range(max = PRICE_MAX), extend("x-needs" = "a price (0 if it is free)", "x-live" = true))]
    pub(crate) input_price: u64,
    /// Price of generated tokens, in the same unit. Required; write 0 for a free model.
    #[schemars(range(max = PRICE_MAX), extend("x-needs" = "a price (0 if it is free)", "x-live" = true))]
    pub(crate) output_price: u64,
    /// Price of prompt tokens that come from the prefix cache, at most `input_price`. Absent: `input_price`.
    #[schemars(range(max = PRICE_MAX), extend("x-live" = true))]
    pub(crate) cached_price: Option<u64>,
    /// The largest `max_tokens` that a request may ask for. Absent: the model's context.
    #[schemars(range(min = 1, max = 4_294_967_295_u32), extend("x-live" = true))]
    pub(crate) max_output_tokens: Option<u32>,
    /// Leave the model out while its files are missing, instead of listing it as not available.
    pub(crate) optional: bool,
    pub(crate) engines: Vec<EngineSection>,
}

impl Model {
    /// The engine that computes the model.
    pub(crate) fn engine(&self) -> &EngineSection {
        self.engines
            .first()
            .expect("a checked model has one engine")
    }

    pub(crate) fn new(id: String, path: PathBuf) -> Self {
        Model {
            id,
            engines: vec![EngineSection::Llama(Llama::at(path))],
            ..Model::default()
        }
    }

    /// Optional models whose files are missing are left out.
    pub(super) fn is_left_out(&self) -> bool {
        let EngineSection::Llama(llama) = self.engine();
        // If the existence of a file can't be found out, the model stays: loading it reports the error.
        self.optional && !llama.path.try_exists().unwrap_or(true)
    }

    /// Makes paths that the config names relative to the directory of its file absolute.
    pub(super) fn resolve_paths(&mut self, base: &Path) {
        for EngineSection::Llama(llama) in &mut self.engines {
            llama.path = base.join(&llama.path);
        }
    }
}

pub(super) fn check(models: &[Model], problem: &mut dyn FnMut(&str, String)) {
    for (index, model) in models.iter().enumerate() {
        let at = format!("models[{index}]");
        match model.engines.len() {
            1 => {}
            0 => {
                let message = format!("{at} has no engine: add [[models.engines]] with a path");
                problem(&at, message);
            }
            _ => {
                let message = "several engines of a model are not supported in this version";
                problem(&format!("{at}.engines[1]"), message.to_owned());
            }
        }
        if model
            .cached_price
            .is_some_and(|cached| cached > model.input_price)
        {
            let message = "cached_price must be at most input_price".to_owned();
            problem(&format!("{at}.cached_price"), message);
        }
        if models[..index].iter().any(|other| other.id == model.id) {
            let message = format!("there is a model `{}` already", model.id);
            problem(&format!("{at}.id"), message);
        }
    }
}

/// The program that computes the model: `llama` is the embedded engine (llama.cpp). In this version a model has exactly
/// one engine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum EngineSection {
    Llama(Llama),
}

/// Settings of an embedded engine. The engine chooses values that are `None`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
// A key of another kind of engine is an error.
#[serde(default, deny_unknown_fields)]
pub(crate) struct Llama {
    /// The model file, in the format GGUF. Required.
    #[schemars(extend("x-expected" = "a path"), extend("x-needs" = "a GGUF file"))]
    pub(crate) path: PathBuf,
    /// Number of threads that compute. Absent: as many as there are processors that this process may use.
    #[schemars(range(min = 1, max = 512))]
    pub(crate) threads: Option<u32>,
    /// Smallest number of threads that compute. While other processes use some of the cores, Weir computes with fewer
    /// threads, because threads in excess of the free cores make each other wait. Absent: 1, or `threads` with
    /// `reproducible = true`.
    #[schemars(range(min = 1, max = 512))]
    pub(crate) threads_min: Option<u32>,
    /// Largest number of tokens of prompt and answer together. Absent: the context that the model was trained for,
    /// limited by `cells`.
    #[schemars(range(min = 16, max = 16_777_216))]
    pub(crate) context_tokens: Option<u32>,
    /// Size of the KV cache, in tokens, over all requests: one KV cell holds the keys and values of one token. Absent:
    /// chosen from the model's size.
    #[schemars(range(min = 64, max = 4_194_304))]
    pub(crate) cells: Option<u32>,
    /// Number of sequences in the KV cache: answers that are generated at once, and prefixes that stay in the prefix
    /// cache. At most 128 for a model with a sliding window. Absent: chosen from the model's size; 16 for recurrent and
    /// hybrid models, where each sequence takes memory for its state.
    #[schemars(range(min = 1, max = 256))]
    pub(crate) sequences: Option<u32>,
    /// The same request with the same seed gives the same text to the byte, alone or under load, as long as `threads`
    /// and the machine stay the same. Each of the `sequences` (8 if absent) then has a share of `cells` of its own,
    /// which bounds the context, and is computed alone: one stream is about as fast as without this key, several
    /// streams share the speed of one.
    pub(crate) reproducible: bool,
    /// How sequences share the KV cache. `unified`: a request takes as many of the `cells` as it needs, and a prefix
    /// that requests have in common is stored once. `split`: each of the `sequences` (8 if absent) has a share of
    /// `cells` of its own, which bounds the context. `split` is faster with many requests at once, because attention
    /// doesn't pass over the cells of other requests. A reproducible engine always uses `split`.
    pub(crate) kv_layout: KvLayout,
    /// Number format of the KV cache: `q8_0` takes half the memory of `f16`, `f32` twice as much. `f32` is more precise
    /// only without flash attention, which rounds to 16 bits.
    pub(crate) kv_format: KvFormat,
    /// How attention is computed: by the fused kernel (`on`), or with a matrix of all scores (`off`, not with `q8_0`).
    /// On two cores `on` was faster with 32 streams that have little in common; `off` was faster with few streams, with
    /// long contexts, and with prompts that arrive beside streams. `auto` is `off`, except for models with a sliding
    /// window (cached in `f16`), `reproducible` and `q8_0`, where it is `on`.
    pub(crate) flash_attention: FlashAttention,
    /// `speed`: if the file's weights are in a format without fast kernels on this machine, serve a copy of the file in
    /// a format with fast kernels. The copy is made once, in the directory `requantized` in `data`, and takes up to
    /// twice the disk space of the file. Its output differs by next to nothing; the difference is measured and logged.
    pub(crate) optimize: Optimize,
    /// Whether the whole file is read after each start, at low priority, and its SHA-256 compared with the one of the
    /// first time: a file that was damaged or exchanged is logged. Without the checksum, a served file that was only
    /// touched (a new modification time, the same bytes) can't be told from one that was overwritten, and its model
    /// becomes unavailable.
    pub(crate) checksum: bool,
    /// Let a model that generates text give embeddings, too: `mean` is the mean over its tokens. A model that was made
    /// for embeddings gives them in the way its file says, and generates no text.
    pub(crate) embeddings: Option<Embeddings>,
    /// Largest number of tokens of a text to embed. Absent: the context that the model was trained for, 2048 at most.
    #[schemars(range(min = 1, max = 16_777_216))]
    pub(crate) embedding_tokens: Option<u32>,
    /// Whether the first values of an embedding are an embedding, too, so that requests may ask for fewer `dimensions`:
    /// a property of the model's training.
    pub(crate) matryoshka: bool,
    /// Number of requests that may wait for the engine; one more is refused with 503. Absent: 512.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) queue_requests_max: Option<u32>,
    /// Number of schemas, regular expressions and grammars that are compiled at once, at most one of each account.
    /// Absent: half of the processors.
    #[schemars(range(min = 1, max = 1024))]
    pub(crate) grammar_compiles_max: Option<u32>,
    /// Number of schemas, regular expressions and grammars of one account that may wait to be compiled; one more is
    /// refused with 429. Absent: 16.
    #[schemars(range(min = 1, max = 100_000))]
    pub(crate) grammar_compiles_waiting_max: Option<u32>,
    /// Processor time that an account may use for compiling at once, beyond `grammar_compile_ms_per_second`. After
    /// that, new schemas, regular expressions and grammars of the account are refused with 429; those that are compiled
    /// already stay usable. The time is estimated by counting steps of about a microsecond. Enforcing a token counts,
    /// too, as far as it takes more than 2 ms; an account whose tokens alone have used that much time is refused
    /// compiled ones as well. Absent: 6000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub(crate) grammar_compile_burst_ms: Option<u64>,
    /// Processor time for compiling that an account gets back each second. Absent: 120.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) grammar_compile_ms_per_second: Option<u64>,
    /// Target for the time between two tokens of a stream while prompts of other requests are computed: their chunks
    /// are cut to meet it. The time may be up to twice as long where the prompts would hardly progress otherwise.
    /// Absent: 100.
    #[schemars(range(min = 1, max = 60_000))]
    pub(crate) inter_token_target_ms: Option<u64>,
    /// Prompt tokens that one step of the engine (one pass of the model over a batch of tokens) computes beside
    /// streams, even if the step then takes longer than `inter_token_target_ms`; fewer where the step would take more
    /// than twice as long. A lower value makes streams smoother, a higher one answers long prompts sooner. A
    /// reproducible engine computes prompts alone. Absent: 32.
    #[schemars(range(min = 1, max = 128))]
    pub(crate) prompt_tokens_min: Option<u32>,
    /// Background prefill: if 256 or more of a prompt's first `aside_tokens` tokens aren't cached, they are computed in
    /// a second context, in chunks of 256 tokens, with pauses for the steps of streams. A long prompt is then answered
    /// sooner, and streams beside it go on. The second context takes a KV cache of this many cells (or of the longest
    /// context, if that is shorter). With 0, or less than 512, prompts are computed in the steps of streams. There is
    /// no background prefill for models with a sliding window, for recurrent and hybrid models, with `kv_layout =
    /// "split"`, `kv_format = "f32"`, `flash_attention = "off"` or 256 `sequences`, and on reproducible engines.
    #[schemars(range(min = 0, max = 16_777_216))]
    pub(crate) aside_tokens: u32,
    /// Which requests may reuse the cached prefix of another request: `account`, requests of the same account;
    /// `everybody`, all requests (the time until the first token then tells a caller whether another caller has sent
    /// the same prefix); `off`, only the choices of one request.
    pub(crate) prefix_cache: PrefixCache,
    /// Speculative decoding: with `ngram`, draft tokens are looked up where the last few tokens occurred before, in the
    /// prompt or the answer, and are computed together with the next token. Answers that repeat something come faster,
    /// and the text is the same. A reproducible engine, and answers in an enforced format, use no draft tokens.
    pub(crate) speculation: DraftTokens,
}

impl Default for Llama {
    fn default() -> Self {
        Llama {
            path: PathBuf::new(),
            threads: None,
            threads_min: None,
            context_tokens: None,
            cells: None,
            sequences: None,
            reproducible: false,
            kv_layout: KvLayout::Unified,
            kv_format: KvFormat::F16,
            flash_attention: FlashAttention::Auto,
            optimize: Optimize::Off,
            checksum: true,
            embeddings: None,
            embedding_tokens: None,
            matryoshka: false,
            queue_requests_max: None,
            grammar_compiles_max: None,
            grammar_compiles_waiting_max: None,
            grammar_compile_burst_ms: None,
            grammar_compile_ms_per_second: None,
            inter_token_target_ms: None,
            prompt_tokens_min: None,
            aside_tokens: 8192,
            prefix_cache: PrefixCache::Account,
            speculation: DraftTokens::Ngram,
        }
    }
}

impl Llama {
    pub(crate) fn at(path: PathBuf) -> Self {
        Llama {
            path,
            ..Llama::default()
        }
    }
}

/// How KV cells are divided between sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvLayout {
    Unified,
    Split,
}

/// The format of cached keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KvFormat {
    F16,
    Q8_0,
    F32,
}

/// How attention is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FlashAttention {
    Auto,
    On,
    Off,
}

/// The goal for which a requantized copy of the file is served, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Optimize {
    Off,
    Speed,
}

/// How a generating model makes embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Embeddings {
    Mean,
}

/// Which requests share cached prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PrefixCache {
    Account,
    Everybody,
    Off,
}

/// Where draft tokens come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DraftTokens {
    Ngram,
    Off,
}
