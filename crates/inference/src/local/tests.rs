mod answers;
mod ends;
mod formats;
mod refusals;
mod tokens;

use std::sync::atomic::{AtomicU64, Ordering};

use weir_engine::Token;
use weir_engine::event::{Allowance, Event, FinishReason, Usage};
use weir_engine::request::{
    Choices, Format, Input, Invalid, Logprobs, Message, OutputLimit, Overflow, Prompt, Role,
    Sampling, SamplingFields, Stop,
};

use super::*;
use crate::model::{AsideCapacity, Batching, Bos, Capacity, Forks, Tokenizer};
use crate::sim::{self, Faults, SimModel, SimOptions, SimTokenizer, Solo};

fn request(text: &str, tokens: u32) -> Request {
    let fields = SamplingFields {
        seed: Some(7),
        ..SamplingFields::default()
    };
    Request {
        sampling: Sampling::new(fields).unwrap(),
        output: OutputLimit {
            tokens: Some(tokens),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(text.to_owned())]))
    }
}

fn chat(content: &str) -> Input {
    Input::Chat(vec![Message::new(Role::User, content)].into())
}

/// An answer, collected from its events.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    choices: Vec<(String, Option<FinishReason>)>,
    end: Option<Result<Usage, EngineError>>,
}

async fn read(mut events: Events, choices: usize) -> Answer {
    let mut answer = Answer {
        choices: vec![(String::new(), None); choices],
        end: None,
    };
    while let Some(event) = events.next().await {
        assert_eq!(answer.end, None, "{event:?} after the last event");
        match event {
            Event::Text { choice, text, .. } => answer.choices[choice as usize].0.push_str(&text),
            Event::Prompt { .. } => panic!("a prompt that nobody wants to know"),
            Event::Call { .. } => panic!("a call that nobody asked for"),
            Event::Finished { choice, reason } => answer.choices[choice as usize].1 = Some(reason),
            Event::Done(usage) => answer.end = Some(Ok(usage)),
            Event::Failed(error) => answer.end = Some(Err(error)),
        }
    }
    answer
}

async fn generate(engine: &LocalEngine, request: Request) -> Result<Events, EngineError> {
    engine.start(engine.render(request).await?)
}

/// The answer that `read` should return, computed without an engine by [`sim::solo`].
fn solo(prepared: &PreparedRequest) -> Answer {
    let Request {
        sampling,
        stop,
        choices,
        ..
    } = &*prepared.request;
    let mut usage = Usage {
        prompt: prepared.prompt_tokens(),
        ..Usage::default()
    };
    let choices = (0..)
        .take(usize::try_from(prepared.choices()).unwrap())
        .map(|choice| {
            let prompt = &prepared.prompts[(choice / choices.get()) as usize];
            let Solo {
                text,
                reason,
                tokens,
                spoken: _,
            } = sim::solo(
                &SimOptions::default(),
                prompt,
                sampling,
                stop,
                prepared.output_max,
                prepared.constraint.as_ref(),
                choice,
            );
            usage.completion += tokens;
            (text, Some(reason))
        });
    let choices = choices.collect();
    Answer {
        choices,
        end: Some(Ok(usage)),
    }
}
