//! Rules for arrays: a prefix, then items of one schema. `contains` and `uniqueItems` need rules for each place.

use std::collections::HashMap;

use super::super::rules::{Alternative, Spacing, Symbol};
use super::branch::{Branch, Scopes, least_of, written_most};
use super::draft::Draft;
use super::keywords::{Contains, Literal, NodeId, SCHEMA_ITEMS_MAX, TypeSet, distinct};
use super::merge::{negative, positive};
use super::{Compiler, Conjunction, Failure, Term};

/// Limit on the values among which `uniqueItems` is enforced: each set of them is a state.
pub const UNIQUE_VALUES_MAX: usize = 8;
/// Limit on the places of an array times the counts of its `contains`.
const COUNTED_MAX: usize = 2_000;
/// Limit on the `contains` of one array.
const CONTAINS_MAX: usize = 2;

/// How many items an array may have.
struct Length {
    least: u64,
    most: Option<u64>,
}

impl Length {
    fn may_end(&self, count: u64) -> bool {
        count >= self.least && self.most.is_none_or(|most| count <= most)
    }

    fn may_go_on(&self, count: u64) -> bool {
        self.most.is_none_or(|most| count < most)
    }
}

impl Compiler<'_> {
    pub(super) fn array(&mut self, branch: &Branch) -> Result<Symbol, Failure> {
        let layers = || branch.layers.iter().map(|layer| &layer.keywords.array);
        let length = Length {
            least: layers().map(|array| array.least).max().unwrap_or(0),
            most: layers().fold(None, |most, array| least_of(most, array.most)),
        };
        let length = Length {
            most: written_most(length.most, length.least, SCHEMA_ITEMS_MAX),
            ..length
        };
        let prefix = layers().map(|array| array.prefix.len()).max().unwrap_or(0);
        // Places after the end of the longest allowed array don't matter.
        let prefix = length.most.map_or(prefix, |most| {
            prefix.min(usize::try_from(most).unwrap_or(usize::MAX))
        });
        let found = self.found_items(branch);
        let mut items = Vec::with_capacity(prefix + 1);
        for place in 0..=prefix {
            self.budget.spend(1 + branch.layers.len())?;
            items.push(self.item(branch, place, &found));
        }
        let contains: Vec<Contains> = layers()
            .filter_map(|array| array.contains.clone())
            .collect();
        let contains: Vec<_> = contains
            .into_iter()
            .filter(|contains| contains.least > 0 || contains.most.is_some())
            .collect();
        if layers().any(|array| array.is_unique) && length.most.is_none_or(|most| most > 1) {
            if contains.is_empty()
                && let Some(unique) = self.unique(&items, &length)?
            {
                return Ok(unique);
            }
            let reason = format!(
                "it is enforced where items are at most {UNIQUE_VALUES_MAX} listed values, and nothing else is counted"
            );
            self.relax_layers(branch, "uniqueItems", &reason);
        }
        if !contains.is_empty() {
            if let Some(counted) = self.containing(&items, &contains, &length)? {
                return Ok(counted);
            }
            self.relax_layers(
                branch,
                "contains",
                "it counts too much, or what can't be told apart",
            );
        }
        self.plain(items, &length)
    }

    /// The schemas of `contains` that evaluate items, and the scopes that see it.
    fn found_items(&self, branch: &Branch) -> Vec<(NodeId, Scopes)> {
        let mut found = Vec::new();
        for layer in branch.layers.iter().filter(|layer| layer.scopes != 0) {
            let draft = (layer.keywords.value)
                .map_or(Draft::V2020, |value| Draft::of(self.document, value));
            let contains = layer.keywords.array.contains.as_ref();
            let contains = contains.filter(|_| draft.contains_evaluates());
            found.extend(contains.map(|contains| (contains.node, layer.scopes)));
        }
        found
    }

    /// The schemas that the item in a place must satisfy.
    fn item(&mut self, branch: &Branch, place: usize, found: &[(NodeId, Scopes)]) -> Conjunction {
        let mut schema = Conjunction::new();
        let mut evaluated = 0;
        for layer in &branch.layers {
            let array = &layer.keywords.array;
            let own = array.prefix.get(place).copied().or(array.items);
            if own.is_some() {
                evaluated |= layer.scopes;
            }
            // A layer's own `unevaluatedItems` evaluates the item for the schemas around the layer.
            if array.unevaluated.is_some() {
                evaluated |= layer.scopes & !layer.own;
            }
            schema.extend(own.map(positive));
        }
        for (index, scope) in branch.scopes.iter().enumerate() {
            if let Some(node) = scope.items.filter(|_| evaluated & (1 << index) == 0) {
                let seen = found
                    .iter()
                    .filter(|(_, scopes)| scopes & (1 << index) != 0);
                let nodes = [node].into_iter().chain(seen.map(|&(node, _)| node));
                schema.push(positive(self.union(nodes.collect())));
            }
        }
        schema
    }

    /// Rules without counts. `items` are the schemas of the prefix and, last, the one of all items after it.
    fn plain(&mut self, mut items: Vec<Conjunction>, length: &Length) -> Result<Symbol, Failure> {
        let (open, close, comma) = self.brackets();
        let rest = items.pop().unwrap_or_default();
        let before = items.len() as u64;
        // Built from the end, which is what may follow the last item of the prefix.
        let mut after = Vec::new();
        if length.may_end(before) {
            after.push(vec![close]);
        }
        if length.may_go_on(before) && !self.is_plainly_empty(&rest) {
            let item = self.conjunction(rest);
            let another = self.rules.rule(vec![vec![comma, item]], Spacing::Json);
            let (least, most) = (
                length.least.saturating_sub(before),
                length.most.map(|most| most - before),
            );
            if before == 0 {
                let least = least.saturating_sub(1);
                let most = most.map(|most| most - 1);
                if least == 0 {
                    after.push(vec![item, close]);
                }
                if most != Some(0) {
                    let others = self
                        .rules
                        .repeat(another, least.max(1), most, Spacing::Json);
                    after.push(vec![item, others, close]);
                }
            } else {
                let others = self
                    .rules
                    .repeat(another, least.max(1), most, Spacing::Json);
                after.push(vec![others, close]);
            }
        }
        for (place, item) in items.into_iter().enumerate().rev() {
            self.budget.spend(2)?;
            let next = self.rules.rule(after, Spacing::Json);
            after = Vec::new();
            if length.may_end(place as u64) {
                after.push(vec![close]);
            }
            if !self.is_plainly_empty(&item) {
                let mut with: Alternative = (place > 0).then_some(comma).into_iter().collect();
                with.push(self.conjunction(item));
                with.push(next);
                after.push(with);
            }
        }
        let inner = self.rules.rule(after, Spacing::Json);
        Ok(self.rules.rule(vec![vec![open, inner]], Spacing::Json))
    }

    /// Rules for each place in the array and each count of matches of each `contains`; `None` if there would be too many,
    /// or if a schema can't be negated.
    fn containing(
        &mut self,
        items: &[Conjunction],
        contains: &[Contains],
        length: &Length,
    ) -> Result<Option<Symbol>, Failure> {
        // Without an upper limit the last place leads to itself, so it must be a place with a comma before the item.
        let open_end = u64::from(length.most.is_none());
        let places = (items.len() as u64 - 1)
            .max(length.least)
            .max(length.most.unwrap_or(open_end));
        let caps: Vec<u64> = contains
            .iter()
            .map(|contains| contains.most.unwrap_or(contains.least))
            .collect();
        let counts = caps.iter().try_fold(1_u64, |product, cap| {
            product.checked_mul(cap.checked_add(1)?)
        });
        let states = counts.and_then(|counts| counts.checked_mul(places + 1));
        if contains.len() > CONTAINS_MAX || states.is_none_or(|states| states > COUNTED_MAX as u64)
        {
            return Ok(None);
        }
        // To count up to an upper limit, all other items must be known not to match.
        for contains in contains.iter().filter(|contains| contains.most.is_some()) {
            if self.negation(contains.node)?.is_none() {
                return Ok(None);
            }
        }
        let (open, close, comma) = self.brackets();
        let mut states: HashMap<(u64, Vec<u64>), Symbol> = HashMap::new();
        let all_counts = all_counts(&caps);
        // In the last place an item leads to the same place again, if any number of items is allowed.
        let is_open = length.most.is_none();
        for place in (0..=places).rev() {
            for counted in &all_counts {
                let id = self.rules.reserve(Spacing::Json);
                states.insert((place, counted.clone()), Symbol::Rule(id));
            }
            for counted in &all_counts {
                self.budget.spend(8)?;
                let mut alternatives = Vec::new();
                let is_enough = contains
                    .iter()
                    .zip(counted)
                    .all(|(contains, &count)| count >= contains.least);
                if is_enough && length.may_end(place) {
                    alternatives.push(vec![close]);
                }
                let next = match place < places {
                    true => Some(place + 1),
                    false => is_open.then_some(place),
                };
                if let Some(next) = next.filter(|_| length.may_go_on(place)) {
                    let index = usize::try_from(place)
                        .unwrap_or(usize::MAX)
                        .min(items.len() - 1);
                    for (schema, counted) in counted_items(&items[index], contains, counted, &caps)
                    {
                        if self.is_plainly_empty(&schema) {
                            continue;
                        }
                        let mut with: Alternative = Vec::new();
                        with.push(self.conjunction(schema));
                        with.push(states[&(next, counted)]);
                        if place > 0 {
                            with.insert(0, comma);
                        }
                        alternatives.push(with);
                    }
                }
                let Some(&Symbol::Rule(id)) = states.get(&(place, counted.clone())) else {
                    continue;
                };
                self.rules.define(id, alternatives);
            }
        }
        let first = states[&(0, vec![0; caps.len()])];
        Ok(Some(
            self.rules.rule(vec![vec![open, first]], Spacing::Json),
        ))
    }

    /// Rules for items that must differ, with a state for each set of values used before; `None` if the items aren't
    /// limited to a few values.
    fn unique(
        &mut self,
        items: &[Conjunction],
        length: &Length,
    ) -> Result<Option<Symbol>, Failure> {
        let mut values: Vec<Literal> = Vec::new();
        let mut allowed: Vec<Vec<usize>> = Vec::new();
        for item in items {
            let Some(own) = self.values_of(item)? else {
                return Ok(None);
            };
            let mut places = Vec::new();
            for value in own {
                let place = values
                    .iter()
                    .position(|known| *known == value)
                    .unwrap_or_else(|| {
                        values.push(value);
                        values.len() - 1
                    });
                places.push(place);
            }
            if values.len() > UNIQUE_VALUES_MAX {
                return Ok(None);
            }
            allowed.push(places);
        }
        let (open, close, comma) = self.brackets();
        let sets = 1_usize << values.len();
        let symbols: Vec<Symbol> = values
            .iter()
            .map(|value| self.rules.literal(&value.text(), Spacing::Json))
            .collect();
        let states: Vec<Symbol> = (0..sets)
            .map(|_| Symbol::Rule(self.rules.reserve(Spacing::Json)))
            .collect();
        for (set, &state) in states.iter().enumerate() {
            self.budget.spend(values.len())?;
            let count = u64::from(set.count_ones());
            let mut alternatives = Vec::new();
            if length.may_end(count) {
                alternatives.push(vec![close]);
            }
            if length.may_go_on(count) {
                let place = usize::try_from(count)
                    .unwrap_or(usize::MAX)
                    .min(items.len() - 1);
                for &value in allowed[place]
                    .iter()
                    .filter(|&&value| set & (1 << value) == 0)
                {
                    let mut with: Alternative = (count > 0).then_some(comma).into_iter().collect();
                    with.extend([symbols[value], states[set | (1 << value)]]);
                    alternatives.push(with);
                }
            }
            if let Symbol::Rule(id) = state {
                self.rules.define(id, alternatives);
            }
        }
        Ok(Some(
            self.rules.rule(vec![vec![open, states[0]]], Spacing::Json),
        ))
    }

    /// All values of a conjunction; `None` unless they are listed, booleans or null, and few.
    fn values_of(&mut self, conjunction: &[Term]) -> Result<Option<Vec<Literal>>, Failure> {
        let mut values = Vec::new();
        for branch in self.branches(conjunction)? {
            if branch.literals.is_some() {
                values.extend(self.allowed_literals(&branch)?);
            } else if branch.types.and(TypeSet::NULL.or(TypeSet::BOOLEAN)) == branch.types {
                let few = [Literal::Null, Literal::Bool(true), Literal::Bool(false)];
                let own = few.into_iter().filter(|value| {
                    branch.types.has(value.kind()) && !branch.excluded.contains(value)
                });
                values.extend(own);
            } else {
                return Ok(None);
            }
            if values.len() > 4 * UNIQUE_VALUES_MAX {
                return Ok(None);
            }
        }
        Ok(Some(distinct(values).to_vec()))
    }

    fn brackets(&mut self) -> (Symbol, Symbol, Symbol) {
        let mut literal = |text| self.rules.literal(text, Spacing::Json);
        (literal("["), literal("]"), literal(","))
    }
}

