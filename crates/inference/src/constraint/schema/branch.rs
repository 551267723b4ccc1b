//! All conditions on a value, without alternatives.

use std::collections::HashSet;
use std::rc::Rc;

use super::super::decimal::Decimal;
use super::super::numbers::Range;
use super::keywords::{Keywords, LENGTH_MAX, Literal, NamedPattern, NodeId, TypeSet};

/// The `unevaluated…` keywords that see what a schema evaluates: a bit for each [`Scope`] of a branch.
pub(super) type Scopes = u32;

/// The `unevaluatedProperties` and `unevaluatedItems` of one schema.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) properties: Option<NodeId>,
    pub(super) items: Option<NodeId>,
}

/// A single schema of a branch.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) keywords: Rc<Keywords>,
    pub(super) scopes: Scopes,
    /// The scope of the schema's own `unevaluated…`.
    pub(super) own: Scopes,
}

/// All conditions on a value, without alternatives.
#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub(super) types: TypeSet,
    pub(super) is_whole: Option<bool>,
    pub(super) literals: Option<Rc<[Literal]>>,
    pub(super) excluded: Vec<Literal>,
    pub(super) range: Range,
    pub(super) multiples: Vec<Decimal>,
    pub(super) least_length: u64,
    pub(super) most_length: Option<u64>,
    pub(super) patterns: Vec<Rc<NamedPattern>>,
    pub(super) layers: Vec<Layer>,
    pub(super) scopes: Vec<Scope>,
}

impl Branch {
    pub(super) fn new() -> Self {
        Branch {
            types: TypeSet::ALL,
            is_whole: None,
            literals: None,
            excluded: Vec::new(),
            range: Range::default(),
            multiples: Vec::new(),
            least_length: 0,
            most_length: None,
            patterns: Vec::new(),
            layers: Vec::new(),
            scopes: Vec::new(),
        }
    }

    /// Whether the branch allows every value.
    pub(super) fn is_free(&self) -> bool {
        self.types == TypeSet::ALL
            && self.is_whole.is_none()
            && self.literals.is_none()
            && self.excluded.is_empty()
            && self.range == Range::default()
            && self.multiples.is_empty()
            && self.least_length == 0
            && self.most_length.is_none()
            && self.patterns.is_empty()
            && self.layers.is_empty()
    }

    /// Whether values of a type that aren't listed can satisfy the branch.
    pub(super) fn may_be(&self, kind: TypeSet) -> bool {
        self.types.has(kind) && self.literals.is_none()
    }

    /// The length of the longest string that is written.
    pub(super) fn most_written_length(&self) -> Option<u64> {
        written_most(self.most_length, self.least_length, LENGTH_MAX)
    }

    /// Whether there may be strings that satisfy it and aren't written.
    pub(super) fn narrows_strings(&self) -> bool {
        self.most_written_length() != self.most_length
            || self
                .patterns
                .iter()
                .any(|pattern| !pattern.texts.is_exact())
    }

    /// Adds the conditions of one schema; false if nothing satisfies the branch any more.
    pub(super) fn add(&mut self, keywords: &Keywords) -> bool {
        if let Some(types) = keywords.types {
            self.types = self.types.and(types);
        }
        match (self.is_whole, keywords.is_whole) {
            (Some(a), Some(b)) if a != b => {
                self.types = self.types.and(TypeSet::NUMBER.complement());
            }
            (_, None) => {}
            (_, wanted) => self.is_whole = wanted,
        }
        if let Some(literals) = &keywords.literals {
            self.literals = Some(match self.literals.take() {
                None => Rc::clone(literals),
                Some(before) => {
                    let allowed: HashSet<_> = literals.iter().collect();
                    before
                        .iter()
                        .filter(|literal| allowed.contains(literal))
                        .cloned()
                        .collect()
                }
            });
        }
        self.excluded.extend(keywords.excluded.iter().cloned());
        if let Some(low) = keywords.range.low.clone() {
            self.range.raise(low);
        }
        if let Some(high) = keywords.range.high.clone() {
            self.range.lower(high);
        }
        self.multiples.extend(keywords.multiples.iter().cloned());
        self.least_length = self.least_length.max(keywords.string.least);
        self.most_length = least_of(self.most_length, keywords.string.most);
        for pattern in &keywords.string.patterns {
            if self.patterns.iter().all(|known| known.name != pattern.name) {
                self.patterns.push(Rc::clone(pattern));
            }
        }
        let literals = self.literals.as_ref();
        !self.types.is_empty()
            && literals.is_none_or(|literals| {
                literals
                    .iter()
                    .any(|literal| self.types.has(literal.kind()))
            })
    }
}

/// An upper limit of what is written: one beyond what is enforced is taken for that.
pub(super) fn written_most(most: Option<u64>, least: u64, enforced: u64) -> Option<u64> {
    most.map(|most| most.min(enforced.max(least)))
}

/// The smaller of two upper limits.
pub(super) fn least_of(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
