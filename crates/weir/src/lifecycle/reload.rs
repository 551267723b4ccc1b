//! A reload: reads the config again, and replaces what may change while the server runs, as a whole or not at all.

use tokio::sync::mpsc;
use weir_server::{App, ReloadAnswer, Reloaded};
use weir_webhooks::Webhooks;

use super::has_models;
use super::log::Logging;
use super::signals::{Signals, Wanted};
use crate::config::changes::{Changes, InForce};
use crate::config::{Invalid, Loaded};
use crate::wire;

/// The running server's parts that a reload changes.
pub(super) struct Reloader<'a> {
    /// Loads the config as the start did.
    pub(super) load: &'a dyn Fn() -> Result<Loaded, Invalid>,
    pub(super) in_force: InForce,
    pub(super) app: App,
    pub(super) webhooks: &'a Webhooks,
    pub(super) logging: &'a Logging,
}

impl Reloader<'_> {
    /// Reloads the config at each SIGHUP and each request, until a signal to stop comes. Returns that signal's name.
    pub(super) async fn until_stopped(
        mut self,
        signals: &mut Signals,
        mut requests: mpsc::Receiver<ReloadAnswer>,
    ) -> &'static str {
        loop {
            let answer = tokio::select! {
                wanted = signals.next() => match wanted {
                    Wanted::Stop(name) => return name,
                    Wanted::Reload => None,
                },
                // The app in `self` can send requests, so the channel is open.
                request = requests.recv() => request,
            };
            let result = tokio::select! {
                name = signals.stop() => return name,
                result = Box::pin(self.reload()) => result,
            };
            tell(&result);
            if let Some(answer) = answer {
                // The client may have hung up.
                let _ = answer.send(result.map_err(|Invalid(problems)| problems));
            }
        }
    }

    async fn reload(&mut self) -> Result<Reloaded, Invalid> {
        let loaded = (self.load)()?;
        has_models(&loaded.config)?;
        let new = InForce::new(&loaded);
        let Changes { live, restart } = self.in_force.changes(&new);
        let Loaded {
            config, warnings, ..
        } = loaded;
        if live.iter().any(|name| name.starts_with("webhooks[")) {
            let replaced = self.webhooks.replace(config.webhooks()).await;
            replaced.map_err(|error| Invalid::from(format!("webhooks: {error}")))?;
        }
        // Nothing fails from here on.
        let gateway = &self.app.gateway;
        let catalog = wire::catalog(&config, &gateway.catalog());
        let limits = &config.limits;
        gateway.replace_terms(catalog, limits.key(), limits.tier_rules());
        self.app.cors().allow(&config.cors_origins());
        if live.iter().any(|name| name == "log.filter") {
            self.logging.filter(&config.log.filter.0);
        }
        self.in_force.apply(new);
        Ok(Reloaded {
            changed: live,
            restart,
            warnings,
        })
    }
}

fn tell(result: &Result<Reloaded, Invalid>) {
    match result {
        Ok(Reloaded {
            changed,
            restart,
            warnings,
        }) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!(?changed, ?restart, "the config was reloaded");
        }
        Err(Invalid(problems)) => {
            for problem in problems {
                tracing::error!("{problem}");
            }
            tracing::error!("the config is invalid, and the old one stays");
        }
    }
}
