//! Stores the schemas and patterns of a [`Compiler`]. Each is read once, when it is first needed.

use std::collections::HashSet;
use std::rc::Rc;

use super::super::pattern;
use super::super::text_set::TextSet;
use super::keywords::{Keywords, NamedPattern, NodeId};
use super::{Coarse, Compiler, Failure, JsonValue, Node, ValueId};

impl Compiler<'_> {
    /// The schema at a place in the document.
    pub(super) fn node(&mut self, value: ValueId) -> NodeId {
        if let &JsonValue::Bool(everything) = self.document.get(value) {
            return if everything {
                NodeId::TRUE
            } else {
                NodeId::FALSE
            };
        }
        if let Some(&known) = self.written.get(&value) {
            return known;
        }
        let node = self.insert(Node::Written(value));
        self.written.insert(value, node);
        node
    }

    /// The schema that only this value satisfies.
    pub(super) fn constant(&mut self, value: ValueId) -> NodeId {
        if let Some(&known) = self.constants.get(&value) {
            return known;
        }
        let node = self.insert(Node::Constant(value));
        self.constants.insert(value, node);
        node
    }

    /// Adds a schema that isn't in the document.
    pub(super) fn derive(&mut self, keywords: Keywords) -> NodeId {
        self.insert(Node::Schema(Rc::new(keywords)))
    }

    /// The negation of a schema.
    pub(super) fn opposite(&mut self, node: NodeId) -> NodeId {
        match node {
            NodeId::TRUE => return NodeId::FALSE,
            NodeId::FALSE => return NodeId::TRUE,
            _ => {}
        }
        if let Some(&known) = self.negations.get(&node) {
            return known;
        }
        let opposite = self.derive(Keywords {
            not: Some(node),
            ..Keywords::default()
        });
        self.negations.insert(node, opposite);
        opposite
    }

    /// The schema that any of some schemas is enough for.
    pub(super) fn union(&mut self, nodes: Vec<NodeId>) -> NodeId {
        if let [only] = *nodes {
            return only;
        }
        if let Some(&known) = self.unions.get(&nodes) {
            return known;
        }
        let union = self.derive(Keywords {
            any_of: vec![nodes.clone()],
            ..Keywords::default()
        });
        self.unions.insert(nodes, union);
        union
    }

    pub(super) fn insert(&mut self, node: Node) -> NodeId {
        let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(node);
        id
    }

    /// The keywords of a schema; `None` if it allows everything, and `Some(None)` if it allows nothing.
    pub(super) fn look_up(&mut self, id: NodeId) -> Result<Option<Option<Rc<Keywords>>>, Failure> {
        let index = id.0 as usize;
        match &self.nodes[index] {
            &Node::Written(value) => {
                let keywords = self.read(value)?;
                self.nodes[index] =
                    keywords.map_or(Node::Anything, |keywords| Node::Schema(Rc::new(keywords)));
            }
            &Node::Constant(value) => {
                let keywords = self.read_constant(value)?;
                self.nodes[index] = Node::Schema(Rc::new(keywords));
            }
            Node::Anything | Node::Nothing | Node::Schema(_) => {}
        }
        Ok(match &self.nodes[index] {
            Node::Schema(keywords) => Some(Some(Rc::clone(keywords))),
            Node::Nothing => Some(None),
            _ => None,
        })
    }

    /// A caller's pattern. Equal patterns are read once.
    pub(super) fn pattern(
        &mut self,
        text: &str,
        place: ValueId,
    ) -> Result<Result<Rc<NamedPattern>, &'static str>, Failure> {
        self.named_pattern(&format!("pattern {text}"), place, || pattern::search(text))
    }

    pub(super) fn named_pattern(
        &mut self,
        name: &str,
        place: ValueId,
        make: impl FnOnce() -> Result<TextSet, &'static str>,
    ) -> Result<Result<Rc<NamedPattern>, &'static str>, Failure> {
        if let Some(known) = self.patterns.get(name) {
            return Ok(known.clone());
        }
        self.budget.spend(name.len())?;
        self.pattern_places.insert(name.to_owned(), place);
        let made = match self.coarse {
            Coarse::WithoutPatterns => {
                Err("the patterns and formats of the schema are too complex together")
            }
            Coarse::Exact | Coarse::Wide | Coarse::Open => make(),
        };
        let pattern = made.map(|texts| {
            Rc::new(NamedPattern {
                name: name.to_owned(),
                texts,
            })
        });
        if let Ok(pattern) = &pattern {
            self.budget.spend(pattern.texts.written.positions())?;
        }
        self.patterns.insert(name.to_owned(), pattern.clone());
        Ok(pattern)
    }

    /// Refuses a schema whose references only lead to each other. It would allow everything, which its author can't have
    /// meant.
    pub(super) fn refuse_endless_reference(&mut self, from: NodeId) -> Result<(), Failure> {
        let mut passed = HashSet::new();
        let mut at = from;
        while !self.ending.contains(&at) {
            self.budget.spend(1)?;
            if !passed.insert(at) {
                return Err(Failure::Refused(
                    "$ref leads from reference to reference, on and on".to_owned(),
                ));
            }
            let reference = match self.look_up(at)? {
                Some(Some(keywords)) => keywords.reference,
                _ => None,
            };
            match reference {
                Some(next) => at = next,
                None => break,
            }
        }
        self.ending.extend(passed);
        Ok(())
    }
}
