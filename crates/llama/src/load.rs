//! Loads a model from a file, with the contexts that it is computed with.

mod aside;
mod embed;

use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use weir_inference::model::{Capacity, ModelFacts};

use crate::backend;
use crate::digest;
use crate::embedder::{LlamaEmbedder, Pooling};
use crate::files::Files;
use crate::gguf::{self, Gguf};
use crate::log::collect_errors;
use crate::model::{Costs, Layout, LlamaModel};
use crate::options::{
    EmbedOptions, FlashAttention, KvFormat, LoadError, LoadOptions, ServeOptions,
};
use crate::shim::{self, Context, Weights, guarded};
use crate::sizes::{Memory, Sizes, Traits};
use crate::threads::Use;
use crate::tokenizer::LlamaTokenizer;

/// A loaded model, ready for everything that it is served for.
#[derive(Debug)]
pub struct Served {
    pub embedder: Option<LlamaEmbedder>,
    pub model: Option<LlamaModel>,
}

/// A GGUF file whose weights are mapped. What kind of model it is can be asked before any context is made.
#[derive(Debug)]
pub struct ModelFile {
    path: PathBuf,
    weights: Arc<Weights>,
}

/// Maps the weights of a GGUF file.
pub fn open(path: &Path) -> Result<ModelFile, LoadError> {
    let head = Gguf::read(path)?;
    head.check().map_err(|reason| LoadError::Broken {
        path: path.to_owned(),
        reason,
    })?;
    backend::start().map_err(LoadError::Machine)?;
    let weights = Arc::new(load_weights(path, &head)?);
    check_kind(path, &weights)?;
    Ok(ModelFile {
        path: path.to_owned(),
        weights,
    })
}

/// Loads a GGUF file: maps its weights and allocates its KV cache.
pub fn load(path: &Path, options: &LoadOptions) -> Result<LlamaModel, LoadError> {
    open(path)?.model(options)
}

impl ModelFile {
    /// Whether the file holds an embedding model: it says how to pool, or its attention isn't causal.
    pub fn is_embedder(&self) -> bool {
        embed::is_embedder(&self.weights)
    }

    /// Whether the model keeps a recurrent state per sequence, alone or beside KV cells (`Forks::AtEnd`). All sequences then
    /// share one pool of cells.
    pub fn has_states(&self) -> bool {
        memory(&self.weights) != Memory::Cells
    }

    /// The model's tokenizer, without a context.
    #[cfg(test)]
    pub(crate) fn tokenizer(&self, context_tokens: u32) -> LlamaTokenizer {
        let vocabulary = vocabulary(&self.weights);
        LlamaTokenizer::new(Arc::clone(&self.weights), vocabulary, context_tokens)
    }

    /// The mapped files, which must be watched as long as the model is served.
    pub fn files(&self) -> Arc<Files> {
        Arc::clone(self.weights.files())
    }

    /// Makes all contexts that `options` ask for.
    pub fn serve(&self, options: &ServeOptions) -> Result<Served, LoadError> {
        let generates = !self.is_embedder();
        let embedder = if options.embeddings || !generates {
            let pooling = options.embeddings.then_some(Pooling::Mean);
            let embed = EmbedOptions {
                pooling: options.embed.pooling.or(pooling),
                ..options.embed.clone()
            };
            Some(self.embedder(&embed)?)
        } else {
            None
        };
        let model = generates.then(|| self.model(&options.generate));
        Ok(Served {
            embedder,
            model: model.transpose()?,
        })
    }

    /// Makes a context for embeddings.
    pub fn embedder(&self, options: &EmbedOptions) -> Result<LlamaEmbedder, LoadError> {
        if self.has_states() {
            return Err(LoadError::Unsupported {
                path: self.path.clone(),
                reason: "it is a recurrent or hybrid model, of which embeddings weren't tried",
            });
        }
        embed::embedder(&self.path, &self.weights, options)
    }

    /// Makes the context of a generating model, with its KV cache.
    pub fn model(&self, options: &LoadOptions) -> Result<LlamaModel, LoadError> {
        if self.is_embedder() {
            return Err(LoadError::Unsupported {
                path: self.path.clone(),
                reason: "it is made for embeddings and doesn't generate",
            });
        }
        model(&self.path, &self.weights, options)
    }
}

