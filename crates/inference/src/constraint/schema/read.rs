//! Reads the JSON of a schema into [`Keywords`].

use std::rc::Rc;

use super::super::decimal::Decimal;
use super::super::formats;
use super::super::json::{JsonValue, ValueId};
use super::super::numbers::Bound;
use super::keywords::{
    Conditional, Contains, Keywords, LENGTH_MAX, NamedPattern, NodeId, SCHEMA_ITEMS_MAX, TypeSet,
    distinct,
};
use super::{Compiler, Failure};

/// Limit on the least common multiple of all `multipleOf` of a number, in units of its smallest decimal place. The
/// expression for such a number has as many states.
pub const MULTIPLES_MAX: u64 = 1_000;
/// Limit on the decimal places of `multipleOf`.
pub(super) const MULTIPLE_PLACES_MAX: u32 = 8;

impl Compiler<'_> {
    /// Reads the keywords of a schema. Keywords with invalid values are relaxed, and so is a schema that is neither an
    /// object nor a boolean, for which this returns `None`.
    pub(super) fn read(&mut self, id: ValueId) -> Result<Option<Keywords>, Failure> {
        let document = self.document;
        let entries = match document.get(id) {
            JsonValue::Object(entries) => entries,
            other => {
                let why = format!("a schema is an object or a boolean, not {}", other.kind());
                self.relax_value(id, why);
                return Ok(None);
            }
        };
        self.budget.spend(1 + entries.len())?;
        let mut reader = Reader {
            compiler: self,
            schema: id,
            keywords: Keywords {
                value: Some(id),
                ..Keywords::default()
            },
        };
        for (name, &value) in entries {
            reader.keyword(name, value)?;
        }
        reader.together()?;
        Ok(Some(reader.keywords))
    }
}

struct Reader<'a, 'b> {
    compiler: &'a mut Compiler<'b>,
    schema: ValueId,
    keywords: Keywords,
}

impl Reader<'_, '_> {
    fn keyword(&mut self, name: &str, value: ValueId) -> Result<(), Failure> {
        match name {
            "type" => self.types(value),
            "const" => self.literals(&[value], value)?,
            "enum" => match self.compiler.document.get(value) {
                JsonValue::Array(values) => self.literals(values, value)?,
                _ => self.unfit(value, "should be an array"),
            },
            "multipleOf" => self.multiple(value),
            "minLength" => self.keywords.string.least = self.least(value, LENGTH_MAX),
            "maxLength" => self.keywords.string.most = self.count(value),
            "minItems" => self.keywords.array.least = self.least(value, SCHEMA_ITEMS_MAX),
            "maxItems" => self.keywords.array.most = self.count(value),
            "minProperties" => self.keywords.object.least = self.least(value, SCHEMA_ITEMS_MAX),
            "maxProperties" => self.keywords.object.most = self.count(value),
            "pattern" => {
                if let Some(pattern) = self.pattern(value)? {
                    self.keywords.string.patterns.push(pattern);
                }
            }
            "format" => self.format(value)?,
            "uniqueItems" => match self.compiler.document.get(value) {
                &JsonValue::Bool(is_unique) => self.keywords.array.is_unique = is_unique,
                _ => self.unfit(value, "should be a boolean"),
            },
            "properties" => {
                self.keywords.applies_first =
                    self.keywords.reference.is_some() || !self.keywords.all_of.is_empty();
                self.keywords.object.properties = self.named(value)?;
            }
            "patternProperties" => self.pattern_properties(value)?,
            "required" => self.keywords.object.required = self.names(value),
            "dependentRequired" | "dependentSchemas" | "dependencies" => {
                self.dependencies(name, value)?;
            }
            "allOf" => self.keywords.all_of = self.schemas(value),
            "anyOf" => {
                let branches = self.schemas(value);
                if !branches.is_empty() {
                    self.keywords.any_of.push(branches);
                }
            }
            "oneOf" => self.keywords.one_of = self.schemas(value),
            "not" => self.keywords.not = Some(self.schema_of(value)),
            "additionalProperties" => self.keywords.object.additional = Some(self.schema_of(value)),
            "propertyNames" => self.keywords.object.names = Some(self.schema_of(value)),
            "unevaluatedProperties" => {
                self.keywords.object.unevaluated = Some(self.schema_of(value));
            }
            "unevaluatedItems" => self.keywords.array.unevaluated = Some(self.schema_of(value)),
            "$ref" => self.reference(value, false),
            "$dynamicRef" | "$recursiveRef" => self.reference(value, true),
            // Keywords that depend on others are read by `together`. All other names put no condition on the value.
            _ => {}
        }
        Ok(())
    }

