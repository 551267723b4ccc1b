//! The events of a generation: a bounded channel whose receiver is the only cancel signal.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::{EngineError, Token};

/// Events of one generation that may wait for a slow reader; more if it has many choices.
pub const EVENTS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A prompt's tokens, if they or their log-probabilities were asked for. Sent when the prompt is computed, before
    /// all events of its choices.
    Prompt {
        prompt: u32,
        tokens: Arc<[Token]>,
        /// An entry for each token, or none if they weren't asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// Text of a choice, in whole characters.
    Text {
        choice: u32,
        channel: Channel,
        /// Empty only if `logprobs` or `ids` isn't: a token may have no text.
        text: String,
        /// The number of generated tokens that this event accounts for.
        tokens: u32,
        /// An entry for each of these tokens, if asked for; before them those of an echoed prompt.
        logprobs: Vec<TokenLogprob>,
        /// The ids of the tokens generated since the choice's last event, including one that ends the text, if asked
        /// for.
        ids: Vec<Token>,
    },
    /// A choice begins a tool call. The call's arguments follow as text on `Channel::Call(call)`.
    Call {
        choice: u32,
        /// The index of the call in its choice, from 0.
        call: u32,
        name: String,
    },
    /// A choice has ended. Each choice has exactly one, after all its text.
    Finished { choice: u32, reason: FinishReason },
    /// All choices have ended. This or `Failed` is a generation's last event.
    Done(Usage),
    /// The generation failed. This or `Done` is a generation's last event.
    Failed(EngineError),
}

/// The part of an answer that a text belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// The visible answer (`content`).
    Content,
    /// The reasoning before the answer (`reasoning_content`).
    Reasoning,
    /// The arguments of the tool call with this index, as JSON.
    Call(u32),
}

/// A token with its log-probability in the model's own distribution, before bias, penalties and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: Token,
    /// The token's bytes; they may be a part of a character.
    pub bytes: Vec<u8>,
    /// `None` for the first token of a prompt, which has nothing before it.
    pub logprob: Option<f32>,
    /// The token's rank in the vocabulary, 1 for the most likely; only for prompt tokens (`prompt_logprobs`).
    pub rank: Option<u32>,
    /// The most likely tokens at this position, best first.
    pub top: Vec<TopLogprob>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct TopLogprob {
    pub token: Token,
    pub bytes: Vec<u8>,
    pub logprob: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string or stop token came.
    Stop,
    /// The model ended its turn with tool calls.
    ToolCalls,
    /// The token limit, the context, or the allowance is used up.
    Length,
}

/// The tokens that a generation has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens. A prompt counts once, however many choices it has, and only when it is computed.
    pub prompt: u64,
    /// The part of `prompt` that came from the prefix cache.
    pub cached: u64,
    /// Every generated token of every choice, including those that end a text.
    pub completion: u64,
    /// The part of `completion` that was reasoning.
    pub reasoning: u64,
}

/// The receiving end of a generation's channel. Dropping it cancels the generation.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    /// Closed when the engine has let go of the generation.
    engine: mpsc::Receiver<Infallible>,
    meter: Arc<Meter>,
    /// The engine's last stage, if it has one.
    stage: Option<Box<dyn Stage>>,
    /// Events that the last stage has returned and that aren't handed out yet.
    ready: VecDeque<Event>,
}

impl Events {
    /// Adds the engine's last stage. It runs in the task that takes the events, not on the engine's thread.
    #[must_use]
    pub fn through(mut self, stage: Box<dyn Stage>) -> Self {
        self.stage = Some(stage);
        self
    }

    /// The next event; `None` after the last one, and when the engine has died without one.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // Cancel-safe: no event is lost if the caller drops the future while it waits here.
            let event = self.receiver.recv().await?;
            match &mut self.stage {
                None => return Some(event),
                Some(stage) => stage.push(event, &mut self.ready),
            }
        }
    }

    /// Cancels the generation; events that were already sent can still be read.
    pub fn close(&mut self) {
        self.receiver.close();
    }

    /// Cancels the generation and waits until the engine has let go of it, so that the returned usage is final.
    pub async fn cancel(mut self) -> Usage {
        self.close();
        while self.engine.recv().await.is_some() {}
        self.usage()
    }

    /// The tokens computed and generated so far, whether or not their text was read.
    pub fn usage(&self) -> Usage {
        let reasoning = self.stage.as_ref().map_or(0, |stage| stage.reasoning());
        Usage {
            reasoning,
            ..self.meter.usage()
        }
    }
}

