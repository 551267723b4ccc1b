//! A database, the processes that live and die on it, and the checks of its books.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::runtime::Runtime;
use weir_accounts::{Accounts, Nanos, Outcome, UsageRecord};
use weir_gateway::Clock;
use weir_testkit::torture::node::{location, options};
use weir_testkit::torture::{ACCOUNTS, Random};

use crate::journal::Journal;
use crate::judge::judge;
use crate::life::{End, Life, Plan};

/// The longest time that holds of dead processes may stay.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct World {
    seed: u64,
    random: Random,
    database: String,
    nodes: u64,
    lives: u64,
    /// The usage records at the last check: they must never change.
    records: BTreeMap<String, UsageRecord>,
    paid: BTreeMap<String, i64>,
}

/// Counts over all worlds.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ends: BTreeMap<End, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    requests: u64,
    checks: u64,
    /// For requests whose process died: tokens that were delivered, and those of them that weren't charged.
    cut_short: u64,
    lost: u64,
}

impl Tally {
    pub(crate) fn kills(&self) -> u64 {
        let deaths = self.ends.iter().filter(|(end, _)| **end != End::Drained);
        deaths.map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally {
            requests,
            checks,
            cut_short,
            lost,
            ..
        } = self;
        write!(
            f,
            "{} kills, {checks} checks of the books, {requests} requests {:?}, ",
            self.kills(),
            self.outcomes
        )?;
        write!(
            f,
            "{lost} of {cut_short} tokens lost to deaths; ends: {:?}",
            self.ends
        )
    }
}

impl World {
    pub(crate) fn new(seed: u64, database: String, nodes: u64) -> Self {
        World {
            seed,
            random: Random::new(seed),
            database,
            nodes,
            lives: 0,
            records: BTreeMap::new(),
            paid: BTreeMap::new(),
        }
    }

