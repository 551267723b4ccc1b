//! The answers to chats: chunks of a stream, or a whole answer.

use std::sync::Arc;

use serde::Serialize;
use weir_api::chat;
use weir_api::usage::StreamUsage;
use weir_engine::{FinishReason, Token, Usage};

use super::{
    AnswerFormat, Envelope, Folded, FoldedChoice, ResponseShape, TextPart, finish_reason, finished,
    logprobs, usage,
};
use crate::error::ApiError;
use crate::frames::Frames;

pub(crate) struct ChatAnswer {
    envelope: Envelope,
    /// `chatcmpl-…`
    id: String,
    shape: ResponseShape,
    /// The usage in chunks before the last.
    usage: StreamUsage,
    /// Whether the chunks with the roles are written.
    begun: bool,
    /// The prompt's tokens, until a chunk has them.
    prompt: Option<Arc<[Token]>>,
}

impl ChatAnswer {
    pub(crate) fn new(envelope: Envelope, shape: ResponseShape) -> Self {
        ChatAnswer {
            id: format!("chatcmpl-{}", envelope.request_id),
            usage: match shape.stream_usage {
                true => StreamUsage::Null,
                false => StreamUsage::Absent,
            },
            begun: false,
            prompt: None,
            envelope,
            shape,
        }
    }

    /// Writes the chunks with the roles, choice 0's first, unless they are written.
    fn begin(&mut self, frames: &mut Frames) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        for index in 0..self.envelope.choices() {
            let role = chat::Delta {
                role: Some("assistant"),
                content: Some(""),
                ..chat::Delta::default()
            };
            self.chunk(frames, choice(index, role));
        }
    }

    fn chunk(&mut self, frames: &mut Frames, choice: chat::ChunkChoice<'_>) {
        self.begin(frames);
        let prompt = self.prompt.take();
        let choices = [choice];
        let chunk = chat::Chunk {
            prompt_token_ids: prompt.as_deref(),
            ..self.envelope_of(&choices, self.usage)
        };
        frames.data(&chunk);
    }

    fn envelope_of<'a>(
        &'a self,
        choices: &'a [chat::ChunkChoice<'a>],
        usage: StreamUsage,
    ) -> chat::Chunk<'a> {
        chat::Chunk {
            id: &self.id,
            object: chat::Chunk::OBJECT,
            created: self.envelope.created,
            model: &self.envelope.model,
            choices,
            system_fingerprint: &self.envelope.fingerprint,
            usage,
            prompt_token_ids: None,
        }
    }

    /// The token ids of a part, if the answer has them.
    fn ids<'a>(&self, text: TextPart<'a>) -> Option<&'a [Token]> {
        self.shape.token_ids.then_some(text.ids)
    }

    fn whole_choice(&self, index: u32, choice: FoldedChoice) -> chat::Choice {
        let tool_calls: Vec<_> = (0..)
            .zip(choice.calls)
            .map(|(call, made)| chat::Call {
                id: self.envelope.call_id(index, call),
                kind: chat::Call::KIND,
                function: chat::Function {
                    name: made.name,
                    arguments: made.arguments,
                },
            })
            .collect();
        let calls_alone = choice.content.is_empty() && !tool_calls.is_empty();
        let spelling = self.shape.logprobs;
        chat::Choice {
            index,
            logprobs: spelling.map(|spelling| logprobs::chat(&choice.logprobs, spelling)),
            finish_reason: finished(choice.finish_reason),
            token_ids: self.shape.token_ids.then_some(choice.ids),
            message: chat::AnswerMessage {
                role: "assistant",
                content: (!calls_alone).then_some(choice.content),
                refusal: None,
                reasoning_content: Some(choice.reasoning)
                    .filter(|reasoning| !reasoning.is_empty() && !self.shape.hides_reasoning),
                tool_calls,
            },
        }
    }
}