    /// Reads the keywords that depend on others.
    fn together(&mut self) -> Result<(), Failure> {
        self.bounds();
        let (document, schema) = (self.compiler.document, self.schema);
        let get = |name| document.member(schema, name);
        if let Some(condition) = get("if") {
            let (then, otherwise) = (get("then"), get("else"));
            let mut branch =
                |value: Option<ValueId>| value.map_or(NodeId::TRUE, |value| self.schema_of(value));
            let (then, otherwise) = (branch(then), branch(otherwise));
            self.keywords.conditional = Some(Conditional {
                condition: self.schema_of(condition),
                then,
                otherwise,
            });
        }
        let (prefix, items, additional) =
            (get("prefixItems"), get("items"), get("additionalItems"));
        let is_list = |value: ValueId| matches!(document.get(value), JsonValue::Array(_));
        // Before draft 2020-12 a list of `items` was what `prefixItems` is now.
        let (prefix, items) = match items {
            Some(items) if is_list(items) => (Some(items), additional),
            items => (prefix, items),
        };
        self.keywords.array.prefix = prefix.map_or_else(Vec::new, |prefix| self.schemas(prefix));
        self.keywords.array.items = items.map(|items| self.schema_of(items));
        let (contains, least, most) = (get("contains"), get("minContains"), get("maxContains"));
        if let Some(contains) = contains {
            self.keywords.array.contains = Some(Contains {
                node: self.schema_of(contains),
                least: least.map_or(1, |least| self.least(least, SCHEMA_ITEMS_MAX)),
                most: most.and_then(|most| self.count(most)),
            });
        }
        Ok(())
    }

    /// Reads `minimum`, `maximum` and their exclusive forms. In draft 4 `exclusiveMinimum: true` makes `minimum`
    /// exclusive.
    fn bounds(&mut self) {
        for (name, exclusive, is_low) in [
            ("minimum", "exclusiveMinimum", true),
            ("maximum", "exclusiveMaximum", false),
        ] {
            let document = self.compiler.document;
            let get = |name| document.member(self.schema, name);
            let (plain, exclusive) = (get(name), get(exclusive));
            let flag = exclusive.map(|exclusive| document.get(exclusive));
            let is_flag = matches!(flag, Some(JsonValue::Bool(_)));
            let mut add = |value: Option<ValueId>, is_exclusive: bool| {
                let Some(value) = value.and_then(|value| self.number(value)) else {
                    return;
                };
                let bound = Bound {
                    value,
                    is_exclusive,
                };
                match is_low {
                    true => self.keywords.range.raise(bound),
                    false => self.keywords.range.lower(bound),
                }
            };
            add(plain, matches!(flag, Some(JsonValue::Bool(true))));
            add(exclusive.filter(|_| !is_flag), true);
        }
    }

    fn types(&mut self, value: ValueId) {
        let document = self.compiler.document;
        let names = match document.get(value) {
            JsonValue::Array(names) => names.clone(),
            _ => vec![value],
        };
        let (mut types, mut is_whole) = (TypeSet::NONE, true);
        for name in names {
            let known = document
                .get(name)
                .as_str()
                .and_then(|name| Some((TypeSet::named(name)?, name)));
            let Some((kind, name)) = known else {
                return self.unfit(
                    value,
                    "should name types: null, boolean, integer, number, string, array, object",
                );
            };
            types = types.or(kind);
            is_whole &= name != "number";
        }
        self.keywords.types = Some(types);
        if is_whole && types.has(TypeSet::NUMBER) {
            self.keywords.is_whole = Some(true);
        }
    }

