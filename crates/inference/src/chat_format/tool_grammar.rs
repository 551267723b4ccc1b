//! Grammars for answers that must have a form: tool calls that must be made, and texts such as JSON. A reasoning model
//! may reason first.

use serde_json::json;
use weir_engine::Token;
use weir_engine::request::Schema;
use weir_engine::request::{self, Invalid, Tool, ToolChoice, Tools};

use super::format::{Format, HERMES, PLAIN};
use crate::constraint::{Grammar, Part};

/// Limit on the calls of one answer.
const CALLS_MAX: usize = 16;

/// The parts of an answer that must have a form.
#[derive(Debug)]
pub(super) struct Form<'a> {
    pub(super) thoughts: Option<Thoughts>,
    /// The tools that may be called, and the format of the calls.
    pub(super) calls: Option<(&'a Tools, &'static Format)>,
    /// Whether there may be several calls. A named tool is called only once in any case.
    pub(super) several: bool,
    /// A text that must have a form, as an alternative to calls.
    pub(super) text: Option<Part>,
    /// Marks that are special tokens of the vocabulary.
    pub(super) marks: &'a [(Token, &'static str)],
}

/// The marks around the reasoning that may come first.
#[derive(Debug)]
pub(super) struct Thoughts {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    pub(super) is_open: bool,
}

/// The format of calls that must be made: Hermes' if it is the model's own, otherwise a JSON list.
pub(super) fn format_of(own: Option<&'static Format>) -> &'static Format {
    match own {
        Some(format) if *format == HERMES => &HERMES,
        _ => &PLAIN,
    }
}

/// The grammar of a text that must have a form; `None` for free text.
pub(super) fn part_of(format: &request::Format) -> Option<Part> {
    Some(match format {
        request::Format::Text => return None,
        request::Format::JsonObject => Grammar::json_object().0,
        request::Format::JsonSchema(schema) => Part::Json(schema.clone()),
        request::Format::Regex(regex, param) => Part::Pattern(regex.clone(), param),
        request::Format::Choice(texts) => Part::OneOf(texts.iter().map(Part::literal).collect()),
        request::Format::Grammar(text, param) => Part::Grammar(text.clone(), param),
    })
}

/// The grammar of an answer without reasoning and calls; `None` for free text.
pub(crate) fn text_grammar(format: &request::Format) -> Option<Grammar> {
    part_of(format).map(Grammar)
}

impl Form<'_> {
    pub(super) fn grammar(&self) -> Result<Grammar, Invalid> {
        let mut answers = Vec::new();
        if let Some((tools, format)) = self.calls {
            answers.push(self.calls(tools, format)?);
        }
        answers.extend(self.text.clone());
        let answer = match answers.len() {
            1 => answers.remove(0),
            _ => Part::OneOf(answers),
        };
        let Some(thoughts) = &self.thoughts else {
            return Ok(Grammar(answer));
        };
        let before = self.thoughts(thoughts);
        let before = if thoughts.is_open {
            before
        } else {
            before.optional()
        };
        Ok(Grammar(Part::Sequence(vec![before, answer])))
    }

    fn thoughts(&self, thoughts: &Thoughts) -> Part {
        let mut parts = Vec::new();
        if !thoughts.is_open {
            parts.push(self.mark(thoughts.open));
        }
        match self.special(thoughts.close) {
            Some(token) => parts.extend([Part::Regex(r"(?s:.+)").optional(), token]),
            None => {
                let close = escaped(thoughts.close);
                parts.push(Part::Lazy(format!("(?s:.*){close}")));
            }
        }
        parts.push(Part::Regex(r"\n{1,2}").optional());
        Part::Sequence(parts)
    }

    fn calls(&self, tools: &Tools, format: &Format) -> Result<Part, Invalid> {
        let bodies: Vec<Part> = callable(tools)
            .map(|(place, tool)| body(place, tool))
            .collect();
        if bodies.is_empty() {
            return Err(Invalid::new("tool_choice", "tool_choice names no tool"));
        }
        let one = !self.several || matches!(tools.choice, ToolChoice::Named(_));
        let body = Part::OneOf(bodies);
        let more = |another: Part| {
            let part = Part::Repeat {
                part: Box::new(another),
                least: 1,
                most: Some(CALLS_MAX as u64 - 1),
            };
            part.optional()
        };
        let newline = || Part::literal("\n");
        if *format == HERMES {
            let (open, close) = (self.mark("<tool_call>"), self.mark("</tool_call>"));
            let call = Part::Sequence(vec![open, newline(), body, newline(), close]);
            let another = Part::Sequence(vec![newline(), call.clone()]);
            return Ok(match one {
                true => call,
                false => Part::Sequence(vec![call, more(another)]),
            });
        }
        let mut list = vec![Part::literal("["), body.clone()];
        if !one {
            list.push(more(Part::Sequence(vec![Part::literal(", "), body])));
        }
        list.push(Part::literal("]"));
        Ok(Part::Sequence(list))
    }

    fn mark(&self, mark: &str) -> Part {
        self.special(mark).unwrap_or_else(|| Part::literal(mark))
    }

    /// The special token of a mark; `None` if the mark is ordinary text.
    fn special(&self, mark: &str) -> Option<Part> {
        let token = self.marks.iter().find(|(_, name)| *name == mark);
        token.map(|(token, _)| Part::Token(*token))
    }
}

