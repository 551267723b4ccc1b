//! Layers around every request: its id, its log line, normalized slashes, and an answer even if the handler panics.

pub(crate) mod connection;
pub(crate) mod cors;
mod log;

use std::any::Any;
use std::fmt::{self, Display};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use weir_gateway::limits::{Gauge, Quota};

use crate::app::App;
use crate::error::ApiError;
pub(crate) use crate::layers::log::StreamFailure;
use crate::layers::log::{Line, Logged};
use crate::redact::redact;

/// The version of OpenAI's API with which this API is compatible.
const OPENAI_VERSION: HeaderValue = HeaderValue::from_static("2020-10-01");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request in its answer, in the log and in the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) String);

impl Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Gives the request an id, the answer its headers, and the log a line. The line is written when the answer has been
/// sent, or the client has hung up.
pub(crate) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = RequestId(format!("{:032x}", (app.random)()));
    let span = tracing::info_span!("request", %id);
    let mut line = Line::new(&request, start, span.clone());
    request.extensions_mut().insert(id.clone());

    let mut response = next.run(request).instrument(span).await;

    line.answered(&mut response);
    let headers = response.headers_mut();
    headers.insert(
        X_REQUEST_ID,
        HeaderValue::try_from(id.0).expect("hexadecimal digits are a header value"),
    );
    headers.insert(
        "openai-processing-ms",
        HeaderValue::from(millis(start.elapsed())),
    );
    headers.insert("openai-version", OPENAI_VERSION);
    response.map(|body| Body::new(Logged::new(body, line)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Puts the matched route into the answer's extensions, for the log line.
pub(crate) async fn note_route(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(route);
    }
    response
}

/// Collapses repeated slashes and drops a trailing one. Nothing is decoded: `%2F` doesn't count as a slash.
pub(crate) fn tidy_path(mut request: Request) -> Request {
    let path = request.uri().path();
    if !path.contains("//") && (path.len() < 2 || !path.ends_with('/')) {
        return request;
    }
    let mut tidy = String::with_capacity(path.len());
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        tidy.push('/');
        tidy.push_str(segment);
    }
    if tidy.is_empty() {
        tidy.push('/');
    }
    if let Some(query) = request.uri().query() {
        tidy.push('?');
        tidy.push_str(query);
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(tidy).expect("a part of a path is one"));
    *request.uri_mut() = Uri::from_parts(parts).expect("only the path is another");
    request
}

/// Answers 500 if a handler panics; other requests go on.
pub(crate) fn catch_panic() -> CatchPanicLayer<fn(Box<dyn Any + Send>) -> Response> {
    fn answer(panic: Box<dyn Any + Send>) -> Response {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        tracing::error!(panic = text.map(redact).as_deref(), "a request panicked");
        ApiError::internal().into_response()
    }
    CatchPanicLayer::custom(answer as fn(_) -> _)
}

/// Adds headers with the caller's remaining quota, for each limit that is set.
pub(crate) fn quota_headers(headers: &mut HeaderMap, quota: &Quota) {
    let mut show = |of: &str, gauge: Option<Gauge>| {
        let Some(Gauge {
            limit,
            remaining,
            reset,
        }) = gauge
        else {
            return;
        };
        let values = [
            ("limit", limit.to_string()),
            ("remaining", remaining.to_string()),
            ("reset", go_duration(reset)),
        ];
        for (what, value) in values {
            let name = HeaderName::try_from(format!("x-ratelimit-{what}-{of}"))
                .expect("lower-case letters");
            headers.insert(
                name,
                HeaderValue::try_from(value).expect("digits and letters"),
            );
        }
    };
    show("requests", quota.requests);
    show("tokens", quota.tokens);
}

/// The format of Go's durations, rounded up: `0s`, `12ms`, `1m23s`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos <= 999_000_000 {
        return match nanos.div_ceil(1_000_000) {
            0 => "0s".to_owned(),
            millis => format!("{millis}ms"),
        };
    }
    let seconds = nanos.div_ceil(1_000_000_000);
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_internal_error() {
        async fn panics() -> &'static str {
            panic!("of sk_a_b")
        }
        let router = axum::Router::new()
            .route("/", axum::routing::get(panics))
            .layer(catch_panic());
        let request = Request::new(Body::empty());
        let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
        assert_eq!(response.status(), 500);
        let body = axum::body::to_bytes(response.into_body(), 1000)
            .await
            .unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(
            body.contains("INTERNAL_ERROR") && !body.contains("sk_a"),
            "{body}"
        );
    }

    #[test]
    fn durations_look_as_in_go() {
        let rows = [
            (0, "0s"),
            (1, "1ms"),
            (12_000, "12ms"),
            (998_001, "999ms"),
            (999_001, "1s"),
            (1_000_000, "1s"),
            (59_000_001, "1m0s"),
            (83_000_000, "1m23s"),
            (3_600_000_000, "1h0m0s"),
        ];
        for (micros, shown) in rows {
            assert_eq!(
                go_duration(Duration::from_micros(micros)),
                shown,
                "{micros} µs"
            );
        }
    }

    #[test]
    fn slashes_are_tidied_and_nothing_else() {
        let rows = [
            ("/v1/models", "/v1/models"),
            ("/", "/"),
            ("//", "/"),
            ("//v1///models//", "/v1/models"),
            ("/v1/models/?a=//b/", "/v1/models?a=//b/"),
            ("/v1/models/a%2F%2fb/", "/v1/models/a%2F%2fb"),
            ("/v1/../models//", "/v1/../models"),
            ("http://host//v1//models", "http://host/v1/models"),
            ("*", "*"),
        ];
        for (from, to) in rows {
            let request = http::Request::builder()
                .uri(from)
                .body(Body::empty())
                .unwrap();
            assert_eq!(tidy_path(request).uri().to_string(), to, "{from}");
        }
    }
}
