//! The effect of a reload: the keys whose values differ from those in force, and whether they are live.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Loaded;
use super::keys::{self, Key};
use super::settings::Settings;

/// The changed keys, by name. Entries of lists are called by their names, as in `models[my/model].title`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// The keys that can change while the server runs.
    pub(crate) live: Vec<String>,
    /// The keys that need a restart.
    pub(crate) restart: Vec<String>,
}

/// The settings that a server works with, defaults included, by name.
#[derive(Debug)]
pub(crate) struct InForce(BTreeMap<String, NamedSetting>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedSetting {
    value: Option<Value>,
    live: bool,
    /// The entry of a list that the key belongs to, if any.
    entry: Option<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: String,
    /// Whether entries of this list may come and go while the server runs.
    live: bool,
}

impl InForce {
    pub(crate) fn new(loaded: &Loaded) -> Self {
        let mut named = BTreeMap::new();
        for key in keys::keys() {
            for (path, name, entry) in named_paths(&loaded.settings, &key.path) {
                let value = loaded.settings.value(&path);
                let live = key.live;
                named.insert(name, NamedSetting { value, live, entry });
            }
        }
        // Optional models whose files are missing aren't served, nor are those that an option replaces.
        let served = |id: &str| loaded.config.models.iter().any(|model| model.id == id);
        named.retain(|_, setting: &mut NamedSetting| {
            let entry = setting.entry.as_ref();
            let model = entry.and_then(|entry| entry.name.strip_prefix("models["));
            model.is_none_or(|model| served(model.trim_end_matches(']')))
        });
        InForce(named)
    }

    pub(crate) fn changes(&self, new: &InForce) -> Changes {
        let mut changes = Changes::default();
        let mut push = |live, name: &str| match live {
            true => changes.live.push(name.to_owned()),
            false => changes.restart.push(name.to_owned()),
        };
        let (mine, others) = (self.entries(), new.entries());
        for entry in mine.symmetric_difference(&others) {
            push(entry.live, &entry.name);
        }
        for (name, setting) in &self.0 {
            if let Some(other) = new.0.get(name)
                && other != setting
            {
                push(setting.live, name);
            }
        }
        changes
    }

    /// Puts the live settings of `new` in force. The others stay those of the start.
    pub(crate) fn apply(&mut self, new: InForce) {
        let mine = self.entries();
        self.0.retain(|_, setting| !setting.live);
        self.0.extend(new.0.into_iter().filter(|(_, setting)| {
            let comes = |entry: &Entry| entry.live || mine.contains(entry);
            setting.live && setting.entry.as_ref().is_none_or(comes)
        }));
    }

    fn entries(&self) -> BTreeSet<Entry> {
        let entries = self.0.values().filter_map(|setting| setting.entry.clone());
        entries.collect()
    }
}

/// Each concrete path of a key (`models[0].title`), its name (`models[my/model].title`), and the outermost entry that it is in.
fn named_paths(settings: &Settings, pattern: &str) -> Vec<(String, String, Option<Entry>)> {
    let mut paths = vec![(String::new(), String::new(), None)];
    for part in pattern.split('.') {
        let join = |path: &str, part: &str| match path {
            "" => part.to_owned(),
            path => format!("{path}.{part}"),
        };
        let list = part.strip_suffix("[]");
        paths = (paths.into_iter())
            .flat_map(|(path, name, entry)| {
                let (path, name) = (
                    join(&path, list.unwrap_or(part)),
                    join(&name, list.unwrap_or(part)),
                );
                if list.is_none() {
                    return vec![(path, name, entry)];
                }
                (0..settings.count(&path))
                    .map(|index| {
                        let (key, called) = naming(settings, &path, index);
                        let name = format!("{name}[{called}]");
                        let live = key.is_some_and(|key| key.live);
                        let outermost = entry.clone().unwrap_or_else(|| Entry {
                            name: name.clone(),
                            live,
                        });
                        (format!("{path}[{index}]"), name, Some(outermost))
                    })
                    .collect()
            })
            .collect();
    }
    paths
}

/// The key that names an entry of a list, and the entry's name; the number of an entry without a name.
fn naming(settings: &Settings, list: &str, index: usize) -> (Option<&'static Key>, String) {
    let named = ["id", "name"].iter().find_map(|name| {
        let setting = settings.get(&format!("{list}[{index}].{name}"))?;
        let key = keys::find(&format!("{list}[].{name}"));
        Some((key, setting.value.as_str()?.to_owned()))
    });
    named.unwrap_or_else(|| (None, index.to_string()))
}
