//! Compiles a [`Grammar`] to a parser before its first token, with a bounded amount of work.

use std::sync::Arc;

use llguidance::ParserFactory;
use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::derivre::RegexAst;
use llguidance::toktrie::SimpleVob;
use weir_engine::Relaxed;
use weir_engine::request::{Invalid, Schema};

use super::budget::{Budget, COMPILE_STEPS_MAX, Cancel, Stopped};
use super::emit::{self, COMPILE_FUEL, EmitError};
use super::grammar::{Grammar, Part};
use super::pattern::Pattern;
use super::rules::{RuleId, Rules, SYMBOLS_MAX, Spacing, Symbol, Terminal};
use super::schema::{self, Coarse, Failure};
use super::{Constraint, Prototype, ebnf, lark, vocabulary, walk};
use crate::model::Tokenizer;

/// llguidance's fuel for one mask: about 15 ms.
const MASK_FUEL: u64 = 200_000;
/// Limit on the lexer states of one request's grammar. A state takes up to 2 kB.
const STATES_MAX: usize = 20_000;
/// Limit on the items in one row of llguidance's Earley parser: the alternatives with which a text may continue.
const ROW_ITEMS_MAX: usize = 4_000;

/// A compiled grammar, and the places of its schemas that aren't enforced.
#[derive(Debug, Clone)]
pub struct Compiled {
    pub constraint: Constraint,
    /// The places, by JSON pointers from the root of the request, and why they aren't enforced.
    pub relaxed: Arc<[Relaxed]>,
}

/// Why a grammar isn't compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("nobody waits for the grammar any more")]
    Cancelled,
}

pub(super) struct Compiler {
    factory: ParserFactory,
    /// Tokens that end a text.
    ends: Arc<SimpleVob>,
}

/// Why one attempt failed.
enum Attempt {
    Refused(Invalid),
    Cancelled,
    /// Nothing is left of what is written under its schemas, but they may allow something.
    TooNarrow(Invalid),
    /// May succeed if less of its schemas is enforced.
    TooComplex,
}

