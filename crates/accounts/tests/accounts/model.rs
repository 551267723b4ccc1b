//! Random operations against a model of a few lines.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tokio::runtime::Runtime;
use weir_accounts::{Accounts, Caller, Hold, Role};

use crate::POSTGRES;
use crate::fixture::{Fixture, at, long_after, nanos, open, success, tokens};

#[derive(Debug, Clone)]
enum Step {
    Credit { key: u8, amount: i64 },
    Hold { request: u8, amount: i64 },
    Extend { request: u8, more: i64 },
    Checkpoint { request: u8, tokens: u64 },
    Settle { request: u8, tokens: u64 },
    Release { request: u8 },
    Drop { request: u8 },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let request = 0u8..6;
    prop_oneof![
        2 => (0u8..9, 1i64..500).prop_map(|(key, amount)| Step::Credit { key, amount }),
        6 => (request.clone(), 0i64..400).prop_map(|(request, amount)| Step::Hold { request, amount }),
        3 => (request.clone(), 0i64..200).prop_map(|(request, more)| Step::Extend { request, more }),
        3 => (request.clone(), 0u64..300).prop_map(|(request, tokens)| Step::Checkpoint { request, tokens }),
        4 => (request.clone(), 0u64..300).prop_map(|(request, tokens)| Step::Settle { request, tokens }),
        1 => request.clone().prop_map(|request| Step::Release { request }),
        1 => request.prop_map(|request| Step::Drop { request }),
        1 => Just(Step::Crash),
    ]
}

/// The expected state. Prompt tokens cost a nano-USD each; a hold is its amount and the cost at its checkpoint.
#[derive(Debug, Default)]
struct Model {
    posted: i64,
    holds: BTreeMap<u8, (i64, Option<i64>)>,
    credits: BTreeMap<u8, i64>,
}

impl Model {
    fn held(&self) -> i64 {
        self.holds.values().map(|(amount, _)| amount).sum()
    }

    fn fits(&self, amount: i64) -> bool {
        self.posted - self.held() >= amount
    }

    fn end(&mut self, request: u8, cost: Option<i64>) {
        let (amount, checkpoint) = self.holds.remove(&request).unwrap();
        self.posted -= cost.or(checkpoint).unwrap_or(0).min(amount);
    }
}

struct World {
    fixture: Fixture,
    holds: BTreeMap<u8, Hold>,
    model: Model,
    attempts: u32,
}

impl World {
    async fn new() -> Self {
        let fixture = Fixture::with(0).await;
        World {
            fixture,
            holds: BTreeMap::new(),
            model: Model::default(),
            attempts: 0,
        }
    }

    async fn run(&mut self, step: &Step) {
        match *step {
            Step::Credit { key, amount } => self.credit(key, amount).await,
            Step::Hold { request, amount } if !self.holds.contains_key(&request) => {
                self.attempts += 1;
                let mut new = self.fixture.hold(&format!("r{request}"), amount);
                new.attempt = self.attempts;
                let hold = self.fixture.accounts.hold(new).unwrap().durable().await;
                assert_eq!(hold.is_ok(), self.model.fits(amount), "{hold:?}");
                if let Ok(hold) = hold {
                    self.holds.insert(request, hold);
                    self.model.holds.insert(request, (amount, None));
                }
            }
            Step::Extend { request, more } => {
                let Some(hold) = self.holds.get_mut(&request) else {
                    return;
                };
                let extended = self.fixture.accounts.extend(hold, nanos(more), at(2)).await;
                assert_eq!(extended.is_ok(), self.model.fits(more), "{extended:?}");
                if extended.is_ok() {
                    self.model.holds.get_mut(&request).unwrap().0 += more;
                }
                assert_eq!(hold.amount(), nanos(self.model.holds[&request].0));
            }
            Step::Checkpoint {
                request,
                tokens: prompt,
            } => {
                let Some(hold) = self.holds.get(&request) else {
                    return;
                };
                self.fixture
                    .accounts
                    .checkpoint(hold, tokens(prompt, 0), at(2));
                self.model.holds.get_mut(&request).unwrap().1 =
                    Some(i64::try_from(prompt).unwrap());
            }
            Step::Settle {
                request,
                tokens: prompt,
            } => {
                let Some(hold) = self.holds.remove(&request) else {
                    return;
                };
                let cost = i64::try_from(prompt).unwrap();
                let charged = self
                    .fixture
                    .accounts
                    .settle(hold, success(tokens(prompt, 0)))
                    .await
                    .unwrap();
                assert_eq!(charged.get(), cost.min(self.model.holds[&request].0));
                self.model.end(request, Some(cost));
            }
            Step::Release { request } => {
                let Some(hold) = self.holds.remove(&request) else {
                    return;
                };
                self.fixture.accounts.release(hold, at(3)).await.unwrap();
                self.model.end(request, Some(0));
            }
            Step::Drop { request } => {
                if self.holds.remove(&request).is_some() {
                    self.model.end(request, None);
                }
            }
            Step::Hold { .. } | Step::Crash => {}
        }
    }

    async fn credit(&mut self, key: u8, amount: i64) {
        let account = &self.fixture.caller.account;
        let credited = self
            .fixture
            .accounts
            .credit(account, nanos(amount), &format!("c{key}"), "", at(1))
            .await;
        match self.model.credits.get(&key) {
            Some(&first) => assert_eq!(
                credited.is_ok_and(|credited| credited.replayed),
                first == amount
            ),
            None => {
                credited.unwrap();
                self.model.credits.insert(key, amount);
                self.model.posted += amount;
            }
        }
    }

    async fn check(&self) {
        assert_eq!(
            self.fixture.balance().await,
            (self.model.posted, self.model.held())
        );
        assert!(self.model.fits(0));
        self.fixture.assert_books().await;
    }

    /// Lets the process die after its last write; another one takes over.
    fn crash(self, runtime: Runtime) -> (Self, Runtime) {
        let World {
            fixture,
            holds,
            mut model,
            attempts,
        } = self;
        let Fixture {
            folder,
            accounts,
            caller,
        } = fixture;
        drop(runtime);
        drop((accounts, holds));
        for request in model.holds.keys().copied().collect::<Vec<_>>() {
            model.end(request, None);
        }
        let runtime = runtime_of_one_thread();
        let accounts = runtime.block_on(recovered(folder.path(), &caller));
        let fixture = Fixture {
            folder,
            accounts,
            caller,
        };
        (
            World {
                fixture,
                holds: BTreeMap::new(),
                model,
                attempts,
            },
            runtime,
        )
    }
}

async fn recovered(folder: &std::path::Path, caller: &Caller) -> Accounts {
    let accounts = open(folder, Role::Server).await;
    long_after(folder).await;
    accounts.recover(at(4)).await.unwrap();
    assert_eq!(
        accounts
            .account(caller.account.as_str())
            .await
            .unwrap()
            .held,
        nanos(0)
    );
    accounts
}

fn runtime_of_one_thread() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    // Each case has a database of its own, which PostgreSQL takes longer to make.
    #![proptest_config(ProptestConfig { cases: if POSTGRES { 8 } else { 24 }, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_its_model(steps in proptest::collection::vec(step(), 1..40)) {
        let mut runtime = runtime_of_one_thread();
        let mut world = runtime.block_on(World::new());
        for step in &steps {
            if matches!(step, Step::Crash) {
                (world, runtime) = world.crash(runtime);
            }
            runtime.block_on(async {
                world.run(step).await;
                world.check().await;
            });
        }
    }
}
