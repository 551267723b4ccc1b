//! Rules for objects: the declared names in order, then free names, which the schema doesn't list.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::super::rules::{Alternative, Spacing, Symbol};
use super::branch::{Branch, least_of, written_most};
use super::keywords::{NodeId, SCHEMA_ITEMS_MAX};
use super::merge::positive;
use super::{Compiler, Conjunction, Failure};

/// Limit on the enforced names of one object.
pub const PROPERTIES_MAX: usize = 1_000;
/// Limit on the members of an object times the counts that `minProperties` and `maxProperties` distinguish.
const COUNTED_MAX: usize = 4_000;

/// A member that an object has or may have.
pub(super) struct Member {
    pub(super) name: Rc<str>,
    pub(super) schema: Conjunction,
    pub(super) is_required: bool,
}

/// How many members an object may have.
struct Counts {
    least: usize,
    most: Option<usize>,
}

impl Compiler<'_> {
    pub(super) fn object(&mut self, branch: &Branch) -> Result<Symbol, Failure> {
        let nothing = Vec::new();
        let Some(members) = self.members(branch)? else {
            return Ok(self.rules.rule(nothing, Spacing::Json));
        };
        let free = self.free_members(branch, &members)?;
        let counts = self.counts(branch, &members, free.is_some());
        let members: Vec<_> = members
            .into_iter()
            .filter(|member| !self.is_plainly_empty(&member.schema))
            .collect();
        let colon = self.rules.literal(":", Spacing::Json);
        let mut written = Vec::with_capacity(members.len());
        for member in members {
            self.budget.spend(4)?;
            let name = self.rules.literal(
                &serde_json::Value::from(&*member.name).to_string(),
                Spacing::Json,
            );
            let value = self.conjunction(member.schema);
            written.push((vec![name, colon, value], member.is_required));
        }
        self.sequence(&written, free, &counts)
    }

    /// The members that the schema declares or requires; `None` if a required member can't be there.
    fn members(&mut self, branch: &Branch) -> Result<Option<Vec<Member>>, Failure> {
        let layers = &branch.layers;
        let mut names: Vec<Rc<str>> = Vec::new();
        let mut required: HashSet<Rc<str>> = HashSet::new();
        let mut seen: HashSet<Rc<str>> = HashSet::new();
        for layer in layers {
            let object = &layer.keywords.object;
            self.budget
                .spend(object.properties.len() + object.required.len())?;
            let properties = object.properties.iter().map(|(name, _)| name);
            names.extend(
                properties
                    .filter(|&name| seen.insert(Rc::clone(name)))
                    .cloned(),
            );
            required.extend(object.required.iter().cloned());
        }
        for layer in layers {
            let more = layer.keywords.object.required.iter();
            names.extend(more.filter(|&name| seen.insert(Rc::clone(name))).cloned());
        }
        if names.len() > PROPERTIES_MAX {
            let reason =
                format!("an object may name at most {PROPERTIES_MAX} properties to be enforced");
            self.relax_layers(branch, "properties", &reason);
            // The first names are enforced, and all required ones.
            let mut left = PROPERTIES_MAX;
            names.retain(|name| {
                let kept = left > 0 || required.contains(name);
                left = left.saturating_sub(1);
                kept
            });
        }
        let own: Vec<HashMap<&str, NodeId>> = layers
            .iter()
            .map(|layer| {
                layer
                    .keywords
                    .object
                    .properties
                    .iter()
                    .map(|(name, node)| (&**name, *node))
                    .collect()
            })
            .collect();
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            let mut schema = Conjunction::new();
            self.budget.spend(layers.len())?;
            let mut evaluated = 0;
            for (layer, own) in layers.iter().zip(&own) {
                let object = &layer.keywords.object;
                schema.extend(own.get(&*name).map(|&node| positive(node)));
                let mut matched = own.contains_key(&*name);
                for (pattern, node) in &object.patterns {
                    self.budget.spend(20)?;
                    if pattern.texts.contains(&name) != Some(false) {
                        schema.push(positive(*node));
                        matched = true;
                    }
                }
                if !matched && let Some(additional) = object.additional {
                    schema.push(positive(additional));
                    matched = true;
                }
                if matched {
                    evaluated |= layer.scopes;
                }
                // A layer's own `unevaluatedProperties` evaluates the name for the schemas around the layer.
                if object.unevaluated.is_some() {
                    evaluated |= layer.scopes & !layer.own;
                }
                if let Some(names) = object.names
                    && !self.may_be_named(names, &name)?
                {
                    schema.push(positive(NodeId::FALSE));
                }
            }
            for (place, scope) in branch.scopes.iter().enumerate() {
                if let Some(node) = scope.properties.filter(|_| evaluated & (1 << place) == 0) {
                    schema.push(positive(node));
                }
            }
            let is_required = required.contains(&name);
            if is_required && self.is_plainly_empty(&schema) {
                return Ok(None);
            }
            members.push(Member {
                name,
                schema,
                is_required,
            });
        }
        Ok(Some(members))
    }

    fn counts(&mut self, branch: &Branch, members: &[Member], has_free: bool) -> Counts {
        let least = branch
            .layers
            .iter()
            .map(|layer| layer.keywords.object.least)
            .max()
            .unwrap_or(0);
        let most = branch.layers.iter().fold(None, |most, layer| {
            least_of(most, layer.keywords.object.most)
        });
        let required = members.iter().filter(|member| member.is_required).count();
        let to_usize = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let mut counts = Counts {
            least: to_usize(least),
            most: written_most(most, least, SCHEMA_ITEMS_MAX).map(to_usize),
        };
        // A model may write the same free name twice, which counts as one member: only one free name is counted on.
        let named = members
            .iter()
            .filter(|member| !self.is_plainly_empty(&member.schema))
            .count();
        let reachable = named + usize::from(has_free);
        if counts.least > reachable && has_free {
            self.relax_layers(
                branch,
                "minProperties",
                "free names could repeat each other",
            );
            counts.least = 0;
        }
        let limit = counts.most.unwrap_or(0).max(counts.least);
        let is_counted =
            counts.least > required || counts.most.is_some_and(|most| has_free || most < named);
        if is_counted && limit.saturating_mul(named + 1) > COUNTED_MAX {
            for keyword in ["minProperties", "maxProperties"] {
                self.relax_layers(
                    branch,
                    keyword,
                    "there are too many properties to be counted",
                );
            }
            counts = Counts {
                least: 0,
                most: None,
            };
        }
        if !is_counted && counts.most.is_none_or(|most| most >= named) {
            counts = Counts {
                least: 0,
                most: None,
            };
        }
        counts
    }

    /// Rules for the members in order, each at most once, and then free ones. The closing bracket is in the last rule, so
    /// that no rule matches the empty text.
    fn sequence(
        &mut self,
        members: &[(Alternative, bool)],
        free: Option<Symbol>,
        counts: &Counts,
    ) -> Result<Symbol, Failure> {
        let (open, close, comma) = (
            self.rules.literal("{", Spacing::Json),
            self.rules.literal("}", Spacing::Json),
            self.rules.literal(",", Spacing::Json),
        );
        // The rules for what may follow a place, by the number of members before it, up to the largest count that
        // matters.
        let cap = counts.least.max(counts.most.unwrap_or(0)).max(1);
        let mut after: Vec<Symbol> = Vec::with_capacity(cap + 1);
        let free_with_comma =
            free.map(|free| self.rules.rule(vec![vec![comma, free]], Spacing::Json));
        for count in 0..=cap {
            let mut alternatives = Vec::new();
            if count >= counts.least {
                alternatives.push(vec![close]);
            }
            let room = counts.most.map(|most| most.saturating_sub(count));
            if let (Some(free), Some(another)) = (free, free_with_comma)
                && room != Some(0)
                && count + 1 >= counts.least
            {
                if count == 0 {
                    alternatives.push(vec![free, close]);
                    if room.is_none_or(|room| room > 1) {
                        let others = self.rules.repeat(
                            another,
                            1,
                            room.map(|room| room as u64 - 1),
                            Spacing::Json,
                        );
                        alternatives.push(vec![free, others, close]);
                    }
                } else {
                    let others =
                        self.rules
                            .repeat(another, 1, room.map(|room| room as u64), Spacing::Json);
                    alternatives.push(vec![others, close]);
                }
            }
            after.push(self.rules.rule(alternatives, Spacing::Json));
        }
        for (member, is_required) in members.iter().rev() {
            let mut before = Vec::with_capacity(cap + 1);
            for count in 0..=cap {
                self.budget.spend(2)?;
                let mut alternatives = Vec::new();
                if counts.most.is_none_or(|most| count < most) {
                    let mut with: Alternative = Vec::with_capacity(member.len() + 2);
                    with.extend((count > 0).then_some(comma));
                    with.extend(member);
                    with.push(after[(count + 1).min(cap)]);
                    alternatives.push(with);
                }
                if !is_required {
                    alternatives.push(vec![after[count]]);
                }
                before.push(self.rules.rule(alternatives, Spacing::Json));
            }
            after = before;
        }
        Ok(self.rules.rule(vec![vec![open, after[0]]], Spacing::Json))
    }
}
