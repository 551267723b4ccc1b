//! gpt-oss's Harmony messages: `<|channel|>analysis<|message|>…<|end|>`, and calls with a recipient.

use super::ParseRules;
use super::marks::Matcher;
use super::out::Out;

const MARKS: [&str; 6] = [
    "<|message|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
];
const HEADER_BYTES_MAX: usize = 256;
/// Marks around reasoning in the content, for callers who don't want it separate. They are other models' marks, because
/// clients don't know gpt-oss's.
const OPEN: &str = "<think>\n";
const CLOSE: &str = "\n</think>\n\n";

/// All marks that are special tokens of the vocabulary, and must be shown in the text.
pub(crate) fn marks() -> impl Iterator<Item = &'static str> {
    MARKS.into_iter().chain(["<|constrain|>"])
}

#[derive(Debug, Default)]
pub(super) struct Harmony {
    matcher: Matcher,
    at: At,
}

#[derive(Debug, Default)]
enum At {
    Header(String),
    Reasoning,
    /// Text without a header is content as well.
    #[default]
    Content,
    /// A call, and whether it has arguments.
    Call(bool),
}

impl Harmony {
    pub(super) fn is_reasoning(&self) -> bool {
        matches!(self.at, At::Reasoning)
    }

    pub(super) fn step(&mut self, c: char, rules: &ParseRules, out: &mut Out) {
        let mut released = String::new();
        let found = self.matcher.step(c, &MARKS, &mut |c| released.push(c));
        self.text(&released, rules, out);
        match (found, &mut self.at) {
            (None, _) => {}
            (Some(0), At::Header(header)) => {
                let header = std::mem::take(header);
                self.begin(&header, rules, out);
            }
            // The recipient may stand before the channel or after it.
            (Some(1), At::Header(header)) => header.push(' '),
            (Some(1 | 2), _) => {
                self.end(true, rules, out);
                self.at = At::Header(String::new());
            }
            (Some(_), _) => {
                self.end(true, rules, out);
                self.at = At::Content;
            }
        }
    }

    pub(super) fn finish(&mut self, rules: &ParseRules, ended: bool, out: &mut Out) {
        let held = self.matcher.take();
        self.text(&held, rules, out);
        self.end(ended, rules, out);
    }

    fn begin(&mut self, header: &str, rules: &ParseRules, out: &mut Out) {
        let words: Vec<&str> = header.split_whitespace().collect();
        let called = words
            .iter()
            .find_map(|word| word.strip_prefix("to=functions."))
            .zip(rules.calls.as_ref())
            .filter(|(name, calls)| calls.tools.iter().any(|tool| tool.name == *name));
        self.at = if let Some((name, _)) = called {
            out.call(name);
            At::Call(false)
        } else if words.contains(&"analysis") {
            if !separates(rules) {
                out.content(OPEN);
            }
            At::Reasoning
        } else {
            At::Content
        };
    }

    fn text(&mut self, text: &str, rules: &ParseRules, out: &mut Out) {
        match &mut self.at {
            At::Header(header) if header.len() < HEADER_BYTES_MAX => header.push_str(text),
            At::Header(_) => {}
            At::Reasoning if separates(rules) => out.reasoning(text),
            At::Reasoning | At::Content => out.content(text),
            At::Call(has_arguments) => {
                *has_arguments |= !text.is_empty();
                out.arguments(text);
            }
        }
    }

    fn end(&mut self, ended: bool, rules: &ParseRules, out: &mut Out) {
        match self.at {
            At::Reasoning if ended && !separates(rules) => out.content(CLOSE),
            At::Call(false) if ended => out.arguments("{}"),
            At::Reasoning | At::Call(_) | At::Content | At::Header(_) => {}
        }
    }
}

fn separates(rules: &ParseRules) -> bool {
    let thinking = rules.thinking.as_ref();
    thinking.is_some_and(|thinking| thinking.separate)
}
