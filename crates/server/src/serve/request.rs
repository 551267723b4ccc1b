//! The connection of a request, for the router: its place in the table, and whether the request may be served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use http::{HeaderValue, Request, Response, header};
use tokio_util::sync::CancellationToken;

use super::client::{ClientAddress, TrustedProxies};
use super::framing::{self, BadFraming};
use super::table::{Place, PlaceKind, RequestGuard};
use crate::error::Reason;
use crate::holding::Holding;

/// Extension of every request that came by a connection.
#[derive(Debug, Clone)]
pub(crate) struct OnConnection {
    pub(crate) place: Place,
    pub(crate) refused: Option<Refused>,
    pub(crate) cut: Cut,
}

/// Says why the server cut a connection, if it did.
#[derive(Debug, Clone)]
pub(crate) struct Cut {
    /// Cancelled when the server cuts all connections.
    hard: CancellationToken,
    /// Set when the client has read nothing for too long.
    pub(super) unread: Arc<AtomicBool>,
}

impl Cut {
    pub(super) fn new(hard: CancellationToken) -> Self {
        let unread = Arc::default();
        Cut { hard, unread }
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        if self.unread.load(Ordering::Relaxed) {
            return Some(Reason::SlowReader);
        }
        self.hard.is_cancelled().then_some(Reason::Stopped)
    }
}

/// Why a request isn't served, whatever its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Framing(BadFraming),
    /// The client's share of connections is used up.
    Share,
}

/// A request that is running on its connection.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) on: OnConnection,
    guard: RequestGuard,
}

impl Running {
    /// `proxies` is given if the connection comes from one of them.
    pub(crate) fn begin<B>(
        request: &Request<B>,
        place: &Place,
        proxies: Option<&TrustedProxies>,
        cut: &Cut,
    ) -> Self {
        let client: Option<ClientAddress> =
            proxies.and_then(|proxies| proxies.client(request.headers()));
        let (guard, share) = place.request(client);
        let turned_away = place.kind() == PlaceKind::TurnedAway || share.is_err();
        let refused = match framing::check(request) {
            Err(bad) => Some(Refused::Framing(bad)),
            Ok(()) => turned_away.then_some(Refused::Share),
        };
        let on = OnConnection {
            place: place.clone(),
            refused,
            cut: cut.clone(),
        };
        Running { on, guard }
    }

    /// Wraps the answer so that the request ends when the answer has been sent, and the connection if it has to.
    pub(crate) fn answer(self, mut response: Response<Body>) -> Response<Body> {
        // Servers may disagree on where a refused request ends, and a connection of the reserve serves a single
        // request.
        if self.on.refused.is_some() || self.on.place.kind() != PlaceKind::Ordinary {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let guard = self.guard;
        response.map(|body| Body::new(Holding::new(body, guard)))
    }
}
