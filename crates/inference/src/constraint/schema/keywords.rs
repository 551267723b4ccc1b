//! The keywords of a single schema. All other names are annotations, as the specification says.

use std::collections::HashSet;
use std::rc::Rc;

use super::super::decimal::Decimal;
use super::super::json::ValueId;
use super::super::numbers::{Bound, Range};
use super::super::text_set::TextSet;

/// Limit on `minLength`. A larger `maxLength` is lowered to it.
pub const LENGTH_MAX: u64 = 20_000;
/// Limit on `minItems` and `minProperties`. A larger `maxItems` or `maxProperties` is lowered to it.
pub const SCHEMA_ITEMS_MAX: u64 = 5_000;

/// A schema in the arena of a [`Compiler`](super::Compiler).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct NodeId(pub(super) u32);

impl NodeId {
    /// The schema `true`, which allows everything; `FALSE` allows nothing.
    pub(super) const TRUE: NodeId = NodeId(0);
    pub(super) const FALSE: NodeId = NodeId(1);
}

/// A set of JSON types. Integers are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TypeSet(u8);

impl TypeSet {
    pub(super) const NULL: TypeSet = TypeSet(1);
    pub(super) const BOOLEAN: TypeSet = TypeSet(2);
    pub(super) const NUMBER: TypeSet = TypeSet(4);
    pub(super) const STRING: TypeSet = TypeSet(8);
    pub(super) const ARRAY: TypeSet = TypeSet(16);
    pub(super) const OBJECT: TypeSet = TypeSet(32);
    pub(super) const ALL: TypeSet = TypeSet(63);
    pub(super) const NONE: TypeSet = TypeSet(0);

    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null" => TypeSet::NULL,
            "boolean" => TypeSet::BOOLEAN,
            "number" | "integer" => TypeSet::NUMBER,
            "string" => TypeSet::STRING,
            "array" => TypeSet::ARRAY,
            "object" => TypeSet::OBJECT,
            _ => return None,
        })
    }

    pub(super) fn and(self, other: Self) -> Self {
        TypeSet(self.0 & other.0)
    }

    pub(super) fn or(self, other: Self) -> Self {
        TypeSet(self.0 | other.0)
    }

    pub(super) fn complement(self) -> Self {
        TypeSet(!self.0 & TypeSet::ALL.0)
    }

    pub(super) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A scalar value of `const` or `enum`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(Decimal),
    String(Rc<str>),
}

impl Literal {
    pub(super) fn kind(&self) -> TypeSet {
        match self {
            Literal::Null => TypeSet::NULL,
            Literal::Bool(_) => TypeSet::BOOLEAN,
            Literal::Number(_) => TypeSet::NUMBER,
            Literal::String(_) => TypeSet::STRING,
        }
    }

    /// The literal as JSON text.
    pub(super) fn text(&self) -> String {
        match self {
            Literal::Null => "null".to_owned(),
            Literal::Bool(value) => value.to_string(),
            Literal::Number(number) => number.to_string(),
            Literal::String(text) => serde_json::Value::from(&**text).to_string(),
        }
    }
}

/// A set of strings with a name. Sets with the same name are equal.
#[derive(Debug)]
pub(super) struct NamedPattern {
    pub(super) name: String,
    pub(super) texts: TextSet,
}

#[derive(Debug, Default, Clone)]
pub(super) struct StringRules {
    pub(super) least: u64,
    pub(super) most: Option<u64>,
    pub(super) patterns: Vec<Rc<NamedPattern>>,
}

