//! Splits a conjunction of schemas into branches: each has all conditions that hold together, and no alternatives.

use std::collections::HashSet;
use std::rc::Rc;

use super::branch::{Branch, Layer, Scope, Scopes};
use super::keywords::{Keywords, NodeId, TypeSet, distinct};
use super::{Coarse, Compiler, Failure, Term};

/// Limit on the branches of one conjunction: products of `anyOf`, `oneOf`, `if`, `not` and `dependent…`.
pub const BRANCHES_MAX: usize = 2_048;
/// Limit on the `unevaluatedProperties` and `unevaluatedItems` that apply to one value.
const SCOPES_MAX: usize = 32;

/// Alternatives of an `anyOf` whose parts are looked at, beyond its branches.
const OVERLAPPING_MAX: usize = 16;
/// The condition that every value satisfies.
const ANYTHING: Term = Term {
    node: NodeId::TRUE,
    is_negated: false,
};

/// A keyword that leaves a choice between alternatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Choosing {
    Enum,
    AnyOf,
    OneOf,
    Not,
    If,
    DependentRequired,
    DependentSchemas,
    /// The negation of the schema itself.
    Negated,
}

impl Choosing {
    fn name(self) -> &'static str {
        match self {
            Choosing::Enum => "enum",
            Choosing::AnyOf => "anyOf",
            Choosing::OneOf => "oneOf",
            Choosing::Not => "not",
            Choosing::If => "if",
            Choosing::DependentRequired => "dependentRequired",
            Choosing::DependentSchemas => "dependentSchemas",
            Choosing::Negated => "",
        }
    }
}

/// A schema to add to a branch, and the scopes that see what it evaluates.
type Addition = (Term, Scopes);

/// Something to add to a branch. The last in a list is added next.
#[derive(Debug, Clone)]
enum Todo {
    Schema(Addition),
    /// A layer that was read already, but comes after the references and `allOf` that stand before its `properties`.
    Layer(Layer),
}

/// For each alternative, the schemas to add.
pub(super) type Alternatives = Rc<[Vec<Term>]>;

/// A choice that a schema leaves open: its keyword and alternatives. It doesn't depend on the scopes that see the schema.
pub(super) type Open = (Choosing, Alternatives);

#[derive(Debug, Clone)]
struct Choice {
    node: NodeId,
    by: Choosing,
    alternatives: Alternatives,
    scopes: Scopes,
}

/// A branch under construction.
#[derive(Debug, Clone)]
struct Draft {
    branch: Branch,
    todo: Vec<Todo>,
    seen: HashSet<Addition>,
    choices: Vec<Choice>,
}

