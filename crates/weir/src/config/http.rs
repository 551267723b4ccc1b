//! `[http]`: limits of connections and request bodies.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use weir_server::TrustedProxies;

use super::types::Network;

/// Defaults of the bytes of bodies in flight, for a key and for all keys together, as multiples of the largest body.
const BODIES_PER_KEY: u64 = 4;
const BODIES: u64 = 16;
const IN_FLIGHT_MAX: u64 = 1 << 40;

/// Limits of connections and request bodies.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub(crate) struct Http {
    /// Largest request body in bytes, and largest answer of `/tokenize` and `/detokenize`. A larger body is refused
    /// with 413, a request with a larger answer with 400.
    #[schemars(range(min = 1024, max = 1_073_741_824))]
    pub(crate) body_bytes_max: u64,
    /// Bytes of request bodies that are being read, and of answers of `/tokenize` and `/detokenize` that are being
    /// sent, over all keys. A request beyond it is refused with 503. Absent: 16 times `http.body_bytes_max`.
    #[schemars(range(min = 1024, max = IN_FLIGHT_MAX))]
    pub(crate) body_bytes_in_flight_max: Option<u64>,
    /// The same for one key. A request beyond it is refused with 429. Absent: 4 times `http.body_bytes_max`.
    #[schemars(range(min = 1024, max = IN_FLIGHT_MAX))]
    pub(crate) body_bytes_in_flight_per_key_max: Option<u64>,
    /// Time in which the header of a request must arrive, counted from the end of the request before.
    #[schemars(range(min = 1, max = 86_400))]
    pub(crate) header_timeout_seconds: u64,
    /// Longest pause while a request body arrives.
    #[schemars(range(min = 1, max = 86_400))]
    pub(crate) body_idle_timeout_seconds: u64,
    /// Time in which the whole body of a request must arrive.
    #[schemars(range(min = 1, max = 86_400))]
    pub(crate) body_timeout_seconds: u64,
    /// Time after which the request of a client that reads nothing of its answer is cancelled.
    #[schemars(range(min = 1, max = 86_400))]
    pub(crate) write_timeout_seconds: u64,
    /// Number of open connections. When all are taken, a new connection takes the place of the one that was idle for
    /// longest, where connections without a valid key are closed first. If a request runs on each of them, new
    /// connections wait to be accepted.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) connections_max: u64,
    /// Number of open connections of one client address (for IPv6: of one /64), where requests that trusted proxies
    /// pass on for the address count too. One connection more closes the idle connection of this address that was idle
    /// for longest; if a request runs on each of them, the new one is answered with 429.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) connections_per_address_max: u64,
    /// Number of connections out of `http.connections_max`, at most a quarter of it, that are reserved for the moment
    /// when a request runs on every other connection. Each of them serves one request: health checks and other short
    /// answers; half of the reserve may serve requests with a key, an eighth those of one account.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub(crate) connections_reserve: u64,
    /// Addresses and networks of the proxies in front of Weir, as `["10.0.0.0/8", "::1"]`. Their connections don't
    /// count for `http.connections_per_address_max`, and the header in which they name the client is believed. Absent:
    /// none.
    #[schemars(
        with = "Vec<String>",
        extend("x-expected" = "a list of addresses and networks, as [\"10.0.0.0/8\"]")
    )]
    pub(crate) trusted_proxies: Vec<Network>,
    /// The header in which trusted proxies name the client; it is ignored from all other addresses. `any` is
    /// `X-Forwarded-For`, or `Forwarded` if that is missing. If your proxy writes only one of the two, a client can
    /// send the other one: name the proxy's header here.
    pub(crate) forwarded_header: ProxyHeader,
}

impl Default for Http {
    fn default() -> Self {
        Http {
            body_bytes_max: 16_777_216,
            body_bytes_in_flight_max: None,
            body_bytes_in_flight_per_key_max: None,
            header_timeout_seconds: 15,
            body_idle_timeout_seconds: 15,
            body_timeout_seconds: 300,
            write_timeout_seconds: 30,
            connections_max: 4096,
            connections_per_address_max: 1024,
            connections_reserve: 64,
            trusted_proxies: Vec::new(),
            forwarded_header: ProxyHeader::Any,
        }
    }
}

/// The header in which trusted proxies name the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProxyHeader {
    Any,
    XForwardedFor,
    Forwarded,
}

impl Http {
    /// The server's options.
    pub(crate) fn options(&self, cors_origins: Vec<String>) -> weir_server::Options {
        let narrow = |number: u64| usize::try_from(number).expect("the key's range fits");
        let in_flight = self.body_bytes_in_flight_max;
        let of_key = self.body_bytes_in_flight_per_key_max;
        weir_server::Options {
            body_bytes_max: narrow(self.body_bytes_max),
            body_bytes_in_flight_max: narrow(in_flight.unwrap_or(self.body_bytes_max * BODIES)),
            body_bytes_in_flight_per_key_max: narrow(
                of_key.unwrap_or(self.body_bytes_max * BODIES_PER_KEY),
            ),
            header_timeout: Duration::from_secs(self.header_timeout_seconds),
            body_idle_timeout: Duration::from_secs(self.body_idle_timeout_seconds),
            body_timeout: Duration::from_secs(self.body_timeout_seconds),
            write_timeout: self.write_timeout(),
            connections_max: narrow(self.connections_max),
            connections_per_address_max: narrow(self.connections_per_address_max),
            connections_reserve: narrow(self.connections_reserve),
            trusted_proxies: TrustedProxies {
                networks: self
                    .trusted_proxies
                    .iter()
                    .map(|network| network.0)
                    .collect(),
                header: match self.forwarded_header {
                    ProxyHeader::Any => weir_server::ForwardedHeader::Any,
                    ProxyHeader::XForwardedFor => weir_server::ForwardedHeader::XForwardedFor,
                    ProxyHeader::Forwarded => weir_server::ForwardedHeader::Forwarded,
                },
            },
            cors_origins,
            ..weir_server::Options::default()
        }
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_secs(self.write_timeout_seconds)
    }

    /// Bytes in flight must have room for the largest body.
    pub(super) fn check(&self, problem: &mut dyn FnMut(&str, String)) {
        let largest = self.body_bytes_max;
        for (path, bytes) in [
            (
                "http.body_bytes_in_flight_max",
                self.body_bytes_in_flight_max,
            ),
            (
                "http.body_bytes_in_flight_per_key_max",
                self.body_bytes_in_flight_per_key_max,
            ),
        ] {
            if bytes.is_some_and(|bytes| bytes < largest) {
                let message =
                    format!("{path} must be at least http.body_bytes_max, which is {largest}");
                problem(path, message);
            }
        }
    }
}
