//! CORS: which web pages may call the API. The origins can be replaced while the server runs.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use tower::{Layer, ServiceExt};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use crate::app::App;

/// The origins that may call from browsers. Without any, CORS is off: with a layer, preflight requests to every path would be
/// answered.
#[derive(Debug, Clone, Default)]
pub struct Cors(Arc<ArcSwapOption<CorsLayer>>);

impl Cors {
    /// Allows these origins, and no others; `*` allows every origin.
    pub fn allow(&self, origins: &[String]) {
        self.0.store(layer(origins).map(Arc::new));
    }
}

fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed: AllowOrigin = if origins.iter().any(|origin| origin == "*") {
        Any.into()
    } else {
        AllowOrigin::list(
            origins
                .iter()
                .filter_map(|origin| HeaderValue::try_from(origin).ok()),
        )
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(Any)
        // `*` doesn't include the header `Authorization`, which carries the key.
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(Any)
        .max_age(Duration::from_hours(1));
    Some(layer)
}

pub(crate) async fn apply(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(layer) = app.cors.0.load_full() else {
        return next.run(request).await;
    };
    match layer.layer(next).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}
