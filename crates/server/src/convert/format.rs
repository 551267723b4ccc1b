//! `response_format`, of chats and plain completions.

use std::sync::Arc;

use weir_api::ResponseFormat;
use weir_api::format::JsonSchema;
use weir_engine::Feature;
use weir_engine::request::{Format, Invalid};

use super::{Needs, is_name};

/// What the answer must look like. A schema is enforced whether or not it says `strict`, as in vLLM.
pub(super) fn format(format: Option<ResponseFormat>, needs: &mut Needs) -> Result<Format, Invalid> {
    let Some(format) = format else {
        return Ok(Format::Text);
    };
    let format = match format.kind.as_deref() {
        Some("text") => return Ok(Format::Text),
        // huggingface_hub says it so, of any server that isn't behind one of its providers.
        Some("json_object") => match format.value {
            Some(weir_api::json::Schema(schema)) => Format::JsonSchema(Arc::new(schema)),
            None => Format::JsonObject,
        },
        Some("json_schema") => json_schema(format.json_schema.unwrap_or_default())?,
        _ => {
            return Err(Invalid::new(
                "response_format.type",
                "response_format.type must be one of text, json_object, json_schema",
            ));
        }
    };
    needs.feature("response_format", Feature::StructuredOutputs);
    Ok(format)
}

fn json_schema(described: JsonSchema) -> Result<Format, Invalid> {
    const NAME: &str = "response_format.json_schema.name";
    if !described.name.is_some_and(|name| is_name(&name)) {
        return Err(Invalid::new(
            NAME,
            format!("{NAME} is required: 1 to 64 letters, digits, _ and -"),
        ));
    }
    const SCHEMA: &str = "response_format.json_schema.schema";
    match described.schema {
        Some(weir_api::json::Schema(schema)) => Ok(Format::JsonSchema(Arc::new(schema))),
        None => Err(Invalid::new(SCHEMA, format!("{SCHEMA} is required"))),
    }
}
