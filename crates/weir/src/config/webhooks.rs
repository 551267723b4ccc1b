//! `[[webhooks]]`: the receivers of events.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use weir_accounts::EventKind;
use weir_webhooks::{SigningKey, Target, Webhook};

use super::types::{event_schema, events, parsed};

/// The most webhooks: each has a worker of its own, and an event is stored once for each webhook that wants it.
const WEBHOOKS_MAX: usize = 16;
const NAME_MAX: usize = 64;

/// A receiver of events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[schemars(extend("x-live" = true))]
pub(crate) struct WebhookSection {
    /// Name of the webhook in the log and in the database. Required.
    #[schemars(extend("x-needs" = "what it is called in the log"))]
    pub(crate) name: String,
    /// The address to which events are posted. Required. It must not contain a user name, and its host must be written
    /// so that it can't be misread.
    #[serde(deserialize_with = "parsed")]
    #[schemars(
        with = "String",
        extend("x-needs" = "an address", "x-secret" = true, "x-expected" = "an https:// or http:// address")
    )]
    pub(crate) url: Target,
    /// The secret that signs events, as Standard Webhooks says: `echo whsec_$(openssl rand -base64 32)` makes one.
    /// Required; best given by the environment variable.
    #[serde(deserialize_with = "parsed")]
    #[schemars(
        with = "String",
        extend(
            "x-needs" = "a secret that signs what is sent",
            "x-secret" = true,
            "x-expected" = "whsec_ and 24 to 64 random bytes in base64"
        )
    )]
    pub(crate) secret: SigningKey,
    /// The events that this webhook gets. Absent: all.
    #[serde(default = "all_events", deserialize_with = "events")]
    #[schemars(schema_with = "event_schema")]
    pub(crate) events: Vec<EventKind>,
    /// Whether the webhook's address may be outside of the public Internet: on this machine, or in a private network.
    #[serde(default)]
    pub(crate) allow_private: bool,
    /// Time for one attempt, from the resolution of the host name to the status of the answer.
    #[schemars(range(min = 1, max = 60))]
    #[serde(default = "ten")]
    pub(crate) timeout_seconds: u64,
    /// An event that isn't delivered after this time is given up, and logged.
    #[schemars(range(min = 1, max = 720))]
    #[serde(default = "three_days")]
    pub(crate) give_up_hours: u64,
}

fn all_events() -> Vec<EventKind> {
    EventKind::ALL.to_vec()
}

fn ten() -> u64 {
    10
}

fn three_days() -> u64 {
    72
}

impl WebhookSection {
    pub(crate) fn webhook(&self) -> Webhook {
        Webhook {
            name: self.name.clone(),
            target: self.url.clone(),
            key: self.secret.clone(),
            kinds: self.events.clone(),
            allow_private: self.allow_private,
            timeout: Duration::from_secs(self.timeout_seconds),
            give_up_after: Duration::from_secs(self.give_up_hours * 3600),
        }
    }
}

pub(super) fn check(webhooks: &[WebhookSection], problem: &mut dyn FnMut(&str, String)) {
    let count = webhooks.len();
    if count > WEBHOOKS_MAX {
        let message = format!("there may be {WEBHOOKS_MAX} webhooks, not {count}");
        problem(&format!("webhooks[{WEBHOOKS_MAX}]"), message);
    }
    for (index, webhook) in webhooks.iter().enumerate() {
        let name = &webhook.name;
        let path = format!("webhooks[{index}].name");
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.len() > NAME_MAX || !name.bytes().all(allowed) {
            let message = format!("a webhook's name has 1 to {NAME_MAX} letters, digits and . _ -");
            problem(&path, message);
        }
        if webhooks[..index].iter().any(|other| other.name == *name) {
            let message = format!("there is a webhook `{name}` already");
            problem(&path, message);
        }
    }
}
