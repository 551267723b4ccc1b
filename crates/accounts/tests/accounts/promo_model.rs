//! Random holds and promos against a model of a few lines: promo credit is used first, the promo that expires first
//! before the others, never after it has expired, and never becomes cash.

use std::collections::BTreeMap;

use proptest::prelude::*;
use weir_accounts::{Adjustment, Hold, NewHold, Promo, Refund, Settlement};

use crate::fixture::{Fixture, at, nanos, success, tokens};

#[derive(Debug, Clone)]
enum Step {
    Credit(i64),
    Adjust(i64),
    Promo { amount: i64, lives: i64 },
    Hold { request: u8, amount: i64 },
    Extend { request: u8, more: i64 },
    Settle { request: u8, cost: i64 },
    Release { request: u8 },
    Refund { amount: i64 },
    Pass(i64),
}

fn step() -> impl Strategy<Value = Step> {
    let request = 0u8..4;
    prop_oneof![
        2 => (1i64..200).prop_map(Step::Credit),
        1 => (-150i64..100).prop_map(Step::Adjust),
        3 => (1i64..200, 1i64..60).prop_map(|(amount, lives)| Step::Promo { amount, lives }),
        6 => (request.clone(), 0i64..250).prop_map(|(request, amount)| Step::Hold { request, amount }),
        2 => (request.clone(), 0i64..100).prop_map(|(request, more)| Step::Extend { request, more }),
        5 => (request.clone(), 0i64..300).prop_map(|(request, cost)| Step::Settle { request, cost }),
        1 => request.prop_map(|request| Step::Release { request }),
        2 => (1i64..120).prop_map(|amount| Step::Refund { amount }),
        3 => (1i64..30).prop_map(Step::Pass),
    ]
}

/// Amounts taken of promos, by expiry and number.
type Taken = BTreeMap<(i64, usize), i64>;

#[derive(Debug, Default)]
struct Model {
    now: i64,
    cash: i64,
    /// The free amounts of promos.
    promos: Taken,
    /// The cash and the promo credit of open holds.
    holds: BTreeMap<u8, (i64, Taken)>,
    /// The last charge: its cash and promo credit that were not refunded.
    charged: (i64, Taken),
}

impl Model {
    fn pass(&mut self, seconds: i64) {
        self.now += seconds;
        let now = self.now;
        self.promos.retain(|&(expiry, _), _| expiry > now);
    }

    fn free(&self) -> i64 {
        self.promos.values().sum()
    }

    fn take(&mut self, amount: i64) -> Taken {
        let mut taken = Taken::new();
        let mut rest = amount;
        for (&promo, free) in &mut self.promos {
            let part = rest.min(*free);
            *free -= part;
            rest -= part;
            if part > 0 {
                taken.insert(promo, part);
            }
        }
        taken
    }

    fn hold(&mut self, request: u8, amount: i64) -> bool {
        if self.cash + self.free() < amount {
            return false;
        }
        let taken = self.take(amount);
        let cash = amount - taken.values().sum::<i64>();
        self.cash -= cash;
        let hold = self.holds.entry(request).or_default();
        hold.0 += cash;
        for (promo, part) in taken {
            *hold.1.entry(promo).or_default() += part;
        }
        true
    }

    fn end(&mut self, request: u8, cost: i64) {
        let (cash, taken) = self.holds.remove(&request).unwrap();
        let cost = cost.min(cash + taken.values().sum::<i64>());
        let mut rest = cost;
        let mut used = Taken::new();
        for (promo, part) in taken {
            let pays = rest.min(part);
            rest -= pays;
            if pays > 0 {
                used.insert(promo, pays);
            }
            if promo.0 > self.now {
                *self.promos.entry(promo).or_default() += part - pays;
            }
        }
        for (promo, part) in self.take(rest) {
            rest -= part;
            *used.entry(promo).or_default() += part;
        }
        assert!(rest == 0 || self.free() == 0, "cash while there is a promo");
        self.cash += cash - rest;
        self.charged = (rest, used);
    }

    fn refund(&mut self, amount: i64) -> bool {
        let cash = amount.min(self.charged.0);
        let alive = |(promo, _): &(&(i64, usize), &mut i64)| promo.0 > self.now;
        let back = self
            .charged
            .1
            .iter()
            .filter(|(promo, _)| promo.0 > self.now);
        if amount - cash > back.map(|(_, part)| part).sum() {
            return false;
        }
        let mut rest = amount - cash;
        for (promo, part) in self.charged.1.iter_mut().rev().filter(alive) {
            let back = rest.min(*part);
            *part -= back;
            rest -= back;
            *self.promos.entry(*promo).or_default() += back;
        }
        self.charged.0 -= cash;
        self.cash += cash;
        true
    }
}

struct World {
    fixture: Fixture,
    holds: BTreeMap<u8, Hold>,
    model: Model,
    count: usize,
    /// The request that was charged last.
    last: Option<String>,
}

