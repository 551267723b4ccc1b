//! Makes the second context, in which long prompts are computed by background prefill.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use weir_inference::model::AsideCapacity;

use crate::aside::{Aside, Places, SEQUENCES, Values};
use crate::load::{kv_type, metadata};
use crate::log::collect_errors;
use crate::model::LlamaModel;
use crate::options::LoadOptions;
use crate::shim::{Handle, Weights};
use crate::sizes::{SHARE_ALIGNED, Sizes};

/// Tokens per chunk. Larger chunks aren't faster per token, and lengthen each operation, within which nothing can pause.
const ROWS: u32 = 256;
/// The shortest chunk in tokens. Shorter prompts are computed as fast in the steps of streams.
const ROWS_MIN: u32 = 256;

/// Makes the second context if the options ask for one. Prompts are computed without it as well, so the caller only logs an error.
pub(super) fn add(
    model: &mut LlamaModel,
    weights: &Arc<Weights>,
    sizes: &Sizes,
    options: &LoadOptions,
) -> Result<(), String> {
    let Some(tokens) = sizes.aside_tokens else {
        return Ok(());
    };
    if original_context(weights)
        .is_some_and(|it| is_longer(tokens, it) != is_longer(sizes.cells_allocated(), it))
    {
        return Err(
            "its rotations depend on the context's length, which isn't the same".to_owned(),
        );
    }
    let capacity = AsideCapacity {
        rows: ROWS,
        rows_min: ROWS_MIN,
        tokens,
    };
    let values = match sizes.flash_attention {
        true => Values::ByToken,
        false => Values::ByNumber,
    };
    let (started, errors) = collect_errors(|| {
        Aside::start(capacity, values, |places| {
            let params = params(capacity, options, places);
            Handle::new(weights, &params)
        })
    });
    let aside = started?.ok_or(errors)?;
    model.add_aside(aside).map_err(|error| error.to_string())
}

/// Compares a context with a length. llama.cpp rounds the cells of a context up.
fn is_longer(cells: u32, than: u32) -> bool {
    cells.next_multiple_of(SHARE_ALIGNED) > than
}

/// The context length beyond which the model rotates keys in another way (LongRoPE), if it does.
fn original_context(weights: &Weights) -> Option<u32> {
    metadata(weights, "rope.scaling.original_context_length")?
        .parse()
        .ok()
}

fn params(
    capacity: AsideCapacity,
    options: &LoadOptions,
    places: &Places,
) -> sys::llama_context_params {
    // SAFETY: returns a plain struct.
    let mut params = unsafe { sys::llama_context_default_params() };
    params.n_ctx = capacity.tokens;
    params.n_batch = capacity.rows;
    params.n_ubatch = capacity.rows;
    params.n_seq_max = SEQUENCES;
    params.n_outputs_max = SEQUENCES;
    params.kv_unified = true;
    params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_ENABLED;
    let kv_format = kv_type(options.kv_format);
    (params.type_k, params.type_v) = (kv_format, kv_format);
    params.no_perf = true;
    places.set(&mut params);
    params
}
