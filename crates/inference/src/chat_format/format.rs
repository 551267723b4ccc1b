//! Formats in which model families write tool calls.

/// A format of tool calls.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) name: &'static str,
    /// Marks that begin a call or a list of calls.
    pub(crate) opens: &'static [&'static str],
    /// Marks around all calls, which are skipped.
    pub(crate) around: &'static [&'static str],
    /// Marks within a call, which may be special tokens.
    pub(crate) within: &'static [&'static str],
    /// Whether an answer that begins with JSON is a call, even without a mark.
    pub(crate) bare: bool,
    pub(crate) syntax: Syntax,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// `{"name": …, "arguments": {…}}`, or a list of these.
    Json { close: &'static str },
    /// The name, then the arguments as JSON.
    Named {
        /// Text before the name.
        prefix: &'static str,
        close: &'static str,
    },
    /// Each argument as a key and a value between tags.
    Tagged(Tags),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) name_open: &'static str,
    pub(crate) key_open: &'static str,
    pub(crate) key_close: &'static str,
    pub(crate) value_open: &'static str,
    pub(crate) value_close: &'static str,
    /// Ends a call; other calls may follow before `close`. Empty if `close` ends the call.
    pub(crate) call_close: &'static str,
    pub(crate) close: &'static str,
    /// Whether values stand on lines of their own.
    pub(crate) lines: bool,
}

impl Format {
    /// All marks that may be special tokens of a vocabulary: these must then be shown in the text.
    pub(crate) fn marks(&self) -> impl Iterator<Item = &'static str> {
        let close = match self.syntax {
            Syntax::Json { close } | Syntax::Named { close, .. } => close,
            Syntax::Tagged(tags) => tags.close,
        };
        let lists = [self.opens, self.around, self.within];
        let all = lists.into_iter().flatten().copied().chain([close]);
        all.filter(|mark| !mark.is_empty())
    }
}

/// Hermes, Qwen 2.5 and 3, Granite 4; also used for models whose template doesn't support tools.
pub(crate) static HERMES: Format = Format {
    name: "hermes",
    opens: &["<tool_call>"],
    around: &[],
    within: &[],
    bare: false,
    syntax: Syntax::Json {
        close: "</tool_call>",
    },
};

/// Llama 3.1 to 3.3.
pub(crate) static LLAMA: Format = Format {
    name: "llama",
    opens: &["<|python_tag|>"],
    around: &[],
    within: &[],
    bare: true,
    syntax: Syntax::Json { close: "" },
};

/// Mistral up to Small 3.
pub(crate) static MISTRAL_LIST: Format = Format {
    name: "mistral-list",
    opens: &["[TOOL_CALLS]"],
    around: &[],
    within: &[],
    bare: false,
    syntax: Syntax::Json { close: "" },
};

/// Mistral since Small 3.1, Magistral, Devstral.
pub(crate) static MISTRAL: Format = Format {
    name: "mistral",
    opens: &["[TOOL_CALLS]"],
    around: &[],
    within: &["[CALL_ID]", "[ARGS]"],
    bare: false,
    syntax: Syntax::Named {
        prefix: "",
        close: "",
    },
};

/// Granite 3, Phi 4 mini.
pub(crate) static GRANITE: Format = Format {
    name: "granite",
    opens: &["<|tool_call|>", "<tool_call>"],
    around: &[],
    within: &[],
    bare: false,
    syntax: Syntax::Json {
        close: "<|/tool_call|>",
    },
};

pub(crate) static DEEPSEEK_V3: Format = Format {
    name: "deepseek-v3",
    opens: &["<｜tool▁call▁begin｜>"],
    around: &["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
    within: &["<｜tool▁sep｜>"],
    bare: false,
    syntax: Syntax::Named {
        prefix: "function<｜tool▁sep｜>",
        close: "<｜tool▁call▁end｜>",
    },
};

pub(crate) static DEEPSEEK_V31: Format = Format {
    name: "deepseek-v3.1",
    opens: &["<｜tool▁call▁begin｜>"],
    around: &["<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"],
    within: &["<｜tool▁sep｜>"],
    bare: false,
    syntax: Syntax::Named {
        prefix: "",
        close: "<｜tool▁call▁end｜>",
    },
};

pub(crate) static KIMI_K2: Format = Format {
    name: "kimi-k2",
    opens: &["<|tool_call_begin|>"],
    around: &["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"],
    within: &["<|tool_call_argument_begin|>"],
    bare: false,
    syntax: Syntax::Named {
        prefix: "functions.",
        close: "<|tool_call_end|>",
    },
};

pub(crate) static QWEN_CODER: Format = Format {
    name: "qwen3-coder",
    opens: &["<tool_call>"],
    around: &[],
    within: &[],
    bare: false,
    syntax: Syntax::Tagged(Tags {
        name_open: "<function=",
        key_open: "<parameter=",
        key_close: ">",
        value_open: "",
        value_close: "</parameter>",
        call_close: "</function>",
        close: "</tool_call>",
        lines: true,
    }),
};

/// GLM 4.5 to 4.7.
pub(crate) static GLM: Format = Format {
    name: "glm",
    opens: &["<tool_call>"],
    around: &[],
    within: &["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
    bare: false,
    syntax: Syntax::Tagged(Tags {
        name_open: "",
        key_open: "<arg_key>",
        key_close: "</arg_key>",
        value_open: "<arg_value>",
        value_close: "</arg_value>",
        call_close: "",
        close: "</tool_call>",
        lines: false,
    }),
};

pub(crate) static MINIMAX: Format = Format {
    name: "minimax-m2",
    opens: &["<minimax:tool_call>"],
    around: &[],
    within: &[],
    bare: false,
    syntax: Syntax::Tagged(Tags {
        name_open: "<invoke name=\"",
        key_open: "<parameter name=\"",
        key_close: "\">",
        value_open: "",
        value_close: "</parameter>",
        call_close: "</invoke>",
        close: "</minimax:tool_call>",
        lines: false,
    }),
};
/// Calls that a grammar makes a model write, if the model's own format isn't Hermes': a list of JSON objects without
/// marks.
pub(crate) static PLAIN: Format = Format {
    name: "plain",
    opens: &[],
    around: &[],
    within: &[],
    bare: true,
    syntax: Syntax::Json { close: "" },
};
