//! Values to bind, and rows to read.

use jiff::Timestamp;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::db::StoreError;
use crate::money::Nanos;
use rusqlite::types::{FromSql, ValueRef};

/// A value to bind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Integer(Option<i64>),
    Text(Option<&'a str>),
    Bytes(&'a [u8]),
}

impl Value<'_> {
    /// Refuses texts with a NUL on both databases alike, since PostgreSQL can't store them.
    pub(super) fn check(values: &[Value<'_>]) -> Result<(), StoreError> {
        let has_nul =
            |value: &Value<'_>| matches!(value, Value::Text(Some(text)) if text.contains('\0'));
        if values.iter().any(has_nul) {
            return Err(StoreError::contradiction("a text has a NUL in it"));
        }
        Ok(())
    }
}

impl From<i64> for Value<'_> {
    fn from(integer: i64) -> Self {
        Value::Integer(Some(integer))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(integer: Option<i64>) -> Self {
        Value::Integer(integer)
    }
}

impl From<Nanos> for Value<'_> {
    fn from(amount: Nanos) -> Self {
        Value::Integer(Some(amount.get()))
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(at: Timestamp) -> Self {
        Value::Integer(Some(at.as_millisecond()))
    }
}

impl From<Option<Timestamp>> for Value<'_> {
    fn from(at: Option<Timestamp>) -> Self {
        Value::Integer(at.map(Timestamp::as_millisecond))
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Value::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Value::Bytes(bytes)
    }
}

/// The values for a statement's parameters, each converted by its type.
macro_rules! values {
    ($($value:expr),* $(,)?) => { &[$($crate::db::Value::from($value)),*] };
}
pub(crate) use values;

/// A column of values for many rows: an array parameter on PostgreSQL.
#[derive(Debug)]
pub(crate) enum Column {
    Integers(Vec<i64>),
    Texts(Vec<String>),
}

/// A row; columns by position. Integers are BIGINT on PostgreSQL.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(Vec<rusqlite::types::Value>),
    Postgres(PgRow),
}

impl Row {
    pub(crate) fn integer(&self, column: usize) -> Result<i64, StoreError> {
        self.integer_or_null(column)?
            .ok_or_else(|| StoreError::contradiction(format!("column {column} is null")))
    }

    pub(crate) fn integer_or_null(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self {
            Row::Sqlite(row) => read_column(row, column),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn text(&self, column: usize) -> Result<String, StoreError> {
        self.text_or_null(column)?
            .ok_or_else(|| StoreError::contradiction(format!("column {column} is null")))
    }

    pub(crate) fn text_or_null(&self, column: usize) -> Result<Option<String>, StoreError> {
        match self {
            Row::Sqlite(row) => read_column(row, column),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn bytes_or_null(&self, column: usize) -> Result<Option<Vec<u8>>, StoreError> {
        match self {
            Row::Sqlite(row) => read_column(row, column),
            Row::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(crate) fn nanos(&self, column: usize) -> Result<Nanos, StoreError> {
        self.integer(column).map(Nanos::new)
    }

    pub(crate) fn count(&self, column: usize) -> Result<u64, StoreError> {
        u64::try_from(self.integer(column)?)
            .map_err(|_| StoreError::contradiction(format!("column {column} is negative")))
    }

    pub(crate) fn time(&self, column: usize) -> Result<Timestamp, StoreError> {
        self.time_or_null(column)?
            .ok_or_else(|| StoreError::contradiction(format!("column {column} is no time")))
    }

    pub(crate) fn time_or_null(&self, column: usize) -> Result<Option<Timestamp>, StoreError> {
        let at = self
            .integer_or_null(column)?
            .map(Timestamp::from_millisecond);
        at.transpose()
            .map_err(|error| StoreError::contradiction(error.to_string()))
    }
}

/// The value of a column; an error if it isn't of type `T`.
fn read_column<T: FromSql>(row: &[rusqlite::types::Value], column: usize) -> Result<T, StoreError> {
    let value = row.get(column).map_or(ValueRef::Null, ValueRef::from);
    T::column_result(value).map_err(|error| {
        StoreError::contradiction(format!("column {column} can't be read: {error}"))
    })
}
