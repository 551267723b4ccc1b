//! How a model family speaks: the text that a conversation becomes, and what the text of an answer is.

mod family;
mod forced;
mod format;
mod generic;
mod python;
mod python_json;
mod reader;
mod template;

use jiff::Timestamp;

use self::family::Family;
pub(crate) use self::forced::text_grammar;
use self::forced::{Form, Thoughts};
use self::format::HERMES;
pub(crate) use self::reader::Readers;
pub use self::reader::Reading;
use self::reader::{Calls, Means, Thinking};
pub use self::template::{Abilities, ChatTemplate};
use crate::Token;
use crate::constraint::Grammar;
use crate::model::{Bos, Tokenizer};
use crate::request::{Conversation, Format, Invalid};

/// What a model can talk about, and how.
#[derive(Debug)]
pub(crate) struct Dialect {
    template: ChatTemplate,
    family: Family,
    /// Marks that the vocabulary has as special tokens, which have no text of their own.
    marks: Vec<(Token, &'static str)>,
}

/// A conversation as it goes to the model, and its answer as it comes back.
#[derive(Debug)]
pub(crate) struct Spoken {
    pub(crate) prompt: String,
    pub(crate) reading: Reading,
    /// Special tokens whose names belong to the text of the answer.
    pub(crate) shown: Vec<(Token, &'static str)>,
    /// What the answer must look like.
    pub(crate) grammar: Option<Grammar>,
}

impl Dialect {
    pub(crate) fn new(template: ChatTemplate, source: &str, tokenizer: &dyn Tokenizer) -> Self {
        let family = Family::of(&template, source);
        let marks = family.marks().filter_map(|mark| {
            let &[token] = &tokenizer.tokenize(mark, Bos::Omit)[..] else {
                return None;
            };
            let mut bytes = Vec::new();
            tokenizer.piece(token, &mut bytes);
            (bytes.is_empty() && !tokenizer.is_end(token)).then_some((token, mark))
        });
        Dialect {
            marks: marks.collect(),
            template,
            family,
        }
    }

    /// Whether the model can think before it speaks.
    pub(crate) fn thinks(&self) -> bool {
        self.family.harmony || self.family.thinking.is_some()
    }

    pub(crate) fn speak(
        &self,
        conversation: &Conversation,
        format: &Format,
        now: Timestamp,
    ) -> Result<Spoken, Invalid> {
        let prompt = self.render(conversation, now)?;
        let mut means = self.means(conversation, &prompt);
        let grammar = self.grammar(conversation, format, &prompt, &mut means)?;
        let shown = self.family.shown(&means);
        let marks = self.marks.iter().copied();
        Ok(Spoken {
            shown: marks.filter(|(_, mark)| shown.contains(mark)).collect(),
            reading: Reading::new(means),
            prompt,
            grammar,
        })
    }

    fn render(&self, conversation: &Conversation, now: Timestamp) -> Result<String, Invalid> {
        if self.family.knows_tools() {
            return self.template.render(conversation, now);
        }
        let plain = Conversation {
            messages: generic::messages(conversation, self.family.knows_system),
            template_kwargs: conversation.template_kwargs.clone(),
            ending: conversation.ending,
            ..Conversation::default()
        };
        self.template.render(&plain, now)
    }

    fn means(&self, conversation: &Conversation, prompt: &str) -> Means {
        let separate = conversation.separate_reasoning;
        let thinking = self.family.thinking.map(|(open, close)| {
            let opens = prompt.trim_end().strip_suffix(open);
            Thinking {
                open,
                close,
                opened: opens.map(|before| prompt[before.len()..].to_owned()),
                separate,
            }
        });
        let tools = &conversation.tools;
        let calls = tools.callable().then(|| Calls {
            format: self.family.calls().unwrap_or(&HERMES),
            tools: tools.tools.as_slice().into(),
            one_at_a_time: tools.one_at_a_time(),
        });
        Means {
            thinking,
            calls,
            harmony: self.family.harmony,
        }
    }

    /// What the answer must look like if it isn't free, and then how it is to be read.
    fn grammar(
        &self,
        conversation: &Conversation,
        format: &Format,
        prompt: &str,
        means: &mut Means,
    ) -> Result<Option<Grammar>, Invalid> {
        let tools = &conversation.tools;
        let text = forced::part_of(format).filter(|_| !tools.must_call());
        if !tools.must_call() && text.is_none() {
            return Ok(None);
        }
        let calls = tools.callable().then_some(tools);
        let written = forced::format_of(self.family.calls());
        if let Some(calls) = &mut means.calls {
            calls.format = written;
        }
        // Without the frame of its messages, gpt-oss writes what others do.
        means.harmony = false;
        let thinking = means.thinking.as_ref();
        let thoughts = thinking
            .filter(|thinking| !prompt.trim_end().ends_with(thinking.close))
            .map(|thinking| Thoughts {
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
