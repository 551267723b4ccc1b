//! The texts that a template can write by itself, read from its source.

use std::collections::HashSet;

/// The texts of a template.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::chat_format) struct Pieces {
    /// String literals in the template's expressions.
    pub(in crate::chat_format) literals: Vec<String>,
    /// Text outside of the template's tags.
    raw: Vec<String>,
    /// The template's variables, attributes and keywords.
    names: HashSet<String>,
}

impl Pieces {
    pub(in crate::chat_format) fn of(source: &str) -> Self {
        let mut pieces = Pieces::default();
        let mut rest = source;
        while let Some(start) = rest.find('{') {
            let tag = &rest[start..];
            let close = match tag.as_bytes().get(1) {
                Some(b'{') => "}}",
                Some(b'%') => "%}",
                Some(b'#') => "#}",
                _ => {
                    // A brace that is part of the text.
                    let end = start + 1;
                    pieces.push_raw(&rest[..end]);
                    rest = &rest[end..];
                    continue;
                }
            };
            pieces.push_raw(&rest[..start]);
            let inside = &tag[2..];
            let length = match close {
                "#}" => inside.find(close).unwrap_or(inside.len()),
                _ => pieces.read_code(inside, close),
            };
            rest = inside[length..].strip_prefix(close).unwrap_or_default();
        }
        pieces.push_raw(rest);
        pieces
    }

    /// Whether one of the template's texts ends with this, so that other text may follow.
    pub(in crate::chat_format) fn any_ends_with(&self, text: &str) -> bool {
        let all = self.literals.iter().chain(&self.raw);
        let mut ends = all.map(|piece| piece.ends_with(text) || piece.trim_end().ends_with(text));
        ends.any(|ends| ends)
    }

    /// Whether one of the template's texts begins with this, so that it may follow other text.
    pub(in crate::chat_format) fn any_begins_with(&self, text: &str) -> bool {
        let all = self.literals.iter().chain(&self.raw);
        let mut begins =
            all.map(|piece| piece.starts_with(text) || piece.trim_start().starts_with(text));
        begins.any(|begins| begins)
    }

    /// Whether the template may compare values with this, or look for it as a key.
    pub(in crate::chat_format) fn knows(&self, text: &str) -> bool {
        self.names.contains(text) || self.literals.iter().any(|literal| literal == text)
    }

    fn push_raw(&mut self, text: &str) {
        if !text.is_empty() {
            self.raw.push(text.to_owned());
        }
    }

    /// Collects the literals and names of a tag. Returns the length of the code before the tag's end.
    fn read_code(&mut self, code: &str, close: &str) -> usize {
        let mut at = 0;
        while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with(close) {
                return at;
            }
            let first = rest.chars().next().expect("it isn't empty");
            at += match first {
                '\'' | '"' => self.read_literal(&rest[1..], first) + 1,
                _ if is_of_name(first) => {
                    let name = rest.split(|c| !is_of_name(c)).next().unwrap_or_default();
                    self.names.insert(name.to_owned());
                    name.len()
                }
                _ => first.len_utf8(),
            };
        }
        code.len()
    }

    /// Collects a literal. Returns its length without the opening quote, but with the closing one.
    fn read_literal(&mut self, code: &str, quote: char) -> usize {
        let mut literal = String::new();
        let mut characters = code.char_indices();
        while let Some((at, c)) = characters.next() {
            if c == quote {
                self.literals.push(literal);
                return at + 1;
            }
            if c != '\\' {
                literal.push(c);
                continue;
            }
            match characters.next() {
                Some((_, 'n')) => literal.push('\n'),
                Some((_, 't')) => literal.push('\t'),
                Some((_, 'r')) => literal.push('\r'),
                Some((_, other)) => literal.push(other),
                None => break,
            }
        }
        code.len()
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_template() {
        let check = |source: &str, literals: &[&str], raw: &[&str]| {
            let pieces = Pieces::of(source);
            assert_eq!(pieces.literals, literals, "{source}");
            assert_eq!(pieces.raw, raw, "{source}");
        };
        check("", &[], &[]);
        check(
            "<s>{{- '<|' ~ role + \"|>\\n\" -}} it's{# 'no' #}",
            &["<|", "|>\n"],
            &["<s>", " it's"],
        );
        check("{% if m == '}}\\'é' %}{x}", &["}}'é"], &["{", "x}"]);
        check("{{ 'open", &[], &[]);
        check("{{ open ", &[], &[]);
    }

    #[test]
    fn where_names_may_be_finished() {
        let pieces = Pieces::of("{{ '\\n<' ~ key ~ '> ' }}[INST] {% if true %}");
        let check = |text: &str, ends: bool, begins: bool| {
            let found = (pieces.any_ends_with(text), pieces.any_begins_with(text));
            assert_eq!(found, (ends, begins), "{text}");
        };
        check("<", true, true);
        check(">", true, true);
        check("[INST]", true, true);
        check("[INS", false, true);
        check("|>", false, false);
        let known = ["key", "true", "> ", "\n<", "ke", "INST", ">"].map(|word| pieces.knows(word));
        assert_eq!(known, [true, true, true, true, false, false, false]);
    }
}
