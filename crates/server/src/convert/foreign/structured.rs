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
