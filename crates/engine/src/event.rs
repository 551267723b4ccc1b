//! What comes out of an engine: a bounded channel of events whose receiver is the only cancel signal.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::mpsc;

use crate::dialect::{Readers, Reading};
use crate::{EngineError, Token};

/// Events of one generation that may wait for a slow reader.
pub const EVENTS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A prompt as it is computed, if its tokens or their log-probabilities were asked for. Before all events of its
    /// choices.
    Prompt {
        prompt: u32,
        tokens: Arc<[Token]>,
        /// One for each token, if they were asked for.
        logprobs: Vec<TokenLogprob>,
    },
    /// Text of a choice, whole characters.
    Text {
        choice: u32,
        channel: Channel,
        /// Empty only if `logprobs` or `ids` aren't: tokens may stand for no text.
        text: String,
        /// How many generated tokens it completes.
        tokens: u32,
        /// One for each token that the text completes, if they were asked for; an echoed prompt's too.
        logprobs: Vec<TokenLogprob>,
        /// The generated tokens that the text completes, and one that ends it, if they were asked for.
        ids: Vec<Token>,
    },
    /// A choice begins to call a tool. Its arguments follow as text on `Channel::Call(call)`.
    Call {
        choice: u32,
        /// The number of the call in its choice, from 0.
        call: u32,
        name: String,
    },
    /// A choice has ended. Each choice has exactly one, after all its text.
    Finished { choice: u32, reason: FinishReason },
    /// All choices have ended. The last event, unless it is `Failed`.
    Done(Usage),
    /// The generation can't go on. The last event.
    Failed(EngineError),
}

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// What the assistant says.
    Content,
    /// What it thinks before.
    Reasoning,
    /// The arguments of this call, JSON.
    Call(u32),
}

/// A token with its place in the model's own distribution, before bias, penalties and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: Token,
    /// What it stands for; may be a part of a character.
    pub bytes: Vec<u8>,
    /// `None` for the first token of a prompt, which nothing precedes.
    pub logprob: Option<f32>,
    /// Its place among all tokens, from 1 for the most likely; of tokens that were scored in prompts.
    pub rank: Option<u32>,
    /// The most likely tokens in its place, best first.
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
    /// The model ended its turn, or a stop string came.
    Stop,
    /// The model ended its turn with calls of tools.
    ToolCalls,
    /// The limit of tokens, the context, or the allowance is used up.
    Length,
}

/// What a generation has cost so far, in tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each prompt once, however many choices it has; counted when it is computed.
    pub prompt: u64,
    /// The part of `prompt` that was taken from a cache.
    pub cached: u64,
    /// Every generated token of every choice, those that end a text included.
    pub completion: u64,
    /// The part of `completion` that was reasoning.
    pub reasoning: u64,
}

/// The receiving end. Dropping it cancels the generation.
#[derive(Debug)]
pub struct Events {
    receiver: mpsc::Receiver<Event>,
    /// Closed when the engine has let go of the generation.
    engine: mpsc::Receiver<Infallible>,
    meter: Arc<Meter>,
    readers: Readers,
    /// What was read of the engine's last event and not yet handed out.
    ready: VecDeque<Event>,
}

impl Events {
    /// The same, read so: reasoning and calls are told apart from what is said. That is the work of
    /// whoever takes the events, not of the engine.
    #[must_use]
    pub fn read(mut self, reading: Reading) -> Self {
        self.readers = Readers::new(reading);
        self
    }

    /// `None` after the last event, and when the engine has died without one.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // Nothing is lost if the caller gives up waiting here.
            let event = self.receiver.recv().await?;
            self.readers.read(event, &mut self.ready);
        }
    }

    /// Cancels the generation; what was sent can still be read.
    pub fn close(&mut self) {
        self.receiver.close();
    }

    /// Cancels the generation and waits until the engine has let go of it: nothing is added to the
    /// usage any more.
    pub async fn cancel(mut self) -> Usage {
        self.close();
        while self.engine.recv().await.is_some() {}
        self.usage()
    }

    /// Tokens computed and generated up to now, whether or not their text was read.
    pub fn usage(&self) -> Usage {
        self.readers.with_reasoning(self.meter.usage())
    }
}

/// The sending end, in an engine, which drops it when the generation has ended or nobody listens.
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
            readers: Readers::default(),
            ready: VecDeque::new(),
        },
    )
}

impl EventSender {
    /// Whether anybody still listens. A closed receiver is the only cancel signal.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Events that can be sent now without waiting.
    pub fn room(&self) -> usize {
        self.sender.capacity()
    }

    /// Sends without waiting; the caller has looked at [`room`](Self::room). `false` if nobody listens.
    pub fn send(&self, event: Event) -> bool {
        self.sender.try_send(event).is_ok()
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// Counts of a generation, written by the engine, read by whoever pays.
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

/// How many tokens a generation may produce, over all its choices: raised while it runs, by whoever
/// pays. An engine generates nothing beyond it: it waits for more, or, when there won't be more, ends
/// the choices with [`FinishReason::Length`].
#[derive(Debug, Clone)]
pub struct Allowance(Arc<AllowanceState>);

#[derive(Debug)]
struct AllowanceState {
    tokens: AtomicU64,
    last: AtomicBool,
}

impl Allowance {
    /// Without a limit.
    pub fn unlimited() -> Self {
        Allowance(Arc::new(AllowanceState {
            tokens: AtomicU64::new(u64::MAX),
            last: AtomicBool::new(true),
        }))
    }

    /// A first slice; more may come.
    pub fn rolling(tokens: u64) -> Self {
        Allowance(Arc::new(AllowanceState {
            tokens: AtomicU64::new(tokens),
            last: AtomicBool::new(false),
        }))
    }

    pub fn raise(&self, tokens: u64) {
        self.0.tokens.fetch_add(tokens, Ordering::Release);
    }

    /// There won't be more.
    pub fn close(&self) {
        self.0.last.store(true, Ordering::Release);
    }

    pub fn tokens(&self) -> u64 {
        self.0.tokens.load(Ordering::Acquire)
    }

    pub fn is_closed(&self) -> bool {
        self.0.last.load(Ordering::Acquire)
    }

    /// Whether all of it is generated, and no more will come. Whoever pays raises first and closes
    /// then; looked at in this order, the last raise can't be missed.
    pub fn is_used_up(&self, generated: u64) -> bool {
        self.is_closed() && self.tokens() <= generated
    }
}
