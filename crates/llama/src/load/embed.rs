//! Loads a model for embeddings from a file.

use std::path::Path;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use weir_engine::Token;
use weir_inference::model::{Embedder, EmbedderFacts};

use crate::embedder::{LlamaEmbedder, Pooling};
use crate::load::{count, metadata, vocabulary};
use crate::log::collect_errors;
use crate::options::{EmbedOptions, LoadError};
use crate::shim::{Context, Weights};
use crate::sizes::{threads, threads_min};
use crate::threads::Use;
use crate::tokenizer::LlamaTokenizer;

/// The longest input in tokens, unless more are asked for: the attention of an encoder grows with its square.
const INPUT_TOKENS: u32 = 2_048;
/// The most tokens of a step, which several inputs may share.
const ROWS: u32 = 512;
/// The most inputs of a step.
const INPUTS: u32 = 16;
/// llama.cpp computes logits beside the vectors if the model can, so steps are shorter for large vocabularies.
const LOGITS_BYTES: u32 = 64 << 20;
/// No spinning between steps: the cores are left to a generating model.
const POLLING: u32 = 0;

pub(super) fn is_embedder(weights: &Weights) -> bool {
    !is_causal(weights) || pooling_type(weights).is_some_and(|pooling| pooling > 0)
}

pub(super) fn embedder(
    path: &Path,
    weights: &Arc<Weights>,
    options: &EmbedOptions,
) -> Result<LlamaEmbedder, LoadError> {
    let unsupported = |reason| LoadError::Unsupported {
        path: path.to_owned(),
        reason,
    };
    let pooling = match (options.pooling, pooling_type(weights)) {
        (Some(pooling), _) => pooling,
        (None, Some(sys::LLAMA_POOLING_TYPE_MEAN)) => Pooling::Mean,
        (None, Some(sys::LLAMA_POOLING_TYPE_CLS)) => Pooling::First,
        (None, Some(sys::LLAMA_POOLING_TYPE_LAST)) => Pooling::Last,
        (None, Some(sys::LLAMA_POOLING_TYPE_RANK)) => {
            return Err(unsupported("it ranks texts, and gives no vectors of them"));
        }
        (None, _) => return Err(unsupported("its file doesn't say how to pool embeddings")),
    };
    let vocabulary = vocabulary(weights);
    let trained = count(weights, sys::llama_model_n_ctx_train).max(1);
    let input_tokens_max = options
        .input_tokens_max
        .unwrap_or(INPUT_TOKENS)
        .clamp(1, trained);
    let rows = if is_causal(weights) {
        (LOGITS_BYTES / 4 / vocabulary.max(1)).clamp(32, ROWS)
    } else {
        ROWS
    };
    // An encoder must see a whole input in one step.
    let rows_at_once = if is_causal(weights) {
        rows
    } else {
        rows.max(input_tokens_max)
    };
    let threads = threads(options.threads)?;
    let threads_min = threads_min(options.threads_min, threads, 1)?;
    let params = context_params(threads, rows_at_once, input_tokens_max.max(rows_at_once));
    let memory = |reason| LoadError::Memory {
        cells: input_tokens_max.max(rows_at_once),
        sequences: INPUTS,
        reason,
    };
    let how = Use {
        least: threads_min,
        polling: POLLING,
    };
    let (context, errors) = collect_errors(|| Context::new(weights, &params, how));
    let context = context
        .map_err(|threw| memory(threw.to_string()))?
        .ok_or_else(|| memory(errors))?;
    let facts = EmbedderFacts {
        dimensions: count(weights, sys::llama_model_n_embd_out),
        input_tokens_max,
        rows,
        inputs: INPUTS,
        last: last(weights),
    };
    let tokenizer = LlamaTokenizer::new(Arc::clone(weights), vocabulary, input_tokens_max);
    let mut embedder = LlamaEmbedder::new(
        context,
        Arc::new(tokenizer),
        facts,
        pooling,
        rows_at_once as usize,
    );
    // llama.cpp doesn't give the vectors of tokens for every architecture: find out now, not with the first request.
    if embedder.embed(&[Arc::from([0])]).is_err() {
        return Err(unsupported(
            "llama.cpp has no embeddings of this architecture",
        ));
    }
    tracing::info!(path = %path.display(), ?pooling, ?facts, threads, "embeddings loaded");
    Ok(embedder)
}

fn context_params(threads: u32, rows: u32, cells: u32) -> sys::llama_context_params {
    // SAFETY: returns a plain struct.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = cells;
    params.n_batch = rows;
    params.n_ubatch = rows;
    params.n_seq_max = INPUTS;
    // The vectors of all tokens are wanted.
    params.n_outputs_max = rows;
    params.n_threads = threads.cast_signed();
    params.n_threads_batch = threads.cast_signed();
    params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_AUTO;
    params.kv_unified = true;
    params.swa_full = true;
    params.no_perf = true;
    params.embeddings = true;
    // Pooling is done here, since an input may take several steps.
    params.pooling_type = sys::LLAMA_POOLING_TYPE_NONE;
    params
}

fn is_causal(weights: &Weights) -> bool {
    metadata(weights, "attention.causal").as_deref() != Some("false")
}

fn pooling_type(weights: &Weights) -> Option<sys::llama_pooling_type> {
    metadata(weights, "pooling_type")?.parse().ok()
}

/// The token that the model expects at the end of a text, if any.
fn last(weights: &Weights) -> Option<Token> {
    let vocab = weights.vocab();
    // SAFETY: `weights` keeps the vocabulary alive.
    let separator = unsafe { sys::llama_vocab_get_add_sep(vocab) };
    // SAFETY: as above.
    let end = unsafe { sys::llama_vocab_get_add_eos(vocab) };
    let token = if separator {
        // SAFETY: as above.
        unsafe { sys::llama_vocab_sep(vocab) }
    } else if end {
        // SAFETY: as above.
        unsafe { sys::llama_vocab_eos(vocab) }
    } else {
        return None;
    };
    Token::try_from(token).ok()
}
