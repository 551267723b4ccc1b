//! A line in the log for each request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use bytes::Bytes;
use http::Method;
use hyper::body::{Frame, SizeHint};
use tokio::time::Instant;
use tracing::Span;
use weir_accounts::Caller;

use super::millis;
use crate::error::Reason;
use crate::redact::redact;

/// Number of characters of an unknown path that are logged.
const PATH_CHARS_MAX: usize = 100;

/// The log line of a request, written when it is dropped.
pub(crate) struct Line {
    span: Span,
    start: Instant,
    method: Method,
    /// The pattern of the route, or the path if no route matched. Ids and queries are not logged.
    route: String,
    status: Option<u16>,
    reason: Option<Reason>,
    caller: Option<Caller>,
    first_byte_ms: Option<u64>,
    complete: bool,
}

impl Line {
    pub(crate) fn new(request: &Request, start: Instant, span: Span) -> Self {
        Line {
            span,
            start,
            method: request.method().clone(),
            route: shown(request.uri().path()),
            status: None,
            reason: None,
            caller: None,
            first_byte_ms: None,
            complete: false,
        }
    }

    /// Takes the values for the log out of the answer's extensions.
    pub(crate) fn answered(&mut self, response: &mut Response) {
        self.status = Some(response.status().as_u16());
        self.first_byte_ms = Some(millis(self.start.elapsed()));
        let extensions = response.extensions_mut();
        self.reason = extensions.remove();
        self.caller = extensions.remove();
        if let Some(route) = extensions.remove::<MatchedPath>() {
            self.route = route.as_str().to_owned();
        }
    }
}

/// A path without a route may contain anything, even a key that was put in the wrong place.
fn shown(path: &str) -> String {
    redact(path).chars().take(PATH_CHARS_MAX).collect()
}

impl Drop for Line {
    fn drop(&mut self) {
        let outcome = match (self.status, self.complete) {
            (None, _) => "gone before the answer",
            (Some(_), false) => "gone during the answer",
            (Some(_), true) => "complete",
        };
        tracing::info!(
            parent: &self.span,
            method = %self.method,
            route = self.route,
            status = self.status,
            reason = self.reason.map(|reason| reason.row().reason),
            account = self.caller.as_ref().map(|caller| caller.account.as_str()),
            key = self.caller.as_ref().map(|caller| caller.key.as_str()),
            first_byte_ms = self.first_byte_ms,
            ms = millis(self.start.elapsed()),
            outcome,
            "request"
        );
    }
}

/// An answer's body, which marks its log line as complete when it has been read to the end.
pub(crate) struct Logged {
    body: Body,
    line: Line,
}

impl Logged {
    pub(crate) fn new(body: Body, mut line: Line) -> Self {
        line.complete = body.is_end_stream();
        Logged { body, line }
    }
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let span = self.line.span.clone();
        let frame = span.in_scope(|| Pin::new(&mut self.body).poll_frame(context));
        let frame = ready!(frame);
        // A reader of a body with a known length doesn't poll past its last frame.
        if frame.is_none() || self.body.is_end_stream() {
            self.line.complete = true;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
