//! A row of the table of routes: where it is, who may call it, and its handler.

use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, post};
use http::Method;
use weir_accounts::KeyRole;

use crate::app::App;
use crate::extract;
use crate::routes;
use crate::routes::admin::Endpoint;
use crate::routes::generate::GenerationApi;

/// The base paths of the API. Each is hard-coded in some client.
pub const BASES: [&str; 5] = [
    "/v3/openai",
    "/v3/openai/v1",
    "/openai",
    "/openai/v1",
    "/v1",
];

const BASES_AND_ROOT: [&str; 6] = [BASES[0], BASES[1], BASES[2], BASES[3], BASES[4], ""];

/// A row of the table of routes.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    pub under: Under,
    pub path: &'static str,
    pub auth: Auth,
    pub(crate) handler: Handler,
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
    pub(crate) const fn new(
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

    pub(crate) fn method_router(&self, app: &App) -> MethodRouter<App> {
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
