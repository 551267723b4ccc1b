//! The handlers, in a module for each kind of resource.

pub(crate) mod admin;
pub(crate) mod billing;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod generate;
pub(crate) mod health;
pub(crate) mod key;
pub(crate) mod models;
pub(crate) mod tokens;

use http::{Method, Uri};

use crate::error::{ApiError, Reason};

pub(crate) async fn not_found(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Reason::NotFound, format!("no such path: {path}"))
}

/// The router adds the header `Allow`.
pub(crate) async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        Reason::MethodNotAllowed,
        format!("method {method} is not allowed here; see the header Allow"),
    )
}
