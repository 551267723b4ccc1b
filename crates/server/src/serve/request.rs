//! A request's connection, for the router: the connection's place, and whether the request may be served.

use axum::body::Body;
use http::{HeaderValue, Request, Response, header};

use super::client::{ClientAddress, TrustedProxies};
use super::framing::{self, BadFraming};
use super::table::{Place, PlaceKind, RequestGuard};
use crate::holding::Holding;

/// Goes with each request that came by a connection.
#[derive(Debug, Clone)]
pub(crate) struct OnConnection {
    pub(crate) place: Place,
    pub(crate) refused: Option<Refused>,
}

/// Why a request isn't served, whatever it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Framing(BadFraming),
    /// The client's address has as many connections as it may have.
    Share,
}

/// A request that runs on its connection.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) on: OnConnection,
    guard: RequestGuard,
}

impl Running {
    /// `proxies` are given if one of them passes the request on.
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

    /// The answer, which ends the request when it has been sent, and the connection where that must be.
    pub(crate) fn answer(self, mut response: Response<Body>) -> Response<Body> {
        // Where a refused request ends is a matter of opinion, and the reserve is for one request of each.
        if self.on.refused.is_some() || self.on.place.kind() != PlaceKind::Ordinary {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        let guard = self.guard;
        response.map(|body| Body::new(Holding::new(body, guard)))
    }
}