impl Compiler {
    pub(super) fn new(tokenizer: &dyn Tokenizer) -> Result<Self, String> {
        let (mut factory, ends) = vocabulary::factory(tokenizer)?;
        // llguidance prints its messages to standard error.
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            initial_lexer_fuel: COMPILE_FUEL,
            step_lexer_fuel: MASK_FUEL,
            max_lexer_states: STATES_MAX,
            max_grammar_size: SYMBOLS_MAX,
            max_items_in_row: ROW_ITEMS_MAX,
            // This option walks the whole vocabulary for each large expression.
            precompute_large_lexemes: false,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Compiler {
            factory,
            ends: Arc::new(ends),
        })
    }

    /// Compiles a grammar. If it is too complex, schemas that aren't strict are enforced less exactly, in two more
    /// attempts.
    pub(super) fn compile(
        &self,
        grammar: &Grammar,
        cancel: &Cancel,
    ) -> Result<Compiled, CompileError> {
        let mut budget = Budget::new(COMPILE_STEPS_MAX, cancel.clone());
        let mut coarse = Coarse::Exact;
        loop {
            coarse = match (self.attempt(grammar, coarse, &mut budget), coarse) {
                (Ok(compiled), _) => return Ok(compiled),
                (Err(Attempt::Cancelled), _) => return Err(CompileError::Cancelled),
                (Err(Attempt::TooNarrow(_)), Coarse::Exact) if grammar.0.may_relax() => {
                    Coarse::Wide
                }
                (Err(Attempt::Refused(invalid) | Attempt::TooNarrow(invalid)), _) => {
                    return Err(invalid.into());
                }
                (Err(Attempt::TooComplex), Coarse::Exact | Coarse::Wide)
                    if grammar.0.may_relax() =>
                {
                    Coarse::WithoutPatterns
                }
                (Err(Attempt::TooComplex), Coarse::WithoutPatterns) => Coarse::Open,
                (Err(Attempt::TooComplex), _) => {
                    let why = "it is too complex to be enforced";
                    return Err(refused(grammar.param(), why).into());
                }
            };
            budget.refill(COMPILE_STEPS_MAX / 4);
        }
    }

    fn attempt(
        &self,
        grammar: &Grammar,
        coarse: Coarse,
        budget: &mut Budget,
    ) -> Result<Compiled, Attempt> {
        let mut build = Build {
            rules: Rules::new(),
            relaxed: Vec::new(),
            narrowed: None,
            coarse,
            budget,
        };
        let init = match &grammar.0 {
            Part::Grammar(text, param) if !text.contains("::=") => {
                let text =
                    lark::checked(text).map_err(|why| Attempt::Refused(refused(param, why)))?;
                GrammarInit::Serialized(TopLevelGrammar::from_lark(text))
            }
            part => {
                let start = build.start(part)?;
                if !build.rules.prune(start) {
                    if let Some(narrowed) = build.narrowed {
                        return Err(Attempt::TooNarrow(narrowed));
                    }
                    let params = part.params();
                    let param = params.first().copied().unwrap_or("tools");
                    return Err(Attempt::Refused(refused(param, "nothing satisfies it")));
                }
                emit::emit(&build.rules, start, build.budget)?
            }
        };
        build.budget.check()?;
        let relaxed = build.relaxed;
        let first_param = || {
            grammar
                .0
                .params()
                .first()
                .copied()
                .unwrap_or("tools")
                .to_owned()
        };
        let mut parser = (self.factory.create_parser_from_init_default(init))
            .map_err(|error| self.engine_refused(&grammar.0, &error))?;
        parser.start_without_prompt();
        let first = parser.compute_mask().map_err(|_| Attempt::TooComplex)?;
        if walk::is_only_ends(&first, &self.ends) {
            let why = "nothing but an empty text satisfies it";
            return Err(Attempt::Refused(refused(&first_param(), why)));
        }
        Ok(Compiled {
            constraint: Constraint(Arc::new(Prototype {
                parser,
                first,
                ends: Arc::clone(&self.ends),
                param: grammar.param().into(),
            })),
            relaxed: relaxed.into(),
        })
    }

    /// Logs llguidance's error. A caller gets to see it only for a grammar in Lark's notation.
    fn engine_refused(&self, part: &Part, error: &impl std::fmt::Display) -> Attempt {
        let text = error.to_string();
        let line = text.lines().next().unwrap_or_default();
        if line.starts_with("panic") {
            tracing::error!("the grammar engine panicked: {line}");
        } else {
            tracing::debug!("the grammar engine refuses: {line}");
        }
        match part {
            Part::Grammar(text, param) if !text.contains("::=") => {
                Attempt::Refused(refused(param, &lark::reason(line)))
            }
            _ => Attempt::TooComplex,
        }
    }
}

impl From<Stopped> for Attempt {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::Cancelled => Attempt::Cancelled,
            Stopped::TooMuchWork => Attempt::TooComplex,
        }
    }
}

impl From<EmitError> for Attempt {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::Stopped(stopped) => stopped.into(),
            EmitError::TooComplex => Attempt::TooComplex,
        }
    }
}

/// A grammar's rules under construction.
struct Build<'a> {
    rules: Rules,
    relaxed: Vec<Relaxed>,
    /// The first place where less is written than is allowed.
    narrowed: Option<Invalid>,
    coarse: Coarse,
    budget: &'a mut Budget,
}

