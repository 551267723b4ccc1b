//! A streamed answer: each event becomes a frame as soon as it comes.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use weir_api::usage::StreamUsage;
use weir_api::{chat, completion, sse};
use weir_engine::{Channel, Event, FinishReason, TokenLogprob};
use weir_gateway::Generation;

use crate::answer::{Envelope, Kind, Offset, broken, finish_reason, logprobs, usage};
use crate::convert::Reply;
use crate::error::ApiError;

/// The answer lives in the body: when a client hangs up the body is dropped, and the generation with it.
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
        envelope,
        generation,
        place: Place::Start,
    };
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
        // nginx would collect frames otherwise.
        (
            HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    (headers, body).into_response()
}

struct Frames {
    envelope: Envelope,
    usage: StreamUsage,
    generation: Generation,
    place: Place,
    /// How far each choice has come, if log-probabilities say where tokens begin.
    offsets: Vec<Offset>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    /// Nothing of a completion is out yet.
    BeforeText,
    Middle,
    End,
}

/// What a chunk says about its choice.
enum Part<'a> {
    Start,
    Text(Channel, &'a str, &'a [TokenLogprob]),
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

/// A fragment of a call; only the first has its id and name.
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
    /// The next frames, or `None` when all are out.
    async fn next(&mut self) -> Option<Bytes> {
        let mut frames = Vec::with_capacity(256);
        match self.place {
            Place::End => return None,
            // The roles leave at once, choice 0's first.
            Place::Start if self.envelope.kind == Kind::Chat => {
                self.place = Place::Middle;
                for choice in 0..self.envelope.choices() {
                    self.chunk(&mut frames, choice, &Part::Start);
                }
                return Some(frames.into());
            }
            Place::Start => self.place = Place::BeforeText,
            Place::BeforeText | Place::Middle => {}
        }
        match self.generation.next().await {
            Some(Ok(Event::Text {
                choice,
                channel,
                text,
                tokens: _,
                logprobs,
            })) => {
                let part = Part::Text(channel, &text, &logprobs);
                self.chunk(&mut frames, choice, &part);
            }
            Some(Ok(Event::Call { choice, call, name })) => {
                self.chunk(&mut frames, choice, &Part::Call(call, &name));
            }
            Some(Ok(Event::Finished { choice, reason })) => {
                self.chunk(&mut frames, choice, &Part::Finish(reason));
            }
            Some(Ok(Event::Done(used))) => {
                if self.usage == StreamUsage::Null {
                    self.usage_chunk(&mut frames, used);
                }
                frames.extend_from_slice(sse::DONE);
                self.place = Place::End;
            }
            Some(Err(refusal)) => self.fail(&mut frames, &refusal.into()),
            Some(Ok(Event::Failed(_))) | None => self.fail(
                &mut frames,
                &broken("a generation ended without a last event"),
            ),
        }
        Some(frames.into())
    }

    /// The last frame, with no `[DONE]` after it.
    fn fail(&mut self, frames: &mut Vec<u8>, error: &ApiError) {
        encode(frames, &error.frame());
        self.place = Place::End;
    }

    fn chunk(&mut self, frames: &mut Vec<u8>, index: u32, part: &Part<'_>) {
        // The first chunk of a stream is choice 0's; of a chat it was already.
        if self.place == Place::BeforeText {
            self.place = Place::Middle;
            if index != 0 {
                self.chunk(frames, 0, &Part::Start);
            }
        }
        match self.envelope.kind {
            Kind::Chat => {
                let choice = self.chat_choice(index, part);
                encode(frames, &self.chat_chunk(&[choice], self.usage));
            }
            Kind::Completion => {
                let choice = self.completion_choice(index, part);
                encode(frames, &self.completion_chunk(&[choice], self.usage));
            }
        }
    }

    fn chat_choice<'a>(&self, index: u32, part: &Part<'a>) -> chat::ChunkChoice<'a> {
        let delta = match *part {
            Part::Start => chat::Delta {
                role: Some("assistant"),
                content: Some(""),
                ..chat::Delta::default()
            },
            Part::Text(Channel::Content, text, _) => chat::Delta {
                content: Some(text),
                ..chat::Delta::default()
            },
            Part::Text(Channel::Reasoning, text, _) => chat::Delta {
                reasoning_content: Some(text),
                ..chat::Delta::default()
            },
            Part::Text(Channel::Call(call), arguments, _) => call_delta(call, None, arguments),
            Part::Call(call, name) => {
                let id = self.envelope.call_id(index, call);
                call_delta(call, Some((id, name)), "")
            }
            Part::Finish(_) => chat::Delta::default(),
        };
        let logprobs = match *part {
            Part::Text(Channel::Content, _, logprobs) => self
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
        }
    }

    fn completion_choice<'a>(
        &mut self,
        index: u32,
        part: &Part<'a>,
    ) -> completion::ChunkChoice<'a> {
        let (text, logprobs) = match *part {
            Part::Text(_, text, logprobs) => {
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
            system_fingerprint: None,
            usage,
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
            system_fingerprint: None,
            usage,
        }
    }
}

fn encode<T: Serialize>(frames: &mut Vec<u8>, value: &T) {
    sse::encode(frames, value).expect("a chunk has only strings as keys");
}
