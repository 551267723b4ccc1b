//! Callers' grammars in the notation of llama.cpp (GBNF), which vLLM and others call EBNF: `root ::= "a" [0-9]+ | other`.
//!
//! A grammar becomes rules of our own whose terminals are single characters, so that the lexer can't change what the
//! grammar means. Nothing recurses over a caller's text.

use std::collections::HashMap;

use llguidance::derivre::RegexAst;

use super::rules::{Alternative, RuleId, Rules, Spacing, Symbol};

/// Limit on the bytes of a caller's grammar.
pub const EBNF_BYTES_MAX: usize = 32 * 1024;
/// Limit on the depth of brackets within brackets.
const NESTING_MAX: usize = 64;
/// Largest count in a repetition such as `{2,5}`.
const REPEAT_MAX: u64 = 5_000;

/// Why a text isn't a valid grammar, as a message for callers.
pub(super) type Refused = String;

/// Reads a grammar and returns the symbol of its start rule, `root` or `start`.
pub(super) fn read(text: &str, rules: &mut Rules) -> Result<Symbol, Refused> {
    if text.len() > EBNF_BYTES_MAX {
        return Err(format!("a grammar may have at most {EBNF_BYTES_MAX} bytes"));
    }
    let mut reader = Reader {
        text,
        at: 0,
        rules,
        names: HashMap::new(),
    };
    reader.skip(true);
    while !reader.is_at_end() {
        reader.rule()?;
    }
    let undefined = reader.names.iter().find(|(_, (_, is_defined))| !is_defined);
    if let Some((name, _)) = undefined {
        return Err(format!("the rule {name:?} is used, but not defined"));
    }
    let root = reader
        .names
        .get("root")
        .or_else(|| reader.names.get("start"));
    match root {
        Some(&(root, _)) => Ok(Symbol::Rule(root)),
        None => Err("there is no rule named root".to_owned()),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    rules: &'a mut Rules,
    /// Rules by name, and whether they have been defined yet.
    names: HashMap<String, (RuleId, bool)>,
}

/// Alternatives that are being read, inside a bracket or a rule.
struct Open {
    alternatives: Vec<Alternative>,
    current: Alternative,
}

impl Open {
    fn new() -> Self {
        Open {
            alternatives: Vec::new(),
            current: Alternative::new(),
        }
    }

    fn close(mut self) -> Vec<Alternative> {
        self.alternatives.push(self.current);
        self.alternatives
    }
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn is_at_end(&self) -> bool {
        self.at == self.text.len()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Skips blanks and comments, and with `lines` also line ends.
    fn skip(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' => self.at += 1,
                '\n' | '\r' if lines => self.at += 1,
                '#' => self.at += self.rest().find('\n').unwrap_or(self.rest().len()),
                _ => return,
            }
        }
    }

    fn wrong(&self, what: &str) -> Refused {
        let line = self.text[..self.at].matches('\n').count() + 1;
        format!("{what} in line {line}")
    }

    fn name(&mut self) -> Option<String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let rest = self.rest();
        let name = &rest[..rest.find(|c| !is_name(c)).unwrap_or(rest.len())];
        let name = (!name.is_empty()).then(|| name.to_owned())?;
        self.at += name.len();
        Some(name)
    }

    fn named(&mut self, name: &str) -> RuleId {
        if let Some(&(known, _)) = self.names.get(name) {
            return known;
        }
        let rule = self.rules.reserve(Spacing::Tight);
        self.names.insert(name.to_owned(), (rule, false));
        rule
    }

    fn rule(&mut self) -> Result<(), Refused> {
        let name = self
            .name()
            .ok_or_else(|| self.wrong("a rule's name is missing"))?;
        self.skip(true);
        if !self.eat("::=") {
            return Err(self.wrong("::= is missing"));
        }
        let rule = self.named(&name);
        if let Some((_, is_defined)) = self.names.get_mut(&name)
            && std::mem::replace(is_defined, true)
        {
            return Err(self.wrong(&format!("the rule {name:?} is defined twice")));
        }
        let alternatives = self.alternatives()?;
        self.rules.define(rule, alternatives);
        Ok(())
    }

    /// Reads the alternatives of a rule up to its end, including all brackets in it.
    fn alternatives(&mut self) -> Result<Vec<Alternative>, Refused> {
        let mut outer: Vec<Open> = Vec::new();
        let mut open = Open::new();
        loop {
            if self.rules.is_full() {
                return Err("the grammar is too large".to_owned());
            }
            // Within brackets a line end counts as a blank.
            self.skip(!outer.is_empty());
            let symbol = match self.peek() {
                None | Some('\n' | '\r') => {
                    self.skip(true);
                    match self.peek() {
                        // The next line continues the rule with another alternative.
                        Some('|') => continue,
                        _ if outer.is_empty() => return Ok(open.close()),
                        _ => return Err(self.wrong("a bracket isn't closed")),
                    }
                }
                Some('|') => {
                    self.at += 1;
                    self.skip(true);
                    open.alternatives.push(std::mem::take(&mut open.current));
                    continue;
                }
                Some('(') => {
                    self.at += 1;
                    if outer.len() == NESTING_MAX {
                        return Err(self.wrong("too many brackets within brackets"));
                    }
                    outer.push(std::mem::replace(&mut open, Open::new()));
                    continue;
                }
                Some(')') => {
                    self.at += 1;
                    let around = outer
                        .pop()
                        .ok_or_else(|| self.wrong("a bracket is closed that isn't open"))?;
                    let group = std::mem::replace(&mut open, around).close();
                    Some(self.rules.rule(group, Spacing::Tight))
                }
                Some('"') => self.string()?,
                Some('[') => Some(self.class()?),
                Some('.') => {
                    self.at += 1;
                    Some(self.character(r"(?s:.)".to_owned()))
                }
                Some(_) => {
                    let name = self
                        .name()
                        .ok_or_else(|| self.wrong("something is not understood"))?;
                    Some(Symbol::Rule(self.named(&name)))
                }
            };
            let symbol = symbol.map(|symbol| self.repeated(symbol)).transpose()?;
            open.current.extend(symbol.into_iter().flatten());
        }
    }

    /// Applies the repetition that follows a symbol, if there is one. Returns `None` for `{0}`: the symbol is left out.
    fn repeated(&mut self, symbol: Symbol) -> Result<Option<Symbol>, Refused> {
        let (least, most) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') => {
                self.at += 1;
                return self.counted(symbol);
            }
            _ => return Ok(Some(symbol)),
        };
        self.at += 1;
        Ok(Some(self.times(symbol, least, most)))
    }

    fn counted(&mut self, symbol: Symbol) -> Result<Option<Symbol>, Refused> {
        let end = self
            .rest()
            .find('}')
            .ok_or_else(|| self.wrong("} is missing"))?;
        let counts = self.rest()[..end].to_owned();
        self.at += end + 1;
        let count = |text: &str| {
            text.trim()
                .parse::<u64>()
                .ok()
                .filter(|&count| count <= REPEAT_MAX)
        };
        let (least, most) = match counts.split_once(',') {
            None => (count(&counts), Some(count(&counts))),
            Some((least, "")) => (count(least), None),
            Some((least, most)) => (count(least), Some(count(most))),
        };
        match (least, most) {
            (Some(least), None) => Ok(Some(self.times(symbol, least, None))),
            (Some(0), Some(Some(0))) => Ok(None),
            (Some(least), Some(Some(most))) if least <= most => {
                Ok(Some(self.times(symbol, least, Some(most))))
            }
            _ => Err(self.wrong(&format!(
                "a repetition has counts up to {REPEAT_MAX}, the smaller one first"
            ))),
        }
    }

    fn times(&mut self, symbol: Symbol, least: u64, most: Option<u64>) -> Symbol {
        let many = self
            .rules
            .repeat(symbol, least.max(1), most, Spacing::Tight);
        match least {
            0 => self
                .rules
                .rule(vec![vec![many], Vec::new()], Spacing::Tight),
            _ => many,
        }
    }

    fn string(&mut self) -> Result<Option<Symbol>, Refused> {
        self.at += 1;
        let mut parts = Alternative::new();
        loop {
            match self.next() {
                Some('"') => break,
                Some('\\') => {
                    let c = self.escape()?;
                    parts.push(
                        self.rules
                            .literal(c.encode_utf8(&mut [0; 4]), Spacing::Tight),
                    );
                }
                Some(c) => parts.push(
                    self.rules
                        .literal(c.encode_utf8(&mut [0; 4]), Spacing::Tight),
                ),
                None => return Err(self.wrong("a string isn't closed")),
            }
        }
        Ok(match &*parts {
            [] => None,
            &[only] => Some(only),
            _ => Some(self.rules.rule(vec![parts], Spacing::Tight)),
        })
    }

    fn escape(&mut self) -> Result<char, Refused> {
        let c = self
            .next()
            .ok_or_else(|| self.wrong("an escape is cut off"))?;
        let digits = match c {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Ok(other),
        };
        let code = self
            .rest()
            .get(..digits)
            .and_then(|text| u32::from_str_radix(text, 16).ok());
        self.at += digits;
        let known = code.and_then(char::from_u32);
        known.ok_or_else(|| "an escape stands for no character".to_owned())
    }

    /// Reads a character class such as `[a-z_]` or `[^"\\]`.
    fn class(&mut self) -> Result<Symbol, Refused> {
        self.at += 1;
        let is_negated = self.eat("^");
        let mut ranges: Vec<(char, char)> = Vec::new();
        loop {
            let from = match self.next() {
                Some(']') => break,
                Some('\\') => self.escape()?,
                Some(c) => c,
                None => return Err(self.wrong("a class of characters isn't closed")),
            };
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            let to = match is_range {
                false => from,
                true => {
                    self.at += 1;
                    match self.next() {
                        Some('\\') => self.escape()?,
                        Some(c) => c,
                        None => return Err(self.wrong("a class of characters isn't closed")),
                    }
                }
            };
            if from > to {
                return Err(self.wrong("a range of characters is backwards"));
            }
            ranges.push((from, to));
        }
        if ranges.is_empty() {
            return Err(self.wrong("a class of characters is empty"));
        }
        let parts = ranges
            .iter()
            .map(|&(from, to)| format!(r"\x{{{:X}}}-\x{{{:X}}}", u32::from(from), u32::from(to)));
        let sign = if is_negated { "^" } else { "" };
        Ok(self.character(format!("[{sign}{}]", parts.collect::<String>())))
    }

    fn character(&mut self, regex: String) -> Symbol {
        let name = format!("character {regex}");
        self.rules
            .named_regex(&name, || RegexAst::Regex(regex), Spacing::Tight)
    }
}
