//! What an output must look like, token by token: JSON, a JSON Schema, or any grammar.
//!
//! [`Constraints::compile`] makes a [`Constraint`] of a [`Grammar`], off the engine's thread. Schemas become rules by a front end
//! of our own ([`schema`]), whose work, memory and depth are bounded; the engine of grammars and masks is `llguidance`'s. Each
//! choice walks through a constraint by its tokens ([`walk`]): after every one a worker computes which tokens may come
//! next, while the model computes their logits.

mod admission;
mod budget;
mod compile;
mod decimal;
mod ebnf;
mod emit;
mod formats;
mod grammar;
mod json;
mod lark;
mod numbers;
mod pattern;
mod rules;
mod schema;
#[cfg(test)]
mod tests;
mod vocabulary;
mod walk;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llguidance::TokenParser;
use llguidance::toktrie::SimpleVob;

pub use self::admission::{
    Admission, AdmissionOptions, COMPILE_BURST, COMPILE_PER_SECOND, COMPILES_WAITING_MAX,
    CompilePermit, NotAdmitted,
};
pub use self::budget::{COMPILE_STEPS_MAX, Cancel};
use self::compile::Compiler;
pub use self::compile::{CompileError, Compiled};
pub use self::decimal::NUMBER_DIGITS_MAX;
pub use self::ebnf::EBNF_BYTES_MAX;
pub use self::formats::FORMATS;
pub(crate) use self::grammar::Part;
pub use self::grammar::{Grammar, SCHEMA_PARAM, Schema};
pub use self::lark::LARK_BYTES_MAX;
pub use self::pattern::PATTERN_BYTES_MAX;
pub use self::rules::SYMBOLS_MAX;
pub use self::schema::{
    BRANCHES_MAX, LENGTH_MAX, MULTIPLES_MAX, PROPERTIES_MAX, RELAXED_MAX, Relaxed,
    SCHEMA_BYTES_MAX, SCHEMA_ITEMS_MAX, UNIQUE_VALUES_MAX,
};
pub use self::walk::{Failure, MaskComputer, MaskJob, Next, Walk};
use crate::model::Tokenizer;
use crate::request::Invalid;

/// Bytes of a grammar's text, with the schemas in it.
pub const GRAMMAR_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Grammars of an engine that are kept compiled.
pub const GRAMMARS_KEPT: usize = 16;
/// The engine's compiler of Lark follows rules and brackets by recursion; all else is done without.
const COMPILE_STACK_BYTES: usize = 32 * 1024 * 1024;

/// Compiles grammars for one model's vocabulary, which is read once: by
/// [`Constraints::read_vocabulary`], or else when the first grammar comes.
pub struct Constraints {
    tokenizer: Arc<dyn Tokenizer>,
    compiler: OnceLock<Result<Compiler, String>>,
    /// Newest last.
    kept: Mutex<VecDeque<(Grammar, Compiled)>>,
}

impl Constraints {
    pub fn new(tokenizer: Arc<dyn Tokenizer>) -> Self {
        Constraints {
            tokenizer,
            compiler: OnceLock::new(),
            kept: Mutex::new(VecDeque::new()),
        }
    }

    /// Takes up to some seconds for a large vocabulary. Grammars that come meanwhile wait for it.
    pub fn read_vocabulary(&self) {
        // What is wrong with it, the first grammar says.
        let _ = self.compiler();
    }

    /// A grammar that is kept from before, which costs next to nothing.
    pub fn kept(&self, grammar: &Grammar) -> Option<Compiled> {
        let known = self
            .lock()
            .iter()
            .find(|(kept, _)| kept == grammar)
            .cloned();
        let (grammar, compiled) = known?;
        self.keep(grammar, compiled.clone());
        Some(Compiled {
            constraint: compiled.constraint.alone(),
            ..compiled
        })
    }

    /// Takes milliseconds for what is ordinary, and a second or two for what is as large as is allowed: nothing for async
    /// threads. It ends soon after it is cancelled.
    pub fn compile(&self, grammar: &Grammar, cancel: &Cancel) -> Result<Compiled, CompileError> {
        if let Some(kept) = self.kept(grammar) {
            return Ok(kept);
        }
        if grammar.0.bytes() > GRAMMAR_BYTES_MAX {
            return Err(
                Invalid::new("tools", "the schemas of the request are too large together").into(),
            );
        }
        let compiler = self.compiler()?;
        let compiled = on_large_stack(|| compiler.compile(grammar, cancel))?;
        self.keep(grammar.clone(), compiled.clone());
        Ok(Compiled {
            constraint: compiled.constraint.alone(),
            ..compiled
        })
    }

    #[cfg(test)]
    pub(crate) fn has_vocabulary(&self) -> bool {
        self.compiler.get().is_some()
    }

    fn compiler(&self) -> Result<&Compiler, Invalid> {
        let compiler = self
            .compiler
            .get_or_init(|| Compiler::new(&*self.tokenizer));
        compiler.as_ref().map_err(|why| {
            tracing::error!("the vocabulary can't be constrained: {why}");
            Invalid::new(
                "response_format",
                "the model's vocabulary does not allow structured outputs",
            )
        })
    }

    /// Puts a grammar behind all others, and lets go of the one that wasn't asked for for longest.
    fn keep(&self, grammar: Grammar, compiled: Compiled) {
        let mut kept = self.lock();
        kept.retain(|(other, _)| *other != grammar);
        kept.push_back((grammar, compiled));
        if kept.len() > GRAMMARS_KEPT {
            kept.pop_front();
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Grammar, Compiled)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraints").finish_non_exhaustive()
    }
}

/// A compiled grammar at its beginning. Copies share what they learn of its lexer on the way.
#[derive(Clone)]
pub struct Constraint(Arc<Prototype>);

struct Prototype {
    parser: TokenParser,
    /// The tokens that may come first.
    first: SimpleVob,
    ends: Arc<SimpleVob>,
    param: Box<str>,
}

impl Constraint {
    /// One that shares nothing that changes: what breaks in one request stays there.
    fn alone(&self) -> Self {
        Constraint(Arc::new(Prototype {
            parser: self.0.parser.deep_clone(),
            first: self.0.first.clone(),
            ends: Arc::clone(&self.0.ends),
            param: self.0.param.clone(),
        }))
    }

    /// The field of a request that asks for it.
    pub(crate) fn param(&self) -> &str {
        &self.0.param
    }

    /// The way of one choice through the grammar.
    pub fn begin(&self) -> Walk {
        Walk::new(self.clone())
    }
}

impl fmt::Debug for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraint").finish_non_exhaustive()
    }
}

fn on_large_stack<T: Send>(
    work: impl FnOnce() -> Result<T, CompileError> + Send,
) -> Result<T, CompileError> {
    let refused = |why: &str| Err(Invalid::new("response_format", why).into());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("weir-grammar".to_owned())
            .stack_size(COMPILE_STACK_BYTES)
            .spawn_scoped(scope, work);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => {
                tracing::error!("compiling a grammar ended in a panic");
                refused("the schema can't be enforced")
            }
            Err(error) => {
                tracing::error!("no thread to compile a grammar on: {error}");
                refused("the schema can't be enforced now")
            }
        }
    })
}
