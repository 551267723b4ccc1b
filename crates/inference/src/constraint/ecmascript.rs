//! ECMAScript's regular expressions (<https://tc39.es/ecma262/#sec-patterns>) in Rust's syntax.
//!
//! Texts are code points, as under the flag `u`, and what means something only under that flag (`\p{…}`, `\u{…}`) means it.
//! Syntax that is an error under `u` but not without it (`{a}`, `[\w-.]`, `\z`) means what Annex B says.

use std::fmt::Write;

const DIGITS: &str = "0-9";
const WORD: &str = "A-Za-z0-9_";
const BLANKS: &str =
    r"\t-\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}";
const NO_LINE_END: &str = r"[^\n\r\x{2028}\x{2029}]";
const ANY: &str = "(?s:.)";
const NONE: &str = r"[^\x{0}-\x{10ffff}]";
const SURROGATES: (u32, u32) = (0xd800, 0xdfff);
const CODE_POINT_MAX: u32 = 0x10_ffff;

/// Why a pattern isn't translated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untranslatable {
    /// ECMAScript doesn't take it either.
    Malformed,
    Unsupported,
}

/// The groups of the whole pattern, on which the meaning of its parts depends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Groups {
    captures: u64,
    are_named: bool,
}

impl Groups {
    pub(super) fn of(pattern: &str) -> Self {
        let mut groups = Groups {
            captures: 0,
            are_named: false,
        };
        let (mut in_class, mut is_escaped) = (false, false);
        for (at, c) in pattern.char_indices() {
            let rest = &pattern[at + c.len_utf8()..];
            match c {
                _ if is_escaped => is_escaped = false,
                '\\' => is_escaped = true,
                ']' => in_class = false,
                _ if in_class => {}
                '[' => in_class = true,
                '(' => {
                    let is_named = rest.starts_with("?<") && !rest[2..].starts_with(['=', '!']);
                    groups.captures += u64::from(is_named || !rest.starts_with('?'));
                    groups.are_named |= is_named;
                }
                _ => {}
            }
        }
        groups
    }

    /// A part of the pattern in Rust's syntax. Groups capture nothing, and no repetition is lazy: the same strings match.
    pub(super) fn to_rust(self, part: &str) -> Result<String, Untranslatable> {
        let mut translator = Translator {
            rest: part,
            groups: self,
            rust: String::with_capacity(part.len() + 16),
            depth: 0,
            may_repeat: false,
        };
        while let Some(c) = translator.next() {
            translator.term(c)?;
        }
        match translator.depth {
            0 => Ok(translator.rust),
            _ => Err(Untranslatable::Malformed),
        }
    }
}

struct Translator<'a> {
    rest: &'a str,
    groups: Groups,
    rust: String,
    /// Groups that aren't closed.
    depth: usize,
    /// The last term is one that a quantifier may follow.
    may_repeat: bool,
}

/// The meaning of an escape: the characters behind a backslash.
enum Escape {
    /// A code point, or a half of a surrogate pair.
    Character(u32),
    /// A class of characters in Rust's syntax.
    Class(String),
}

/// The contents of the brackets of a class.
#[derive(Default)]
struct Items {
    rust: String,
    has_surrogates: bool,
}

impl Items {
    fn range(&mut self, first: u32, last: u32) {
        let (low, high) = SURROGATES;
        self.has_surrogates |= low <= first && last <= high;
        for (first, last) in [(first, last.min(low - 1)), (first.max(high + 1), last)] {
            if first <= last {
                // Writing to a string can't fail.
                let _ = write!(self.rust, r"\x{{{first:x}}}-\x{{{last:x}}}");
            }
        }
    }

    fn add(&mut self, escape: Escape) {
        match escape {
            Escape::Character(c) => self.range(c, c),
            Escape::Class(class) => self.rust += &class,
        }
    }
}

