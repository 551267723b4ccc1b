//! Refusals of the gateway and of engines, as answers to the caller.

use std::borrow::Cow;
use std::time::Duration;

use weir_accounts::CapPeriod;
use weir_engine::PromptSize;
use weir_engine::request::Invalid;
use weir_gateway::{BILLS_PER_MINUTE, Refusal};

use super::{ApiError, ParamNames, Reason};

impl From<Refusal> for ApiError {
    /// The error for a refusal before any parameter is known but the key and the model.
    fn from(refusal: Refusal) -> Self {
        ApiError::of(refusal, ParamNames::OPENAI)
    }
}

impl From<Invalid> for ApiError {
    fn from(Invalid { param, message }: Invalid) -> Self {
        ApiError::invalid(param, message)
    }
}

impl ApiError {
    /// The error for a refusal, with parameters named as the caller named them.
    pub(crate) fn of(refusal: Refusal, names: ParamNames) -> Self {
        if let Refusal::Internal(cause) = &refusal {
            tracing::error!(cause, "a request failed");
        }
        let error = ApiError::new(reason(&refusal), message(&refusal, names));
        let error = match refusal.retry_after() {
            Some(wait) => error.retry_after(wait),
            None => error,
        };
        detailed(error, refusal, names)
    }

    /// An error without details: the log has the cause, under the request's id.
    pub(crate) fn internal() -> Self {
        ApiError::new(Reason::InternalError, INTERNAL)
    }
}

/// The reason for a refusal. Each kind of refusal has its own, except values that aren't allowed.
fn reason(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::InvalidApiKey => Reason::InvalidApiKey,
        Refusal::ModelNotFound { .. } => Reason::ModelNotFound,
        Refusal::ModelAccessDenied { .. } => Reason::ModelAccessDenied,
        Refusal::RoleDenied { .. } => Reason::RoleDenied,
        Refusal::AccountSuspended => Reason::AccountSuspended,
        Refusal::ModelNotAvailable { .. } => Reason::ModelNotAvailable,
        Refusal::SlowReader { .. } => Reason::SlowReader,
        Refusal::Invalid(_) | Refusal::OutputOverCap { .. } | Refusal::CostTooLarge => {
            Reason::InvalidRequest
        }
        Refusal::TooLong { .. } => Reason::PromptTooLong,
        Refusal::Unsupported { .. } => Reason::UnsupportedFeature,
        Refusal::BalanceTooLow { .. } => Reason::BalanceTooLow,
        Refusal::BalanceInFlight { .. } => Reason::BalanceInFlight,
        Refusal::KeyCap { .. } => Reason::KeySpendCap,
        Refusal::BillsTooFast { .. } => Reason::BillLimit,
        Refusal::RequestLimit { .. } => Reason::RequestLimit,
        Refusal::GrammarWorkLimit { .. } => Reason::GrammarWorkLimit,
        Refusal::ConcurrencyLimit { .. } => Reason::ConcurrencyLimit,
        Refusal::TokenLimit { .. } => Reason::TokenLimit,
        Refusal::QueueFull { .. } => Reason::QueueFull,
        Refusal::Draining { .. } => Reason::Draining,
        Refusal::LimitsUnavailable { .. } => Reason::LimitsUnavailable,
        Refusal::LedgerQueueFull { .. } => Reason::LedgerQueueFull,
        Refusal::StoreUnavailable { .. } => Reason::StoreUnavailable,
        Refusal::Internal(_) => Reason::InternalError,
    }
}

const INTERNAL: &str = "an internal error; the request's id is in the header x-request-id";

