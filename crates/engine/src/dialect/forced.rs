//! Answers that have a form: calls that must be, and texts that must be JSON, as grammars. A model that
//! thinks may do so before.

use serde_json::{Map, Value, json};

use super::format::{Format, HERMES, PLAIN};
use crate::Token;
use crate::constraint::{Constraints, Grammar, json_rule};
use crate::request::{self, Invalid, Tool, ToolChoice, Tools};

/// Calls of one answer.
const CALLS_MAX: usize = 16;

/// What an answer consists of.
#[derive(Debug)]
pub(super) struct Form<'a> {
    pub(super) thoughts: Option<Thoughts>,
    /// Calls, in this format.
    pub(super) calls: Option<(&'a Tools, &'static Format)>,
    /// Whether any tool may be called several times; a named one is called once.
    pub(super) several: bool,
    /// A text that this schema allows.
    pub(super) text: Option<Value>,
    /// Marks that are special tokens.
    pub(super) marks: &'a [(Token, &'static str)],
}

/// The reasoning that may be in front.
#[derive(Debug)]
pub(super) struct Thoughts {
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    pub(super) is_open: bool,
}

/// How a model writes calls that must be: in its own format if that is plain enough, else as a list.
pub(super) fn format_of(own: Option<&'static Format>) -> &'static Format {
    match own {
        Some(format) if *format == HERMES => &HERMES,
        _ => &PLAIN,
    }
}

/// The schema of a text, if it must have one.
pub(super) fn schema_of(format: &request::Format) -> Option<Value> {
    match format {
        request::Format::Text => None,
        request::Format::JsonObject => Some(json!({"type": "object"})),
        request::Format::JsonSchema(schema) => Some(Value::clone(schema)),
    }
}

/// What a text must look like that is nothing else.
pub(crate) fn text_grammar(format: &request::Format) -> Option<Grammar> {
    schema_of(format).map(|schema| Grammar::json_schema(&schema))
}

impl Form<'_> {
    pub(super) fn grammar(&self) -> Result<Grammar, Invalid> {
        match self {
            Form {
                thoughts: None,
                calls: None,
                several: _,
                text: Some(schema),
                marks: _,
            } => Ok(Grammar::json_schema(schema)),
            _ => self.lark().map(Grammar::lark),
        }
    }

    fn lark(&self) -> Result<String, Invalid> {
        let mut rules = vec![String::new()];
        let mut answers = Vec::new();
        if let Some((tools, format)) = self.calls {
            rules.extend(self.calls(tools, format)?);
            answers.push("calls");
        }
        if let Some(schema) = &self.text {
            rules.push(format!("text: {}", json_rule(schema)?));
            answers.push("text");
        }
        rules[0] = match &self.thoughts {
            Some(thoughts) => {
                rules.extend(self.thoughts(thoughts));
                "start: thoughts? answer".to_owned()
            }
            None => "start: answer".to_owned(),
        };
        if self
            .thoughts
            .as_ref()
            .is_some_and(|thoughts| thoughts.is_open)
        {
            rules[0] = "start: thoughts answer".to_owned();
        }
        rules.push(format!("answer: {}", answers.join(" | ")));
        Ok(rules.join("\n") + "\n")
    }

    fn thoughts(&self, thoughts: &Thoughts) -> Vec<String> {
        let open = match thoughts.is_open {
            true => String::new(),
            false => self.mark(thoughts.open) + " ",
        };
        let inside = match self.special(thoughts.close) {
            Some(token) => format!("inside: THOUGHT {token}\nTHOUGHT: /(.|\\n)*/"),
            None => {
                let close = escaped(thoughts.close);
                format!("inside[lazy]: /(.|\\n)*{close}/")
            }
        };
        vec![
            format!("thoughts: {open}inside gap?"),
            inside,
            "gap: /\\n{1,2}/".to_owned(),
        ]
    }

    fn calls(&self, tools: &Tools, format: &Format) -> Result<Vec<String>, Invalid> {
        let callable: Vec<(usize, &Tool)> = callable(tools).collect();
        if callable.is_empty() {
            return Err(Invalid::new("tool_choice", "tool_choice names no tool"));
        }
        let bodies: Vec<String> = (callable.iter().map(|(i, _)| format!("body_{i}"))).collect();
        let one = !self.several || matches!(tools.choice, ToolChoice::Named(_));
        let more = CALLS_MAX - 1;
        let mut rules = vec![format!("body: {}", bodies.join(" | "))];
        if *format == HERMES {
            let (open, close) = (self.mark("<tool_call>"), self.mark("</tool_call>"));
            rules.push(format!("call: {open} \"\\n\" body \"\\n\" {close}"));
            rules.push("another: \"\\n\" call".to_owned());
            rules.push(match one {
                true => "calls: call".to_owned(),
                false => format!("calls: call another{{0,{more}}}"),
            });
        } else {
            rules.push("another: \", \" body".to_owned());
            rules.push(match one {
                true => "calls: \"[\" body \"]\"".to_owned(),
                false => format!("calls: \"[\" body another{{0,{more}}} \"]\""),
            });
        }
        for (i, tool) in callable {
            let head = json!(format!("{{\"name\": {}, \"arguments\": ", json!(tool.name)));
            rules.push(format!("body_{i}: {head} arguments_{i} \"}}\""));
            let schema =
                json_rule(&arguments(tool)).map_err(|invalid| of_parameters(i, &invalid))?;
            rules.push(format!("arguments_{i}: {schema}"));
        }
        Ok(rules)
    }

    fn mark(&self, mark: &str) -> String {
        self.special(mark)
            .unwrap_or_else(|| json!(mark).to_string())
    }

    /// A mark as the special token that it is.
    fn special(&self, mark: &str) -> Option<String> {
        let token = self.marks.iter().find(|(_, name)| *name == mark);
        token.map(|(token, _)| format!("<[{token}]>"))
    }
}

