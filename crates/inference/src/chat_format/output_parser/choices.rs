//! Parses the events of a generation, each choice with its own parser.

use std::collections::{BTreeMap, VecDeque};

use weir_engine::Token;
use weir_engine::event::{Channel, Event, FinishReason, Stage, TokenLogprob, Usage};

use super::{OutputParser, OutputPart, SharedParseRules};

/// The parsers of all choices of a generation.
#[derive(Debug, Default)]
pub(crate) struct ChoiceParsers {
    reading: SharedParseRules,
    choices: BTreeMap<u32, Choice>,
    /// Reasoning tokens so far.
    reasoning: u64,
}

#[derive(Debug)]
struct Choice {
    parser: OutputParser,
    /// Tokens of text that is held back; these three fields go out with the next event.
    tokens: u32,
    logprobs: Vec<TokenLogprob>,
    ids: Vec<Token>,
    /// The channel of the last text.
    channel: Channel,
}

impl From<SharedParseRules> for ChoiceParsers {
    fn from(reading: SharedParseRules) -> Self {
        ChoiceParsers {
            reading,
            ..ChoiceParsers::default()
        }
    }
}

impl ChoiceParsers {
    fn choice(&mut self, choice: u32) -> Option<&mut Choice> {
        if !self.choices.contains_key(&choice) {
            let parser = self.reading.parser()?;
            self.choices.insert(
                choice,
                Choice {
                    parser,
                    tokens: 0,
                    logprobs: Vec::new(),
                    ids: Vec::new(),
                    channel: Channel::Content,
                },
            );
        }
        self.choices.get_mut(&choice)
    }

    fn finish(
        &mut self,
        choice: u32,
        reason: FinishReason,
        ready: &mut VecDeque<Event>,
    ) -> FinishReason {
        let Some(state) = self.choice(choice) else {
            return reason;
        };
        let ended = reason == FinishReason::Stop;
        let parts = state.parser.finish(ended);
        state.send(choice, parts, ready);
        state.send_rest(choice, ready);
        let has_calls = state.parser.has_calls();
        self.choices.remove(&choice);
        if ended && has_calls {
            FinishReason::ToolCalls
        } else {
            reason
        }
    }
}

impl Stage for ChoiceParsers {
    fn push(&mut self, event: Event, ready: &mut VecDeque<Event>) {
        match event {
            Event::Text {
                choice,
                channel: Channel::Content,
                text,
                tokens,
                logprobs,
                ids,
            } if self.reading != SharedParseRules::PLAIN => {
                let Some(state) = self.choice(choice) else {
                    return;
                };
                state.tokens += tokens;
                state.logprobs.extend(logprobs);
                state.ids.extend(ids);
                let before = state.parser.is_reasoning();
                let parts = state.parser.push(&text);
                let reasons = before || state.parser.is_reasoning() || has_reasoning(&parts);
                state.send(choice, parts, ready);
                if reasons {
                    self.reasoning += u64::from(tokens);
                }
            }
            Event::Finished { choice, reason } => {
                let reason = self.finish(choice, reason, ready);
                ready.push_back(Event::Finished { choice, reason });
            }
            Event::Done(usage) => ready.push_back(Event::Done(Usage {
                reasoning: self.reasoning,
                ..usage
            })),
            event @ (Event::Prompt { .. }
            | Event::Text { .. }
            | Event::Call { .. }
            | Event::Failed(_)) => {
                ready.push_back(event);
            }
        }
    }

    fn reasoning(&self) -> u64 {
        self.reasoning
    }
}

impl Choice {
    fn send(&mut self, choice: u32, parts: Vec<OutputPart>, ready: &mut VecDeque<Event>) {
        for part in parts {
            ready.push_back(match part {
                OutputPart::Call { call, name } => Event::Call { choice, call, name },
                OutputPart::Text(channel, text) => {
                    self.channel = channel;
                    Event::Text {
                        choice,
                        channel,
                        text,
                        tokens: std::mem::take(&mut self.tokens),
                        logprobs: std::mem::take(&mut self.logprobs),
                        ids: std::mem::take(&mut self.ids),
                    }
                }
            });
        }
    }

    /// Sends log-probabilities and ids that are left over, which belong to the mark after the last text.
    fn send_rest(&mut self, choice: u32, ready: &mut VecDeque<Event>) {
        if !self.logprobs.is_empty() || !self.ids.is_empty() {
            ready.push_back(Event::Text {
                choice,
                channel: self.channel,
                text: String::new(),
                tokens: std::mem::take(&mut self.tokens),
                logprobs: std::mem::take(&mut self.logprobs),
                ids: std::mem::take(&mut self.ids),
            });
        }
    }
}

fn has_reasoning(parts: &[OutputPart]) -> bool {
    parts
        .iter()
        .any(|part| matches!(part, OutputPart::Text(Channel::Reasoning, _)))
}
