//! Negates schemas: the values that a schema doesn't allow, as alternatives.

use std::rc::Rc;

use super::super::numbers::Bound;
use super::keywords::{
    ArrayRules, Contains, Keywords, LENGTH_MAX, NamedPattern, NodeId, ObjectRules,
    SCHEMA_ITEMS_MAX, StringRules, TypeSet,
};
use super::merge::{Alternatives, negative, positive};
use super::{Compiler, Failure, Term};

/// Limit on the alternatives of one negated schema.
const ALTERNATIVES_MAX: usize = 256;
/// Limit on the branches of a `oneOf` that is negated.
const NEGATED_ONE_OF_MAX: usize = 5;

impl Compiler<'_> {
    /// The alternatives of a schema's negation: every value that the schema doesn't allow satisfies one of them, and no
    /// other value does. `None` if the negation can't be expressed; the schema is then listed as not enforced.
    pub(super) fn negation(&mut self, node: NodeId) -> Result<Option<Alternatives>, Failure> {
        if let Some(known) = self.negated.get(&node) {
            return Ok(known.clone());
        }
        let negation = self.negate(node)?;
        self.negated.insert(node, negation.clone());
        Ok(negation)
    }

    fn negate(&mut self, node: NodeId) -> Result<Option<Alternatives>, Failure> {
        let keywords = match self.look_up(node)? {
            None => return Ok(Some(Rc::from([]))),
            Some(None) => return Ok(Some(Rc::from([Vec::new()]))),
            Some(Some(keywords)) => keywords,
        };
        self.budget.spend(4)?;
        let mut negation = Negation {
            compiler: self,
            alternatives: Vec::new(),
        };
        let said = negation.say(&keywords);
        let alternatives = negation.alternatives;
        match said.filter(|()| alternatives.len() <= ALTERNATIVES_MAX) {
            Some(()) => Ok(Some(alternatives.into())),
            None => {
                self.relax_node(node, "", "its opposite can't be enforced".to_owned());
                Ok(None)
            }
        }
    }
}

struct Negation<'a, 'b> {
    compiler: &'a mut Compiler<'b>,
    alternatives: Vec<Vec<Term>>,
}

impl Negation<'_, '_> {
    fn say(&mut self, keywords: &Keywords) -> Option<()> {
        if keywords.is_partial {
            return None;
        }
        if let Some(types) = keywords.types {
            self.or(Keywords::of_types(types.complement()));
        }
        if let Some(is_whole) = keywords.is_whole {
            self.or(Keywords {
                is_whole: Some(!is_whole),
                ..Keywords::of_types(TypeSet::NUMBER)
            });
        }
        if let Some(literals) = &keywords.literals {
            self.or(Keywords {
                excluded: literals.to_vec(),
                ..Keywords::default()
            });
        }
        if !keywords.excluded.is_empty() {
            self.or(Keywords {
                literals: Some(keywords.excluded.as_slice().into()),
                ..Keywords::default()
            });
        }
        let flipped = |bound: &Bound| Bound {
            is_exclusive: !bound.is_exclusive,
            ..bound.clone()
        };
        if let Some(low) = &keywords.range.low {
            self.or(Keywords::bounded(None, Some(flipped(low))));
        }
        if let Some(high) = &keywords.range.high {
            self.or(Keywords::bounded(Some(flipped(high)), None));
        }
        if !keywords.multiples.is_empty() {
            return None;
        }
        self.strings(&keywords.string)?;
        self.arrays(&keywords.array)?;
        self.objects(&keywords.object)?;
        self.applicators(keywords)
    }

    fn strings(&mut self, string: &StringRules) -> Option<()> {
        let mut or = |string: StringRules| {
            self.or(Keywords {
                string,
                ..Keywords::of_types(TypeSet::STRING)
            });
        };
        if let Some(fewer) = string.least.checked_sub(1) {
            or(StringRules {
                most: Some(fewer),
                ..StringRules::default()
            });
        }
        if let Some(most) = string.most {
            if most >= LENGTH_MAX {
                return None;
            }
            or(StringRules {
                least: most + 1,
                ..StringRules::default()
            });
        }
        for pattern in &string.patterns {
            or(StringRules {
                patterns: vec![Rc::new(NamedPattern {
                    name: format!("not {}", pattern.name),
                    texts: pattern.texts.negated(),
                })],
                ..StringRules::default()
            });
        }
        Some(())
    }

