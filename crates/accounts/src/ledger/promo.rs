//! Promo credit: used before cash, and gone when it expires.
//!
//! A promo (a row of `promo`) is an amount of promo credit with an expiry. A hold takes what is free of the account's
//! promos first, the one that expires first before the others, and only the rest from the wallet. When it ends, its
//! cost comes out of the promo credit that it took, then out of promo credit that is free at that moment, and only then
//! out of the wallet.
//!
//! A promo that expires while a hold has some of it stays good for that hold, as its price does: otherwise a request
//! that was paid for could overdraw the account. The part that such a hold doesn't use expires when the hold ends. Free
//! promo credit expires when its time has come: at the next hold, or within a minute.

use std::convert::Infallible;

use jiff::Timestamp;

use crate::clock;
use crate::db::{Connection, StoreError, values};
use crate::events::LowBalance;
use crate::ids::AccountId;
use crate::ledger::{Book, Posting, checked, post};
use crate::money::Nanos;
use crate::writer::{Operation, TxResult};

/// The most accounts whose promo credit expires in one transaction.
const EXPIRE_MAX: i64 = 1000;

/// Takes free promo credit for a hold that was just reserved, and returns how much there was. The reservation has
/// already taken it out of the balance's row.
pub(crate) async fn hold(
    connection: &mut Connection,
    account: &AccountId,
    hold: i64,
    amount: Nanos,
    now: Timestamp,
) -> Result<Nanos, StoreError> {
    let promo = draw(connection, account, hold, amount, now, Draw::Hold).await?;
    let sql = "UPDATE hold SET promo = promo + $2 WHERE id = $1";
    connection.execute(sql, values![hold, promo]).await?;
    connection
        .execute(
            "UPDATE balance SET promo_expires_at = (SELECT MIN(expires_at) FROM promo WHERE account = $1 AND free > 0)
             WHERE account = $1",
            values![account.as_str()],
        )
        .await?;
    Ok(promo)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Draw {
    Hold,
    Use,
}

/// Takes up to `amount` of free promo credit, the promo that expires first before the others.
async fn draw(
    connection: &mut Connection,
    account: &AccountId,
    hold: i64,
    amount: Nanos,
    now: Timestamp,
    draw: Draw,
) -> Result<Nanos, StoreError> {
    let promos = connection
        .rows(
            "SELECT id, free FROM promo WHERE account = $1 AND free > 0 AND expires_at > $2 ORDER BY expires_at, id",
            values![account.as_str(), now],
        )
        .await?;
    let mut rest = amount;
    for row in promos {
        let (promo, taken) = (row.integer(0)?, row.nanos(1)?.min(rest));
        if !taken.is_positive() {
            break;
        }
        let [held, used] = match draw {
            Draw::Hold => [taken, Nanos::ZERO],
            Draw::Use => [Nanos::ZERO, taken],
        };
        let sql = "UPDATE promo SET free = free - $2, held = held + $3 WHERE id = $1";
        connection.execute(sql, values![promo, taken, held]).await?;
        connection
            .execute(
                "INSERT INTO promo_use (hold, promo, held, used) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (hold, promo) DO UPDATE
                 SET held = promo_use.held + excluded.held, used = promo_use.used + excluded.used",
                values![hold, promo, held, used],
            )
            .await?;
        rest = checked(rest.checked_sub(taken))?;
    }
    checked(amount.checked_sub(rest))
}

/// The promo credit of a hold that ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    /// The part of the cost that promo credit paid.
    pub(crate) used: Nanos,
    /// The amount that became free again, less the amount that was drawn from free promo credit.
    pub(crate) returned: Nanos,
    /// The unused amount of promos that have expired meanwhile.
    pub(crate) expired: Nanos,
    /// The account's posted balance right after.
    pub(crate) posted: Nanos,
}

/// Pays the cost of a hold that ends with promo credit, as far as there is some. The balance's row must be locked: the
/// hold and its cost were taken out of it already.
pub(crate) async fn settle(
    connection: &mut Connection,
    account: &AccountId,
    hold: i64,
    cost: Nanos,
    now: Timestamp,
) -> Result<Spent, StoreError> {
    let now = clock::lapse(connection, now).await?;
    let taken = connection
        .rows(
            "SELECT u.promo, u.held, p.expires_at, p.expired_at FROM promo_use u JOIN promo p ON p.id = u.promo
             WHERE u.hold = $1 AND u.held > 0 ORDER BY p.expires_at, p.id",
            values![hold],
        )
        .await?;
    let (mut rest, mut back, mut expired) = (cost, Nanos::ZERO, Nanos::ZERO);
    for row in taken {
        let (promo, held) = (row.integer(0)?, row.nanos(1)?);
        let lives = row.time(2)? > now && row.time_or_null(3)?.is_none();
        let used = held.min(rest);
        let unused = checked(held.checked_sub(used))?;
        let free = if lives { unused } else { Nanos::ZERO };
        let sql = "UPDATE promo SET held = held - $2, free = free + $3 WHERE id = $1";
        connection.execute(sql, values![promo, held, free]).await?;
        let sql = "UPDATE promo_use SET held = 0, used = used + $3 WHERE hold = $1 AND promo = $2";
        connection.execute(sql, values![hold, promo, used]).await?;
        rest = checked(rest.checked_sub(used))?;
        back = checked(back.checked_add(free))?;
        expired = checked(
            expired
                .checked_add(unused)
                .and_then(|sum| sum.checked_sub(free)),
        )?;
    }
    let drawn = draw(connection, account, hold, rest, now, Draw::Use).await?;
    rest = checked(rest.checked_sub(drawn))?;
    let returned = checked(back.checked_sub(drawn))?;
    let row = connection
        .row(
            "UPDATE balance SET promo = promo + $2, posted = posted - $3,
                 promo_expires_at = (SELECT MIN(expires_at) FROM promo WHERE account = $1 AND free > 0)
             WHERE account = $1 RETURNING posted",
            values![account.as_str(), returned, expired],
        )
        .await?
        .ok_or_else(|| StoreError::contradiction(format!("account {account} has no balance")))?;
    Ok(Spent {
        used: checked(cost.checked_sub(rest))?,
        returned,
        expired,
        posted: row.nanos(0)?,
    })
}

