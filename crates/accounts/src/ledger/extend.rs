//! Extending the hold of a request that goes on.

use crate::db::{Connection, StoreError, values};
use crate::failpoint;
use crate::ids::AccountId;
use crate::ledger::hold::{Extend, Extended, HoldError};
use crate::ledger::reserve::{Reserve, to_held};
use crate::ledger::{Posting, checked, post};
use crate::money::Nanos;
use crate::writer::{Operation, TxResult};

impl Extended {
    /// The result of a replay. Whether promo credit was taken for it isn't known.
    fn before(amount: Nanos) -> Self {
        let with_promo = true;
        Extended { amount, with_promo }
    }
}

impl Operation for Extend {
    type Done = Extended;
    type Refused = Result<Extended, HoldError>;
    type Answer = Result<Extended, HoldError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<Extended, Self::Refused> {
        let reserve = Reserve {
            account: &self.account,
            key: self.key.as_str(),
            amount: self.more,
            own: self.held,
            now: self.now,
        };
        let reserved = match reserve.apply(connection).await? {
            Ok(reserved) => reserved,
            Err(_) if self.was_made(connection).await? => {
                let made = checked(self.held.checked_add(self.more))?;
                return Ok(Err(Ok(Extended::before(made))));
            }
            Err(refusal) => return Ok(Err(Err(refusal))),
        };
        let raised = connection
            .row(
                "UPDATE hold SET amount = amount + $2 WHERE id = $1 AND state = 'open'
                 RETURNING amount, (SELECT COALESCE(cap_total, cap_month, cap_day) FROM api_key WHERE api_key.id = hold.api_key)",
                values![self.hold, self.more],
            )
            .await?;
        let Some(raised) = raised else {
            return Ok(Err(Err(HoldError::Ended)));
        };
        let raised_to = raised.nanos(0)?;
        let before = checked(raised_to.checked_sub(self.more))?;
        let capped = raised.integer_or_null(1)?.is_some();
        let finished = reserve.finish(connection, &reserved, self.hold, capped);
        let promo = match finished.await? {
            Ok(promo) => promo,
            Err(_) if self.was_made(connection).await? => {
                return Ok(Err(Ok(Extended::before(before))));
            }
            Err(refusal) => return Ok(Err(Err(refusal))),
        };
        let posting = Posting {
            kind: "extend",
            idempotency_key: &self.idempotency_key,
            account: &self.account,
            hold: Some(self.hold),
            reason: None,
            posted: reserved.posted,
            now: self.now,
            entries: &to_held(&self.account, self.more, promo)?,
        };
        match post(connection, &posting).await? {
            Some(_) => {
                failpoint::pass("extension-written");
                let with_promo = promo.is_positive();
                Ok(Ok(Extended {
                    amount: raised_to,
                    with_promo,
                }))
            }
            None => Ok(Err(Ok(Extended::before(before)))),
        }
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    fn is_risky(&self) -> bool {
        self.capped
    }

    fn answer(self, outcome: TxResult<Extended, Self::Refused>) -> Result<Extended, HoldError> {
        match outcome? {
            Ok(extended) => {
                failpoint::pass("extension-committed");
                Ok(extended)
            }
            Err(unchanged) => unchanged,
        }
    }
}

impl Extend {
    /// Whether this extension was made before, by a COMMIT whose outcome wasn't known.
    async fn was_made(&self, connection: &mut Connection) -> Result<bool, StoreError> {
        let row = connection
            .row(
                "SELECT id FROM ledger_transaction WHERE idempotency_key = $1",
                values![self.idempotency_key.as_str()],
            )
            .await?;
        Ok(row.is_some())
    }
}
