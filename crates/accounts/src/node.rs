//! Processes that serve from one database tell each other that they are alive.
//!
//! Only the database's clock counts, for each node's own may be wrong. A node of which nothing was heard for
//! some time is taken for dead, and another one ends its holds at their last checkpoints. If it wakes up
//! after all, it finds them ended: extending one is refused, settling one changes nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::db::{Connection, StoreError, values};

#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// This process, in holds.
    pub(crate) name: Arc<str>,
    /// A node is dead when nothing was heard of it for so long.
    pub(crate) silence: Duration,
    /// Whether it serves beside others, and tells that it is alive.
    pub(crate) beats: bool,
}

impl Node {
    /// How often a node tells that it is alive: two such notes may be lost.
    fn beat_every(&self) -> Duration {
        self.silence
            .checked_div(3)
            .unwrap_or(self.silence)
            .max(Duration::from_millis(1))
    }

    /// Whoever was heard of after this is alive.
    pub(crate) async fn heard_after(&self, connection: &mut Connection) -> Result<i64, StoreError> {
        let silence = i64::try_from(self.silence.as_millis()).unwrap_or(i64::MAX);
        Ok(connection.clock_ms().await?.saturating_sub(silence))
    }

    pub(crate) async fn beat(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let now = connection.clock_ms().await?;
        let heard_after = self.heard_after(connection).await?;
        connection
            .execute(
                "INSERT INTO node (name, started_at, since, seen_at) VALUES ($1, $2, $2, $2)
                 ON CONFLICT (name) DO UPDATE SET seen_at = $2,
                     since = CASE WHEN node.seen_at > $3 THEN node.since ELSE $2 END",
                values![&*self.name, now, heard_after],
            )
            .await
    }

    /// What it leaves open is nobody's from now on.
    async fn leave(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let name = values![&*self.name];
        connection
            .execute("DELETE FROM node WHERE name = $1", name)
            .await
    }

    /// After an outage of the database nobody was heard of for long, and that says nothing. So only a node
    /// that was heard of for a whole while without a gap tells who is dead. One that serves alone always can.
    pub(crate) async fn can_tell(
        &self,
        connection: &mut Connection,
        heard_after: i64,
    ) -> Result<bool, StoreError> {
        if !self.beats {
            return Ok(true);
        }
        self.beat(connection).await?;
        let name = values![&*self.name];
        let own = connection
            .row("SELECT since FROM node WHERE name = $1", name)
            .await?
            .ok_or_else(|| StoreError::contradiction("a node is forgotten"))?;
        Ok(own.integer(0)? <= heard_after)
    }

    /// Forgets the dead whose holds have all ended.
    pub(crate) async fn bury(
        &self,
        connection: &mut Connection,
        heard_after: i64,
    ) -> Result<(), StoreError> {
        connection
            .execute(
                "DELETE FROM node WHERE seen_at <= $1 AND name <> $2
                     AND NOT EXISTS (SELECT 1 FROM hold WHERE hold.node = node.name AND hold.state = 'open')",
                values![heard_after, &*self.name],
            )
            .await
    }
}

/// When to tell that this node is alive.
#[derive(Debug)]
pub(crate) struct Beat {
    node: Node,
    next: Instant,
    late: bool,
}

impl Beat {
    pub(crate) fn new(node: Node) -> Self {
        let next = next_after(Instant::now(), node.beat_every());
        Beat {
            node,
            next,
            late: false,
        }
    }

    /// Also when the timer has fired and nobody looked yet: a node that slept tells that it is alive before
    /// it writes anything else.
    pub(crate) fn is_due(&self) -> bool {
        self.late || Instant::now() >= self.next
    }

    /// Waits until it is due; for ever without one.
    pub(crate) async fn due(beat: &mut Option<Beat>) {
        match beat {
            Some(beat) => {
                tokio::time::sleep_until(beat.next).await;
                // If it can't be told now, that is tried with every transaction, and after a while again.
                beat.late = true;
                beat.next = next_after(Instant::now(), beat.node.beat_every());
            }
            None => std::future::pending().await,
        }
    }

    /// Tells it if it is due.
    pub(crate) async fn tell(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        if self.is_due() {
            self.node.beat(connection).await?;
            self.late = false;
            self.next = next_after(Instant::now(), self.node.beat_every());
        }
        Ok(())
    }

    pub(crate) async fn leave(&self, connection: &mut Connection) -> Result<(), StoreError> {
        self.node.leave(connection).await
    }
}

fn next_after(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now)
}
