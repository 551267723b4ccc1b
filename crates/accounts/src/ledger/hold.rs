//! Holds: money that an open request may cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use crate::account::AccountId;
use crate::db::{Connection, StoreError, values};
use crate::failpoint;
use crate::key::Caller;
use crate::key::cap::CapPeriod;
use crate::ledger::notices::{Checkpoint, Doubtful, Notices};
use crate::ledger::reserve::{Reserve, Reserved, to_held};
use crate::ledger::{Posting, checked, post};
use crate::money::{Counts, Nanos, Price};
use crate::writer::{Operation, Written};

/// What to hold, for which attempt of which request.
#[derive(Debug, Clone)]
pub struct NewHold {
    /// Our own id of the request, never one that a caller chose.
    pub request: String,
    pub attempt: u32,
    pub caller: Caller,
    pub model: String,
    pub price: Price,
    pub amount: Nanos,
    /// When others may end the hold if nothing is heard of it; extending it and checkpoints renew it
    /// for as long again.
    pub expires_at: Timestamp,
    pub now: Timestamp,
}

/// A hold on its way to the disk. Dropping it releases the hold as soon as it is made.
#[derive(Debug)]
pub struct PendingHold {
    answer: oneshot::Receiver<Result<Hold, HoldError>>,
}

impl PendingHold {
    pub(crate) fn new(answer: oneshot::Receiver<Result<Hold, HoldError>>) -> Self {
        PendingHold { answer }
    }

    /// The hold once it is on the disk, or why there is none.
    pub async fn durable(self) -> Result<Hold, HoldError> {
        self.answer
            .await
            .unwrap_or_else(|_| Err(HoldError::Store(StoreError::closed())))
    }
}

/// Money held for one attempt of a request. It ends in exactly one settle, release or expiry; when
/// it is dropped, the writer settles it at its last checkpoint.
#[derive(Debug)]
pub struct Hold {
    facts: Box<Facts>,
    notices: Arc<Notices>,
    ended: bool,
}

#[derive(Debug)]
struct Facts {
    id: i64,
    request: String,
    attempt: u32,
    account: AccountId,
    price: Price,
    amount: Nanos,
    lifetime: SignedDuration,
    extensions: u32,
    /// When it was last heard of, in milliseconds.
    seen_ms: AtomicI64,
}

impl Hold {
    pub fn request(&self) -> &str {
        &self.facts.request
    }

    pub fn attempt(&self) -> u32 {
        self.facts.attempt
    }

    pub fn account(&self) -> &AccountId {
        &self.facts.account
    }

    /// The price at admission, which applies whatever happens to prices meanwhile.
    pub fn price(&self) -> Price {
        self.facts.price
    }

    /// The most that can be charged.
    pub fn amount(&self) -> Nanos {
        self.facts.amount
    }

    pub(crate) fn id(&self) -> i64 {
        self.facts.id
    }

    /// The end of the hold is in the database.
    pub(crate) fn close(&mut self) {
        self.ended = true;
    }

    pub(crate) fn note(&self, counts: Counts, now: Timestamp) {
        self.facts
            .seen_ms
            .store(now.as_millisecond(), Ordering::Relaxed);
        let expires_at = later(now, self.facts.lifetime);
        self.notices.checkpoint(
            self.facts.id,
            Checkpoint {
                counts,
                now,
                expires_at,
            },
        );
    }

    /// The next extension; each has a number, so that a replay can be told from another one.
    pub(crate) fn extension(&mut self, more: Nanos, now: Timestamp) -> Result<Extend, StoreError> {
        let facts = &mut self.facts;
        let too_many = || StoreError::contradiction("a hold can't be extended that often");
        facts.extensions = facts.extensions.checked_add(1).ok_or_else(too_many)?;
        *facts.seen_ms.get_mut() = now.as_millisecond();
        Ok(Extend {
            hold: facts.id,
            account: facts.account.clone(),
            held: facts.amount,
            more,
            idempotency_key: format!(
                "extend:{}:{}:{}",
                facts.request, facts.attempt, facts.extensions
            ),
            expires_at: later(now, facts.lifetime),
            now,
        })
    }

    pub(crate) fn extended_to(&mut self, amount: Nanos) {
        self.facts.amount = amount;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.ended {
            let seen = Timestamp::from_millisecond(self.facts.seen_ms.load(Ordering::Relaxed));
            self.notices.abandon(
                self.facts.id,
                self.facts.account.clone(),
                seen.unwrap_or(Timestamp::UNIX_EPOCH),
            );
        }
    }
}