/// The tools that an answer may call, with their indices in the request.
fn callable(tools: &Tools) -> impl Iterator<Item = (usize, &Tool)> {
    (tools.tools.iter().enumerate()).filter(|(_, tool)| match &tools.choice {
        ToolChoice::Named(name) => tool.name == *name,
        ToolChoice::None => false,
        ToolChoice::Auto | ToolChoice::Required => true,
    })
}

fn body(place: usize, tool: &Tool) -> Part {
    let head = format!("{{\"name\": {}, \"arguments\": ", json!(tool.name));
    Part::Sequence(vec![
        Part::literal(head),
        Part::Json(arguments(place, tool)),
        Part::literal("}"),
    ])
}

/// The schema of a tool's arguments, limited to objects. A tool without a schema has no arguments.
fn arguments(place: usize, tool: &Tool) -> Schema {
    let param = format!("tools.{place}.function.parameters");
    let text = match (&tool.parameters_text, &tool.parameters) {
        (Some(text), _) => text.to_string(),
        (None, Some(schema)) => schema.to_string(),
        (None, None) => json!({"additionalProperties": false}).to_string(),
    };
    Schema::new(text, param).strict(tool.strict).of_objects()
}

/// A regular expression that matches only this text.
fn escaped(text: &str) -> String {
    let special = |c: char| "\\/.+*?()[]{}|^$".contains(c);
    let escape = |c| if special(c) { Some('\\') } else { None };
    text.chars()
        .flat_map(|c| escape(c).into_iter().chain([c]))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use serde_json::Value;

    use crate::constraint::{Cancel, Constraints, Next};
    use crate::model::{Bos, Tokenizer};
    use crate::sim::{END, PromptMasks, SimTokenizer};

    fn tools(choice: ToolChoice) -> Tools {
        let tool = |name: &str, parameters: Option<Value>| Tool {
            name: name.to_owned(),
            description: None,
            parameters: parameters.map(Arc::new),
            parameters_text: None,
            strict: false,
        };
        let city = json!({"properties": {"city": {"enum": ["Ulm", "Köln"]}}, "required": ["city"]});
        Tools {
            tools: vec![tool("now", None), tool("weather", Some(city))],
            choice,
            parallel: None,
        }
    }

    /// How far a text follows the grammar, and whether it may end there.
    fn walk(form: &Form<'_>, text: &str) -> String {
        let grammar = form.grammar().unwrap();
        let constraint = Constraints::new(Arc::new(SimTokenizer))
            .compile(&grammar, &Cancel::default())
            .unwrap()
            .constraint;
        let mut walk = constraint.begin();
        let is_set =
            |words: &[u32], token: Token| words[token as usize / 32] >> (token % 32) & 1 == 1;
        let mut bytes = Vec::new();
        for token in SimTokenizer.tokenize(text, Bos::Omit) {
            if !matches!(walk.ahead(), Next::Allowed(words) if is_set(words, token)) {
                return format!("not behind {}", String::from_utf8_lossy(&bytes));
            }
            SimTokenizer.token_bytes(token, &mut bytes);
            walk.advance(token, &mut PromptMasks);
        }
        match walk.ahead() {
            Next::Allowed(words) if is_set(words, END) => "may end".to_owned(),
            Next::Allowed(_) => "goes on".to_owned(),
            next => format!("{next:?}"),
        }
    }

    const NOW: &str = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    const ULM: &str =
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Ulm\"}}\n</tool_call>";

    #[test]
    fn calls_that_must_be() {
        let check = |tools: Tools, several, format, text: &str, expected: &str| {
            let form = Form {
                thoughts: None,
                calls: Some((&tools, format)),
                several,
                text: None,
                marks: &[],
            };
            assert_eq!(walk(&form, text), expected, "{text}");
        };
        let required = || tools(ToolChoice::Required);
        check(required(), true, &HERMES, "", "goes on");
        check(required(), true, &HERMES, "Well", "not behind ");
        check(required(), true, &HERMES, NOW, "may end");
        check(
            required(),
            true,
            &HERMES,
            &format!("{NOW}\n{ULM}"),
            "may end",
        );
        check(required(), true, &HERMES, &format!("{NOW}\n"), "goes on");
        check(required(), false, &HERMES, ULM, "End");
        let all = [NOW; CALLS_MAX].join("\n");
        check(required(), true, &HERMES, &all, "End");
        let weather = || tools(ToolChoice::Named("weather".to_owned()));
        check(weather(), true, &HERMES, ULM, "End");
        check(
            weather(),
            true,
            &HERMES,
            NOW,
            "not behind <tool_call>\n{\"name\": \"",
        );
        let plain = r#"[{"name": "now", "arguments": {}}, {"name": "weather", "arguments": {"city": "Köln"}}"#;
        check(required(), true, &PLAIN, plain, "goes on");
        check(required(), true, &PLAIN, &format!("{plain}]"), "End");
        check(
            required(),
            true,
            &PLAIN,
            r#"[{"name": "now", "arguments": {"x""#,
            "not behind [{\"name\": \"now\", \"arguments\": {",
        );
    }

    #[test]
    fn thoughts_may_come_before() {
        let tools = tools(ToolChoice::Auto);
        let check = |is_open, marks: &[(Token, &'static str)], text: &str, expected: &str| {
            let form = Form {
                thoughts: Some(Thoughts {
                    open: "<think>",
                    close: "</think>",
                    is_open,
                }),
                calls: Some((&tools, &HERMES)),
                several: true,
                text: Some(Part::Json(
                    json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": false}).into(),
                )),
                marks,
            };
            assert_eq!(walk(&form, text), expected, "{text}");
        };
        check(true, &[], "Why? <b> {\n", "goes on");
        check(true, &[], "Why?\n</think>\n\n{\"a\": true}", "End");
        check(true, &[], &format!("</think>{NOW}"), "may end");
        check(true, &[], "</think>Well", "not behind </think>");
        check(false, &[], NOW, "may end");
        check(false, &[], "<think>x</think>{}", "End");
        check(false, &[], "<thinking", "not behind <think");
        check(false, &[], "x", "not behind ");
        // Here the closing mark is a special token, which no text matches.
        let close = [(0, "</think>")];
        check(true, &close, "x</think>{}", "goes on");
        check(true, &close, "x<|bos|>{\"a\": false}", "End");
    }

    #[test]
    fn a_tool_that_there_is_not_is_refused() {
        let tools = tools(ToolChoice::Named("gone".to_owned()));
        let form = Form {
            thoughts: None,
            calls: Some((&tools, &HERMES)),
            several: true,
            text: None,
            marks: &[],
        };
        assert_eq!(form.grammar().unwrap_err().param, "tool_choice");
    }
}
