//! Values of single keys that are more than a number, a word or a text.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error, Unexpected};
use serde::{Deserialize, Serialize, Serializer};
use tracing_subscriber::EnvFilter;
use weir_accounts::{EventKind, PostgresUrl, Tier};
use weir_gateway::limits::is_store_address;

use super::address;

const ENCODE: &str = "in a user name or password, write @ as %40, # as %23, / as %2F and ? as %3F";
pub(super) const DATABASES: [&str; 2] = ["postgres://", "postgresql://"];
pub(super) const STORES: [&str; 5] = [
    "redis://",
    "rediss://",
    "valkey://",
    "valkeys://",
    "unix://",
];

/// The error of a value that isn't what its schema describes.
fn unexpected<E: Error>() -> E {
    E::invalid_value(Unexpected::Other("this"), &"another")
}

/// Reads a text that the type parses.
pub(super) fn parsed<'de, D, T>(text: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    String::deserialize(text)?.parse().map_err(D::Error::custom)
}

pub(super) fn listen<'de, D: Deserializer<'de>>(text: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(text)?;
    address::listen(&text).ok_or_else(unexpected)
}

pub(super) fn tier_schema(_: &mut SchemaGenerator) -> Schema {
    let needs = "T1, T2, T3, T4 or T5";
    json_schema!({"type": "string", "enum": Tier::ALL.map(Tier::name), "x-needs": needs})
}

pub(super) fn events<'de, D: Deserializer<'de>>(names: D) -> Result<Vec<EventKind>, D::Error> {
    let names = Vec::<String>::deserialize(names)?;
    let named = |kind: &EventKind| names.iter().any(|name| name == kind.name());
    Ok(EventKind::ALL.into_iter().filter(named).collect())
}

pub(super) fn event_schema(_: &mut SchemaGenerator) -> Schema {
    let names = EventKind::ALL.map(EventKind::name);
    json_schema!({"type": "array", "items": {"type": "string", "enum": names}})
}

/// The description of a place: the word, or an address with one of the schemes.
pub(super) fn place_expected(word: &str, schemes: &[&str]) -> String {
    let schemes = schemes.iter().map(|scheme| format!("{scheme}…"));
    let all: Vec<_> = [format!("\"{word}\"")].into_iter().chain(schemes).collect();
    all.join(" or ")
}

/// Refuses an address without one of the schemes, or with a password that ends it early.
fn place<E: Error>(text: &str, schemes: &[&str]) -> Result<(), E> {
    if !schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Err(unexpected());
    }
    match address::needs_encoding(text) {
        true => Err(E::custom(ENCODE)),
        false => Ok(()),
    }
}

/// The database of accounts, ledger and usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Database {
    /// A file in the directory `data`.
    Sqlite,
    Postgres(PostgresUrl),
}

impl<'de> Deserialize<'de> for Database {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        if text == "sqlite" {
            return Ok(Database::Sqlite);
        }
        place(&text, &DATABASES)?;
        let url = text.parse();
        url.map(Database::Postgres)
            .map_err(|error| D::Error::custom(format!("it is no address: {error}")))
    }
}

impl Serialize for Database {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Database::Sqlite => serializer.serialize_str("sqlite"),
            Database::Postgres(url) => serializer.collect_str(url),
        }
    }
}

/// Where rate limits are counted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Store {
    /// In this process alone.
    Memory,
    /// In a shared store, with its address, which may hold a password.
    Shared(String),
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Store::Memory => "Memory",
            Store::Shared(_) => "Shared(…)",
        })
    }
}

impl<'de> Deserialize<'de> for Store {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        if text == "memory" {
            return Ok(Store::Memory);
        }
        place(&text, &STORES)?;
        match is_store_address(&text) {
            true => Ok(Store::Shared(text)),
            false => Err(D::Error::custom(
                "it is no address of a store, as redis://host:6379/0",
            )),
        }
    }
}

impl Serialize for Store {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Store::Memory => "memory",
            Store::Shared(_) => "…",
        })
    }
}

/// Directives of the log's filter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct LogFilter(pub(crate) String);

impl Default for LogFilter {
    fn default() -> Self {
        LogFilter("info".to_owned())
    }
}

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match EnvFilter::try_new(&text) {
            Ok(_) => Ok(LogFilter(text)),
            Err(error) => Err(format!("`{text}`: {error}")),
        }
    }
}

/// A network such as `10.0.0.0/8`, or an address, which becomes a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(pub(crate) IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        let address = |text: &str| text.parse::<IpAddr>().ok().map(IpNet::from);
        let network = text.parse().ok().or_else(|| address(&text));
        network.map(Network).ok_or_else(unexpected)
    }
}

/// `*`, or a web origin such as `https://example.com:8443`: scheme, host, perhaps a port, nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct WebOrigin(pub(crate) String);

impl<'de> Deserialize<'de> for WebOrigin {
    fn deserialize<D: Deserializer<'de>>(text: D) -> Result<Self, D::Error> {
        let text = String::deserialize(text)?;
        let https = text.strip_prefix("https://");
        let host = https.or_else(|| text.strip_prefix("http://"));
        let is_host =
            |host: &str| !host.is_empty() && !host.contains(['/', ' ', '*', '@', '?', '#']);
        match text == "*" || host.is_some_and(is_host) {
            true => Ok(WebOrigin(text)),
            false => Err(unexpected()),
        }
    }
}

/// The word for a choice, as in the config file.
pub(crate) fn word(choice: impl Serialize) -> String {
    let word = serde_json::to_value(choice).ok();
    let word = word.as_ref().and_then(serde_json::Value::as_str);
    word.expect("a choice is a word").to_owned()
}
