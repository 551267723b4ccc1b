//! Addresses as operators write them: where the server listens, and where databases and stores are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The host where no other is named: a server that isn't meant for others must not be reachable by mistake.
const DEFAULT_HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An address to listen on: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, or a port, `8080` or `:8080`, on this machine only.
pub(crate) fn listen(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let host = match host {
        "" => DEFAULT_HOST,
        name => host_named(name)?,
    };
    // `+80` would be a number, too.
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    Some(SocketAddr::new(host, port.parse().ok().filter(|_| digits)?))
}

/// A host to listen on: an address, or `localhost`. Other names aren't looked up.
pub(crate) fn host(text: &str) -> Option<IpAddr> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text)
        .parse()
        .ok()
        .or_else(|| host_named(text))
}

fn host_named(name: &str) -> Option<IpAddr> {
    name.eq_ignore_ascii_case("localhost")
        .then_some(DEFAULT_HOST)
}

/// Whether a URL's user or password has a character that ends it early, such as `#` in `postgres://weir:a#b@db/weir`: an `@`
/// comes later than the first `/`, `?` or `#`, but not in the parameters.
pub(crate) fn needs_encoding(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let Some(end) = rest.find(['/', '?', '#']) else {
        return false;
    };
    let (authority, behind) = rest.split_at(end);
    // The first `?` begins the parameters, unless the user and the password aren't over yet.
    let behind = match authority.contains('@') || !behind.starts_with('?') {
        true => behind.split('?').next().unwrap_or_default(),
        false => behind,
    };
    behind.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_to_listen_on() {
        let check = |text: &str, expected: &str| {
            let address = listen(text).map(|address| address.to_string());
            assert_eq!(address.unwrap_or_default(), expected, "{text}");
        };
        check("127.0.0.1:1", "127.0.0.1:1");
        check("0.0.0.0:1", "0.0.0.0:1");
        check("[::]:1", "[::]:1");
        check("localhost:1", "127.0.0.1:1");
        check("LOCALHOST:1", "127.0.0.1:1");
        check(":8080", "127.0.0.1:8080");
        check("8080", "127.0.0.1:8080");
        check("0", "127.0.0.1:0");
        for wrong in [
            "",
            ":",
            "localhost",
            "65536",
            "+1",
            "-1",
            "a:1",
            "127.0.0.1",
            "::1",
            "1:2:3",
            "http://127.0.0.1:1",
        ] {
            check(wrong, "");
        }
    }

    #[test]
    fn hosts_to_listen_on() {
        let all = host("0.0.0.0").zip(host("::")).zip(host("[::1]"));
        assert!(all.is_some());
        assert_eq!(host("localhost"), Some(DEFAULT_HOST));
        assert_eq!(host("example.com"), None);
    }

    #[test]
    fn passwords_that_end_early() {
        let check = |url: &str, expected| assert_eq!(needs_encoding(url), expected, "{url}");
        check("postgres://weir:a%23b@db/weir", false);
        check("postgres://weir:a@b@db/weir", false);
        check("postgres://db:5432/weir?application_name=a@b", false);
        check("postgres://weir:a@db?x=a@b", false);
        check("redis://db", false);
        check("postgres://weir:a#b@db/weir", true);
        check("postgres://weir:12#b@db/weir", true);
        check("postgres://weir:12/b@db/weir", true);
        check("postgres://weir:p@s/b@db/weir", true);
        check("postgres://weir:a?b@db/weir", true);
        check("redis://:a/b@db/0", true);
    }
}
