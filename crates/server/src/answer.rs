//! A whole answer: a fold of the events that a stream would show one by one.

mod fold;
pub(crate) mod logprobs;
mod show;

use std::sync::Arc;

use axum::response::Response;
use weir_engine::{Event, FinishReason, Usage};
use weir_gateway::Generation;

use self::fold::Fold;
pub(crate) use self::logprobs::{Offset, Spelling};
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
    pub(crate) prompts: u32,
    /// Choices that are generated for each prompt.
    pub(crate) of_each: u32,
    pub(crate) shape: Shape,
    /// `system_fingerprint`
    pub(crate) fingerprint: Arc<str>,
}

impl Envelope {
    /// All choices that are generated.
    pub(crate) fn choices(&self) -> u32 {
        self.prompts * self.of_each
    }

    fn shown_of_each(&self) -> u32 {
        self.shape.best.unwrap_or(self.of_each)
    }

    /// The same each time it is asked for, and another one in each answer. OpenAI's own service takes
    /// ids of up to 40 characters back.
    pub(crate) fn call_id(&self, choice: u32, call: u32) -> String {
        let random = self.id.len().saturating_sub(CALL_ID_CHARS);
        format!("call_{}_{choice:x}_{call:x}", &self.id[random..])
    }
}

/// Of a request's id in a call's.
const CALL_ID_CHARS: usize = 24;

/// What of a generation its caller sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shape {
    /// So many of each prompt's choices, the best; all if not given.
    pub(crate) best: Option<u32>,
    pub(crate) logprobs: Option<Spelling>,
    /// Where the text of each prompt's choices begins, in characters; 0 if not given.
    pub(crate) starts: Vec<usize>,
    pub(crate) hides_reasoning: bool,
    /// Whether the tokens of prompts and answers are told.
    pub(crate) token_ids: bool,
    pub(crate) prompt_logprobs: bool,
}

impl Shape {
    /// Where a choice's text begins, when each prompt has `of_each`.
    pub(crate) fn start(&self, choice: u32, of_each: u32) -> usize {
        let prompt = (choice / of_each) as usize;
        self.starts.get(prompt).copied().unwrap_or(0)
    }
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

/// Waits for the last event, which comes when the bill is settled.
pub(crate) async fn whole(
    envelope: Envelope,
    mut generation: Generation,
) -> Result<Response, ApiError> {
    let mut fold = Fold::new(envelope.choices(), envelope.prompts);
    let usage = loop {
        match generation.next().await {
            Some(Ok(Event::Done(usage))) => break usage,
            Some(Ok(event)) => fold.add(event)?,
            Some(Err(refusal)) => return Err(refusal.into()),
            None => return Err(broken("a generation ended without a last event")),
        }
    };
    let prompts = fold.prompts();
    let choices = match envelope.shape.best {
        Some(shown) => fold.best(envelope.of_each as usize, shown as usize),
        None => fold.all(),
    };
    Ok(show::show(&envelope, prompts, choices, usage))
}

pub(crate) fn broken(what: &str) -> ApiError {
    tracing::error!(what, "an engine broke its contract");
    ApiError::internal()
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
