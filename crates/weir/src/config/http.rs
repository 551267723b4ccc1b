//! `[http]`: limits of connections and request bodies.

use ipnet::IpNet;
use weir_server::{ForwardedHeader, TrustedProxies};

use super::settings::{Value, network};
use super::{Http, Reader};

/// Defaults of the bytes of bodies in flight, for a key and for all keys together, as multiples of the largest body.
const BODIES_PER_KEY: u64 = 4;
const BODIES: u64 = 16;

impl Reader<'_> {
    pub(super) fn http(&mut self) -> Http {
        let whole = |path: &str| self.whole(path).expect("it has a default");
        let body_bytes_max = whole("http.body_bytes_max");
        let connections_max = whole("http.connections_max");
        let connections_per_address_max = whole("http.connections_per_address_max");
        let connections_reserve = whole("http.connections_reserve");
        let body_bytes_in_flight_max = self.bytes("http.body_bytes_in_flight_max", BODIES);
        let body_bytes_in_flight_per_key_max =
            self.bytes("http.body_bytes_in_flight_per_key_max", BODIES_PER_KEY);
        Http {
            body_bytes_max,
            body_bytes_in_flight_max,
            body_bytes_in_flight_per_key_max,
            header_timeout: self.seconds("http.header_timeout_seconds"),
            body_idle_timeout: self.seconds("http.body_idle_timeout_seconds"),
            body_timeout: self.seconds("http.body_timeout_seconds"),
            write_timeout: self.seconds("http.write_timeout_seconds"),
            connections_max,
            connections_per_address_max,
            connections_reserve,
            trusted_proxies: self.trusted_proxies(),
        }
    }

    /// A limit of bytes in flight: the configured one, which must be at least the largest body, or `bodies` times that.
    fn bytes(&mut self, path: &str, bodies: u64) -> u64 {
        let body = self.whole("http.body_bytes_max").expect("it has a default");
        match self.whole(path) {
            Some(bytes) if bytes < body => {
                let message =
                    format!("{path} must be at least http.body_bytes_max, which is {body}");
                self.problem(path, message);
                bytes
            }
            Some(bytes) => bytes,
            None => body * bodies,
        }
    }

    fn trusted_proxies(&self) -> TrustedProxies {
        let networks = match self.value("http.trusted_proxies") {
            Some(Value::Texts(networks)) => networks,
            _ => Vec::new(),
        };
        let networks = networks.iter().map(|text| network(text));
        TrustedProxies {
            networks: networks
                .collect::<Option<Vec<IpNet>>>()
                .expect("the key's kind has checked them"),
            header: match self.text("http.forwarded_header").as_deref() {
                Some("forwarded") => ForwardedHeader::Forwarded,
                Some("x-forwarded-for") => ForwardedHeader::XForwardedFor,
                _ => ForwardedHeader::Any,
            },
        }
    }
}