/// Books the expiry of free promo credit whose time is over. Returns whether the account had any to look at.
pub(crate) async fn expire(
    connection: &mut Connection,
    account: &AccountId,
    now: Timestamp,
) -> Result<bool, StoreError> {
    // Locks the balance's row before its promos are read.
    let due = connection
        .row(
            "UPDATE balance SET promo_expires_at = promo_expires_at WHERE account = $1 AND promo_expires_at <= $2
             RETURNING account",
            values![account.as_str(), now],
        )
        .await?;
    if due.is_none() {
        return Ok(false);
    }
    let promos = connection
        .rows(
            "SELECT id, free FROM promo WHERE account = $1 AND free > 0 AND expires_at <= $2 ORDER BY id",
            values![account.as_str(), now],
        )
        .await?;
    for row in promos {
        expire_one(connection, account, row.integer(0)?, row.nanos(1)?, now).await?;
    }
    Ok(true)
}

/// Books the expiry of all free promo credit, whether its time is over or not.
pub(crate) async fn end(
    connection: &mut Connection,
    account: &AccountId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "SELECT id, free FROM promo WHERE account = $1 AND free > 0 ORDER BY id";
    for row in connection.rows(sql, values![account.as_str()]).await? {
        expire_one(connection, account, row.integer(0)?, row.nanos(1)?, now).await?;
    }
    Ok(())
}

async fn expire_one(
    connection: &mut Connection,
    account: &AccountId,
    promo: i64,
    free: Nanos,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE promo SET free = 0, expired_at = $2 WHERE id = $1";
    connection.execute(sql, values![promo, now]).await?;
    let row = connection
        .row(
            "UPDATE balance SET promo = promo - $2, posted = posted - $2,
                 promo_expires_at = (SELECT MIN(expires_at) FROM promo WHERE account = $1 AND free > 0)
             WHERE account = $1 RETURNING posted, credit_limit, low_balance, low_day",
            values![account.as_str(), free],
        )
        .await?
        .ok_or_else(|| StoreError::contradiction(format!("account {account} has no balance")))?;
    let low = LowBalance::read(&row, [1, 2, 3])?;
    low.tell(connection, account, row.nanos(0)?, now).await?;
    let posting = Posting {
        kind: "promo_expired",
        idempotency_key: &format!("promo_expired:{promo}"),
        account,
        hold: None,
        reason: None,
        posted: row.nanos(0)?,
        now,
        entries: &[
            (Book::Promo(account), checked(free.checked_neg())?),
            (Book::Promotion, free),
        ],
    };
    match post(connection, &posting).await? {
        Some(_) => Ok(()),
        None => Err(StoreError::contradiction(format!(
            "promotional credit {promo} expired twice"
        ))),
    }
}

/// Books the expiry of promo credit in all accounts.
#[derive(Debug)]
pub(crate) struct ExpirePromo {
    pub(crate) now: Timestamp,
}

impl Operation for ExpirePromo {
    type Done = ();
    type Refused = Infallible;
    type Answer = Result<(), StoreError>;

    async fn apply(&self, connection: &mut Connection) -> TxResult<(), Infallible> {
        if !clock::is_trusted(connection, self.now).await? {
            return Ok(Ok(()));
        }
        let due = connection
            .rows(
                "SELECT account FROM balance WHERE promo_expires_at <= $1 ORDER BY account LIMIT $2",
                values![self.now, EXPIRE_MAX],
            )
            .await?;
        for row in due {
            let account = AccountId::from(row.text(0)?);
            expire(connection, &account, self.now).await?;
        }
        Ok(Ok(()))
    }

    fn answer(self, outcome: TxResult<(), Infallible>) -> Result<(), StoreError> {
        match outcome? {
            Ok(()) => Ok(()),
            Err(never) => match never {},
        }
    }
}
