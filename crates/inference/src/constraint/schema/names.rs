//! Free names of an object, which its schema doesn't list, and `propertyNames`.

use std::rc::Rc;

use llguidance::derivre::RegexAst;

use super::super::pattern::{Pattern, all_of};
use super::super::rules::{Spacing, Symbol, Terminal};
use super::branch::Branch;
use super::keywords::{Keywords, Literal, NamedPattern, NodeId, TypeSet};
use super::merge::positive;
use super::objects::Member;
use super::scalars::{any_text, free_string, quoted};
use super::{Compiler, Conjunction, Failure, Term};

/// Limit on the patterns of free names of which every combination is handled. If there are more, names that match several
/// of them are never written.
const COMBINED_PATTERNS_MAX: usize = 3;
/// Limit on the patterns of one object's free names.
const NAME_PATTERNS_MAX: usize = 24;
impl Compiler<'_> {
    /// Whether a name satisfies `propertyNames`.
    pub(super) fn may_be_named(&mut self, names: NodeId, name: &Rc<str>) -> Result<bool, Failure> {
        let literal = Literal::String(Rc::clone(name));
        let this = self.derive(Keywords {
            literals: Some([literal].into()),
            ..Keywords::default()
        });
        for branch in self.branches(&[positive(this), positive(names)])? {
            if !self.allowed_literals(&branch)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A member whose name the schema doesn't list; `None` if there can't be one.
    pub(super) fn free_members(
        &mut self,
        branch: &Branch,
        members: &[Member],
    ) -> Result<Option<Symbol>, Failure> {
        let mut patterns: Vec<Rc<NamedPattern>> = Vec::new();
        for layer in &branch.layers {
            for (pattern, _) in &layer.keywords.object.patterns {
                if patterns.iter().all(|known| known.name != pattern.name) {
                    patterns.push(Rc::clone(pattern));
                }
            }
        }
        self.budget.spend(patterns.len() * branch.layers.len())?;
        if patterns.len() > NAME_PATTERNS_MAX {
            let reason = format!(
                "an object may have at most {NAME_PATTERNS_MAX} patterns of names to be enforced"
            );
            self.relax_layers(branch, "patternProperties", &reason);
            patterns.clear();
        }
        let matching: Vec<Vec<usize>> = match patterns.len() {
            count @ 0..=COMBINED_PATTERNS_MAX => (0..1_usize << count)
                .map(|set| (0..count).filter(|place| set & (1 << place) != 0).collect())
                .collect(),
            count => [Vec::new()]
                .into_iter()
                .chain((0..count).map(|place| vec![place]))
                .collect(),
        };
        let mut alternatives = Vec::new();
        for matched in matching {
            let schema = self.free_schema(branch, &patterns, &matched);
            if self.is_plainly_empty(&schema) {
                continue;
            }
            let Some(name) = self.free_name(branch, members, &patterns, &matched)? else {
                continue;
            };
            let colon = self.rules.literal(":", Spacing::Json);
            let value = self.conjunction(schema);
            alternatives.push(vec![name, colon, value]);
        }
        Ok((!alternatives.is_empty()).then(|| self.rules.rule(alternatives, Spacing::Json)))
    }

    /// The schemas of a member whose free name matches exactly these patterns.
    fn free_schema(
        &mut self,
        branch: &Branch,
        patterns: &[Rc<NamedPattern>],
        matched: &[usize],
    ) -> Conjunction {
        let mut schema = Conjunction::new();
        let mut evaluated = 0;
        for layer in &branch.layers {
            let own: Vec<_> = (layer.keywords.object.patterns.iter())
                .filter(|(pattern, _)| {
                    matched
                        .iter()
                        .any(|&place| patterns[place].name == pattern.name)
                })
                .map(|&(_, node)| positive(node))
                .collect();
            let additional = layer.keywords.object.additional.filter(|_| own.is_empty());
            if !own.is_empty() || additional.is_some() {
                evaluated |= layer.scopes;
            }
            if layer.keywords.object.unevaluated.is_some() {
                evaluated |= layer.scopes & !layer.own;
            }
            schema.extend(own);
            schema.extend(additional.map(positive));
        }
        for (place, scope) in branch.scopes.iter().enumerate() {
            if let Some(node) = scope.properties.filter(|_| evaluated & (1 << place) == 0) {
                schema.push(positive(node));
            }
        }
        schema
    }

    /// A free name that matches exactly these patterns; `None` if there is none.
    fn free_name(
        &mut self,
        branch: &Branch,
        members: &[Member],
        patterns: &[Rc<NamedPattern>],
        matched: &[usize],
    ) -> Result<Option<Symbol>, Failure> {
        let mut parts: Vec<Pattern> = Vec::new();
        let mut key = String::from("name");
        for (place, pattern) in patterns.iter().enumerate() {
            let is_in = matched.contains(&place);
            let texts = &pattern.texts;
            parts.push(match is_in {
                true => texts.written.clone(),
                false => texts.negated().written,
            });
            key += &format!(" {is_in} {}", pattern.name);
        }
        let mut names = Vec::new();
        for layer in &branch.layers {
            names.extend(layer.keywords.object.names.map(positive));
        }
        if !names.is_empty() {
            match self.name_patterns(&names, branch)? {
                Some((more, name)) => {
                    parts.extend(more);
                    key += &name;
                }
                None => return Ok(None),
            }
        }
        self.budget.spend(members.len())?;
        let taken: Vec<_> = members.iter().map(|member| &*member.name).collect();
        if parts.is_empty() && taken.is_empty() {
            return Ok(Some(free_string(self.rules)));
        }
        key += &format!(" {taken:?}");
        if let Some(known) = self.rules.named.get(&key) {
            return Ok(*known);
        }
        if !taken.is_empty() {
            let literals = taken
                .iter()
                .map(|&name| RegexAst::Literal(name.to_owned()))
                .collect();
            parts.push(Pattern::excluding(literals));
        }
        self.budget
            .spend(parts.iter().map(Pattern::positions).sum())?;
        let Some(all) = all_of(parts.iter()) else {
            self.relax_layers(
                branch,
                "patternProperties",
                "its patterns are too complex together",
            );
            return Ok(None);
        };
        let ast = match parts.len() {
            // llguidance has a fast path for this form.
            1 if !taken.is_empty() => {
                let texts = taken
                    .iter()
                    .map(|&name| RegexAst::Literal(serde_json::Value::from(name).to_string()));
                RegexAst::And(vec![
                    quoted(any_text()),
                    RegexAst::Not(Box::new(RegexAst::Or(texts.collect()))),
                ])
            }
            _ => quoted(all.ast()),
        };
        self.checked_name(&key, ast)
    }

    fn checked_name(&mut self, key: &str, ast: RegexAst) -> Result<Option<Symbol>, Failure> {
        match self.checked(key, ast.clone(), true) {
            // If finding out whether there is such a name takes too much work, assume that there is one.
            Err(Failure::Refused(_)) => Ok(Some(
                self.rules.terminal(Terminal::Regex(ast), Spacing::Json),
            )),
            other => other,
        }
    }

    /// The patterns that `propertyNames` requires of strings, and a key for them; `None` if no string satisfies it.
    fn name_patterns(
        &mut self,
        names: &[Term],
        branch: &Branch,
    ) -> Result<Option<(Vec<Pattern>, String)>, Failure> {
        let mut branches = self.branches(names)?;
        branches.retain(|branch| branch.types.has(TypeSet::STRING));
        let [only] = &*branches else {
            if branches.is_empty() {
                return Ok(None);
            }
            self.relax_layers(
                branch,
                "propertyNames",
                "it leaves too much open to be enforced",
            );
            return Ok(Some((Vec::new(), String::new())));
        };
        let mut parts: Vec<_> = only
            .patterns
            .iter()
            .map(|pattern| pattern.texts.written.clone())
            .collect();
        let names: Vec<_> = only.patterns.iter().map(|pattern| &*pattern.name).collect();
        let mut key = format!(" {names:?} {} {:?}", only.least_length, only.most_length);
        if only.least_length > 0 || only.most_length.is_some() {
            if only
                .most_length
                .is_some_and(|most| most < only.least_length)
            {
                return Ok(None);
            }
            parts.push(Pattern::length(
                only.least_length,
                only.most_written_length(),
            ));
        }
        let strings = |literals: &[Literal]| -> Vec<RegexAst> {
            let texts = literals.iter().filter_map(|literal| match literal {
                Literal::String(text) => Some(RegexAst::Literal(text.to_string())),
                _ => None,
            });
            texts.collect()
        };
        if only.literals.is_some() {
            let allowed = strings(&self.allowed_literals(only)?);
            if allowed.is_empty() {
                return Ok(None);
            }
            key += &format!("{allowed:?}");
            parts = vec![Pattern::one_of(allowed)];
        }
        let excluded = strings(&only.excluded);
        if !excluded.is_empty() {
            key += &format!("not {excluded:?}");
            parts.push(Pattern::excluding(excluded));
        }
        Ok(Some((parts, key)))
    }
}
