//! The egress guard: the addresses that a webhook may reach, against server-side request forgery.
//!
//! A name is resolved here, all of its addresses must be public, and the connection goes to the addresses that were
//! checked. The name isn't resolved again, so DNS rebinding gains nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::target::{Host, Target};

/// The addresses of a name.
pub type Addresses = io::Result<Vec<IpAddr>>;
/// Resolves a name.
pub type Resolve = Arc<dyn Fn(String) -> BoxFuture<'static, Addresses> + Send + Sync>;

/// The most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 4;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("its name can't be resolved: {0}")]
    Unresolved(String),
    /// The text names the address for the operator's log; an attacker must not learn it.
    #[error("{0} is not a public address (allow_private allows it)")]
    Private(IpAddr),
}

/// Resolves names as the operating system does.
pub(crate) fn system() -> Resolve {
    Arc::new(|name| {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    })
}

/// The admitted addresses, in the order in which to try them.
pub(crate) async fn admit(
    target: &Target,
    allow_private: bool,
    resolve: &Resolve,
) -> Result<Vec<SocketAddr>, Refused> {
    let addresses = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let found = resolve(name.clone()).await;
            found.map_err(|error| Refused::Unresolved(error.to_string()))?
        }
    };
    if addresses.is_empty() {
        return Err(Refused::Unresolved("it has no address".to_owned()));
    }
    // A single address that isn't public spoils all: someone may be tampering with the name.
    let private = addresses.iter().find(|address| !is_public(**address));
    if let Some(private) = private.filter(|_| !allow_private) {
        return Err(Refused::Private(*private));
    }
    let addresses = addresses.into_iter().take(ADDRESSES_MAX);
    Ok(addresses
        .map(|address| SocketAddr::new(address, target.port))
        .collect())
}

/// Whether an address belongs to the public Internet, by IANA's registries of special addresses.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let special = match address.octets() {
        // This network, private, loopback, link-local (clouds' metadata too).
        [0 | 10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [169, 254, ..] => true,
        // Carrier-grade NAT.
        [100, 64..=127, ..] => true,
        // Protocol assignments, documentation, 6to4 relays, AS112, benchmarks.
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        [192, 88, 99, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 175, 48, _] => true,
        [198, 18..=19, ..] => true,
        // Multicast, reserved, broadcast.
        [224..=255, ..] => true,
        _ => false,
    };
    !special
}

/// Global unicast is 2000::/3. Outside of it are the unspecified and loopback addresses, those that wrap an
/// IPv4 one (::ffff:0:0/96, ::/96, 64:ff9b::/96), unique local, link-local and multicast.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let special = match address.segments() {
        // Protocol assignments (Teredo too), documentation, 6to4, which wraps an IPv4 one.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] => true,
        [0x3fff, 0..=0xfff, ..] => true,
        [first, ..] => first >> 13 != 1,
    };
    !special
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &[&str] = &[
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2001:200::1",
        "2606:4700:4700::1111",
        "2a00:1450:4001::1",
        "2001:4860:4860::8888",
    ];
    const SPECIAL: &[&str] = &[
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.0",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.0",
        "192.168.255.255",
        "198.18.0.0",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.7",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:8.8.8.8",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:2::1",
        "2001:10::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ];

    #[test]
    fn only_public_addresses_are_public() {
        let check = |address: &str, public: bool| {
            assert_eq!(is_public(address.parse().unwrap()), public, "{address}");
        };
        PUBLIC.iter().for_each(|address| check(address, true));
        SPECIAL.iter().for_each(|address| check(address, false));
    }

    async fn check(url: &str, found: &[&str], allow_private: bool, expected: Result<&str, &str>) {
        let found: Vec<IpAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
        let resolve: Resolve = Arc::new(move |_| {
            let found = found.clone();
            Box::pin(async move { Ok(found) })
        });
        let admitted = admit(&url.parse().unwrap(), allow_private, &resolve).await;
        let shown = admitted.map(|addresses| {
            let addresses = addresses.iter().map(SocketAddr::to_string);
            addresses.collect::<Vec<_>>().join(" ")
        });
        let shown = shown.map_err(|refused| refused.to_string());
        let matches = match (&shown, expected) {
            (Ok(shown), Ok(expected)) => shown == expected,
            (Err(shown), Err(expected)) => shown.contains(expected),
            (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
        };
        assert!(matches, "{url}: {shown:?}");
    }

    #[tokio::test]
    async fn what_is_looked_at_is_what_is_reached() {
        let name = "https://example.com/x";
        check(name, &["1.1.1.1"], false, Ok("1.1.1.1:443")).await;
        let both = ["2606:4700::1", "1.1.1.1"];
        check(name, &both, false, Ok("[2606:4700::1]:443 1.1.1.1:443")).await;
        check(name, &[], false, Err("no address")).await;
        // A name with a public and a private address, in either order.
        check(
            name,
            &["1.1.1.1", "127.0.0.1"],
            false,
            Err("127.0.0.1 is not"),
        )
        .await;
        check(
            name,
            &["10.0.0.1", "1.1.1.1"],
            false,
            Err("10.0.0.1 is not"),
        )
        .await;
        check(
            name,
            &["1.1.1.1", "::ffff:127.0.0.1"],
            false,
            Err("is not a public"),
        )
        .await;
        check(
            name,
            &["1.1.1.1", "127.0.0.1"],
            true,
            Ok("1.1.1.1:443 127.0.0.1:443"),
        )
        .await;
        check(
            "http://localhost:9/",
            &["127.0.0.1"],
            false,
            Err("127.0.0.1 is not"),
        )
        .await;
        check("http://localhost.:9/", &["::1"], false, Err("::1 is not")).await;
        // Literal addresses are not resolved.
        check("http://1.1.1.1:9/", &["8.8.8.8"], false, Ok("1.1.1.1:9")).await;
        check(
            "http://169.254.169.254/",
            &["8.8.8.8"],
            false,
            Err("169.254.169.254 is not"),
        )
        .await;
        check("http://[::1]:9/", &["8.8.8.8"], false, Err("::1 is not")).await;
        check(
            "http://[::ffff:7f00:1]/",
            &["8.8.8.8"],
            false,
            Err("is not a public"),
        )
        .await;
        check("http://[::1]:9/", &["8.8.8.8"], true, Ok("[::1]:9")).await;
        let many = ["1.1.1.1"; 9];
        let four = ["1.1.1.1:443"; ADDRESSES_MAX].join(" ");
        check(name, &many, false, Ok(&four)).await;
    }
}
