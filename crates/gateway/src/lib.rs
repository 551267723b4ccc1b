//! The life of one request, without HTTP: authentication, the choice of the model, rate limits, the hold on the
//! balance, the generation on the engine and, at the end, the settlement.
//!
//! This crate depends on engines and accounts. It knows no JSON, no status codes, no SQL and no kernels.

mod account_view;
mod admitted;
mod bill;
pub mod catalog;
mod clock;
mod early;
mod embed;
mod generation;
pub mod limits;
mod refusal;
mod tiers;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_accounts::{Accounts, Caller, KeyError, KeyRole, Trouble};
use weir_engine::{Allowance, Request, Terms};

pub use crate::account_view::BILLS_PER_MINUTE;
pub use crate::admitted::{Admitted, Estimate};
use crate::bill::{Bill, HEAD_START_TOKENS, Order};
pub use crate::catalog::{Catalog, Offer};
pub use crate::clock::Clock;
pub use crate::embed::EmbedJob;
pub use crate::generation::Generation;
use crate::limits::{Limits, Quota, Quotas, Subject};
pub use crate::refusal::{Refusal, STORE_RETRY};
pub use crate::tiers::TierRule;
use crate::tiers::Tiers;

/// `Retry-After` while this process drains: by then another node, or its successor, takes requests.
const DRAIN_RETRY: Duration = Duration::from_secs(5);
/// How often a checkpoint makes the delivered tokens durable. A crash costs the operator at most the tokens since the
/// last checkpoint.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// The longest that a generation waits for the database once its hold is used up and can't be extended.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How often overdue holds are looked for and ended.
const EXPIRE_EVERY: Duration = Duration::from_secs(10);
/// How often usage records past their retention are deleted.
const PRUNE_EVERY: Duration = Duration::from_hours(1);

/// A request of a caller for a model.
#[derive(Debug, Clone)]
pub struct Job {
    /// Unique for each request. The hold and the usage record carry this id.
    pub request_id: String,
    pub model: String,
    pub request: Request,
    pub delivery: Delivery,
}

/// How the caller receives the text. When the engine fails midway, a caller of a stream pays for the tokens it
/// received, a caller of a whole answer for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    Stream,
    /// The text is sent only when the answer is complete.
    Whole,
}

/// The rate limits of keys and accounts, and the counter that enforces them.
#[derive(Debug)]
pub struct Rules {
    pub limits: Limits,
    /// The limits of a key that has none of its own.
    pub key: Quotas,
    /// The limits of each account for each model, by tier. Without any rules, only limits set on the account itself
    /// apply.
    pub tiers: Vec<TierRule>,
}

