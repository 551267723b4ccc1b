//! Sets of strings that no expression of bounded size says exactly, between two that are said.

use super::pattern::Pattern;

/// The strings of a pattern or of a format. What is written comes from a set that may be smaller, and the opposite is the
/// opposite of a set that may be larger: so both are right, and neither is the other's complement.
#[derive(Debug, Clone)]
pub(crate) struct TextSet {
    /// Only strings of the set.
    pub(crate) written: Pattern,
    /// All strings of the set; `None` if these are the written ones.
    all: Option<Pattern>,
    /// Decides about a given string; `None` if the written ones are all.
    members: Option<Members>,
}

#[derive(Debug, Clone)]
struct Members {
    pattern: Pattern,
    check: fn(&str) -> bool,
    is_negated: bool,
}

impl TextSet {
    pub(crate) fn exact(pattern: Pattern) -> Self {
        TextSet {
            written: pattern,
            all: None,
            members: None,
        }
    }

    /// The strings that match `members` and pass a check, which are no fewer than the written ones and no more than `all`.
    pub(crate) fn between(
        written: Pattern,
        all: Pattern,
        members: Pattern,
        check: fn(&str) -> bool,
    ) -> Self {
        TextSet {
            written,
            all: Some(all),
            members: Some(Members {
                pattern: members,
                check,
                is_negated: false,
            }),
        }
    }

    pub(crate) fn is_exact(&self) -> bool {
        self.all.is_none()
    }

    /// A pattern that every string of the set matches.
    pub(crate) fn all(&self) -> &Pattern {
        self.all.as_ref().unwrap_or(&self.written)
    }

    /// Whether a text is in the set; `None` if that takes too much work.
    pub(crate) fn contains(&self, text: &str) -> Option<bool> {
        let Some(members) = &self.members else {
            return self.written.contains(text);
        };
        let is_in = members.pattern.contains(text)? && (members.check)(text);
        Some(is_in != members.is_negated)
    }

    /// The strings that are not in the set.
    pub(crate) fn negated(&self) -> Self {
        TextSet {
            written: self.all().negated(),
            all: self.all.is_some().then(|| self.written.negated()),
            members: self.members.clone().map(|members| Members {
                is_negated: !members.is_negated,
                ..members
            }),
        }
    }
}
