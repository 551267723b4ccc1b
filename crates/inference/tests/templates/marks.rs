//! Callers' text never becomes a special token, and stays as it is. Tested with every template of this directory, and
//! with vocabularies that have all the marks that the templates write.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::model::Encoded;
use crate::specials::{Fragment, Names, Special, SpecialKind, Specials};
use weir_engine::request::{Message, Role, Tool, ToolCall, Tools};

/// A tokenizer with a token for each byte, and the given special tokens after these.
#[derive(Debug)]
struct Bytes(Specials);

const SPECIAL: Token = 256;

impl Bytes {
    fn new(names: impl IntoIterator<Item = (String, SpecialKind)>) -> Self {
        let special = |(token, (name, kind))| Special {
            token,
            name,
            kind,
            strips_left: false,
            strips_right: false,
        };
        Bytes(Specials::new((SPECIAL..).zip(names).map(special)))
    }
}

impl Tokenizer for Bytes {
    fn vocabulary(&self) -> u32 {
        1 << 16
    }
    fn specials(&self) -> &Specials {
        &self.0
    }
    fn encode(&self, text: &str, names: Names<'_>, _: Bos) -> Encoded {
        let mut tokens = Vec::new();
        for fragment in self.0.fragments(text, names) {
            match fragment {
                Fragment::Special(token) => tokens.push(token),
                Fragment::Text(range) | Fragment::Rest(range) => {
                    tokens.extend(text[range].bytes().map(Token::from));
                }
            }
        }
        Encoded {
            tokens,
            complete: true,
        }
    }
    fn token_bytes(&self, token: Token, bytes: &mut Vec<u8>) {
        bytes.extend(u8::try_from(token));
    }
    fn is_end(&self, _: Token) -> bool {
        false
    }
}

/// A template with a vocabulary.
struct Subject {
    name: String,
    source: String,
    names: BTreeMap<String, SpecialKind>,
    tokenizer: Bytes,
    chat_format: ChatFormat,
}

impl Subject {
    fn all() -> Vec<Subject> {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
        let others = std::env::var_os("WEIR_TEST_TEMPLATES").map(PathBuf::from);
        let mut paths: Vec<PathBuf> = [home]
            .into_iter()
            .chain(others)
            .flat_map(|directory| fs::read_dir(directory).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "jinja")
            })
            .collect();
        paths.sort();
        assert!(paths.len() >= 20, "where are the templates?");
        let subject = |path: &PathBuf| {
            let source = fs::read_to_string(path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            Subject::new(name, &source, marks(&source))
        };
        paths.iter().map(subject).collect()
    }

    fn new(name: String, source: &str, names: BTreeMap<String, SpecialKind>) -> Subject {
        let tokenizer = Bytes::new(names.clone());
        let template = ChatTemplate::parse(source, "<bos>", "<eos>").unwrap();
        Subject {
            chat_format: ChatFormat::new(template, source, &tokenizer),
            source: source.to_owned(),
            tokenizer,
            names,
            name,
        }
    }

    fn prompt(&self, conversation: &Conversation) -> Option<PromptText> {
        let rendered =
            self.chat_format
                .render_prompt(conversation, &Format::Text, Timestamp::UNIX_EPOCH);
        Some(rendered.ok()?.prompt)
    }

    fn text(&self, conversation: &Conversation) -> Option<String> {
        Some(self.prompt(conversation)?.text)
    }

    fn tokens(&self, conversation: &Conversation) -> Option<Vec<Token>> {
        let PromptText { text, verbatim } = self.prompt(conversation)?;
        let names = verbatim.as_ref().map_or(Names::All, Names::AllBut);
        Some(self.tokenizer.encode(&text, names, Bos::Omit).tokens)
    }

    /// The special tokens of a prompt, and its whole text.
    fn told(&self, conversation: &Conversation) -> Option<(Vec<Token>, String)> {
        let tokens = self.tokens(conversation)?;
        let mut text = Vec::new();
        tokens
            .iter()
            .for_each(|&token| self.tokenizer.token_bytes(token, &mut text));
        let is_mark = |&token: &Token| {
            let name = self.tokenizer.0.name(token);
            name.is_some_and(|name| !WORDS.contains(&name))
        };
        let specials = tokens.into_iter().filter(is_mark).collect();
        Some((specials, String::from_utf8(text).unwrap()))
    }
}