fn model(
    path: &Path,
    weights: &Arc<Weights>,
    options: &LoadOptions,
) -> Result<LlamaModel, LoadError> {
    let traits = Traits {
        context_trained: count(weights, sys::llama_model_n_ctx_train),
        window: count(weights, sys::llama_model_n_swa),
        vocabulary: vocabulary(weights),
        memory: memory(weights),
        weights: layer_weights(weights),
        compared: compared(weights),
    };
    let sizes = Sizes::choose(options, &traits)?;
    let context = make_context(weights, &sizes, options)?;
    let capacity = capacity(&context, &sizes);
    let layout = Layout::new(&sizes, &traits);
    let context_tokens = sizes.context_tokens.min(capacity.cells);
    let tokenizer = LlamaTokenizer::new(Arc::clone(weights), traits.vocabulary, context_tokens);
    let (bos, eos) = tokenizer.special_texts();
    let unreadable = |error| LoadError::Unreadable {
        path: path.to_owned(),
        error,
    };
    let facts = ModelFacts {
        context_tokens,
        chat_template: chat_template(weights),
        bos,
        eos,
        digest: digest::of(weights.files(), &sizes, options).map_err(unreadable)?,
    };
    log_loaded(path, weights, &sizes, options, &facts);
    let mut model = LlamaModel::new(
        context,
        Arc::new(tokenizer),
        facts,
        capacity,
        Costs {
            tile_rows: sizes.tile_rows(options.kv_format),
            ttl_tokens: sizes.ttl_tokens(&traits),
        },
        layout,
    );
    if let Err(why) = aside::add(&mut model, weights, &sizes, options) {
        tracing::warn!(why, "long prompts aren't computed aside");
    }
    Ok(model)
}

fn load_weights(path: &Path, head: &Gguf) -> Result<Weights, LoadError> {
    let broken = |reason: String| LoadError::Broken {
        path: path.to_owned(),
        reason,
    };
    let files = Files::open(&gguf::parts(path, head)?)
        .map_err(|(path, error)| LoadError::Unreadable { path, error })?;
    let name = CString::new(path.as_os_str().as_encoded_bytes())
        .expect("the file was opened by this path");
    // SAFETY: returns a plain struct.
    let mut params = unsafe { sys::llama_model_default_params() };
    // Mapped weights are available at once, and shared with other processes.
    params.load_mode = sys::LLAMA_LOAD_MODE_MMAP;
    // Checking every number would read the whole file.
    params.check_tensors = false;

    let mut model = std::ptr::null_mut();
    let (loaded, errors) = collect_errors(|| {
        guarded(|what, size| {
            // SAFETY: the name ends with NUL, `params` came from llama.cpp's defaults, the out-pointers are ours.
            unsafe {
                shim::weir_model_load(name.as_ptr(), &raw const params, &raw mut model, what, size)
            }
        })
    });
    loaded.map_err(|threw| broken(threw.to_string()))?;
    let model = NonNull::new(model).ok_or_else(|| broken(errors))?;
    // SAFETY: llama.cpp has just loaded it for us.
    let weights = unsafe { Weights::own(model, Arc::new(files)) };
    weights.files().mapped().map_err(broken)?;
    Ok(weights)
}

/// Architectures with a kind of state of their own, for which forks haven't been tried.
const STATES_UNKNOWN: [&str; 3] = ["deepseek4", "glm5-next", "qwen4exp"];

type Question = unsafe extern "C" fn(*const sys::llama_model) -> bool;

fn is(weights: &Weights, question: Question) -> bool {
    // SAFETY: the model is alive; these functions only read it.
    unsafe { question(weights.pointer().cast_const()) }
}

fn memory(weights: &Weights) -> Memory {
    if is(weights, sys::llama_model_is_recurrent) {
        Memory::State
    } else if is(weights, sys::llama_model_is_hybrid) {
        Memory::CellsAndState
    } else {
        Memory::Cells
    }
}

/// Refuses models that don't generate text, and kinds that haven't been tried, rather than answer nonsense.
fn check_kind(path: &Path, weights: &Weights) -> Result<(), LoadError> {
    let is = |question| is(weights, question);
    let architecture = metadata_of(weights, "general.architecture").unwrap_or_default();
    // SAFETY: the model and so its vocabulary are alive.
    let vocabulary = unsafe { sys::llama_vocab_type(weights.vocab()) };
    let reason = if STATES_UNKNOWN.contains(&architecture.as_str()) {
        "its sequences have a state that nobody has tried to share"
    } else if is(sys::llama_model_is_diffusion) {
        "it is a diffusion model, which doesn't write from left to right"
    } else if is(sys::llama_model_has_encoder) || !is(sys::llama_model_has_decoder) {
        "it has an encoder; only decoder models generate from a prompt alone"
    } else if vocabulary == sys::LLAMA_VOCAB_TYPE_NONE {
        "it has no vocabulary"
    } else {
        return Ok(());
    };
    Err(LoadError::Unsupported {
        path: path.to_owned(),
        reason,
    })
}

