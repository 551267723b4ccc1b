//! A streamed answer: each event of the generation becomes a frame as soon as it comes.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use weir_api::usage::StreamUsage;
use weir_api::{chat, completion, sse};
use weir_engine::{Channel, Event, FinishReason, Token, TokenLogprob};
use weir_gateway::{Generation, Refusal};

use crate::answer::{Envelope, Kind, Offset, broken, finish_reason, logprobs, usage};
use crate::convert::Reply;
use crate::error::ApiError;
use crate::layers::StreamFailure;

/// The body owns the generation: when a client hangs up, the body is dropped and the generation with it.
pub(crate) fn stream(envelope: Envelope, reply: Reply, generation: Generation) -> Response {
    let offsets = match (envelope.kind, envelope.shape.logprobs) {
        (Kind::Completion, Some(_)) => (0..envelope.choices())
            .map(|choice| Offset::at(envelope.shape.start(choice, envelope.of_each)))
            .collect(),
        (Kind::Chat, _) | (Kind::Completion, None) => Vec::new(),
    };
    let frames = Frames {
        offsets,
        usage: match reply {
            Reply::StreamWithUsage => StreamUsage::Null,
            Reply::Stream | Reply::Whole => StreamUsage::Absent,
        },
        prompts: vec![None; envelope.prompts as usize],
        begun: vec![false; envelope.choices() as usize],
        envelope,
        generation,
        place: Place::Start,
        failure: StreamFailure::default(),
    };
    let failure = frames.failure.clone();
    let body = Body::from_stream(stream::unfold(frames, async |mut frames| {
        let bytes = frames.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), frames))
    }));
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // Otherwise nginx would buffer frames.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, Extension(failure), body).into_response()
}

struct Frames {
    envelope: Envelope,
    usage: StreamUsage,
    generation: Generation,
    place: Place,
    failure: StreamFailure,
    /// The offset of each choice's next token, if log-probabilities with offsets are wanted.
    offsets: Vec<Offset>,
    /// The tokens of each prompt, until a chunk has sent them.
    prompts: Vec<Option<Arc<[Token]>>>,
    /// For each choice, whether its first chunk was sent.
    begun: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// A completion of which no chunk was sent yet.
    BeforeText,
    Middle,
    End,
}