/// The marks in a template's source, which are in brackets, and those of every vocabulary.
fn marks(source: &str) -> BTreeMap<String, SpecialKind> {
    let mut names = BTreeMap::new();
    for (open, close) in [('<', '>'), ('[', ']')] {
        for part in source.split(open).skip(1) {
            let Some((inside, _)) = part.split_once(close) else {
                continue;
            };
            let is_word = |c: char| c.is_ascii_lowercase() || "/_".contains(c);
            let is_upper = |c: char| c.is_ascii_uppercase() || "/_".contains(c);
            let inner = inside.trim_matches(['|', '｜']);
            let kind = match open {
                '<' if inner.len() < inside.len() && !inner.contains(['\'', ' ', '{']) => {
                    SpecialKind::Control
                }
                '<' if !inside.is_empty() && inside.chars().all(is_word) => SpecialKind::Word,
                '[' if !inside.is_empty() && inside.chars().all(is_upper) => SpecialKind::Control,
                _ => continue,
            };
            names.insert(format!("{open}{inside}{close}"), kind);
        }
    }
    let everywhere = [
        "<|im_start|>",
        "<|im_end|>",
        "<|end|>",
        "<|user|>",
        "<s>",
        "</s>",
        "<bos>",
        "<eos>",
        "]~b]",
        "[e~[",
    ];
    names.extend(everywhere.map(|name| (name.to_owned(), SpecialKind::Control)));
    names.extend(["<h1>", "   ", "<unlike>"].map(|name| (name.to_owned(), SpecialKind::Word)));
    names
}

/// The places in a conversation where callers write.
const PLACES: [&str; 14] = [
    "user",
    "system",
    "result",
    "said",
    "thought",
    "name",
    "call id",
    "call name",
    "argument",
    "argument name",
    "tool description",
    "property",
    "enum",
    "switch",
];

/// A conversation with the text in one place, and words without marks in the others.
fn conversation(place: &str, text: &str) -> Conversation {
    let at = |this: &str, otherwise: &str| {
        if place == this {
            text.to_owned()
        } else {
            otherwise.to_owned()
        }
    };
    let mut called = Message::new(Role::Assistant, at("said", "Let me see."));
    called.reasoning = Some(at("thought", "A look helps."));
    called.tool_calls.push(ToolCall {
        id: at("call id", "call00001"),
        name: at("call name", "look"),
        arguments: json!({at("argument name", "place"): at("argument", "Bern")}).to_string(),
    });
    let mut result = Message::new(Role::Tool, at("result", "Sun."));
    result.tool_call_id = Some(at("call id", "call00001"));
    result.name = Some(at("call name", "look"));
    let mut user = Message::new(Role::User, at("user", "Weather?"));
    user.name = Some(at("name", "Ann"));
    let mut properties = serde_json::Map::new();
    let property =
        json!({"type": "string", "enum": [at("enum", "Bern")], "title": at("property", "where")});
    properties.insert(at("property", "place"), property);
    let tool = Tool {
        name: "look".to_owned(),
        description: Some(at("tool description", "Looks out.")),
        parameters: Some(Arc::new(
            json!({"type": "object", "properties": properties, at("property", "x"): 1}),
        )),
        parameters_text: None,
        strict: false,
    };
    let switches = [(
        "reasoning_effort".to_owned(),
        Json::from(at("switch", "low")),
    )];
    Conversation {
        messages: vec![
            Message::new(Role::System, at("system", "Be kind.")),
            user,
            called,
            result,
            Message::new(Role::Assistant, at("said", "Sun, they say.")),
            Message::new(Role::User, at("user", "Sure?")),
        ],
        tools: Tools {
            tools: vec![tool],
            ..Tools::default()
        },
        template_kwargs: switches.into(),
        ..Conversation::default()
    }
}

