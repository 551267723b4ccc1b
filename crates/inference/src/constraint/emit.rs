//! Converts rules to llguidance's grammar: its symbols and lexemes, with limits on both.

use std::collections::{HashMap, HashSet};

use llguidance::api::{GenGrammarOptions, GrammarId, GrammarInit, SkipSpec};
use llguidance::derivre::RegexAst;
use llguidance::earley::lexerspec::{LexemeClass, LexemeIdx, LexerSpec};
use llguidance::earley::{Grammar, SymIdx, SymbolProps};

use super::budget::{Budget, Stopped};
use super::rules::{RuleId, Rules, Spacing, Symbol, Terminal, TerminalId};

/// llguidance's fuel for all regular expressions of a grammar before the first token: about 20 ms.
pub(super) const COMPILE_FUEL: u64 = 1_000_000;
/// Limit on llguidance's symbols, which it counts with 16 bits.
const ENGINE_SYMBOLS_MAX: usize = 65_000;
/// White space between the parts of a JSON document: none, a blank, or a line break with indentation. Without a bound a
/// model may write blanks until its tokens are used up.
const WHITESPACE: &str = r" |\n {0,16}";

/// Why rules couldn't be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EmitError {
    Stopped(Stopped),
    /// The regular expressions take more than [`COMPILE_FUEL`], there are too many symbols, or llguidance rejects one.
    TooComplex,
}

impl From<Stopped> for EmitError {
    fn from(stopped: Stopped) -> Self {
        EmitError::Stopped(stopped)
    }
}

/// Converts the rules that `start` uses to a grammar that begins with `start`.
pub(super) fn emit(
    rules: &Rules,
    start: RuleId,
    budget: &Budget,
) -> Result<GrammarInit, EmitError> {
    let reachable = rules.reachable(start);
    let spacing = |rule: RuleId| rules.rules[rule.0 as usize].1;
    // Rules that become nested grammars: JSON, where white space is allowed, within a rule where none is.
    let mut nested = HashSet::new();
    for &rule in reachable
        .iter()
        .filter(|&&rule| spacing(rule) == Spacing::Tight)
    {
        let parts = rules.rules[rule.0 as usize].0.iter().flatten();
        nested.extend(parts.filter_map(|&symbol| match symbol {
            Symbol::Rule(used) if spacing(used) == Spacing::Json => Some(used),
            _ => None,
        }));
    }
    let mut emitter = Emitter::new(rules, spacing(start))?;
    // llguidance begins with the first symbol.
    for &rule in &reachable {
        let symbol = emitter.symbol(
            "rule",
            spacing(rule),
            rule == start || nested.contains(&rule),
        )?;
        emitter.rules.insert(rule, symbol);
    }
    for &rule in &reachable {
        budget.check()?;
        let (alternatives, within) = &rules.rules[rule.0 as usize];
        for alternative in alternatives {
            let mut parts = Vec::with_capacity(alternative.len());
            for &symbol in alternative {
                parts.push(match symbol {
                    Symbol::Rule(rule) if spacing(rule) != *within => emitter.nest(rule)?,
                    Symbol::Rule(rule) => emitter.rules[&rule],
                    Symbol::Terminal(terminal) => emitter.terminal(terminal, budget)?,
                });
            }
            let rule = emitter.rules[&rule];
            emitter
                .grammar
                .add_rule(rule, parts)
                .map_err(|_| EmitError::TooComplex)?;
        }
    }
    Ok(GrammarInit::Internal(emitter.grammar, emitter.lexemes))
}

struct Emitter<'a> {
    source: &'a Rules,
    grammar: Grammar,
    lexemes: LexerSpec,
    classes: HashMap<Spacing, LexemeClass>,
    rules: HashMap<RuleId, SymIdx>,
    nested: HashMap<RuleId, SymIdx>,
    terminals: HashMap<TerminalId, SymIdx>,
    lexeme_symbols: HashMap<LexemeIdx, SymIdx>,
}

