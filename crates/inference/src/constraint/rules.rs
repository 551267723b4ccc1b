//! A grammar as rules over terminals, bounded in size, before it is passed to llguidance.
//!
//! No rule of a schema matches the empty text, because llguidance takes quadratic time to find the rules that can.

use std::collections::HashMap;

use llguidance::derivre::RegexAst;
use weir_engine::Token;

/// Limit on the rules plus terminals of one grammar, and on the grammar size that llguidance accepts. llguidance can't
/// have more than 65,000 symbols.
pub const SYMBOLS_MAX: usize = 30_000;
/// Limit on the symbols on the right sides of all rules.
const PARTS_MAX: usize = 8 * SYMBOLS_MAX;

/// A symbol on the right side of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Symbol {
    Terminal(TerminalId),
    Rule(RuleId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TerminalId(pub(crate) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RuleId(pub(crate) u32);

/// A terminal of a grammar.
#[derive(Debug, Clone)]
pub(crate) enum Terminal {
    /// Exactly this text.
    Literal(String),
    Regex(RegexAst),
    /// The shortest text that the expression matches.
    Lazy(RegexAst),
    /// A special token, matched by its id: no text stands for it.
    Token(Token),
}

/// The white space that may stand between the symbols of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Spacing {
    /// No white space.
    Tight,
    /// A little white space, as between the parts of a JSON document.
    Json,
}

pub(crate) type Alternative = Vec<Symbol>;

#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) terminals: Vec<(Terminal, Spacing)>,
    pub(crate) rules: Vec<(Vec<Alternative>, Spacing)>,
    /// Terminals by name, so that equal ones are made only once; `None` if no text matches the terminal.
    pub(crate) named: HashMap<String, Option<Symbol>>,
    /// The rule for any JSON value.
    pub(crate) anything: Option<RuleId>,
    literals: HashMap<(String, Spacing), TerminalId>,
    repeated: HashMap<Repeated, RuleId>,
    parts: usize,
}

/// A repetition that already has a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Repeated {
    Exactly(Symbol, u64),
    /// Once up to this many times.
    UpTo(Symbol, u64),
    Many(Symbol),
}

impl Rules {
    pub(crate) fn new() -> Self {
        Rules {
            terminals: Vec::new(),
            rules: Vec::new(),
            named: HashMap::new(),
            anything: None,
            literals: HashMap::new(),
            repeated: HashMap::new(),
            parts: 0,
        }
    }

    pub(crate) fn symbols(&self) -> usize {
        self.terminals.len() + self.rules.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.symbols() >= SYMBOLS_MAX || self.parts >= PARTS_MAX
    }

    pub(crate) fn literal(&mut self, text: &str, spacing: Spacing) -> Symbol {
        if let Some(&known) = self.literals.get(&(text.to_owned(), spacing)) {
            return Symbol::Terminal(known);
        }
        let symbol = self.terminal(Terminal::Literal(text.to_owned()), spacing);
        if let Symbol::Terminal(id) = symbol {
            self.literals.insert((text.to_owned(), spacing), id);
        }
        symbol
    }

    pub(crate) fn terminal(&mut self, terminal: Terminal, spacing: Spacing) -> Symbol {
        let id = TerminalId(u32::try_from(self.terminals.len()).unwrap_or(u32::MAX));
        self.terminals.push((terminal, spacing));
        Symbol::Terminal(id)
    }

    /// Returns the terminal with this name; the first call makes it.
    pub(crate) fn named_regex(
        &mut self,
        name: &str,
        make: impl FnOnce() -> RegexAst,
        spacing: Spacing,
    ) -> Symbol {
        if let Some(&Some(known)) = self.named.get(name) {
            return known;
        }
        let symbol = self.terminal(Terminal::Regex(make()), spacing);
        self.named.insert(name.to_owned(), Some(symbol));
        symbol
    }

    /// Adds a rule that has no alternatives yet.
    pub(crate) fn reserve(&mut self, spacing: Spacing) -> RuleId {
        let id = RuleId(u32::try_from(self.rules.len()).unwrap_or(u32::MAX));
        self.rules.push((Vec::new(), spacing));
        id
    }