/// The tools that an answer may call, with their places.
fn callable(tools: &Tools) -> impl Iterator<Item = (usize, &Tool)> {
    (tools.tools.iter().enumerate()).filter(|(_, tool)| match &tools.choice {
        ToolChoice::Named(name) => tool.name == *name,
        ToolChoice::None => false,
        ToolChoice::Auto | ToolChoice::Required => true,
    })
}

/// The tool whose parameters are the reason why a grammar with calls of these is refused.
pub(crate) fn refused_tool(tools: &Tools, constraints: &Constraints) -> Option<Invalid> {
    let (places, schemas): (Vec<_>, Vec<_>) = callable(tools)
        .map(|(i, tool)| (i, arguments(tool)))
        .unzip();
    let (first, invalid) = constraints.first_refused(&schemas)?;
    Some(of_parameters(places[first], &invalid))
}

fn of_parameters(tool: usize, invalid: &Invalid) -> Invalid {
    let param = format!("tools.{tool}.function.parameters");
    let message = format!("{param}: {}", invalid.message);
    Invalid::new(param, message)
}

/// Arguments are an object, also where the schema leaves it open.
fn arguments(tool: &Tool) -> Value {
    let Some(schema) = &tool.parameters else {
        return json!({"type": "object", "properties": {}, "additionalProperties": false});
    };
    match &**schema {
        Value::Object(schema) if !schema.contains_key("type") => {
            let object = Map::from_iter([("type".to_owned(), Value::from("object"))]);
            object.into_iter().chain(schema.clone()).collect()
        }
        Value::Bool(true) => json!({"type": "object"}),
        schema => schema.clone(),
    }
}

/// A text as a regular expression of Lark that matches it alone.
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
    use crate::constraint::Next;
    use crate::model::{Bos, Tokenizer};
    use crate::sim::{END, PromptMasks, SimTokenizer};

    fn tools(choice: ToolChoice) -> Tools {
        let tool = |name: &str, parameters: Option<Value>| Tool {
            name: name.to_owned(),
            description: None,
            parameters: parameters.map(Arc::new),
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
            .compile(&grammar)
            .unwrap();
        let mut walk = constraint.begin();
        let is_set =
            |words: &[u32], token: Token| words[token as usize / 32] >> (token % 32) & 1 == 1;
        let mut bytes = Vec::new();
        for token in SimTokenizer.tokenize(text, Bos::Omit) {
            if !matches!(walk.ahead(), Next::Allowed(words) if is_set(words, token)) {
                return format!("not behind {}", String::from_utf8_lossy(&bytes));
            }
            SimTokenizer.piece(token, &mut bytes);
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
                text: Some(
                    json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "additionalProperties": false}),
                ),
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
        // The mark is a special token, which no text stands for.
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
