//! What an answer must look like.

use crate::json::Schema;
use crate::value::object;

object! {
    /// `response_format`
    pub struct ResponseFormat {
        kind as "type": String,
        json_schema: JsonSchema,
        /// The schema of a `json_object`, as text-generation-inference takes it.
        value: Schema,
    }
}

object! {
    pub struct JsonSchema {
        name: String,
        description: String,
        schema: Schema,
        strict: bool,
    }
}
