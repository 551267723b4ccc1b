//! `weir status`: whether the config's server runs, which models it serves, and what its database contains.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use weir_accounts::{Account, Nanos, Role};

use super::accounts;
use crate::cli::Json;
use crate::config::Config;
use crate::output::{self, exact};
use crate::{lifecycle, wire};

/// The longest wait for the server: one that takes longer to answer isn't well.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Prints the status. `Ok(false)` if the server isn't ready.
pub(crate) async fn status(config: &Config, output: Json, now: Timestamp) -> anyhow::Result<bool> {
    let url = lifecycle::url(config.listen);
    let server = Server::look(&url).await;
    let mut status = Map::new();
    let mut add = |name: &str, value: Value| status.insert(name.to_owned(), value);
    add("version", env!("CARGO_PKG_VERSION").into());
    add("url", url.into());
    add("server", server.state.into());
    let models: Vec<_> = server.models.iter().map(Model::json).collect();
    add("models", models.into());
    for (name, value) in database(config, now).await {
        add(name, value);
    }
    let status = Value::Object(status);
    let printed = match output.json {
        true => output::one(output, &status, ""),
        false => {
            let mut shown = status;
            let models: Vec<_> = server.models.iter().map(Model::shown).collect();
            shown["models"] = models.join(", ").into();
            output::fields(output, &shown)
        }
    };
    output::unless_closed(printed)?;
    Ok(server.state == READY)
}

const READY: &str = "ready";

/// The state of the server, from its own answers.
struct Server {
    state: &'static str,
    models: Vec<Model>,
}

impl Server {
    async fn look(url: &str) -> Self {
        let get = async |path: &str| {
            let client = Client::builder().timeout(TIMEOUT).build().ok()?;
            client.get(format!("{url}{path}")).send().await.ok()
        };
        let state = match get("/ready").await.map(|answer| answer.status()) {
            None => "not running",
            Some(StatusCode::OK) => READY,
            Some(_) => "not ready",
        };
        let models = match get("/v1/models").await {
            Some(answer) => answer
                .json()
                .await
                .map_or(Vec::new(), |list: List| list.data),
            None => Vec::new(),
        };
        Server { state, models }
    }
}

#[derive(Deserialize)]
struct List {
    data: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    id: String,
    status: u8,
}

impl Model {
    fn is_available(&self) -> bool {
        self.status == 1
    }

    fn json(&self) -> Value {
        json!({"id": self.id, "available": self.is_available()})
    }

    fn shown(&self) -> String {
        match self.is_available() {
            true => self.id.clone(),
            false => format!("{} (not available)", self.id),
        }
    }
}

async fn database(config: &Config, now: Timestamp) -> Vec<(&'static str, Value)> {
    let options = wire::options(config, Role::Tool);
    let place = ("database", Value::from(options.database.to_string()));
    let read = async {
        let opened = accounts::open(options, false, now).await?;
        let found = opened.accounts().await;
        opened.close().await;
        anyhow::Ok(found?)
    };
    match Box::pin(read).await {
        Ok(mut found) => {
            found.retain(|account| account.deleted_at.is_none());
            let sum = |amount: fn(&Account) -> Nanos| {
                let mut amounts = found.iter().map(amount);
                let sum = amounts.try_fold(Nanos::ZERO, Nanos::checked_add);
                sum.map_or(Value::Null, exact)
            };
            vec![
                place,
                ("accounts", found.len().into()),
                ("balance", sum(|account| account.posted)),
                ("held", sum(|account| account.held)),
            ]
        }
        Err(error) => vec![place, ("database_error", format!("{error:#}").into())],
    }
}
