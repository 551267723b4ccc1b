//! `weir model inspect`: describes a GGUF file, estimates its memory, and checks it.

use std::process::ExitCode;

use crate::cli::Inspect;
use crate::config::{Config, Invalid};

#[cfg(not(feature = "llama"))]
pub(crate) fn inspect(
    _config: Result<Config, Invalid>,
    _command: &Inspect,
) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this program was built without the embedded engine")
}

#[cfg(feature = "llama")]
pub(crate) use with_engine::inspect;

#[cfg(feature = "llama")]
mod check;

#[cfg(feature = "llama")]
mod with_engine {
    use std::collections::BTreeMap;
    use std::path::{Path, PathBuf};

    use anyhow::{Context, bail};
    use serde_json::{Value, json};
    use weir_llama::gguf::{self, Gguf};
    use weir_llama::{LoadError, estimate, is_embedder};

    use super::check::{self, Checked};
    use super::{Config, ExitCode, Inspect, Invalid};
    use crate::config::{EngineSection, Llama};
    use crate::output;
    use crate::wire;

    /// The number of formats that are named: those with the largest shares of the weights.
    const FORMATS_NAMED: usize = 3;

    pub(crate) fn inspect(
        config: Result<Config, Invalid>,
        command: &Inspect,
    ) -> anyhow::Result<ExitCode> {
        let engine = find(config.as_ref(), &command.model)?;
        let path = &engine.path;
        if command.template {
            let head = Gguf::read(path)?;
            let template = head.text("tokenizer.chat_template");
            output::line(template.context("it has no chat template")?)?;
            return Ok(ExitCode::SUCCESS);
        }
        let described = Gguf::read(path).and_then(|head| describe(path, &head, &engine));
        let checked = command
            .check
            .then(|| check::check(&engine, config.as_ref().ok()));
        let (mut description, head_error) = match described {
            Ok(description) => (description, None),
            Err(error) if command.check => (json!({ "file": path }), Some(error)),
            Err(error) => return Err(error.into()),
        };
        if let Some(checked) = &checked {
            description["check"] = checked.json();
        }
        let printed = if command.output.json {
            output::one(command.output, &description, "")
        } else {
            let described = match head_error {
                None => print(&description),
                Some(_) => Ok(()),
            };
            described.and_then(|()| checked.iter().try_for_each(Checked::print))
        };
        // The exit status tells the result even if the output isn't read.
        output::unless_closed(printed)?;
        let is_sound = checked.is_none_or(|checked| checked.is_sound());
        Ok(if is_sound {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    /// The engine of a model of the config, or a file with default settings.
    fn find(config: Result<&Config, &Invalid>, name: &str) -> anyhow::Result<Llama> {
        let mut models = config.iter().flat_map(|config| &config.models);
        if let Some(model) = models.find(|model| model.id == name) {
            let EngineSection::Llama(llama) = model.engine();
            return Ok(llama.clone());
        }
        let path = PathBuf::from(name);
        if path.exists() {
            return Ok(Llama::at(path));
        }
        if let Err(invalid) = config {
            bail!("{name} is no file, and the config can't be read: {invalid}");
        }
        bail!("{name} is neither a model of the config nor a file")
    }

    fn describe(path: &Path, head: &Gguf, engine: &Llama) -> Result<Value, LoadError> {
        let parts = gguf::parts(path, head)?;
        let heads = parts.iter().map(|part| Gguf::read(part));
        let heads: Vec<Gguf> = heads.collect::<Result<_, _>>()?;
        let bytes: u64 = heads.iter().map(|head| head.bytes).sum();
        let parameters: u64 = heads.iter().map(Gguf::parameters).sum();
        let text = |key| head.text(key);
        Ok(json!({
            "file": path,
            "files": parts.len(),
            "bytes": bytes,
            "gguf_version": head.version,
            "name": text("general.name"),
            "architecture": head.architecture(),
            "license": text("general.license"),
            "parameters": parameters,
            "formats": formats(&heads),
            "layers": head.of_model("block_count"),
            "width": head.of_model("embedding_length"),
            "heads": head.of_layers("attention.head_count"),
            "kv_heads": head.of_layers("attention.head_count_kv"),
            "experts": head.of_model("expert_count"),
            "experts_used": head.of_model("expert_used_count"),
            "sliding_window": head.of_model("attention.sliding_window"),
            "context_tokens": head.of_model("context_length"),
            "vocabulary": head.length("tokenizer.ggml.tokens"),
            "tokenizer": [text("tokenizer.ggml.model"), text("tokenizer.ggml.pre")],
            "chat_template_bytes": text("tokenizer.chat_template").map(str::len),
            "serves": if is_embedder(head) { "embeddings" } else { "completions" },
            "memory": memory(head, engine, bytes),
        }))
    }

    /// Bytes of the weights in each format, largest first.
    fn formats(heads: &[Gguf]) -> Value {
        let mut bytes = BTreeMap::new();
        for tensor in heads.iter().flat_map(|head| &head.tensors) {
            *bytes.entry(tensor.format).or_insert(0) += tensor.bytes;
        }
        let mut formats: Vec<_> = bytes.into_iter().collect();
        formats.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
        let formats = formats.into_iter();
        formats
            .map(|(format, bytes)| json!({"format": format.to_string(), "bytes": bytes}))
            .collect()
    }

    /// The memory that the model takes with the engine's settings.
    fn memory(head: &Gguf, engine: &Llama, weights: u64) -> Value {
        if is_embedder(head) {
            return json!({ "weights_bytes": weights });
        }
        match estimate(head, &wire::load_options(engine)) {
            Ok(it) => json!({
                "weights_bytes": weights,
                "context_tokens": it.context_tokens,
                "cells": it.cells,
                "sequences": it.sequences,
                "cell_bytes": it.cell_bytes,
                "cache_bytes": it.cache_bytes,
                "states_bytes": it.states_bytes,
                "prefill_cache_bytes": it.prefill_bytes,
                "logits_bytes": it.logits_bytes,
                "total_bytes": weights.saturating_add(it.total_bytes()),
            }),
            Err(error) => json!({ "weights_bytes": weights, "error": error.to_string() }),
        }
    }

    /// Prints the description as text.
    fn print(of: &Value) -> output::Result<()> {
        let plain = |name: &str| match &of[name] {
            Value::Null => None,
            Value::String(text) => Some(shown(text)),
            other => Some(other.to_string()),
        };
        let number = |name: &str| of[name].as_u64().map(grouped);
        let tokens = |name| number(name).map(|tokens| format!("{tokens} tokens"));
        let template = number("chat_template_bytes");
        let template = template.map_or("none".to_owned(), |bytes| {
            format!("{bytes} bytes; --template prints it")
        });
        let size = |value: &Value| mib(value.as_u64().unwrap_or(0));
        let rows = [
            ("FILE", plain("file")),
            ("NAME", plain("name")),
            ("ARCHITECTURE", plain("architecture")),
            ("LICENSE", plain("license")),
            (
                "SIZE",
                Some(format!("{} in {} file(s)", size(&of["bytes"]), of["files"])),
            ),
            ("PARAMETERS", number("parameters")),
            ("FORMAT", Some(shares(&of["formats"]))),
            ("LAYERS", number("layers")),
            ("WIDTH", number("width")),
            ("HEADS", each(&of["heads"])),
            ("KV HEADS", each(&of["kv_heads"])),
            (
                "EXPERTS",
                number("experts")
                    .map(|all| format!("{all}, of which {} at once", of["experts_used"])),
            ),
            ("SLIDING WINDOW", tokens("sliding_window")),
            ("CONTEXT", tokens("context_tokens")),
            ("VOCABULARY", tokens("vocabulary")),
            ("CHAT TEMPLATE", Some(template)),
            ("SERVES", plain("serves")),
        ];
        for (name, value) in rows {
            if let Some(value) = value {
                output::line(&format!("{name:15} {value}"))?;
            }
        }
        print_memory(&of["memory"])
    }

    fn print_memory(memory: &Value) -> output::Result<()> {
        let size = |name: &str| mib(memory[name].as_u64().unwrap_or(0));
        output::line(&format!(
            "{:15} {} of weights, mapped",
            "MEMORY",
            size("weights_bytes")
        ))?;
        if let Some(error) = memory["error"].as_str() {
            return output::line(&format!("{:15} {error}", ""));
        }
        if memory["cells"].is_null() {
            return Ok(());
        }
        let rows = [
            format!(
                "{} of KV cache for {} tokens of {} sequences, {} bytes a token",
                size("cache_bytes"),
                grouped(memory["cells"].as_u64().unwrap_or(0)),
                memory["sequences"],
                grouped(memory["cell_bytes"].as_u64().unwrap_or(0)),
            ),
            format!("{} of recurrent states", size("states_bytes")),
            format!(
                "{} of a second cache for long prompts",
                size("prefill_cache_bytes")
            ),
            format!("{} of logits", size("logits_bytes")),
            format!(
                "{} about, in all, and a step's buffers",
                size("total_bytes")
            ),
        ];
        for row in rows.iter().filter(|row| !row.starts_with("0 MiB")) {
            output::line(&format!("{:15} {row}", ""))?;
        }
        Ok(())
    }

    /// The largest shares of formats, such as `Q4_1 90.0 %, F32 10.0 %`.
    fn shares(formats: &Value) -> String {
        let formats: Vec<(&str, u64)> = formats
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| {
                (
                    it["format"].as_str().unwrap_or_default(),
                    it["bytes"].as_u64().unwrap_or(0),
                )
            })
            .collect();
        let all: u64 = formats.iter().map(|(_, bytes)| bytes).sum();
        let shares = formats.iter().take(FORMATS_NAMED).map(|(format, bytes)| {
            let percent = *bytes as f64 * 100.0 / all.max(1) as f64;
            format!("{format} {percent:.1} %")
        });
        shares.collect::<Vec<_>>().join(", ")
    }

    /// The numbers of all layers, or the one number for all.
    fn each(layers: &Value) -> Option<String> {
        let layers = layers.as_array()?;
        let texts: Vec<String> = layers.iter().map(Value::to_string).collect();
        Some(texts.join(" "))
    }

    fn mib(bytes: u64) -> String {
        format!("{} MiB", grouped((bytes + (1 << 19)) >> 20))
    }

    fn grouped(number: u64) -> String {
        let digits = number.to_string();
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }

    /// A text from the file, escaped so that it can't control the terminal.
    fn shown(text: &str) -> String {
        text.escape_debug().to_string()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn numbers_and_names_are_readable() {
            let rows = [
                (0, "0"),
                (999, "999"),
                (1_000, "1,000"),
                (134_515_008, "134,515,008"),
            ];
            for (number, expected) in rows {
                assert_eq!(grouped(number), expected);
            }
            assert_eq!(mib(98_900_000), "94 MiB");
            assert_eq!(shown("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
            let formats =
                json!([{"format": "Q4_1", "bytes": 900}, {"format": "F32", "bytes": 100}]);
            assert_eq!(shares(&formats), "Q4_1 90.0 %, F32 10.0 %");
        }
    }
}
