//! Parses the events of a generation, each choice with its own parser.

use std::collections::{BTreeMap, VecDeque};

use weir_engine::Token;
use weir_engine::event::{Channel, Event, FinishReason, Stage, TokenLogprob, Usage};

use super::{Piece, Reader, Reading};

/// The parsers of all choices of a generation.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    reading: Reading,
    choices: BTreeMap<u32, Choice>,
    /// Reasoning tokens so far.
    reasoning: u64,
}

#[derive(Debug)]
struct Choice {
    reader: Reader,
    /// Tokens of text that is held back; these three fields go out with the next event.
    tokens: u32,
    logprobs: Vec<TokenLogprob>,
    ids: Vec<Token>,
    /// The channel of the last text.
    channel: Channel,
}

impl From<Reading> for Readers {
    fn from(reading: Reading) -> Self {
        Readers {
            reading,
            ..Readers::default()
        }
    }
}

impl Readers {
    fn choice(&mut self, choice: u32) -> Option<&mut Choice> {
        if !self.choices.contains_key(&choice) {
            let reader = self.reading.reader()?;
            self.choices.insert(
                choice,
                Choice {
                    reader,
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
        let pieces = state.reader.finish(ended);
        state.send(choice, pieces, ready);
        state.send_rest(choice, ready);
        let has_calls = state.reader.has_calls();
        self.choices.remove(&choice);
        if ended && has_calls {
            FinishReason::ToolCalls
        } else {
            reason
        }
    }
}

impl Stage for Readers {
    fn push(&mut self, event: Event, ready: &mut VecDeque<Event>) {
        match event {
            Event::Text {
                choice,
                channel: Channel::Content,
                text,
                tokens,
                logprobs,
                ids,
            } if self.reading != Reading::PLAIN => {
                let Some(state) = self.choice(choice) else {
                    return;
                };
                state.tokens += tokens;
                state.logprobs.extend(logprobs);
                state.ids.extend(ids);
                let before = state.reader.is_reasoning();
                let pieces = state.reader.push(&text);
                let reasons = before || state.reader.is_reasoning() || has_reasoning(&pieces);
                state.send(choice, pieces, ready);
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
    fn send(&mut self, choice: u32, pieces: Vec<Piece>, ready: &mut VecDeque<Event>) {
        for piece in pieces {
            ready.push_back(match piece {
                Piece::Call { call, name } => Event::Call { choice, call, name },
                Piece::Text(channel, text) => {
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

fn has_reasoning(pieces: &[Piece]) -> bool {
    pieces
        .iter()
        .any(|piece| matches!(piece, Piece::Text(Channel::Reasoning, _)))
}
