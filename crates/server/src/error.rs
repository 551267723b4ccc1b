//! The API's errors: each reason with its status and its names in the answer.

mod admin;
mod refusal;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use weir_api::error::{ErrorBody, ErrorObject};

use crate::redact::redact;

/// The reason for an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    InvalidRequestBody,
    InvalidBillCycle,
    InvalidProductCategory,
    ListBillTooFast,
    InvalidApiKey,
    NotEnoughBalance,
    AccessDenied,
    ModelNotFound,
    NotFound,
    MethodNotAllowed,
    NameTaken,
    IdempotencyConflict,
    KeyMade,
    OwnAccount,
    AccountNotEmpty,
    ConfigInvalid,
    RequestTooLarge,
    RateLimitExceeded,
    TokenLimitExceeded,
    ModelNotAvailable,
    InternalError,
    NotImplemented,
    ServiceNotAvailable,
}

/// The form of a reason in an answer: the status, Novita's `reason`, OpenAI's `type` and `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub status: u16,
    pub reason: &'static str,
    pub kind: &'static str,
    pub code: Option<&'static str>,
}

impl Reason {
    pub const ALL: [Reason; 23] = [
        Reason::InvalidRequestBody,
        Reason::InvalidBillCycle,
        Reason::InvalidProductCategory,
        Reason::ListBillTooFast,
        Reason::InvalidApiKey,
        Reason::NotEnoughBalance,
        Reason::AccessDenied,
        Reason::ModelNotFound,
        Reason::NotFound,
        Reason::MethodNotAllowed,
        Reason::NameTaken,
        Reason::IdempotencyConflict,
        Reason::KeyMade,
        Reason::OwnAccount,
        Reason::AccountNotEmpty,
        Reason::ConfigInvalid,
        Reason::RequestTooLarge,
        Reason::RateLimitExceeded,
        Reason::TokenLimitExceeded,
        Reason::ModelNotAvailable,
        Reason::InternalError,
        Reason::NotImplemented,
        Reason::ServiceNotAvailable,
    ];

    /// The table of all reasons. A single error may replace its row's `code`, if its status is 400 or 403.
    #[rustfmt::skip]
    pub const fn row(self) -> Row {
        match self {
            Reason::InvalidRequestBody  => row(400, "INVALID_REQUEST_BODY",  "invalid_request_error", None),
            Reason::InvalidBillCycle    => row(400, "INVALID_BILL_CYCLE",    "invalid_request_error", None),
            Reason::InvalidProductCategory => row(400, "INVALID_PRODUCT_CATEGORY", "invalid_request_error", None),
            Reason::ListBillTooFast     => row(429, "LIST_BILL_TOO_FAST",    "requests",              Some("rate_limit_exceeded")),
            Reason::InvalidApiKey       => row(401, "INVALID_API_KEY",       "authentication_error",  Some("invalid_api_key")),
            Reason::NotEnoughBalance    => row(403, "NOT_ENOUGH_BALANCE",    "insufficient_quota",    Some("insufficient_balance")),
            Reason::AccessDenied        => row(403, "ACCESS_DENIED",         "permission_error",      Some("model_access_denied")),
            Reason::ModelNotFound       => row(404, "MODEL_NOT_FOUND",       "invalid_request_error", Some("model_not_found")),
            Reason::NotFound            => row(404, "NOT_FOUND",             "invalid_request_error", Some("not_found")),
            Reason::MethodNotAllowed    => row(405, "METHOD_NOT_ALLOWED",    "invalid_request_error", Some("method_not_allowed")),
            Reason::NameTaken           => row(409, "NAME_TAKEN",            "invalid_request_error", Some("name_taken")),
            Reason::IdempotencyConflict => row(409, "IDEMPOTENCY_CONFLICT",  "invalid_request_error", Some("idempotency_conflict")),
            Reason::KeyMade             => row(409, "KEY_MADE",              "invalid_request_error", Some("key_made")),
            Reason::OwnAccount          => row(409, "OWN_ACCOUNT",           "invalid_request_error", Some("own_account")),
            Reason::AccountNotEmpty     => row(409, "ACCOUNT_NOT_EMPTY",     "invalid_request_error", Some("account_not_empty")),
            Reason::ConfigInvalid       => row(409, "CONFIG_INVALID",        "invalid_request_error", Some("config_invalid")),
            Reason::RequestTooLarge     => row(413, "REQUEST_TOO_LARGE",     "invalid_request_error", Some("request_too_large")),
            Reason::RateLimitExceeded   => row(429, "RATE_LIMIT_EXCEEDED",   "requests",              Some("rate_limit_exceeded")),
            Reason::TokenLimitExceeded  => row(429, "TOKEN_LIMIT_EXCEEDED",  "tokens",                Some("rate_limit_exceeded")),
            Reason::ModelNotAvailable   => row(500, "MODEL_NOT_AVAILABLE",   "server_error",          Some("model_not_available")),
            Reason::InternalError       => row(500, "INTERNAL_ERROR",        "server_error",          Some("internal_error")),
            Reason::NotImplemented      => row(501, "NOT_IMPLEMENTED",       "invalid_request_error", Some("not_implemented")),
            Reason::ServiceNotAvailable => row(503, "SERVICE_NOT_AVAILABLE", "server_error",          Some("overloaded")),
        }
    }
}