/// Disguises of a token's name that templates remove, or could remove. Each comes with harmless words that a template
/// treats the same.
fn disguises(name: &str) -> Vec<(String, &'static str)> {
    let cut = name.char_indices().nth(name.chars().count() / 2).unwrap().0;
    let (head, tail) = name.split_at(cut);
    let inside = &name[name.ceil_char_boundary(1)..name.floor_char_boundary(name.len() - 1)];
    let plain = |text: String| (text, "words");
    vec![
        plain(format!(" \n{name}\n ")),
        plain(format!("{name}user\n{name}{name}")),
        plain(format!("{head}{name}{tail}")),
        plain(inside.to_owned()),
        plain(inside.trim_matches(['|', '｜', '/']).to_owned()),
        plain(tail.to_owned()),
        plain(head.to_owned()),
        // SmolLM3's template removes these from a system message.
        (format!("{head}/think{tail}"), "words/think"),
        (format!("{head}/no_think{tail}"), "words/no_think"),
    ]
}

/// Names of ordinary tokens, which remain tokens wherever they are.
const WORDS: [&str; 3] = ["<h1>", "   ", "<unlike>"];

#[test]
fn no_name_of_a_special_token_becomes_one() {
    let mut checked = 0;
    for subject in Subject::all() {
        let thinking = subject.chat_format.family.thinking;
        for place in PLACES {
            let mut check = |text: &str, plain: &str| {
                let Some((expected, _)) = subject.told(&conversation(place, plain)) else {
                    // The template refuses any text in this place, as Mistral's do with invalid names.
                    return;
                };
                let told = subject.told(&conversation(place, text));
                let (specials, _) =
                    told.unwrap_or_else(|| panic!("{}: {place}: {text:?}", subject.name));
                assert_eq!(specials, expected, "{}: {place}: {text:?}", subject.name);
                checked += 1;
            };
            let stays = |name: &str| {
                let is_mark = thinking.is_some_and(|(open, close)| name == open || name == close);
                WORDS.contains(&name) || (is_mark && place == "said")
            };
            let names: Vec<&str> = subject
                .names
                .keys()
                .map(String::as_str)
                .filter(|name| !stays(name))
                .collect();
            if place != "switch" {
                check(&names.join(" - "), "words");
                check(&names.join(""), "words");
            }
            for name in ["<|im_end|>", "<s>", "[/INST]", "<think>", "<|end_of_role|>"] {
                if names.contains(&name) {
                    let disguises = disguises(name).into_iter();
                    // A value of `chat_template_kwargs` has at most 32 characters.
                    let short = |text: &str| place != "switch" || text.chars().count() <= 32;
                    disguises
                        .filter(|(text, _)| short(text))
                        .for_each(|(text, plain)| check(&text, plain));
                }
            }
        }
    }
    assert!(checked > 5_000, "{checked}");
}

/// Callers' text is in the prompt as it was written, although stand-ins replaced some of its characters meanwhile.
#[test]
fn words_stay_what_they_are() {
    // With a vocabulary without special tokens nothing is replaced.
    let pairs: Vec<(Subject, Subject)> = Subject::all()
        .into_iter()
        .map(|subject| {
            let plain = Subject::new(subject.name.clone(), &subject.source, BTreeMap::new());
            (subject, plain)
        })
        .collect();
    let parts: &'static [&str] = &[
        "<",
        ">",
        "|",
        "[",
        "]",
        "/",
        "a",
        "im_end",
        " ",
        "\n",
        "é",
        "\u{10fffd}",
        "\u{f0000}",
        "{",
        "\"",
        "<b>",
        "</b>",
        "<h1>",
    ];
    let text =
        prop::collection::vec(prop::sample::select(parts), 1..12).prop_map(|parts| parts.concat());
    // Ids of calls may be replaced by shorter ones, which depend on the id's characters.
    let places: Vec<&str> = PLACES
        .into_iter()
        .filter(|place| !["call id", "switch"].contains(place))
        .collect();
    let config = ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(text in text, pair in 0..pairs.len(), place in prop::sample::select(places))| {
        let (subject, plain) = &pairs[pair];
        prop_assume!(!subject.names.keys().any(|name| text.contains(name) && !WORDS.contains(&&**name)));
        let conversation = conversation(place, &text);
        prop_assert_eq!(subject.text(&conversation), plain.text(&conversation), "{}: {}", &subject.name, place);
    });
}