/// All combinations of counts, each from 0 up to its cap.
fn all_counts(caps: &[u64]) -> Vec<Vec<u64>> {
    caps.iter().fold(vec![Vec::new()], |all, &cap| {
        let longer = |counts: &Vec<u64>| {
            let counts = counts.clone();
            (0..=cap).map(move |count| [counts.as_slice(), &[count]].concat())
        };
        all.iter().flat_map(longer).collect()
    })
}

/// The schemas that an item may satisfy, one for each combination of `contains` that count it, with the counts after the
/// item.
fn counted_items(
    item: &[Term],
    contains: &[Contains],
    counted: &[u64],
    caps: &[u64],
) -> Vec<(Conjunction, Vec<u64>)> {
    let mut all = vec![(item.to_vec(), counted.to_vec())];
    for (place, contains) in contains.iter().enumerate() {
        let mut next = Vec::new();
        for (schema, counted) in all {
            let is_full = counted[place] == caps[place];
            let is_limited = contains.most.is_some();
            if !is_full {
                let mut with = schema.clone();
                with.push(positive(contains.node));
                let mut more = counted.clone();
                more[place] += 1;
                next.push((with, more));
            }
            // Without an upper limit an item that isn't counted may match anyway.
            let mut without = schema;
            if is_limited {
                without.push(negative(contains.node));
            }
            next.push((without, counted));
        }
        all = next;
    }
    all
}
