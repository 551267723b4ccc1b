//! The administrative API, `/admin/v1`. This table has each route's roles; its handler's type has its input and output.
//! The OpenAPI document is generated from both.

mod accounts;
mod credit;
mod endpoint;
mod export;
mod keys;
pub(crate) mod openapi;
mod records;
mod reload;
mod schemas;
pub(crate) mod wire;

use axum::routing::MethodFilter;
use http::Method;
use weir_accounts::KeyRole;

pub(crate) use self::endpoint::Endpoint;
use crate::route::{Auth, Handler, Route, Under};

const READS: &[KeyRole] = &[KeyRole::Admin, KeyRole::Billing, KeyRole::Viewer];
const MOVES_MONEY: &[KeyRole] = &[KeyRole::Admin, KeyRole::Billing];
const ADMINISTERS: &[KeyRole] = &[KeyRole::Admin];

#[rustfmt::skip]
pub(crate) const ROUTES: &[Route] = &[
    row(Method::GET, "/admin/v1/accounts", READS, |on| Endpoint::new(
        on, "list_accounts", "Accounts, by name", accounts::list)),
    row(Method::POST, "/admin/v1/accounts", ADMINISTERS, |on| Endpoint::new(
        on, "add_account", "Makes an account", accounts::add)),
    row(Method::GET, "/admin/v1/accounts/{account}", READS, |on| Endpoint::new(
        on, "show_account", "An account", accounts::show)),
    row(Method::PATCH, "/admin/v1/accounts/{account}", ADMINISTERS, |on| Endpoint::new(
        on, "update_account", "Changes an account, suspends or resumes it", accounts::update)),
    row(Method::DELETE, "/admin/v1/accounts/{account}", ADMINISTERS, |on| Endpoint::new(
        on, "delete_account", "Revokes an account's keys and ends it for good; its records stay, and its name is free",
        accounts::delete)),
    row(Method::GET, "/admin/v1/accounts/{account}/keys", READS, |on| Endpoint::new(
        on, "list_keys", "The keys of an account, oldest first", keys::list)),
    row(Method::POST, "/admin/v1/accounts/{account}/keys", ADMINISTERS, |on| Endpoint::new(
        on, "add_key", "Makes a key; this is the only time that it is shown", keys::add)),
    row(Method::GET, "/admin/v1/keys/{key}", READS, |on| Endpoint::new(
        on, "show_key", "A key, and what it has cost", keys::show)),
    row(Method::PATCH, "/admin/v1/keys/{key}", ADMINISTERS, |on| Endpoint::new(
        on, "update_key", "Changes a key", keys::update)),
    row(Method::POST, "/admin/v1/keys/{key}/rotate", ADMINISTERS, |on| Endpoint::new(
        on, "rotate_key", "Gives a key a new secret; this is the only time that it is shown", keys::rotate)),
    row(Method::POST, "/admin/v1/keys/{key}/revoke", ADMINISTERS, |on| Endpoint::new(
        on, "revoke_key", "Revokes a key for good", keys::revoke)),
    row(Method::POST, "/admin/v1/accounts/{account}/credits", MOVES_MONEY, |on| Endpoint::new(
        on, "add_credit", "Pays in", credit::add)),
    row(Method::POST, "/admin/v1/accounts/{account}/promos", MOVES_MONEY, |on| Endpoint::new(
        on, "give_promo", "Gives promotional credit", credit::promo)),
    row(Method::POST, "/admin/v1/accounts/{account}/adjustments", MOVES_MONEY, |on| Endpoint::new(
        on, "adjust", "Corrects a balance", credit::adjust)),
    row(Method::POST, "/admin/v1/refunds", MOVES_MONEY, |on| Endpoint::new(
        on, "refund", "Gives back what a request cost, or a part of it", credit::refund)),
    row(Method::GET, "/admin/v1/accounts/{account}/usage", READS, |on| Endpoint::new(
        on, "list_usage", "What the requests of an account used and cost, newest first", records::usage)),
    row(Method::GET, "/admin/v1/accounts/{account}/ledger", READS, |on| Endpoint::new(
        on, "list_ledger", "The transactions of an account, newest first", records::ledger)),
    row(Method::GET, "/admin/v1/audit", READS, |on| Endpoint::new(
        on, "list_audit", "Administrative acts, newest first", records::audit)),
    row(Method::GET, "/admin/v1/usage/export", READS, |on| Endpoint::new(
        on, "export_usage", "What requests used and cost, as a file, by account and oldest first", export::export)),
    row(Method::POST, "/admin/v1/reload", ADMINISTERS, |on| Endpoint::new(
        on, "reload", "Reads the config again: its live keys are used from now on, or, if something is wrong, nothing changes",
        reload::reload)),
    row(Method::GET, "/admin/v1/openapi.json", READS, |on| Endpoint::new(
        on, "show_openapi", "This document", openapi::show)),
];

const fn row(
    method: Method,
    path: &'static str,
    roles: &'static [KeyRole],
    endpoint: fn(MethodFilter) -> Endpoint,
) -> Route {
    Route {
        method,
        under: Under::Root,
        path,
        auth: Auth::Admin(roles),
        handler: Handler::Described(endpoint),
    }
}