    /// Reads the values of `const` or `enum`. Scalars become literals; arrays and objects become schemas that allow only
    /// this value.
    fn literals(&mut self, values: &[ValueId], keyword: ValueId) -> Result<(), Failure> {
        self.compiler.budget.spend(values.len())?;
        let mut literals = Vec::new();
        let mut compounds = Vec::new();
        for &value in values {
            match self.compiler.document.get(value) {
                JsonValue::Array(_) | JsonValue::Object(_) => {
                    compounds.push(self.compiler.constant(value));
                }
                _ => match self.compiler.literal(value) {
                    Some(literal) => literals.push(literal),
                    None => {
                        self.unfit(keyword, "has a number with too many digits to be enforced");
                        return Ok(());
                    }
                },
            }
        }
        let literals = distinct(literals);
        if compounds.is_empty() {
            // `const` and `enum` in one schema both apply.
            self.keywords.literals = Some(match self.keywords.literals.take() {
                Some(before) => (before.iter())
                    .filter(|&literal| literals.contains(literal))
                    .cloned()
                    .collect(),
                None => literals,
            });
            return Ok(());
        }
        let mut branches = Vec::new();
        if !literals.is_empty() {
            branches.push(self.compiler.derive(Keywords {
                literals: Some(literals),
                ..Keywords::default()
            }));
        }
        branches.extend(compounds);
        self.keywords.enumerated.push(branches);
        Ok(())
    }

    fn multiple(&mut self, value: ValueId) {
        let Some(multiple) = self.number(value) else {
            return;
        };
        if multiple.is_zero() {
            return self.unfit(value, "should be more than 0");
        }
        let fits = multiple.scaled().is_some_and(|(digits, places)| {
            digits <= MULTIPLES_MAX && places <= MULTIPLE_PLACES_MAX
        });
        match fits {
            true => self.keywords.multiples.push(multiple.magnitude()),
            false => self.unfit(value, "has too many digits to be enforced"),
        }
    }

    fn number(&mut self, value: ValueId) -> Option<Decimal> {
        let JsonValue::Number(text) = self.compiler.document.get(value) else {
            self.unfit(value, "should be a number");
            return None;
        };
        let number = Decimal::parse(text);
        if number.is_none() {
            self.unfit(value, "has too many digits to be enforced");
        }
        number
    }

    fn count(&mut self, value: ValueId) -> Option<u64> {
        let number = match self.compiler.document.get(value) {
            JsonValue::Number(text) => Decimal::parse(text),
            _ => None,
        };
        // A count that doesn't fit in 64 bits is one that no value reaches.
        let count = number
            .filter(|number| number.is_whole() && !number.is_negative)
            .map(|number| number.whole().parse().unwrap_or(u64::MAX));
        if count.is_none() {
            self.unfit(value, "should be a whole number that isn't negative");
        }
        count
    }

    fn least(&mut self, value: ValueId, most: u64) -> u64 {
        let count = self.count(value).unwrap_or(0);
        if count > most {
            self.unfit(value, &format!("may be at most {most} to be enforced"));
            return 0;
        }
        count
    }

    fn pattern(&mut self, value: ValueId) -> Result<Option<Rc<NamedPattern>>, Failure> {
        let Some(text) = self.compiler.document.get(value).as_str() else {
            self.unfit(value, "should be a string");
            return Ok(None);
        };
        match self.compiler.pattern(text, value)? {
            Ok(pattern) => Ok(Some(pattern)),
            Err(why) => {
                self.keywords.is_partial = true;
                self.compiler.relax_value(value, why.to_owned());
                Ok(None)
            }
        }
    }

    /// Reads `format`. An unknown format is an annotation.
    fn format(&mut self, value: ValueId) -> Result<(), Failure> {
        let name = self.compiler.document.get(value).as_str();
        for set in name.and_then(formats::sets).unwrap_or_default() {
            let key = format!("format {}", set.written);
            let pattern = self
                .compiler
                .named_pattern(&key, value, || Ok(set.texts()))?;
            match pattern {
                Ok(pattern) => self.keywords.string.patterns.push(pattern),
                Err(why) => {
                    self.keywords.is_partial = true;
                    self.compiler.relax_value(value, why.to_owned());
                }
            }
        }
        Ok(())
    }

