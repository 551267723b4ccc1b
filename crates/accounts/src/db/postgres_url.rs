//! The address of a PostgreSQL database.

use std::fmt;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// `postgres://user:password@host:port/database`. Shown without the password and the parameters, which
/// may hold one.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

/// An error in an address. Its text contains no part of the address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

impl PostgresUrl {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for PostgresUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let known = ["postgres://", "postgresql://"];
        if !known.iter().any(|scheme| text.starts_with(scheme)) {
            return Err(UrlError("it doesn't begin with postgres://".to_owned()));
        }
        let url = PostgresUrl(text.to_owned());
        match parse(&url) {
            Ok(_) => Ok(url),
            Err(error) => Err(UrlError(error)),
        }
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match parse(self) {
            Ok(options) => write!(f, "{}", shown(&options)),
            Err(_) => f.write_str("postgres://…"),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PostgresUrl({self})")
    }
}

/// Parses the address. The error's text contains no part of it.
pub(super) fn parse(url: &PostgresUrl) -> Result<PgConnectOptions, String> {
    url.expose().parse().map_err(|error| match error {
        sqlx::Error::Configuration(cause) if cause.is::<std::num::ParseIntError>() => {
            "its port is no number".to_owned()
        }
        sqlx::Error::Configuration(cause) if !cause.is::<sqlx::Error>() => cause.to_string(),
        // An error about a parameter (a nested `sqlx::Error`) may repeat the parameter's value.
        _ => "one of its parameters has a wrong value".to_owned(),
    })
}

/// The address without secrets.
pub(super) fn shown(options: &PgConnectOptions) -> String {
    let place = match options.get_socket() {
        Some(socket) => socket.display().to_string(),
        None => options.get_host().to_owned(),
    };
    let (user, port) = (options.get_username(), options.get_port());
    let database = options.get_database().unwrap_or(user);
    format!("postgres://{user}@{place}:{port}/{database}")
}
