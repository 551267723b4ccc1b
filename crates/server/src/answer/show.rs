//! Conversion of a fold to the wire format.

use axum::response::{IntoResponse, Response};
use weir_api::prompt_logprobs::PromptLogprobs;
use weir_api::{chat, completion};
use weir_engine::{Token, Usage};

use super::fold::{Choice, Prompt};
use super::logprobs::{self, Offset};
use super::{Envelope, Kind, Shape, finish_reason, usage};

pub(super) fn show(
    envelope: &Envelope,
    prompts: Vec<Prompt>,
    choices: Vec<Choice>,
    used: Usage,
) -> Response {
    let choices = (0..).zip(choices);
    let shape = &envelope.shape;
    match envelope.kind {
        Kind::Chat => axum::Json(chat::Answer {
            id: envelope.id.clone(),
            object: chat::Answer::OBJECT,
            created: envelope.created,
            model: envelope.model.clone(),
            choices: choices
                .map(|(index, choice)| chat_choice(envelope, index, choice))
                .collect(),
            usage: usage(used),
            system_fingerprint: envelope.fingerprint.to_string(),
            prompt_logprobs: prompts
                .first()
                .and_then(|prompt| prompt_logprobs(shape, prompt)),
            prompt_token_ids: prompts.first().and_then(|prompt| prompt_ids(shape, prompt)),
        })
        .into_response(),
        Kind::Completion => axum::Json(completion::Answer {
            id: envelope.id.clone(),
            object: completion::answer::OBJECT,
            created: envelope.created,
            model: envelope.model.clone(),
            choices: choices
                .map(|(index, choice)| completion_choice(envelope, &prompts, index, choice))
                .collect(),
            usage: usage(used),
            system_fingerprint: envelope.fingerprint.to_string(),
        })
        .into_response(),
    }
}

fn chat_choice(envelope: &Envelope, index: u32, choice: Choice) -> chat::Choice {
    let spelling = envelope.shape.logprobs;
    let tool_calls: Vec<_> = (0..)
        .zip(choice.calls)
        .map(|(call, made)| chat::Call {
            id: envelope.call_id(index, call),
            kind: chat::Call::KIND,
            function: chat::Function {
                name: made.name,
                arguments: made.arguments,
            },
        })
        .collect();
    let calls_alone = choice.content.is_empty() && !tool_calls.is_empty();
    chat::Choice {
        index,
        logprobs: spelling.map(|spelling| logprobs::chat(&choice.logprobs, spelling)),
        finish_reason: reason(choice.finish_reason),
        token_ids: envelope.shape.token_ids.then_some(choice.ids),
        message: chat::AnswerMessage {
            role: "assistant",
            content: (!calls_alone).then_some(choice.content),
            refusal: None,
            reasoning_content: Some(choice.reasoning)
                .filter(|reasoning| !reasoning.is_empty() && !envelope.shape.hides_reasoning),
            tool_calls,
        },
    }
}

fn completion_choice(
    envelope: &Envelope,
    prompts: &[Prompt],
    index: u32,
    choice: Choice,
) -> completion::Choice {
    let shape = &envelope.shape;
    let prompt = prompts.get((index / envelope.shown_of_each()) as usize);
    let mut offset = Offset::at(shape.start(index, envelope.shown_of_each()));
    completion::Choice {
        index,
        logprobs: shape
            .logprobs
            .map(|spelling| logprobs::legacy(&choice.logprobs, spelling, &mut offset)),
        finish_reason: reason(choice.finish_reason),
        prompt_logprobs: prompt.and_then(|prompt| prompt_logprobs(shape, prompt)),
        prompt_token_ids: prompt.and_then(|prompt| prompt_ids(shape, prompt)),
        token_ids: shape.token_ids.then_some(choice.ids),
        text: choice.content,
    }
}

fn prompt_ids(shape: &Shape, prompt: &Prompt) -> Option<Vec<Token>> {
    shape.token_ids.then(|| prompt.tokens.to_vec())
}

fn prompt_logprobs(shape: &Shape, prompt: &Prompt) -> Option<PromptLogprobs> {
    shape
        .prompt_logprobs
        .then(|| logprobs::of_prompt(&prompt.logprobs))
}

/// The finish reason. Every choice has one before the last event comes; for one that doesn't, `stop`.
fn reason(reason: Option<weir_engine::FinishReason>) -> &'static str {
    reason.map_or("stop", finish_reason)
}
