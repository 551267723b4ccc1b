//! `[[webhooks]]`: the receivers of events.

use std::time::Duration;

use weir_accounts::EventKind;
use weir_webhooks::{SigningKey, Target, Webhook};

use super::Reader;
use super::settings::Value;

/// The most webhooks: each has a worker of its own, and an event is stored once for each webhook that wants it.
const WEBHOOKS_MAX: usize = 16;
const NAME_MAX: usize = 64;

impl Reader<'_> {
    pub(super) fn webhooks(&mut self) -> Vec<Webhook> {
        let mut webhooks: Vec<Webhook> = Vec::new();
        let count = self.settings.count("webhooks");
        if count > WEBHOOKS_MAX {
            let message = format!("there may be {WEBHOOKS_MAX} webhooks, not {count}");
            self.entry_problem(&format!("webhooks[{WEBHOOKS_MAX}]"), message);
        }
        for index in 0..count {
            let at = format!("webhooks[{index}]");
            let Some(webhook) = self.webhook(&at) else {
                continue;
            };
            if webhooks.iter().any(|other| other.name == webhook.name) {
                let message = format!("there is a webhook `{}` already", webhook.name);
                self.problem(&format!("{at}.name"), message);
            }
            webhooks.push(webhook);
        }
        webhooks
    }

    /// `None` if a key is missing or wrong, which is then among the problems. Errors don't repeat wrong values: the secret is
    /// one, and the address may hold one.
    fn webhook(&mut self, at: &str) -> Option<Webhook> {
        let name = self.required(at, "name", "what it is called in the log");
        let url = self.required(at, "url", "an address");
        let secret = self.required(at, "secret", "a secret that signs what is sent");
        let (Value::Text(name), Value::Text(url), Value::Text(secret)) = (name?, url?, secret?)
        else {
            unreachable!("values are of their key's kind")
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.len() > NAME_MAX || !name.bytes().all(allowed) {
            let message = format!("a webhook's name has 1 to {NAME_MAX} letters, digits and . _ -");
            self.problem(&format!("{at}.name"), message);
        }
        let target = url.parse::<Target>().map_err(|error| {
            self.problem(&format!("{at}.url"), format!("webhooks[].url: {error}"));
        });
        let key = secret.parse::<SigningKey>().map_err(|error| {
            self.problem(
                &format!("{at}.secret"),
                format!("webhooks[].secret: {error}"),
            );
        });
        let hours = self.whole(&format!("{at}.give_up_hours"));
        Some(Webhook {
            name,
            target: target.ok()?,
            key: key.ok()?,
            kinds: self.kinds(&format!("{at}.events")),
            allow_private: self.value(&format!("{at}.allow_private")) == Some(Value::Flag(true)),
            timeout: self.seconds(&format!("{at}.timeout_seconds")),
            give_up_after: Duration::from_secs(hours.expect("it has a default") * 3600),
        })
    }

    fn kinds(&self, path: &str) -> Vec<EventKind> {
        let Some(Value::Texts(names)) = self.value(path) else {
            return EventKind::ALL.to_vec();
        };
        let named = |kind: &EventKind| names.iter().any(|name| name == kind.name());
        EventKind::ALL.into_iter().filter(named).collect()
    }
}