    fn pattern_properties(&mut self, value: ValueId) -> Result<(), Failure> {
        let JsonValue::Object(entries) = self.compiler.document.get(value) else {
            self.unfit(value, "should be an object");
            return Ok(());
        };
        self.compiler.budget.spend(entries.len())?;
        for (text, &value) in entries {
            match self.compiler.pattern(text, value)? {
                Ok(pattern) => {
                    let node = self.schema_of(value);
                    self.keywords.object.patterns.push((pattern, node));
                }
                Err(why) => {
                    self.keywords.is_partial = true;
                    self.compiler.relax_value(value, why.to_owned());
                }
            }
        }
        Ok(())
    }

    fn named(&mut self, value: ValueId) -> Result<Vec<(Rc<str>, NodeId)>, Failure> {
        let JsonValue::Object(entries) = self.compiler.document.get(value) else {
            self.unfit(value, "should be an object");
            return Ok(Vec::new());
        };
        self.compiler.budget.spend(entries.len())?;
        let named = entries
            .iter()
            .map(|(name, &value)| (Rc::from(&**name), self.schema_of(value)));
        Ok(named.collect())
    }

    fn names(&mut self, value: ValueId) -> Vec<Rc<str>> {
        let document = self.compiler.document;
        let names = match document.get(value) {
            JsonValue::Array(names) => names
                .iter()
                .map(|&name| document.get(name).as_str().map(Rc::from))
                .collect(),
            _ => None,
        };
        names.unwrap_or_else(|| {
            self.unfit(value, "should be a list of names");
            Vec::new()
        })
    }

    fn dependencies(&mut self, keyword: &str, value: ValueId) -> Result<(), Failure> {
        let document = self.compiler.document;
        let JsonValue::Object(entries) = document.get(value) else {
            self.unfit(value, "should be an object");
            return Ok(());
        };
        self.compiler.budget.spend(entries.len())?;
        for (name, &value) in entries {
            let name: Rc<str> = Rc::from(&**name);
            let is_list = matches!(document.get(value), JsonValue::Array(_));
            if keyword == "dependentRequired" || keyword == "dependencies" && is_list {
                let names = self.names(value);
                self.keywords.object.dependent_required.push((name, names));
            } else {
                let node = self.schema_of(value);
                self.keywords.object.dependent_schemas.push((name, node));
            }
        }
        Ok(())
    }

    fn schemas(&mut self, value: ValueId) -> Vec<NodeId> {
        match self.compiler.document.get(value) {
            JsonValue::Array(values) => values.iter().map(|&value| self.schema_of(value)).collect(),
            _ => {
                self.unfit(value, "should be a list of schemas");
                Vec::new()
            }
        }
    }

    fn schema_of(&mut self, value: ValueId) -> NodeId {
        self.compiler.node(value)
    }

    fn reference(&mut self, value: ValueId, is_dynamic: bool) {
        let Some(text) = self.compiler.document.get(value).as_str() else {
            return self.unfit(value, "should be a string");
        };
        let (references, document) = (&self.compiler.references, self.compiler.document);
        let target = match is_dynamic {
            true => references.resolve_dynamic(document, value, text),
            false => references.resolve(document, value, text),
        };
        match target {
            Some(target) => {
                let target = self.schema_of(target);
                match self.keywords.reference {
                    None => self.keywords.reference = Some(target),
                    Some(_) => self.keywords.all_of.push(target),
                }
            }
            None => self.unfit(
                value,
                "leads to nothing in this schema, or to several places",
            ),
        }
    }

    /// Relaxes a keyword because of its value.
    fn unfit(&mut self, value: ValueId, what: &str) {
        self.keywords.is_partial = true;
        self.compiler.relax_value(value, format!("it {what}"));
    }
}
