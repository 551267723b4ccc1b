//! From what a generation added up to, to the wire.

use axum::response::{IntoResponse, Response};
use weir_api::{chat, completion};
use weir_engine::Usage;

use super::fold::Choice;
use super::logprobs::{self, Offset};
use super::{Envelope, Kind, finish_reason, usage};

pub(super) fn show(envelope: &Envelope, choices: Vec<Choice>, used: Usage) -> Response {
    let choices = (0..).zip(choices);
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
            system_fingerprint: None,
        })
        .into_response(),
        Kind::Completion => axum::Json(completion::Answer {
            id: envelope.id.clone(),
            object: completion::answer::OBJECT,
            created: envelope.created,
            model: envelope.model.clone(),
            choices: choices
                .map(|(index, choice)| completion_choice(envelope, index, choice))
                .collect(),
            usage: usage(used),
            system_fingerprint: None,
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
        message: chat::AnswerMessage {
            role: "assistant",
            content: (!calls_alone).then_some(choice.content),
            refusal: None,
            reasoning_content: (!choice.reasoning.is_empty()).then_some(choice.reasoning),
            tool_calls,
        },
    }
}

fn completion_choice(envelope: &Envelope, index: u32, choice: Choice) -> completion::Choice {
    let shape = &envelope.shape;
    let mut offset = Offset::at(shape.start(index, envelope.shown_of_each()));
    completion::Choice {
        index,
        logprobs: shape
            .logprobs
            .map(|spelling| logprobs::legacy(&choice.logprobs, spelling, &mut offset)),
        finish_reason: reason(choice.finish_reason),
        text: choice.content,
    }
}

/// Each choice ends before the last event; one that didn't has nothing that says why.
fn reason(reason: Option<weir_engine::FinishReason>) -> &'static str {
    reason.map_or("stop", finish_reason)
}
