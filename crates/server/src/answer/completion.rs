//! The answers to plain completions: chunks of a stream, or a whole answer.

use std::sync::Arc;

use serde::Serialize;
use weir_api::completion;
use weir_api::usage::StreamUsage;
use weir_engine::{FinishReason, Token, Usage};

use super::logprobs::Offset;
use super::{
    AnswerFormat, Envelope, Folded, FoldedChoice, FoldedPrompt, ResponseShape, TextPart,
    finish_reason, finished, logprobs, usage,
};
use crate::error::ApiError;
use crate::frames::Frames;

pub(crate) struct CompletionAnswer {
    envelope: Envelope,
    /// `cmpl-…`
    id: String,
    shape: ResponseShape,
    /// The offset at which the text of each prompt's choices begins; 0 if absent.
    starts: Vec<usize>,
    /// The usage in chunks before the last.
    usage: StreamUsage,
    /// Whether a chunk is written.
    begun: bool,
    /// The place of each choice in a stream.
    choices: Vec<StreamedChoice>,
    /// The tokens of each prompt, if the answer has them.
    prompts: Vec<Option<Arc<[Token]>>>,
}

#[derive(Debug, Clone)]
struct StreamedChoice {
    /// The offset of the choice's next token.
    offset: Offset,
    /// Whether the choice's first chunk is written.
    begun: bool,
}

impl CompletionAnswer {
    pub(crate) fn new(envelope: Envelope, mut shape: ResponseShape) -> Self {
        let offsets = std::mem::replace(&mut shape.text_offsets, super::TextOffsets::Zero);
        let starts = offsets.resolve();
        let streamed = |choice| StreamedChoice {
            offset: Offset::at(start(&starts, choice, envelope.choices_per_prompt)),
            begun: false,
        };
        CompletionAnswer {
            id: format!("cmpl-{}", envelope.request_id),
            usage: match shape.stream_usage {
                true => StreamUsage::Null,
                false => StreamUsage::Absent,
            },
            begun: false,
            choices: (0..envelope.choices()).map(streamed).collect(),
            prompts: vec![None; envelope.prompts as usize],
            starts,
            envelope,
            shape,
        }
    }

    fn chunk(&mut self, frames: &mut Frames, choice: completion::ChunkChoice<'_>) {
        // Every stream begins with a chunk of choice 0.
        if !std::mem::replace(&mut self.begun, true) && choice.index != 0 {
            self.chunk(frames, self::choice(0, ""));
        }
        let prompt = self.prompt_of(choice.index);
        let choice = completion::ChunkChoice {
            prompt_token_ids: prompt.as_deref(),
            ..choice
        };
        frames.data(&self.envelope_of(&[choice], self.usage));
    }

    fn envelope_of<'a>(
        &'a self,
        choices: &'a [completion::ChunkChoice<'a>],
        usage: StreamUsage,
    ) -> completion::Chunk<'a> {
        completion::Chunk {
            id: &self.id,
            object: completion::answer::OBJECT,
            created: self.envelope.created,
            model: &self.envelope.model,
            choices,
            system_fingerprint: &self.envelope.fingerprint,
            usage,
        }
    }

    /// The tokens of a choice's prompt, for the choice's first chunk only.
    fn prompt_of(&mut self, choice: u32) -> Option<Arc<[Token]>> {
        let prompt = choice / self.envelope.choices_per_prompt;
        let tokens = self.prompts.get(prompt as usize)?.clone()?;
        let choice = self.choices.get_mut(choice as usize)?;
        (!std::mem::replace(&mut choice.begun, true)).then_some(tokens)
    }

    fn whole_choice(
        &self,
        index: u32,
        choice: FoldedChoice,
        prompts: &[FoldedPrompt],
    ) -> completion::Choice {
        let shape = &self.shape;
        let shown = shape.best.unwrap_or(self.envelope.choices_per_prompt);
        let prompt = prompts.get((index / shown) as usize);
        let mut offset = Offset::at(start(&self.starts, index, shown));
        completion::Choice {
            index,
            logprobs: shape
                .logprobs
                .map(|spelling| logprobs::legacy(&choice.logprobs, spelling, &mut offset)),
            finish_reason: finished(choice.finish_reason),
            prompt_logprobs: prompt.and_then(|prompt| logprobs::whole_prompt(shape, prompt)),
            prompt_token_ids: prompt.and_then(|prompt| prompt.ids(shape)),
            token_ids: shape.token_ids.then_some(choice.ids),
            text: choice.content,
        }
    }
}

