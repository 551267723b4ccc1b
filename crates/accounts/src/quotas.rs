//! Rate limits of keys and accounts. Counting against them is not this crate's business.

pub(crate) mod by_model;

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::db::{Row, StoreError};
use crate::error::AdminError;

/// Rate limits; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quotas {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u64>,
    pub concurrent_requests: Option<u32>,
}

impl Quotas {
    /// Each limit of `self`, or where there is none, that of `other`.
    #[must_use]
    pub fn or(self, other: Quotas) -> Self {
        Quotas {
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            tokens_per_minute: self.tokens_per_minute.or(other.tokens_per_minute),
            concurrent_requests: self.concurrent_requests.or(other.concurrent_requests),
        }
    }

    /// Refuses a limit of 0 as a mistake: a key is revoked and an account suspended instead.
    pub(crate) fn check(&self) -> Result<(), AdminError> {
        let limits = self.columns();
        if limits
            .into_iter()
            .flatten()
            .all(|limit| (1..i64::MAX).contains(&limit))
        {
            return Ok(());
        }
        let message = "a limit is at least 1, and can be counted";
        Err(AdminError::invalid("limits", message))
    }

    pub(crate) fn columns(&self) -> [Option<i64>; 3] {
        [
            self.requests_per_minute.map(i64::from),
            self.tokens_per_minute
                .map(|limit| i64::try_from(limit).unwrap_or(i64::MAX)),
            self.concurrent_requests.map(i64::from),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
            "concurrent_requests": self.concurrent_requests,
        })
    }

    /// Reads the three columns that begin at `column`.
    pub(crate) fn read(row: &Row, column: usize) -> Result<Self, StoreError> {
        let [requests, tokens, concurrent] = [0, 1, 2].map(|n| column.saturating_add(n));
        Ok(Quotas {
            requests_per_minute: number(row, requests)?,
            tokens_per_minute: number(row, tokens)?,
            concurrent_requests: number(row, concurrent)?,
        })
    }
}

fn number<T: TryFrom<i64>>(row: &Row, column: usize) -> Result<Option<T>, StoreError> {
    let out_of_range =
        |_| StoreError::contradiction(format!("column {column} is no possible limit"));
    row.integer_or_null(column)?
        .map(|number| T::try_from(number).map_err(out_of_range))
        .transpose()
}

/// An account's usage tier, by its top-ups. The config sets the limits of each tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    T1,
    T2,
    T3,
    T4,
    T5,
}

impl Tier {
    pub const ALL: [Tier; 5] = [Tier::T1, Tier::T2, Tier::T3, Tier::T4, Tier::T5];

    pub fn name(self) -> &'static str {
        match self {
            Tier::T1 => "T1",
            Tier::T2 => "T2",
            Tier::T3 => "T3",
            Tier::T4 => "T4",
            Tier::T5 => "T5",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tier is one of T1, T2, T3, T4 and T5")]
pub struct NoSuchTier;

impl FromStr for Tier {
    type Err = NoSuchTier;

    fn from_str(name: &str) -> Result<Self, NoSuchTier> {
        let named = Tier::ALL.into_iter().find(|tier| tier.name() == name);
        named.ok_or(NoSuchTier)
    }
}

/// The tier that a column names, if it isn't null.
pub(crate) fn tier(row: &Row, column: usize) -> Result<Option<Tier>, StoreError> {
    let name = row.text_or_null(column)?;
    let tier = name.map(|name| name.parse()).transpose();
    tier.map_err(|error: NoSuchTier| StoreError::contradiction(error.to_string()))
}
