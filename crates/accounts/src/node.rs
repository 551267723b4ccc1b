//! The processes that serve from one database: their rows in `node`, which each renews, and at which the others look.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::db::{Connection, StoreError, values};
use crate::ids::random;
use crate::lease::{Judge, Lease, Mark, Uptime, renew_every};
use crate::options::Options;

/// Random characters that tell a process from an earlier one of the same node.
const NAME_LEN: usize = 8;

/// This process among those that serve from one database.
#[derive(Debug)]
pub(crate) struct Node {
    prefix: String,
    silence: Duration,
    /// How long a transaction may take.
    timeout: Duration,
    uptime: Uptime,
    /// Whether other processes may serve from the same database.
    shared: bool,
    lease: Mutex<Arc<Lease>>,
    judge: Mutex<Judge>,
}

impl Node {
    pub(crate) fn new(options: &Options, shared: bool) -> Self {
        let Options {
            node,
            node_silence: silence,
            timeout,
            uptime,
            ..
        } = options;
        let first = name(node);
        let lease = match shared {
            true => Lease::new(first, uptime.clone(), *timeout),
            false => Lease::endless(first, uptime.clone()),
        };
        Node {
            prefix: node.clone(),
            silence: *silence,
            timeout: *timeout,
            uptime: uptime.clone(),
            shared,
            lease: Mutex::new(Arc::new(lease)),
            judge: Mutex::new(Judge::new(*silence)),
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// The lease under which new holds are made.
    pub(crate) fn lease(&self) -> Arc<Lease> {
        let lease = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&lease)
    }

    /// Renews the lease. A process whose row was taken away has lost its holds, and goes on under another name.
    pub(crate) async fn renew(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let lease = self.lease();
        let asked_at = self.uptime.now();
        let now = connection.clock_ms().await?;
        let renewed = connection
            .row(
                "UPDATE node SET beat = beat + 1, seen_at = $2 WHERE name = $1 RETURNING beat",
                values![&*lease.name, now],
            )
            .await?;
        if renewed.is_some() {
            lease.renew(asked_at, self.silence);
            return self.look(connection).await.map(drop);
        }
        lease.lose();
        tracing::error!(
            node = &*lease.name,
            "this node was taken for dead: another one has ended its open requests"
        );
        self.register(connection).await
    }

    /// Inserts a row under a new name, with a new lease.
    pub(crate) async fn register(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let lease = Lease::new(name(&self.prefix), self.uptime.clone(), self.timeout);
        let asked_at = self.uptime.now();
        let now = connection.clock_ms().await?;
        connection
            .execute(
                "INSERT INTO node (name, started_at, since, seen_at) VALUES ($1, $2, $2, $2)",
                values![&*lease.name, now],
            )
            .await?;
        lease.renew(asked_at, self.silence);
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(lease);
        Ok(())
    }

    /// Looks at the other nodes' rows, and returns those of dead nodes.
    async fn look(&self, connection: &mut Connection) -> Result<Vec<(String, Mark)>, StoreError> {
        let own = self.lease();
        let asked_at = self.uptime.now();
        let sql = "SELECT name, beat, seen_at FROM node WHERE name <> $1";
        let rows = connection.rows(sql, values![&*own.name]).await?;
        let nodes: Result<Vec<_>, StoreError> = rows
            .iter()
            .map(|row| Ok((row.text(0)?, [row.integer(1)?, row.integer(2)?])))
            .collect();
        Ok(self.judge().look(asked_at, self.uptime.now(), nodes?))
    }

    /// Deletes the rows of dead nodes. A node that has renewed its lease meanwhile keeps its row.
    pub(crate) async fn bury(&self, connection: &mut Connection) -> Result<(), StoreError> {
        for (name, [beat, seen_at]) in self.look(connection).await? {
            let sql =
                "DELETE FROM node WHERE name = $1 AND beat = $2 AND seen_at = $3 RETURNING name";
            let buried = connection
                .row(sql, values![name.as_str(), beat, seen_at])
                .await?;
            if buried.is_some() {
                tracing::warn!(node = name, "a node is dead");
            }
        }
        Ok(())
    }

    /// Deletes this process's row: other nodes end the holds that it leaves open.
    async fn leave(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let lease = self.lease();
        lease.lose();
        let sql = "DELETE FROM node WHERE name = $1";
        connection.execute(sql, values![&*lease.name]).await
    }

    fn after_pause(&self) -> Duration {
        let pause = renew_every(self.silence);
        self.uptime.now().saturating_add(pause)
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(prefix: &str) -> Arc<str> {
    format!("{prefix}-{}", random(NAME_LEN)).into()
}

/// The schedule of lease renewals.
#[derive(Debug)]
pub(crate) struct Beat {
    node: Arc<Node>,
    /// When the next renewal is due, by uptime.
    next: Duration,
    /// When to wake the writer for a renewal, by uptime.
    wake: Duration,
}

impl Beat {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let next = node.after_pause();
        Beat {
            node,
            next,
            wake: next,
        }
    }

    /// Whether a renewal is due, by uptime: a node whose machine slept renews its lease before it writes anything else.
    /// After a failed renewal it stays due, and is tried with every transaction.
    pub(crate) fn is_due(&self) -> bool {
        self.node.uptime.now() >= self.next
    }

    /// Waits until a renewal may be due; for ever without a `beat`.
    pub(crate) async fn due(beat: &mut Option<Beat>) {
        match beat {
            Some(beat) => {
                let pause = beat.wake.saturating_sub(beat.node.uptime.now());
                tokio::time::sleep(pause).await;
                beat.wake = beat.node.after_pause();
            }
            None => std::future::pending().await,
        }
    }

    /// Renews the lease if that is due.
    pub(crate) async fn tell(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        if self.is_due() {
            self.node.renew(connection).await?;
            self.next = self.node.after_pause();
            self.wake = self.next;
        }
        Ok(())
    }

    pub(crate) async fn leave(&self, connection: &mut Connection) -> Result<(), StoreError> {
        self.node.leave(connection).await
    }
}
