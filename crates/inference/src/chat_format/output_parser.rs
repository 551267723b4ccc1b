//! Output parser: splits the text of an answer into content, reasoning and tool calls.
//!
//! A parser takes one character at a time, so its result doesn't depend on where a text was cut. It holds back only text
//! that it can't classify yet.

mod call;
mod choices;
mod harmony;
mod marks;
mod out;
#[cfg(test)]
mod tests;
mod value;

use std::sync::Arc;

use self::call::{Call, Step};
pub(crate) use self::choices::ChoiceParsers;
use self::harmony::Harmony;
pub(crate) use self::harmony::marks as harmony_marks;
use self::marks::Matcher;
use self::out::Out;
pub(crate) use self::out::OutputPart;
use crate::chat_format::format::Format;
use weir_engine::request::Tool;

/// How the answers of a request are parsed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SharedParseRules(Option<Arc<ParseRules>>);

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ParseRules {
    pub(crate) thinking: Option<Thinking>,
    pub(crate) calls: Option<Calls>,
    /// Whether answers are gpt-oss's Harmony messages, whatever the other fields say.
    pub(crate) harmony: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Thinking {
    pub(crate) open: &'static str,
    pub(crate) close: &'static str,
    /// Text at the end of the prompt, if the prompt has opened the reasoning: the opening mark, or an empty text if the
    /// answer continues a message's reasoning.
    pub(crate) opened: Option<String>,
    /// Whether reasoning is separated from the content. Otherwise it stays in the content, between its marks.
    pub(crate) separate: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Calls {
    pub(crate) format: &'static Format,
    pub(crate) tools: Arc<[Tool]>,
    pub(crate) one_at_a_time: bool,
}

impl SharedParseRules {
    /// All text is content.
    pub const PLAIN: SharedParseRules = SharedParseRules(None);

    pub(crate) fn new(rules: ParseRules) -> Self {
        if rules == ParseRules::default() {
            return SharedParseRules::PLAIN;
        }
        SharedParseRules(Some(Arc::new(rules)))
    }

    fn parser(&self) -> Option<OutputParser> {
        self.0
            .as_ref()
            .map(|rules| OutputParser::new(Arc::clone(rules)))
    }
}

/// Parses one choice.
#[derive(Debug)]
pub(crate) struct OutputParser {
    rules: Arc<ParseRules>,
    out: Out,
    state: State,
    matcher: Matcher,
    /// White space that belongs to the text only if more text follows.
    space: String,
    /// Text of a call that may still turn out to be content.
    raw: String,
    /// Whether only white space and reasoning have come so far.
    fresh: bool,
    thought: bool,
    /// Whether white space that comes now belongs to the mark before it.
    trims: bool,
}

#[derive(Debug)]
enum State {
    Content,
    Reasoning,
    Call(Call),
    Harmony(Harmony),
}

impl OutputParser {
    fn new(rules: Arc<ParseRules>) -> Self {
        let mut out = Out::new(
            rules
                .calls
                .as_ref()
                .is_some_and(|calls| calls.one_at_a_time),
        );
        let opened = rules.thinking.as_ref().and_then(|thinking| {
            let opened = thinking.opened.as_deref()?;
            if !thinking.separate {
                out.content(opened);
            }
            Some(())
        });
        let state = match opened {
            _ if rules.harmony => State::Harmony(Harmony::default()),
            Some(()) => State::Reasoning,
            None => State::Content,
        };
        OutputParser {
            out,
            state,
            matcher: Matcher::default(),
            space: String::new(),
            raw: String::new(),
            fresh: true,
            thought: opened.is_some(),
            trims: opened.is_some(),
            rules,
        }
    }

    /// Takes text, and returns the parts of the answer that are certain now.
    pub(crate) fn push(&mut self, text: &str) -> Vec<OutputPart> {
        for c in text.chars() {
            self.step(c);
        }
        self.out.take()
    }

    /// Returns the parts that were held back, at the end of the text. `ended` says whether the model has ended its turn;
    /// otherwise the answer was cut off.
    pub(crate) fn finish(&mut self, ended: bool) -> Vec<OutputPart> {
        let held = self.matcher.take();
        match &mut self.state {
            State::Content if self.trims && held.is_empty() => {}
            State::Content => self.say(&held),
            State::Reasoning => {
                let held = std::mem::take(&mut self.space) + &held;
                self.think(&held);
            }
            State::Call(call) if call.is_certain() => call.finish(ended, &mut self.out),
            State::Call(_) => self.refuse(),
            State::Harmony(harmony) => harmony.finish(&self.rules, ended, &mut self.out),
        }
        self.out.take()
    }

    pub(crate) fn has_calls(&self) -> bool {
        self.out.calls() > 0
    }

    /// Whether the text that comes next is reasoning, as far as is known.
    pub(crate) fn is_reasoning(&self) -> bool {
        match &self.state {
            State::Reasoning => true,
            State::Harmony(harmony) => harmony.is_reasoning(),
            State::Content | State::Call(_) => false,
        }
    }

    fn step(&mut self, c: char) {
        match &mut self.state {
            State::Content => self.step_content(c),
            State::Reasoning => self.step_reasoning(c),
            State::Call(_) => self.step_call(c),
            State::Harmony(harmony) => harmony.step(c, &self.rules, &mut self.out),
        }
    }

    fn step_content(&mut self, c: char) {
        let rules = Arc::clone(&self.rules);
        let may_think = self.fresh && !self.thought;
        let thinking = rules.thinking.as_ref().filter(|_| may_think);
        let format = rules.calls.as_ref().map(|calls| calls.format);
        let (opens, around) =
            format.map_or((&[][..], &[][..]), |format| (format.opens, format.around));
        let think = thinking.map(|thinking| thinking.open);
        let marks: Vec<&str> = opens.iter().chain(around).copied().chain(think).collect();
        let mut released = String::new();
        let found = self.matcher.step(c, &marks, &mut |c| released.push(c));
        for c in released.chars() {
            // A call without a mark may begin within characters that aren't a mark.
            match self.state {
                State::Content => self.read_content(c),
                _ => self.step(c),
            }
        }
        match found {
            Some(found) if found < opens.len() => self.begin_call(marks[found]),
            Some(found) if found < opens.len() + around.len() => {}
            Some(_) => self.begin_reasoning(marks[marks.len() - 1]),
            None => {}
        }
    }

    /// Takes a character that isn't part of a mark.
    fn read_content(&mut self, c: char) {
        let calls = self.rules.calls.as_ref();
        if c.is_whitespace() && (calls.is_some() || self.fresh) {
            self.space.push(c);
            return;
        }
        let bare = calls.is_some_and(|calls| calls.format.bare);
        if self.fresh && bare && (c == '{' || c == '[') {
            self.begin_call("");
            self.step(c);
            return;
        }
        self.fresh = false;
        self.say(c.encode_utf8(&mut [0; 4]));
    }

    fn say(&mut self, text: &str) {
        let space = std::mem::take(&mut self.space);
        if !self.trims || self.out.has_said() {
            self.out.content(&space);
        }
        self.trims = false;
        self.out.content(text);
    }

    fn begin_reasoning(&mut self, open: &str) {
        let space = std::mem::take(&mut self.space);
        self.state = State::Reasoning;
        self.thought = true;
        self.trims = true;
        if !self.separates() {
            self.out.content(&space);
            self.out.content(open);
        }
    }

    fn step_reasoning(&mut self, c: char) {
        let rules = Arc::clone(&self.rules);
        let Some(thinking) = &rules.thinking else {
            return;
        };
        let mut released = String::new();
        let found = self
            .matcher
            .step(c, &[thinking.close], &mut |c| released.push(c));
        for c in released.chars() {
            if c.is_whitespace() && thinking.separate {
                self.space.push(c);
                continue;
            }
            let space = std::mem::take(&mut self.space);
            // The line break after the opening mark belongs to the mark.
            if !self.trims {
                self.think(&space);
            }
            self.trims = false;
            self.think(c.encode_utf8(&mut [0; 4]));
        }
        if found.is_some() {
            self.space.clear();
            self.state = State::Content;
            self.fresh = true;
            self.trims = thinking.separate;
            if !thinking.separate {
                self.out.content(thinking.close);
            }
        }
    }

    fn think(&mut self, text: &str) {
        if self.separates() {
            self.out.reasoning(text);
        } else {
            self.out.content(text);
        }
    }

    fn separates(&self) -> bool {
        let thinking = self.rules.thinking.as_ref();
        thinking.is_some_and(|thinking| thinking.separate)
    }

    fn begin_call(&mut self, mark: &str) {
        let Some(calls) = &self.rules.calls else {
            return;
        };
        self.fresh = false;
        self.raw = mark.to_owned();
        self.state = State::Call(Call::new(calls.format));
    }

    fn step_call(&mut self, c: char) {
        let rules = Arc::clone(&self.rules);
        let (State::Call(call), Some(calls)) = (&mut self.state, &rules.calls) else {
            return;
        };
        self.raw.push(c);
        let step = call.step(c, &calls.tools, &mut self.out);
        if call.is_certain() {
            self.raw.clear();
            self.space.clear();
        }
        match step {
            Step::More => {}
            Step::Refused(rest) => {
                self.raw.truncate(self.raw.len() - rest.len());
                self.refuse();
                rest.chars().for_each(|c| self.step(c));
            }
            Step::Ended(rest) => {
                self.state = State::Content;
                self.trims = true;
                rest.chars().for_each(|c| self.step(c));
            }
        }
    }

    /// Text that looked like a call becomes content.
    fn refuse(&mut self) {
        let raw = std::mem::take(&mut self.raw);
        self.state = State::Content;
        self.say(&raw);
    }
}
