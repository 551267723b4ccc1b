//! The outbox: events that webhooks have not received yet. A delivery is claimed for some time, attempted, and then
//! deleted or put off. If the process that claimed it dies, its claim runs out, and another process tries.

use std::convert::Infallible;

use jiff::Timestamp;

use crate::clock::CLOCK_GAP_MAX;
use crate::db::{Connection, StoreError, values};
use crate::events::EventKind;
use crate::writer::{Operation, TxResult};

/// A webhook of the config, and the kinds of events that it receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    pub webhook: String,
    pub kinds: Vec<EventKind>,
}

/// An event on its way to a webhook, claimed by the process that has this value.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivery {
    id: i64,
    /// The event's id: the same at every attempt.
    pub event: String,
    pub kind: String,
    /// The event as JSON.
    pub body: String,
    /// The number of attempts, this one included.
    pub attempts: u32,
    pub created_at: Timestamp,
}

/// The latest plausible time of an attempt: a delivery with a later one was put off by a clock that was ahead, and is
/// due.
pub(crate) fn latest(now: Timestamp) -> Timestamp {
    now.saturating_add(CLOCK_GAP_MAX).unwrap_or(Timestamp::MAX)
}

#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(crate) webhooks: Vec<Subscription>,
}

impl Operation for Subscribe {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<(), Infallible> {
        let mut wanted = Vec::new();
        for Subscription { webhook, kinds } in &self.webhooks {
            wanted.extend(kinds.iter().map(|kind| (webhook.as_str(), kind.name())));
        }
        let sql = "SELECT name, kind FROM webhook ORDER BY name, kind";
        for row in connection.rows(sql, &[]).await? {
            let (name, kind) = (row.text(0)?, row.text(1)?);
            if !wanted.contains(&(name.as_str(), kind.as_str())) {
                let sql = "DELETE FROM webhook WHERE name = $1 AND kind = $2";
                let values = values![name.as_str(), kind.as_str()];
                connection.execute(sql, values).await?;
            }
        }
        for (name, kind) in wanted {
            let sql = "INSERT INTO webhook (name, kind) VALUES ($1, $2) ON CONFLICT (name, kind) DO NOTHING";
            connection.execute(sql, values![name, kind]).await?;
        }
        let sql = "DELETE FROM delivery WHERE webhook NOT IN (SELECT name FROM webhook)";
        connection.execute(sql, &[]).await?;
        Ok(Ok(()))
    }

    fn answer(self, outcome: TxResult<(), Infallible>) -> Result<(), StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) webhook: String,
    pub(crate) now: Timestamp,
    pub(crate) until: Timestamp,
}

impl Operation for Claim {
    type Done = Option<Delivery>;
    type Refused = Infallible;
    type Answer = Result<Option<Delivery>, StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Option<Delivery>, Infallible> {
        // The outer condition is for PostgreSQL, where another node may claim the same delivery at this moment.
        let row = connection
            .row(
                "UPDATE delivery SET attempts = attempts + 1, next_at = $3
                 WHERE id = (SELECT MIN(id) FROM delivery WHERE webhook = $1 AND (next_at <= $2 OR next_at > $4))
                     AND (next_at <= $2 OR next_at > $4)
                 RETURNING id, event, kind, body, attempts, created_at",
                values![self.webhook.as_str(), self.now, self.until, latest(self.now)],
            )
            .await?;
        let Some(row) = row else {
            return Ok(Ok(None));
        };
        Ok(Ok(Some(Delivery {
            id: row.integer(0)?,
            event: row.text(1)?,
            kind: row.text(2)?,
            body: row.text(3)?,
            attempts: u32::try_from(row.integer(4)?).unwrap_or(u32::MAX),
            created_at: row.time(5)?,
        })))
    }

    fn answer(
        self,
        outcome: TxResult<Option<Delivery>, Infallible>,
    ) -> Result<Option<Delivery>, StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

#[derive(Debug)]
pub(crate) struct Release {
    pub(crate) delivery: Delivery,
    /// `None` deletes the delivery.
    pub(crate) next_at: Option<Timestamp>,
}

impl Operation for Release {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    /// The number of attempts tells whether the delivery was claimed again since.
    async fn apply(&self, connection: &mut Connection) -> TxResult<(), Infallible> {
        let (id, attempts) = (self.delivery.id, i64::from(self.delivery.attempts));
        match self.next_at {
            None => {
                let sql = "DELETE FROM delivery WHERE id = $1 AND attempts = $2";
                connection.execute(sql, values![id, attempts]).await?;
            }
            Some(next_at) => {
                let sql = "UPDATE delivery SET next_at = $3 WHERE id = $1 AND attempts = $2";
                connection
                    .execute(sql, values![id, attempts, next_at])
                    .await?;
            }
        }
        Ok(Ok(()))
    }

    fn answer(self, outcome: TxResult<(), Infallible>) -> Result<(), StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}

#[derive(Debug)]
pub(crate) struct GiveUp {
    pub(crate) webhook: String,
    pub(crate) until: Timestamp,
}

impl Operation for GiveUp {
    type Done = usize;
    type Refused = Infallible;
    type Answer = Result<usize, StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<usize, Infallible> {
        let sql = "DELETE FROM delivery WHERE webhook = $1 AND created_at <= $2 RETURNING id";
        let values = values![self.webhook.as_str(), self.until];
        Ok(Ok(connection.rows(sql, values).await?.len()))
    }

    fn answer(self, outcome: TxResult<usize, Infallible>) -> Result<usize, StoreError> {
        outcome.map(|done| done.unwrap_or_else(|never| match never {}))
    }
}