/// An engine's last stage, which turns its raw events into those that callers get: an output parser, for example, splits
/// reasoning and tool calls off the text.
pub trait Stage: Send + Debug {
    /// Takes an event, and appends the resulting events to `ready`.
    fn push(&mut self, event: Event, ready: &mut VecDeque<Event>);

    /// The number of generated tokens so far that were reasoning.
    fn reasoning(&self) -> u64;
}

/// The sending end, owned by the engine, which drops it when the generation has ended or the receiver is closed.
#[derive(Debug, Clone)]
pub struct EventSender {
    sender: mpsc::Sender<Event>,
    _alive: mpsc::Sender<Infallible>,
    meter: Arc<Meter>,
}

/// A channel for one generation. `capacity` is at least the number of its choices plus 2, so that
/// its last events always fit.
pub fn channel(capacity: usize) -> (EventSender, Events) {
    let (sender, receiver) = mpsc::channel(capacity);
    let (alive, engine) = mpsc::channel(1);
    let meter = Arc::new(Meter::default());
    (
        EventSender {
            sender,
            _alive: alive,
            meter: Arc::clone(&meter),
        },
        Events {
            receiver,
            engine,
            meter,
            stage: None,
            ready: VecDeque::new(),
        },
    )
}

impl EventSender {
    /// Whether the receiver is closed, which is the only cancel signal.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// The number of events that can be sent now without waiting.
    pub fn room(&self) -> usize {
        self.sender.capacity()
    }

    /// Sends without waiting; the caller has checked [`room`](Self::room). `false` if the receiver is closed.
    pub fn send(&self, event: Event) -> bool {
        self.sender.try_send(event).is_ok()
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// A generation's token counts, written by the engine and read by the payer (the gateway).
#[derive(Debug, Default)]
pub struct Meter {
    prompt: AtomicU64,
    cached: AtomicU64,
    completion: AtomicU64,
}

impl Meter {
    pub fn add_prompt(&self, tokens: u64, cached: u64) {
        self.prompt.fetch_add(tokens, Ordering::Relaxed);
        self.cached.fetch_add(cached, Ordering::Relaxed);
    }

    pub fn add_completion(&self, tokens: u64) {
        self.completion.fetch_add(tokens, Ordering::Relaxed);
    }

    pub fn usage(&self) -> Usage {
        Usage {
            prompt: self.prompt.load(Ordering::Relaxed),
            cached: self.cached.load(Ordering::Relaxed),
            completion: self.completion.load(Ordering::Relaxed),
            reasoning: 0,
        }
    }
}

/// How many tokens a generation may produce, over all its choices. The payer (the gateway) raises it while the
/// generation runs. An engine generates nothing beyond it: it waits for a raise or, if none will follow, ends the
/// choices with [`FinishReason::Length`].
#[derive(Debug, Clone)]
pub struct Allowance(Arc<AllowanceState>);

#[derive(Debug)]
struct AllowanceState {
    tokens: AtomicU64,
    last: AtomicBool,
}

impl Allowance {
    /// An allowance without a limit.
    pub fn unlimited() -> Self {
        Allowance(Arc::new(AllowanceState {
            tokens: AtomicU64::new(u64::MAX),
            last: AtomicBool::new(true),
        }))
    }

    /// An allowance of `tokens` that may be raised later.
    pub fn rolling(tokens: u64) -> Self {
        Allowance(Arc::new(AllowanceState {
            tokens: AtomicU64::new(tokens),
            last: AtomicBool::new(false),
        }))
    }

    pub fn raise(&self, tokens: u64) {
        self.0.tokens.fetch_add(tokens, Ordering::Release);
    }

    /// Says that no raise will follow.
    pub fn close(&self) {
        self.0.last.store(true, Ordering::Release);
    }

    pub fn tokens(&self) -> u64 {
        self.0.tokens.load(Ordering::Acquire)
    }

    pub fn is_closed(&self) -> bool {
        self.0.last.load(Ordering::Acquire)
    }

    /// Whether all allowed tokens are generated and no raise will follow. The payer raises before it closes; since
    /// `is_closed` is read first here, the last raise can't be missed.
    pub fn is_used_up(&self, generated: u64) -> bool {
        self.is_closed() && self.tokens() <= generated
    }
}
