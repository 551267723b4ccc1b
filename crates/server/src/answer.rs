//! Answers: the seam between the events of a generation and the wire formats of the APIs.
//!
//! An [`AnswerFormat`] turns events into the frames of a stream, as they come, or their fold into a whole answer. An
//! API has one file with its format here and one row in the table of routes (`Route::generation`).

pub(crate) mod chat;
pub(crate) mod completion;
mod fold;
pub(crate) mod logprobs;
pub(crate) mod text_offsets;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use serde::Serialize;
use weir_engine::{Event, FinishReason, Request, Token, TokenLogprob, Usage};
use weir_gateway::Generation;

pub use self::fold::{Folded, FoldedCall, FoldedChoice, FoldedPrompt};
use self::logprobs::Spelling;
use self::text_offsets::TextOffsets;
use crate::error::{ApiError, ParamNames};
use crate::frames::Frames;

/// The wire format of one API's answers.
///
/// In a stream, `start` is called first, then a method for each event, in the order of [`Event`]s, and at last either
/// `end` or `error`. A method that writes nothing sends nothing. For an answer that isn't streamed, only `whole` is
/// called.
pub trait AnswerFormat: Send + 'static {
    /// Writes the frames that leave before the engine's first event.
    fn start(&mut self, frames: &mut Frames);

    /// Takes the tokens of a prompt, which come before all events of its choices, and only to a request that asks for
    /// token ids.
    fn prompt(&mut self, _frames: &mut Frames, _prompt: u32, _tokens: Arc<[Token]>) {}

    /// Writes visible text of a choice.
    fn text(&mut self, frames: &mut Frames, choice: u32, text: TextPart<'_>);

    /// Writes reasoning of a choice.
    fn reasoning(&mut self, frames: &mut Frames, choice: u32, text: TextPart<'_>);

    /// Writes the beginning of a choice's tool call. Calls are numbered from 0.
    fn call(&mut self, frames: &mut Frames, choice: u32, call: u32, name: &str);

    /// Writes a fragment of a tool call's arguments, which are JSON.
    fn arguments(&mut self, frames: &mut Frames, choice: u32, call: u32, text: TextPart<'_>);

    /// Writes the end of a choice.
    fn finish(&mut self, frames: &mut Frames, choice: u32, reason: FinishReason);

    /// Writes the last frames of a stream. All choices have ended, and the usage is settled.
    fn end(&mut self, frames: &mut Frames, usage: Usage);

    /// Writes the last frames of a stream that failed.
    fn error(&mut self, frames: &mut Frames, error: &ApiError);

    /// The JSON of a whole answer.
    fn whole(self, folded: Folded) -> impl Serialize;
}

/// A part of a choice's text.
#[derive(Debug, Clone, Copy)]
pub struct TextPart<'a> {
    pub text: &'a str,
    /// The log-probabilities of the part's tokens, if the request asked for them.
    pub logprobs: &'a [TokenLogprob],
    /// The ids of the part's tokens, if the request asked for them.
    pub ids: &'a [Token],
}

/// Values that all parts of an answer share, known when its generation starts.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The request's id: 32 hexadecimal digits. A format makes its own ids of it.
    pub request_id: String,
    /// Unix seconds.
    pub created: i64,
    pub model: String,
    pub prompts: u32,
    /// Number of choices that are generated for each prompt.
    pub choices_per_prompt: u32,
    /// Number of tokens of all prompts.
    pub prompt_tokens: u64,
    /// `system_fingerprint`
    pub fingerprint: Arc<str>,
}

impl Envelope {
    /// Number of all choices that are generated.
    pub fn choices(&self) -> u32 {
        self.prompts * self.choices_per_prompt
    }

    /// The id of a tool call: always the same within an answer, and different in every answer. OpenAI's own service
    /// accepts ids of up to 40 characters.
    pub fn call_id(&self, choice: u32, call: u32) -> String {
        let random = self.request_id.len().saturating_sub(CALL_ID_CHARS);
        format!("call_{}_{choice:x}_{call:x}", &self.request_id[random..])
    }
}

/// The number of characters of the request's id that are part of a tool call's.
const CALL_ID_CHARS: usize = 24;

/// The parts of a generation that an answer of OpenAI's chat or plain completions shows.
#[derive(Debug, Clone)]
pub(crate) struct ResponseShape {
    /// Number of choices that are shown for each prompt, the likeliest ones; all if `None`.
    pub(crate) best: Option<u32>,
    pub(crate) logprobs: Option<Spelling>,
    pub(crate) text_offsets: TextOffsets,
    /// Whether reasoning is left out of the answer.
    pub(crate) hides_reasoning: bool,
    /// Whether the answer has the token ids of prompts and choices.
    pub(crate) token_ids: bool,
    pub(crate) prompt_logprobs: bool,
    /// Whether a stream has an additional chunk for the usage.
    pub(crate) stream_usage: bool,
}

impl ResponseShape {
    /// The shape of an answer that shows every choice, without log-probabilities.
    pub(crate) fn new(request: &Request, stream_usage: bool) -> Self {
        ResponseShape {
            best: None,
            logprobs: None,
            text_offsets: TextOffsets::Zero,
            hides_reasoning: false,
            token_ids: request.token_ids,
            prompt_logprobs: request.prompt_logprobs.is_some(),
            stream_usage,
        }
    }
}

/// Reads the generation to its end, which comes when the usage is settled, and answers.
pub(crate) async fn whole<F: AnswerFormat>(
    format: F,
    mut folded: Folded,
    mut generation: Generation,
    names: ParamNames,
) -> Result<Response, ApiError> {
    loop {
        match generation.next().await {
            Some(Ok(Event::Done(usage))) => {
                folded.usage = usage;
                return Ok(axum::Json(format.whole(folded)).into_response());
            }
            Some(Ok(event)) => folded.add(event)?,
            Some(Err(refusal)) => return Err(ApiError::of(refusal, names)),
            None => return Err(broken("a generation ended without a last event")),
        }
    }
}

pub(crate) fn broken(what: &str) -> ApiError {
    tracing::error!(what, "an engine broke its contract");
    ApiError::internal()
}

/// OpenAI's name of a finish reason.
fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

/// The finish reason of a choice. Every choice has one before the last event comes; for one that doesn't, `stop`.
fn finished(reason: Option<FinishReason>) -> &'static str {
    reason.map_or("stop", finish_reason)
}

/// OpenAI's form of the usage.
fn usage(
    Usage {
        prompt,
        cached,
        completion,
        reasoning,
    }: Usage,
) -> weir_api::Usage {
    weir_api::Usage {
        prompt_tokens: prompt,
        completion_tokens: completion,
        total_tokens: prompt.saturating_add(completion),
        prompt_tokens_details: weir_api::usage::PromptTokensDetails {
            cached_tokens: cached,
        },
        completion_tokens_details: weir_api::usage::CompletionTokensDetails {
            reasoning_tokens: reasoning,
        },
    }
}
