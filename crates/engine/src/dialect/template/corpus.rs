//! Real templates render as `transformers` renders them: see tests/templates/README.md.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::*;

/// Its system prompt joins what it marks as safe with what it doesn't, so that Jinja escapes the
/// latter for HTML. No other template was seen to.
const ESCAPES_HTML: &str = "llama-cpp-python-meetkai-functionary-medium-v3.1";

/// A real template, and what Python makes of it.
struct Real {
    name: String,
    source: String,
    recorded: Map<String, Json>,
}

impl Real {
    /// All of the repository, and those that `record.py --fetch` fetched.
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
        assert!(real.len() >= 21, "where are the templates?");
        real
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
            // Where Python itself fails, as it does at `'x' in none`, going on is as good as failing.
            if *expected != found && expected.get("failed").is_none() {
                wrong.push(format!("{} {variant}:\n  {expected}\n  {found}", real.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}: {}", wrong.len(), wrong.join("\n"));
}

/// What the template makes of a variant of a case, as it is recorded.
fn render(template: &ChatTemplate, cases: &Map<String, Json>, variant: &str) -> Json {
    let mut parts = variant.split('/');
    let case = &cases[parts.next().unwrap()];
    let changes: Vec<&str> = parts.collect();
    let messages = case["messages"].as_array().unwrap().iter();
    let messages: Vec<Json> = messages.map(|message| vary(message, &changes)).collect();
    let kwargs = case.get("kwargs").cloned().unwrap_or_else(|| json!({}));
    let rendered = template.try_render(Inputs {
        messages: Value::from(Serde(&messages)),
        tools: Value::from(Serde(case.get("tools"))),
        add_generation_prompt: case.get("add_generation_prompt") != Some(&json!(false)),
        kwargs: &serde_json::from_value(kwargs).unwrap(),
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

/// As `record.py` does, and `transformers` after it.
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
