//! A streamed answer: each event of the generation becomes frames as soon as it comes.

use std::convert::Infallible;

use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream;
use http::{HeaderName, HeaderValue, header};
use weir_engine::{Channel, Event};
use weir_gateway::{Generation, Refusal};

use crate::answer::{AnswerFormat, TextPart, broken};
use crate::error::{ApiError, ParamNames};
use crate::frames::Frames;
use crate::layers::StreamFailure;

/// Answers with the frames of the generation's events. The body owns the generation: when a client hangs up, the body is
/// dropped and the generation with it.
pub(crate) fn stream<F: AnswerFormat>(
    format: F,
    generation: Generation,
    names: ParamNames,
) -> Response {
    let streamed = Streamed {
        format,
        generation,
        names,
        place: Place::Start,
        failure: StreamFailure::default(),
    };
    let failure = streamed.failure.clone();
    let body = Body::from_stream(stream::unfold(streamed, async |mut streamed| {
        let bytes = streamed.next().await?;
        Some((Ok::<Bytes, Infallible>(bytes), streamed))
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

struct Streamed<F> {
    format: F,
    generation: Generation,
    names: ParamNames,
    place: Place,
    failure: StreamFailure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    Middle,
    End,
}

impl<F: AnswerFormat> Streamed<F> {
    /// The next frames, or `None` after the last.
    async fn next(&mut self) -> Option<Bytes> {
        let mut frames = Frames::with_capacity(256);
        if self.place == Place::Start {
            self.place = Place::Middle;
            self.format.start(&mut frames);
        }
        // Some events produce no frame.
        while frames.is_empty() && self.place != Place::End {
            let event = self.generation.next().await;
            self.write(&mut frames, event);
        }
        (!frames.is_empty()).then(|| frames.into_bytes())
    }

    /// Appends the frames of an event.
    fn write(&mut self, frames: &mut Frames, event: Option<Result<Event, Refusal>>) {
        let format = &mut self.format;
        match event {
            Some(Ok(Event::Prompt { prompt, tokens, .. })) => format.prompt(frames, prompt, tokens),
            Some(Ok(Event::Text {
                choice,
                channel,
                text,
                tokens: _,
                logprobs,
                ids,
            })) => {
                let part = TextPart {
                    text: &text,
                    logprobs: &logprobs,
                    ids: &ids,
                };
                match channel {
                    Channel::Content => format.text(frames, choice, part),
                    Channel::Reasoning => format.reasoning(frames, choice, part),
                    Channel::Call(call) => format.arguments(frames, choice, call, part),
                }
            }
            Some(Ok(Event::Call { choice, call, name })) => {
                format.call(frames, choice, call, &name);
            }
            Some(Ok(Event::Finished { choice, reason })) => format.finish(frames, choice, reason),
            Some(Ok(Event::Done(usage))) => {
                format.end(frames, usage);
                self.place = Place::End;
            }
            Some(Err(refusal)) => self.fail(frames, &ApiError::of(refusal, self.names)),
            Some(Ok(Event::Failed(_))) | None => {
                self.fail(frames, &broken("a generation ended without a last event"));
            }
        }
    }

    /// Ends the stream with an error.
    fn fail(&mut self, frames: &mut Frames, error: &ApiError) {
        self.format.error(frames, error);
        self.failure.set(error.reason());
        self.place = Place::End;
    }
}
