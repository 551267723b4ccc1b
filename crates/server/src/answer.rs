//! A whole answer: a fold of the events that a stream would send one by one.

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

/// Values that all parts of an answer share.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    pub(crate) kind: Kind,
    /// `chatcmpl-…` or `cmpl-…`
    pub(crate) id: String,
    /// Unix seconds.
    pub(crate) created: i64,
    pub(crate) model: String,
    pub(crate) prompts: u32,
    /// Number of choices that are generated for each prompt.
    pub(crate) of_each: u32,
    pub(crate) shape: Shape,
    /// `system_fingerprint`
    pub(crate) fingerprint: Arc<str>,
}

impl Envelope {
    /// Number of all choices that are generated.
    pub(crate) fn choices(&self) -> u32 {
        self.prompts * self.of_each
    }

    fn shown_of_each(&self) -> u32 {
        self.shape.best.unwrap_or(self.of_each)
    }

    /// The id of a tool call: always the same within an answer, and different in every answer. OpenAI's own service
    /// accepts ids of up to 40 characters.
    pub(crate) fn call_id(&self, choice: u32, call: u32) -> String {
        let random = self.id.len().saturating_sub(CALL_ID_CHARS);
        format!("call_{}_{choice:x}_{call:x}", &self.id[random..])
    }
}

/// The number of characters of the request's id that are part of a tool call's.
const CALL_ID_CHARS: usize = 24;

/// The parts of a generation that the answer shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shape {
    /// Number of choices that are shown for each prompt, the likeliest ones; all if `None`.
    pub(crate) best: Option<u32>,
    pub(crate) logprobs: Option<Spelling>,
    /// The offset, in characters, at which the text of each prompt's choices begins; 0 if absent.
    pub(crate) starts: Vec<usize>,
    pub(crate) hides_reasoning: bool,
    /// Whether the answer has the token ids of prompts and choices.
    pub(crate) token_ids: bool,
    pub(crate) prompt_logprobs: bool,
}

impl Shape {
    /// The offset at which a choice's text begins, with `of_each` choices for each prompt.
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

    /// The field that has the prompt.
    pub(crate) fn prompt_param(self) -> &'static str {
        match self {
            Kind::Chat => "messages",
            Kind::Completion => "prompt",
        }
    }
}

/// Reads the generation to its end, which comes when the usage is settled, and answers.
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
