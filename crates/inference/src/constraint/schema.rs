//! Compiles JSON Schemas to grammar rules, exactly, or with a list of the places that aren't enforced.
//!
//! A rule stands for a conjunction of schemas, each as it is or negated. [`merge`] splits a conjunction into branches
//! without alternatives, and each branch becomes rules for its types of values ([`objects`], [`arrays`], [`scalars`]).
//! The schemas of members and items are conjunctions again. Conjunctions wait in a queue, and equal ones share a rule, so
//! that neither recursion in a schema nor its depth through `$ref` is recursion in this code.
//!
//! The documents that a model can write are a subset of those that a schema allows: names in the schema's order, little
//! white space, one spelling of each string. A keyword that can't be enforced is left out, and its JSON pointer is listed
//! ([`Relaxed`]).

mod arena;
mod arrays;
mod branch;
mod constants;
mod disjoint;
mod draft;
mod keywords;
mod merge;
mod names;
mod negate;
mod objects;
mod read;
mod references;
mod relax;
mod scalars;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use weir_engine::Relaxed;
use weir_engine::request::Schema;

pub use self::arrays::UNIQUE_VALUES_MAX;
use self::keywords::{Keywords, NamedPattern, NodeId, TypeSet};
pub use self::keywords::{LENGTH_MAX, SCHEMA_ITEMS_MAX};
pub use self::merge::BRANCHES_MAX;
pub use self::objects::PROPERTIES_MAX;
pub use self::read::MULTIPLES_MAX;
use self::references::References;
use super::budget::{Budget, Stopped};
use super::json::{Document, JsonValue, ValueId};
use super::rules::{Alternative, RuleId, Rules, Spacing, Symbol};

/// Limit on the bytes of a schema's text.
pub const SCHEMA_BYTES_MAX: usize = 768 * 1024;
/// Limit on the listed places of a schema that aren't enforced.
pub const RELAXED_MAX: usize = 256;

/// How much of a schema is enforced, if enforcing all of it takes too much work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coarse {
    Exact,
    /// Where fewer values are written than are allowed, any are.
    Wide,
    WithoutPatterns,
    /// Any JSON is allowed.
    Open,
}

/// Why a schema couldn't be compiled at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    Stopped(Stopped),
    /// A message for callers.
    Refused(String),
}

impl From<Stopped> for Failure {
    fn from(stopped: Stopped) -> Self {
        Failure::Stopped(stopped)
    }
}

/// A schema as it is, or its negation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Term {
    node: NodeId,
    is_negated: bool,
}

/// Schemas that a value must satisfy together. Their order decides the order of an object's names.
type Conjunction = Vec<Term>;

#[derive(Debug, Clone)]
enum Node {
    /// A schema in the document that hasn't been read yet.
    Written(ValueId),
    /// A schema that allows only this value of `const` or `enum`, not read yet.
    Constant(ValueId),
    Anything,
    Nothing,
    Schema(Rc<Keywords>),
}

/// Compiles one schema into rules.
pub(super) struct Compiler<'a> {
    document: &'a Document,
    coarse: Coarse,
    budget: &'a mut Budget,
    rules: &'a mut Rules,
    references: References,
    nodes: Vec<Node>,
    written: HashMap<ValueId, NodeId>,
    constants: HashMap<ValueId, NodeId>,
    negations: HashMap<NodeId, NodeId>,
    patterns: HashMap<String, Result<Rc<NamedPattern>, &'static str>>,
    /// The first place in the document of each pattern and format.
    pattern_places: HashMap<String, ValueId>,
    /// Alternatives of negated schemas, and the choices that schemas leave open, cached when they are first needed.
    negated: HashMap<NodeId, Option<merge::Alternatives>>,
    open: HashMap<NodeId, Rc<[merge::Open]>>,
    outlines: HashMap<NodeId, Rc<disjoint::Outline>>,
    conjunctions: HashMap<Conjunction, RuleId>,
    /// Conjunctions whose rules have no alternatives yet.
    queue: Vec<(Conjunction, RuleId)>,
    /// Schemas whose chain of references is known to end.
    ending: HashSet<NodeId>,
    /// Keywords that aren't enforced because they take too much work.
    given_up: HashSet<(NodeId, merge::Choosing)>,
    /// The conjunction whose rule is being made.
    current: Conjunction,
    relaxed: Vec<Relaxed>,
    relaxed_at: HashSet<String>,
    narrowed: Vec<Relaxed>,
    overlapping: HashMap<NodeId, merge::Alternatives>,
    unions: HashMap<Vec<NodeId>, NodeId>,
}

