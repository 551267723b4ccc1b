//! Chat formats: renders conversations to prompts, and parses answers into content, reasoning and tool calls.

mod escape;
mod family;
mod format;
mod generic;
mod output_parser;
mod python;
mod python_json;
mod repair;
mod template;
mod tool_grammar;

use jiff::Timestamp;

pub(crate) use self::escape::PromptText;
use self::escape::{Escaped, Escaper, Rendered};
use self::family::{Family, Systems};
use self::format::HERMES;
pub(crate) use self::output_parser::ChoiceParsers;
pub use self::output_parser::SharedParseRules;
use self::output_parser::{Calls, ParseRules, Thinking};
use self::repair::Repair;
pub use self::template::{Abilities, ChatTemplate};
use self::template::{Refused, Scene};
pub(crate) use self::tool_grammar::text_grammar;
use self::tool_grammar::{Form, Thoughts};
use crate::constraint::Grammar;
use crate::model::{Bos, Tokenizer};
use crate::prepared::ShownTokens;
use weir_engine::Token;
use weir_engine::request::{Conversation, Ending, Format, Invalid, Message};

/// The chat format of one model: its template, what is known of its family, and its special tokens.
#[derive(Debug)]
pub(crate) struct ChatFormat {
    template: ChatTemplate,
    family: Family,
    /// The family's marks that are special tokens of the vocabulary, and decode to no text.
    marks: Vec<(Token, &'static str)>,
    escaper: Escaper,
}

/// A rendered prompt, and how its answer is constrained and parsed.
#[derive(Debug)]
pub(crate) struct RenderedPrompt {
    pub(crate) prompt: PromptText,
    pub(crate) parse_rules: SharedParseRules,
    /// Special tokens whose names are part of the answer's text.
    pub(crate) shown: ShownTokens,
    /// The grammar that the answer must follow; `None` if it is free.
    pub(crate) grammar: Option<Grammar>,
    /// The marks around the answer's reasoning; `None` if the model has none.
    pub(crate) reasoning: Option<ReasoningMarks>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReasoningMarks {
    pub(crate) open: &'static str,
    pub(crate) close: &'static str,
    /// Whether the prompt has already opened the reasoning.
    pub(crate) is_open: bool,
}

impl ChatFormat {
    pub(crate) fn new(template: ChatTemplate, source: &str, tokenizer: &dyn Tokenizer) -> Self {
        let family = Family::of(&template, source);
        let marks = family.marks().filter_map(|mark| {
            let &[token] = &tokenizer.tokenize(mark, Bos::Omit)[..] else {
                return None;
            };
            let mut bytes = Vec::new();
            tokenizer.token_bytes(token, &mut bytes);
            (bytes.is_empty() && !tokenizer.is_end(token)).then_some((token, mark))
        });
        let names: Vec<&str> = family.marks().collect();
        let reasoning: Vec<&str> = family
            .thinking
            .into_iter()
            .flat_map(<[_; 2]>::from)
            .collect();
        ChatFormat {
            marks: marks.collect(),
            escaper: Escaper::new(tokenizer.specials(), source, &names, &reasoning),
            template,
            family,
        }
    }

    /// Whether the model can reason before it answers.
    pub(crate) fn thinks(&self) -> bool {
        self.family.harmony || self.family.thinking.is_some()
    }

    pub(crate) fn render_prompt(
        &self,
        conversation: &Conversation,
        format: &Format,
        now: Timestamp,
    ) -> Result<RenderedPrompt, Invalid> {
        let rendered = self.rendered(conversation, now)?;
        let mut rules = self.rules(conversation, &rendered.text);
        let grammar = self.grammar(conversation, format, &rendered.text, &mut rules)?;
        let reasoning = rules.thinking.as_ref().map(|thinking| ReasoningMarks {
            open: thinking.open,
            close: thinking.close,
            is_open: thinking.opened.is_some(),
        });
        let shown = self.family.shown(&rules);
        let marks = self.marks.iter().copied();
        Ok(RenderedPrompt {
            shown: ShownTokens::Some(marks.filter(|(_, mark)| shown.contains(mark)).collect()),
            parse_rules: SharedParseRules::new(rules),
            prompt: rendered.restored(),
            grammar,
            reasoning,
        })
    }

    /// Renders a conversation. If the template refuses it, its repaired forms are tried, the smallest [`Repair`] first.
    fn rendered(&self, conversation: &Conversation, now: Timestamp) -> Result<Rendered, Invalid> {
        let escaped = self.escaper.escape(conversation)?;
        let least = self.least_repair(conversation);
        let first = least.messages(&escaped.conversation);
        let refused = match self.render(&escaped, &first, now) {
            Err(Refused::AsItIs(refused)) => refused,
            rendered => return Ok(rendered?),
        };
        let mut tried = first.into_owned();
        // This repair decodes broken arguments, which may reveal names of special tokens: so the repaired conversation is
        // escaped again.
        let objects = repair::with_objects(conversation);
        let escaped = match &objects {
            Some(objects) => self.escaper.escape(objects)?,
            None => escaped,
        };
        for repair in Repair::ALL.into_iter().filter(|&repair| repair > least) {
            let messages = repair.messages(&escaped.conversation);
            // The repair of arguments is tried even if the messages look the same.
            if *messages == tried && repair != Repair::Arguments {
                continue;
            }
            if let Ok(rendered) = self.render(&escaped, &messages, now) {
                tracing::debug!(?repair, "a template takes a conversation in another form");
                return Ok(rendered);
            }
            tried = messages.into_owned();
        }
        Err(self.blamed(refused, &escaped, now))
    }

