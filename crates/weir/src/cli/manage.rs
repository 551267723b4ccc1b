//! Arguments of the commands for accounts, keys and money.

use clap::{Args, Subcommand};
use weir_accounts::{KeyRole, Nanos, Tier};

use crate::cli::Json;
use crate::cli::value::{Length, OrNone, When};

#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Add an account
    Add {
        /// The name, which no other account has
        name: String,
        /// The balance to start with, in dollars, such as 5 or 0.25
        #[arg(long, value_name = "USD", default_value = "0")]
        credit: Nanos,
        #[command(flatten)]
        output: Json,
    },
    /// List the accounts
    List {
        /// Deleted ones, too
        #[arg(long)]
        deleted: bool,
        #[command(flatten)]
        output: Json,
    },
    /// Show all of one account
    Show {
        /// Name or id of the account
        account: String,
        #[command(flatten)]
        output: Json,
    },
    /// Change an account; what isn't given stays
    Set(SetAccount),
    /// Refuse its requests; those that run finish
    Suspend {
        /// Name or id of the account
        account: String,
        /// Why; goes to the audit log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        output: Json,
    },
    /// Serve it again
    Resume {
        /// Name or id of the account
        account: String,
        #[command(flatten)]
        output: Json,
    },
    /// Revoke its keys and end it for good; its records stay, and its name is free
    Delete {
        /// Name or id of the account
        account: String,
        /// Expire its promotional credit, and bring its balance to 0 by an adjustment
        #[arg(long)]
        write_off: bool,
        /// Why it is written off
        #[arg(long, value_name = "TEXT", default_value = "account deleted")]
        reason: String,
        #[command(flatten)]
        output: Json,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SetAccount {
    /// Name or id of the account
    pub(crate) account: String,
    /// Rename it
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// How far below zero its balance may go
    #[arg(long, value_name = "USD")]
    pub(crate) credit_limit: Option<Nanos>,
    /// Warn when less than this is available
    #[arg(long, value_name = "USD|none")]
    pub(crate) low_balance: Option<OrNone<Nanos>>,
    /// T1 to T5, instead of the tier of its top-ups
    #[arg(long, value_name = "TIER|none")]
    pub(crate) tier: Option<OrNone<Tier>>,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// The limits that are given are for this model, instead of for every one
    #[arg(long, value_name = "ID", requires = "Limits")]
    pub(crate) model: Option<String>,
    #[command(flatten)]
    pub(crate) output: Json,
}

/// Limits of a key or an account.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Limits {
    /// Requests per minute
    #[arg(long, value_name = "NUMBER|none")]
    pub(crate) requests_per_minute: Option<OrNone<u32>>,
    /// Tokens per minute
    #[arg(long, value_name = "NUMBER|none")]
    pub(crate) tokens_per_minute: Option<OrNone<u64>>,
    /// Requests at a time
    #[arg(long, value_name = "NUMBER|none")]
    pub(crate) concurrent_requests: Option<OrNone<u32>>,
}