impl<'a> Emitter<'a> {
    /// `first` is the spacing of the start rule.
    fn new(source: &'a Rules, first: Spacing) -> Result<Self, EmitError> {
        let mut lexemes = LexerSpec::new().map_err(|_| EmitError::TooComplex)?;
        let mut classes = HashMap::new();
        let others = [Spacing::Tight, Spacing::Json]
            .into_iter()
            .filter(|&spacing| spacing != first);
        for spacing in [first].into_iter().chain(others) {
            let skip = match spacing {
                Spacing::Tight => RegexAst::NoMatch,
                Spacing::Json => RegexAst::Regex(WHITESPACE.to_owned()),
            };
            let class = lexemes.setup_lexeme_class_with_skip(SkipSpec::once(skip));
            classes.insert(spacing, class.map_err(|_| EmitError::TooComplex)?);
        }
        Ok(Emitter {
            source,
            grammar: Grammar::new(None),
            lexemes,
            classes,
            rules: HashMap::new(),
            nested: HashMap::new(),
            terminals: HashMap::new(),
            lexeme_symbols: HashMap::new(),
        })
    }

    fn symbol(
        &mut self,
        name: &str,
        spacing: Spacing,
        is_start: bool,
    ) -> Result<SymIdx, EmitError> {
        let props = SymbolProps {
            grammar_id: self.classes[&spacing],
            is_start,
            ..SymbolProps::default()
        };
        if self.grammar.num_symbols() >= ENGINE_SYMBOLS_MAX {
            return Err(EmitError::TooComplex);
        }
        Ok(self.grammar.fresh_symbol_ext(name, props))
    }

    /// Returns the symbol of a nested grammar, which has its own spacing.
    fn nest(&mut self, rule: RuleId) -> Result<SymIdx, EmitError> {
        if let Some(&known) = self.nested.get(&rule) {
            return Ok(known);
        }
        let symbol = self.symbol("nested", Spacing::Tight, false)?;
        let options = GenGrammarOptions {
            grammar: GrammarId::Name(String::new()),
            temperature: None,
        };
        let inner = self.rules[&rule];
        let made = self.grammar.make_gen_grammar(symbol, options);
        made.and_then(|()| self.grammar.link_gen_grammar(symbol, inner))
            .map_err(|_| EmitError::TooComplex)?;
        self.nested.insert(rule, symbol);
        Ok(symbol)
    }

    fn terminal(&mut self, id: TerminalId, budget: &Budget) -> Result<SymIdx, EmitError> {
        if let Some(&known) = self.terminals.get(&id) {
            return Ok(known);
        }
        budget.check()?;
        let (terminal, spacing) = &self.source.terminals[id.0 as usize];
        self.lexemes.current_class = self.classes[spacing];
        let name = String::new();
        let added = match terminal {
            Terminal::Literal(text) => {
                let literal = RegexAst::Literal(text.clone());
                self.lexemes
                    .add_greedy_lexeme(name, literal, false, None, usize::MAX)
            }
            Terminal::Regex(ast) => {
                self.lexemes
                    .add_greedy_lexeme(name, ast.clone(), false, None, usize::MAX)
            }
            Terminal::Lazy(ast) => self.lexemes.add_rx_and_stop(
                name,
                ast.clone(),
                RegexAst::EmptyString,
                true,
                usize::MAX,
                false,
            ),
            Terminal::Token(token) => self
                .lexemes
                .add_special_token(format!("<[{token}]>"), vec![*token..=*token]),
        };
        let lexeme = added.map_err(|_| EmitError::TooComplex)?;
        if self.lexemes.cost() > COMPILE_FUEL {
            return Err(EmitError::TooComplex);
        }
        // Equal expressions share one lexeme, and therefore one symbol.
        let symbol = match self.lexeme_symbols.get(&lexeme) {
            Some(&known) => known,
            None => {
                let symbol = self.symbol("terminal", *spacing, false)?;
                let made = self.grammar.make_terminal(symbol, lexeme, &self.lexemes);
                made.map_err(|_| EmitError::TooComplex)?;
                self.lexeme_symbols.insert(lexeme, symbol);
                symbol
            }
        };
        self.terminals.insert(id, symbol);
        Ok(symbol)
    }
}