fn later(now: Timestamp, lifetime: SignedDuration) -> Timestamp {
    now.checked_add(lifetime).unwrap_or(Timestamp::MAX)
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum HoldError {
    #[error("the balance is too low: {available} USD are available")]
    BalanceTooLow { available: Nanos },
    /// The balance would do, were it not for open requests.
    #[error("open requests hold {held} USD: {available} USD are available")]
    InFlight { available: Nanos, held: Nanos },
    /// The balance would do, but a spend cap of the key doesn't allow it; if `in_flight`, because its other
    /// requests are open.
    #[error("the key's spend cap (the {period}'s) leaves {available} USD")]
    KeyCap {
        period: CapPeriod,
        available: Nanos,
        in_flight: bool,
    },
    /// The writer's queue is full.
    #[error("too many holds wait to be written")]
    Overloaded,
    /// The hold to extend has ended already, or the attempt was settled before.
    #[error("the hold has ended")]
    Ended,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug)]
pub(crate) struct Take {
    pub(crate) new: NewHold,
    pub(crate) node: Arc<str>,
    pub(crate) notices: Arc<Notices>,
}

#[derive(Debug)]
pub(crate) struct Taken {
    id: i64,
    amount: Nanos,
}

impl Operation for Take {
    type Done = Taken;
    type Refused = Result<Taken, HoldError>;
    type Answer = Result<Hold, HoldError>;

    async fn apply(&self, connection: &mut Connection) -> Written<Taken, Self::Refused> {
        let new = &self.new;
        let price = price_version(connection, new).await?;
        let Some((id, capped)) = self.insert(connection, price).await? else {
            return Ok(Err(self.first(connection, price).await?));
        };
        let account = &new.caller.account;
        let reserve = Reserve {
            account,
            key: new.caller.key.as_str(),
            capped,
            hold: id,
            amount: new.amount,
            own: Nanos::ZERO,
            now: new.now,
        };
        let Reserved { posted, promo } = match reserve.apply(connection).await? {
            Ok(reserved) => reserved,
            Err(refusal) => return Ok(Err(Err(refusal))),
        };
        let posting = Posting {
            kind: "hold",
            idempotency_key: &format!("hold:{}:{}", new.request, new.attempt),
            account,
            hold: Some(id),
            reason: None,
            posted,
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
        }))
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.new.caller.account)
    }

    fn doubt(&self) {
        let new = &self.new;
        let doubtful = Doubtful {
            account: new.caller.account.clone(),
            node: Arc::clone(&self.node),
            now: new.now,
        };
        self.notices
            .doubt(&new.request, i64::from(new.attempt), doubtful);
    }

    fn answer(self, outcome: Written<Taken, Self::Refused>) -> Result<Hold, HoldError> {
        let taken = match outcome? {
            Ok(taken) => taken,
            Err(unchanged) => unchanged.inspect_err(|refusal| self.refused(refusal))?,
        };
        failpoint::pass("hold-committed");
        let new = self.new;
        let facts = Facts {
            id: taken.id,
            request: new.request,
            attempt: new.attempt,
            account: new.caller.account,
            price: new.price,
            amount: taken.amount,
            lifetime: new.expires_at.duration_since(new.now),
            extensions: 0,
            seen_ms: AtomicI64::new(new.now.as_millisecond()),
        };
        Ok(Hold {
            facts: Box::new(facts),
            notices: self.notices,
            ended: false,
        })
    }
}

impl Take {
    fn refused(&self, refusal: &HoldError) {
        if let HoldError::BalanceTooLow { .. } = refusal {
            let new = &self.new;
            self.notices.exhausted(&new.caller.account, new.now);
        }
    }

    /// The hold's id, and whether its key has a cap. `None` if the attempt has a hold already.
    async fn insert(
        &self,
        connection: &mut Connection,
        price: i64,
    ) -> Result<Option<(i64, bool)>, StoreError> {
        let new = &self.new;
        let row = connection
            .row(
                "INSERT INTO hold (request, attempt, account, api_key, model, price, amount, state, node, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, 'open', $8, $9, $10)
                 ON CONFLICT (request, attempt) DO NOTHING
                 RETURNING id, (SELECT COALESCE(cap_total, cap_month, cap_day) FROM api_key WHERE api_key.id = hold.api_key)",
                values![
                    new.request.as_str(),
                    i64::from(new.attempt),
                    new.caller.account.as_str(),
                    new.caller.key.as_str(),
                    new.model.as_str(),
                    price,
                    new.amount,
                    &*self.node,
                    new.now,
                    new.expires_at,
                ],
            )
            .await?;
        row.map(|row| Ok((row.integer(0)?, row.integer_or_null(1)?.is_some())))
            .transpose()
    }

