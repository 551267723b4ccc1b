//! Values of the metadata that llama.cpp asserts for every architecture (`llama_model_base::load_hparams`).

use super::Gguf;

/// llama.cpp's `LLAMA_MAX_LAYERS`.
const LAYERS_MAX: u64 = 512;
/// llama.cpp's `LLAMA_MAX_EXPERTS`.
const EXPERTS_MAX: u64 = 1_024;
/// The largest `embedding_length`; the largest models have some 20,000.
const WIDTH_MAX: u64 = 1 << 20;
/// The largest `context_length`: llama.cpp counts tokens with 31 bits.
const CONTEXT_MAX: u64 = i32::MAX as u64;
const ROPE_SCALINGS: [&str; 4] = ["none", "linear", "yarn", "longrope"];

pub(super) fn check(head: &Gguf) -> Result<(), String> {
    let Some(architecture) = head.architecture().filter(|name| !name.is_empty()) else {
        return Err("it doesn't say its architecture (general.architecture)".to_owned());
    };
    if head.tensors.is_empty() {
        return Err("it has no tensors".to_owned());
    }
    let outside = |key: &str, least: u64, most: u64| match head.of_layers(key) {
        Some(values) if values.iter().any(|value| !(least..=most).contains(value)) => Err(format!(
            "{architecture}.{key} is {}, which must be between {least} and {most}",
            shown(&values)
        )),
        _ => Ok(()),
    };
    outside("block_count", 1, LAYERS_MAX)?;
    outside("embedding_length", 1, WIDTH_MAX)?;
    outside("context_length", 1, CONTEXT_MAX)?;
    let layers = head.of_model("block_count").unwrap_or(LAYERS_MAX);
    outside("nextn_predict_layers", 0, layers)?;
    let width = head.of_model("embedding_length").unwrap_or(WIDTH_MAX);
    outside("attention.head_count", 0, width)?;
    outside("attention.head_count_kv", 0, width)?;
    outside("attention.key_length", 0, WIDTH_MAX)?;
    outside("attention.value_length", 0, WIDTH_MAX)?;
    outside("feed_forward_length", 0, WIDTH_MAX * 64)?;
    let experts = head.of_model("expert_count").unwrap_or(0);
    outside("expert_count", 0, EXPERTS_MAX)?;
    if experts > 0 {
        outside("expert_used_count", 0, experts)?;
        outside("expert_group_count", 0, experts - 1)?;
    }
    rope_scaling(head, architecture)?;
    vocabulary(head)
}

fn rope_scaling(head: &Gguf, architecture: &str) -> Result<(), String> {
    let key = format!("{architecture}.rope.scaling.type");
    match head.text(&key) {
        Some(kind) if !ROPE_SCALINGS.contains(&kind) => Err(format!(
            "{key} is {kind:?}, which is none of {}",
            ROPE_SCALINGS.join(", ")
        )),
        _ => Ok(()),
    }
}

/// Checks lists that llama.cpp indexes by token without looking at their length.
fn vocabulary(head: &Gguf) -> Result<(), String> {
    let Some(tokens) = head.length("tokenizer.ggml.tokens") else {
        return Ok(());
    };
    for key in ["tokenizer.ggml.scores", "tokenizer.ggml.token_type"] {
        if let Some(length) = head.length(key)
            && length < tokens
        {
            return Err(format!(
                "{key} has {length} entries, and the vocabulary {tokens}"
            ));
        }
    }
    Ok(())
}

fn shown(values: &[u64]) -> String {
    match values {
        [value] => value.to_string(),
        values => format!("{values:?}"),
    }
}
