//! The fold of a generation's events into choices.

use std::sync::Arc;

use weir_engine::{Channel, Event, FinishReason, Token, TokenLogprob};

use super::broken;
use crate::error::ApiError;

/// A choice, with everything that was generated so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Choice {
    pub(super) content: String,
    pub(super) reasoning: String,
    pub(super) calls: Vec<Call>,
    /// The log-probabilities of the content's tokens.
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) finish_reason: Option<FinishReason>,
    pub(super) ids: Vec<Token>,
    generated: Mean,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Call {
    pub(super) name: String,
    pub(super) arguments: String,
}

/// The mean log-probability of the generated tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    sum: f64,
    tokens: u32,
}

/// A prompt's tokens and log-probabilities, if the request asked for them.
#[derive(Debug, Clone)]
pub(super) struct Prompt {
    pub(super) tokens: Arc<[Token]>,
    pub(super) logprobs: Vec<TokenLogprob>,
}

/// All prompts and choices of a generation.
#[derive(Debug)]
pub(super) struct Fold {
    prompts: Vec<Prompt>,
    choices: Vec<Choice>,
}

impl Fold {
    pub(super) fn new(choices: u32, prompts: u32) -> Self {
        let untold = Prompt {
            tokens: Arc::default(),
            logprobs: Vec::new(),
        };
        Fold {
            prompts: vec![untold; prompts as usize],
            choices: vec![Choice::default(); choices as usize],
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
                *place = Prompt { tokens, logprobs };
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

    pub(super) fn prompts(&mut self) -> Vec<Prompt> {
        std::mem::take(&mut self.prompts)
    }

    pub(super) fn all(self) -> Vec<Choice> {
        self.choices
    }

    /// For each prompt the `shown` likeliest of its `generated` choices, the best first.
    pub(super) fn best(self, generated: usize, shown: usize) -> Vec<Choice> {
        let mut choices = self.choices;
        let prompts = choices.chunks_mut(generated);
        let best = prompts.flat_map(|of_prompt| {
            of_prompt.sort_by(|a, b| b.generated.get().total_cmp(&a.generated.get()));
            of_prompt.iter_mut().take(shown).map(std::mem::take)
        });
        best.collect()
    }

    fn at(&mut self, choice: u32) -> Result<&mut Choice, ApiError> {
        self.choices
            .get_mut(choice as usize)
            .ok_or_else(|| broken("a generation has a choice that nobody asked for"))
    }
}

impl Choice {
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
        self.calls.push(Call {
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