    /// The smallest repair that keeps the template from silently dropping messages.
    fn least_repair(&self, conversation: &Conversation) -> Repair {
        let mut messages = conversation.messages.iter();
        if !self.family.system_alone && messages.all(repair::is_system) {
            return Repair::Turns;
        }
        match self.family.systems {
            Systems::Anywhere => Repair::Nothing,
            Systems::First => Repair::Systems,
            Systems::Nowhere => Repair::NoSystem,
        }
    }

    fn render(
        &self,
        escaped: &Escaped<'_>,
        messages: &[Message],
        now: Timestamp,
    ) -> Result<Rendered, Refused> {
        let conversation = &escaped.conversation;
        let plain;
        let (messages, tools) = if self.family.knows_tools() {
            (messages, &*conversation.tools.tools)
        } else {
            let knows_system = self.family.systems != Systems::Nowhere;
            plain = generic::messages(messages, &conversation.tools, knows_system);
            (&*plain, &[][..])
        };
        let text = self.template.render_scene(Scene {
            messages,
            tools,
            switches: &conversation.template_kwargs,
            add_generation_prompt: conversation.ending == Ending::Answer,
            stand_ins: escaped.stand_ins.characters(),
            now,
        })?;
        escaped.rendered(text).map_err(Refused::AsItIs)
    }

    /// Finds the message from which on every form of the conversation is refused, and names it in the error.
    fn blamed(&self, refused: Invalid, escaped: &Escaped<'_>, now: Timestamp) -> Invalid {
        let messages = &escaped.conversation.messages;
        let takes = |count: usize| {
            let mut first = Conversation::clone(&escaped.conversation);
            first.messages.truncate(count);
            let last = Repair::ALL[Repair::ALL.len() - 1].messages(&first);
            self.render(escaped, &last, now).is_ok()
        };
        let (mut taken, mut not_taken) = (0, messages.len());
        while taken + 1 < not_taken {
            let middle = taken.midpoint(not_taken);
            match takes(middle) {
                true => taken = middle,
                false => not_taken = middle,
            }
        }
        let param = format!("messages.{taken}");
        tracing::warn!(
            param,
            refused = refused.message,
            "a chat template takes a conversation in no form"
        );
        let message = format!("{param}: {}", refused.message);
        Invalid::new(param, message)
    }

    fn rules(&self, conversation: &Conversation, prompt: &str) -> ParseRules {
        let separate = conversation.separate_reasoning;
        let thinking = self.family.thinking.map(|(open, close)| Thinking {
            open,
            close,
            opened: match conversation.ending {
                Ending::Continuation => continues(conversation, open, close).then(String::new),
                Ending::Answer | Ending::Messages => {
                    let opens = prompt.trim_end().strip_suffix(open);
                    opens.map(|before| prompt[before.len()..].to_owned())
                }
            },
            separate,
        });
        let tools = &conversation.tools;
        let calls = tools.callable().then(|| Calls {
            format: self.family.calls().unwrap_or(&HERMES),
            tools: tools.tools.as_slice().into(),
            one_at_a_time: tools.one_at_a_time(),
        });
        ParseRules {
            thinking,
            calls,
            harmony: self.family.harmony,
        }
    }

    /// The grammar of an answer that must have a form, or `None` if the answer is free. Sets `rules` to parse an answer
    /// of that form.
    fn grammar(
        &self,
        conversation: &Conversation,
        format: &Format,
        prompt: &str,
        rules: &mut ParseRules,
    ) -> Result<Option<Grammar>, Invalid> {
        let tools = &conversation.tools;
        let text = tool_grammar::part_of(format).filter(|_| !tools.must_call());
        if !tools.must_call() && text.is_none() {
            return Ok(None);
        }
        let calls = tools.callable().then_some(tools);
        let written = tool_grammar::format_of(self.family.calls());
        if let Some(calls) = &mut rules.calls {
            calls.format = written;
        }
        // A constrained answer of gpt-oss has no Harmony messages, and is parsed like that of other models.
        rules.harmony = false;
        let thinking = rules.thinking.as_ref();
        let is_free = |thinking: &&Thinking| match conversation.ending {
            Ending::Continuation => thinking.opened.is_some(),
            Ending::Answer | Ending::Messages => !prompt.trim_end().ends_with(thinking.close),
        };
        let thoughts = thinking.filter(is_free).map(|thinking| Thoughts {
            open: thinking.open,
            close: thinking.close,
            is_open: thinking.opened.is_some(),
        });
        let form = Form {
            thoughts,
            calls: calls.map(|calls| (calls, written)),
            several: tools.parallel.unwrap_or(self.family.several),
            text,
            marks: &self.marks,
        };
        form.grammar().map(Some)
    }
}

/// Whether an answer that continues the last message continues the reasoning in it.
fn continues(conversation: &Conversation, open: &str, close: &str) -> bool {
    let last = conversation.messages.last();
    let content = last
        .and_then(|last| last.content.as_deref())
        .unwrap_or_default();
    let opened = content.rfind(open);
    opened.is_some_and(|opened| content.rfind(close).is_none_or(|closed| closed < opened))
}

#[cfg(test)]
#[path = "../tests/templates/marks.rs"]
mod marks;
#[cfg(test)]
#[path = "../tests/templates/orders.rs"]
mod orders;
