//! One module for each thing that has URLs.

pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod health;
pub(crate) mod models;

use axum::response::Response;
use http::{Method, Uri};
use weir_accounts::Caller;
use weir_gateway::{Delivery, Job};

use crate::answer::{self, Envelope, Kind};
use crate::convert::{Asked, Reply};
use crate::error::{ApiError, Reason};
use crate::layers::RequestId;
use crate::{App, sse};

/// The way of both endpoints from a request to its answer.
async fn respond(
    app: &App,
    caller: &Caller,
    RequestId(request_id): RequestId,
    kind: Kind,
    model: String,
    asked: Asked,
) -> Result<Response, ApiError> {
    let envelope = Envelope {
        kind,
        id: kind.id(&request_id),
        created: app.gateway.now().as_second(),
        model: model.clone(),
        choices: asked.choices(),
    };
    let Asked {
        request,
        reply,
        limit,
    } = asked;
    let delivery = match reply {
        Reply::Whole => Delivery::Whole,
        Reply::Stream | Reply::StreamWithUsage => Delivery::Stream,
    };
    let job = Job {
        request_id,
        model,
        request,
        delivery,
    };
    let generation = app
        .gateway
        .start(caller, job)
        .await
        .map_err(|refusal| ApiError::of(refusal, kind, limit))?;
    match reply {
        Reply::Whole => answer::whole(envelope, generation).await,
        Reply::Stream | Reply::StreamWithUsage => Ok(sse::stream(envelope, reply, generation)),
    }
}

pub(crate) async fn not_found(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Reason::NotFound, format!("no such path: {path}"))
}

/// The router adds `Allow`.
pub(crate) async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        Reason::MethodNotAllowed,
        format!("method {method} is not allowed here; see the header Allow"),
    )
}
