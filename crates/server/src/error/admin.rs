//! Errors of the accounts crate as answers of the administrative API.

use weir_accounts::{AdminError, StoreError};
use weir_gateway::{Refusal, STORE_RETRY};

use super::{ApiError, Reason};

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::NotFound { .. } => ApiError::new(Reason::NotFound, error.to_string()),
            AdminError::NameTaken(_) => {
                ApiError::new(Reason::NameTaken, error.to_string()).param("name")
            }
            AdminError::Invalid { field, message } => ApiError::invalid(field, message),
            AdminError::NotEmpty(message) => ApiError::new(Reason::AccountNotEmpty, message),
            AdminError::BadIdempotencyKey(_) => {
                ApiError::invalid("Idempotency-Key", error.to_string())
            }
            // The key isn't repeated: the stored one has a prefix that the caller didn't send.
            AdminError::IdempotencyConflict(_) => ApiError::new(
                Reason::IdempotencyConflict,
                "the idempotency key was used for something else",
            )
            .param("Idempotency-Key"),
            AdminError::KeyMade(ref key) => ApiError::new(Reason::KeyMade, error.to_string())
                .param("Idempotency-Key")
                .metadata("key", key.as_str()),
            AdminError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "an administrative act failed");
        Refusal::StoreUnavailable {
            retry_after: STORE_RETRY,
        }
        .into()
    }
}
