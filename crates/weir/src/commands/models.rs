//! `weir model list`: the models of the config.

use serde_json::json;

use crate::cli::Json;
use crate::config::{Config, Model};
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
    json!({
        "id": model.id,
        "title": model.title,
        "input_price": model.price.input,
        "output_price": model.price.output,
        "cached_price": model.price.cached.unwrap_or(model.price.input),
        "max_output_tokens": model.output_tokens_max,
        "path": model.engine.path.display().to_string(),
        "file_present": model.engine.path.is_file(),
    })
}
