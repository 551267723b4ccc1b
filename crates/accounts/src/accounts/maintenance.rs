//! Work at the start and now and then: recovery, expiry, and verification.

use std::sync::{Arc, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::accounts::Accounts;
use crate::db::StoreError;
use crate::ledger::promo::ExpirePromo;
use crate::ledger::recover::{Recover, Recovered};
use crate::ledger::replay::{Replay, Replayed};
use crate::ledger::verify;
use crate::options::Role;
use crate::spill::Kept;

impl Accounts {
    /// Run by a server at boot: brings the notes of dead processes into the database, and ends their open holds.
    pub async fn recover(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        if self.0.role != Role::Server {
            return Ok(Recovered::default());
        }
        let mut recovered = self.replay().await?;
        let ended = self.end_lost(now).await?;
        recovered.add(ended)?;
        Ok(recovered)
    }

    /// Run about once a minute: ends the holds of nodes that have died since (on PostgreSQL), and books promo credit
    /// that has expired.
    pub async fn expire(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        self.0.writer.write(ExpirePromo { now }).await?;
        if self.0.node.is_shared() {
            return self.end_lost(now).await;
        }
        Ok(Recovered::default())
    }

    async fn end_lost(&self, now: Timestamp) -> Result<Recovered, StoreError> {
        let node = Arc::clone(&self.0.node);
        self.0.writer.write(Recover { node, now }).await
    }

    fn left(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.0.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn replay(&self) -> Result<Recovered, StoreError> {
        let mut recovered = Recovered::default();
        let left = std::mem::take(&mut *self.left());
        for kept in left {
            let (hold, request) = (kept.hold, kept.request.clone());
            match self.0.writer.write(Replay { kept: kept.clone() }).await {
                Ok(Replayed::Ended(charged)) => recovered.charge(charged)?,
                Ok(Replayed::Unknown) => tracing::error!(
                    request,
                    ?kept,
                    "a request was kept beside the database, which doesn't know it: is the database older?"
                ),
                Err(error) => {
                    self.left().push(kept);
                    return Err(error);
                }
            }
            self.0.notices.ended(hold);
        }
        Ok(recovered)
    }

    /// Recomputes all balances and charges from the entries and names each difference.
    pub async fn verify(&self) -> Result<Vec<String>, StoreError> {
        Box::pin(verify::verify(&self.0.database)).await
    }

    /// The part of [`verify`](Accounts::verify) whose time doesn't grow with the history: balances against their last
    /// transaction, their open holds and their promo credit.
    pub async fn verify_quickly(&self) -> Result<Vec<String>, StoreError> {
        let database = self.0.database.clone();
        let verified = async move { verify::quickly(&mut database.connect().await?).await };
        self.0.database.aside(verified).await
    }
}
