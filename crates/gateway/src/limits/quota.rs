//! The subject of a limit, and the limit's state.

use std::sync::Arc;
use std::time::Duration;

pub use weir_accounts::Quotas;

/// A thing that has limits, for example a key, or an account's use of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub name: Arc<str>,
    pub quotas: Quotas,
}

/// The limit that refused the request, and when the same request would be admitted. For concurrency the time is an
/// estimate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Denied {
    pub which: Which,
    pub limit: u64,
    pub retry_after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Requests,
    Tokens,
    Concurrent,
}

/// The state of a rate limit, as the response headers show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    pub limit: u64,
    pub remaining: u64,
    /// Time until the whole limit is available again.
    pub reset: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    pub requests: Option<Gauge>,
    pub tokens: Option<Gauge>,
}

/// The `Retry-After` of a request refused for concurrency, in nanoseconds: a guess at when a running request ends.
pub(super) const CONCURRENT_RETRY_NS: u64 = 1_000_000_000;
