//! An account's balance and bills, in the format of Novita's API, and a key's spend.
//!
//! Amounts are strings in 0.0001 USD unless a field says otherwise: `"10000"` is one dollar.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// `GET /openapi/v1/billing/balance/detail`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BalanceDetail {
    /// The amount that a new request can hold: includes the credit limit, excludes open holds.
    pub available_balance: String,
    /// The amount that was paid in and isn't charged yet, without promo credit.
    pub cash_balance: String,
    pub credit_limit: String,
    /// The amount that open requests hold.
    pub pending_charges: String,
    /// The amount that a post-paid account owes.
    pub outstanding_invoices: String,
}

/// `GET /v3/user`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct User {
    pub allow_features: Vec<&'static str>,
    /// Unit: 0.0001 USD.
    pub credit_balance: i64,
    pub free_trial: FreeTrial,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FreeTrial {}

/// The query of `GET /openapi/v1/billing/bill/list`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BillQuery {
    pub cycle_type: String,
    pub product_category: String,
    pub product_name: String,
    /// Unix seconds.
    pub start_time: String,
    pub end_time: String,
    pub owner_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bills {
    pub bills: Vec<Bill>,
}

/// A line of the bill: the use of a model at one price within one cycle. Every field is a string.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bill {
    pub user_id: String,
    /// Unix seconds.
    pub start_time: String,
    pub end_time: String,
    pub billing_method: String,
    pub product_name: String,
    pub category: String,
    #[serde(rename = "ownerID")]
    pub owner_id: String,
    /// Number of prompt tokens.
    pub bill_num0: String,
    /// Number of completion tokens.
    pub bill_num1: String,
    /// Price of a million prompt tokens.
    pub base_price0: String,
    /// Price of a million completion tokens.
    pub base_price1: String,
    pub discount_price0: String,
    pub discount_price1: String,
    pub amount: String,
    /// The part of the amount that promo credit paid.
    pub voucher_amount: String,
    pub pay_amount: String,
    /// `payAmount` in USD, not rounded.
    pub pay_amount_display: String,
    /// The number of price units in a dollar.
    pub price_precision: String,
    pub product_id: String,
}

/// `GET /openapi/v1/billing/monthly/bill`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MonthlyBills {
    pub data: Vec<MonthlyBill>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MonthlyBill {
    pub bill_id: String,
    pub user_id: String,
    /// `YYYY-MM`.
    pub billing_month: String,
    pub total_amount: String,
    pub origin_total_amount: String,
    pub voucher_pay_amount: String,
    pub cash_pay_amount: String,
    pub debt_amount: String,
    /// `pending` until the month has ended, then `paid`.
    pub status: &'static str,
    pub invoice_url: String,
    /// Unix seconds.
    pub start_time: String,
    pub end_time: String,
    pub repaid_amount: String,
}

/// `GET key`: the key that makes the request. Amounts are USD as JSON numbers with all their decimals.
#[derive(Debug, Clone, Serialize)]
pub struct KeyAnswer {
    pub data: KeyData,
}

#[derive(Debug, Clone, Serialize)]
pub struct KeyData {
    /// The public part of the key.
    pub label: String,
    pub name: Option<String>,
    /// Unix seconds.
    pub created_at: i64,
    pub expires_at: Option<i64>,
    /// `null` means every model.
    pub models: Option<Vec<String>>,
    pub usage: Usd,
    pub usage_daily: Usd,
    /// The week begins on Monday.
    pub usage_weekly: Usd,
    pub usage_monthly: Usd,
    /// The amount that the key's open requests hold.
    pub held: Usd,
    /// The key's spend caps: in total, per UTC month, per UTC day.
    pub limit: Option<Usd>,
    pub limit_monthly: Option<Usd>,
    pub limit_daily: Option<Usd>,
    /// The amount that a request of this key can still hold, by the tightest cap and by the account's balance.
    pub limit_remaining: Usd,
    pub rate_limit: RateLimit,
}

/// The key's own rate limits; `null` means that the key has no such limit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RateLimit {
    pub requests_per_minute: Option<u32>,
    pub tokens_per_minute: Option<u64>,
    pub concurrent_requests: Option<u32>,
}

/// An amount of dollars as a JSON number with all its decimals.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Usd(Box<RawValue>);

impl Usd {
    /// Takes a decimal number; `None` if the text isn't a number.
    pub fn new(decimal: String) -> Option<Self> {
        let number = serde_json::from_str::<f64>(&decimal).is_ok();
        let raw = number.then(|| RawValue::from_string(decimal).ok());
        raw.flatten().map(Usd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_keep_their_decimals() {
        let check = |text: &str, json: Option<&str>| {
            let usd = Usd::new(text.to_owned());
            let written = usd.map(|usd| serde_json::to_string(&usd).unwrap());
            assert_eq!(written.as_deref(), json, "{text:?}");
        };
        check("9007199254.740993001", Some("9007199254.740993001"));
        check("-0.000000001", Some("-0.000000001"));
        check("5", Some("5"));
        for text in ["", "\"5\"", "5 6", "{}", "NaN"] {
            check(text, None);
        }
    }
}
