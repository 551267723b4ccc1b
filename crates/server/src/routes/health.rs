//! `GET /health`: the process is alive. `GET /ready`: requests can be served.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use weir_gateway::NotReady;

use crate::app::App;
use crate::error::{ApiError, Reason};

pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let Err(why) = app.gateway.ready().await else {
        return Ok(Json(json!({"status": "ready"})));
    };
    let why = match why {
        NotReady::Draining => "the process is ending",
        NotReady::NoModel => "no model is available",
        NotReady::Database(trouble) => trouble.plainly(),
    };
    let message = format!("not ready to serve requests: {why}");
    Err(ApiError::new(Reason::NotReady, message).retry_after(RETRY))
}

/// `Retry-After` of an answer that isn't ready.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);