impl From<Quotas> for Rules {
    /// The same limits for every key, counted in this process's memory.
    fn from(key: Quotas) -> Self {
        Rules {
            limits: Limits::new(Instant::now()),
            key,
            tiers: Vec::new(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Gateway(Arc<Inner>);

/// The terms that requests are admitted on. They are replaced as a whole; a request that was admitted keeps its offer.
#[derive(Debug)]
struct PublishedTerms {
    catalog: Arc<Catalog>,
    key_quotas: Quotas,
    tiers: Tiers,
}

#[derive(Debug)]
struct Inner {
    terms: ArcSwap<PublishedTerms>,
    accounts: Accounts,
    limits: Limits,
    clock: Clock,
    checkpoint_every: Duration,
    stall_max: Duration,
    /// Age at which usage records are deleted; `None` keeps them for ever.
    usage_kept: Option<jiff::SignedDuration>,
    tasks: TaskTracker,
    draining: AtomicBool,
    /// Number of settlements that aren't in the database yet.
    unsettled: AtomicUsize,
}

/// Why the server can't serve requests now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    Draining,
    NoModel,
    Database(Trouble),
}

impl Gateway {
    pub fn new(
        catalog: Catalog,
        accounts: Accounts,
        rules: impl Into<Rules>,
        clock: Clock,
    ) -> Self {
        let Rules { limits, key, tiers } = rules.into();
        let terms = PublishedTerms {
            catalog: Arc::new(catalog),
            key_quotas: key,
            tiers: Tiers::new(tiers),
        };
        Gateway(Arc::new(Inner {
            terms: ArcSwap::from_pointee(terms),
            accounts,
            limits,
            clock,
            checkpoint_every: CHECKPOINT_EVERY,
            stall_max: STALL_MAX,
            usage_kept: None,
            tasks: TaskTracker::new(),
            draining: AtomicBool::new(false),
            unsettled: AtomicUsize::new(0),
        }))
    }

    /// Sets the interval between two checkpoints of a generation's delivered tokens.
    #[must_use]
    pub fn with_checkpoints_every(mut self, every: Duration) -> Self {
        Arc::get_mut(&mut self.0)
            .expect("it is built before it is shared")
            .checkpoint_every = every;
        self
    }

    /// Sets the longest wait of a generation for the database at the end of its hold.
    #[must_use]
    pub fn with_stalls_of(mut self, stall_max: Duration) -> Self {
        Arc::get_mut(&mut self.0)
            .expect("it is built before it is shared")
            .stall_max = stall_max;
        self
    }

    /// Sets the age at which usage records are deleted.
    #[must_use]
    pub fn with_usage_kept(mut self, kept: jiff::SignedDuration) -> Self {
        Arc::get_mut(&mut self.0)
            .expect("it is built before it is shared")
            .usage_kept = Some(kept);
        self
    }

    /// The accounts, for the administrative API to change.
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// The catalogue as it is now.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.0.terms.load().catalog)
    }

    /// Replaces the catalogue, the limits of keys that have none of their own, and the tiers, all at once. Requests that were
    /// admitted before go on with the offer, and the price, that they were admitted with.
    pub fn replace_terms(&self, catalog: Catalog, key_quotas: Quotas, tiers: Vec<TierRule>) {
        let tiers = self.0.terms.load().tiers.with_rules(tiers);
        self.0.terms.store(Arc::new(PublishedTerms {
            catalog: Arc::new(catalog),
            key_quotas,
            tiers,
        }));
    }

    /// The current time for everything that is stored: the system clock's, unless the ledger doesn't trust that clock.
    pub fn now(&self) -> jiff::Timestamp {
        self.0.accounts.time(self.0.clock.now())
    }

    /// Finds the caller that a key belongs to, whatever the key's role.
    pub async fn authenticate(&self, credential: Option<&str>) -> Result<Caller, Refusal> {
        let credential = credential.ok_or(Refusal::InvalidApiKey)?;
        match self.0.accounts.authenticate(credential, self.now()).await {
            Ok(caller) => Ok(caller),
            Err(KeyError::Rejected) => Err(Refusal::InvalidApiKey),
            Err(KeyError::Store(error)) => {
                tracing::error!(%error, "keys can't be looked up");
                Err(Refusal::StoreUnavailable {
                    retry_after: STORE_RETRY,
                })
            }
        }
    }

    /// Finds the caller that a key belongs to. Refuses the key if its role isn't among `roles`, or if its account is
    /// suspended.
    pub async fn authenticate_as(
        &self,
        roles: &[KeyRole],
        credential: Option<&str>,
    ) -> Result<Caller, Refusal> {
        let caller = self.authenticate(credential).await?;
        if !roles.contains(&caller.role) {
            return Err(Refusal::RoleDenied { role: caller.role });
        }
        if caller.suspended {
            return Err(Refusal::AccountSuspended);
        }
        Ok(caller)
    }

    /// The caller's remaining rate limits, also of the model that it asked for. The rate limit headers of every answer
    /// come from here.
    pub fn quota(&self, caller: &Caller, model: Option<&str>) -> Quota {
        let terms = self.0.terms.load();
        let offer = model.and_then(|model| terms.catalog.find(model).ok());
        let subjects = terms.subjects(caller, offer.as_ref().map(|offer| &*offer.id));
        self.0.limits.quota(&subjects, Instant::now())
    }

    /// Admits a request and starts it, or says why not. Any step may refuse the request; dropping the values of the
    /// earlier steps gives back what they took.
    pub async fn start(&self, caller: &Caller, job: Job) -> Result<Generation, Refusal> {
        let Job {
            request_id,
            model,
            request,
            delivery,
        } = job;
        let mut admitted = self.admit(caller, &model).await?;
        let refusal = |error| Refusal::from_engine(error, &model);
        let accepts = admitted.engine.accepts(&admitted.account);
        accepts.map_err(refusal)?;
        let explicit = request.output.tokens.is_some();
        let prepared = admitted.prepare(request).await?;
        admitted
            .permit
            .admit_tokens(prepared.tokens_max(), Instant::now())
            .await?;

        // The engine prefills the prompt while the hold becomes durable, and may generate the first token. No text
        // reaches the caller before the hold is durable, since the generation is returned only then.
        let terms = Terms {
            allowance: Allowance::rolling(HEAD_START_TOKENS),
            weight: self.0.terms.load().tiers.weight(caller),
        };
        let relaxed = Arc::clone(&prepared.relaxed);
        let Admitted { offer, permit, .. } = admitted;
        let order = Order {
            caller: caller.clone(),
            request_id,
            price: offer.price,
            prompt_tokens: prepared.prompt_tokens,
            output_tokens_max: prepared.output_tokens_max,
            explicit,
            allowance: terms.allowance.clone(),
            model,
        };
        // If the engine's queue is full, the request is refused at once, before anything is held.
        let mut generating = prepared.start(terms);
        let (bill, events) = match futures::poll!(&mut generating) {
            Poll::Ready(Err(error)) => return Err(Refusal::from_engine(error, &offer.id)),
            Poll::Ready(events) => (Bill::open(self, order, permit).await, events),
            Poll::Pending => tokio::join!(Bill::open(self, order, permit), generating),
        };
        match (bill, events) {
            (Ok(bill), Ok(events)) => {
                Ok(Generation::new(self.clone(), events, bill, delivery).with_relaxed(relaxed))
            }
            (Ok(bill), Err(error)) => {
                self.0.tasks.spawn(bill.cancel(self.clone()));
                Err(Refusal::from_engine(error, &offer.id))
            }
            (Err(refusal), events) => {
                if let Ok(events) = events {
                    self.0.tasks.spawn(events.cancel());
                }
                Err(refusal)
            }
        }
    }

    /// Lets a caller use a model, if the request limits allow it. Counts one request; charges nothing.
    pub async fn admit(&self, caller: &Caller, model: &str) -> Result<Admitted, Refusal> {
        self.refuse_while_draining()?;
        let terms = self.0.terms.load_full();
        let offer = terms.catalog.find(model)?;
        may_use(caller, &offer)?;
        let Inner {
            limits, accounts, ..
        } = &*self.0;
        terms.tiers.look_up(caller, accounts, self.now()).await;
        let subjects = terms.subjects(caller, Some(&offer.id));
        let permit = limits.admit_request(subjects, Instant::now()).await?;
        let engine = offer.engine().ok_or_else(|| Refusal::ModelNotAvailable {
            model: model.to_owned(),
        })?;
        Ok(Admitted {
            account: caller.account.as_str().into(),
            engine: Arc::clone(engine),
            offer,
            permit,
        })
    }

    /// Whether requests can be served: an engine is up, and the database can be read and written.
    pub async fn ready(&self) -> Result<(), NotReady> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err(NotReady::Draining);
        }
        if !self
            .catalog()
            .offers()
            .iter()
            .any(|offer| offer.available())
        {
            return Err(NotReady::NoModel);
        }
        let checked = self.0.accounts.check().await;
        checked.map_err(|error| NotReady::Database(error.trouble()))
    }

