//! Taking a hold for a new request.

use std::sync::Arc;

use crate::db::{Connection, StoreError, values};
use crate::failpoint;
use crate::ids::AccountId;
use crate::key::caller::Caller;
use crate::lease::Lease;
use crate::ledger::batch::{BatchOp, BatchOutcome};
use crate::ledger::hold::{Hold, HoldError, NewHold, Taken};
use crate::ledger::notices::{Doubtful, Notices};
use crate::ledger::reserve::{Reserve, to_held};
use crate::ledger::writes::LedgerWrites;
use crate::ledger::{Posting, post};
use crate::money::Nanos;
use crate::tokens::Price;
use crate::tokens::sql::token_sql;
use crate::writer::{BatchOperation, Operation, TxResult};

#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) new: NewHold,
    pub(crate) lease: Arc<Lease>,
    pub(crate) notices: Arc<Notices>,
}

impl Operation for Take {
    type Done = Taken;
    type Refused = Result<Taken, HoldError>;
    type Answer = Result<Hold, HoldError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Taken, Self::Refused> {
        if self.lease.is_lost() {
            return Err(StoreError::cut_off());
        }
        let new = &self.new;
        let account = &new.caller.account;
        let reserve = Reserve {
            account,
            key: new.caller.key.as_str(),
            amount: new.amount,
            own: Nanos::ZERO,
            now: new.now,
        };
        let reserved = match reserve.apply(connection).await? {
            Ok(reserved) => reserved,
            Err(refusal) => {
                let first = self.first(connection).await?;
                return Ok(Err(first.unwrap_or(Err(refusal))));
            }
        };
        let Some((id, capped)) = self.insert(connection).await? else {
            let first = self.first(connection).await?;
            return Ok(Err(first.ok_or_else(|| {
                StoreError::contradiction("a hold is neither new nor there")
            })?));
        };
        let promo = match reserve.finish(connection, &reserved, id, capped).await? {
            Ok(promo) => promo,
            Err(refusal) => return Ok(Err(Err(refusal))),
        };
        let posting = Posting {
            kind: "hold",
            idempotency_key: &format!("hold:{}:{}", new.request, new.attempt),
            account,
            hold: Some(id),
            reason: None,
            posted: reserved.posted,
            now: new.now,
            entries: &to_held(account, new.amount, promo)?,
        };
        if post(connection, &posting).await?.is_none() {
            return Err(StoreError::contradiction(format!(
                "hold {id} was posted before it was made"
            )));
        }
        failpoint::pass("hold-written");
        Ok(Ok(Taken {
            id,
            amount: new.amount,
            with_promo: promo.is_positive(),
        }))
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.new.caller.account)
    }

    /// A key's cap is checked once the hold's row is there.
    fn is_risky(&self) -> bool {
        self.new.caller.capped
    }

    fn doubt(&self) {
        let new = &self.new;
        let doubtful = Doubtful {
            account: new.caller.account.clone(),
            node: Arc::clone(&self.lease.name),
            now: new.now,
        };
        self.notices
            .doubt(&new.request, i64::from(new.attempt), doubtful);
    }

    fn answer(self, outcome: TxResult<Taken, Self::Refused>) -> Result<Hold, HoldError> {
        let taken = match outcome? {
            Ok(taken) => taken,
            Err(unchanged) => unchanged.inspect_err(|refusal| self.refused(refusal))?,
        };
        failpoint::pass("hold-committed");
        Ok(Hold::new(taken, self.new, self.notices, self.lease))
    }
}

impl BatchOperation<LedgerWrites> for Take {
    fn batch_op(&self) -> Option<BatchOp<'_>> {
        let (new, node) = (&self.new, &*self.lease.name);
        (!self.lease.is_lost()).then_some(BatchOp::Hold { new, node })
    }

    fn from_batch(operation: &Self, outcome: BatchOutcome) -> Option<Taken> {
        match outcome {
            BatchOutcome::Held { id } => Some(Taken {
                id,
                amount: operation.new.amount,
                with_promo: false,
            }),
            BatchOutcome::Settled { .. } => None,
        }
    }
}

impl Take {
    fn refused(&self, refusal: &HoldError) {
        if let HoldError::BalanceTooLow { .. } = refusal {
            let new = &self.new;
            self.notices.exhausted(&new.caller.account, new.now);
        }
    }

    /// Inserts the hold's row. Returns its id, and whether its key has a cap; `None` if the attempt has a hold already.
    async fn insert(&self, connection: &mut Connection) -> Result<Option<(i64, bool)>, StoreError> {
        if let Some(made) = self.insert_at_known_price(connection).await? {
            return Ok(Some(made));
        }
        // Another node may have been quicker: then the price is there now all the same.
        self.add_price(connection).await?;
        self.insert_at_known_price(connection).await
    }

    /// Inserts the row, if the price is known. `None` if the attempt has a hold already, or no hold had this price yet.
    async fn insert_at_known_price(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<(i64, bool)>, StoreError> {
        let new = &self.new;
        let row = connection
            .row(
                token_sql!(
                    "INSERT INTO hold (request, attempt, account, api_key, model, price, amount, state, node, created_at, expires_at)
                     SELECT $1, $2, $3, $4, $5, price.id, $6, 'open', $7, $8, $8 FROM price
                     WHERE model = $5 AND {% = $#9| AND }
                     ON CONFLICT (request, attempt) DO NOTHING
                     RETURNING id, (SELECT COALESCE(cap_total, cap_month, cap_day) FROM api_key WHERE api_key.id = hold.api_key)"
                ),
                &new.price.after(values![
                    new.request.as_str(),
                    i64::from(new.attempt),
                    new.caller.account.as_str(),
                    new.caller.key.as_str(),
                    new.model.as_str(),
                    new.amount,
                    &*self.lease.name,
                    new.now,
                ]),
            )
            .await?;
        row.map(|row| Ok((row.integer(0)?, row.integer_or_null(1)?.is_some())))
            .transpose()
    }

    /// Inserts a version of the model's price, if it is new.
    async fn add_price(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let new = &self.new;
        connection
            .row(
                token_sql!(
                    "INSERT INTO price (model, created_at, {%}) VALUES ($1, $2, {%:$#3})
                     ON CONFLICT (model, {%}) DO NOTHING RETURNING id"
                ),
                &new.price.after(values![new.model.as_str(), new.now]),
            )
            .await
            .map(drop)
    }

    /// The hold that this attempt has already, if this is a replay.
    async fn first(
        &self,
        connection: &mut Connection,
    ) -> Result<Option<Result<Taken, HoldError>>, StoreError> {
        let new = &self.new;
        let row = connection
            .row(
                token_sql!(
                    "SELECT hold.id, amount, state, account, api_key, node, {price.%}
                     FROM hold JOIN price ON price.id = hold.price WHERE request = $1 AND attempt = $2"
                ),
                values![new.request.as_str(), i64::from(new.attempt)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let Caller { account, key, .. } = &new.caller;
        let price = Price::read(&row, 6)?;
        let same = row.text(3)? == account.as_str()
            && row.text(4)? == key.as_str()
            && row.text(5)? == *self.lease.name
            && price.columns() == new.price.columns();
        if !same {
            let text = format!(
                "attempt {} of request {} belongs to another hold",
                new.attempt, new.request
            );
            return Err(StoreError::contradiction(text));
        }
        Ok(Some(if row.text(2)? == "open" {
            Ok(Taken {
                id: row.integer(0)?,
                amount: row.nanos(1)?,
                with_promo: true,
            })
        } else {
            Err(HoldError::Ended)
        }))
    }
}