impl Translator<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn term(&mut self, c: char) -> Result<(), Untranslatable> {
        let mut may_repeat = true;
        match c {
            '^' | '$' | '|' => {
                self.rust.push(c);
                may_repeat = false;
            }
            '(' => {
                self.open()?;
                may_repeat = false;
            }
            ')' => {
                self.depth = (self.depth.checked_sub(1)).ok_or(Untranslatable::Malformed)?;
                self.rust.push(c);
            }
            '*' | '+' | '?' => {
                self.repeat(&c.to_string())?;
                may_repeat = false;
            }
            '{' => match self.counts()? {
                Some(counts) => {
                    self.repeat(&counts)?;
                    may_repeat = false;
                }
                None => self.character(c.into())?,
            },
            '.' => self.rust += NO_LINE_END,
            '[' => self.class()?,
            '\\' => match self.escape(false)? {
                Escape::Character(c) => self.character(c)?,
                Escape::Class(class) => self.rust += &class,
            },
            c => self.character(c.into())?,
        }
        self.may_repeat = may_repeat;
        Ok(())
    }

    fn character(&mut self, c: u32) -> Result<(), Untranslatable> {
        // A half of a surrogate pair is in no text.
        let c = char::from_u32(c).ok_or(Untranslatable::Unsupported)?;
        if regex_syntax::is_meta_character(c) {
            self.rust.push('\\');
        }
        self.rust.push(c);
        Ok(())
    }

    /// The beginning of a group, behind its parenthesis.
    fn open(&mut self) -> Result<(), Untranslatable> {
        self.depth += 1;
        // Not ECMAScript's, but it can't mean anything else, and Python's and Java's developers write it.
        if self.rust.is_empty() && self.take("?i)") {
            self.depth -= 1;
            self.rust += "(?i)";
            return Ok(());
        }
        if let Some(flags) = ["?i:", "?-i:"].into_iter().find(|flags| self.take(flags)) {
            self.rust.push('(');
            self.rust += flags;
            return Ok(());
        }
        if self.rest.starts_with('?') && !self.take("?:") {
            self.named_group()?;
        }
        self.rust += "(?:";
        Ok(())
    }

    /// The name of a group, which doesn't matter.
    fn named_group(&mut self) -> Result<(), Untranslatable> {
        let look_around = ["?=", "?!", "?<=", "?<!"];
        let modifiers = ["?m", "?s", "?i", "?-"];
        let is_one_of = |heads: &[&str]| heads.iter().any(|head| self.rest.starts_with(head));
        if is_one_of(&look_around) || is_one_of(&modifiers) {
            return Err(Untranslatable::Unsupported);
        }
        // Python's `(?P<` isn't ECMAScript's, but can't mean anything else either.
        let named = self.rest.strip_prefix("?<");
        let (name, rest) = (named.or_else(|| self.rest.strip_prefix("?P<")))
            .and_then(|rest| rest.split_once('>'))
            .ok_or(Untranslatable::Malformed)?;
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(Untranslatable::Malformed);
        }
        self.rest = rest;
        Ok(())
    }

    fn repeat(&mut self, quantifier: &str) -> Result<(), Untranslatable> {
        if !self.may_repeat {
            return Err(Untranslatable::Malformed);
        }
        self.take("?");
        self.rust += quantifier;
        Ok(())
    }

    /// A quantifier such as `{2,5}`, behind its bracket. Everything else in brackets means itself.
    fn counts(&mut self) -> Result<Option<String>, Untranslatable> {
        let Some((inner, rest)) = self.rest.split_once('}') else {
            return Ok(None);
        };
        let (least, most) = match inner.split_once(',') {
            Some((least, most)) => (least, Some(most)),
            None => (inner, None),
        };
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        if !is_number(least) || most.is_some_and(|most| !most.is_empty() && !is_number(most)) {
            return Ok(None);
        }
        let number = |text: &str| {
            let number = text.parse::<u32>();
            number.map_err(|_| Untranslatable::Unsupported)
        };
        if let Some(most) = most.filter(|most| !most.is_empty())
            && number(most)? < number(least)?
        {
            return Err(Untranslatable::Malformed);
        }
        number(least)?;
        self.rest = rest;
        Ok(Some(format!("{{{inner}}}")))
    }

    /// A class of characters, behind its bracket.
    fn class(&mut self) -> Result<(), Untranslatable> {
        let is_negated = self.take("^");
        let mut items = Items::default();
        loop {
            let first = match self.next().ok_or(Untranslatable::Malformed)? {
                ']' => break,
                c => self.class_atom(c)?,
            };
            let rest = self.rest.strip_prefix('-');
            let Some(rest) = rest.filter(|rest| !rest.starts_with(']')) else {
                items.add(first);
                continue;
            };
            self.rest = rest;
            let last = self.next().ok_or(Untranslatable::Malformed)?;
            match (first, self.class_atom(last)?) {
                (Escape::Character(first), Escape::Character(last)) => {
                    if last < first {
                        return Err(Untranslatable::Malformed);
                    }
                    items.range(first, last);
                }
                // No range: all three mean themselves.
                (first, last) => {
                    items.add(first);
                    items.add(Escape::Character('-'.into()));
                    items.add(last);
                }
            }
        }
        // Halves of surrogate pairs are in no text; but without `u` one may be meant for a part of a character.
        if items.has_surrogates && !is_negated {
            return Err(Untranslatable::Unsupported);
        }
        match (is_negated, &*items.rust) {
            (true, "") => self.rust += ANY,
            (false, "") => self.rust += NONE,
            (true, items) => self.rust += &format!("[^{items}]"),
            (false, items) => self.rust += &format!("[{items}]"),
        }
        Ok(())
    }

    fn class_atom(&mut self, c: char) -> Result<Escape, Untranslatable> {
        match c {
            '\\' => self.escape(true),
            c => Ok(Escape::Character(c.into())),
        }
    }

    /// The meaning of an escape: the characters behind a backslash.
    fn escape(&mut self, in_class: bool) -> Result<Escape, Untranslatable> {
        let before = self.rest;
        let c = self.next().ok_or(Untranslatable::Malformed)?;
        let class = |items: &str| Ok(Escape::Class(format!("[{items}]")));
        let character = match c {
            'd' => return class(DIGITS),
            'w' => return class(WORD),
            's' => return class(BLANKS),
            'D' => return class(&format!("^{DIGITS}")),
            'W' => return class(&format!("^{WORD}")),
            'S' => return class(&format!("^{BLANKS}")),
            'b' if in_class => 0x08,
            'b' | 'B' if !in_class => return Err(Untranslatable::Unsupported),
            'k' if self.groups.are_named => return Err(Untranslatable::Unsupported),
            'p' | 'P' => match self.property() {
                Some(name) => return Ok(Escape::Class(format!(r"\{c}{{{name}}}"))),
                None => c.into(),
            },
            't' => 0x09,
            'n' => 0x0a,
            'v' => 0x0b,
            'f' => 0x0c,
            'r' => 0x0d,
            'c' => self.control(in_class).unwrap_or_else(|| {
                // The backslash means itself.
                self.rest = before;
                '\\'.into()
            }),
            'x' => self.hexadecimal(2).unwrap_or(c.into()),
            'u' => self.code_point().unwrap_or(c.into()),
            '0'..='9' => {
                if !in_class && self.is_back_reference(before) {
                    return Err(Untranslatable::Unsupported);
                }
                self.octal(c)
            }
            c => c.into(),
        };
        Ok(Escape::Character(character))
    }

    fn is_back_reference(&self, digits: &str) -> bool {
        let end = digits.find(|c: char| !c.is_ascii_digit());
        let digits = &digits[..end.unwrap_or(digits.len())];
        let number = digits.parse::<u64>();
        !digits.starts_with('0') && number.is_ok_and(|number| number <= self.groups.captures)
    }

    /// Up to three digits, as far as they are one byte; 8 and 9 mean themselves.
    fn octal(&mut self, first: char) -> u32 {
        let Some(mut value) = first.to_digit(8) else {
            return first.into();
        };
        let more = if value <= 3 { 2 } else { 1 };
        for _ in 0..more {
            let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8)) else {
                break;
            };
            self.next();
            value = value * 8 + digit;
        }
        value
    }

    fn control(&mut self, in_class: bool) -> Option<u32> {
        let is_letter =
            |c: char| c.is_ascii_alphabetic() || in_class && (c.is_ascii_digit() || c == '_');
        let letter = self.rest.chars().next().filter(|&c| is_letter(c))?;
        self.next();
        Some(u32::from(letter) % 32)
    }

    /// The name of a property, in its brackets.
    fn property(&mut self) -> Option<String> {
        let (name, rest) = self.rest.strip_prefix('{')?.split_once('}')?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '=');
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        self.rest = rest;
        Some(name.to_owned())
    }

    fn hexadecimal(&mut self, digits: usize) -> Option<u32> {
        let number = self.rest.get(..digits)?;
        if !number.bytes().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = &self.rest[digits..];
        u32::from_str_radix(number, 16).ok()
    }

    /// `\u{1f600}`, `\u0041`, or the two halves of a surrogate pair.
    fn code_point(&mut self) -> Option<u32> {
        if let Some((number, rest)) =
            (self.rest.strip_prefix('{')).and_then(|rest| rest.split_once('}'))
            && number.bytes().all(|c| c.is_ascii_hexdigit())
        {
            let number = u32::from_str_radix(number, 16).ok();
            let number = number.filter(|&number| number <= CODE_POINT_MAX)?;
            self.rest = rest;
            return Some(number);
        }
        let first = self.hexadecimal(4)?;
        let before = self.rest;
        if (0xd800..0xdc00).contains(&first)
            && self.take(r"\u")
            && let Some(second) = self.hexadecimal(4)
            && (0xdc00..0xe000).contains(&second)
        {
            return Some(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00));
        }
        self.rest = before;
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pattern::search;
    use super::*;

    #[test]
    fn annex_b_means_what_it_says() {
        for (pattern, inside, outside) in [
            (r"^[\w-.]+@[\w-]+$", &["a.b-c@x-y"][..], &["@x", "a@"][..]),
            (r"^[\d-z]$", &["7", "-", "z"], &["y", "a"]),
            (r"^[a-\d]$", &["7", "-", "a"], &["b"]),
            (r"^[\w-\s]$", &["a", "-", " "], &["."]),
            (r"^[\s-a-c]$", &[" ", "-", "a", "c"], &["b"]),
            (r"^[--/]$", &["-", ".", "/"], &[","]),
            ("^[a-]$", &["a", "-"], &["b"]),
            ("^[-a]$", &["a", "-"], &["b"]),
            ("^[^-a]$", &["b"], &["a", "-"]),
            ("^a{,2}$", &["a{,2}"], &["", "a", "aa"]),
            ("^{a}$", &["{a}"], &["a"]),
            ("^a{2$", &["a{2"], &["aa"]),
            ("^a{ 2}$", &["a{ 2}"], &["aa"]),
            ("^x{2}y{1,}z{0,1}$", &["xxy", "xxyyz"], &["xy", "xx"]),
            ("^a+?b*?c??d{2}?$", &["add", "aabbcdd"], &["dd"]),
            ("^]}$", &["]}"], &["]"]),
            (r"^\0$", &["\0"], &["0"]),
            (r"^[\0-\x1f]$", &["\0", "\u{1f}"], &[" "]),
            (r"^\101\1011\400\8$", &["AA1 08"], &["A1"]),
            (r"^[\1\12]$", &["\u{1}", "\n"], &["1"]),
            (r"^[\b]$", &["\u{8}"], &["b"]),
            (r"^[\B]$", &["B"], &["b"]),
            ("^[^]$", &["a", "\n", "🙂"], &["", "ab"]),
            ("^(?:a|[])$", &["a"], &["", "b"]),
            (r"^\ud83d\ude00$", &["😀"], &["a"]),
            (r"^[\ud83d\ude00-\ud83d\ude02]$", &["😀", "😁"], &["😃"]),
            (r"^[^\ud800-\udfff]$", &["a", "😀"], &["ab"]),
            (r"^[\u0000-\uffff]$", &["a", "\u{ffff}"], &["😀"]),
            (r"^\u{1f600}\u{41}$", &["😀A"], &["A"]),
            (r"^\z\A\Z\a\e$", &["zAZae"], &["", "z"]),
            (r"^\x{2}\xg\u1$", &["xxxgu1"], &["\u{2}xgu1"]),
            (r"^\x41\u0042\cA\c$", &["AB\u{1}\\c"], &["AB"]),
            (r"^[\c]$", &["\\", "c"], &["a"]),
            (r"^[\c_\c1]$", &["\u{1f}", "\u{11}"], &["_"]),
            (r"^\k\p\-\/\#$", &["kp-/#"], &["k"]),
            (
                r"^\p{Lu}\P{Script=Greek}[\p{L}\d-]$",
                &["Éa-", "Aé7"],
                &["aaa", "Aαa"],
            ),
            ("^[[a]&&~~]$", &["[&&~~]", "a&&~~]"], &["["]),
            (r"^[a&&b~~#\[]$", &["&", "~", "#", "["], &["c"]),
            ("^(?<year>[0-9]+)(?<stop>a)b$", &["1ab"], &["1a"]),
            ("^(?P<year>[0-9])$", &["1"], &["a"]),
            ("^(?i:ab)c$", &["ABc", "abc"], &["abC"]),
            ("(?i)^ab$", &["AB"], &["a"]),
            ("^.$", &["a", "😀"], &["\u{2028}", "\r"]),
            (r"^\s\S\D\W$", &["\u{feff}aa-", " aé-"], &["aaa-"]),
            ("^a b#c$", &["a b#c"], &["abc"]),
        ] {
            let set = search(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            for text in inside {
                assert_eq!(set.contains(text), Some(true), "{pattern} in {text:?}");
            }
            for text in outside {
                assert_eq!(set.contains(text), Some(false), "{pattern} in {text:?}");
            }
        }
    }

    #[test]
    fn what_is_not_translated_has_its_reason() {
        for (pattern, why) in [
            ("(", Untranslatable::Malformed),
            (")", Untranslatable::Malformed),
            ("[", Untranslatable::Malformed),
            (r"[\]", Untranslatable::Malformed),
            ("[b-a]", Untranslatable::Malformed),
            ("*a", Untranslatable::Malformed),
            ("a**", Untranslatable::Malformed),
            ("(?:|+)", Untranslatable::Malformed),
            ("^*", Untranslatable::Malformed),
            ("{2}", Untranslatable::Malformed),
            ("a{2,1}", Untranslatable::Malformed),
            ("(?<>a)", Untranslatable::Malformed),
            ("(?<a b>c)", Untranslatable::Malformed),
            ("(?>a)", Untranslatable::Malformed),
            ("a\\", Untranslatable::Malformed),
            (r"\bfoo\B", Untranslatable::Unsupported),
            (r"(a)\1", Untranslatable::Unsupported),
            (r"\1(a)", Untranslatable::Unsupported),
            (r"(?<a>b)\k<a>", Untranslatable::Unsupported),
            ("a(?=b)", Untranslatable::Unsupported),
            ("(?<!a)b", Untranslatable::Unsupported),
            ("(?m:^a)", Untranslatable::Unsupported),
            (r"\ud83d", Untranslatable::Unsupported),
            (
                r"[\ud800-\udbff][\udc00-\udfff]",
                Untranslatable::Unsupported,
            ),
            ("a{99999999999}", Untranslatable::Unsupported),
        ] {
            assert_eq!(Groups::of(pattern).to_rust(pattern), Err(why), "{pattern}");
        }
        // Look-aheads are taken out first; the groups in them count.
        let groups = Groups::of(r"^(?=(a))\1");
        assert_eq!(groups.to_rust(r"\1"), Err(Untranslatable::Unsupported));
    }
}
