//! A line in the log for each request.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
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
use crate::serve::{Cut, OnConnection};

/// Number of characters of an unknown path that are logged.
const PATH_CHARS_MAX: usize = 100;

/// The reason of the error with which a streamed answer ended, set by whoever writes its frames. An answer has it as an
/// extension.
#[derive(Debug, Clone, Default)]
pub(crate) struct StreamFailure(Arc<OnceLock<Reason>>);

impl StreamFailure {
    pub(crate) fn set(&self, reason: Reason) {
        // The first error ends the stream.
        let _ = self.0.set(reason);
    }

    fn get(&self) -> Option<Reason> {
        self.0.get().copied()
    }
}

/// The log line of a request, written when it is dropped: the one place where the end of a request is recorded.
pub(crate) struct Line {
    span: Span,
    start: Instant,
    method: Method,
    /// The pattern of the route, or the path if no route matched. Ids and queries are not logged.
    route: String,
    status: Option<u16>,
    reason: Option<Reason>,
    failure: StreamFailure,
    cut: Option<Cut>,
    caller: Option<Caller>,
    first_byte_ms: Option<u64>,
    end: End,
}

/// How far the body of an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    /// The next part is being produced. A body that is dropped like this has panicked.
    Polled,
    Complete,
    Broken,
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
            failure: StreamFailure::default(),
            cut: request
                .extensions()
                .get::<OnConnection>()
                .map(|on| on.cut.clone()),
            caller: None,
            first_byte_ms: None,
            end: End::Open,
        }
    }

    /// Takes the values for the log out of the answer's extensions.
    pub(crate) fn answered(&mut self, response: &mut Response) {
        self.status = Some(response.status().as_u16());
        self.first_byte_ms = Some(millis(self.start.elapsed()));
        let extensions = response.extensions_mut();
        self.reason = extensions.remove();
        self.caller = extensions.remove();
        self.failure = extensions.remove().unwrap_or_default();
        if let Some(route) = extensions.remove::<MatchedPath>() {
            self.route = route.as_str().to_owned();
        }
    }

    /// How the request ended, and why if it failed or was refused.
    fn outcome(&self) -> (&'static str, Option<Reason>) {
        let cut = || self.cut.as_ref().and_then(Cut::reason);
        match (self.status, self.end) {
            (None, _) => match cut() {
                None => ("gone before the answer", None),
                reason => ("failed before the answer", reason),
            },
            (Some(_), End::Complete) => match self.failure.get() {
                None => ("complete", self.reason),
                reason => (FAILED, reason),
            },
            (Some(_), End::Polled | End::Broken) => {
                let reason = self.failure.get().unwrap_or(Reason::InternalError);
                (FAILED, Some(reason))
            }
            (Some(_), End::Open) => match self.failure.get().or_else(cut) {
                None => ("gone during the answer", self.reason),
                reason => (FAILED, reason),
            },
        }
    }
}

/// The outcome of an answer that began and didn't reach its regular end.
const FAILED: &str = "failed during the answer";

/// A path without a route may contain anything, even a key that was put in the wrong place.
fn shown(path: &str) -> String {
    redact(path).chars().take(PATH_CHARS_MAX).collect()
}

impl Drop for Line {
    fn drop(&mut self) {
        let (outcome, reason) = self.outcome();
        let row = reason.map(Reason::row);
        tracing::info!(
            parent: &self.span,
            method = %self.method,
            route = self.route,
            status = self.status,
            reason = row.map(|row| row.name),
            fault = row.map(|row| row.fault.name()),
            account = self.caller.as_ref().map(|caller| caller.account.as_str()),
            key = self.caller.as_ref().map(|caller| caller.key.as_str()),
            first_byte_ms = self.first_byte_ms,
            ms = millis(self.start.elapsed()),
            outcome,
            "request"
        );
    }
}

/// An answer's body, which notes in its log line that it has been read to the end, or that it broke off.
pub(crate) struct Logged {
    body: Body,
    line: Line,
}

impl Logged {
    pub(crate) fn new(body: Body, mut line: Line) -> Self {
        if body.is_end_stream() {
            line.end = End::Complete;
        }
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
        let end = std::mem::replace(&mut self.line.end, End::Polled);
        let frame = span.in_scope(|| Pin::new(&mut self.body).poll_frame(context));
        self.line.end = end;
        let frame = ready!(frame);
        // A reader of a body with a known length doesn't poll past its last frame.
        if matches!(frame, Some(Err(_))) {
            self.line.end = End::Broken;
        } else if frame.is_none() || self.body.is_end_stream() {
            self.line.end = End::Complete;
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures::stream;
    use futures::task::noop_waker_ref;

    use super::*;

    #[test]
    fn a_body_that_panics_has_failed() {
        let mut line = Line::new(&Request::new(Body::empty()), Instant::now(), Span::none());
        line.status = Some(200);
        let panics =
            stream::poll_fn(|_| -> Poll<Option<Result<Bytes, Infallible>>> { panic!("a test") });
        let mut body = Logged::new(Body::from_stream(panics), line);
        assert_eq!(body.line.outcome(), ("gone during the answer", None));
        let mut context = Context::from_waker(noop_waker_ref());
        let polled = catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut body).poll_frame(&mut context)
        }));
        assert!(polled.is_err());
        let failed = (FAILED, Some(Reason::InternalError));
        assert_eq!(body.line.outcome(), failed);
    }
}