/// Spend caps of a key.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Caps {
    /// The most that it may cost in all
    #[arg(long, value_name = "USD|none")]
    pub(crate) cap: Option<OrNone<Nanos>>,
    /// The most that it may cost in a month, by UTC
    #[arg(long, value_name = "USD|none")]
    pub(crate) cap_month: Option<OrNone<Nanos>>,
    /// The most that it may cost on a day, by UTC
    #[arg(long, value_name = "USD|none")]
    pub(crate) cap_day: Option<OrNone<Nanos>>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Key {
    /// Make a key; its secret is shown once
    Add(Box<AddKey>),
    /// List the keys of an account, or all
    List {
        /// Name or id of the account
        account: Option<String>,
        #[command(flatten)]
        output: Json,
    },
    /// Show all of one key
    Show {
        /// The id as `key list` shows it
        id: String,
        #[command(flatten)]
        output: Json,
    },
    /// Change a key; what isn't given stays
    Set(Box<SetKey>),
    /// A new secret for the same key, shown once
    Rotate {
        /// The id as `key list` shows it
        id: String,
        /// How long the old secret is accepted, too
        #[arg(long, value_name = "LENGTH", default_value = "24h")]
        grace: Length,
        #[command(flatten)]
        output: Json,
    },
    /// Revoke a key for good; in force within a second
    Revoke {
        /// The id as `key list` shows it
        id: String,
        #[command(flatten)]
        output: Json,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AddKey {
    /// Name or id of the account
    pub(crate) account: String,
    /// A name to tell the key by
    #[arg(long, value_name = "TEXT")]
    pub(crate) name: Option<String>,
    /// inference uses models; admin, billing and viewer administer, and use none
    #[arg(long, value_name = "ROLE", default_value = "inference", value_parser = role)]
    pub(crate) role: KeyRole,
    /// When it ends: a time, or how long from now
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<When>,
    /// The only model that it may use; may be given several times
    #[arg(long = "model", value_name = "ID")]
    pub(crate) models: Vec<String>,
    #[command(flatten)]
    pub(crate) caps: Caps,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct SetKey {
    /// The id as `key list` shows it
    pub(crate) id: String,
    /// A name to tell the key by
    #[arg(long, value_name = "TEXT|none")]
    pub(crate) name: Option<OrNone<String>>,
    /// When it ends: a time, or how long from now
    #[arg(long, value_name = "TIME|none")]
    pub(crate) expires: Option<OrNone<When>>,
    /// The only model that it may use; may be given several times
    #[arg(long = "model", value_name = "ID", conflicts_with = "any_model")]
    pub(crate) models: Vec<String>,
    /// Allow every model
    #[arg(long)]
    pub(crate) any_model: bool,
    #[command(flatten)]
    pub(crate) caps: Caps,
    #[command(flatten)]
    pub(crate) limits: Limits,
    #[command(flatten)]
    pub(crate) output: Json,
}

fn role(name: &str) -> Result<KeyRole, String> {
    let named = KeyRole::ALL.into_iter().find(|role| role.name() == name);
    named.ok_or_else(|| format!("a role is {}", KeyRole::ALL.map(KeyRole::name).join(", ")))
}

#[derive(Debug, Args)]
pub(crate) struct Credit {
    /// Name or id of the account
    pub(crate) account: String,
    /// Dollars such as 5 or 0.25
    #[arg(value_name = "USD")]
    pub(crate) amount: Nanos,
    /// The reason, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "credit")]
    pub(crate) reason: String,
    /// The payment's own number: the same one again changes nothing
    #[arg(long, value_name = "TEXT")]
    pub(crate) reference: Option<String>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Promo {
    /// Name or id of the account
    pub(crate) account: String,
    /// Dollars such as 5 or 0.25
    #[arg(value_name = "USD")]
    pub(crate) amount: Nanos,
    /// When it expires: a time, or how long from now
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: When,
    /// The reason, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "promotional credit")]
    pub(crate) reason: String,
    /// The promo's own number: the same one again changes nothing
    #[arg(long, value_name = "TEXT")]
    pub(crate) reference: Option<String>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Adjust {
    /// Name or id of the account
    pub(crate) account: String,
    /// Dollars such as 5 or -0.25
    #[arg(value_name = "USD", allow_hyphen_values = true)]
    pub(crate) amount: Nanos,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// The correction's own number: the same one again changes nothing
    #[arg(long, value_name = "TEXT")]
    pub(crate) reference: Option<String>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Refund {
    /// The request's id, as `usage --json` and its answer's header x-request-id have it
    pub(crate) request: String,
    /// A part of what it cost; all that is left of it if absent
    #[arg(value_name = "USD")]
    pub(crate) amount: Option<Nanos>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Which attempt of the request
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) attempt: u32,
    /// The refund's own number: the same one again changes nothing
    #[arg(long, value_name = "TEXT")]
    pub(crate) reference: Option<String>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Balance {
    /// Name or id of the account
    pub(crate) account: String,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct ShowLedger {
    /// Name or id of an account; all if absent
    pub(crate) account: Option<String>,
    /// How many of the newest transactions
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Only transactions before the one with this id
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<i64>,
    #[command(flatten)]
    pub(crate) output: Json,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    /// Name or id of an account; all if absent
    pub(crate) account: Option<String>,
    /// How many of the newest acts
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
    /// Only acts before the one with this id
    #[arg(long, value_name = "ID")]
    pub(crate) before: Option<i64>,
    #[command(flatten)]
    pub(crate) output: Json,
}
