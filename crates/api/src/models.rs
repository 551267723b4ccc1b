//! The catalogue of models.

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Models {
    pub object: &'static str,
    pub data: Vec<Model>,
}

impl Models {
    pub const OBJECT: &'static str = "list";
}

/// A model of the catalogue. Prices are in 0.0001 USD per million tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    pub id: String,
    pub object: &'static str,
    /// Unix seconds.
    pub created: i64,
    pub owned_by: String,
    pub title: String,
    pub display_name: String,
    pub description: String,
    pub context_size: u32,
    pub max_output_tokens: u32,
    pub input_token_price_per_m: i64,
    pub output_token_price_per_m: i64,
    pub pricing: Pricing,
    pub features: Vec<&'static str>,
    pub endpoints: Vec<&'static str>,
    pub model_type: &'static str,
    /// 1 is active; clients ignore models with other values.
    pub status: u8,
}

impl Model {
    pub const OBJECT: &'static str = "model";
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pricing {
    pub prompt: Price,
    pub completion: Price,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_cache_read: Option<Price>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Price {
    pub price_per_m: i64,
    /// In USD: `0.15`.
    pub price_per_m_decimal: String,
}

impl Price {
    /// `price` is in 0.0001 USD per million tokens.
    pub fn per_million(price: i64) -> Self {
        let magnitude = price.unsigned_abs();
        let sign = if price < 0 { "-" } else { "" };
        let decimal = format!("{sign}{}.{:04}", magnitude / 10_000, magnitude % 10_000);
        let decimal = decimal
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned();
        Price {
            price_per_m: price,
            price_per_m_decimal: decimal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_are_also_shown_in_dollars() {
        let rows = [
            (0, "0"),
            (1, "0.0001"),
            (300, "0.03"),
            (1500, "0.15"),
            (10_000, "1"),
            (123_450, "12.345"),
        ];
        for (price, decimal) in rows {
            assert_eq!(Price::per_million(price).price_per_m_decimal, decimal);
        }
    }
}
