//! Structured outputs: limits generated text, token by token, to JSON, a JSON Schema, a regular expression or a grammar.
//!
//! [`Constraints::compile`] turns a [`Grammar`] into a [`Constraint`], outside the engine thread. A front end of our own
//! ([`schema`]) turns a JSON Schema into grammar rules with bounded work, memory and recursion depth; `llguidance` parses
//! the grammar and computes token masks. Each choice has its own position in a constraint ([`walk`]): after each token a
//! worker thread computes the mask of the next token, while the model computes its logits.

mod admission;
mod budget;
mod compile;
mod decimal;
mod ebnf;
mod ecmascript;
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
mod text_set;
mod vocabulary;
mod walk;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llguidance::TokenParser;
use llguidance::toktrie::SimpleVob;

pub use self::admission::{
    Admission, AdmissionOptions, COMPILE_BURST, COMPILE_PER_SECOND, COMPILES_WAITING_MAX,
    CompilePermit, MASK_TIME_FREE, MaskTimeIsSpent, NotAdmitted,
};
pub use self::budget::{COMPILE_STEPS_MAX, Cancel};
use self::compile::Compiler;
pub use self::compile::{CompileError, Compiled};
pub use self::decimal::NUMBER_DIGITS_MAX;
pub use self::ebnf::EBNF_BYTES_MAX;
pub use self::formats::FORMATS;
pub use self::grammar::Grammar;
pub(crate) use self::grammar::Part;
pub use self::lark::LARK_BYTES_MAX;
pub use self::pattern::PATTERN_BYTES_MAX;
pub use self::rules::SYMBOLS_MAX;
pub use self::schema::{
    BRANCHES_MAX, LENGTH_MAX, MULTIPLES_MAX, PROPERTIES_MAX, RELAXED_MAX, SCHEMA_BYTES_MAX,
    SCHEMA_ITEMS_MAX, UNIQUE_VALUES_MAX,
};
pub use self::walk::{ComputedMask, Failure, MaskComputer, MaskJob, MaskStop, Next, Walk};
use crate::model::Tokenizer;
use weir_engine::request::Invalid;

/// Limit on the bytes of a grammar's text, including the schemas in it.
pub const GRAMMAR_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Compiled grammars that the cache of one engine holds.
pub const GRAMMARS_KEPT: usize = 16;
/// Stack of the thread that compiles grammars. llguidance's compiler of Lark recurses over rules and brackets; everything
/// else that depends on a caller's input works without recursion.
const COMPILE_STACK_BYTES: usize = 32 * 1024 * 1024;

/// Compiles grammars for one model's vocabulary, and caches them. The vocabulary is read once: by
/// [`Constraints::read_vocabulary`], or else by the first compilation.
pub struct Constraints {
    tokenizer: Arc<dyn Tokenizer>,
    compiler: OnceLock<Result<Compiler, String>>,
    /// The cache of compiled grammars, the least recently used first.
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

    /// Reads the vocabulary ahead of the first request. A large vocabulary takes up to some seconds; a compilation that
    /// starts meanwhile waits for it.
    pub fn read_vocabulary(&self) {
        // An error isn't reported here: every compilation reports it.
        let _ = self.compiler();
    }

    /// Returns a compiled grammar from the cache, at almost no cost; `None` if it isn't there.
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

    /// Compiles a grammar, or takes it from the cache. An ordinary grammar takes milliseconds, the largest that is
    /// allowed a second or two: don't call this on an async thread. A compilation ends soon after `cancel` is set.
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

    /// Adds a grammar to the cache as the most recently used one. A full cache drops the least recently used grammar.
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

/// A compiled grammar, before its first token. Clones share the lexer states that are computed during generation.
#[derive(Clone)]
pub struct Constraint(Arc<Prototype>);

struct Prototype {
    parser: TokenParser,
    /// The mask of tokens that may come first.
    first: SimpleVob,
    ends: Arc<SimpleVob>,
    param: Box<str>,
}

impl Constraint {
    /// Returns a copy without shared mutable state, so that a parser that breaks in one request doesn't affect others.
    fn alone(&self) -> Self {
        Constraint(Arc::new(Prototype {
            parser: self.0.parser.deep_clone(),
            first: self.0.first.clone(),
            ends: Arc::clone(&self.0.ends),
            param: self.0.param.clone(),
        }))
    }

    /// The request field that asked for this constraint.
    pub(crate) fn param(&self) -> &str {
        &self.0.param
    }

    /// Starts a choice at the beginning of the grammar.
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
