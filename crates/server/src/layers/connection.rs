//! Requests that were refused when they arrived on their connection, and callers on connections of the reserve.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Extensions;
use weir_accounts::Caller;

use crate::error::{ApiError, Reason};
use crate::serve::{BadFraming, OnConnection, Refused, ReserveIsFull};

/// `Retry-After` for a lack of connections: by then some may have ended.
const RETRY: Duration = Duration::from_secs(1);
/// Paths that are answered even when the client's share of connections is used up: an orchestrator restarts a service
/// that seems dead.
const ALWAYS_ANSWERED: [&str; 2] = ["health", "ready"];

/// Answers requests that were refused because of their framing or their client's share, before any handler sees them.
pub(crate) async fn refuse(request: Request, next: Next) -> Response {
    let refused = request
        .extensions()
        .get::<OnConnection>()
        .and_then(|on| on.refused);
    match refused {
        Some(Refused::Framing(bad)) => framing(bad).into_response(),
        Some(Refused::Share) if !is_always_answered(&request) => share().into_response(),
        Some(Refused::Share) | None => next.run(request).await,
    }
}

fn is_always_answered(request: &Request) -> bool {
    ALWAYS_ANSWERED.contains(&request.uri().path().trim_matches('/'))
}

fn framing(bad: BadFraming) -> ApiError {
    let reason = match bad {
        BadFraming::UnknownEncoding => Reason::NotImplemented,
        BadFraming::NoHost
        | BadFraming::SeveralHosts
        | BadFraming::InvalidHost
        | BadFraming::ChunkedTwice => Reason::InvalidRequest,
    };
    ApiError::new(reason, bad.message())
}

fn share() -> ApiError {
    ApiError::new(
        Reason::AddressConnections,
        "rate limit exceeded: your address has as many connections as it may have",
    )
    .retry_after(RETRY)
}

/// Notes that the connection's request has a valid key. Refuses it if its connection is in the reserve and too many
/// callers with a key are served there already.
pub(crate) fn has_key(extensions: &Extensions, caller: &Caller) -> Result<(), ApiError> {
    let Some(on) = extensions.get::<OnConnection>() else {
        return Ok(());
    };
    on.place.has_key(&caller.account).map_err(|ReserveIsFull| {
        ApiError::new(
            Reason::ConnectionsBusy,
            "the service is overloaded: a request runs on every connection",
        )
        .retry_after(RETRY)
    })
}
