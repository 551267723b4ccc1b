//! The client of a request: the connection's peer, or the address that trusted proxies forward for.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName, header};
use ipnet::IpNet;

/// The header in which trusted proxies name the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, or `Forwarded` (RFC 7239) in a request without it.
    Any,
    XForwardedFor,
    Forwarded,
}

/// The proxies in front of this server. They have no share of connections, and their header for the client is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    pub header: ForwardedHeader,
}

impl Default for TrustedProxies {
    fn default() -> Self {
        TrustedProxies {
            networks: Vec::new(),
            header: ForwardedHeader::Any,
        }
    }
}

/// The addresses that count as one client: a single one of IPv4, a /64 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ClientAddress(IpAddr);

/// The NAT64 prefix: IPv6 addresses that stand for IPv4 ones behind a translator (RFC 6052).
const NAT64_PREFIX: [u16; 6] = [0x64, 0xff9b, 0, 0, 0, 0];

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        ClientAddress(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) if address.segments()[..6] == NAT64_PREFIX => {
                let [.., a, b, c, d] = address.octets();
                Ipv4Addr::new(a, b, c, d).into()
            }
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                Ipv6Addr::from(network).into()
            }
        })
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

impl TrustedProxies {
    pub(crate) fn include(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks
            .iter()
            .any(|network| network.contains(&address))
    }

    /// The client that a trusted proxy forwards for: the last address in its header that isn't a trusted proxy's. The
    /// client may have made up the addresses before it. `None` if the header doesn't say.
    pub(crate) fn client(&self, headers: &HeaderMap) -> Option<ClientAddress> {
        let x_forwarded_for = HeaderName::from_static("x-forwarded-for");
        let reads_forwarded = match self.header {
            ForwardedHeader::XForwardedFor => false,
            ForwardedHeader::Forwarded => true,
            ForwardedHeader::Any => !headers.contains_key(&x_forwarded_for),
        };
        let (name, read): (_, fn(&str) -> Option<IpAddr>) = match reads_forwarded {
            true => (header::FORWARDED, forwarded_for),
            false => (x_forwarded_for, address),
        };
        let lines: Vec<_> = headers.get_all(name).iter().collect();
        for line in lines.into_iter().rev() {
            let line = line.to_str().ok()?;
            for element in elements(line).into_iter().rev() {
                let address = read(element)?;
                if !self.include(address) {
                    return Some(address.into());
                }
            }
        }
        None
    }
}

/// The elements between commas that aren't within quotes.
fn elements(line: &str) -> Vec<&str> {
    split_unquoted(line, ',')
}

fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|letter| {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return letter == separator && !quoted,
        }
        false
    });
    parts
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect()
}

/// The `for` parameter of an element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    split_unquoted(element, ';').into_iter().find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        let value = value.trim().trim_matches('"');
        name.trim()
            .eq_ignore_ascii_case("for")
            .then(|| address(value))?
    })
}

/// Parses an address, with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(text)
        .parse()
        .or_else(|_| text.parse().map(|address: SocketAddr| address.ip()))
        .ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_one_client_are_one() {
        let rows = [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("64:ff9b::c000:201", "192.0.2.1"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
            ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
            ("::1", "::/64"),
        ];
        for (address, shown) in rows {
            assert_eq!(ClientAddress::from(ip(address)).to_string(), shown);
        }
    }

    #[test]
    fn the_client_is_the_last_that_no_trusted_proxy_is() {
        use ForwardedHeader::{Any, Forwarded, XForwardedFor};
        type Lines = &'static [(&'static str, &'static str)];
        let rows: &[(ForwardedHeader, Lines, Option<&str>)] = &[
            (Any, &[], None),
            (Any, &[("x-forwarded-for", "192.0.2.1")], Some("192.0.2.1")),
            (
                Any,
                &[("x-forwarded-for", "6.6.6.6, 192.0.2.1")],
                Some("192.0.2.1"),
            ),
            (
                Any,
                &[("x-forwarded-for", "6.6.6.6, 192.0.2.1, 10.1.2.3")],
                Some("192.0.2.1"),
            ),
            (
                Any,
                &[
                    ("x-forwarded-for", "6.6.6.6"),
                    ("x-forwarded-for", "192.0.2.1,10.0.0.1"),
                ],
                Some("192.0.2.1"),
            ),
            (
                Any,
                &[("x-forwarded-for", "192.0.2.1:8080")],
                Some("192.0.2.1"),
            ),
            (
                Any,
                &[("x-forwarded-for", "[2001:db8::1]:80")],
                Some("2001:db8::1"),
            ),
            (
                Any,
                &[("x-forwarded-for", "2001:db8::1")],
                Some("2001:db8::1"),
            ),
            (Any, &[("x-forwarded-for", "6.6.6.6, unknown")], None),
            (Any, &[("x-forwarded-for", "10.0.0.1")], None),
            (Any, &[("x-forwarded-for", "")], None),
            (Any, &[("forwarded", "for=192.0.2.1")], Some("192.0.2.1")),
            (
                Any,
                &[(
                    "forwarded",
                    r#"For="[2001:db8::1]:4711";proto=http, for=10.0.0.2"#,
                )],
                Some("2001:db8::1"),
            ),
            (
                Any,
                &[("forwarded", r#"for=6.6.6.6, by=x;FOR="192.0.2.1""#)],
                Some("192.0.2.1"),
            ),
            (
                Any,
                &[("forwarded", r#"for=6.6.6.6;host="a,b;c", for=_hidden"#)],
                None,
            ),
            (Any, &[("forwarded", "proto=https")], None),
            // Behind a proxy that writes only the other header, this header comes from the client itself.
            (
                Any,
                &[
                    ("forwarded", "for=6.6.6.6"),
                    ("x-forwarded-for", "192.0.2.1"),
                ],
                Some("192.0.2.1"),
            ),
            (XForwardedFor, &[("forwarded", "for=6.6.6.6")], None),
            (
                Forwarded,
                &[
                    ("forwarded", "for=192.0.2.1"),
                    ("x-forwarded-for", "6.6.6.6"),
                ],
                Some("192.0.2.1"),
            ),
            (Forwarded, &[("x-forwarded-for", "6.6.6.6")], None),
        ];
        for (header, lines, client) in rows {
            let proxies = TrustedProxies {
                networks: vec!["10.0.0.0/8".parse().unwrap()],
                header: *header,
            };
            let mut headers = HeaderMap::new();
            for (name, value) in lines.iter() {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let client = client.map(|client| ClientAddress::from(ip(client)));
            assert_eq!(proxies.client(&headers), client, "{lines:?}");
        }
    }

    #[test]
    fn proxies_are_trusted_by_network() {
        let proxies = TrustedProxies {
            networks: vec![
                "10.0.0.0/8".parse().unwrap(),
                "2001:db8::/32".parse().unwrap(),
            ],
            ..TrustedProxies::default()
        };
        for (address, trusted) in [
            ("10.255.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("11.0.0.1", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(proxies.include(ip(address)), trusted, "{address}");
        }
    }
}