    fn arrays(&mut self, array: &ArrayRules) -> Option<()> {
        if array.is_unique || array.unevaluated.is_some_and(|node| node != NodeId::TRUE) {
            return None;
        }
        if let Some(fewer) = array.least.checked_sub(1) {
            self.or(Keywords::of_array(ArrayRules {
                most: Some(fewer),
                ..ArrayRules::default()
            }));
        }
        if let Some(most) = array.most {
            if most >= SCHEMA_ITEMS_MAX {
                return None;
            }
            self.or(Keywords::of_array(ArrayRules {
                least: most + 1,
                ..ArrayRules::default()
            }));
        }
        for (place, &item) in array
            .prefix
            .iter()
            .enumerate()
            .filter(|(_, item)| **item != NodeId::TRUE)
        {
            let mut prefix = vec![NodeId::TRUE; place];
            prefix.push(self.compiler.opposite(item));
            self.or(Keywords::of_array(ArrayRules {
                prefix,
                least: place as u64 + 1,
                ..ArrayRules::default()
            }));
        }
        match array.items.filter(|&items| items != NodeId::TRUE) {
            None => {}
            // With `items: false` an array is too long if it has one item more than the prefix.
            Some(NodeId::FALSE) => self.or(Keywords::of_array(ArrayRules {
                least: array.prefix.len() as u64 + 1,
                ..ArrayRules::default()
            })),
            Some(items) if array.prefix.is_empty() => {
                let node = self.compiler.opposite(items);
                self.or(Keywords::of_array(ArrayRules {
                    contains: Some(Contains {
                        node,
                        least: 1,
                        most: None,
                    }),
                    ..ArrayRules::default()
                }));
            }
            Some(_) => return None,
        }
        match &array.contains {
            None => Some(()),
            Some(Contains {
                node,
                least: 1,
                most: None,
            }) => {
                let items = self.compiler.opposite(*node);
                self.or(Keywords::of_array(ArrayRules {
                    items: Some(items),
                    ..ArrayRules::default()
                }));
                Some(())
            }
            Some(_) => None,
        }
    }

    fn objects(&mut self, object: &ObjectRules) -> Option<()> {
        let is_open = |node: Option<NodeId>| node.is_none_or(|node| node == NodeId::TRUE);
        let patterns_are_free = object
            .patterns
            .iter()
            .all(|&(_, node)| node == NodeId::TRUE);
        if !is_open(object.additional)
            || !is_open(object.names)
            || !is_open(object.unevaluated)
            || !patterns_are_free
        {
            return None;
        }
        if let Some(fewer) = object.least.checked_sub(1) {
            self.or(Keywords::of_object(ObjectRules {
                most: Some(fewer),
                ..ObjectRules::default()
            }));
        }
        if let Some(most) = object.most {
            if most >= SCHEMA_ITEMS_MAX {
                return None;
            }
            self.or(Keywords::of_object(ObjectRules {
                least: most + 1,
                ..ObjectRules::default()
            }));
        }
        for name in &object.required {
            self.or(Keywords::forbidding(name));
        }
        for (name, node) in &object.properties {
            let node = self.compiler.opposite(*node);
            if node != NodeId::FALSE {
                let mut with = Keywords::requiring(name);
                with.object.properties = vec![(Rc::clone(name), node)];
                self.or(with);
            }
        }
        for (name, names) in &object.dependent_required {
            for missing in names {
                let mut with = Keywords::requiring(name);
                with.object.properties = vec![(Rc::clone(missing), NodeId::FALSE)];
                self.or(with);
            }
        }
        for (name, node) in &object.dependent_schemas {
            let with = self.compiler.derive(Keywords::requiring(name));
            self.alternatives
                .push(vec![positive(with), negative(*node)]);
        }
        Some(())
    }

    fn applicators(&mut self, keywords: &Keywords) -> Option<()> {
        for &node in keywords.reference.iter().chain(&keywords.all_of) {
            self.alternatives.push(vec![negative(node)]);
        }
        for branches in keywords.enumerated.iter().chain(&keywords.any_of) {
            self.alternatives
                .push(branches.iter().map(|&node| negative(node)).collect());
        }
        if !keywords.one_of.is_empty() {
            let branches = &keywords.one_of;
            if branches.len() > NEGATED_ONE_OF_MAX {
                return None;
            }
            self.alternatives
                .push(branches.iter().map(|&node| negative(node)).collect());
            for (place, &one) in branches.iter().enumerate() {
                for &other in &branches[place + 1..] {
                    self.alternatives.push(vec![positive(one), positive(other)]);
                }
            }
        }
        if let Some(not) = keywords.not {
            self.alternatives.push(vec![positive(not)]);
        }
        if let Some(conditional) = &keywords.conditional
            && !conditional.allows_all()
        {
            self.alternatives.push(vec![
                positive(conditional.condition),
                negative(conditional.then),
            ]);
            self.alternatives.push(vec![
                negative(conditional.condition),
                negative(conditional.otherwise),
            ]);
        }
        Some(())
    }

    /// Adds an alternative.
    fn or(&mut self, keywords: Keywords) {
        let node = self.compiler.derive(keywords);
        self.alternatives.push(vec![positive(node)]);
    }
}
