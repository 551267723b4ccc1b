//! `weir model list`: the models of the config.

use serde_json::json;

use crate::cli::Json;
use crate::config::{Config, EngineSection, Model};
use crate::output;

pub(crate) fn list(config: &Config, output: Json) -> output::Result<()> {
    let data: Vec<_> = config.models.iter().map(row).collect();
    output::list(
        output,
        &["ID", "INPUT", "OUTPUT", "FILE", ""],
        &data,
        |row| {
            let text = |name: &str| {
                row[name]
                    .as_str()
                    .map_or_else(|| row[name].to_string(), str::to_owned)
            };
            let state = if row["file_present"] == true {
                ""
            } else {
                "missing"
            };
            vec![
                text("id"),
                text("input_price"),
                text("output_price"),
                text("path"),
                state.to_owned(),
            ]
        },
    )
}

/// Warns of models that a key or an account is restricted to and that the config doesn't offer: most are misspelt.
/// `offered` is `None` where no config was read.
pub(crate) fn warn_of_unknown(offered: Option<&[String]>, asked: &[String]) {
    let Some(offered) = offered else { return };
    for model in asked.iter().filter(|model| !offered.contains(model)) {
        output::note(&format!(
            "warning: the config has no model {model:?}; its models are {}",
            offered.join(", ")
        ));
    }
}

fn row(model: &Model) -> serde_json::Value {
    let EngineSection::Llama(llama) = model.engine();
    json!({
        "id": model.id,
        "title": model.title,
        "input_price": model.input_price,
        "output_price": model.output_price,
        "cached_price": model.cached_price.unwrap_or(model.input_price),
        "max_output_tokens": model.max_output_tokens,
        "path": llama.path.display().to_string(),
        "file_present": llama.path.is_file(),
    })
}
