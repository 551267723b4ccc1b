//! Which draft of JSON Schema a schema is written for, where the drafts differ.

use super::super::json::{Document, ValueId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Draft {
    Four,
    /// 5 to 7.
    Seven,
    V2019,
    V2020,
}

impl Draft {
    /// The draft that `$schema` names, of the innermost schema around a value that has one. 2020-12 where none is named.
    pub(super) fn of(document: &Document, value: ValueId) -> Self {
        let mut at = Some(value);
        while let Some(id) = at {
            let named = document
                .member(id, "$schema")
                .and_then(|name| document.get(name).as_str());
            if let Some(draft) = named.and_then(Draft::named) {
                return draft;
            }
            at = document.parent(id);
        }
        Draft::V2020
    }

    fn named(address: &str) -> Option<Self> {
        let known = [
            ("draft-03", Draft::Four),
            ("draft-04", Draft::Four),
            ("draft-05", Draft::Seven),
            ("draft-06", Draft::Seven),
            ("draft-07", Draft::Seven),
            ("draft/2019-09", Draft::V2019),
            ("draft/2020-12", Draft::V2020),
        ];
        let known = known.iter().find(|(name, _)| address.contains(name));
        known.map(|&(_, draft)| draft)
    }

    /// Up to draft 7 the keywords beside a `$ref` say nothing.
    pub(super) fn ref_hides_its_siblings(self) -> bool {
        self <= Draft::Seven
    }

    /// Items that `contains` finds are evaluated, as `unevaluatedItems` sees them.
    pub(super) fn contains_evaluates(self) -> bool {
        self == Draft::V2020
    }
}
