//! Real templates render the same text as in `transformers`: see the README beside this file. This module is part of
//! `chat_format::template`, because a template renders more here than conversations.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use minijinja::Value;
use minijinja::value::Serde;
use serde_json::{Map, Value as Json, json};

use super::*;
use crate::chat_format::ChatFormat;
use crate::sim::SimTokenizer;
use weir_engine::request::{Format, Message, Role, Tool, ToolCall, Tools};

/// This template's system prompt joins text that it marks as safe with text that it doesn't, so that Jinja escapes the
/// latter for HTML. No other template is known to do so.
const ESCAPES_HTML: &str = "llama-cpp-python-meetkai-functionary-medium-v3.1";

/// A real template, and its recorded renderings in Python.
struct Real {
    name: String,
    source: String,
    recorded: Map<String, Json>,
}

impl Real {
    /// All templates of the repository, and those that `record.py --fetch` has fetched.
    fn all() -> Vec<Real> {
        let fetched = std::env::var_os("WEIR_TEST_TEMPLATES").map(PathBuf::from);
        let mut real = Vec::new();
        for directory in [home()].into_iter().chain(fetched) {
            let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| {
                    path.extension()
                        .is_some_and(|extension| extension == "jinja")
                })
                .collect();
            paths.sort();
            real.extend(paths.iter().map(|path| Real {
                name: path.file_stem().unwrap().to_string_lossy().into_owned(),
                source: fs::read_to_string(path).unwrap(),
                recorded: read_json(&path.with_extension("json")),
            }));
        }
        assert!(real.len() >= 20, "where are the templates?");
        real
    }

    /// Whether the template is in the repository.
    fn is_ours(&self) -> bool {
        home().join(format!("{}.jinja", self.name)).exists()
    }

    fn parse(&self) -> ChatTemplate {
        ChatTemplate::parse(&self.source, "<bos>", "<eos>")
            .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn recorded(&self, case: &str) -> &Json {
        let rendering = &self.recorded[case];
        match rendering.get("same") {
            Some(first) => self.recorded(first.as_str().unwrap()),
            None => rendering,
        }
    }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates")
}