    pub(crate) fn define(&mut self, rule: RuleId, alternatives: Vec<Alternative>) {
        self.parts += alternatives.iter().map(Vec::len).sum::<usize>();
        self.rules[rule.0 as usize].0 = alternatives;
    }

    pub(crate) fn rule(&mut self, alternatives: Vec<Alternative>, spacing: Spacing) -> Symbol {
        let id = self.reserve(spacing);
        self.define(id, alternatives);
        Symbol::Rule(id)
    }

    /// Repeats a symbol `least` to `most` times, without an upper limit if `most` is `None`. Both numbers must be at
    /// least 1.
    pub(crate) fn repeat(
        &mut self,
        unit: Symbol,
        least: u64,
        most: Option<u64>,
        spacing: Spacing,
    ) -> Symbol {
        let more = match most {
            Some(most) if most < least => return self.rule(Vec::new(), spacing),
            Some(most) if most == least => return self.exactly(unit, least, spacing),
            Some(most) => self.up_to(unit, most - least + 1, spacing),
            None => self.many(unit, spacing),
        };
        match least {
            0 | 1 => more,
            least => {
                let exactly = self.exactly(unit, least - 1, spacing);
                self.rule(vec![vec![exactly, more]], spacing)
            }
        }
    }

    /// Repeats a symbol `count` times by halving, which takes about log2(`count`) rules.
    fn exactly(&mut self, unit: Symbol, count: u64, spacing: Spacing) -> Symbol {
        if count <= 1 {
            return unit;
        }
        let key = Repeated::Exactly(unit, count);
        if let Some(&known) = self.repeated.get(&key) {
            return Symbol::Rule(known);
        }
        let half = self.exactly(unit, count / 2, spacing);
        let mut parts = vec![half, half];
        parts.extend((count % 2 == 1).then_some(unit));
        self.remember(key, vec![parts], spacing)
    }

    fn up_to(&mut self, unit: Symbol, most: u64, spacing: Spacing) -> Symbol {
        if most <= 1 {
            return unit;
        }
        let key = Repeated::UpTo(unit, most);
        if let Some(&known) = self.repeated.get(&key) {
            return Symbol::Rule(known);
        }
        // Either up to `half` units, or exactly `half` and then up to the rest.
        let half = most / 2;
        let few = self.up_to(unit, half, spacing);
        let first = self.exactly(unit, half, spacing);
        let rest = self.up_to(unit, most - half, spacing);
        self.remember(key, vec![vec![few], vec![first, rest]], spacing)
    }

    fn many(&mut self, unit: Symbol, spacing: Spacing) -> Symbol {
        let key = Repeated::Many(unit);
        if let Some(&known) = self.repeated.get(&key) {
            return Symbol::Rule(known);
        }
        let id = self.reserve(spacing);
        self.define(id, vec![vec![unit], vec![Symbol::Rule(id), unit]]);
        self.repeated.insert(key, id);
        Symbol::Rule(id)
    }

    fn remember(
        &mut self,
        key: Repeated,
        alternatives: Vec<Alternative>,
        spacing: Spacing,
    ) -> Symbol {
        let id = self.reserve(spacing);
        self.define(id, alternatives);
        self.repeated.insert(key, id);
        Symbol::Rule(id)
    }

