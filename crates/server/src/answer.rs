//! A whole answer: a fold of the events that a stream would show one by one.

use axum::response::{IntoResponse, Response};
use weir_api::{chat, completion};
use weir_engine::{Event, FinishReason, Usage};
use weir_gateway::Generation;

use crate::error::ApiError;

/// What all parts of an answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) kind: Kind,
    /// `chatcmpl-…` or `cmpl-…`
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: i64,
    pub(crate) model: String,
    /// Prompts × n.
    pub(crate) choices: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Completion,
}

impl Kind {
    pub(crate) fn id(self, request: &str) -> String {
        match self {
            Kind::Chat => format!("chatcmpl-{request}"),
            Kind::Completion => format!("cmpl-{request}"),
        }
    }

    /// The field whose tokens may be too many.
    pub(crate) fn prompt_param(self) -> &'static str {
        match self {
            Kind::Chat => "messages",
            Kind::Completion => "prompt",
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Text {
    text: String,
    finish_reason: Option<FinishReason>,
}

/// Waits for the last event, which comes when the bill is settled.
pub(crate) async fn whole(
    envelope: Envelope,
    mut generation: Generation,
) -> Result<Response, ApiError> {
    let mut texts = vec![Text::default(); envelope.choices as usize];
    let usage = loop {
        match generation.next().await {
            Some(Event::Text { choice, text, .. }) => at(&mut texts, choice)?.text.push_str(&text),
            Some(Event::Call { .. }) => return Err(broken("a call that nobody asked for")),
            Some(Event::Finished { choice, reason }) => {
                at(&mut texts, choice)?.finish_reason = Some(reason);
            }
            Some(Event::Done(usage)) => break usage,
            Some(Event::Failed(error)) => return Err(ApiError::failed(error, &envelope.model)),
            None => return Err(broken("a generation ended without a last event")),
        }
    };
    Ok(show(envelope, texts, usage))
}

fn at(texts: &mut [Text], choice: u32) -> Result<&mut Text, ApiError> {
    texts
        .get_mut(choice as usize)
        .ok_or_else(|| broken("a generation has a choice that nobody asked for"))
}

pub(crate) fn broken(what: &str) -> ApiError {
    tracing::error!(what, "an engine broke its contract");
    ApiError::internal()
}

fn show(envelope: Envelope, texts: Vec<Text>, usage: Usage) -> Response {
    let Envelope {
        kind,
        id,
        created,
        model,
        choices: _,
    } = envelope;
    let usage = self::usage(usage);
    let choices = (0..).zip(texts);
    // Each choice ends before the last event; one that didn't has nothing that says why.
    let reason = |text: &Text| text.finish_reason.map_or("stop", finish_reason);
    match kind {
        Kind::Chat => axum::Json(chat::Answer {
            id,
            object: chat::Answer::OBJECT,
            created,
            model,
            choices: choices
                .map(|(index, text)| chat::Choice {
                    index,
                    logprobs: None,
                    finish_reason: reason(&text),
                    message: chat::AnswerMessage {
                        role: "assistant",
                        content: Some(text.text),
                        refusal: None,
                    },
                })
                .collect(),
            usage,
            system_fingerprint: None,
        })
        .into_response(),
        Kind::Completion => axum::Json(completion::Answer {
            id,
            object: completion::answer::OBJECT,
            created,
            model,
            choices: choices
                .map(|(index, text)| completion::Choice {
                    index,
                    logprobs: None,
                    finish_reason: reason(&text),
                    text: text.text,
                })
                .collect(),
            usage,
            system_fingerprint: None,
        })
        .into_response(),
    }
}

pub(crate) fn finish_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

pub(crate) fn usage(
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