/// An assistant's content may have its reasoning in it, between marks that the model knows.
#[test]
fn marks_of_reasoning_stay_in_what_an_assistant_said() {
    for subject in Subject::all() {
        let Some((open, close)) = subject.chat_format.family.thinking else {
            continue;
        };
        let said = |text: &str| {
            vec![
                Message::new(Role::User, "?"),
                Message::new(Role::Assistant, text),
            ]
            .into()
        };
        let thought = format!("{open}\nWhy? {open}\n{close}\n\nSo.");
        let plain = Subject::new(subject.name.clone(), &subject.source, BTreeMap::new());
        let marks = |text: &str| (text.matches(open).count(), text.matches(close).count());
        // The template must treat the marks as it does with a vocabulary that doesn't have them.
        let (tokens, text) = (
            subject.tokens(&said(&thought)).unwrap(),
            plain.text(&said(&thought)).unwrap(),
        );
        let names: Vec<&str> = subject.names.keys().map(String::as_str).collect();
        let count = |mark: &str| {
            let place = names.iter().position(|name| *name == mark);
            let token = place.map(|place| SPECIAL + Token::try_from(place).unwrap());
            token.map_or(text.matches(mark).count(), |token| {
                tokens.iter().filter(|&&other| other == token).count()
            })
        };
        assert_eq!(
            (count(open), count(close)),
            marks(&text),
            "{}: {text}",
            subject.name
        );
        // In a user's message the marks are text.
        let asked = |text: &str| vec![Message::new(Role::User, text)].into();
        let (told, _) = subject.told(&asked(&thought)).unwrap();
        assert_eq!(
            told,
            subject.told(&asked("words")).unwrap().0,
            "{}",
            subject.name
        );
    }
}

/// Stand-ins aren't escaped when a template writes a text as JSON or Python does.
#[test]
fn texts_that_a_template_writes_as_values() {
    let source = "{% for m in messages %}<|{{ m.role }}|>{{ [m.content] }}{{ m.content|tojson(ensure_ascii=true) }}{% endfor %}";
    let names = [
        ("<|user|>".to_owned(), SpecialKind::Control),
        ("'<".to_owned(), SpecialKind::Control),
    ];
    let subject = Subject::new("values".to_owned(), source, names.into());
    let (specials, text) = subject
        .told(&vec![Message::new(Role::User, "<|user|>\u{f0000}<")].into())
        .unwrap();
    assert_eq!(specials.len(), 1);
    let python = "['<|user|>\\U000f0000<']";
    assert_eq!(text, format!("{python}\"<|user|>\\udb80\\udc00<\""));
}

/// If a text has all private characters in it, none is left to be a stand-in.
#[test]
fn a_text_of_all_private_characters() {
    let subject = Subject::new("plain".to_owned(), "{{ messages[0].content }}", marks(""));
    let all: String = ('\u{f0000}'..='\u{10fffd}').collect();
    let user = |text: String| vec![Message::new(Role::User, text)].into();
    assert_eq!(subject.text(&user(all.clone())).unwrap(), all);
    assert_eq!(
        subject.text(&user(format!("{}<s>", &all[4..]))).unwrap(),
        format!("{}<s>", &all[4..])
    );
    let refused = subject.chat_format.render_prompt(
        &user(format!("{all}<s>")),
        &Format::Text,
        Timestamp::UNIX_EPOCH,
    );
    assert_eq!(refused.unwrap_err().param, "messages");
}
