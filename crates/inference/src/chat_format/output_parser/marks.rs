//! Finds marks in text that comes one character at a time.

/// Holds back text that may be the beginning of a mark, and nothing else.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    held: String,
}

impl Matcher {
    /// Takes a character. Returns the index of the mark that it completes. Text that can't be part of a mark any more
    /// goes to `release`. If one mark begins with another, the shorter one is found.
    pub(super) fn step(
        &mut self,
        c: char,
        marks: &[&str],
        release: &mut impl FnMut(char),
    ) -> Option<usize> {
        self.held.push(c);
        while !self.held.is_empty() {
            if let Some(found) = marks.iter().position(|&mark| mark == self.held) {
                self.held.clear();
                return Some(found);
            }
            if marks.iter().any(|mark| mark.starts_with(&self.held)) {
                return None;
            }
            release(self.held.remove(0));
        }
        None
    }

    /// Returns the text that is held back, at the end of the text.
    pub(super) fn take(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_marks() {
        let check = |text: &str, expected: &str| {
            let mut matcher = Matcher::default();
            let mut seen = String::new();
            for c in text.chars() {
                let mut released = String::new();
                let found = matcher.step(c, &["<a>", "<<b", "äö"], &mut |c| released.push(c));
                seen.push_str(&released);
                if let Some(found) = found {
                    seen.push_str(&format!("[{found}]"));
                }
            }
            assert_eq!(seen + "|" + &matcher.take(), expected, "{text}");
        };
        check("", "|");
        check("x<a>y", "x[0]y|");
        check("<<a>", "<[0]|");
        check("<<<b<", "<[1]|<");
        check("ääöä", "ä[2]|ä");
    }
}
