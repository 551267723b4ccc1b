//! Whether a balance and a key's caps allow a hold.

use jiff::Timestamp;

use crate::clock;
use crate::db::{Connection, StoreError, values};
use crate::ids::AccountId;
use crate::ledger::hold::HoldError;
use crate::ledger::key_caps::{Ask, narrow};
use crate::ledger::{Book, checked, promo};
use crate::money::Nanos;
use crate::writer::TxResult;

/// The reservation of money for a new hold or an extension.
#[derive(Debug)]
pub(crate) struct Reserve<'a> {
    pub(crate) account: &'a AccountId,
    pub(crate) key: &'a str,
    pub(crate) amount: Nanos,
    /// The amount that the hold has already; 0 for a new hold.
    pub(crate) own: Nanos,
    pub(crate) now: Timestamp,
}

#[derive(Debug)]
pub(crate) struct Reserved {
    /// The account's posted balance right after.
    pub(crate) posted: Nanos,
    /// Whether the account has free promo credit.
    with_promo: bool,
}

impl Reserve<'_> {
    /// Moves the amount from available to held, if there is enough: the only place that decides this. A refusal leaves
    /// nothing to undo, except for the booked expiry of promo credit.
    pub(crate) async fn apply(&self, connection: &mut Connection) -> TxResult<Reserved, HoldError> {
        if self.amount.is_negative() {
            return Err(StoreError::contradiction("a hold can't be negative"));
        }
        let mut reserved = self.take(connection, self.now).await?;
        if reserved.is_none() {
            let lapse = clock::lapse(connection, self.now).await?;
            if promo::expire(connection, self.account, lapse).await? || lapse != self.now {
                reserved = self.take(connection, lapse).await?;
            }
        }
        if let Some(reserved) = reserved {
            return Ok(Ok(reserved));
        }
        let refusal = refusal(connection, self.account, self.amount, self.own).await?;
        narrow(connection, Err(refusal), self.ask(self.own)).await
    }

    /// Called once the hold's row has the amount: takes the part that is promo credit, and checks the key's caps.
    /// Returns that part.
    pub(crate) async fn finish(
        &self,
        connection: &mut Connection,
        reserved: &Reserved,
        hold: i64,
        capped: bool,
    ) -> TxResult<Nanos, HoldError> {
        let promo = if reserved.with_promo {
            let lapse = clock::lapse(connection, self.now).await?;
            promo::hold(connection, self.account, hold, self.amount, lapse).await?
        } else {
            Nanos::ZERO
        };
        if !capped {
            return Ok(Ok(promo));
        }
        let booked = checked(self.own.checked_add(self.amount))?;
        narrow(connection, Ok(promo), self.ask(booked)).await
    }

    fn ask(&self, booked: Nanos) -> Ask<'_> {
        Ask {
            key: self.key,
            more: self.amount,
            own: self.own,
            booked,
            now: self.now,
        }
    }

    /// `None` if the balance is too low, or if promo credit has to be expired first.
    async fn take(
        &self,
        connection: &mut Connection,
        now: Timestamp,
    ) -> Result<Option<Reserved>, StoreError> {
        let row = connection
            .row(
                "UPDATE balance SET held = held + $2, promo = CASE WHEN promo > $2 THEN promo - $2 ELSE 0 END
                 WHERE account = $1 AND posted + credit_limit - held >= $2
                     AND (promo_expires_at IS NULL OR promo_expires_at > $3)
                 RETURNING posted, promo_expires_at",
                values![self.account.as_str(), self.amount, now],
            )
            .await?;
        row.map(|row| {
            Ok(Reserved {
                posted: row.nanos(0)?,
                with_promo: row.time_or_null(1)?.is_some(),
            })
        })
        .transpose()
    }
}

/// Why a balance can't cover `amount`.
async fn refusal(
    connection: &mut Connection,
    account: &AccountId,
    amount: Nanos,
    own: Nanos,
) -> Result<HoldError, StoreError> {
    let row = connection
        .row(
            "SELECT posted + credit_limit - held, held FROM balance WHERE account = $1",
            values![account.as_str()],
        )
        .await?
        .ok_or_else(|| StoreError::contradiction(format!("account {account} has no balance")))?;
    let available = row.nanos(0)?;
    let held = checked(row.nanos(1)?.checked_sub(own))?;
    Ok(match available.checked_add(held) {
        Some(without_holds) if without_holds >= amount => HoldError::InFlight { available, held },
        Some(_) | None => HoldError::BalanceTooLow { available },
    })
}

/// The entries of a hold, with the parts that it takes from promo credit and from the wallet.
pub(crate) fn to_held(
    account: &AccountId,
    amount: Nanos,
    promo: Nanos,
) -> Result<[(Book<'_>, Nanos); 3], StoreError> {
    Ok([
        (Book::Wallet(account), checked(promo.checked_sub(amount))?),
        (Book::Promo(account), checked(promo.checked_neg())?),
        (Book::Held(account), amount),
    ])
}