/// The words for the caller.
fn message(refusal: &Refusal, names: ParamNames) -> Cow<'static, str> {
    let words = match refusal {
        Refusal::InvalidApiKey => "no valid API key: send it as `Authorization: Bearer sk_…`",
        Refusal::AccountSuspended => "the account is suspended",
        Refusal::CostTooLarge => "the cost of this many tokens is beyond what can be counted",
        Refusal::BalanceInFlight { .. } => {
            "open requests hold the balance; try again when one of them has ended"
        }
        Refusal::RequestLimit { .. } => "rate limit exceeded: too many requests per minute",
        Refusal::GrammarWorkLimit { .. } => {
            "rate limit exceeded: the schemas and grammars of this account take too much work; send fewer or simpler ones, or \
             wait as long as Retry-After says"
        }
        Refusal::TokenLimit { .. } => "rate limit exceeded: too many tokens per minute",
        Refusal::QueueFull { .. }
        | Refusal::Draining { .. }
        | Refusal::LimitsUnavailable { .. }
        | Refusal::LedgerQueueFull { .. } => "the service is overloaded; try again later",
        Refusal::StoreUnavailable { .. } => {
            "the service can't read or write its accounts at the moment; try again later"
        }
        Refusal::Internal(_) => INTERNAL,
        Refusal::Invalid(invalid) => return invalid.message.clone().into(),
        Refusal::ModelNotFound { model } => return format!("model not found: {model}").into(),
        Refusal::ModelAccessDenied { model } => {
            return format!("this key may not use model {model}").into();
        }
        Refusal::RoleDenied { role } => {
            return format!("a key with the role {} can't be used for this", role.name()).into();
        }
        Refusal::ModelNotAvailable { model } | Refusal::SlowReader { model } => {
            return format!("model {model} is not available at the moment").into();
        }
        Refusal::Unsupported { model, feature } => return unsupported(model, feature).into(),
        Refusal::OutputOverCap { asked, cap } => {
            let name = names.output_tokens;
            return format!("{name} (current value: {asked}) must be between 0 and {cap}").into();
        }
        Refusal::BalanceTooLow { affordable } => {
            return format!(
                "the balance is too low for this request: it covers {affordable} output tokens"
            )
            .into();
        }
        Refusal::BillsTooFast { .. } => {
            return format!("at most {BILLS_PER_MINUTE} bills a minute can be listed").into();
        }
        Refusal::ConcurrencyLimit { limit, .. } => {
            return format!("rate limit exceeded: more than {limit} concurrent requests").into();
        }
        &Refusal::TooLong {
            context,
            prompt,
            requested,
        } => return too_long(context, prompt, requested).into(),
        &Refusal::KeyCap {
            period,
            affordable,
            retry_after,
        } => return key_cap(period, affordable, retry_after).into(),
    };
    words.into()
}

/// The error with the parameter and the metadata of the refusal.
fn detailed(error: ApiError, refusal: Refusal, names: ParamNames) -> ApiError {
    const REASON: &str = "reason";
    const AFFORDABLE: &str = "affordable_output_tokens";
    match refusal {
        Refusal::Invalid(invalid) => error.param(invalid.param),
        Refusal::TooLong { .. } => error.param(names.prompt),
        Refusal::OutputOverCap { .. } | Refusal::CostTooLarge => error.param(names.output_tokens),
        Refusal::ModelNotFound { .. }
        | Refusal::ModelAccessDenied { .. }
        | Refusal::Unsupported { .. } => error.param("model"),
        Refusal::RoleDenied { .. } => error.metadata(REASON, "role"),
        Refusal::AccountSuspended => error.metadata(REASON, "account_suspended"),
        Refusal::BalanceTooLow { affordable } => error
            .metadata(REASON, "balance_too_low")
            .metadata(AFFORDABLE, affordable.to_string()),
        Refusal::BalanceInFlight { .. } => error.metadata(REASON, "in_flight"),
        Refusal::KeyCap {
            period, affordable, ..
        } => error
            .metadata(REASON, "key_spend_cap")
            .metadata("period", period.to_string())
            .metadata(AFFORDABLE, affordable.to_string()),
        Refusal::InvalidApiKey
        | Refusal::ModelNotAvailable { .. }
        | Refusal::SlowReader { .. }
        | Refusal::BillsTooFast { .. }
        | Refusal::RequestLimit { .. }
        | Refusal::GrammarWorkLimit { .. }
        | Refusal::ConcurrencyLimit { .. }
        | Refusal::TokenLimit { .. }
        | Refusal::QueueFull { .. }
        | Refusal::Draining { .. }
        | Refusal::LimitsUnavailable { .. }
        | Refusal::LedgerQueueFull { .. }
        | Refusal::StoreUnavailable { .. }
        | Refusal::Internal(_) => error,
    }
}

pub(super) fn unsupported(model: &str, feature: &str) -> String {
    format!("model: {model} does not support feature: {feature}")
}

fn key_cap(period: CapPeriod, affordable: u64, retry_after: Option<Duration>) -> String {
    let cap = match period {
        CapPeriod::Total => "spend cap",
        CapPeriod::Month => "spend cap of this month",
        CapPeriod::Day => "spend cap of this day",
    };
    let why = match retry_after {
        Some(_) => "this key's open requests hold what its",
        None => "this request costs more than what this key's",
    };
    format!("{why} {cap} leaves; that covers {affordable} output tokens")
}

/// The message begins like OpenAI's, since clients look for these words.
fn too_long(context: u32, prompt: PromptSize, requested: Option<u32>) -> String {
    match requested {
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
    }
}
