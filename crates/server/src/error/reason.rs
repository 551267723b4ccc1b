//! The table of all reasons for errors.

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong, or beyond what its key, account or address may have.
    Caller,
    /// The service has no room at the moment: the same request may succeed later.
    Load,
    /// The service, its database or a model failed.
    Server,
}

impl Fault {
    /// The name in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Caller => "caller",
            Fault::Load => "load",
            Fault::Server => "server",
        }
    }
}

/// A reason in the log and in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The name in the log. It is unique, and stays the same in all versions.
    pub name: &'static str,
    pub fault: Fault,
    pub status: u16,
    /// Novita's `reason`. Several reasons may have the same.
    pub reason: &'static str,
    /// OpenAI's `type`.
    pub kind: &'static str,
    /// OpenAI's `code`.
    pub code: Option<&'static str>,
}

/// Makes the enum and its table from one list.
macro_rules! reasons {
    ($($fault:ident { $($reason:ident => ($name:literal, $status:literal, $novita:literal, $kind:literal, $code:expr),)* })*) => {
        /// The reason for an error, from where it is decided to where it is logged.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Reason {
            $($($reason,)*)*
        }

        impl Reason {
            pub const ALL: &[Reason] = &[$($(Reason::$reason,)*)*];

            pub const fn row(self) -> Row {
                match self {
                    $($(Reason::$reason => Row {
                        name: $name,
                        fault: Fault::$fault,
                        status: $status,
                        reason: $novita,
                        kind: $kind,
                        code: $code,
                    },)*)*
                }
            }
        }
    };
}

reasons! {
    Caller {
        InvalidRequest => ("invalid_request", 400, "INVALID_REQUEST_BODY", "invalid_request_error", None),
        PromptTooLong => ("prompt_too_long", 400, "INVALID_REQUEST_BODY", "invalid_request_error", Some("context_length_exceeded")),
        UnsupportedFeature => ("unsupported_feature", 400, "INVALID_REQUEST_BODY", "invalid_request_error", Some("unsupported_feature")),
        InvalidBillCycle => ("invalid_bill_cycle", 400, "INVALID_BILL_CYCLE", "invalid_request_error", None),
        InvalidProductCategory => ("invalid_product_category", 400, "INVALID_PRODUCT_CATEGORY", "invalid_request_error", None),
        InvalidApiKey => ("invalid_api_key", 401, "INVALID_API_KEY", "authentication_error", Some("invalid_api_key")),
        BalanceTooLow => ("balance_too_low", 403, "NOT_ENOUGH_BALANCE", "insufficient_quota", Some("insufficient_balance")),
        BalanceInFlight => ("balance_in_flight", 403, "NOT_ENOUGH_BALANCE", "insufficient_quota", Some("insufficient_balance")),
        KeySpendCap => ("key_spend_cap", 403, "NOT_ENOUGH_BALANCE", "insufficient_quota", Some("insufficient_balance")),
        ModelAccessDenied => ("model_access_denied", 403, "ACCESS_DENIED", "permission_error", Some("model_access_denied")),
        RoleDenied => ("role_denied", 403, "ACCESS_DENIED", "permission_error", Some("insufficient_permissions")),
        AccountSuspended => ("account_suspended", 403, "ACCESS_DENIED", "permission_error", Some("account_suspended")),
        ModelNotFound => ("model_not_found", 404, "MODEL_NOT_FOUND", "invalid_request_error", Some("model_not_found")),
        NotFound => ("not_found", 404, "NOT_FOUND", "invalid_request_error", Some("not_found")),
        MethodNotAllowed => ("method_not_allowed", 405, "METHOD_NOT_ALLOWED", "invalid_request_error", Some("method_not_allowed")),
        NameTaken => ("name_taken", 409, "NAME_TAKEN", "invalid_request_error", Some("name_taken")),
        IdempotencyConflict => ("idempotency_conflict", 409, "IDEMPOTENCY_CONFLICT", "invalid_request_error", Some("idempotency_conflict")),
        KeyMade => ("key_made", 409, "KEY_MADE", "invalid_request_error", Some("key_made")),
        OwnAccount => ("own_account", 409, "OWN_ACCOUNT", "invalid_request_error", Some("own_account")),
        AccountNotEmpty => ("account_not_empty", 409, "ACCOUNT_NOT_EMPTY", "invalid_request_error", Some("account_not_empty")),
        ConfigInvalid => ("config_invalid", 409, "CONFIG_INVALID", "invalid_request_error", Some("config_invalid")),
        RequestTooLarge => ("request_too_large", 413, "REQUEST_TOO_LARGE", "invalid_request_error", Some("request_too_large")),
        BillLimit => ("bill_limit", 429, "LIST_BILL_TOO_FAST", "requests", Some("rate_limit_exceeded")),
        RequestLimit => ("request_limit", 429, "RATE_LIMIT_EXCEEDED", "requests", Some("rate_limit_exceeded")),
        ConcurrencyLimit => ("concurrency_limit", 429, "RATE_LIMIT_EXCEEDED", "requests", Some("rate_limit_exceeded")),
        GrammarWorkLimit => ("grammar_work_limit", 429, "RATE_LIMIT_EXCEEDED", "requests", Some("rate_limit_exceeded")),
        KeyBytesInFlight => ("key_bytes_in_flight", 429, "RATE_LIMIT_EXCEEDED", "requests", Some("rate_limit_exceeded")),
        AddressConnections => ("address_connections", 429, "RATE_LIMIT_EXCEEDED", "requests", Some("rate_limit_exceeded")),
        TokenLimit => ("token_limit", 429, "TOKEN_LIMIT_EXCEEDED", "tokens", Some("rate_limit_exceeded")),
        SlowReader => ("slow_reader", 500, "MODEL_NOT_AVAILABLE", "server_error", Some("model_not_available")),
        NotImplemented => ("not_implemented", 501, "NOT_IMPLEMENTED", "invalid_request_error", Some("not_implemented")),
    }
    Load {
        QueueFull => ("queue_full", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
        LedgerQueueFull => ("ledger_queue_full", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
        BytesInFlight => ("bytes_in_flight", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
        ConnectionsBusy => ("connections_busy", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
        Draining => ("draining", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
    }
    Server {
        ModelNotAvailable => ("model_not_available", 500, "MODEL_NOT_AVAILABLE", "server_error", Some("model_not_available")),
        InternalError => ("internal_error", 500, "INTERNAL_ERROR", "server_error", Some("internal_error")),
        StoreUnavailable => ("store_unavailable", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
        LimitsUnavailable => ("limits_unavailable", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
        NotReady => ("not_ready", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
        Stopped => ("stopped", 503, "SERVICE_NOT_AVAILABLE", "server_error", Some("overloaded")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCS: &str = include_str!("../../../../docs/operations.md");

    #[test]
    fn operators_find_every_reason_in_the_docs() {
        let mut listed: Vec<(&str, &str)> = Vec::new();
        for row in DOCS.lines() {
            let mut names = row.split('`').skip(1).step_by(2);
            let faults = [Fault::Caller, Fault::Load, Fault::Server].map(Fault::name);
            let fault = names.next().filter(|name| faults.contains(name));
            if let (Some(fault), true) = (fault, row.starts_with("| `")) {
                listed.extend(names.map(|name| (fault, name)));
            }
        }
        let mut table: Vec<_> = Reason::ALL
            .iter()
            .map(|reason| (reason.row().fault.name(), reason.row().name))
            .collect();
        listed.sort_unstable();
        table.sort_unstable();
        assert_eq!(listed, table, "docs/operations.md and this table");
    }
}