impl Build<'_> {
    fn start(&mut self, part: &Part) -> Result<RuleId, Attempt> {
        if let Part::Json(_) = part
            && let Symbol::Rule(rule) = self.symbol(part)?
        {
            return Ok(rule);
        }
        let symbol = self.symbol(part)?;
        match self.rules.rule(vec![vec![symbol]], Spacing::Tight) {
            Symbol::Rule(rule) => Ok(rule),
            Symbol::Terminal(_) => Err(Attempt::TooComplex),
        }
    }

    /// The recursion is bounded: this crate, not a caller, nests the parts.
    fn symbol(&mut self, part: &Part) -> Result<Symbol, Attempt> {
        let tight = Spacing::Tight;
        Ok(match part {
            Part::Literal(text) => self.rules.literal(text, tight),
            Part::Token(token) => self.rules.terminal(Terminal::Token(*token), tight),
            Part::Regex(regex) => {
                self.rules
                    .named_regex(regex, || RegexAst::Regex((*regex).to_owned()), tight)
            }
            Part::Lazy(regex) => self
                .rules
                .terminal(Terminal::Lazy(RegexAst::Regex(regex.clone())), tight),
            Part::Sequence(parts) => {
                let parts = parts
                    .iter()
                    .map(|part| self.symbol(part))
                    .collect::<Result<_, _>>()?;
                self.rules.rule(vec![parts], tight)
            }
            Part::OneOf(parts) => {
                let mut alternatives = Vec::with_capacity(parts.len());
                for part in parts {
                    self.budget.spend(1)?;
                    alternatives.push(match part {
                        Part::Sequence(none) if none.is_empty() => Vec::new(),
                        part => vec![self.symbol(part)?],
                    });
                }
                self.rules.rule(alternatives, tight)
            }
            Part::Repeat { part, least, most } => {
                let unit = self.symbol(part)?;
                self.rules.repeat(unit, *least, *most, tight)
            }
            Part::Json(schema) => self.json(schema)?,
            Part::Pattern(regex, param) => {
                let pattern = Pattern::whole_checked(regex)
                    .map_err(|why| Attempt::Refused(refused(param, why)))?;
                self.rules.terminal(Terminal::Regex(pattern.ast()), tight)
            }
            Part::Grammar(text, param) => {
                if !text.contains("::=") {
                    let why = "a grammar in Lark's notation can't stand beside tools or reasoning; write it as EBNF, with ::=";
                    return Err(Attempt::Refused(refused(param, why)));
                }
                ebnf::read(text, &mut self.rules)
                    .map_err(|why| Attempt::Refused(refused(param, &why)))?
            }
        })
    }

    fn json(&mut self, schema: &Schema) -> Result<Symbol, Attempt> {
        let start = self.rules.reserve(Spacing::Json);
        let coarse = if schema.is_strict() {
            Coarse::Exact
        } else {
            self.coarse
        };
        let compiled = schema::compile(schema, start, &mut self.rules, coarse, self.budget);
        let schema::Deviations { relaxed, narrowed } = match compiled {
            Ok(deviations) => deviations,
            Err(Failure::Stopped(stopped)) => return Err(stopped.into()),
            Err(Failure::Refused(why)) => {
                return Err(Attempt::Refused(refused(schema.param(), &why)));
            }
        };
        let not_enforced = |Relaxed { pointer, reason }: &Relaxed| {
            let place = if pointer.is_empty() {
                "the schema"
            } else {
                pointer
            };
            let why = format!("{place} can't be enforced, and the schema is strict: {reason}");
            refused(schema.param(), &why)
        };
        if let Some(relaxed) = relaxed.first().filter(|_| schema.is_strict()) {
            return Err(Attempt::Refused(not_enforced(relaxed)));
        }
        if self.narrowed.is_none() {
            self.narrowed = narrowed.first().map(not_enforced);
        }
        self.relaxed
            .extend(relaxed.into_iter().map(|relaxed| Relaxed {
                pointer: schema.pointer(&relaxed.pointer),
                ..relaxed
            }));
        Ok(Symbol::Rule(start))
    }
}

/// Limit on the characters of a reason in a message for callers.
pub(super) const REASON_CHARS_MAX: usize = 300;

fn refused(param: &str, why: &str) -> Invalid {
    let line = why.lines().next().unwrap_or_default();
    let line = match line.char_indices().nth(REASON_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    };
    Invalid::new(param, format!("{param}: {line}"))
}
