//! The way of one choice through a grammar: which tokens may come next, known some time after the last.
//!
//! The engine's thread samples with what is there and never waits: [`Walk::ahead`] says if a mask isn't
//! computed yet. The computing is a [`MaskJob`], for whoever [`MaskComputer`] is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use llguidance::TokenParser;
use llguidance::api::StopReason;
use llguidance::toktrie::SimpleVob;

use crate::Token;
use crate::constraint::{Constraint, Prototype};

/// Computes masks, at once or later, here or elsewhere.
pub trait MaskComputer: Send {
    /// Must not wait. There are never more jobs than choices.
    fn compute(&mut self, job: MaskJob);
}

/// What may come next.
#[derive(Debug, PartialEq)]
pub enum Next<'a> {
    /// The tokens whose bit is set.
    Allowed(&'a [u32]),
    /// Nothing: the text is complete.
    End,
    /// Not known yet.
    Pending,
    Failed(Failure),
}

/// Why nobody knows what may come next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The grammar takes more work than a token is worth.
    TooComplex,
    /// A bug, for the log.
    Broken(String),
}

pub struct Walk(State);

enum State {
    At(Place),
    Computing(Arc<Slot>),
    Lost(Failure),
}

/// Where a choice is in the grammar.
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

/// Where the result of a job is put; whoever waits for it holds it.
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

    /// The choice has got a token that was allowed.
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

/// One step of a walk: takes a token and computes what may follow. Dropping it fails the walk.
pub struct MaskJob {
    from: Place,
    token: Token,
    slot: Weak<Slot>,
}

impl MaskJob {
    /// Does nothing if nobody waits for it any more. Doesn't panic.
    pub fn run(mut self) {
        let Some(slot) = self.slot.upgrade() else {
            return;
        };
        let from = std::mem::replace(&mut self.from, Place::End);
        let token = self.token;
        let result = catch_unwind(AssertUnwindSafe(|| from.then(token)));
        slot.put(result.unwrap_or_else(|_| Err(Failure::Broken("a mask's panic".to_owned()))));
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
    /// The first result counts.
    fn put(&self, result: Result<Place, Failure>) {
        self.lock().get_or_insert(result);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Result<Place, Failure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether no token but one that ends the text may come.
pub(super) fn is_only_ends(mask: &SimpleVob, ends: &SimpleVob) -> bool {
    let words = mask.as_slice().iter().zip(ends.as_slice());
    words.into_iter().all(|(mask, ends)| mask & !ends == 0)
}

fn failure(parser: &TokenParser, error: &impl std::fmt::Display) -> Failure {
    match parser.stop_reason() {
        StopReason::LexerTooComplex | StopReason::ParserTooComplex => Failure::TooComplex,
        reason => Failure::Broken(format!("{reason}: {error}")),
    }
}