fn count(weights: &Weights, of: unsafe extern "C" fn(*const sys::llama_model) -> i32) -> u32 {
    // SAFETY: the model is alive; these functions only read it.
    let count = unsafe { of(weights.pointer()) };
    u32::try_from(count).unwrap_or(0)
}

/// Weights that each token of a prompt is multiplied with: all but those of the vocabulary.
fn layer_weights(weights: &Weights) -> u64 {
    // SAFETY: the model is alive.
    let all = unsafe { sys::llama_model_n_params(weights.pointer()) };
    let width = u64::from(count(weights, sys::llama_model_n_embd));
    all.saturating_sub(width * u64::from(vocabulary(weights)))
}

/// Numbers per token that attention compares: the model's width (nearly always the width of all heads) times its layers.
fn compared(weights: &Weights) -> u64 {
    let width = count(weights, sys::llama_model_n_embd);
    u64::from(width) * u64::from(count(weights, sys::llama_model_n_layer))
}

fn vocabulary(weights: &Weights) -> u32 {
    // SAFETY: the model and so its vocabulary are alive.
    let tokens = unsafe { sys::llama_vocab_n_tokens(weights.vocab()) };
    u32::try_from(tokens).unwrap_or(0)
}

/// How long the kernels' threads spin between two steps: some 6 ms, which bridges the sampling. ggml's default of 50 spins
/// for 0.3 s on a core that another process may need.
const POLLING: u32 = 1;

fn make_context(
    weights: &Arc<Weights>,
    sizes: &Sizes,
    options: &LoadOptions,
) -> Result<Context, LoadError> {
    if (options.kv_format, options.flash_attention) == (KvFormat::Q8_0, FlashAttention::Off) {
        return Err(LoadError::FlashAttention);
    }
    let memory = |reason| LoadError::Memory {
        cells: sizes.cells,
        sequences: sizes.sequences,
        reason,
    };
    let params = context_params(sizes, options);
    let threads = Use {
        least: sizes.threads_min,
        polling: POLLING,
    };
    let (context, errors) = collect_errors(|| Context::new(weights, &params, threads));
    let context = context
        .map_err(|threw| memory(threw.to_string()))?
        .ok_or_else(|| memory(errors))?;
    // SAFETY: the context is alive.
    let cache = unsafe { sys::llama_get_memory(context.pointer()) };
    if cache.is_null() {
        return Err(memory("the model has no KV cache".to_owned()));
    }
    Ok(context)
}

fn context_params(sizes: &Sizes, options: &LoadOptions) -> sys::llama_context_params {
    // SAFETY: returns a plain struct.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = sizes.cells_allocated();
    params.n_batch = sizes.rows;
    // One batch is one graph. Only with split cells, a sequence's tokens beyond the first are a graph of their own.
    params.n_ubatch = sizes.rows;
    params.n_seq_max = sizes.sequences + u32::from(sizes.aside_tokens.is_some());
    // With 0, llama.cpp reserves tokens × vocabulary floats; below n_seq_max, it aborts the process.
    params.n_outputs_max = sizes.outputs.max(params.n_seq_max);
    params.n_threads = sizes.threads.cast_signed();
    params.n_threads_batch = sizes.threads.cast_signed();
    params.flash_attn_type = match (sizes.flash_attention, options.flash_attention) {
        (false, _) => sys::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        (true, FlashAttention::On) => sys::LLAMA_FLASH_ATTN_TYPE_ENABLED,
        (true, _) => sys::LLAMA_FLASH_ATTN_TYPE_AUTO,
    };
    let kv_format = kv_type(options.kv_format);
    (params.type_k, params.type_v) = (kv_format, kv_format);
    // The order in which attention adds up depends on where cells lie, so a reproducible sequence has cells of its own, each
    // at the index of its position.
    params.kv_unified = sizes.unified;
    // A fork needs the window before the fork point, which a cache of just one window would have overwritten.
    params.swa_full = true;
    params.no_perf = true;
    params
}

