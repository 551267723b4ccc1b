//! The whole config: its sections, and the keys that are in none.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use weir_webhooks::Webhook;

use super::http::Http;
use super::limits::Limits;
use super::models::{self, Model};
use super::sections::{Cors, Log, Node, Postgres, Shutdown, Usage};
use super::types::{DATABASES, Database, listen, place_expected};
use super::webhooks::{self, WebhookSection};

/// The whole config, checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Config {
    #[serde(skip)]
    pub(crate) source: Source,
    /// Address and port on which the server listens, as `0.0.0.0:8080` (all addresses) or `localhost:8080`. A port
    /// alone is one of 127.0.0.1. Port 0 takes a free port.
    #[serde(deserialize_with = "listen")]
    #[schemars(with = "String", extend("x-expected" = "an address with a port, as 127.0.0.1:8080"))]
    pub(crate) listen: SocketAddr,
    /// Directory of the database. It is created if it is missing.
    #[schemars(extend("x-expected" = "a path"))]
    pub(crate) data: PathBuf,
    /// Where accounts, the ledger and usage records are stored: `sqlite` is a file in `data`, for one server process; a
    /// PostgreSQL database may be shared by several. TLS is set by the parameters `sslmode` (`require`, `verify-full`)
    /// and `sslrootcert` of the address.
    #[schemars(
        with = "String",
        extend("x-secret" = true, "x-expected" = place_expected("sqlite", &DATABASES))
    )]
    pub(crate) database: Database,
    /// Whether the first start creates an account `demo` with 5 USD and shows its key: on stdout, or in the file
    /// `demo-key` in `data` if stdout is the system's journal or `/dev/null`. Absent: only if stdout is a terminal.
    pub(crate) demo: Option<bool>,
    pub(crate) postgres: Postgres,
    pub(crate) node: Node,
    pub(crate) limits: Limits,
    pub(crate) models: Vec<Model>,
    pub(crate) webhooks: Vec<WebhookSection>,
    pub(crate) http: Http,
    pub(crate) usage: Usage,
    pub(crate) shutdown: Shutdown,
    pub(crate) log: Log,
    pub(crate) cors: Cors,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            source: Source::default(),
            listen: SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 8080),
            data: "data".into(),
            database: Database::Sqlite,
            demo: None,
            postgres: Postgres::default(),
            node: Node::default(),
            limits: Limits::default(),
            models: Vec::new(),
            webhooks: Vec::new(),
            http: Http::default(),
            usage: Usage::default(),
            shutdown: Shutdown::default(),
            log: Log::default(),
            cors: Cors::default(),
        }
    }
}

impl Config {
    /// Checks the conditions between several values. `problem` gets the concrete path and a message.
    pub(super) fn check(&self, problem: &mut dyn FnMut(&str, String)) {
        models::check(&self.models, problem);
        self.limits.check(problem);
        self.http.check(problem);
        webhooks::check(&self.webhooks, problem);
    }

    pub(crate) fn webhooks(&self) -> Vec<Webhook> {
        let webhooks = self.webhooks.iter();
        webhooks.map(WebhookSection::webhook).collect()
    }

    pub(crate) fn cors_origins(&self) -> Vec<String> {
        let origins = self.cors.origins.iter();
        origins.map(|origin| origin.0.clone()).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    File(PathBuf),
    /// There is no file. Each line names an assumption that was made instead.
    Assumed(Vec<String>),
}

impl Default for Source {
    fn default() -> Self {
        Source::Assumed(Vec::new())
    }
}
