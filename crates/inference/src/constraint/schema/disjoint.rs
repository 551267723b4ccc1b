//! Finds schemas that no value satisfies together. A `oneOf` of such schemas is an `anyOf`.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::keywords::{Keywords, Literal, NodeId, TypeSet, distinct};
use super::merge::{negative, positive};
use super::{Compiler, Failure, Term};

/// Depth to which references and `allOf` are followed to outline a schema.
const OUTLINE_DEPTH_MAX: usize = 8;
/// Depth to which the schemas of properties, and of the properties within them, are compared.
const COMPARE_DEPTH_MAX: usize = 3;
/// Limit on the branches of a `oneOf` that are compared with each other.
pub(super) const ONE_OF_MAX: usize = 400;

/// The conditions of a schema that are known without trying alternatives.
#[derive(Debug, Clone, Default)]
pub(super) struct Outline {
    types: Option<TypeSet>,
    literals: Option<Rc<[Literal]>>,
    required: HashSet<Rc<str>>,
    properties: HashMap<Rc<str>, Vec<NodeId>>,
    /// Whether only the names in `properties` are allowed.
    is_closed: bool,
}

impl Outline {
    fn add(&mut self, keywords: &Keywords) {
        if let Some(types) = keywords.types {
            self.types = Some(self.types.map_or(types, |known| known.and(types)));
        }
        if self.literals.is_none() {
            self.literals.clone_from(&keywords.literals);
        }
        self.required
            .extend(keywords.object.required.iter().cloned());
        for (name, node) in &keywords.object.properties {
            self.properties
                .entry(Rc::clone(name))
                .or_default()
                .push(*node);
        }
        self.is_closed |= keywords.object.additional == Some(NodeId::FALSE)
            && keywords.object.patterns.is_empty();
    }

    fn types(&self) -> TypeSet {
        let of_literals = self.literals.as_ref().map(|literals| {
            literals
                .iter()
                .fold(TypeSet::NONE, |types, literal| types.or(literal.kind()))
        });
        self.types
            .unwrap_or(TypeSet::ALL)
            .and(of_literals.unwrap_or(TypeSet::ALL))
    }
}

