//! Reading on after a refusal.
//!
//! Closing a connection with unread bytes resets it, and the client, still sending, may never see the answer: an
//! invalid key with a long prompt would look like a network error. So the rest of an unneeded body is read for a moment
//! and discarded.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http::{Request, Version, header};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio_util::task::TaskTracker;

/// Wraps the body so that it drains itself when it is dropped early.
pub(crate) fn linger(
    request: Request<Incoming>,
    timeout: Duration,
    tasks: &TaskTracker,
) -> Request<Body> {
    // HTTP/2 can refuse a body without closing the connection, and a client that waits for 100 Continue has sent
    // nothing.
    let needed =
        request.version() < Version::HTTP_2 && !request.headers().contains_key(header::EXPECT);
    if !needed || request.body().is_end_stream() {
        return request.map(Body::new);
    }
    let tasks = tasks.clone();
    request.map(|body| {
        Body::new(Lingering {
            body: Some(body),
            timeout,
            tasks,
        })
    })
}

struct Lingering {
    /// `None` once the body has ended.
    body: Option<Incoming>,
    timeout: Duration,
    tasks: TaskTracker,
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = std::task::ready!(Pin::new(&mut *body).poll_frame(context));
        if body.is_end_stream() || !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else {
            return;
        };
        // Without a runtime the process is ending, and the connection with it.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let rest = async move { while let Some(Ok(_)) = body.frame().await {} };
        self.tasks.spawn(tokio::time::timeout(self.timeout, rest));
    }
}
