//! The fold of a generation's events into a whole answer.

use std::sync::Arc;

use weir_engine::{Channel, Event, FinishReason, Token, TokenLogprob, Usage};

use super::{ResponseShape, broken};
use crate::error::ApiError;

/// All prompts and choices of a generation, with everything that its events said.
#[derive(Debug)]
pub struct Folded {
    pub prompts: Vec<FoldedPrompt>,
    /// The choices of the first prompt, then those of the second, and so on.
    pub choices: Vec<FoldedChoice>,
    pub usage: Usage,
}

/// A prompt's tokens and log-probabilities, if the request asked for them.
#[derive(Debug, Clone)]
pub struct FoldedPrompt {
    pub tokens: Arc<[Token]>,
    pub logprobs: Vec<TokenLogprob>,
}

#[derive(Debug, Clone, Default)]
pub struct FoldedChoice {
    pub content: String,
    pub reasoning: String,
    pub calls: Vec<FoldedCall>,
    /// The log-probabilities of the content's tokens.
    pub logprobs: Vec<TokenLogprob>,
    pub finish_reason: Option<FinishReason>,
    /// The ids of the generated tokens, if the request asked for them.
    pub ids: Vec<Token>,
    generated: Mean,
}

#[derive(Debug, Clone, Default)]
pub struct FoldedCall {
    pub name: String,
    /// JSON text, as the model generated it.
    pub arguments: String,
}

/// The mean log-probability of the generated tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    tokens: u32,
}

impl Folded {
    pub(crate) fn new(choices: u32, prompts: u32) -> Self {
        let untold = FoldedPrompt {
            tokens: Arc::default(),
            logprobs: Vec::new(),
        };
        Folded {
            prompts: vec![untold; prompts as usize],
            choices: vec![FoldedChoice::default(); choices as usize],
            usage: Usage::default(),
        }
    }

    /// Adds an event other than [`Event::Done`].
    pub(super) fn add(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Text {
                choice,
                channel,
                text,
                tokens,
                logprobs,
                ids,
            } => {
                let choice = self.at(choice)?;
                choice.ids.extend(ids);
                choice.add(channel, &text, tokens, logprobs)
            }
            Event::Prompt {
                prompt,
                tokens,
                logprobs,
            } => {
                let place = self.prompts.get_mut(prompt as usize);
                let place = place.ok_or_else(|| broken("a prompt that nobody has asked"))?;
                *place = FoldedPrompt { tokens, logprobs };
                Ok(())
            }
            Event::Call { choice, call, name } => self.at(choice)?.call(call, name),
            Event::Finished { choice, reason } => {
                self.at(choice)?.finish_reason = Some(reason);
                Ok(())
            }
            Event::Done(_) | Event::Failed(_) => Err(broken("an event after the last")),
        }
    }

    /// The same answer with only the `shown` likeliest of each prompt's `generated` choices, the best first.
    pub(super) fn best(mut self, generated: usize, shown: usize) -> Self {
        let prompts = self.choices.chunks_mut(generated);
        let best = prompts.flat_map(|of_prompt| {
            of_prompt.sort_by(|a, b| b.generated.get().total_cmp(&a.generated.get()));
            of_prompt.iter_mut().take(shown).map(std::mem::take)
        });
        Folded {
            choices: best.collect(),
            prompts: self.prompts,
            usage: self.usage,
        }
    }

    fn at(&mut self, choice: u32) -> Result<&mut FoldedChoice, ApiError> {
        self.choices
            .get_mut(choice as usize)
            .ok_or_else(|| broken("a generation has a choice that nobody asked for"))
    }
}

impl FoldedPrompt {
    /// The prompt's tokens, if the answer shows them.
    pub(super) fn ids(&self, shape: &ResponseShape) -> Option<Vec<Token>> {
        shape.token_ids.then(|| self.tokens.to_vec())
    }
}

impl FoldedChoice {
    fn add(
        &mut self,
        channel: Channel,
        text: &str,
        tokens: u32,
        logprobs: Vec<TokenLogprob>,
    ) -> Result<(), ApiError> {
        // Log-probabilities before those of the generated tokens belong to the echoed prompt.
        let echoed = logprobs.len().saturating_sub(tokens as usize);
        self.generated.add(&logprobs[echoed..]);
        match channel {
            Channel::Content => {
                self.content.push_str(text);
                self.logprobs.extend(logprobs);
            }
            Channel::Reasoning => self.reasoning.push_str(text),
            Channel::Call(call) => self
                .calls
                .get_mut(call as usize)
                .ok_or_else(|| broken("arguments of a call that hasn't begun"))?
                .arguments
                .push_str(text),
        }
        Ok(())
    }

    fn call(&mut self, call: u32, name: String) -> Result<(), ApiError> {
        if call as usize != self.calls.len() {
            return Err(broken("calls are not numbered one by one"));
        }
        self.calls.push(FoldedCall {
            name,
            arguments: String::new(),
        });
        Ok(())
    }
}

impl Mean {
    fn add(&mut self, logprobs: &[TokenLogprob]) {
        for logprob in logprobs.iter().filter_map(|entry| entry.logprob) {
            self.sum += f64::from(logprob);
            self.tokens += 1;
        }
    }

    /// A choice without tokens sorts last.
    fn get(self) -> f64 {
        match self.tokens {
            0 => f64::NEG_INFINITY,
            tokens => self.sum / f64::from(tokens),
        }
    }
}
