//! The position of one choice in its grammar. After each token, a job computes which tokens may come next.
//!
//! The engine thread never waits for a mask: [`Walk::ahead`] returns [`Next::Pending`] until the mask is computed. A
//! [`MaskJob`] computes the mask; a [`MaskComputer`] decides when and on which thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use llguidance::api::StopReason;
use llguidance::toktrie::SimpleVob;
use llguidance::{CancellationHandle, TokenParser};
use weir_engine::Token;

use crate::constraint::{Constraint, Prototype};

/// Runs [`MaskJob`]s: at once or later, on this thread or on another.
pub trait MaskComputer: Send {
    /// Runs a job or queues it. Must not block. There is never more than one job per choice.
    fn compute(&mut self, job: MaskJob);
}

/// Which tokens may come next.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// A bit mask over token ids: a set bit allows the token.
    Allowed(&'a [u32]),
    /// No token: the text is complete.
    End,
    /// The mask isn't computed yet.
    Pending,
    Failed(Failure),
}

/// Why the next tokens can't be determined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// Computing the mask takes more work than is allowed for one token.
    TooComplex,
    /// An internal error, described for the log.
    Broken(String),
}

pub struct Walk(State);

enum State {
    At(Place),
    Computing(Arc<Slot>),
    Lost(Failure),
}

/// A choice's position in the grammar.
enum Place {
    Beginning(Constraint),
    Middle(Box<Middle>),
    End,
}

struct Middle {
    parser: TokenParser,
    mask: SimpleVob,
    grammar: Arc<Prototype>,
}

/// Receives the result of a job. The [`Walk`] owns it; the job has a weak reference.
#[derive(Default)]
struct Slot(Mutex<Option<Result<Place, Failure>>>);

impl Walk {
    pub(super) fn new(constraint: Constraint) -> Self {
        Walk(State::At(Place::Beginning(constraint)))
    }

    pub fn ahead(&mut self) -> Next<'_> {
        let result = match &self.0 {
            State::Computing(slot) => slot.lock().take(),
            State::At(_) | State::Lost(_) => None,
        };
        match result {
            None => {}
            Some(Ok(place)) => self.0 = State::At(place),
            Some(Err(failure)) => self.0 = State::Lost(failure),
        }
        match &self.0 {
            State::At(Place::Beginning(constraint)) => Next::Allowed(constraint.0.first.as_slice()),
            State::At(Place::Middle(middle)) => Next::Allowed(middle.mask.as_slice()),
            State::At(Place::End) => Next::End,
            State::Computing(_) => Next::Pending,
            State::Lost(failure) => Next::Failed(failure.clone()),
        }
    }

    /// Consumes the choice's next token and passes the job that computes the following mask to `masks`. The walk fails if
    /// [`Walk::ahead`] hasn't returned a mask before.
    pub fn advance(&mut self, token: Token, masks: &mut dyn MaskComputer) {
        let slot = Arc::new(Slot::default());
        let job = |from| MaskJob {
            from,
            token,
            slot: Arc::downgrade(&slot),
        };
        match std::mem::replace(&mut self.0, State::Computing(Arc::clone(&slot))) {
            State::At(from @ (Place::Beginning(_) | Place::Middle(_))) => masks.compute(job(from)),
            State::At(Place::End) | State::Computing(_) | State::Lost(_) => {
                self.0 = State::Lost(Failure::Broken("a token that was not allowed".to_owned()));
            }
        }
    }
}

impl std::fmt::Debug for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Walk").finish_non_exhaustive()
    }
}

/// A job that consumes one token and computes the mask of the next. If it is dropped before it has run, the walk fails.
pub struct MaskJob {
    from: Place,
    token: Token,
    slot: Weak<Slot>,
}

/// Ends the computing of a mask from another thread; its choice fails as too complex.
#[derive(Debug, Clone)]
pub struct MaskStop(CancellationHandle);

impl MaskStop {
    pub fn stop(&self) {
        self.0.cancel();
    }
}

