//! Small sections: `[postgres]`, `[node]`, `[usage]`, `[shutdown]`, `[log]`, `[cors]`.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::{LogFilter, WebOrigin};

/// How PostgreSQL is used, if it is the database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Postgres {
    /// Number of connections of a node that read; one more connection writes.
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) connections_max: u32,
    /// Longest wait for a connection, and for the answer to a statement. A request that needs the database gets 503
    /// after at most twice that time.
    #[schemars(range(min = 1, max = 600))]
    pub(crate) timeout_seconds: u64,
}

impl Default for Postgres {
    fn default() -> Self {
        Postgres {
            connections_max: 8,
            timeout_seconds: 5,
        }
    }
}

impl Postgres {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}

/// This process among those that share a database.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Node {
    /// Name of this node (one `weir serve` process) in the ledger, where several nodes share a PostgreSQL. Each process
    /// adds a random part of its own.
    pub(crate) name: String,
    /// A node that doesn't renew its lease in the database for this long counts as dead: another node ends its open
    /// requests and charges the tokens that were delivered. A node that can't renew its lease ends its own streams with
    /// an error earlier, after nine tenths of this time.
    #[schemars(range(min = 5, max = 86_400))]
    pub(crate) silence_seconds: u64,
}

impl Default for Node {
    fn default() -> Self {
        Node {
            name: "local".to_owned(),
            silence_seconds: 30,
        }
    }
}

impl Node {
    pub(crate) fn silence(&self) -> Duration {
        Duration::from_secs(self.silence_seconds)
    }
}

/// How long usage is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Usage {
    /// Usage records older than this are deleted, except for refunded ones. Sums by day stay, and with them the bills;
    /// refunds and bills by hour need the records. Absent: records are kept for ever.
    #[schemars(range(min = 1, max = 36_500))]
    pub(crate) keep_days: Option<u32>,
    /// Number of running requests whose end can be noted in `data` (files `unsettled-…`) while the database can't be
    /// written. They are settled later, if need be by the next start. Each takes 256 bytes, which are allocated at the
    /// start. An answer whose end can be noted nowhere ends with an error.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) unsettled_requests_max: u32,
}

impl Default for Usage {
    fn default() -> Self {
        Usage {
            keep_days: None,
            unsettled_requests_max: 4096,
        }
    }
}

/// How the server stops.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Shutdown {
    /// Time for running answers to finish after SIGTERM or Ctrl-C. A second signal ends them at once.
    #[schemars(range(min = 0, max = 86_400))]
    pub(crate) grace_seconds: u64,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { grace_seconds: 30 }
    }
}

impl Shutdown {
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }
}

/// The log: its format and its filter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub(crate) struct Log {
    /// Format of the log, which goes to stderr.
    pub(crate) format: LogFormat,
    /// The lines that are logged, as in `info,weir_inference=debug`. The environment variable `WEIR_LOG` does the same.
    #[schemars(
        with = "String",
        extend("x-live" = true, "x-expected" = "directives as info,weir_inference=debug")
    )]
    pub(crate) filter: LogFilter,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Which web pages may call the API.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema, Default)]
#[serde(default)]
pub(crate) struct Cors {
    /// Web origins whose pages may call the API, as `["https://example.com"]`; `["*"]` is every origin. Absent: none.
    #[schemars(
        with = "Vec<String>",
        extend("x-live" = true, "x-expected" = "a list of origins, as [\"https://example.com\"]")
    )]
    pub(crate) origins: Vec<WebOrigin>,
}
