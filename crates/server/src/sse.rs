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
use weir_engine::{Event, FinishReason};
use weir_gateway::Generation;

use crate::answer::{Envelope, Kind, broken, finish_reason, usage};
use crate::convert::Reply;
use crate::error::ApiError;

/// The answer lives in the body: when a client hangs up the body is dropped, and the generation with it.
pub(crate) fn stream(envelope: Envelope, reply: Reply, generation: Generation) -> Response {
    let frames = Frames {
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
    Text(&'a str),
    Finish(FinishReason),
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
                for choice in 0..self.envelope.choices {
                    self.chunk(&mut frames, choice, &Part::Start);
                }
                return Some(frames.into());
            }
            Place::Start => self.place = Place::BeforeText,
            Place::BeforeText | Place::Middle => {}
        }
        match self.generation.next().await {
            Some(Event::Text { choice, text, .. }) => {
                self.chunk(&mut frames, choice, &Part::Text(&text));
            }
            Some(Event::Call { .. }) => {
                self.fail(&mut frames, &broken("a call that nobody asked for"));
            }
            Some(Event::Finished { choice, reason }) => {
                self.chunk(&mut frames, choice, &Part::Finish(reason));
            }
            Some(Event::Done(used)) => {
                if self.usage == StreamUsage::Null {
                    self.usage_chunk(&mut frames, used);
                }
                frames.extend_from_slice(sse::DONE);
                self.place = Place::End;
            }
            Some(Event::Failed(error)) => {
                let error = ApiError::failed(error, &self.envelope.model);
                self.fail(&mut frames, &error);
            }
            None => self.fail(
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
        let finish_reason = match part {
            Part::Finish(reason) => Some(finish_reason(*reason)),
            Part::Start | Part::Text(_) => None,
        };
        match self.envelope.kind {
            Kind::Chat => {
                let delta = match part {
                    Part::Start => chat::Delta {
                        role: Some("assistant"),
                        content: Some(""),
                    },
                    Part::Text(text) => chat::Delta {
                        role: None,
                        content: Some(text),
                    },
                    Part::Finish(_) => chat::Delta::default(),
                };
                let choice = chat::ChunkChoice {
                    index,
                    delta,
                    logprobs: None,
                    finish_reason,
                };
                encode(frames, &self.chat_chunk(&[choice], self.usage));
            }
            Kind::Completion => {
                let text = match part {
                    Part::Text(text) => text,
                    Part::Start | Part::Finish(_) => "",
                };
                let choice = completion::ChunkChoice {
                    text,
                    index,
                    logprobs: None,
                    finish_reason,
                };
                encode(frames, &self.completion_chunk(&[choice], self.usage));
            }
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
