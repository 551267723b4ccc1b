//! What an output must look like, token by token: JSON, a JSON Schema, or any grammar.
//!
//! [`Constraints::compile`] makes a [`Constraint`] of a [`Grammar`], off the engine's thread. Each choice
//! walks through it by its tokens ([`walk`]): after every one a worker ([`pool`]) computes which tokens
//! may come next, while the model computes their logits. The grammars and masks are `llguidance`'s.

mod pool;
mod schema;
#[cfg(test)]
mod tests;
mod vocabulary;
mod walk;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::SimpleVob;
use llguidance::{ParserFactory, TokenParser};
use serde_json::{Value, json};

use crate::model::Tokenizer;
use crate::request::Invalid;

pub use crate::constraint::pool::Pool;
pub use crate::constraint::schema::{
    LENGTH_MAX, MULTIPLES_MAX, PATTERNS_JOINED_MAX, PROPERTIES_MAX, SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX, SCHEMA_ITEMS_MAX,
};
pub use crate::constraint::walk::{Failure, MaskComputer, MaskJob, Next, Walk};

/// Where a schema comes from; whoever takes it from elsewhere changes the `param` of an [`Invalid`].
pub const SCHEMA_PARAM: &str = "response_format.json_schema.schema";
/// Bytes of a grammar's text, with the schemas in it.
pub const GRAMMAR_BYTES_MAX: usize = 512 * 1024;
/// Grammars of an engine that are kept compiled.
pub const GRAMMARS_KEPT: usize = 16;
/// Work that the regular expressions of a grammar may take before the first token: some 20 ms.
const COMPILE_FUEL: u64 = 1_000_000;
/// Symbols of a compiled grammar.
const SYMBOLS_MAX: usize = 100_000;
/// Work for one mask: some 15 ms.
const MASK_FUEL: u64 = 200_000;
/// States of a grammar's lexer, which cost up to 2 kB each and are a request's own.
const STATES_MAX: usize = 20_000;
/// Compiling follows the nesting of schemas and patterns by recursion.
const COMPILE_STACK_BYTES: usize = 32 * 1024 * 1024;
/// Characters of a reason that a caller is told.
const REASON_CHARS_MAX: usize = 300;

/// What an output must look like. Whether it makes sense, [`Constraints::compile`] says.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Grammar(Form);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Form {
    /// A schema's text.
    Json(String),
    Lark(String),
}

impl Grammar {
    /// Any JSON object.
    pub fn json_object() -> Self {
        Grammar::json_schema(&json!({ "type": "object" }))
    }

    /// JSON that this JSON Schema allows.
    pub fn json_schema(schema: &Value) -> Self {
        Grammar(Form::Json(schema.to_string()))
    }

    /// A grammar in llguidance's variant of Lark. JSON in it comes from [`json_rule`], and a special
    /// token is written by its number, `<[2]>`, whatever its name.
    pub fn lark(text: String) -> Self {
        Grammar(Form::Lark(text))
    }

    fn bytes(&self) -> usize {
        match &self.0 {
            Form::Json(text) | Form::Lark(text) => text.len(),
        }
    }
}

/// A caller's schema as the right side of a Lark rule: `%json {…}`, checked and as strict as a
/// [`Grammar::json_schema`].
pub fn json_rule(schema: &Value) -> Result<String, Invalid> {
    let strict = schema::strict(schema).map_err(invalid)?;
    Ok(format!("%json {strict}"))
}

/// Compiles grammars for one model's vocabulary, which is read once: by
/// [`Constraints::read_vocabulary`], or else when the first grammar comes.
pub struct Constraints {
    tokenizer: Arc<dyn Tokenizer>,
    compiler: OnceLock<Result<Compiler, String>>,
    /// Newest last.
    kept: Mutex<VecDeque<(Grammar, Constraint)>>,
}

struct Compiler {
    factory: ParserFactory,
    /// Tokens that end a text.
    ends: Arc<SimpleVob>,
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

    /// Takes milliseconds: nothing for async threads.
    pub fn compile(&self, grammar: &Grammar) -> Result<Constraint, Invalid> {
        if grammar.bytes() > GRAMMAR_BYTES_MAX {
            return Err(invalid("the grammar is too long"));
        }
        let known = self
            .kept()
            .iter()
            .find(|(kept, _)| kept == grammar)
            .cloned();
        if let Some((grammar, constraint)) = known {
            self.keep(grammar, constraint.clone());
            return Ok(constraint.alone());
        }
        let compiler = self.compiler()?;
        let constraint = on_large_stack(|| compiler.compile(grammar))?;
        self.keep(grammar.clone(), constraint.clone());
        Ok(constraint.alone())
    }

