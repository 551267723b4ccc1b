//! The connection to the store: one that all requests share, or none while the store is unreachable.

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

/// The store didn't answer in time, or with an error. The failure is logged already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::limits) struct OutOfReach;

/// Pause between two attempts to connect again.
const PAUSE: Duration = Duration::from_millis(500);
/// Time limit for connecting. No request waits for it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Connection {
    client: Client,
    timeout: Duration,
    /// The store's address, without user and password.
    shown: String,
    link: watch::Sender<Option<Link>>,
    links: AtomicU64,
}

#[derive(Clone)]
struct Link {
    connection: MultiplexedConnection,
    /// The SHA-1 by which the store knows the script.
    script: Arc<str>,
    /// Consecutive number of the connection in this process.
    number: u64,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.shown)
    }
}

impl Connection {
    pub(super) fn new(options: &StoreOptions) -> Result<Self, StoreError> {
        // The error isn't passed on: its text might repeat a password.
        let client = Client::open(options.url.as_str()).map_err(|_| StoreError::Address)?;
        Ok(Connection {
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

    /// Waits until the store is reachable (`up`) or unreachable (`!up`).
    pub(super) async fn until(&self, up: bool) {
        let mut link = self.link.subscribe();
        // The sender is in `self`, so the channel can't close while this waits.
        let _ = link.wait_for(|link| link.is_some() == up).await;
    }

    /// Runs the script once and returns its reply.
    pub(super) async fn ask(&self, call: &Call) -> Result<Vec<i64>, OutOfReach> {
        let link = self.link()?;
        let answered = tokio::time::timeout(self.timeout, link.ask(call)).await;
        self.or_lose(link.number, answered)
    }

    /// Runs the script for each call, in order, and ignores the replies.
    pub(super) async fn tell(&self, calls: &[Call]) -> Result<(), OutOfReach> {
        let link = self.link()?;
        let release = tokio::time::timeout(self.timeout, link.tell(calls)).await;
        self.or_lose(link.number, release)
    }

    /// Reconnects to the store whenever it is unreachable, until `stop`.
    pub(super) async fn keep(self: Arc<Self>, stop: CancellationToken) {
        let looking = async {
            loop {
                self.until(false).await;
                tokio::time::sleep(PAUSE).await;
                // The failure was logged when the store became unreachable.
                if let Err(error) = self.connect().await {
                    tracing::debug!(store = self.shown, %error, "the store of the limits is still out of reach");
                }
            }
        };
        stop.run_until_cancelled(looking).await;
    }

    /// Connects to the store when the node starts. If that fails, [`Connection::keep`] tries again.
    pub(super) async fn start(&self) {
        if let Err(error) = self.connect().await {
            self.out_of_reach(&error.to_string());
        }
    }

    /// Connects to the store, and uses the connection if the store can run the script.
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
        // The probe also writes, which a replica, a full store or one that is still loading refuses. It has to answer
        // in time as well.
        match tokio::time::timeout(self.timeout, link.ask(&Call::probe())).await {
            Ok(probed) => probed.map(|_| link),
            Err(_elapsed) => Err((ErrorKind::Io, "it answers too slowly").into()),
        }
    }

    fn link(&self) -> Result<Link, OutOfReach> {
        self.link.borrow().clone().ok_or(OutOfReach)
    }

    /// Takes a connection that failed out of use, so that later requests don't wait for it.
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
        // Another request may have noticed the failure before, and a new connection may be in use already.
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
            // The missing script made every call of the pipeline fail, so that none is run twice.
            Err(error) if is_unknown_script(&error) => {
                let mut load = redis::cmd("SCRIPT");
                load.arg("LOAD").arg(SCRIPT);
                load.exec_async(&mut connection).await?;
                pipeline.exec_async(&mut connection).await
            }
            release => release,
        }
    }
}

/// Whether the store doesn't know the script: it forgets scripts at a restart or `SCRIPT FLUSH`.
fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