#[derive(Debug, Clone)]
pub(super) struct Contains {
    pub(super) node: NodeId,
    pub(super) least: u64,
    pub(super) most: Option<u64>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct ArrayRules {
    pub(super) prefix: Vec<NodeId>,
    /// The schema of items after the prefix.
    pub(super) items: Option<NodeId>,
    pub(super) least: u64,
    pub(super) most: Option<u64>,
    pub(super) contains: Option<Contains>,
    pub(super) is_unique: bool,
    pub(super) unevaluated: Option<NodeId>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct ObjectRules {
    pub(super) properties: Vec<(Rc<str>, NodeId)>,
    pub(super) patterns: Vec<(Rc<NamedPattern>, NodeId)>,
    pub(super) additional: Option<NodeId>,
    pub(super) required: Vec<Rc<str>>,
    pub(super) least: u64,
    pub(super) most: Option<u64>,
    /// The schema of the names.
    pub(super) names: Option<NodeId>,
    pub(super) unevaluated: Option<NodeId>,
    /// A name, and the names that an object with it must have.
    pub(super) dependent_required: Vec<(Rc<str>, Vec<Rc<str>>)>,
    pub(super) dependent_schemas: Vec<(Rc<str>, NodeId)>,
}

#[derive(Debug, Clone)]
pub(super) struct Conditional {
    pub(super) condition: NodeId,
    pub(super) then: NodeId,
    pub(super) otherwise: NodeId,
}

impl Conditional {
    /// Whether it allows every value; it may still evaluate parts of one.
    pub(super) fn allows_all(&self) -> bool {
        self.then == NodeId::TRUE && self.otherwise == NodeId::TRUE
    }
}

/// The keywords of a schema. By default there are none, and the schema allows everything.
#[derive(Debug, Default, Clone)]
pub(super) struct Keywords {
    /// The schema's place in the document; `None` for a schema that was derived from others.
    pub(super) value: Option<ValueId>,
    /// Whether a part of the schema isn't enforced, so that its negation isn't known.
    pub(super) is_partial: bool,
    /// Whether `allOf` or `$ref` stand before `properties`: then their names come first.
    pub(super) applies_first: bool,
    pub(super) types: Option<TypeSet>,
    /// For numbers: `true` allows only whole numbers, `false` only others.
    pub(super) is_whole: Option<bool>,
    /// If present, no other values are allowed.
    pub(super) literals: Option<Rc<[Literal]>>,
    /// Values that aren't allowed.
    pub(super) excluded: Vec<Literal>,
    pub(super) range: Range,
    pub(super) multiples: Vec<Decimal>,
    pub(super) string: StringRules,
    pub(super) array: ArrayRules,
    pub(super) object: ObjectRules,
    pub(super) reference: Option<NodeId>,
    pub(super) all_of: Vec<NodeId>,
    /// For each `enum` with arrays or objects, schemas of which one must hold. They evaluate no properties or items.
    pub(super) enumerated: Vec<Vec<NodeId>>,
    /// For each `anyOf`, schemas of which at least one must hold.
    pub(super) any_of: Vec<Vec<NodeId>>,
    pub(super) one_of: Vec<NodeId>,
    pub(super) not: Option<NodeId>,
    pub(super) conditional: Option<Conditional>,
}

impl Keywords {
    pub(super) fn of_types(types: TypeSet) -> Self {
        Keywords {
            types: Some(types),
            ..Keywords::default()
        }
    }

    pub(super) fn of_object(object: ObjectRules) -> Self {
        Keywords {
            object,
            ..Keywords::of_types(TypeSet::OBJECT)
        }
    }

    pub(super) fn of_array(array: ArrayRules) -> Self {
        Keywords {
            array,
            ..Keywords::of_types(TypeSet::ARRAY)
        }
    }

    /// Objects must have this name.
    pub(super) fn requiring(name: &Rc<str>) -> Self {
        Keywords::of_object(ObjectRules {
            required: vec![Rc::clone(name)],
            ..ObjectRules::default()
        })
    }

    /// Objects must not have this name.
    pub(super) fn forbidding(name: &Rc<str>) -> Self {
        Keywords::of_object(ObjectRules {
            properties: vec![(Rc::clone(name), NodeId::FALSE)],
            ..ObjectRules::default()
        })
    }

    /// The listed values, if the schema has no other conditions.
    pub(super) fn only_literals(&self) -> Option<&Rc<[Literal]>> {
        let literals = self.literals.as_ref()?;
        let is_alone = !self.is_partial
            && self.types.is_none()
            && self.excluded.is_empty()
            && self.says_nothing_of_kinds()
            && self.any_of.is_empty()
            && self.applies_nothing_else();
        is_alone.then_some(literals)
    }

    /// The branches, if the schema is one `anyOf` and has no other conditions.
    pub(super) fn only_any_of(&self) -> Option<&[NodeId]> {
        let [branches] = &*self.any_of else {
            return None;
        };
        let is_alone = self.types.is_none()
            && self.literals.is_none()
            && self.excluded.is_empty()
            && self.says_nothing_of_kinds()
            && self.applies_nothing_else();
        is_alone.then_some(branches)
    }

    fn applies_nothing_else(&self) -> bool {
        self.reference.is_none()
            && self.enumerated.is_empty()
            && self.all_of.is_empty()
            && self.one_of.is_empty()
            && self.not.is_none()
            && self
                .conditional
                .as_ref()
                .is_none_or(Conditional::allows_all)
    }

    fn says_nothing_of_kinds(&self) -> bool {
        self.is_whole.is_none()
            && self.range == Range::default()
            && self.multiples.is_empty()
            && self.string.least == 0
            && self.string.most.is_none()
            && self.string.patterns.is_empty()
            && self.object.dependent_required.is_empty()
            && self.object.dependent_schemas.is_empty()
            && !self.says_something_of_parts()
    }

    /// Whether the schema has conditions on arrays or objects.
    pub(super) fn says_something_of_parts(&self) -> bool {
        let (array, object) = (&self.array, &self.object);
        !array.prefix.is_empty()
            || array.items.is_some()
            || array.least > 0
            || array.most.is_some()
            || array.contains.is_some()
            || array.is_unique
            || array.unevaluated.is_some()
            || !object.properties.is_empty()
            || !object.patterns.is_empty()
            || object.additional.is_some()
            || !object.required.is_empty()
            || object.least > 0
            || object.most.is_some()
            || object.names.is_some()
            || object.unevaluated.is_some()
    }

    pub(super) fn bounded(low: Option<Bound>, high: Option<Bound>) -> Self {
        Keywords {
            range: Range { low, high },
            ..Keywords::of_types(TypeSet::NUMBER)
        }
    }
}

/// Removes repeated literals and keeps the order.
pub(super) fn distinct(literals: impl IntoIterator<Item = Literal>) -> Rc<[Literal]> {
    let mut seen = HashSet::new();
    let mut distinct: Vec<Literal> = literals.into_iter().collect();
    distinct.retain(|literal| seen.insert(literal.clone()));
    distinct.into()
}