    /// The hold that this attempt has already, if this is a replay.
    async fn first(&self, connection: &mut Connection, price: i64) -> Written<Taken, HoldError> {
        let new = &self.new;
        let row = connection
            .row(
                "SELECT id, amount, state FROM hold
                 WHERE request = $1 AND attempt = $2 AND account = $3 AND api_key = $4 AND price = $5 AND node = $6",
                values![
                    new.request.as_str(),
                    i64::from(new.attempt),
                    new.caller.account.as_str(),
                    new.caller.key.as_str(),
                    price,
                    &*self.node,
                ],
            )
            .await?;
        let Some(row) = row else {
            let text = format!(
                "attempt {} of request {} belongs to another hold",
                new.attempt, new.request
            );
            return Err(StoreError::contradiction(text));
        };
        if row.text(2)? != "open" {
            return Ok(Err(HoldError::Ended));
        }
        Ok(Ok(Taken {
            id: row.integer(0)?,
            amount: row.nanos(1)?,
        }))
    }
}

#[derive(Debug)]
pub(crate) struct Extend {
    hold: i64,
    account: AccountId,
    /// What it holds already.
    held: Nanos,
    more: Nanos,
    idempotency_key: String,
    expires_at: Timestamp,
    now: Timestamp,
}

impl Operation for Extend {
    /// What the hold is now.
    type Done = Nanos;
    type Refused = Result<Nanos, HoldError>;
    type Answer = Result<Nanos, HoldError>;

    async fn apply(&self, connection: &mut Connection) -> Written<Nanos, Self::Refused> {
        let raised = connection
            .row(
                "UPDATE hold SET amount = amount + $2, expires_at = $3 WHERE id = $1 AND state = 'open'
                 RETURNING amount, api_key,
                     (SELECT COALESCE(cap_total, cap_month, cap_day) FROM api_key WHERE api_key.id = hold.api_key)",
                values![self.hold, self.more, self.expires_at],
            )
            .await?;
        let Some(raised) = raised else {
            return Ok(Err(Err(HoldError::Ended)));
        };
        let raised_to = raised.nanos(0)?;
        let before = checked(raised_to.checked_sub(self.more))?;
        let reserve = Reserve {
            account: &self.account,
            key: &raised.text(1)?,
            capped: raised.integer_or_null(2)?.is_some(),
            hold: self.hold,
            amount: self.more,
            own: self.held,
            now: self.now,
        };
        let Reserved { posted, promo } = match reserve.apply(connection).await? {
            Ok(reserved) => reserved,
            Err(_) if self.was_made(connection).await? => return Ok(Err(Ok(before))),
            Err(refusal) => return Ok(Err(Err(refusal))),
        };
        let posting = Posting {
            kind: "extend",
            idempotency_key: &self.idempotency_key,
            account: &self.account,
            hold: Some(self.hold),
            reason: None,
            posted,
            now: self.now,
            entries: &to_held(&self.account, self.more, promo)?,
        };
        match post(connection, &posting).await? {
            Some(_) => {
                failpoint::pass("extension-written");
                Ok(Ok(raised_to))
            }
            None => Ok(Err(Ok(before))),
        }
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    fn answer(self, outcome: Written<Nanos, Self::Refused>) -> Result<Nanos, HoldError> {
        match outcome? {
            Ok(amount) => {
                failpoint::pass("extension-committed");
                Ok(amount)
            }
            Err(unchanged) => unchanged,
        }
    }
}

impl Extend {
    /// Whether it was made before: a COMMIT broke off, and nobody knew.
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

/// The version of the model's price, made if it is new.
async fn price_version(connection: &mut Connection, new: &NewHold) -> Result<i64, StoreError> {
    const FIND: &str =
        "SELECT id FROM price WHERE model = $1 AND input = $2 AND output = $3 AND cached = $4";
    let Price {
        input,
        output,
        cached: _,
    } = new.price;
    let cached = new.price.cached_or_input();
    let key = values![new.model.as_str(), input, output, cached];
    if let Some(row) = connection.row(FIND, key).await? {
        return row.integer(0);
    }
    let made = connection
        .row(
            "INSERT INTO price (model, input, output, cached, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (model, input, output, cached) DO NOTHING RETURNING id",
            values![new.model.as_str(), input, output, cached, new.now],
        )
        .await?;
    let row = match made {
        Some(row) => Some(row),
        None => connection.row(FIND, key).await?,
    };
    row.ok_or_else(|| StoreError::contradiction("a price version can't be found"))?
        .integer(0)
}
