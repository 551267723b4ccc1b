//! The life of a request: its caller, its hold, its settlement.

use std::sync::Arc;

use jiff::Timestamp;

use crate::accounts::Accounts;
use crate::db::StoreError;
use crate::ids::AccountId;
use crate::key::caller::{self, Caller, KeyError};
use crate::ledger::ending::EndKind;
use crate::ledger::hold::{Hold, HoldError, NewHold, PendingHold};
use crate::ledger::settle::{End, SettleError};
use crate::ledger::settlement::Settlement;
use crate::ledger::take::Take;
use crate::money::Nanos;
use crate::spill::{Spill, SpillError};
use crate::tokens::Counts;
use crate::writer::Asked;

impl Accounts {
    /// The caller that presents this key. Reads the database each time, so that a revoked key is refused at once.
    pub async fn authenticate(&self, presented: &str, now: Timestamp) -> Result<Caller, KeyError> {
        caller::authenticate(&self.0.readers, &self.0.notices, presented, now).await
    }

    /// Queues a new hold for the writer, without waiting. No output may reach the client before the hold is
    /// [durable](PendingHold::durable).
    pub fn hold(&self, new: NewHold) -> Result<PendingHold, HoldError> {
        let lease = self.0.node.lease();
        let notices = Arc::clone(&self.0.notices);
        let take = Take {
            new,
            lease,
            notices,
        };
        match self.0.writer.ask_in_batch(take) {
            Asked::Queued(answer) => Ok(PendingHold::new(answer)),
            Asked::Full => Err(HoldError::Overloaded),
            Asked::Closed => Err(HoldError::Store(StoreError::closed())),
        }
    }

    /// Notes that a request was refused because the account's balance covers nothing. Webhooks that subscribe to
    /// `balance.exhausted` are told, once per UTC day.
    pub fn note_exhausted(&self, account: &AccountId, now: Timestamp) {
        self.0.notices.exhausted(account, now);
    }

    /// Raises a hold by `more`. On an error the hold keeps its amount.
    pub async fn extend(
        &self,
        hold: &mut Hold,
        more: Nanos,
        now: Timestamp,
    ) -> Result<(), HoldError> {
        let extended = self.0.writer.write(hold.extension(more, now)?).await;
        if let Err(HoldError::BalanceTooLow { .. }) = &extended {
            self.0.notices.exhausted(hold.account(), now);
        }
        hold.extended(extended?);
        Ok(())
    }

    /// Notes the tokens delivered so far, to be charged if this process dies. Written with the next transaction, best
    /// effort.
    pub fn checkpoint(&self, hold: &Hold, counts: Counts, now: Timestamp) {
        hold.note(counts, now);
    }

    /// Keeps what was delivered beside the database, durably: for a checkpoint that waits for the database for too long.
    pub async fn keep_checkpoint(
        &self,
        hold: &Hold,
        counts: Counts,
        now: Timestamp,
    ) -> Result<(), SpillError> {
        hold.keep_checkpoint(counts, now).await
    }

    /// Charges the cost, writes the usage record and frees the rest of the hold, in one durable transaction. Returns
    /// the charge. A hold that had ended before keeps its first result; if another node ended it, the difference is
    /// charged late.
    pub async fn settle(&self, hold: Hold, settlement: Settlement) -> Result<Nanos, SettleError> {
        let Settlement {
            counts,
            outcome,
            source,
            now,
        } = settlement;
        self.0
            .writer
            .write_in_batch(End {
                hold,
                kind: EndKind::Settle {
                    counts,
                    outcome,
                    source,
                },
                now,
            })
            .await
    }

    /// Frees the hold of an attempt that never started: no charge, no usage record.
    pub async fn release(&self, hold: Hold, now: Timestamp) -> Result<(), SettleError> {
        self.0
            .writer
            .write_in_batch(End {
                hold,
                kind: EndKind::Release,
                now,
            })
            .await
            .map(|_| ())
    }

    /// Notes beside the database, durably, how a request ended whose settlement failed. The hold must still be settled
    /// as soon as that works; if this process dies before, the next start settles it.
    pub async fn keep(&self, hold: &Hold, settlement: Settlement) -> Result<(), SpillError> {
        hold.keep(settlement).await
    }

    /// The number of requests that are noted beside the database.
    pub fn kept(&self) -> usize {
        self.0.notices.spill().map_or(0, Spill::used)
    }
}