fn read_json(path: &Path) -> Map<String, Json> {
    let text = fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn now() -> Timestamp {
    "2026-11-22T13:05:09Z".parse().unwrap()
}

#[test]
fn templates_render_as_in_python() {
    let cases = read_json(&home().join("cases.json"));
    let mut wrong = Vec::new();
    for real in Real::all() {
        if real.name == ESCAPES_HTML {
            continue;
        }
        let template = real.parse();
        for variant in real.recorded.keys() {
            let expected = real.recorded(variant);
            let found = render(&template, &cases, variant);
            // If Python itself fails, as it does at `'x' in none`, rendering something is as good as failing.
            if *expected != found && expected.get("failed").is_none() {
                wrong.push(format!("{} {variant}:\n  {expected}\n  {found}", real.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n"));
}

/// The template's rendering of a variant of a case, in the form in which it is recorded.
fn render(template: &ChatTemplate, cases: &Map<String, Json>, variant: &str) -> Json {
    let mut parts = variant.split('/');
    let case = &cases[parts.next().unwrap()];
    let changes: Vec<&str> = parts.collect();
    let messages = case["messages"].as_array().unwrap().iter();
    let messages: Vec<Json> = messages.map(|message| vary(message, &changes)).collect();
    let rendered = template.jinja.render(Inputs {
        messages: Value::from(Serde(&messages)),
        tools: Value::from(Serde(case.get("tools"))),
        add_generation_prompt: case.get("add_generation_prompt") != Some(&json!(false)),
        switches: switches::checked(&kwargs(case)).unwrap(),
        stand_ins: String::new(),
        now: now(),
    });
    match rendered {
        Ok(text) => text.into(),
        Err(error) => match refusal(&error) {
            Some(refusal) => json!({"refused": refusal.0}),
            None => json!({"failed": explain(&error)}),
        },
    }
}

/// Changes a message as `record.py` does, which follows `transformers`.
fn vary(message: &Json, changes: &[&str]) -> Json {
    let mut message = message.clone();
    if changes.contains(&"empty") && message["content"].is_null() {
        message["content"] = json!("");
    }
    if changes.contains(&"system") && message["role"] == "developer" {
        message["role"] = json!("system");
    }
    let calls = message.get_mut("tool_calls").and_then(Json::as_array_mut);
    for call in calls.into_iter().flatten() {
        let arguments = &mut call["function"]["arguments"];
        match serde_json::from_str(arguments.as_str().unwrap()) {
            Ok(object @ Json::Object(_)) if !changes.contains(&"text") => *arguments = object,
            _ => {}
        }
    }
    let Some(reasoning) = message.get("reasoning_content").cloned() else {
        return message;
    };
    let mut aliased = Map::from_iter([("thinking".to_owned(), reasoning)]);
    aliased.append(message.as_object_mut().unwrap());
    aliased.into()
}

fn kwargs(case: &Json) -> BTreeMap<String, Json> {
    let kwargs = case.get("kwargs").and_then(Json::as_object);
    kwargs
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Cases that a [`Conversation`] can't express here: parts of a content are joined, a generation prompt is always added,
/// and an empty list of tools is none.
const NOT_OURS: [&str; 3] = ["parts", "no_generation_prompt", "no_tools"];

#[test]
fn conversations_render_as_in_python() {
    let cases = read_json(&home().join("cases.json"));
    let mut wrong = Vec::new();
    for real in Real::all() {
        let template = real.parse();
        // If content must be parts, the recorded input differs from ours.
        if real.name == ESCAPES_HTML || template.shape.parts {
            continue;
        }
        for (name, case) in cases
            .iter()
            .filter(|(name, _)| !NOT_OURS.contains(&name.as_str()))
        {
            let expected = real.recorded(&variant(name, case, template.shape));
            let found = match template.render(&conversation(case), now()) {
                Ok(text) => json!(text),
                Err(invalid) => json!({"refused": invalid.message}),
            };
            if *expected != found && expected.get("failed").is_none() {
                wrong.push(format!("{} {name}:\n  {expected}\n  {found}", real.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n"));
}

/// The variant of a case that a template of this shape gets.
fn variant(name: &str, case: &Json, shape: Shape) -> String {
    let has = |is: fn(&Json) -> bool| case["messages"].as_array().unwrap().iter().any(is);
    let changes = [
        (
            "text",
            shape.text_arguments && has(|message| message.get("tool_calls").is_some()),
        ),
        (
            "empty",
            !shape.null_content && has(|message| message["content"].is_null()),
        ),
        (
            "system",
            !shape.developer && has(|message| message["role"] == "developer"),
        ),
    ];
    let changes = changes.iter().filter(|(_, changed)| *changed);
    changes.fold(name.to_owned(), |variant, (change, _)| {
        format!("{variant}/{change}")
    })
}

/// A case as the conversation that the server would make of it.
fn conversation(case: &Json) -> Conversation {
    let text = |json: &Json| json.as_str().map(str::to_owned);
    let message = |json: &Json| Message {
        role: match json["role"].as_str().unwrap() {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => panic!("{other}"),
        },
        content: text(&json["content"]),
        reasoning: text(&json["reasoning_content"]),
        name: text(&json["name"]),
        tool_calls: json["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|call| ToolCall {
                id: text(&call["id"]).unwrap(),
                name: text(&call["function"]["name"]).unwrap(),
                arguments: text(&call["function"]["arguments"]).unwrap(),
            })
            .collect(),
        tool_call_id: text(&json["tool_call_id"]),
    };
    let tool = |json: &Json| Tool {
        name: text(&json["function"]["name"]).unwrap(),
        description: text(&json["function"]["description"]),
        parameters: Some(json["function"]["parameters"].clone().into()),
        parameters_text: None,
        strict: false,
    };
    Conversation {
        messages: case["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(message)
            .collect(),
        tools: Tools {
            tools: case["tools"]
                .as_array()
                .into_iter()
                .flatten()
                .map(tool)
                .collect(),
            ..Tools::default()
        },
        template_kwargs: kwargs(case),
        ..Conversation::default()
    }
}

/// The tools are in the prompt, rendered by the template or described in a system message.
#[test]
fn the_tools_are_in_every_prompt() {
    let cases = read_json(&home().join("cases.json"));
    for real in Real::all() {
        let chat_format = ChatFormat::new(real.parse(), &real.source, &SimTokenizer);
        match chat_format.render_prompt(
            &conversation(&cases["tools_no_system"]),
            &Format::Text,
            now(),
        ) {
            Ok(rendered) => {
                let (name, prompt) = (&real.name, rendered.prompt.text);
                assert!(prompt.contains("get_weather"), "{name}: {prompt}");
            }
            // The template demands something else as well, as a system message.
            Err(refused) => assert!(!real.is_ours(), "{}: {refused}", real.name),
        }
    }
}

/// The abilities of each template, and the shape in which it wants messages.
#[test]
fn abilities() {
    let mut table = String::new();
    for real in Real::all() {
        if !real.is_ours() {
            continue;
        }
        let template = real.parse();
        let shape = Shape {
            // The abilities have this already.
            developer: false,
            ..template.shape
        };
        let fields = format!("{:?}{shape:?}", template.abilities());
        table.push_str(&format!("{}:", real.name));
        for field in fields.split(['{', ',', '}']) {
            if let Some(name) = field.trim().strip_suffix(": true") {
                table.push_str(&format!(" {name}"));
            }
        }
        table.push('\n');
    }
    insta::assert_snapshot!(table, @r"
    deepseek-r1-distill: tool_results opens_thinking null_content text_arguments
    deepseek-v3.1: tool_results thinking_switch
    deepseek-v3: tool_results opens_thinking text_arguments
    glm-4.5: tools tool_results thinking_switch
    glm-4.6: tools tool_results thinking_switch
    gpt-oss: tools tool_results developer described_tools
    granite-3.3: tools thinking_switch
    granite-4.0: tools tool_results
    ministral-3-reasoning: tools tool_results
    mistral-nemo: tools tool_results short_ids
    mistral-small-3.2: tools tool_results short_ids
    phi-3.5:
    phi-4-reasoning:
    qwen2.5: tools tool_results
    qwen3-coder: tools tool_results
    qwen3-instruct-2507: tools tool_results
    qwen3.5: tools tool_results thinking_switch opens_thinking
    qwen3: tools tool_results thinking_switch
    smollm2:
    smollm3: thinking_switch
    ");
}
