//! Lists the places of a schema that aren't enforced.

use weir_engine::Relaxed;

use super::branch::Branch;
use super::keywords::NodeId;
use super::{Compiler, Document, Node, RELAXED_MAX, ValueId};

impl Compiler<'_> {
    /// Lists the value of a keyword as not enforced.
    pub(super) fn relax_value(&mut self, value: ValueId, reason: String) {
        let pointer = self.document.pointer(value);
        self.relax(pointer, reason);
    }

    /// Lists a keyword of a schema as not enforced or, if `keyword` is empty, the schema itself.
    pub(super) fn relax_node(&mut self, node: NodeId, keyword: &str, reason: String) {
        let Some(value) = self.place(node) else {
            // A derived schema has no place: the place of the conjunction that is being compiled is listed instead.
            let own = self.current.clone();
            let place = own.iter().find_map(|term| self.place(term.node));
            return self.relax_value(place.unwrap_or(Document::ROOT), reason);
        };
        self.relax_value(
            self.document.member(value, keyword).unwrap_or(value),
            reason,
        );
    }

    /// Lists a keyword as not enforced in all schemas of a branch that have it.
    pub(super) fn relax_layers(&mut self, branch: &Branch, keyword: &str, reason: &str) {
        let own = self.current.clone();
        let values: Vec<_> = own
            .iter()
            .filter_map(|term| self.place(term.node))
            .collect();
        let layers = branch
            .layers
            .iter()
            .filter_map(|layer| layer.keywords.value);
        let places: Vec<_> = layers
            .chain(values.iter().copied())
            .filter_map(|value| self.document.member(value, keyword))
            .collect();
        if places.is_empty() {
            self.relax_value(
                values.first().copied().unwrap_or(Document::ROOT),
                reason.to_owned(),
            );
        }
        for place in places {
            self.relax_value(place, reason.to_owned());
        }
    }

    /// Fewer values are written than a keyword allows, perhaps none.
    pub(super) fn narrow(&mut self, value: ValueId, reason: &str) {
        if self.narrowed.len() < RELAXED_MAX {
            self.narrowed.push(Relaxed {
                pointer: self.document.pointer(value),
                reason: reason.to_owned(),
            });
        }
    }

    /// A schema's place in the document; `None` for a schema that was derived from others.
    pub(super) fn place(&self, node: NodeId) -> Option<ValueId> {
        match &self.nodes[node.0 as usize] {
            &Node::Written(value) | &Node::Constant(value) => Some(value),
            Node::Schema(keywords) => keywords.value,
            Node::Anything | Node::Nothing => None,
        }
    }

    fn relax(&mut self, pointer: String, reason: String) {
        if self.relaxed.len() < RELAXED_MAX && self.relaxed_at.insert(pointer.clone()) {
            self.relaxed.push(Relaxed { pointer, reason });
        }
    }
}