    /// The first of some schemas that is refused by itself: whose fault it is that a grammar made of
    /// all of them is. Together they cost no more than that grammar may.
    pub fn first_refused(&self, schemas: &[Value]) -> Option<(usize, Invalid)> {
        let compiler = self.compiler().ok()?;
        let refused = |schema| compiler.compile(&Grammar::json_schema(schema)).err();
        let first = on_large_stack(|| {
            let mut each = schemas.iter().enumerate();
            Ok(each.find_map(|(i, schema)| Some((i, refused(schema)?))))
        });
        first.unwrap_or_default()
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
            invalid("the model's vocabulary does not allow structured outputs")
        })
    }

    /// Puts a grammar behind all others, and lets go of the one that wasn't asked for for longest.
    fn keep(&self, grammar: Grammar, constraint: Constraint) {
        let mut kept = self.kept();
        kept.retain(|(other, _)| *other != grammar);
        kept.push_back((grammar, constraint));
        if kept.len() > GRAMMARS_KEPT {
            kept.pop_front();
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(Grammar, Constraint)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Constraints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Constraints").finish_non_exhaustive()
    }
}

impl Compiler {
    fn new(tokenizer: &dyn Tokenizer) -> Result<Self, String> {
        let (mut factory, ends) = vocabulary::factory(tokenizer)?;
        // What it has to say would go to the standard error.
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            initial_lexer_fuel: COMPILE_FUEL,
            step_lexer_fuel: MASK_FUEL,
            max_lexer_states: STATES_MAX,
            max_grammar_size: SYMBOLS_MAX,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Compiler {
            factory,
            ends: Arc::new(ends),
        })
    }

    fn compile(&self, grammar: &Grammar) -> Result<Constraint, Invalid> {
        let grammar = match &grammar.0 {
            Form::Json(text) => {
                let schema =
                    serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
                TopLevelGrammar::from_json_schema(schema::strict(&schema).map_err(invalid)?)
            }
            Form::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        let mut parser = (self.factory.create_parser(grammar)).map_err(|error| refused(&error))?;
        parser.start_without_prompt();
        let ignored = parser.grammar_warnings();
        if !ignored.is_empty() {
            return Err(invalid(ignored.join("; ")));
        }
        let first = parser.compute_mask().map_err(|error| refused(&error))?;
        if walk::is_only_ends(&first, &self.ends) {
            return Err(invalid("nothing but an empty text satisfies the grammar"));
        }
        Ok(Constraint(Arc::new(Prototype {
            parser,
            first,
            ends: Arc::clone(&self.ends),
        })))
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
}

impl Constraint {
    /// One that shares nothing that changes: what breaks in one request stays there.
    fn alone(&self) -> Self {
        Constraint(Arc::new(Prototype {
            parser: self.0.parser.deep_clone(),
            first: self.0.first.clone(),
            ends: Arc::clone(&self.0.ends),
        }))
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

fn invalid(why: impl AsRef<str>) -> Invalid {
    Invalid::new(SCHEMA_PARAM, shortened(why.as_ref()))
}

/// llguidance's reason in a form for callers.
fn refused(error: &impl fmt::Display) -> Invalid {
    let text = error.to_string();
    if text.starts_with("panic") {
        tracing::error!("llguidance panicked: {text}");
        return invalid("the schema can't be enforced");
    }
    if text.starts_with("oneOf constraints") {
        return invalid("oneOf is supported only where no value can match two of its branches");
    }
    if text.starts_with("Unable to determine if regex is empty") {
        return invalid(
            "a pattern is too complex to be combined with its format, lengths or others",
        );
    }
    invalid(text)
}

fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, Invalid> + Send) -> Result<T, Invalid> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("weir-grammar".to_owned())
            .stack_size(COMPILE_STACK_BYTES)
            .spawn_scoped(scope, work);
        let result = thread.map(|thread| thread.join());
        match result {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(invalid("the schema can't be enforced")),
            Err(error) => {
                tracing::error!("no thread to compile a grammar on: {error}");
                Err(invalid("the schema can't be enforced now"))
            }
        }
    })
}
