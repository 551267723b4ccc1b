//! The administrative API, `/admin/v1`. Its format is Weir's own: unknown fields are refused, amounts are dollars as
//! strings, times are RFC 3339. The OpenAPI document is generated from these types, and shows their comments to
//! callers.

mod account;
mod key;
mod money;
mod record;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

pub use self::account::{
    Account, AccountUpdate, Limits, NewAccount, NewSuspension, Suspension, Tier,
};
pub use self::key::{Caps, Key, KeyDetail, KeySecret, KeyUpdate, NewKey, Role, Rotation, Spent};
pub use self::money::{Movement, NewAdjustment, NewCredit, NewPromo, NewRefund};
pub use self::record::{AuditRecord, Entry, Transaction, UsageDay, UsageRecord};

/// Dollars as text, exactly: "0.000000001" is the smallest amount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("pattern" = "^-?[0-9]+(\\.[0-9]{1,9})?$"))]
pub struct Usd(pub String);

/// RFC 3339, such as "2027-01-01T00:00:00Z".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline, extend("format" = "date-time"))]
pub struct Time(pub String);

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T> {
    pub data: Vec<T>,
    pub has_more: bool,
    /// The value of `after` for the next page; null on the last page.
    pub next: Option<String>,
}

/// The page of a list to return.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PageQuery {
    /// Entries in a page, 1 to 500; 100 if absent.
    #[schemars(range(min = 1, max = 500))]
    #[serde(deserialize_with = "number")]
    pub limit: Option<u32>,
    /// The `next` of the previous page.
    pub after: Option<String>,
}

/// The rule for the balance of an account that is deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeletionQuery {
    /// Expire the account's promotional credit, and bring its balance to 0 by an adjustment. Without this, deleting an
    /// account that has a balance fails with 409.
    #[serde(deserialize_with = "flag")]
    pub write_off: bool,
    /// The reason for the write-off.
    pub reason: Option<String>,
}

/// The page of the audit log to return.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AuditQuery {
    /// Only acts on this account and its keys: the account's id or name.
    pub account: Option<String>,
    /// Entries in a page, 1 to 500; 100 if absent.
    #[schemars(range(min = 1, max = 500))]
    #[serde(deserialize_with = "number")]
    pub limit: Option<u32>,
    /// The `next` of the previous page.
    pub after: Option<String>,
}

/// The usage to export.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExportQuery {
    /// `csv`, with the column names in the first line, or `jsonl`, with a JSON object on each line.
    pub format: Format,
    /// A line for each `record`, or for each key, model, price and UTC `day`.
    pub by: By,
    /// Requests that ended at this time or later; by day, each day that the period overlaps. RFC 3339, or a UTC day,
    /// which means its beginning.
    pub from: Option<String>,
    /// Requests that ended before this time.
    pub to: Option<String>,
    /// Only this account: its id or name.
    pub account: Option<String>,
    /// Only this key: its id.
    pub key: Option<String>,
    /// Only of this model.
    pub model: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Csv,
    Jsonl,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    #[default]
    Record,
    Day,
}

/// An empty query or body, or an answer without a body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, expecting = "an object")]
pub struct Nothing {}

/// The result of reading the config again. Keys are named as in the config file, entries of lists by their names:
/// `models[my/model].input_price`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reload {
    /// The keys whose new values are used from now on.
    pub changed: Vec<String>,
    /// The changed keys whose new values are used only after a restart.
    pub restart: Vec<String>,
    /// Parts of the config that are odd but not wrong.
    pub warnings: Vec<String>,
}

/// Parses a number from its text in a query string.
fn number<'de, D: Deserializer<'de>>(text: D) -> Result<Option<u32>, D::Error> {
    let text = String::deserialize(text)?;
    let number = text.parse();
    let number = number.map_err(|_| serde::de::Error::custom("a whole number is expected"));
    number.map(Some)
}

/// Parses a flag from its text in a query string.
fn flag<'de, D: Deserializer<'de>>(text: D) -> Result<bool, D::Error> {
    let text = String::deserialize(text)?;
    let flag = text.parse();
    flag.map_err(|_| serde::de::Error::custom("true or false is expected"))
}

/// Deserializes a field of an update. An absent field is left unchanged (`None`); null is a value like any other.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_tells_null_from_absent() {
        let read = |value| serde_json::from_value::<AccountUpdate>(value);
        let change = read(json!({"tier": null, "low_balance": "1"})).unwrap();
        assert_eq!(change.tier, Some(None));
        assert_eq!(change.low_balance, Some(Some(Usd("1".to_owned()))));
        assert_eq!((change.name, change.suspended), (None, None));
        for refused in [
            json!({"name": null}),
            json!({"credit_limit": null}),
            json!({"credit_limit": 5}),
            json!({"tier": "T9"}),
            json!({"balance": "5"}),
            json!({"limits": {"requests": 1}}),
        ] {
            assert!(read(refused.clone()).is_err(), "{refused}");
        }
    }
}