    /// Drops alternatives that derive no finite text. Returns whether `start` derives one.
    pub(crate) fn prune(&mut self, start: RuleId) -> bool {
        // For each rule the alternatives that use it; for each alternative how many of its rules aren't complete yet.
        let mut users: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.rules.len()];
        let mut missing: Vec<Vec<usize>> = Vec::with_capacity(self.rules.len());
        let mut is_complete = vec![false; self.rules.len()];
        let mut todo = Vec::new();
        for (rule, (alternatives, _)) in self.rules.iter().enumerate() {
            let mut counts = Vec::with_capacity(alternatives.len());
            for (place, alternative) in alternatives.iter().enumerate() {
                let rules = alternative.iter().filter_map(|symbol| match symbol {
                    Symbol::Rule(used) => Some(used.0 as usize),
                    Symbol::Terminal(_) => None,
                });
                let mut count = 0;
                for used in rules {
                    users[used].push((rule, place));
                    count += 1;
                }
                if count == 0 && !is_complete[rule] {
                    is_complete[rule] = true;
                    todo.push(rule);
                }
                counts.push(count);
            }
            missing.push(counts);
        }
        while let Some(complete) = todo.pop() {
            for &(rule, place) in &users[complete] {
                missing[rule][place] -= 1;
                if missing[rule][place] == 0 && !is_complete[rule] {
                    is_complete[rule] = true;
                    todo.push(rule);
                }
            }
        }
        for ((alternatives, _), missing) in self.rules.iter_mut().zip(&missing) {
            let mut counts = missing.iter();
            alternatives.retain(|_| counts.next() == Some(&0));
        }
        is_complete[start.0 as usize]
    }

    /// The rules that `start` uses, directly or indirectly, in breadth-first order.
    pub(crate) fn reachable(&self, start: RuleId) -> Vec<RuleId> {
        let mut seen = vec![false; self.rules.len()];
        let mut found = vec![start];
        seen[start.0 as usize] = true;
        let mut next = 0;
        while let Some(&rule) = found.get(next) {
            next += 1;
            for symbol in self.rules[rule.0 as usize].0.iter().flatten() {
                if let Symbol::Rule(used) = symbol
                    && !std::mem::replace(&mut seen[used.0 as usize], true)
                {
                    found.push(*used);
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_end_is_dropped() {
        let mut rules = Rules::new();
        let x = rules.literal("x", Spacing::Tight);
        let start = rules.reserve(Spacing::Tight);
        let endless = rules.reserve(Spacing::Tight);
        rules.define(endless, vec![vec![x, Symbol::Rule(endless)]]);
        rules.define(
            start,
            vec![
                vec![Symbol::Rule(endless)],
                vec![x, Symbol::Rule(start)],
                vec![x],
            ],
        );
        assert!(rules.prune(start));
        assert_eq!(
            rules.rules[start.0 as usize].0,
            [vec![x, Symbol::Rule(start)], vec![x]]
        );
        assert!(!rules.prune(endless));
        assert_eq!(rules.reachable(start), [start]);
    }

    /// Whether a symbol can stand for exactly `i` units, for each `i` up to `most`.
    fn counts(rules: &Rules, symbol: Symbol, most: usize) -> Vec<bool> {
        match symbol {
            Symbol::Terminal(_) => (0..=most).map(|count| count == 1).collect(),
            Symbol::Rule(id) => {
                let mut all = vec![false; most + 1];
                for alternative in &rules.rules[id.0 as usize].0 {
                    let mut sums = vec![false; most + 1];
                    sums[0] = true;
                    for &part in alternative {
                        let part = counts(rules, part, most);
                        let mut next = vec![false; most + 1];
                        for (a, _) in sums.iter().enumerate().filter(|(_, is)| **is) {
                            for (b, _) in part
                                .iter()
                                .enumerate()
                                .filter(|(b, is)| **is && a + b <= most)
                            {
                                next[a + b] = true;
                            }
                        }
                        sums = next;
                    }
                    all.iter_mut().zip(sums).for_each(|(all, one)| *all |= one);
                }
                all
            }
        }
    }

    #[test]
    fn repetitions_are_exact_and_small() {
        for least in 1..12_u64 {
            for most in least..20 {
                let mut rules = Rules::new();
                let x = rules.literal("x", Spacing::Tight);
                let many = rules.repeat(x, least, Some(most), Spacing::Tight);
                let expected: Vec<_> = (0..=25)
                    .map(|count| (least..=most).contains(&count))
                    .collect();
                assert_eq!(counts(&rules, many, 25), expected, "{least} to {most}");
            }
        }
        let mut rules = Rules::new();
        let x = rules.literal("x", Spacing::Tight);
        rules.repeat(x, 4_999, Some(1_000_000), Spacing::Tight);
        rules.repeat(x, 5_000, None, Spacing::Tight);
        assert!(rules.symbols() < 150, "{}", rules.symbols());
    }
}
