//! Refusals of the gateway and of engines, as answers to the caller.

use std::time::Duration;

use weir_accounts::CapPeriod;
use weir_engine::PromptSize;
use weir_engine::request::Invalid;
use weir_gateway::{BILLS_PER_MINUTE, Refusal};

use super::{ApiError, ParamNames, Reason};

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::InvalidApiKey => ApiError::new(
                Reason::InvalidApiKey,
                "no valid API key: send it as `Authorization: Bearer sk_…`",
            ),
            Refusal::ModelNotFound { model } => {
                ApiError::new(Reason::ModelNotFound, format!("model not found: {model}"))
                    .param("model")
            }
            Refusal::ModelAccessDenied { model } => ApiError::new(
                Reason::AccessDenied,
                format!("this key may not use model {model}"),
            )
            .param("model"),
            Refusal::RoleDenied { role } => ApiError::new(
                Reason::AccessDenied,
                format!("a key with the role {} can't be used for this", role.name()),
            )
            .code("insufficient_permissions")
            .metadata("reason", "role"),
            Refusal::AccountSuspended => {
                ApiError::new(Reason::AccessDenied, "the account is suspended")
                    .code("account_suspended")
                    .metadata("reason", "account_suspended")
            }
            Refusal::ModelNotAvailable { model } => ApiError::new(
                Reason::ModelNotAvailable,
                format!("model {model} is not available at the moment"),
            ),
            Refusal::Invalid(invalid) => invalid.into(),
            Refusal::TooLong {
                context,
                prompt,
                requested,
            } => too_long(context, prompt, requested),
            Refusal::Unsupported { model, feature } => {
                ApiError::unsupported(&model, feature, "model")
            }
            Refusal::BalanceTooLow { affordable } => ApiError::new(
                Reason::NotEnoughBalance,
                format!(
                    "the balance is too low for this request: it covers {affordable} output tokens"
                ),
            )
            .metadata("reason", "balance_too_low")
            .metadata("affordable_output_tokens", affordable.to_string()),
            Refusal::BalanceInFlight { retry_after } => ApiError::new(
                Reason::NotEnoughBalance,
                "open requests hold the balance; try again when one of them has ended",
            )
            .metadata("reason", "in_flight")
            .retry_after(retry_after),
            Refusal::KeyCap {
                period,
                affordable,
                retry_after,
            } => key_cap(period, affordable, retry_after),
            Refusal::BillsTooFast { retry_after } => ApiError::new(
                Reason::ListBillTooFast,
                format!("at most {BILLS_PER_MINUTE} bills a minute can be listed"),
            )
            .retry_after(retry_after),
            Refusal::RequestLimit { retry_after } => ApiError::new(
                Reason::RateLimitExceeded,
                "rate limit exceeded: too many requests per minute",
            )
            .retry_after(retry_after),
            Refusal::GrammarWorkLimit { retry_after } => ApiError::new(
                Reason::RateLimitExceeded,
                "rate limit exceeded: the schemas and grammars of this account take too much work; send fewer or simpler ones, or \
                 wait as long as Retry-After says",
            )
            .retry_after(retry_after),
            Refusal::ConcurrencyLimit { limit, retry_after } => ApiError::new(
                Reason::RateLimitExceeded,
                format!("rate limit exceeded: more than {limit} concurrent requests"),
            )
            .retry_after(retry_after),
            Refusal::TokenLimit { retry_after } => ApiError::new(
                Reason::TokenLimitExceeded,
                "rate limit exceeded: too many tokens per minute",
            )
            .retry_after(retry_after),
            Refusal::Overloaded { retry_after } => ApiError::new(
                Reason::ServiceNotAvailable,
                "the service is overloaded; try again later",
            )
            .retry_after(retry_after),
            Refusal::StoreUnavailable { retry_after } => ApiError::new(
                Reason::ServiceNotAvailable,
                "the service can't read or write its accounts at the moment; try again later",
            )
            .retry_after(retry_after),
            Refusal::Internal(cause) => {
                tracing::error!(cause, "a request failed");
                ApiError::internal()
            }
        }
    }
}

impl ApiError {
    /// The error for a refusal, with the parameters named as the caller named them.
    pub(crate) fn of(refusal: Refusal, names: ParamNames) -> Self {
        let limit = names.output_tokens;
        match refusal {
            Refusal::TooLong { .. } => ApiError::from(refusal).param(names.prompt),
            Refusal::Invalid(Invalid { param, message }) if param == "max_tokens" => {
                ApiError::invalid(limit, message.replace("max_tokens", limit))
            }
            other => other.into(),
        }
    }
}

impl From<Invalid> for ApiError {
    fn from(Invalid { param, message }: Invalid) -> Self {
        ApiError::invalid(param, message)
    }
}

impl ApiError {
    /// An error without details: the log has the cause, under the request's id.
    pub(crate) fn internal() -> Self {
        ApiError::new(
            Reason::InternalError,
            "an internal error; the request's id is in the header x-request-id",
        )
    }
}

fn key_cap(period: CapPeriod, affordable: u64, retry_after: Option<Duration>) -> ApiError {
    let cap = match period {
        CapPeriod::Total => "spend cap",
        CapPeriod::Month => "spend cap of this month",
        CapPeriod::Day => "spend cap of this day",
    };
    let why = match retry_after {
        Some(_) => "this key's open requests hold what its",
        None => "this request costs more than what this key's",
    };
    let error = ApiError::new(
        Reason::NotEnoughBalance,
        format!("{why} {cap} leaves; that covers {affordable} output tokens"),
    )
    .metadata("reason", "key_spend_cap")
    .metadata("period", period.to_string())
    .metadata("affordable_output_tokens", affordable.to_string());
    match retry_after {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

/// The message begins like OpenAI's, since clients look for these words.
fn too_long(context: u32, prompt: PromptSize, requested: Option<u32>) -> ApiError {
    let message = match requested {
        None => format!(
            "This model's maximum context length is {context} tokens. However, your prompt has {prompt} tokens. \
             Please shorten it."
        ),
        Some(requested) => format!(
            "This model's maximum context length is {context} tokens. However, you requested {} tokens ({prompt} in \
             the prompt, {requested} for the completion). Please reduce either.",
            PromptSize {
                tokens: prompt.tokens.saturating_add(u64::from(requested)),
                ..prompt
            },
        ),
    };
    ApiError::new(Reason::InvalidRequestBody, message).code("context_length_exceeded")
}