/// The difference between the rules and their schema.
pub(super) struct Deviations {
    pub(super) relaxed: Vec<Relaxed>,
    /// Places where the rules allow so much less than the schema that they may allow nothing though the schema does.
    pub(super) narrowed: Vec<Relaxed>,
}

/// Adds the rules of a schema. Afterwards `start` has its alternatives, though it may be that no text satisfies them.
pub(super) fn compile(
    schema: &Schema,
    start: RuleId,
    rules: &mut Rules,
    coarse: Coarse,
    budget: &mut Budget,
) -> Result<Deviations, Failure> {
    let text = schema.text();
    if text.len() > SCHEMA_BYTES_MAX {
        let bytes = text.len();
        return Err(Failure::Refused(format!(
            "the schema has {bytes} bytes, more than the {SCHEMA_BYTES_MAX} that are allowed"
        )));
    }
    let document = Document::parse(text).ok_or_else(|| {
        Failure::Refused("the schema is no JSON, or is nested too deeply to be read".to_owned())
    })?;
    budget.spend(document.len())?;
    if !matches!(
        document.get(Document::ROOT),
        JsonValue::Object(_) | JsonValue::Bool(_)
    ) {
        let kind = document.get(Document::ROOT).kind();
        return Err(Failure::Refused(format!(
            "a schema is an object or a boolean, not {kind}"
        )));
    }
    let mut compiler = Compiler {
        references: References::new(&document),
        document: &document,
        coarse,
        budget,
        rules,
        nodes: vec![Node::Anything, Node::Nothing],
        written: HashMap::new(),
        constants: HashMap::new(),
        negations: HashMap::new(),
        patterns: HashMap::new(),
        pattern_places: HashMap::new(),
        negated: HashMap::new(),
        open: HashMap::new(),
        current: Vec::new(),
        outlines: HashMap::new(),
        conjunctions: HashMap::new(),
        queue: Vec::new(),
        ending: HashSet::new(),
        given_up: HashSet::new(),
        relaxed: Vec::new(),
        relaxed_at: HashSet::new(),
        narrowed: Vec::new(),
        overlapping: HashMap::new(),
        unions: HashMap::new(),
    };
    let root = compiler.node(Document::ROOT);
    let mut whole = vec![merge::positive(root)];
    if schema.only_objects() {
        let object = compiler.derive(Keywords::of_types(TypeSet::OBJECT));
        whole.insert(0, merge::positive(object));
    }
    compiler.conjunctions.insert(whole.clone(), start);
    compiler.queue.push((whole, start));
    compiler.work_off()?;
    Ok(Deviations {
        relaxed: compiler.relaxed,
        narrowed: compiler.narrowed,
    })
}