    /// Settlements that aren't in the database yet.
    pub fn unsettled(&self) -> usize {
        self.0.unsettled.load(Ordering::Relaxed)
    }

    /// Runs maintenance until `stop`: ends the holds of vanished processes, books what has expired and deletes old
    /// usage records.
    pub async fn run_maintenance(&self, stop: CancellationToken) {
        let mut every = tokio::time::interval(EXPIRE_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut prune_at = Instant::now();
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            match self.0.accounts.expire(self.now()).await {
                Ok(ended) => tracing::debug!(?ended, "overdue holds were looked for"),
                Err(error) => tracing::warn!(%error, "overdue holds can't be ended now"),
            }
            if Instant::now() >= prune_at {
                prune_at = Instant::now() + PRUNE_EVERY;
                // However many records there are to delete, `stop` waits for one batch at most.
                stop.run_until_cancelled(Box::pin(self.prune_usage())).await;
            }
        }
    }

    /// Deletes the usage records that are older than their retention, if there is one.
    async fn prune_usage(&self) {
        let Some(kept) = self.0.usage_kept else {
            return;
        };
        let now = self.now();
        let before = now.saturating_sub(kept);
        let pruned = self
            .0
            .accounts
            .prune_usage(before.unwrap_or(jiff::Timestamp::MIN), now);
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "old usage records can't be deleted now");
        }
    }

    /// Refuses new requests from now on; running ones go on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until every dropped generation is settled. Call it after the last connection has ended.
    pub async fn settled(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.limits.close().await;
    }

    fn refuse_while_draining(&self) -> Result<(), Refusal> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Err(Refusal::Draining {
                retry_after: DRAIN_RETRY,
            });
        }
        Ok(())
    }
}

impl PublishedTerms {
    /// The subjects whose limits a request counts against. The braces are a hash tag: in a Valkey cluster they keep all
    /// subjects of an account in one slot.
    fn subjects(&self, caller: &Caller, model: Option<&str>) -> Vec<Subject> {
        let (account, key) = (&caller.account, &caller.key);
        let of_key = Subject {
            name: format!("{{{account}}}key:{key}").into(),
            quotas: tiers::or(caller.limits, self.key_quotas),
        };
        let of_model = model.map(|model| Subject {
            name: format!("{{{account}}}model:{model}").into(),
            quotas: self.tiers.quotas(caller),
        });
        [of_key].into_iter().chain(of_model).collect()
    }
}

fn may_use(caller: &Caller, offer: &Offer) -> Result<(), Refusal> {
    if caller.may_use(&offer.id) {
        return Ok(());
    }
    Err(Refusal::ModelAccessDenied {
        model: offer.id.clone(),
    })
}
