//! The HTTP server: turns requests into jobs for the gateway, and their results into answers.
//!
//! The only crate with axum. It knows no SQL, no kernels and no prices; the gateway makes every decision about a
//! request.

mod answer;
mod app;
mod bounded;
mod convert;
mod error;
pub mod export;
mod extract;
mod frames;
mod holding;
mod in_flight;
mod layers;
mod redact;
mod relaxed;
mod reload;
mod route;
mod routes;
mod serve;
mod sse;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};
use http::Method;
use tower::util::MapRequest;

pub use crate::answer::{
    AnswerFormat, Envelope, Folded, FoldedCall, FoldedChoice, FoldedPrompt, TextPart,
};
pub use crate::app::{App, Options};
pub use crate::convert::ChatJob;
pub use crate::error::{ApiError, Fault, ParamNames, Reason, Row};
pub use crate::frames::Frames;
pub use crate::layers::cors::Cors;
pub use crate::redact::redact;
pub use crate::reload::{Problems, Reload, ReloadAnswer, Reloaded};
pub use crate::route::{Auth, BASES, Route, Under};
use crate::routes::chat::Chat;
use crate::routes::completions::Completions;
pub use crate::routes::generate::GenerationApi;
pub use crate::serve::{ForwardedHeader, Stop, TrustedProxies, serve};

/// All routes. Authentication is part of the matched route and never depends on reading the path again.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(routes::admin::ROUTES)
}

/// The routes outside the administrative API.
const ROUTES: &[Route] = &[
    Route::generation::<Chat>(Under::Bases, "/chat/completions"),
    Route::generation::<Completions>(Under::Bases, "/completions"),
    Route::new(Method::POST, Under::Bases, "/embeddings", Auth::Key, || {
        post(routes::embeddings::create)
    }),
    Route::new(Method::POST, Under::Both, "/tokenize", Auth::Key, || {
        post(routes::tokens::tokenize)
    }),
    Route::new(Method::POST, Under::Both, "/detokenize", Auth::Key, || {
        post(routes::tokens::detokenize)
    }),
    Route::new(Method::POST, Under::Both, "/count", Auth::Key, || {
        post(routes::tokens::count)
    }),
    Route::new(Method::GET, Under::Bases, "/key", Auth::AnyKey, || {
        get(routes::key::show)
    }),
    Route::new(Method::GET, Under::Root, "/v3/user", Auth::AnyKey, || {
        get(routes::billing::user)
    }),
    Route::new(
        Method::GET,
        Under::Root,
        "/openapi/v1/billing/balance/detail",
        Auth::AnyKey,
        || get(routes::billing::balance),
    ),
    Route::new(
        Method::GET,
        Under::Root,
        "/openapi/v1/billing/bill/list",
        Auth::AnyKey,
        || get(routes::billing::list),
    ),
    Route::new(
        Method::GET,
        Under::Root,
        "/openapi/v1/billing/monthly/bill",
        Auth::AnyKey,
        || get(routes::billing::monthly),
    ),
    Route::new(Method::GET, Under::Bases, "/models", Auth::Open, || {
        get(routes::models::list)
    }),
    Route::new(
        Method::GET,
        Under::Bases,
        "/models/{*id}",
        Auth::Open,
        || get(routes::models::show),
    ),
    Route::new(Method::GET, Under::Root, "/health", Auth::Open, || {
        get(routes::health::health)
    }),
    Route::new(Method::GET, Under::Root, "/ready", Auth::Open, || {
        get(routes::health::ready)
    }),
];

/// The application. Everything that it needs at run time is in `app`.
pub fn router(app: App) -> Router {
    router_with(app, routes())
}

/// The application with these routes.
pub fn router_with<'a>(app: App, table: impl IntoIterator<Item = &'a Route>) -> Router {
    let mut routes = Router::new();
    for route in table {
        for base in route.under.bases() {
            routes = routes.route(&format!("{base}{}", route.path), route.method_router(&app));
        }
    }
    let routes = routes
        .method_not_allowed_fallback(routes::method_not_allowed)
        .fallback(routes::not_found)
        .layer(from_fn(layers::note_route))
        .with_state(app.clone());
    // Slashes are normalized before routing, so that routing and authentication see the same path.
    Router::new()
        .fallback_service(MapRequest::new(routes, layers::tidy_path))
        .layer(from_fn(layers::connection::refuse))
        .layer(layers::catch_panic())
        .layer(from_fn_with_state(app.clone(), layers::cors::apply))
        .layer(from_fn_with_state(app, layers::observe))
}
