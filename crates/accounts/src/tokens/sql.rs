//! SQL with a part for each class of tokens, written once.
//!
//! [`token_sql`] repeats each `{…}` of a statement for every class, separated by commas, or by the text after `|`:
//! `@` is the class's column, and `$#5` the class's parameter, numbered from 5. With `%` in place of `@`, the part is
//! repeated for every column of prices, also with `%:` at its begin. So `{u.@}` becomes `u.prompt, u.cached, u.completion, u.reasoning`, and
//! `{% = $#2| AND }` becomes `input = $2 AND output = $3 AND cached = $4`. The compiler does it: statements stay constants.

use crate::tokens::{PRICE_COLUMNS, TOKEN_COLUMNS};

/// A constant statement, from the parts of its template.
macro_rules! token_sql {
    ($($part:expr),+ $(,)?) => {{
        const TEMPLATE: &str = concat!($($part),+);
        const LEN: usize = $crate::tokens::sql::expanded_len(TEMPLATE);
        const BYTES: [u8; LEN] = $crate::tokens::sql::expanded(TEMPLATE);
        const SQL: &str = match std::str::from_utf8(&BYTES) {
            Ok(sql) => sql,
            Err(_) => panic!("an expanded template is text"),
        };
        SQL
    }};
}
pub(crate) use token_sql;

pub(crate) const fn expanded_len(template: &str) -> usize {
    expand::<0>(template).len
}

pub(crate) const fn expanded<const N: usize>(template: &str) -> [u8; N] {
    expand::<N>(template).bytes
}

/// The expanded text as far as it has room, and the length of all of it.
struct Expanded<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

#[expect(
    clippy::arithmetic_side_effects,
    reason = "runs in the compiler, which stops at an overflow"
)]
impl<const N: usize> Expanded<N> {
    const fn push(&mut self, byte: u8) {
        if self.len < N {
            self.bytes[self.len] = byte;
        }
        self.len += 1;
    }

    const fn push_all(&mut self, text: &[u8], from: usize, to: usize) {
        let mut at = from;
        while at < to {
            self.push(text[at]);
            at += 1;
        }
    }

    const fn push_number(&mut self, number: usize) {
        if number > 9 {
            self.push_number(number / 10);
        }
        self.push(b"0123456789"[number % 10]);
    }

    /// The part of a block before its separator, for the class at `nth`.
    const fn push_part(&mut self, text: &[u8], from: usize, to: usize, column: &str, nth: usize) {
        let mut at = from;
        while at < to {
            match text[at] {
                b'@' | b'%' => self.push_all(column.as_bytes(), 0, column.len()),
                b'#' => {
                    let (number, end) = number(text, at + 1);
                    self.push_number(number + nth);
                    at = end - 1;
                }
                byte => self.push(byte),
            }
            at += 1;
        }
    }

    const fn push_block(&mut self, text: &[u8], from: usize, to: usize) {
        let part_end = find(text, from, to, b'|');
        let is_bare = text[from] == b'%' && text[from + 1] == b':';
        let part = if is_bare { from + 2 } else { from };
        let columns: &[&str] = match find(text, from, part_end, b'%') < part_end {
            true => &PRICE_COLUMNS,
            false => &TOKEN_COLUMNS,
        };
        let mut nth = 0;
        while nth < columns.len() {
            if nth > 0 && part_end < to {
                self.push_all(text, part_end + 1, to);
            } else if nth > 0 {
                self.push_all(b", ", 0, 2);
            }
            self.push_part(text, part, part_end, columns[nth], nth);
            nth += 1;
        }
    }
}

#[expect(
    clippy::arithmetic_side_effects,
    reason = "runs in the compiler, which stops at an overflow"
)]
const fn expand<const N: usize>(template: &str) -> Expanded<N> {
    let text = template.as_bytes();
    let mut expanded = Expanded {
        bytes: [0; N],
        len: 0,
    };
    let mut at = 0;
    while at < text.len() {
        if text[at] == b'{' {
            let end = find(text, at, text.len(), b'}');
            expanded.push_block(text, at + 1, end);
            at = end;
        } else {
            expanded.push(text[at]);
        }
        at += 1;
    }
    expanded
}

/// The place of a byte; `to` if it isn't there.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "runs in the compiler, which stops at an overflow"
)]
const fn find(text: &[u8], from: usize, to: usize, byte: u8) -> usize {
    let mut at = from;
    while at < to && text[at] != byte {
        at += 1;
    }
    at
}

/// The number that begins at `from`, and the place after it.
#[expect(
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    reason = "runs in the compiler, which stops at an overflow"
)]
const fn number(text: &[u8], from: usize) -> (usize, usize) {
    let (mut number, mut at) = (0, from);
    while at < text.len() && text[at].is_ascii_digit() {
        number = number * 10 + (text[at] - b'0') as usize;
        at += 1;
    }
    (number, at)
}

#[cfg(test)]
mod tests {
    #[test]
    fn blocks_are_repeated() {
        let check = |sql: &str, expanded: &str| assert_eq!(sql, expanded);
        check(token_sql!("SELECT 1"), "SELECT 1");
        check(
            token_sql!("SELECT {u.@}, x"),
            "SELECT u.prompt, u.cached, u.completion, u.reasoning, x",
        );
        check(
            token_sql!("SET {@ = $#8} WHERE ", "{a.@ <> b.@| OR }"),
            "SET prompt = $8, cached = $9, completion = $10, reasoning = $11 WHERE \
             a.prompt <> b.prompt OR a.cached <> b.cached OR a.completion <> b.completion OR a.reasoning <> b.reasoning",
        );
        check(
            token_sql!("{% = $#2| AND }"),
            "input = $2 AND output = $3 AND cached = $4",
        );
        check(token_sql!("{0}"), "0, 0, 0, 0");
        check(token_sql!("({%:$#9})"), "($9, $10, $11)");
    }
}
