//! Limits of an account for single models.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::db::{Row, StoreError};
use crate::error::AdminError;
use crate::quotas::Quotas;
use crate::text::{PLAIN, is_plain};

/// The most models for which an account may have limits of its own: all are read with each request of its keys.
const MODELS_MAX: usize = 100;
const MODEL_ID_MAX: usize = 256;

/// Limits by the id of a model. A model without any limit has no entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelQuotas(BTreeMap<String, Quotas>);

impl FromIterator<(String, Quotas)> for ModelQuotas {
    fn from_iter<T: IntoIterator<Item = (String, Quotas)>>(models: T) -> Self {
        let limited = models
            .into_iter()
            .filter(|(_, quotas)| *quotas != Quotas::default());
        ModelQuotas(limited.collect())
    }
}

impl ModelQuotas {
    /// The limits of a model, none if it has no entry.
    pub fn of(&self, model: &str) -> Quotas {
        self.0.get(model).copied().unwrap_or_default()
    }

    /// These limits, with those of one model replaced.
    #[must_use]
    pub fn with(mut self, model: String, quotas: Quotas) -> Self {
        self.0.insert(model, quotas);
        self.0.into_iter().collect()
    }

    /// All limits, in the order of the models' ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quotas)> {
        self.0
            .iter()
            .map(|(model, quotas)| (model.as_str(), *quotas))
    }

    pub(crate) fn check(&self) -> Result<(), AdminError> {
        let is_id = |model: &String| (1..=MODEL_ID_MAX).contains(&model.len()) && is_plain(model);
        if self.0.len() > MODELS_MAX || !self.0.keys().all(is_id) {
            let message = format!(
                "an account has limits for at most {MODELS_MAX} models; a model's id has 1 to {MODEL_ID_MAX} bytes and {PLAIN}"
            );
            return Err(AdminError::invalid("model_limits", message));
        }
        self.0.values().try_for_each(Quotas::check)
    }

    pub(crate) fn json(&self) -> Value {
        let models = self.0.iter();
        let object: Map<_, _> = models
            .map(|(model, quotas)| (model.clone(), quotas.json()))
            .collect();
        Value::Object(object)
    }

    /// The text for the database's column: JSON, or NULL without any limits.
    pub(crate) fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.json().to_string())
    }

    pub(crate) fn read(row: &Row, column: usize) -> Result<Self, StoreError> {
        let Some(text) = row.text_or_null(column)? else {
            return Ok(ModelQuotas::default());
        };
        parse(&text).ok_or_else(|| StoreError::contradiction("these are no limits by model"))
    }
}

fn parse(text: &str) -> Option<ModelQuotas> {
    let Ok(Value::Object(models)) = serde_json::from_str(text) else {
        return None;
    };
    let quotas = |limits: &Value| {
        let limit = |name| match limits.get(name) {
            None | Some(Value::Null) => Some(None),
            Some(limit) => limit.as_u64().filter(|limit| *limit > 0).map(Some),
        };
        let narrow = |limit: Option<u64>| limit.map(u32::try_from).transpose().ok();
        Some(Quotas {
            requests_per_minute: narrow(limit("requests_per_minute")?)?,
            tokens_per_minute: limit("tokens_per_minute")?,
            concurrent_requests: narrow(limit("concurrent_requests")?)?,
        })
    };
    models
        .into_iter()
        .map(|(model, limits)| Some((model, quotas(&limits)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let quotas = Quotas {
            requests_per_minute: Some(u32::MAX),
            tokens_per_minute: Some(9_223_372_036_854_775_806),
            concurrent_requests: None,
        };
        let none = Quotas::default();
        let models = [("org/a\"b".to_owned(), quotas), ("none".to_owned(), none)];
        let models: ModelQuotas = models.into_iter().collect();
        assert_eq!(parse(&models.text().unwrap()).unwrap(), models);
        assert_eq!((models.of("org/a\"b"), models.of("none")), (quotas, none));
        assert_eq!(models.with("org/a\"b".to_owned(), none).text(), None);
        for wrong in [
            "",
            "[]",
            r#"{"a":1"#,
            r#"{"a":{"requests_per_minute":0}}"#,
            r#"{"a":{"requests_per_minute":4294967296}}"#,
            r#"{"a":{"tokens_per_minute":-1}}"#,
            r#"{"a":{"concurrent_requests":"1"}}"#,
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
