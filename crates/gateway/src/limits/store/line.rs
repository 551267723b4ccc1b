//! The connection to the store: one for all requests, or none while it is out of reach.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, RedisError, ServerErrorKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::script::{Call, SCRIPT};
use super::{StoreError, StoreOptions};

/// The store didn't answer in time, or not as a store does. It was noticed and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::limits) struct OutOfReach;

/// Between attempts to reach the store again.
const PAUSE: Duration = Duration::from_millis(500);
/// For a connection to be there; no request waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Line {
    client: Client,
    timeout: Duration,
    /// The store's address, without secrets.
    shown: String,
    link: watch::Sender<Option<Link>>,
    links: AtomicU64,
}

#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    /// The script's name at the store.
    script: Arc<str>,
    /// Of the connections that there were.
    number: u64,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({})", self.shown)
    }
}

impl Line {
    pub(super) fn new(options: &StoreOptions) -> Result<Self, StoreError> {
        // The reason isn't told: it might repeat a password.
        let client = Client::open(options.url.as_str()).map_err(|_| StoreError::Address)?;
        Ok(Line {
            shown: client.get_connection_info().addr().to_string(),
            client,
            timeout: options.timeout,
            link: watch::Sender::new(None),
            links: AtomicU64::new(0),
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.link.borrow().is_some()
    }

    /// Returns when it is, or isn't.
    pub(super) async fn until(&self, up: bool) {
        let mut link = self.link.subscribe();
        // The sender is `self`, so there will be a change.
        let _ = link.wait_for(|link| link.is_some() == up).await;
    }

    /// Runs the script once.
    pub(super) async fn ask(&self, call: &Call) -> Result<Vec<i64>, OutOfReach> {
        let link = self.link()?;
        let answered = tokio::time::timeout(self.timeout, link.ask(call)).await;
        self.or_lose(link.number, answered)
    }

    /// Runs the script for each call, in order.
    pub(super) async fn tell(&self, calls: &[Call]) -> Result<(), OutOfReach> {
        let link = self.link()?;
        let told = tokio::time::timeout(self.timeout, link.tell(calls)).await;
        self.or_lose(link.number, told)
    }

    /// Looks for the store whenever it is out of reach, until `stop`.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let looking = async {
            loop {
                self.until(false).await;
                tokio::time::sleep(PAUSE).await;
                // That it is out of reach was said when that began.
                if let Err(error) = self.connect().await {
                    tracing::debug!(store = self.shown, %error, "the store of the limits is still out of reach");
                }
            }
        };
        stop.run_until_cancelled(looking).await;
    }

    /// Reaches for the store when the node starts; it may come later.
    pub(super) async fn start(&self) {
        if let Err(error) = self.connect().await {
            self.out_of_reach(&error.to_string());
        }
    }

    /// Uses the store from now on, if it can do all that it will have to.
    async fn connect(&self) -> Result<(), RedisError> {
        let link = self.reach().await?;
        self.link.send_replace(Some(link));
        tracing::info!(store = self.shown, "limits are shared");
        Ok(())
    }

    fn out_of_reach(&self, error: &str) {
        tracing::warn!(
            store = self.shown,
            error,
            "the store of the limits is out of reach"
        );
    }

    async fn reach(&self) -> Result<Link, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let mut connection = self
            .client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let script: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(SCRIPT)
            .query_async(&mut connection)
            .await?;
        let link = Link {
            connection,
            script: script.into(),
            number: self.links.fetch_add(1, Ordering::Relaxed),
        };
        // It has to write, too: a replica, a full store or one that is loading can't. And in time.
        match tokio::time::timeout(self.timeout, link.ask(&Call::probe())).await {
            Ok(probed) => probed.map(|_| link),
            Err(_elapsed) => Err((ErrorKind::Io, "it answers too slowly").into()),
        }
    }

    fn link(&self) -> Result<Link, OutOfReach> {
        self.link.borrow().clone().ok_or(OutOfReach)
    }

    /// A failure takes the connection out of use, for all who would come after.
    fn or_lose<T>(
        &self,
        number: u64,
        answered: Result<Result<T, RedisError>, tokio::time::error::Elapsed>,
    ) -> Result<T, OutOfReach> {
        let error = match answered {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => format!("no answer within {:?}", self.timeout),
        };
        // Others may have noticed before, and it may be back already.
        let lost = self
            .link
            .send_if_modified(|link| link.take_if(|link| link.number == number).is_some());
        if lost {
            self.out_of_reach(&error);
        }
        Err(OutOfReach)
    }
}

impl Link {
    async fn ask(&self, call: &Call) -> Result<Vec<i64>, RedisError> {
        let mut connection = self.connection.clone();
        match call
            .by_name(&self.script)
            .query_async(&mut connection)
            .await
        {
            Err(error) if is_unknown_script(&error) => {
                call.in_full().query_async(&mut connection).await
            }
            answered => answered,
        }
    }

    async fn tell(&self, calls: &[Call]) -> Result<(), RedisError> {
        let mut connection = self.connection.clone();
        let mut pipeline = redis::pipe();
        for call in calls {
            pipeline.add_command(call.by_name(&self.script)).ignore();
        }
        match pipeline.exec_async(&mut connection).await {
            // All of them were refused for it, so that none is run twice.
            Err(error) if is_unknown_script(&error) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(SCRIPT);
                load.exec_async(&mut connection).await?;
                pipeline.exec_async(&mut connection).await
            }
            told => told,
        }
    }
}

/// After a restart or `SCRIPT FLUSH` the store has forgotten it.
fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