    /// Lets each node live and die once or a few times, then checks the books.
    pub(crate) fn episode(&mut self, tally: &mut Tally) {
        let plans: Vec<Vec<Plan>> = (0..self.nodes).map(|node| self.plan(node)).collect();
        let database = &self.database;
        let lives: Vec<Life> = std::thread::scope(|scope| {
            let nodes: Vec<_> = plans
                .into_iter()
                .map(|plans| {
                    scope.spawn(|| {
                        plans
                            .into_iter()
                            .map(|plan| plan.live(database))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            nodes
                .into_iter()
                .flat_map(|node| node.join().unwrap())
                .collect()
        });
        let runtime = Runtime::new().unwrap();
        runtime.block_on(self.check(&lives, tally));
        for life in lives {
            *tally.ends.entry(life.end).or_default() += 1;
        }
        tally.checks += 1;
    }

    fn plan(&mut self, node: u64) -> Vec<Plan> {
        let lives = self.random.between(1, 3);
        let mut plans = Vec::new();
        for n in 0..lives {
            let first = self.lives == 0;
            self.lives += 1;
            let name = format!("s{}n{node}l{}", self.seed, self.lives);
            plans.push(Plan::draw(name, &mut self.random, first, n > 0));
        }
        plans
    }

    async fn check(&mut self, lives: &[Life], tally: &mut Tally) {
        let accounts = self.recovered().await;
        let seed = self.seed;
        assert_eq!(
            accounts.verify().await.unwrap(),
            Vec::<String>::new(),
            "seed {seed}"
        );
        let journals: Vec<_> = lives
            .iter()
            .map(|life| (Journal::read(&life.facts), life))
            .collect();
        for (journal, _) in &journals {
            self.pay(&accounts, journal).await;
        }
        let records = self.records(&accounts, &journals).await;
        self.assert_earlier(&records);
        for (journal, life) in &journals {
            self.judge(journal, life, &records, tally);
        }
        let known: usize = journals
            .iter()
            .map(|(journal, _)| journal.requests.len())
            .sum();
        tally.requests += known as u64;
        let asked = |id: &String| {
            journals
                .iter()
                .any(|(journal, _)| journal.requests.contains_key(id))
        };
        let strange: Vec<_> = records
            .keys()
            .filter(|id| !self.records.contains_key(*id) && !asked(id))
            .collect();
        assert!(
            strange.is_empty(),
            "seed {seed}: nobody asked for {strange:?}"
        );
        self.records = records;
        accounts.close().await;
    }

    /// Each account's usage records. The account's balance must be its payments less its charges.
    async fn records(
        &self,
        accounts: &Accounts,
        journals: &[(Journal, &Life)],
    ) -> BTreeMap<String, UsageRecord> {
        let seed = self.seed;
        let mut records = BTreeMap::new();
        for name in ACCOUNTS {
            // An account doesn't exist if no process lived long enough to make it.
            let Ok(account) = accounts.account(name).await else {
                continue;
            };
            let found = accounts.usage(&account.id, u32::MAX).await.unwrap();
            let charged: i64 = found.iter().map(|record| record.cost.get()).sum();
            let paid = self.paid.get(name).copied().unwrap_or(0);
            assert_eq!(
                account.posted.get(),
                paid - charged,
                "seed {seed}: the balance of {name}"
            );
            for record in found {
                let id = record.request.clone();
                let asked = journals
                    .iter()
                    .find_map(|(journal, _)| journal.requests.get(&id));
                let right = asked.is_none_or(|request| request.account == name);
                assert!(right, "seed {seed}: {name} pays for {id}");
                assert!(
                    records.insert(id, record).is_none(),
                    "seed {seed}: charged twice"
                );
            }
        }
        records
    }

    /// Opens the database as a server does, and waits until nothing is held, since all dead processes are recovered.
    async fn recovered(&self) -> Accounts {
        let clock = Clock::system();
        let accounts = Accounts::open(options(location(&self.database)), clock.now())
            .await
            .unwrap();
        let recovering = async {
            loop {
                accounts.recover(clock.now()).await.unwrap();
                let all = accounts.accounts().await.unwrap();
                if all.iter().all(|account| account.held == Nanos::ZERO) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, recovering).await;
        assert!(waited.is_ok(), "seed {}: holds of the dead stay", self.seed);
        accounts
    }

    /// Repeats all payments: confirmed ones must be replays, others are made unless they were.
    async fn pay(&mut self, accounts: &Accounts, journal: &Journal) {
        for (payment, confirmed) in journal.payments.values() {
            let replayed = payment.make(accounts, Clock::system().now()).await;
            let lost = *confirmed && !replayed;
            assert!(!lost, "seed {}: {payment:?} is lost", self.seed);
            *self.paid.entry(payment.account.clone()).or_default() += payment.nanos;
        }
    }

    /// Asserts that records of earlier checks haven't changed.
    fn assert_earlier(&self, records: &BTreeMap<String, UsageRecord>) {
        for (id, record) in &self.records {
            assert_eq!(
                records.get(id),
                Some(record),
                "seed {}: it changed",
                self.seed
            );
        }
    }

    fn judge(
        &self,
        journal: &Journal,
        life: &Life,
        records: &BTreeMap<String, UsageRecord>,
        tally: &mut Tally,
    ) {
        for (id, request) in &journal.requests {
            let record = records.get(id);
            if let Err(why) = judge(journal, id, record, life.end == End::Drained) {
                panic!("seed {}, {} ({:?}): {why}", self.seed, life.node, life.end);
            }
            let outcome = match record {
                Some(record) => {
                    assert_eq!(record.attempt, 1);
                    record.outcome.name()
                }
                None if request.refused.is_some() => "refused",
                None => "released",
            };
            *tally.outcomes.entry(outcome).or_default() += 1;
            if [Outcome::Expired.name(), "released"].contains(&outcome) {
                let charged = record.map_or(0, |record| record.counts.completion);
                tally.cut_short += request.delivered();
                tally.lost += request.delivered() - charged;
            }
        }
    }
}