const fn row(
    status: u16,
    reason: &'static str,
    kind: &'static str,
    code: Option<&'static str>,
) -> Row {
    Row {
        status,
        reason,
        kind,
        code,
    }
}

/// The names of parameters in a request, for refusals by code that doesn't know its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamNames {
    /// The field of the prompt: `messages`, `prompt`, `input`.
    pub prompt: &'static str,
    /// The field of the limit of output tokens. An API may have several; it is the one that the caller used.
    pub output_tokens: &'static str,
}

/// An error for a caller. Internal causes are logged and never stored in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    reason: Reason,
    message: String,
    param: Option<String>,
    /// Replaces the `code` of the reason's row, with more detail.
    code: Option<&'static str>,
    metadata: BTreeMap<&'static str, String>,
    retry_after: Option<Duration>,
}

/// Longest message, in characters: it may repeat text that the caller sent.
const MESSAGE_CHARS_MAX: usize = 1000;
/// openai-node ignores a `Retry-After` over a minute.
const RETRY_SECONDS_MAX: u64 = 60;

impl ApiError {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(end);
            message.push('…');
        }
        ApiError {
            reason,
            message,
            param: None,
            code: None,
            metadata: BTreeMap::new(),
            retry_after: None,
        }
    }

    /// An error for a field whose value isn't allowed.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::new(Reason::InvalidRequestBody, message).param(param)
    }

    /// An error for a field that would change the answer but that the model doesn't support.
    pub fn unsupported(model: &str, feature: &str, param: impl Into<String>) -> Self {
        let message = format!("model: {model} does not support feature: {feature}");
        ApiError::invalid(param, message).code("unsupported_feature")
    }

    pub(crate) fn param(self, param: impl Into<String>) -> Self {
        ApiError {
            param: Some(param.into()),
            ..self
        }
    }

    pub(crate) fn code(self, code: &'static str) -> Self {
        ApiError {
            code: Some(code),
            ..self
        }
    }

    pub(crate) fn metadata(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.metadata.insert(key, value.into());
        self
    }

    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        ApiError {
            retry_after: Some(wait),
            ..self
        }
    }

    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody {
            metadata: Some(self.metadata.clone()),
            ..self.frame()
        }
    }

    /// The body of an error inside a stream, without metadata.
    pub fn frame(&self) -> ErrorBody {
        let row = self.reason.row();
        let message = self.message();
        ErrorBody {
            code: row.status,
            reason: row.reason,
            message: message.clone(),
            metadata: None,
            error: ErrorObject {
                message,
                kind: row.kind,
                param: self
                    .param
                    .as_deref()
                    .map(|param| redact(param).into_owned()),
                code: self.code.or(row.code),
            },
        }
    }

    /// The message for callers: without keys, and without words that clients would misread.
    fn message(&self) -> String {
        // litellm takes any error message with these words for a rate limit error.
        const WORDS: &str = "rate limit";
        let message = redact(&self.message);
        let lower = message.to_ascii_lowercase();
        match lower.contains(WORDS) && self.reason.row().status != 429 {
            true => lower.replace(WORDS, "rate-limit"),
            false => message.into_owned(),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.reason.row().status).expect("the table has real statuses");
        let mut response = (status, axum::Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(seconds.clamp(1, RETRY_SECONDS_MAX)),
            );
        }
        if self.reason == Reason::InvalidApiKey {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self.reason);
        response
    }
}