impl AnswerFormat for ChatAnswer {
    /// The chunks with the roles leave at once. Only if the first chunk has to contain the prompt's tokens do they wait
    /// for the prompt's event.
    fn start(&mut self, frames: &mut Frames) {
        if !self.shape.token_ids {
            self.begin(frames);
        }
    }

    fn prompt(&mut self, frames: &mut Frames, _prompt: u32, tokens: Arc<[Token]>) {
        if self.shape.token_ids {
            self.prompt = Some(tokens);
            self.begin(frames);
        }
    }

    fn text(&mut self, frames: &mut Frames, index: u32, text: TextPart<'_>) {
        let delta = chat::Delta {
            content: Some(text.text),
            ..chat::Delta::default()
        };
        let spelling = self.shape.logprobs;
        let choice = chat::ChunkChoice {
            logprobs: spelling.map(|spelling| logprobs::chat(text.logprobs, spelling)),
            token_ids: self.ids(text),
            ..choice(index, delta)
        };
        self.chunk(frames, choice);
    }

    /// Hidden reasoning has no chunks, except for its token ids.
    fn reasoning(&mut self, frames: &mut Frames, index: u32, text: TextPart<'_>) {
        if self.shape.hides_reasoning && !self.shape.token_ids {
            return;
        }
        let delta = chat::Delta {
            reasoning_content: (!self.shape.hides_reasoning).then_some(text.text),
            ..chat::Delta::default()
        };
        let choice = chat::ChunkChoice {
            token_ids: self.ids(text),
            ..choice(index, delta)
        };
        self.chunk(frames, choice);
    }

    fn call(&mut self, frames: &mut Frames, index: u32, call: u32, name: &str) {
        let id = self.envelope.call_id(index, call);
        let delta = call_delta(call, Some((id, name)), "");
        self.chunk(frames, choice(index, delta));
    }

    fn arguments(&mut self, frames: &mut Frames, index: u32, call: u32, text: TextPart<'_>) {
        let choice = chat::ChunkChoice {
            token_ids: self.ids(text),
            ..choice(index, call_delta(call, None, text.text))
        };
        self.chunk(frames, choice);
    }

    fn finish(&mut self, frames: &mut Frames, index: u32, reason: FinishReason) {
        let choice = chat::ChunkChoice {
            finish_reason: Some(finish_reason(reason)),
            ..choice(index, chat::Delta::default())
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
        self.begin(frames);
        frames.data(&error.frame());
    }

    fn whole(self, mut folded: Folded) -> impl Serialize {
        let choices = (0..).zip(std::mem::take(&mut folded.choices));
        let prompt = folded.prompts.first();
        chat::Answer {
            object: chat::Answer::OBJECT,
            created: self.envelope.created,
            choices: choices
                .map(|(index, choice)| self.whole_choice(index, choice))
                .collect(),
            usage: usage(folded.usage),
            system_fingerprint: self.envelope.fingerprint.to_string(),
            prompt_logprobs: prompt.and_then(|prompt| logprobs::whole_prompt(&self.shape, prompt)),
            prompt_token_ids: prompt.and_then(|prompt| prompt.ids(&self.shape)),
            model: self.envelope.model,
            id: self.id,
        }
    }
}

fn choice(index: u32, delta: chat::Delta<'_>) -> chat::ChunkChoice<'_> {
    chat::ChunkChoice {
        index,
        delta,
        logprobs: None,
        finish_reason: None,
        token_ids: None,
    }
}

/// The delta with a fragment of a tool call; only the first fragment has the id and the name.
fn call_delta<'a>(
    call: u32,
    first: Option<(String, &'a str)>,
    arguments: &'a str,
) -> chat::Delta<'a> {
    let (id, name) = first.unzip();
    let fragment = chat::CallDelta {
        index: call,
        kind: id.is_some().then_some(chat::Call::KIND),
        id,
        function: chat::FunctionDelta { name, arguments },
    };
    chat::Delta {
        tool_calls: Some([fragment]),
        ..chat::Delta::default()
    }
}
