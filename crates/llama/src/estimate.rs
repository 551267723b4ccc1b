//! An estimate of the memory that a model will take, from its file's header alone.

use crate::gguf::Gguf;
use crate::options::{KvFormat, LoadError, LoadOptions};
use crate::sizes::{Memory, Sizes, Traits};

/// The approximate memory of a loaded model, in bytes. The kernels' buffers for a step come on top: some MiB to some
/// hundred MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Estimate {
    /// The longest prompt and answer together, in tokens.
    pub context_tokens: u32,
    /// KV cells: the tokens of all sequences together.
    pub cells: u32,
    pub sequences: u32,
    /// Bytes of a KV cell, over all layers.
    pub cell_bytes: u64,
    pub cache_bytes: u64,
    /// Bytes of the recurrent layers' states of all sequences.
    pub states_bytes: u64,
    /// Bytes of the second KV cache, in which long prompts are computed in the background.
    pub prefill_bytes: u64,
    /// Bytes of the logits of a step.
    pub logits_bytes: u64,
}

impl Estimate {
    /// The sum without the weights, which are mapped and shared with other processes.
    pub fn total_bytes(&self) -> u64 {
        self.cache_bytes + self.states_bytes + self.prefill_bytes + self.logits_bytes
    }
}

/// Whether the file holds an embedding model, which doesn't generate text.
pub fn is_embedder(head: &Gguf) -> bool {
    let causal = format!(
        "{}.attention.causal",
        head.architecture().unwrap_or_default()
    );
    let is_causal = head.metadata.get(&causal) != Some(&crate::gguf::Value::Flag(false));
    !is_causal
        || head
            .of_model("pooling_type")
            .is_some_and(|pooling| pooling > 0)
}

/// The memory that generating with a model takes. The error names the option that doesn't fit the model.
pub fn estimate(head: &Gguf, options: &LoadOptions) -> Result<Estimate, LoadError> {
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let vocabulary = head.length("tokenizer.ggml.tokens").unwrap_or(0);
    let traits = Traits {
        context_trained: narrow(head.of_model("context_length").unwrap_or(0)),
        vocabulary: narrow(vocabulary),
        window: narrow(head.of_model("attention.sliding_window").unwrap_or(0)),
        memory: memory(head),
        // Only how long the prefix cache keeps cells depends on these two.
        weights: 0,
        compared: 0,
    };
    let sizes = Sizes::choose(options, &traits)?;
    let cell_bytes = cell_bytes(head, options.kv_format);
    let cells = u64::from(sizes.cells_allocated());
    let aside = u64::from(sizes.aside_tokens.unwrap_or(0));
    Ok(Estimate {
        context_tokens: sizes.context_tokens,
        cells: sizes.cells,
        sequences: sizes.sequences,
        cell_bytes,
        cache_bytes: cells * cell_bytes,
        states_bytes: u64::from(sizes.sequences) * state_bytes(head),
        prefill_bytes: aside * cell_bytes,
        // llama.cpp has the logits twice: in the graph and in its output buffer.
        logits_bytes: u64::from(sizes.outputs) * vocabulary * 4 * 2,
    })
}

fn has_states(head: &Gguf) -> bool {
    let keys = ["ssm.state_size", "wkv.head_size", "shortconv.l_cache"];
    keys.iter().any(|key| head.of_model(key).is_some())
}

fn memory(head: &Gguf) -> Memory {
    let attends = head
        .of_model("attention.head_count")
        .is_some_and(|heads| heads > 0);
    match (has_states(head), attends) {
        (false, _) => Memory::Cells,
        (true, false) => Memory::State,
        (true, true) => Memory::CellsAndState,
    }
}

fn layers(head: &Gguf) -> u64 {
    head.of_model("block_count").unwrap_or(0)
}

/// The number of KV heads of each layer, also where the file has one number for all.
fn kv_heads(head: &Gguf) -> Vec<u64> {
    let heads = head.of_layers("attention.head_count_kv");
    let heads = heads.or_else(|| head.of_layers("attention.head_count"));
    match heads.unwrap_or_default()[..] {
        [one] => vec![one; usize::try_from(layers(head)).unwrap_or(0)],
        ref each => each.to_vec(),
    }
}

fn cell_bytes(head: &Gguf, format: KvFormat) -> u64 {
    let width = head.of_model("embedding_length").unwrap_or(0);
    let heads = head.of_model("attention.head_count").unwrap_or(0).max(1);
    let size = |key| head.of_model(key).unwrap_or(width / heads);
    // With multi-head latent attention (MLA) keys and values are computed from one short vector, and only that is cached.
    let is_latent = head.of_model("attention.key_length_mla").is_some();
    let values = if is_latent {
        0
    } else {
        size("attention.value_length")
    };
    let numbers = kv_heads(head).iter().sum::<u64>() * (size("attention.key_length") + values);
    match format {
        KvFormat::F32 => numbers * 4,
        KvFormat::F16 => numbers * 2,
        // A block of 32 numbers takes 34 bytes.
        KvFormat::Q8_0 => numbers * 34 / 32,
    }
}

/// Bytes of one sequence's recurrent state, of 32-bit numbers: llama.cpp's `n_embd_r` and `n_embd_s` over the recurrent layers.
fn state_bytes(head: &Gguf) -> u64 {
    if !has_states(head) {
        return 0;
    }
    let size = |key| head.of_model(key).unwrap_or(0);
    let width = size("embedding_length");
    let numbers = if head.of_model("ssm.state_size").is_some() {
        let inner = size("ssm.inner_size");
        let groups = 2 * size("ssm.group_count") * size("ssm.state_size");
        size("ssm.conv_kernel").saturating_sub(1) * (inner + groups)
            + size("ssm.state_size") * inner
    } else if head.of_model("wkv.head_size").is_some() {
        2 * width + width * size("wkv.head_size")
    } else {
        size("shortconv.l_cache").saturating_sub(1) * width
    };
    let heads = kv_heads(head);
    let without_attention = heads.iter().filter(|&&heads| heads == 0).count() as u64;
    // Some hybrid models have attention and a recurrent state in every layer.
    let recurrent = if without_attention > 0 {
        without_attention
    } else {
        layers(head)
    };
    recurrent * numbers * 4
}
