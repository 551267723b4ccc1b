//! The API's errors: a reason, a message and the parameter that it is about.

mod admin;
mod reason;
mod refusal;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use weir_api::error::{ErrorBody, ErrorObject};

pub use self::reason::{Fault, Reason, Row};
use crate::redact::redact;

/// The names of parameters in a request, for refusals by code that doesn't know its API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParamNames {
    /// The field of the prompt: `messages`, `prompt`, `input`.
    pub prompt: &'static str,
    /// The field of the limit of output tokens. An API may have several; it is the one that the caller used.
    pub output_tokens: &'static str,
}

impl ParamNames {
    /// The names in OpenAI's plain completions.
    pub(crate) const OPENAI: Self = ParamNames::new("prompt", "max_tokens");

    pub const fn new(prompt: &'static str, output_tokens: &'static str) -> Self {
        ParamNames {
            prompt,
            output_tokens,
        }
    }
}

/// An error for a caller. Internal causes are logged and never stored in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    reason: Reason,
    message: String,
    param: Option<String>,
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
            metadata: BTreeMap::new(),
            retry_after: None,
        }
    }

    /// An error for a field whose value isn't allowed.
    pub fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::new(Reason::InvalidRequest, message).param(param)
    }

    /// An error for a field that would change the answer but that the model doesn't support.
    pub fn unsupported(model: &str, feature: &str, param: impl Into<String>) -> Self {
        let message = refusal::unsupported(model, feature);
        ApiError::new(Reason::UnsupportedFeature, message).param(param)
    }

    pub(crate) fn param(self, param: impl Into<String>) -> Self {
        ApiError {
            param: Some(param.into()),
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
                code: row.code,
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