impl AnswerFormat for CompletionAnswer {
    fn start(&mut self, _frames: &mut Frames) {}

    fn prompt(&mut self, _frames: &mut Frames, prompt: u32, tokens: Arc<[Token]>) {
        if self.shape.token_ids
            && let Some(place) = self.prompts.get_mut(prompt as usize)
        {
            *place = Some(tokens);
        }
    }

    fn text(&mut self, frames: &mut Frames, index: u32, text: TextPart<'_>) {
        let streamed = self.choices.get_mut(index as usize);
        let choice = completion::ChunkChoice {
            logprobs: (self.shape.logprobs.zip(streamed)).map(|(spelling, streamed)| {
                logprobs::legacy(text.logprobs, spelling, &mut streamed.offset)
            }),
            token_ids: self.shape.token_ids.then_some(text.ids),
            ..choice(index, text.text)
        };
        self.chunk(frames, choice);
    }

    /// A plain prompt's text isn't split into reasoning and calls; if an engine does, all of it is text.
    fn reasoning(&mut self, frames: &mut Frames, choice: u32, text: TextPart<'_>) {
        self.text(frames, choice, text);
    }

    fn call(&mut self, _frames: &mut Frames, _choice: u32, _call: u32, _name: &str) {}

    fn arguments(&mut self, frames: &mut Frames, choice: u32, _call: u32, text: TextPart<'_>) {
        self.text(frames, choice, text);
    }

    fn finish(&mut self, frames: &mut Frames, index: u32, reason: FinishReason) {
        let choice = completion::ChunkChoice {
            finish_reason: Some(finish_reason(reason)),
            ..choice(index, "")
        };
        self.chunk(frames, choice);
    }

    fn end(&mut self, frames: &mut Frames, used: Usage) {
        if self.shape.stream_usage {
            frames.data(&self.envelope_of(&[], StreamUsage::Given(usage(used))));
        }
        frames.done();
    }

    /// `[DONE]` doesn't follow.
    fn error(&mut self, frames: &mut Frames, error: &ApiError) {
        frames.data(&error.frame());
    }

    fn whole(self, folded: Folded) -> impl Serialize {
        let generated = self.envelope.choices_per_prompt;
        let Folded {
            prompts,
            choices,
            usage: used,
        } = match self.shape.best {
            Some(shown) => folded.best(generated as usize, shown as usize),
            None => folded,
        };
        completion::Answer {
            object: completion::answer::OBJECT,
            created: self.envelope.created,
            choices: (0..)
                .zip(choices)
                .map(|(index, choice)| self.whole_choice(index, choice, &prompts))
                .collect(),
            usage: usage(used),
            system_fingerprint: self.envelope.fingerprint.to_string(),
            model: self.envelope.model,
            id: self.id,
        }
    }
}

/// The offset at which a choice's text begins, with so many choices for each prompt.
fn start(starts: &[usize], choice: u32, choices_per_prompt: u32) -> usize {
    let prompt = (choice / choices_per_prompt) as usize;
    starts.get(prompt).copied().unwrap_or(0)
}

fn choice(index: u32, text: &str) -> completion::ChunkChoice<'_> {
    completion::ChunkChoice {
        text,
        index,
        logprobs: None,
        finish_reason: None,
        prompt_token_ids: None,
        token_ids: None,
    }
}
