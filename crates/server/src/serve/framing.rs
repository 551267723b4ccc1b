//! Checks for ambiguous requests, so that a proxy in front can't read another host or another end of the body than this
//! server. hyper enforces the rest of RFC 9112: contradicting lengths, `chunked` that isn't last, and a length beside
//! `chunked` (after which the connection ends).

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Request, Version, header};

/// Why a request isn't read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadFraming {
    NoHost,
    SeveralHosts,
    InvalidHost,
    ChunkedTwice,
    /// A transfer encoding that this server doesn't know.
    UnknownEncoding,
}

impl BadFraming {
    pub(crate) fn message(self) -> &'static str {
        match self {
            BadFraming::NoHost => "the header Host is missing",
            BadFraming::SeveralHosts => "there are several Host headers",
            BadFraming::InvalidHost => "the header Host is not a host with an optional port",
            BadFraming::ChunkedTwice => "the header Transfer-Encoding has chunked twice",
            BadFraming::UnknownEncoding => {
                "the only Transfer-Encoding that is supported is chunked; send the body unencoded"
            }
        }
    }
}

pub(crate) fn check<B>(request: &Request<B>) -> Result<(), BadFraming> {
    check_host(request.version(), request.headers())?;
    check_encoding(request.headers())
}

/// RFC 9112, 3.2: exactly one `Host` header; in HTTP/1.0 at most one.
fn check_host(version: Version, headers: &HeaderMap) -> Result<(), BadFraming> {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) if version < Version::HTTP_11 => Ok(()),
        (None, _) => Err(BadFraming::NoHost),
        (Some(_), Some(_)) => Err(BadFraming::SeveralHosts),
        (Some(host), None) if is_host(host) => Ok(()),
        (Some(_), None) => Err(BadFraming::InvalidHost),
    }
}

/// An empty host is allowed, for request targets without one.
fn is_host(value: &HeaderValue) -> bool {
    let is_authority = |bytes| Authority::try_from(bytes).is_ok();
    let bytes = value.as_bytes();
    bytes.is_empty() || !bytes.contains(&b'@') && is_authority(bytes)
}

/// RFC 9112, 6.1: 501 for unknown encodings, and `chunked` at most once. hyper has checked that `chunked` comes last.
fn check_encoding(headers: &HeaderMap) -> Result<(), BadFraming> {
    let lines = headers.get_all(header::TRANSFER_ENCODING).iter();
    let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let codings = codings.map(<[u8]>::trim_ascii);
    let (chunked, others): (Vec<_>, Vec<_>) = codings
        .filter(|coding| !coding.is_empty())
        .partition(|coding| coding.eq_ignore_ascii_case(b"chunked"));
    if chunked.len() > 1 {
        return Err(BadFraming::ChunkedTwice);
    }
    match others.is_empty() {
        true => Ok(()),
        false => Err(BadFraming::UnknownEncoding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_can_be_understood_in_two_ways_are_refused() {
        use BadFraming::{ChunkedTwice, InvalidHost, NoHost, SeveralHosts, UnknownEncoding};
        const HOST: (&str, &str) = ("host", "x");
        const TE: &str = "transfer-encoding";
        type Lines = &'static [(&'static str, &'static str)];
        let rows: &[(Lines, Result<(), BadFraming>)] = &[
            (&[HOST], Ok(())),
            (&[("host", "")], Ok(())),
            (&[("host", "example.com:8080")], Ok(())),
            (&[("host", "[::1]:8080")], Ok(())),
            (&[], Err(NoHost)),
            (&[HOST, HOST], Err(SeveralHosts)),
            (&[HOST, ("host", "y")], Err(SeveralHosts)),
            (&[("host", "a b")], Err(InvalidHost)),
            (&[("host", "a/b")], Err(InvalidHost)),
            (&[("host", "user@a")], Err(InvalidHost)),
            (&[HOST, (TE, "chunked")], Ok(())),
            (&[HOST, (TE, "Chunked")], Ok(())),
            (&[HOST, (TE, "chunked, chunked")], Err(ChunkedTwice)),
            (&[HOST, (TE, "chunked"), (TE, "chunked")], Err(ChunkedTwice)),
            (&[HOST, (TE, "gzip, chunked, chunked")], Err(ChunkedTwice)),
            (&[HOST, (TE, "gzip, chunked")], Err(UnknownEncoding)),
            (&[HOST, (TE, "gzip"), (TE, "chunked")], Err(UnknownEncoding)),
            (&[HOST, (TE, "identity, chunked")], Err(UnknownEncoding)),
        ];
        for (headers, outcome) in rows {
            let mut request = Request::new(());
            for (name, value) in headers.iter() {
                request
                    .headers_mut()
                    .append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(check(&request), *outcome, "{headers:?}");
        }
        let mut old = Request::new(());
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(check(&old), Ok(()));
    }
}
