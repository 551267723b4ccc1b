//! Values of `const` and `enum`, as literals and as schemas that allow only these values.

use std::rc::Rc;

use super::super::decimal::Decimal;
use super::super::json::{JsonValue, ValueId};
use super::keywords::{ArrayRules, Keywords, Literal, NodeId, ObjectRules, TypeSet};
use super::{Compiler, Failure};

impl Compiler<'_> {
    /// A scalar as a literal; `None` for arrays, objects, and numbers with too many digits.
    pub(super) fn literal(&self, value: ValueId) -> Option<Literal> {
        Some(match self.document.get(value) {
            JsonValue::Null => Literal::Null,
            &JsonValue::Bool(value) => Literal::Bool(value),
            JsonValue::Number(text) => Literal::Number(Decimal::parse(text)?),
            JsonValue::String(text) => Literal::String(Rc::from(&**text)),
            JsonValue::Array(_) | JsonValue::Object(_) => return None,
        })
    }

    /// The keywords of a schema that only this value satisfies. The values inside it are read when they are needed.
    pub(super) fn read_constant(&mut self, value: ValueId) -> Result<Keywords, Failure> {
        Ok(match self.document.get(value) {
            JsonValue::Array(items) => {
                self.budget.spend(1 + items.len())?;
                let prefix: Vec<_> = items.iter().map(|&item| self.constant(item)).collect();
                let count = prefix.len() as u64;
                Keywords::of_array(ArrayRules {
                    prefix,
                    items: Some(NodeId::FALSE),
                    least: count,
                    most: Some(count),
                    ..ArrayRules::default()
                })
            }
            JsonValue::Object(entries) => {
                self.budget.spend(1 + entries.len())?;
                let names = entries.keys().map(|name| Rc::from(&**name));
                let required: Vec<Rc<str>> = names.collect();
                let values = entries
                    .values()
                    .map(|&value| self.constant(value))
                    .collect::<Vec<_>>();
                Keywords::of_object(ObjectRules {
                    properties: required.iter().cloned().zip(values).collect(),
                    additional: Some(NodeId::FALSE),
                    required,
                    ..ObjectRules::default()
                })
            }
            _ => match self.literal(value) {
                Some(literal) => Keywords {
                    literals: Some([literal].into()),
                    ..Keywords::default()
                },
                None => {
                    self.relax_value(value, "it has too many digits to be enforced".to_owned());
                    Keywords::of_types(TypeSet::NUMBER)
                }
            },
        })
    }
}
