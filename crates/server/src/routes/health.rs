//! `GET /health`: the process lives. `GET /ready`: requests can be served.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::App;
use crate::error::{ApiError, Reason};

pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    match app.gateway.ready().await {
        true => Ok(Json(json!({"status": "ready"}))),
        false => Err(
            ApiError::new(Reason::ServiceNotAvailable, "not ready to serve requests")
                .retry_after(RETRY),
        ),
    }
}

/// How soon it is worth asking again.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);
