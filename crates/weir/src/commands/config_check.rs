//! `weir config check`: a config that can't be loaded has ended the command before, with every problem.

use serde_json::json;

use crate::cli::Json;
use crate::config::{Loaded, Source};
use crate::output;

pub(crate) fn check(loaded: Loaded, output: Json) -> output::Result<()> {
    let Loaded {
        config, warnings, ..
    } = loaded;
    let (file, assumed, text) = match &config.source {
        Source::File(path) => {
            let text = format!("{} is right", path.display());
            (Some(path), &[][..], text)
        }
        Source::Assumed(said) => (None, &said[..], said.join("\n")),
    };
    for warning in &warnings {
        output::note(warning);
    }
    let data = json!({"file": file, "assumed": assumed, "warnings": warnings});
    output::one(output, &data, &text)
}
