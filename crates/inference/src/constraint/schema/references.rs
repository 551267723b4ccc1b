//! Resolves `$ref` within a schema.

use std::collections::{HashMap, HashSet};

use percent_encoding::percent_decode_str;
use url::Url;

use super::super::json::{Document, JsonValue, ValueId};
use super::draft::Draft;

/// The resources (schemas with `$id`) and anchors of a schema.
#[derive(Debug)]
pub(super) struct References {
    /// Schemas that have an address of their own (`$id`), by address; the root may be one of them.
    resources: HashMap<String, ValueId>,
    addresses: HashMap<ValueId, Url>,
    anchors: HashMap<(ValueId, Box<str>), ValueId>,
    /// Addresses and anchors that occur more than once, so that a reference to them is ambiguous.
    ambiguous: HashSet<String>,
}

/// The role of a value in a schema's document. Only [`Role::Schema`] can have addresses and anchors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Schema,
    /// An object whose names are not keywords, and whose values are schemas, such as that of `properties`.
    SchemasByName,
    /// A value of `const`, `enum` or an annotation, or a part of one.
    Data,
}

impl Role {
    /// The role of a value whose container has the role `parent`, under its `name` there.
    fn of(parent: Option<Role>, name: Option<&str>) -> Self {
        match (parent, name) {
            (Some(Role::Data), _) => Role::Data,
            (Some(Role::Schema), Some("const" | "enum" | "default" | "example" | "examples")) => {
                Role::Data
            }
            (
                Some(Role::Schema),
                Some(
                    "$defs" | "definitions" | "dependencies" | "dependentSchemas"
                    | "patternProperties" | "properties",
                ),
            ) => Role::SchemasByName,
            _ => Role::Schema,
        }
    }
}

/// The base address of a schema that has none.
const NO_ADDRESS: &str = "json-schema:///";

impl References {
    pub(super) fn new(document: &Document) -> Self {
        let mut references = References {
            resources: HashMap::new(),
            addresses: HashMap::new(),
            anchors: HashMap::new(),
            ambiguous: HashSet::new(),
        };
        let none = Url::parse(NO_ADDRESS).ok();
        references
            .addresses
            .extend(none.map(|url| (Document::ROOT, url)));
        // Containers come before their contents, so that a base address is known when it is needed.
        let mut seen = HashSet::new();
        let mut roles: Vec<Role> = Vec::with_capacity(document.len());
        for (id, value) in document.iter() {
            let parent = document.parent(id).map(|parent| roles[parent.index()]);
            let role = Role::of(parent, document.name(id));
            roles.push(role);
            if role != Role::Schema || !matches!(value, JsonValue::Object(_)) {
                continue;
            }
            let text = |name| document.get(document.member(id, name)?).as_str();
            if let Some(address) = own_address(document, id)
                && let Some((_, base)) = references.base(document, id)
                && let Some(url) = join(base, address)
            {
                let plain = without_fragment(&url);
                if references.resources.insert(plain.clone(), id).is_some() {
                    references.ambiguous.insert(plain);
                }
                references.addresses.insert(id, url);
            }
            // If there are several of these, a reference's target depends on the path by which the reference was reached.
            let dynamic = text("$dynamicAnchor").map(|name| format!("#{name}"));
            let recursive = document.member(id, "$recursiveAnchor");
            let recursive =
                recursive.filter(|&value| *document.get(value) == JsonValue::Bool(true));
            for name in dynamic
                .into_iter()
                .chain(recursive.map(|_| "$recursiveAnchor".to_owned()))
            {
                if !seen.insert(name.clone()) {
                    references.ambiguous.insert(name);
                }
            }
            let fragment = |name| text(name).and_then(|text| text.strip_prefix('#'));
            let anchors = [
                text("$anchor"),
                text("$dynamicAnchor"),
                fragment("$id"),
                fragment("id"),
            ];
            let Some((resource, _)) = references.base(document, id) else {
                continue;
            };
            for anchor in anchors.into_iter().flatten() {
                references
                    .anchors
                    .entry((resource, anchor.into()))
                    .or_insert(id);
            }
        }
        references
    }

    /// The innermost resource that contains a value, and the resource's address.
    fn base(&self, document: &Document, id: ValueId) -> Option<(ValueId, &Url)> {
        let mut at = Some(id);
        while let Some(id) = at {
            if let Some(url) = self.addresses.get(&id) {
                return Some((id, url));
            }
            at = document.parent(id);
        }
        None
    }

    /// The target of `$dynamicRef` or `$recursiveRef`; `None` if it depends on the path by which the reference is
    /// reached.
    pub(super) fn resolve_dynamic(
        &self,
        document: &Document,
        from: ValueId,
        reference: &str,
    ) -> Option<ValueId> {
        let anchor = reference.rfind('#').map_or("", |at| &reference[at..]);
        let name = if anchor == "#" {
            "$recursiveAnchor"
        } else {
            anchor
        };
        if self.ambiguous.contains(name) {
            return None;
        }
        self.resolve(document, from, reference)
    }

    pub(super) fn resolve(
        &self,
        document: &Document,
        from: ValueId,
        reference: &str,
    ) -> Option<ValueId> {
        let (address, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let (base, url) = self.base(document, from)?;
        let resource = match address {
            "" => base,
            address => {
                let plain = without_fragment(&join(url, address)?);
                if self.ambiguous.contains(&plain) {
                    return None;
                }
                *self.resources.get(&plain)?
            }
        };
        let fragment = percent_decode_str(fragment).decode_utf8().ok()?;
        if fragment.is_empty() {
            return Some(resource);
        }
        if fragment.starts_with('/') {
            // Many schemas mean a pointer from the document's root, although the part with the reference has its own
            // address.
            let within = document.follow(resource, &fragment);
            return within.or_else(|| document.follow(Document::ROOT, &fragment));
        }
        let anchor = |resource| {
            self.anchors
                .get(&(resource, Box::from(&*fragment)))
                .copied()
        };
        anchor(resource).or_else(|| anchor(Document::ROOT))
    }
}

/// The address that a schema gives itself.
fn own_address(document: &Document, id: ValueId) -> Option<&str> {
    let text = |name| document.get(document.member(id, name)?).as_str();
    let address = text("$id").or_else(|| text("id"))?;
    let draft = Draft::of(document, id);
    let is_named = text("$id").is_some() || draft == Draft::Four || id == Document::ROOT;
    let is_ignored = draft.ref_hides_its_siblings() && text("$ref").is_some();
    (is_named && !is_ignored && !address.starts_with('#')).then_some(address)
}

/// An address as it is meant within another one. Beside a URN, which has no path, a relative one is itself.
fn join(base: &Url, address: &str) -> Option<Url> {
    let relative_to_nothing = || Url::parse(NO_ADDRESS).ok()?.join(address).ok();
    base.join(address).ok().or_else(relative_to_nothing)
}

fn without_fragment(url: &Url) -> String {
    let mut url = url.clone();
    url.set_fragment(None);
    url.to_string()
}