impl Compiler<'_> {
    fn work_off(&mut self) -> Result<(), Failure> {
        while let Some((conjunction, rule)) = self.queue.pop() {
            self.current.clone_from(&conjunction);
            let alternatives = match self.rules.is_full() || self.coarse == Coarse::Open {
                true => Err(Failure::Stopped(Stopped::TooMuchWork)),
                false => self.alternatives(&conjunction),
            };
            match alternatives {
                Ok(alternatives) => self.rules.define(rule, alternatives),
                Err(Failure::Stopped(Stopped::TooMuchWork)) => {
                    // The conjunctions that are left in the queue allow any JSON.
                    self.leave_open(conjunction, rule);
                    while let Some((conjunction, rule)) = self.queue.pop() {
                        self.leave_open(conjunction, rule);
                    }
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn leave_open(&mut self, conjunction: Conjunction, rule: RuleId) {
        for term in conjunction {
            self.relax_node(
                term.node,
                "",
                "the schema is too large to be enforced as a whole".to_owned(),
            );
        }
        let anything = self.anything();
        self.rules.define(rule, vec![vec![Symbol::Rule(anything)]]);
    }

    /// The alternatives for the values of a conjunction.
    fn alternatives(&mut self, conjunction: &[Term]) -> Result<Vec<Alternative>, Failure> {
        if let Some(plain) = self.plain_union(conjunction)? {
            return Ok(plain);
        }
        let mut alternatives = Vec::new();
        for branch in self.branches(conjunction)? {
            self.budget.spend(1)?;
            if branch.is_free() {
                let anything = self.anything();
                return Ok(vec![vec![Symbol::Rule(anything)]]);
            }
            self.scalars(&branch, &mut alternatives)?;
            if branch.may_be(TypeSet::ARRAY) {
                alternatives.push(vec![self.array(&branch)?]);
            }
            if branch.may_be(TypeSet::OBJECT) {
                alternatives.push(vec![self.object(&branch)?]);
            }
        }
        let mut seen = HashSet::new();
        alternatives.retain(|alternative| seen.insert(alternative.clone()));
        Ok(alternatives)
    }

    /// The alternatives of a schema that is only an `anyOf`; `None` for any other. Such a schema needs no branches: each
    /// of its schemas gets a rule that others can share.
    fn plain_union(&mut self, conjunction: &[Term]) -> Result<Option<Vec<Alternative>>, Failure> {
        let &[
            Term {
                node,
                is_negated: false,
            },
        ] = conjunction
        else {
            return Ok(None);
        };
        let Some(Some(keywords)) = self.look_up(node)? else {
            return Ok(None);
        };
        let Some(branches) = keywords.only_any_of() else {
            return Ok(None);
        };
        let joined = self.joined(branches)?;
        if joined.contains(&NodeId::TRUE) {
            let anything = self.anything();
            return Ok(Some(vec![vec![Symbol::Rule(anything)]]));
        }
        let mut alternatives = Vec::new();
        for node in joined {
            self.budget.spend(4)?;
            alternatives.push(vec![self.conjunction(vec![merge::positive(node)])]);
        }
        Ok(Some(alternatives))
    }

    /// The symbol for values that satisfy all of the schemas.
    fn conjunction(&mut self, mut terms: Conjunction) -> Symbol {
        let mut seen = HashSet::new();
        terms.retain(|term| {
            let says_nothing =
                matches!(self.nodes[term.node.0 as usize], Node::Anything) && !term.is_negated;
            !says_nothing && seen.insert(*term)
        });
        if terms.is_empty() {
            return Symbol::Rule(self.anything());
        }
        if let Some(&known) = self.conjunctions.get(&terms) {
            return Symbol::Rule(known);
        }
        let rule = self.rules.reserve(Spacing::Json);
        self.conjunctions.insert(terms.clone(), rule);
        self.queue.push((terms, rule));
        Symbol::Rule(rule)
    }

    /// Whether a conjunction obviously allows no value. If this is false, it may still allow none.
    fn is_plainly_empty(&self, terms: &[Term]) -> bool {
        terms
            .iter()
            .any(|term| match self.nodes[term.node.0 as usize] {
                Node::Nothing => !term.is_negated,
                Node::Anything => term.is_negated,
                _ => false,
            })
    }

    /// The rule for any JSON value.
    fn anything(&mut self) -> RuleId {
        if let Some(anything) = self.rules.anything {
            return anything;
        }
        let anything = self.rules.reserve(Spacing::Json);
        self.rules.anything = Some(anything);
        let free = scalars::free_scalars(self.rules);
        let value = Symbol::Rule(anything);
        let mut literal = |text: &str| self.rules.literal(text, Spacing::Json);
        let (comma, colon) = (literal(","), literal(":"));
        let (open_list, close_list, open, close) =
            (literal("["), literal("]"), literal("{"), literal("}"));
        let string = scalars::free_string(self.rules);
        let item = self.rules.rule(vec![vec![comma, value]], Spacing::Json);
        let items = self.rules.repeat(item, 1, None, Spacing::Json);
        let member = self
            .rules
            .rule(vec![vec![string, colon, value]], Spacing::Json);
        let another = self.rules.rule(vec![vec![comma, member]], Spacing::Json);
        let others = self.rules.repeat(another, 1, None, Spacing::Json);
        let mut alternatives: Vec<Alternative> =
            free.into_iter().map(|symbol| vec![symbol]).collect();
        alternatives.extend([
            vec![open_list, close_list],
            vec![open_list, value, close_list],
            vec![open_list, value, items, close_list],
            vec![open, close],
            vec![open, member, close],
            vec![open, member, others, close],
        ]);
        self.rules.define(anything, alternatives);
        anything
    }
}