impl Compiler<'_> {
    /// The branches of a conjunction. As long as there are too many, the widest choice is left out and listed as not
    /// enforced.
    pub(super) fn branches(&mut self, conjunction: &[Term]) -> Result<Vec<Branch>, Failure> {
        loop {
            match self.try_branches(conjunction)? {
                Ok(branches) => return Ok(branches),
                Err((node, by)) => {
                    self.relax_node(
                        node,
                        by.name(),
                        "it multiplies with others to more branches than are enforced".to_owned(),
                    );
                    self.given_up.insert((node, by));
                }
            }
        }
    }

    /// The branches or, if there are too many, the choice with the most alternatives.
    fn try_branches(
        &mut self,
        conjunction: &[Term],
    ) -> Result<Result<Vec<Branch>, (NodeId, Choosing)>, Failure> {
        let first = Draft {
            branch: Branch::new(),
            todo: conjunction
                .iter()
                .rev()
                .map(|&term| Todo::Schema((term, 0)))
                .collect(),
            seen: HashSet::new(),
            choices: Vec::new(),
        };
        let mut drafts = vec![first];
        let mut branches = Vec::new();
        // A single choice may have any number of alternatives; only its products with others are limited.
        let mut most = None;
        let mut widest: Option<(usize, NodeId, Choosing)> = None;
        while let Some(mut draft) = drafts.pop() {
            if !self.settle(&mut draft)? {
                continue;
            }
            let Some(place) = draft.next_choice() else {
                branches.push(draft.branch);
                continue;
            };
            let choice = draft.choices.remove(place);
            let width = choice.alternatives.len();
            if widest.is_none_or(|(most, ..)| width > most) {
                widest = Some((width, choice.node, choice.by));
            }
            let most = *most.get_or_insert(BRANCHES_MAX + width);
            if branches.len() + drafts.len() + width > most
                && let Some((_, node, by)) = widest
            {
                return Ok(Err((node, by)));
            }
            for alternative in choice.alternatives.iter().rev() {
                self.budget.spend(
                    8 + draft.todo.len() + draft.choices.len() + draft.branch.layers.len(),
                )?;
                let mut draft = draft.clone();
                let added = alternative
                    .iter()
                    .rev()
                    .map(|&term| Todo::Schema((term, choice.scopes)));
                draft.todo.extend(added);
                drafts.push(draft);
            }
        }
        Ok(Ok(branches))
    }

    /// Adds everything in `todo` to the branch; false if nothing satisfies the branch.
    fn settle(&mut self, draft: &mut Draft) -> Result<bool, Failure> {
        while let Some(todo) = draft.todo.pop() {
            let (term, scopes) = match todo {
                Todo::Schema(addition) => addition,
                Todo::Layer(layer) => {
                    draft.branch.layers.push(layer);
                    continue;
                }
            };
            if !draft.seen.insert((term, scopes)) {
                continue;
            }
            self.budget.spend(2)?;
            self.refuse_endless_reference(term.node)?;
            if term.is_negated {
                let Some(alternatives) = self.negation(term.node)? else {
                    continue;
                };
                // A negated schema evaluates no properties or items for others.
                if !self.given_up.contains(&(term.node, Choosing::Negated)) {
                    draft.choices.push(Choice {
                        node: term.node,
                        by: Choosing::Negated,
                        alternatives,
                        scopes: 0,
                    });
                }
                continue;
            }
            let keywords = match self.look_up(term.node)? {
                None => continue,
                Some(None) => return Ok(false),
                Some(Some(keywords)) => keywords,
            };
            if !self.add(draft, term.node, &keywords, scopes)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add(
        &mut self,
        draft: &mut Draft,
        node: NodeId,
        keywords: &Rc<Keywords>,
        scopes: Scopes,
    ) -> Result<bool, Failure> {
        let own = self.open_scope(draft, node, keywords);
        // The scope of the schema itself also sees what the schemas in it evaluate.
        let inner = scopes | own;
        if !draft.branch.add(keywords) {
            return Ok(false);
        }
        if keywords.says_something_of_parts() {
            let layer = Layer {
                keywords: Rc::clone(keywords),
                scopes: inner,
                own,
            };
            match keywords.applies_first {
                true => draft.todo.push(Todo::Layer(layer)),
                false => draft.branch.layers.push(layer),
            }
        }
        let parts = keywords.reference.iter().chain(&keywords.all_of);
        let parts: Vec<_> = parts
            .map(|&node| Todo::Schema((positive(node), inner)))
            .collect();
        draft.todo.extend(parts.into_iter().rev());
        for &(by, ref alternatives) in self.open(node, keywords)?.iter() {
            let scopes = if by == Choosing::Enum { 0 } else { inner };
            // What allows every value matters only to those who ask what it evaluates.
            let is_free = scopes == 0 && alternatives.iter().any(|terms| *terms == [ANYTHING]);
            if is_free || self.given_up.contains(&(node, by)) {
                continue;
            }
            let alternatives = match by {
                Choosing::AnyOf if scopes != 0 => self.overlapping(node, alternatives)?,
                _ => Rc::clone(alternatives),
            };
            draft.choices.push(Choice {
                node,
                by,
                alternatives,
                scopes,
            });
        }
        Ok(true)
    }

    /// The alternatives of an `anyOf` and those of them that hold together: what any of them evaluates is evaluated.
    fn overlapping(
        &mut self,
        node: NodeId,
        alternatives: &Alternatives,
    ) -> Result<Alternatives, Failure> {
        if let Some(known) = self.overlapping.get(&node) {
            return Ok(Rc::clone(known));
        }
        let branches: Vec<NodeId> = alternatives
            .iter()
            .flatten()
            .map(|term| term.node)
            .collect();
        let mut all: Vec<Vec<usize>> = (0..branches.len()).map(|place| vec![place]).collect();
        let mut next = 0;
        while next < all.len() && all.len() <= OVERLAPPING_MAX {
            let set = all[next].clone();
            next += 1;
            let after = set.last().map_or(0, |last| last + 1);
            for more in after..branches.len() {
                if !self.may_overlap(&branches, &set, more)? {
                    continue;
                }
                all.push([&set[..], &[more]].concat());
            }
        }
        if all.len() > OVERLAPPING_MAX.max(branches.len()) {
            all.truncate(OVERLAPPING_MAX.max(branches.len()));
            let reason =
                "more of its branches may hold at once than are told apart beside `unevaluated…`";
            if let Some(place) = self.place(node) {
                self.narrow(
                    self.document.member(place, "anyOf").unwrap_or(place),
                    reason,
                );
            }
        }
        let terms = |set: Vec<usize>| set.iter().map(|&place| positive(branches[place])).collect();
        let all: Alternatives = all.into_iter().map(terms).collect();
        self.overlapping.insert(node, Rc::clone(&all));
        Ok(all)
    }

    /// Whether a branch may hold together with some others, and adds something to them.
    fn may_overlap(
        &mut self,
        branches: &[NodeId],
        set: &[usize],
        more: usize,
    ) -> Result<bool, Failure> {
        for &place in set {
            if branches[place] == NodeId::TRUE
                || branches[more] == NodeId::TRUE
                || self.are_disjoint(branches[place], branches[more], 0)?
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open_scope(&mut self, draft: &mut Draft, node: NodeId, keywords: &Keywords) -> Scopes {
        let (properties, items) = (keywords.object.unevaluated, keywords.array.unevaluated);
        let says = |node: Option<NodeId>| node.filter(|&node| node != NodeId::TRUE);
        let scope = Scope {
            properties: says(properties),
            items: says(items),
        };
        if scope.properties.is_none() && scope.items.is_none() {
            return 0;
        }
        if self.coarse == Coarse::Wide {
            let reason = "more of what it sees may hold at once than is told apart".to_owned();
            for (keyword, says) in [
                ("unevaluatedProperties", scope.properties),
                ("unevaluatedItems", scope.items),
            ] {
                if says.is_some() {
                    self.relax_node(node, keyword, reason.clone());
                }
            }
            return 0;
        }
        if draft.branch.scopes.len() == SCOPES_MAX {
            self.relax_node(
                node,
                "unevaluatedProperties",
                "there are too many of them in one value".to_owned(),
            );
            return 0;
        }
        draft.branch.scopes.push(scope);
        1 << (draft.branch.scopes.len() - 1)
    }

    /// The choices that a schema leaves open.
    fn open(&mut self, node: NodeId, keywords: &Keywords) -> Result<Rc<[Open]>, Failure> {
        if let Some(known) = self.open.get(&node) {
            return Ok(Rc::clone(known));
        }
        let mut open: Vec<Open> = Vec::new();
        for branches in &keywords.enumerated {
            self.budget.spend(branches.len())?;
            open.push((
                Choosing::Enum,
                branches.iter().map(|&node| vec![positive(node)]).collect(),
            ));
        }
        for branches in &keywords.any_of {
            self.budget.spend(branches.len())?;
            let branches = self.joined(branches)?;
            open.push((
                Choosing::AnyOf,
                branches.iter().map(|&node| vec![positive(node)]).collect(),
            ));
        }
        if !keywords.one_of.is_empty() {
            open.push((
                Choosing::OneOf,
                self.exclusive(node, &keywords.one_of)?.into(),
            ));
        }
        if let Some(not) = keywords.not {
            open.push((Choosing::Not, Rc::from([vec![negative(not)]])));
        }
        if let Some(conditional) = &keywords.conditional
            && conditional.allows_all()
        {
            let alternatives = [vec![positive(conditional.condition)], vec![ANYTHING]];
            open.push((Choosing::If, Rc::from(alternatives)));
        } else if let Some(conditional) = &keywords.conditional {
            let holds = vec![positive(conditional.condition), positive(conditional.then)];
            let fails = vec![
                negative(conditional.condition),
                positive(conditional.otherwise),
            ];
            match self.negation(conditional.condition)?.is_some() {
                true => open.push((Choosing::If, Rc::from([holds, fails]))),
                false => self.relax_node(node, "if", "its opposite can't be enforced".to_owned()),
            }
        }
        let object = &keywords.object;
        let required = (object.dependent_required.iter()).map(|(name, names)| {
            let mut with = Keywords::requiring(name);
            with.object.required.extend(names.iter().cloned());
            (Choosing::DependentRequired, name, with, NodeId::TRUE)
        });
        let schemas = (object.dependent_schemas.iter()).map(|(name, node)| {
            (
                Choosing::DependentSchemas,
                name,
                Keywords::requiring(name),
                *node,
            )
        });
        for (by, name, with, schema) in required.chain(schemas) {
            self.budget.spend(4 + with.object.required.len())?;
            let without_object = self.derive(Keywords::of_types(TypeSet::OBJECT.complement()));
            let without = self.derive(Keywords::forbidding(name));
            let with = self.derive(with);
            let alternatives = [
                vec![positive(without_object)],
                vec![positive(without)],
                vec![positive(with), positive(schema)],
            ];
            open.push((by, Rc::from(alternatives)));
        }
        let open: Rc<[Open]> = open.into();
        self.open.insert(node, Rc::clone(&open));
        Ok(open)
    }

    /// The branches of an `anyOf`. Those that only list values are joined into one.
    pub(super) fn joined(&mut self, branches: &[NodeId]) -> Result<Vec<NodeId>, Failure> {
        let mut literals = Vec::new();
        let mut others = Vec::new();
        for &branch in branches {
            self.budget.spend(1)?;
            match self.look_up(branch)? {
                Some(Some(keywords)) => match keywords.only_literals() {
                    Some(own) => literals.extend(own.iter().cloned()),
                    None => others.push(branch),
                },
                Some(None) => {}
                None => others.push(NodeId::TRUE),
            }
        }
        if !literals.is_empty() {
            others.push(self.derive(Keywords {
                literals: Some(distinct(literals)),
                ..Keywords::default()
            }));
        }
        Ok(others)
    }
}

impl Draft {
    /// The index of the choice to make next: the one with the fewest alternatives.
    fn next_choice(&self) -> Option<usize> {
        let widths = self.choices.iter().map(|choice| choice.alternatives.len());
        widths
            .enumerate()
            .min_by_key(|&(_, width)| width)
            .map(|(place, _)| place)
    }
}

pub(super) fn positive(node: NodeId) -> Term {
    Term {
        node,
        is_negated: false,
    }
}

pub(super) fn negative(node: NodeId) -> Term {
    Term {
        node,
        is_negated: true,
    }
}