impl Compiler<'_> {
    /// The alternatives of a `oneOf`: each branch, with the negation of the branches that may overlap with it.
    pub(super) fn exclusive(
        &mut self,
        node: NodeId,
        branches: &[NodeId],
    ) -> Result<Vec<Vec<Term>>, Failure> {
        let (branches, twice) = self.single_literals(branches)?;
        let any = || {
            branches
                .iter()
                .map(|&branch| vec![positive(branch)])
                .collect()
        };
        if branches.len() > ONE_OF_MAX {
            let reason = format!("only up to {ONE_OF_MAX} branches are compared with each other");
            self.relax_node(node, "oneOf", reason);
            return Ok(any());
        }
        let mut alternatives: Vec<Vec<Term>> = any();
        if let Some(twice) = twice {
            alternatives
                .iter_mut()
                .for_each(|terms| terms.push(positive(twice)));
        }
        for (place, &one) in branches.iter().enumerate() {
            for (other_place, &other) in branches.iter().enumerate().skip(place + 1) {
                if self.are_disjoint(one, other, 0)? {
                    continue;
                }
                if self.negation(one)?.is_none() || self.negation(other)?.is_none() {
                    let reason = "two of its branches may overlap, and the opposite of one can't be enforced";
                    self.relax_node(node, "oneOf", reason.to_owned());
                    return Ok(any());
                }
                alternatives[place].push(negative(other));
                alternatives[other_place].push(negative(one));
            }
        }
        Ok(alternatives)
    }

    /// Joins the branches that only list values into one, with the values that are listed once. The second result is a
    /// schema that excludes the values that are listed several times.
    fn single_literals(
        &mut self,
        branches: &[NodeId],
    ) -> Result<(Vec<NodeId>, Option<NodeId>), Failure> {
        let mut counts: HashMap<Literal, usize> = HashMap::new();
        let mut order = Vec::new();
        let mut others = Vec::new();
        for &branch in branches {
            self.budget.spend(1)?;
            match self.look_up(branch)? {
                Some(Some(keywords)) => match keywords.only_literals() {
                    Some(literals) => {
                        self.budget.spend(literals.len())?;
                        for literal in literals.iter() {
                            *counts.entry(literal.clone()).or_default() += 1;
                            order.push(literal.clone());
                        }
                    }
                    None => others.push(branch),
                },
                Some(None) => {}
                None => others.push(branch),
            }
        }
        let (single, twice): (Vec<_>, Vec<_>) =
            order.into_iter().partition(|literal| counts[literal] == 1);
        let single = distinct(single);
        if !single.is_empty() {
            others.push(self.derive(Keywords {
                literals: Some(single),
                ..Keywords::default()
            }));
        }
        let twice = (!twice.is_empty()).then(|| {
            self.derive(Keywords {
                excluded: distinct(twice).to_vec(),
                ..Keywords::default()
            })
        });
        Ok((others, twice))
    }

    /// Whether it is certain that no value satisfies both.
    pub(super) fn are_disjoint(
        &mut self,
        one: NodeId,
        other: NodeId,
        depth: usize,
    ) -> Result<bool, Failure> {
        self.budget.spend(2)?;
        if one == NodeId::FALSE || other == NodeId::FALSE {
            return Ok(true);
        }
        if depth > COMPARE_DEPTH_MAX || one == other {
            return Ok(false);
        }
        let (a, b) = (self.outline(one)?, self.outline(other)?);
        let types = a.types().and(b.types());
        if types.is_empty() {
            return Ok(true);
        }
        if let (Some(a), Some(b)) = (&a.literals, &b.literals) {
            self.budget.spend(a.len() + b.len())?;
            let a: HashSet<_> = a.iter().collect();
            return Ok(!b.iter().any(|literal| a.contains(literal)));
        }
        if types != TypeSet::OBJECT {
            return Ok(false);
        }
        // The other schema forbids a required name, or no value of that name satisfies both schemas.
        self.budget.spend(a.required.len() + b.required.len())?;
        for (wants, has) in [(&a, &b), (&b, &a)] {
            for name in &wants.required {
                let Some(others) = has.properties.get(name) else {
                    if has.is_closed {
                        return Ok(true);
                    }
                    continue;
                };
                for &mine in wants.properties.get(name).into_iter().flatten() {
                    for &other in others {
                        if self.are_disjoint(mine, other, depth + 1)? {
                            return Ok(true);
                        }
                    }
                }
            }
        }
        Ok(false)
    }

    fn outline(&mut self, node: NodeId) -> Result<Rc<Outline>, Failure> {
        if let Some(known) = self.outlines.get(&node) {
            return Ok(Rc::clone(known));
        }
        let mut outline = Outline::default();
        let mut todo = vec![(node, 0)];
        let mut seen = HashSet::new();
        while let Some((node, depth)) = todo.pop() {
            if depth > OUTLINE_DEPTH_MAX || !seen.insert(node) {
                continue;
            }
            self.budget.spend(2)?;
            let Some(Some(keywords)) = self.look_up(node)? else {
                continue;
            };
            self.budget
                .spend(keywords.object.properties.len() + keywords.object.required.len())?;
            outline.add(&keywords);
            if let [branches] = &*keywords.any_of
                && outline.types.is_none()
            {
                outline.types = self.types_of_all(branches)?;
            }
            todo.extend(
                keywords
                    .reference
                    .iter()
                    .chain(&keywords.all_of)
                    .map(|&node| (node, depth + 1)),
            );
        }
        let outline = Rc::new(outline);
        self.outlines.insert(node, Rc::clone(&outline));
        Ok(outline)
    }

    /// The types of the values that satisfy any of the schemas; `None` if one of the schemas doesn't list its types
    /// itself.
    fn types_of_all(&mut self, branches: &[NodeId]) -> Result<Option<TypeSet>, Failure> {
        let mut all = TypeSet::NONE;
        for &branch in branches {
            self.budget.spend(1)?;
            let types = match self.look_up(branch)? {
                Some(Some(keywords)) => {
                    let of_literals = keywords.literals.as_ref().map(|literals| {
                        literals
                            .iter()
                            .fold(TypeSet::NONE, |types, literal| types.or(literal.kind()))
                    });
                    keywords.types.or(of_literals)
                }
                Some(None) => Some(TypeSet::NONE),
                None => None,
            };
            match types {
                Some(types) => all = all.or(types),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }
}