impl World {
    async fn run(&mut self, step: &Step) {
        self.count += 1;
        let key = format!("k{}", self.count);
        match *step {
            Step::Credit(amount) => {
                let (account, now) = (&self.fixture.caller.account, at(self.model.now));
                let accounts = &self.fixture.accounts;
                accounts
                    .credit(account, nanos(amount), &key, "", now)
                    .await
                    .unwrap();
                self.model.cash += amount;
            }
            Step::Adjust(amount) => self.adjust(amount, key).await,
            Step::Promo { amount, lives } => self.promo(amount, lives, key).await,
            Step::Hold { request, amount } if !self.holds.contains_key(&request) => {
                self.hold(request, amount, key).await;
            }
            Step::Hold { .. } => {}
            Step::Extend { request, more } => {
                let Some(hold) = self.holds.get_mut(&request) else {
                    return;
                };
                let now = at(self.model.now);
                let extended = self.fixture.accounts.extend(hold, nanos(more), now).await;
                let fits = self.model.hold(request, more);
                assert_eq!(extended.is_ok(), fits, "{extended:?}");
            }
            Step::Settle { request, cost } => self.settle(request, cost).await,
            Step::Release { request } => {
                let Some(hold) = self.holds.remove(&request) else {
                    return;
                };
                let now = at(self.model.now);
                self.fixture.accounts.release(hold, now).await.unwrap();
                let charged = std::mem::take(&mut self.model.charged);
                self.model.end(request, 0);
                self.model.charged = charged;
            }
            Step::Refund { amount } => self.refund(amount, key).await,
            Step::Pass(seconds) => self.model.pass(seconds),
        }
    }

    async fn adjust(&mut self, amount: i64, idempotency_key: String) {
        let adjustment = Adjustment {
            account: self.fixture.caller.account.clone(),
            amount: nanos(amount),
            idempotency_key,
            reason: "random".to_owned(),
        };
        let now = at(self.model.now);
        let adjusted = self.fixture.accounts.adjust(adjustment, now).await;
        let fits = amount != 0 && self.model.cash + amount >= 0;
        assert_eq!(adjusted.is_ok(), fits, "{adjusted:?}");
        self.model.cash += if fits { amount } else { 0 };
    }

    async fn promo(&mut self, amount: i64, lives: i64, idempotency_key: String) {
        let now = self.model.now;
        let promo = Promo {
            account: self.fixture.caller.account.clone(),
            amount: nanos(amount),
            expires_at: at(now + lives).into(),
            idempotency_key,
            reason: "random".to_owned(),
        };
        self.fixture
            .accounts
            .give_promo(promo, at(now))
            .await
            .unwrap();
        self.model.promos.insert((now + lives, self.count), amount);
    }

    async fn hold(&mut self, request: u8, amount: i64, id: String) {
        let now = self.model.now;
        let new = NewHold {
            now: at(now),
            ..self.fixture.hold(&id, amount)
        };
        let hold = self.fixture.accounts.hold(new).unwrap().durable().await;
        let fits = self.model.hold(request, amount);
        assert_eq!(hold.is_ok(), fits, "{hold:?}");
        if let Ok(hold) = hold {
            self.holds.insert(request, hold);
        }
    }

    async fn settle(&mut self, request: u8, cost: i64) {
        let Some(hold) = self.holds.remove(&request) else {
            return;
        };
        self.last = Some(hold.request().to_owned());
        let settlement = Settlement {
            now: at(self.model.now),
            ..success(tokens(u64::try_from(cost).unwrap(), 0))
        };
        self.fixture
            .accounts
            .settle(hold, settlement)
            .await
            .unwrap();
        self.model.end(request, cost);
        let account = &self.fixture.caller.account;
        let usage = self.fixture.accounts.usage(account, 1).await.unwrap();
        let promo: i64 = self.model.charged.1.values().sum();
        assert_eq!(usage[0].promo, nanos(promo));
    }

    async fn refund(&mut self, amount: i64, idempotency_key: String) {
        let Some(request) = self.last.clone() else {
            return;
        };
        let refund = Refund {
            request,
            attempt: 0,
            amount: Some(nanos(amount)),
            idempotency_key,
            reason: "random".to_owned(),
        };
        let now = at(self.model.now);
        let refunded = self.fixture.accounts.refund(refund, now).await;
        let fits = self.model.refund(amount);
        assert_eq!(refunded.is_ok(), fits, "{refunded:?}");
    }

    async fn check(&self) {
        let now = at(self.model.now);
        self.fixture.accounts.expire(now).await.unwrap();
        let account = self.fixture.account().await;
        let promos = |taken: &Taken| taken.values().sum::<i64>();
        let held: i64 = self
            .model
            .holds
            .values()
            .map(|(cash, taken)| cash + promos(taken))
            .sum();
        let free = self.model.free();
        assert_eq!(
            (
                account.posted.get(),
                account.held.get(),
                account.promo.get()
            ),
            (self.model.cash + free + held, held, free)
        );
        self.fixture.assert_books().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn promotional_credit_is_its_model(
        steps in proptest::collection::vec(step(), 1..40),
        checked in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World {
                fixture: Fixture::with(0).await,
                holds: BTreeMap::new(),
                model: Model { now: 1, ..Model::default() },
                count: 0,
                last: None,
            };
            for step in &steps {
                world.run(step).await;
                // With a check after each step, expiry is booked at once; without, only when something needs it.
                if checked {
                    world.check().await;
                }
            }
            world.check().await;
        });
    }
}
