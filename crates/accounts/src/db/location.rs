//! Where a database is, as written in the config or on the command line.

use crate::db::postgres_url::PostgresUrl;

use std::fmt;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// A file. It is created, with its folder, if it doesn't exist.
    Sqlite(PathBuf),
    Postgres(PostgresUrl),
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Location::Sqlite(path)
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Location::Sqlite(path.to_owned())
    }
}

impl From<PostgresUrl> for Location {
    fn from(url: PostgresUrl) -> Self {
        Location::Postgres(url)
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Sqlite(path) => write!(f, "{}", path.display()),
            Location::Postgres(url) => write!(f, "{url}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let check = |text: &str, shown: &str| {
            let url: PostgresUrl = text.parse().unwrap();
            let debug = format!("{url:?} {:?}", Location::from(url.clone()));
            assert_eq!(url.to_string(), shown);
            assert!(!debug.contains("c4nary"), "{debug}");
        };
        check(
            "postgres://weir:c4nary@db.example:6432/weir?sslmode=require&password=c4nary",
            "postgres://weir@db.example:6432/weir",
        );
        check(
            "postgresql://weir:c4nary%40@[::1]/books",
            "postgres://weir@[::1]:5432/books",
        );
        check(
            "postgres://weir:c4nary@%2Fvar%2Frun%2Fpg/books",
            "postgres://weir@/var/run/pg:5432/books",
        );
    }

    #[test]
    fn a_wrong_address_is_not_repeated() {
        for text in [
            "",
            "sqlite",
            "mysql://u:c4nary@h/d",
            "postgres://u:c4nary@h:port/d",
            "postgres://u:c4nary@h:99999/d",
            "postgres://u:c4nary@[::/d",
            "postgres://u:c4nary@h/d?sslmode=c4nary",
            "postgres://u:c4nary@h/d?port=c4nary",
            "postgres://u:c4n\0ary@h/d\0",
        ] {
            let error = text.parse::<PostgresUrl>();
            let shown = format!("{error:?}");
            assert!(error.is_err() || text.contains('\0'), "{text}: {shown}");
            assert!(!shown.contains("c4n"), "{text}: {shown}");
        }
    }
}