fn kv_type(format: KvFormat) -> sys::ggml_type {
    match format {
        KvFormat::F16 => sys::GGML_TYPE_F16,
        KvFormat::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvFormat::F32 => sys::GGML_TYPE_F32,
    }
}

fn capacity(context: &Context, sizes: &Sizes) -> Capacity {
    // SAFETY: the context is alive.
    let allocated = unsafe { sys::llama_n_ctx(context.pointer()) };
    let cells = allocated - (sizes.cells_allocated() - sizes.cells);
    // SAFETY: as above.
    let rows = unsafe { sys::llama_n_batch(context.pointer()) };
    Capacity {
        cells,
        sequences: sizes.sequences,
        rows,
        outputs: sizes.outputs.min(rows),
        batching: sizes.batching,
        forks: sizes.forks,
    }
}

fn chat_template(weights: &Weights) -> Option<String> {
    // SAFETY: the model is alive; without a name it is the default template.
    let template = unsafe { sys::llama_model_chat_template(weights.pointer(), std::ptr::null()) };
    if template.is_null() {
        return None;
    }
    // SAFETY: the text belongs to the model, ends with NUL and doesn't change.
    Some(
        unsafe { CStr::from_ptr(template) }
            .to_string_lossy()
            .into_owned(),
    )
}

fn log_loaded(
    path: &Path,
    weights: &Weights,
    sizes: &Sizes,
    options: &LoadOptions,
    facts: &ModelFacts,
) {
    tracing::info!(
        path = %path.display(),
        kind = description(weights),
        context_tokens = facts.context_tokens,
        cells = sizes.cells,
        sequences = sizes.sequences,
        kv_cache_mib_about = kv_bytes(weights, sizes.cells_allocated(), options.kv_format) >> 20,
        kv_format = ?options.kv_format,
        flash_attention = sizes.flash_attention,
        rows = sizes.rows,
        threads = sizes.threads,
        batching = ?sizes.batching,
        forks = ?sizes.forks,
        kv_unified = sizes.unified,
        aside_tokens = sizes.aside_tokens.unwrap_or(0),
        "model loaded"
    );
}

/// llama.cpp's description of the model, such as `llama 135M Q4_1`.
fn description(weights: &Weights) -> String {
    let mut text: [c_char; 128] = [0; 128];
    // SAFETY: the model is alive, and the text as long as said; what doesn't fit is cut.
    unsafe { sys::llama_model_desc(weights.pointer(), text.as_mut_ptr(), text.len()) };
    // SAFETY: `llama_model_desc` ends the text with NUL within its length.
    unsafe { CStr::from_ptr(text.as_ptr()) }
        .to_string_lossy()
        .into_owned()
}

/// The approximate size of the KV cache: two vectors per token, layer and head. It isn't exact for models whose layers differ.
fn kv_bytes(weights: &Weights, cells: u32, format: KvFormat) -> u64 {
    // A block of 32 numbers in `Q8_0` takes 34 bytes.
    let pair_bytes = match format {
        KvFormat::F16 => 4,
        KvFormat::Q8_0 => 2,
        KvFormat::F32 => 8,
    };
    let heads = count(weights, sys::llama_model_n_head).max(1);
    let head_size = metadata(weights, "attention.key_length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(count(weights, sys::llama_model_n_embd) / heads);
    let numbers = [
        count(weights, sys::llama_model_n_layer),
        count(weights, sys::llama_model_n_head_kv),
        head_size,
    ];
    numbers
        .iter()
        .map(|&n| u64::from(n))
        .fold(u64::from(cells) * pair_bytes, u64::saturating_mul)
}

/// A value of the file's metadata, under the name of the model's architecture.
fn metadata(weights: &Weights, key: &str) -> Option<String> {
    let architecture = metadata_of(weights, "general.architecture")?;
    metadata_of(weights, &format!("{architecture}.{key}"))
}

fn metadata_of(weights: &Weights, key: &str) -> Option<String> {
    let key = CString::new(key).ok()?;
    let mut text: [c_char; 64] = [0; 64];
    let (buffer, size) = (text.as_mut_ptr(), text.len());
    // SAFETY: the model is alive, the key ends with NUL, and the text is as long as said.
    let found =
        unsafe { sys::llama_model_meta_val_str(weights.pointer(), key.as_ptr(), buffer, size) };
    // SAFETY: llama.cpp ends the text with NUL within its length, also when there is no such key.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) };
    (found >= 0).then(|| text.to_string_lossy().into_owned())
}
