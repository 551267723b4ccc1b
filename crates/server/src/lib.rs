//! The HTTP server: turns requests into jobs for the gateway, and their results into answers.
//!
//! The only crate with axum. It knows no SQL, no kernels and no prices; the gateway makes every decision about a
//! request.

mod answer;
mod bounded;
mod convert;
mod error;
pub mod export;
mod extract;
mod holding;
mod in_flight;
mod layers;
mod redact;
mod relaxed;
mod reload;
mod routes;
mod serve;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodFilter, MethodRouter, get, post};
use http::Method;
use tower::util::MapRequest;
use weir_accounts::KeyRole;
use weir_gateway::Gateway;

pub use crate::answer::{
    AnswerFormat, Envelope, Folded, FoldedCall, FoldedChoice, FoldedPrompt, TextPart,
};
pub use crate::convert::ChatJob;
pub use crate::error::{ApiError, Fault, ParamNames, Reason, Row};
use crate::in_flight::BytesInFlight;
pub use crate::layers::cors::Cors;
pub use crate::redact::redact;
pub use crate::reload::{Problems, Reload, ReloadAnswer, Reloaded};
use crate::routes::admin::Endpoint;
use crate::routes::chat::Chat;
use crate::routes::completions::Completions;
pub use crate::routes::generate::GenerationApi;
pub use crate::serve::{ForwardedHeader, Stop, TrustedProxies, serve};
pub use crate::sse::Frames;

/// The base paths of the API. Each is hard-coded in some client.
pub const BASES: [&str; 5] = [
    "/v3/openai",
    "/v3/openai/v1",
    "/openai",
    "/openai/v1",
    "/v1",
];

const BASES_AND_ROOT: [&str; 6] = [BASES[0], BASES[1], BASES[2], BASES[3], BASES[4], ""];

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

/// State that all routes share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct App {
    pub gateway: Gateway,
    pub options: Arc<Options>,
    /// Random numbers for request ids, which must never repeat.
    random: fn() -> u128,
    bytes_in_flight: BytesInFlight,
    cors: Cors,
    reload: Option<Reload>,
}

impl App {
    pub fn new(gateway: Gateway, options: Options, random: fn() -> u128) -> Self {
        let bytes_in_flight = BytesInFlight::new(
            options.body_bytes_in_flight_max,
            options.body_bytes_in_flight_per_key_max,
        );
        let cors = Cors::default();
        cors.allow(&options.cors_origins);
        App {
            gateway,
            options: Arc::new(options),
            random,
            bytes_in_flight,
            cors,
            reload: None,
        }
    }

    /// Lets the administrative API ask for a reload.
    #[must_use]
    pub fn with_reload(self, reload: Reload) -> Self {
        App {
            reload: Some(reload),
            ..self
        }
    }

    /// The origins that may call from browsers, to be replaced while the server runs.
    pub fn cors(&self) -> &Cors {
        &self.cors
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    pub body_bytes_max: usize,
    /// Most bytes in memory of request bodies that are being read and of answers to uncharged requests that are being
    /// sent.
    pub body_bytes_in_flight_max: usize,
    /// The same limit for a single key.
    pub body_bytes_in_flight_per_key_max: usize,
    /// Time from the end of a request, or from the beginning of the connection, to the end of the next request's head.
    pub header_timeout: Duration,
    /// Longest time between two chunks of a body.
    pub body_idle_timeout: Duration,
    /// Longest time for a whole body.
    pub body_timeout: Duration,
    /// Longest time that a client may take no byte of an answer.
    pub write_timeout: Duration,
    /// How long the rest of a refused request's body is read, so that the client reads the answer and doesn't see a
    /// reset.
    pub linger_timeout: Duration,
    pub connections_max: usize,
    /// Most connections from one address (of IPv6: from one /64), except from trusted proxies.
    pub connections_per_address_max: usize,
    /// The part of `connections_max` that is reserved for short answers and a few callers while a request runs on every
    /// other connection.
    pub connections_reserve: usize,
    pub trusted_proxies: TrustedProxies,
    /// Origins of web pages that may call the API. `*` allows every origin; without any, CORS is off.
    pub cors_origins: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            body_bytes_max: 16 * 1024 * 1024,
            body_bytes_in_flight_max: 256 * 1024 * 1024,
            body_bytes_in_flight_per_key_max: 64 * 1024 * 1024,
            header_timeout: Duration::from_secs(15),
            body_idle_timeout: Duration::from_secs(15),
            body_timeout: Duration::from_mins(5),
            write_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(5),
            connections_max: 4096,
            connections_per_address_max: 1024,
            connections_reserve: 64,
            trusted_proxies: TrustedProxies::default(),
            cors_origins: Vec::new(),
        }
    }
}

/// A row of the table of routes.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    pub under: Under,
    pub path: &'static str,
    pub auth: Auth,
    handler: Handler,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Handler {
    Plain(fn() -> MethodRouter<App>),
    /// A handler of the administrative API, which also describes its input and output for the OpenAPI document.
    Described(fn(MethodFilter) -> Endpoint),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    Bases,
    Root,
    Both,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// No key is checked; an invalid one is ignored.
    Open,
    /// A key with the role `inference`.
    Key,
    /// Any valid key, even if its account is suspended: the route shows only the key's own data.
    AnyKey,
    /// A key with one of these roles.
    Admin(&'static [KeyRole]),
}

impl Route {
    const fn new(
        method: Method,
        under: Under,
        path: &'static str,
        auth: Auth,
        handler: fn() -> MethodRouter<App>,
    ) -> Self {
        Route {
            method,
            under,
            path,
            auth,
            handler: Handler::Plain(handler),
        }
    }

    /// The row of an API that generates text.
    pub const fn generation<A: GenerationApi>(under: Under, path: &'static str) -> Self {
        Route::new(Method::POST, under, path, Auth::Key, || {
            post(routes::generate::create::<A>)
        })
    }

    fn method_router(&self, app: &App) -> MethodRouter<App> {
        let handler = match self.handler {
            Handler::Plain(handler) => handler(),
            Handler::Described(endpoint) => {
                let method = MethodFilter::try_from(self.method.clone());
                endpoint(method.expect("the method of a route is a usual one")).router
            }
        };
        match self.auth {
            Auth::Open => handler,
            // `route_layer` doesn't apply to wrong methods, which get 405 even without a key.
            Auth::Key => handler.route_layer(from_fn_with_state(app.clone(), extract::require_key)),
            Auth::AnyKey => {
                handler.route_layer(from_fn_with_state(app.clone(), extract::require_any_key))
            }
            Auth::Admin(roles) => handler.route_layer(from_fn_with_state(
                (app.clone(), roles),
                extract::require_role,
            )),
        }
    }
}

impl Under {
    pub fn bases(self) -> &'static [&'static str] {
        match self {
            Under::Bases => &BASES,
            Under::Root => &[""],
            Under::Both => &BASES_AND_ROOT,
        }
    }
}
