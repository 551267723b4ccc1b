//! The connection of a request, for the router: its place in the table, and whether the request may be served.

use axum::body::Body;
use http::{HeaderValue, Request, Response, header};

use super::client::{ClientAddress, TrustedProxies};
use super::framing::{self, BadFraming};
use super::table::{Place, PlaceKind, RequestGuard};
use crate::holding::Holding;

/// Extension of every request that came by a connection.
#[derive(Debug, Clone)]
pub(crate) struct OnConnection {
    pub(crate) place: Place,
    pub(crate) refused: Option<Refused>,
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
