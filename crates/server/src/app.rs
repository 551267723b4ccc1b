//! The state that all routes share, and the options of the server.

use std::sync::Arc;
use std::time::Duration;

use weir_gateway::Gateway;

use crate::in_flight::BytesInFlight;
use crate::layers::cors::Cors;
use crate::reload::Reload;
use crate::serve::TrustedProxies;

/// State that all routes share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub gateway: Gateway,
    pub options: Arc<Options>,
    /// Random numbers for request ids, which must never repeat.
    pub(crate) random: fn() -> u128,
    pub(crate) bytes_in_flight: BytesInFlight,
    pub(crate) cors: Cors,
    pub(crate) reload: Option<Reload>,
}

impl App {
    pub fn new(gateway: Gateway, options: Options, random: fn() -> u128) -> Self {
        let bytes_in_flight = BytesInFlight::new(
            options.body_bytes_in_flight_max,
            options.body_bytes_in_flight_per_key_max,
        );
        let cors = Cors::default();
        cors.allow(&options.cors_origins);
        App {
            gateway,
            options: Arc::new(options),
            random,
            bytes_in_flight,
            cors,
            reload: None,
        }
    }

    /// Lets the administrative API ask for a reload.
    #[must_use]
    pub fn with_reload(self, reload: Reload) -> Self {
        App {
            reload: Some(reload),
            ..self
        }
    }

    /// The origins that may call from browsers, to be replaced while the server runs.
    pub fn cors(&self) -> &Cors {
        &self.cors
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub body_bytes_max: usize,
    /// Most bytes in memory of request bodies that are being read and of answers to uncharged requests that are being
    /// sent.
    pub body_bytes_in_flight_max: usize,
    /// The same limit for a single key.
    pub body_bytes_in_flight_per_key_max: usize,
    /// Time from the end of a request, or from the beginning of the connection, to the end of the next request's head.
    pub header_timeout: Duration,
    /// Longest time between two chunks of a body.
    pub body_idle_timeout: Duration,
    /// Longest time for a whole body.
    pub body_timeout: Duration,
    /// Longest time that a client may take no byte of an answer.
    pub write_timeout: Duration,
    /// How long the rest of a refused request's body is read, so that the client reads the answer and doesn't see a
    /// reset.
    pub linger_timeout: Duration,
    pub connections_max: usize,
    /// Most connections from one address (of IPv6: from one /64), except from trusted proxies.
    pub connections_per_address_max: usize,
    /// The part of `connections_max` that is reserved for short answers and a few callers while a request runs on every
    /// other connection.
    pub connections_reserve: usize,
    pub trusted_proxies: TrustedProxies,
    /// Origins of web pages that may call the API. `*` allows every origin; without any, CORS is off.
    pub cors_origins: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            body_bytes_max: 16 * 1024 * 1024,
            body_bytes_in_flight_max: 256 * 1024 * 1024,
            body_bytes_in_flight_per_key_max: 64 * 1024 * 1024,
            header_timeout: Duration::from_secs(15),
            body_idle_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_mins(5),
            write_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(5),
            connections_max: 4096,
            connections_per_address_max: 1024,
            connections_reserve: 64,
            trusted_proxies: TrustedProxies::default(),
            cors_origins: Vec::new(),
        }
    }
}
