//! The URL of a webhook, as written in the config.
//!
//! URL parsers disagree about backslashes, octal addresses and what stands before an `@`. So a URL that could be read
//! in two ways is refused, and only the others are parsed, once.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use url::Url;

const URL_MAX: usize = 2048;

/// A URL that can be read in only one way. Its path may be a secret, so `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The value of the header `Host`.
    pub(crate) authority: String,
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// The path with the query.
    pub(crate) path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

/// An error in a URL. Its text contains no part of the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrongTarget {
    #[error("it must begin with https:// or http://")]
    Scheme,
    #[error(
        "it must have at most {URL_MAX} characters, all of them printable ASCII, and no backslash"
    )]
    Characters,
    #[error("it must not have a user or a password")]
    User,
    #[error("it must not have a fragment")]
    Fragment,
    #[error("its host or port is none, or can be read in more than one way")]
    Host,
}

impl FromStr for Target {
    type Err = WrongTarget;

    fn from_str(text: &str) -> Result<Self, WrongTarget> {
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
        if text.len() > URL_MAX || !text.bytes().all(plain) {
            return Err(WrongTarget::Characters);
        }
        let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (_, Some(rest)) => (false, rest),
            (None, None) => return Err(WrongTarget::Scheme),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err(WrongTarget::User);
        }
        let url = Url::parse(text).map_err(|_| WrongTarget::Host)?;
        if url.fragment().is_some() {
            return Err(WrongTarget::Fragment);
        }
        let host = url.host_str().ok_or(WrongTarget::Host)?;
        let port = url.port_or_known_default().ok_or(WrongTarget::Host)?;
        // A host that this parser changes is one that others may read as something else.
        let written = authority.to_ascii_lowercase();
        let same = written == host || written == format!("{host}:{port}");
        if !same || port == 0 {
            return Err(WrongTarget::Host);
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        Ok(Target {
            authority: written,
            host: match bare.parse() {
                Ok(address) => Host::Address(address),
                Err(_) => Host::Name(host.to_owned()),
            },
            port,
            tls,
            path: match url.query() {
                Some(query) => format!("{}?{query}", url.path()),
                None => url.path().to_owned(),
            },
        })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "Target({scheme}://{}/…)", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_one_way_is_taken() {
        let check = |text: &str, host: &str, port: u16, path: &str| {
            let target: Target = text.parse().unwrap();
            let found = match &target.host {
                Host::Name(name) => name.clone(),
                Host::Address(address) => address.to_string(),
            };
            assert_eq!((&*found, target.port, &*target.path), (host, port, path));
            assert!(!format!("{target:?}").contains("c4nary"), "{target:?}");
        };
        check("https://example.com", "example.com", 443, "/");
        check("http://example.com/", "example.com", 80, "/");
        check("https://EXAMPLE.com:443/x", "example.com", 443, "/x");
        check(
            "http://h:8080/a/c4nary?c4nary=1",
            "h",
            8080,
            "/a/c4nary?c4nary=1",
        );
        check("http://127.0.0.1:1/", "127.0.0.1", 1, "/");
        check("https://[2606:4700::1111]/x", "2606:4700::1111", 443, "/x");
        check(
            "https://xn--bcher-kva.example/",
            "xn--bcher-kva.example",
            443,
            "/",
        );
        check(
            "https://example.com?a=/../b",
            "example.com",
            443,
            "/?a=/../b",
        );
        check("https://example.com/a/../b@c", "example.com", 443, "/b@c");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        use WrongTarget::{Characters, Fragment, Host, Scheme, User};
        let check = |text: &str, expected: WrongTarget| {
            assert_eq!(text.parse::<Target>(), Err(expected), "{text}");
        };
        for text in [
            "",
            "example.com",
            "ftp://h/",
            "file:///etc/passwd",
            "HTTPS://h/",
            "http:/h/",
            "http:h",
            "gopher://127.0.0.1:6379/_",
            "//h/",
            "javascript:1",
        ] {
            check(text, Scheme);
        }
        for text in [
            "http://example.com\\@127.0.0.1/",
            "http:\\\\127.0.0.1/",
            "http://h /",
            " http://h/",
            "http://h/\n",
            "http://h\t/",
            "http://bücher.example/",
            "http://127。0。0。1/",
            "http://h/\0",
        ] {
            check(text, Characters);
        }
        check(&format!("http://h/{}", "x".repeat(URL_MAX)), Characters);
        for text in [
            "http://user@h/",
            "http://user:pass@h/",
            "http://@h/",
            "http://:@h/",
            "http://example.com@127.0.0.1/",
            "http://example.com:80@127.0.0.1/",
        ] {
            check(text, User);
        }
        check("http://h/#", Fragment);
        check("http://h/x#y", Fragment);
        for text in [
            "http://",
            "http:///",
            "http:///h/",
            "http://?x",
            "http://:80/",
            "http://h:/",
            "http://h:0/",
            "http://h:65536/",
            "http://h:080/",
            "http://h:x/",
            "http://0177.0.0.1/",
            "http://0x7f.0.0.1/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://127.1/",
            "http://127.0.0.1./",
            "http://%31%32%37.0.0.1/",
            "http://h%00/",
            "http://[::ffff:127.0.0.1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "http://[fe80::1%25eth0]/",
            "http://[::1/",
            "http://::1/",
            "http://1.2.3.4.5/",
            "http://256.0.0.1/",
            "http://a..b:99999/",
            "http://a b/",
        ] {
            let found = text.parse::<Target>();
            assert!(matches!(found, Err(Host | Characters)), "{text}: {found:?}");
        }
    }
}