/// The content of a choice in one chunk.
enum Part<'a> {
    Start,
    Text(Channel, &'a str, &'a [TokenLogprob], &'a [Token]),
    Call(u32, &'a str),
    Finish(FinishReason),
}

impl Part<'_> {
    fn finish_reason(&self) -> Option<&'static str> {
        match self {
            Part::Finish(reason) => Some(finish_reason(*reason)),
            Part::Start | Part::Text(..) | Part::Call(..) => None,
        }
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

impl Frames {
    /// The next frames, or `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        let mut frames = Vec::with_capacity(256);
        let mut event = None;
        match self.place {
            Place::End => return None,
            Place::Start if self.envelope.kind == Kind::Chat => {
                self.place = Place::Middle;
                // The chunks with the roles are sent at once, choice 0's first. Only if the first chunk has to contain
                // the prompt's tokens do they wait for the prompt's event.
                if self.envelope.shape.token_ids {
                    event = match self.generation.next().await {
                        Some(Ok(Event::Prompt { prompt, tokens, .. })) => {
                            self.note_prompt(prompt, tokens);
                            None
                        }
                        event => event,
                    };
                }
                for choice in 0..self.envelope.choices() {
                    self.chunk(&mut frames, choice, &Part::Start);
                }
                if event.is_none() {
                    return Some(frames.into());
                }
            }
            Place::Start => self.place = Place::BeforeText,
            Place::BeforeText | Place::Middle => {}
        }
        // Some events produce no frame.
        loop {
            let next = match event.take() {
                Some(event) => Some(event),
                None => self.generation.next().await,
            };
            self.frame(&mut frames, next);
            if !frames.is_empty() {
                return Some(frames.into());
            }
        }
    }

    fn note_prompt(&mut self, prompt: u32, tokens: Arc<[Token]>) {
        if self.envelope.shape.token_ids
            && let Some(place) = self.prompts.get_mut(prompt as usize)
        {
            *place = Some(tokens);
        }
    }

    /// Appends the frames of an event.
    fn frame(&mut self, frames: &mut Vec<u8>, event: Option<Result<Event, Refusal>>) {
        match event {
            Some(Ok(Event::Prompt { prompt, tokens, .. })) => self.note_prompt(prompt, tokens),
            Some(Ok(Event::Text {
                channel: Channel::Reasoning,
                ..
            })) if self.envelope.shape.hides_reasoning && !self.envelope.shape.token_ids => {}
            Some(Ok(Event::Text {
                choice,
                channel,
                text,
                tokens: _,
                logprobs,
                ids,
            })) => {
                let part = Part::Text(channel, &text, &logprobs, &ids);
                self.chunk(frames, choice, &part);
            }
            Some(Ok(Event::Call { choice, call, name })) => {
                self.chunk(frames, choice, &Part::Call(call, &name));
            }
            Some(Ok(Event::Finished { choice, reason })) => {
                self.chunk(frames, choice, &Part::Finish(reason));
            }
            Some(Ok(Event::Done(used))) => {
                if self.usage == StreamUsage::Null {
                    self.usage_chunk(frames, used);
                }
                frames.extend_from_slice(sse::DONE);
                self.place = Place::End;
            }
            Some(Err(refusal)) => self.fail(frames, &refusal.into()),
            Some(Ok(Event::Failed(_))) | None => {
                self.fail(frames, &broken("a generation ended without a last event"));
            }
        }
    }

    /// Appends the last frame of a failed stream. `[DONE]` doesn't follow.
    fn fail(&mut self, frames: &mut Vec<u8>, error: &ApiError) {
        encode(frames, &error.frame());
        self.failure.set(error.reason());
        self.place = Place::End;
    }

    fn chunk(&mut self, frames: &mut Vec<u8>, index: u32, part: &Part<'_>) {
        // Every stream begins with a chunk of choice 0. In a chat that was its role.
        if self.place == Place::BeforeText {
            self.place = Place::Middle;
            if index != 0 {
                self.chunk(frames, 0, &Part::Start);
            }
        }
        match self.envelope.kind {
            Kind::Chat => {
                let choices = [self.chat_choice(index, part)];
                let prompt = self.prompts.first_mut().and_then(Option::take);
                let chunk = chat::Chunk {
                    prompt_token_ids: prompt.as_deref(),
                    ..self.chat_chunk(&choices, self.usage)
                };
                encode(frames, &chunk);
            }
            Kind::Completion => {
                let prompt = self.prompt_of(index);
                let mut choice = self.completion_choice(index, part);
                choice.prompt_token_ids = prompt.as_deref();
                encode(frames, &self.completion_chunk(&[choice], self.usage));
            }
        }
    }

    /// The tokens of a choice's prompt, for the choice's first chunk only.
    fn prompt_of(&mut self, choice: u32) -> Option<Arc<[Token]>> {
        let tokens = self
            .prompts
            .get((choice / self.envelope.of_each) as usize)?
            .clone()?;
        let begun = self.begun.get_mut(choice as usize)?;
        (!std::mem::replace(begun, true)).then_some(tokens)
    }

    fn chat_choice<'a>(&self, index: u32, part: &Part<'a>) -> chat::ChunkChoice<'a> {
        let delta = match *part {
            Part::Start => chat::Delta {
                role: Some("assistant"),
                content: Some(""),
                ..chat::Delta::default()
            },
            Part::Text(Channel::Content, text, ..) => chat::Delta {
                content: Some(text),
                ..chat::Delta::default()
            },
            Part::Text(Channel::Reasoning, ..) if self.envelope.shape.hides_reasoning => {
                chat::Delta::default()
            }
            Part::Text(Channel::Reasoning, text, ..) => chat::Delta {
                reasoning_content: Some(text),
                ..chat::Delta::default()
            },
            Part::Text(Channel::Call(call), arguments, ..) => call_delta(call, None, arguments),
            Part::Call(call, name) => {
                let id = self.envelope.call_id(index, call);
                call_delta(call, Some((id, name)), "")
            }
            Part::Finish(_) => chat::Delta::default(),
        };
        let logprobs = match *part {
            Part::Text(Channel::Content, _, logprobs, _) => self
                .envelope
                .shape
                .logprobs
                .map(|spelling| logprobs::chat(logprobs, spelling)),
            _ => None,
        };
        chat::ChunkChoice {
            index,
            delta,
            logprobs,
            finish_reason: part.finish_reason(),
            token_ids: self.ids(part),
        }
    }

    fn completion_choice<'a>(
        &mut self,
        index: u32,
        part: &Part<'a>,
    ) -> completion::ChunkChoice<'a> {
        let (text, logprobs) = match *part {
            Part::Text(_, text, logprobs, _) => {
                let offset = self.offsets.get_mut(index as usize);
                let lists = self
                    .envelope
                    .shape
                    .logprobs
                    .zip(offset)
                    .map(|(spelling, offset)| logprobs::legacy(logprobs, spelling, offset));
                (text, lists)
            }
            Part::Start | Part::Call(..) | Part::Finish(_) => ("", None),
        };
        completion::ChunkChoice {
            text,
            index,
            logprobs,
            finish_reason: part.finish_reason(),
            prompt_token_ids: None,
            token_ids: self.ids(part),
        }
    }

    /// The token ids of a part, if the request asked for them.
    fn ids<'a>(&self, part: &Part<'a>) -> Option<&'a [Token]> {
        match *part {
            Part::Text(.., ids) if self.envelope.shape.token_ids => Some(ids),
            Part::Start | Part::Text(..) | Part::Call(..) | Part::Finish(_) => None,
        }
    }

    fn usage_chunk(&self, frames: &mut Vec<u8>, used: weir_engine::Usage) {
        let used = StreamUsage::Given(usage(used));
        match self.envelope.kind {
            Kind::Chat => encode(frames, &self.chat_chunk(&[], used)),
            Kind::Completion => encode(frames, &self.completion_chunk(&[], used)),
        }
    }

    fn chat_chunk<'a>(
        &'a self,
        choices: &'a [chat::ChunkChoice<'a>],
        usage: StreamUsage,
    ) -> chat::Chunk<'a> {
        let Envelope {
            id, created, model, ..
        } = &self.envelope;
        chat::Chunk {
            id,
            object: chat::Chunk::OBJECT,
            created: *created,
            model,
            choices,
            system_fingerprint: &self.envelope.fingerprint,
            usage,
            prompt_token_ids: None,
        }
    }

    fn completion_chunk<'a>(
        &'a self,
        choices: &'a [completion::ChunkChoice<'a>],
        usage: StreamUsage,
    ) -> completion::Chunk<'a> {
        let Envelope {
            id, created, model, ..
        } = &self.envelope;
        completion::Chunk {
            id,
            object: completion::answer::OBJECT,
            created: *created,
            model,
            choices,
            system_fingerprint: &self.envelope.fingerprint,
            usage,
        }
    }
}

fn encode<T: Serialize>(frames: &mut Vec<u8>, value: &T) {
    sse::encode(frames, value).expect("a chunk has only strings as keys");
}