impl MaskJob {
    /// How to end the job once it is computed; nothing where there is nothing to compute.
    pub fn stop(&mut self) -> Option<MaskStop> {
        if let Place::Beginning(Constraint(grammar)) = &self.from {
            self.from = Place::Middle(Box::new(Middle {
                parser: grammar.parser.clone(),
                mask: grammar.first.clone(),
                grammar: Arc::clone(grammar),
            }));
        }
        match &mut self.from {
            Place::Middle(middle) => Some(MaskStop(middle.parser.enable_cancellation())),
            Place::Beginning(_) | Place::End => None,
        }
    }

    /// Computes the mask and hands it over. Doesn't panic.
    pub fn run(self) {
        if let Some(computed) = self.compute() {
            computed.hand_over();
        }
    }

    /// Computes the mask, unless nobody waits for it any more. Doesn't panic.
    pub fn compute(mut self) -> Option<ComputedMask> {
        let slot = self.slot.upgrade()?;
        let from = std::mem::replace(&mut self.from, Place::End);
        let token = self.token;
        let result = catch_unwind(AssertUnwindSafe(|| from.then(token)));
        let result = result.unwrap_or_else(|_| Err(Failure::Broken("a mask's panic".to_owned())));
        // The slot gets its result later, not the one of a job that is dropped.
        self.slot = Weak::new();
        Some(ComputedMask { slot, result })
    }
}

/// A mask that is computed, and that its choice doesn't have yet.
pub struct ComputedMask {
    slot: Arc<Slot>,
    result: Result<Place, Failure>,
}

impl ComputedMask {
    pub fn hand_over(self) {
        self.slot.put(self.result);
    }

    /// Fails the choice: its grammar takes more time than its account has.
    pub fn refuse(self) {
        self.slot.put(Err(Failure::TooComplex));
    }
}

impl std::fmt::Debug for ComputedMask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ComputedMask").finish_non_exhaustive()
    }
}

impl Drop for MaskJob {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.upgrade() {
            slot.put(Err(Failure::Broken("a mask was given up".to_owned())));
        }
    }
}

impl std::fmt::Debug for MaskJob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MaskJob")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Place {
    fn then(self, token: Token) -> Result<Place, Failure> {
        let (mut parser, grammar) = match self {
            Place::Beginning(Constraint(grammar)) => (grammar.parser.clone(), grammar),
            Place::Middle(middle) => (middle.parser, middle.grammar),
            Place::End => return Err(Failure::Broken("nothing follows the end".to_owned())),
        };
        let ended = match parser.consume_token(token) {
            Ok(_) => parser.check_stop(),
            Err(error) => Err(error),
        };
        match ended {
            Ok(true) => return Ok(Place::End),
            Ok(false) => {}
            Err(error) => return Err(failure(&parser, &error)),
        }
        match parser.compute_mask() {
            Ok(mask) if is_only_ends(&mask, &grammar.ends) => Ok(Place::End),
            Ok(mask) => Ok(Place::Middle(Box::new(Middle {
                parser,
                mask,
                grammar,
            }))),
            Err(error) => Err(failure(&parser, &error)),
        }
    }
}

impl Slot {
    /// Stores the result, unless there is one already.
    fn put(&self, result: Result<Place, Failure>) {
        self.lock().get_or_insert(result);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Result<Place, Failure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the mask allows no tokens except those that end the text.
pub(super) fn is_only_ends(mask: &SimpleVob, ends: &SimpleVob) -> bool {
    let words = mask.as_slice().iter().zip(ends.as_slice());
    words.into_iter().all(|(mask, ends)| mask & !ends == 0)
}

fn failure(parser: &TokenParser, error: &impl std::fmt::Display) -> Failure {
    match parser.stop_reason() {
        StopReason::LexerTooComplex | StopReason::ParserTooComplex | StopReason::Cancelled => {
            Failure::TooComplex
        }
        reason => Failure::Broken(format!("{reason}: {error}")),
    }
}
