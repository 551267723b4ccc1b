//! Fields of other servers for the format of the answer, beside vLLM's, which are supported.

use super::Foreign;
use super::Plain::{Bool, Empty, Text};

#[rustfmt::skip]
pub(super) const EVERYWHERE: &[Foreign] = &[
    row("grammar",                    "structured_outputs.grammar"),
    row("grammar_string",             "structured_outputs.grammar"),
    row("ebnf",                       "structured_outputs.grammar"),
    row("regex",                      "structured_outputs.regex"),
    row("json_schema",                "response_format"),
    row("format",                     "response_format"),
    row("text",                       "response_format"),
    row("output_format",              "response_format"),
    row("output_config",              "response_format"),
    row("responseFormat",             "response_format"),
    row("response_schema",            "response_format"),
    row("responseSchema",             "response_format"),
    row("responseJsonSchema",         "response_format"),
    text_row("response_mime_type",    "response_format"),
    text_row("responseMimeType",      "response_format"),
    row("guided_decoding",            "structured_outputs"),
    row("guided_options_request",     "structured_outputs"),
    row("regex_pattern",              "structured_outputs.regex"),
    row("structural_tag",             "tools or response_format"),
    row("guided_whitespace_pattern",  ""),
];

const fn row(name: &'static str, instead: &'static str) -> Foreign {
    Foreign {
        name,
        neutral: &[Bool(false), Empty, Text("")],
        instead,
    }
}

/// A media type, with which plain text is as good as nothing.
const fn text_row(name: &'static str, instead: &'static str) -> Foreign {
    Foreign {
        name,
        neutral: &[Text(""), Text("text/plain")],
        instead,
    }
}
