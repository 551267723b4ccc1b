//! A simulation, from a seed, of nodes, a database and their faults: links that break, messages that are late or lost,
//! nodes that freeze, clocks that run up to a percent fast or slow, outages of every length.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Judge, Lease, Mark, Uptime, renew_every};

const SILENCE: Duration = Duration::from_secs(30);
const NODES: usize = 4;
/// The seeds that are tried. 20,000 have passed, once.
const SEEDS: u64 = 300;
/// The length of a run, in milliseconds.
const END: u64 = 900_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64, https://prng.di.unimi.it/splitmix64.c
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// Times at which something changes between good and bad, beginning with good.
struct Phases(Vec<u64>);

impl Phases {
    fn random(random: &mut Random, usual: u64, bad: u64) -> Self {
        let mut changes = Vec::new();
        let mut at = 0;
        while at < END {
            at += random.below(2 * usual) + 1;
            changes.push(at);
            at += random.below(2 * bad) + 1;
            changes.push(at);
        }
        Phases(changes)
    }

    fn never() -> Self {
        Phases(Vec::new())
    }

    fn is_good(&self, at: u64) -> bool {
        self.0.partition_point(|change| *change <= at) % 2 == 0
    }

    /// The first time at which it is good, `at` or later.
    fn good_from(&self, at: u64) -> u64 {
        match self.is_good(at) {
            true => at,
            false => self.0[self.0.partition_point(|change| *change <= at)],
        }
    }

    fn is_good_since(&self, begin: u64, at: u64) -> bool {
        self.is_good(begin) && !self.0.iter().any(|change| (begin..=at).contains(change))
    }
}

struct SimNode {
    /// Milliseconds of the node's clock in a simulated second, and where its clock begins.
    rate: u64,
    offset: u64,
    uptime: Arc<AtomicU64>,
    lease: Arc<Lease>,
    judge: Judge,
    link: Phases,
    awake: Phases,
    names: u64,
}

impl SimNode {
    fn local(&self, at: u64) -> Duration {
        Duration::from_millis(self.offset + at * self.rate / 1000)
    }

    /// The end of a lease in simulated time: until then the node hands out tokens.
    fn delivers_until(&self, lease: &Lease) -> u64 {
        let until_ms = lease.until.load(Ordering::Relaxed).div_ceil(1_000_000);
        until_ms.saturating_sub(self.offset) * 1000 / self.rate
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Wake,
    /// A renewal arrives at the database: of the lease with this name, asked for at this local time.
    Renew(String, Duration),
    /// The answer to a renewal arrives: whether the row was there.
    Renewed(String, Duration, bool),
    /// A query for the other nodes' rows arrives at the database.
    Look(Duration),
    Looked(Duration, Vec<(String, Mark)>),
    Bury(String, Mark),
}

/// A time, a number that makes the order unique, a node, and a step.
type Due = Reverse<(u64, u64, usize, Step)>;

struct World {
    random: Random,
    nodes: Vec<SimNode>,
    database: Phases,
    rows: HashMap<String, Mark>,
    /// By name: the node and the lease; then when the name's holds were ended.
    leases: HashMap<String, (usize, Arc<Lease>)>,
    ended: HashMap<String, u64>,
    due: BinaryHeap<Due>,
    count: u64,
    late: bool,
}

impl World {
    fn new(seed: u64, faults: bool) -> Self {
        let mut random = Random(seed);
        let phases = |random: &mut Random, usual, bad| match faults {
            true => Phases::random(random, usual, bad),
            false => Phases::never(),
        };
        let lengths = [2_000, 20_000, 30_000, 60_000];
        let bad = lengths[usize::try_from(random.below(4)).unwrap()];
        let database = phases(&mut random, 120_000, bad);
        let mut world = World {
            nodes: Vec::new(),
            database,
            rows: HashMap::new(),
            leases: HashMap::new(),
            ended: HashMap::new(),
            due: BinaryHeap::new(),
            count: 0,
            late: faults,
            random,
        };
        for number in 0..NODES {
            let random = &mut world.random;
            let uptime = Arc::new(AtomicU64::new(0));
            let read = Arc::clone(&uptime);
            let clock =
                Uptime::from_fn(move || Duration::from_millis(read.load(Ordering::Relaxed)));
            let node = SimNode {
                rate: 990 + random.below(21),
                offset: random.below(1_000_000_000),
                lease: Arc::new(Lease::new("none".into(), clock, Duration::ZERO)),
                uptime,
                judge: Judge::new(SILENCE),
                link: phases(random, 100_000, bad),
                awake: phases(random, 150_000, bad),
                names: 0,
            };
            world.nodes.push(node);
            world.register(number, 0);
            let first = world.random.below(5_000);
            world.schedule(first, number, Step::Wake);
        }
        world
    }

    fn schedule(&mut self, at: u64, node: usize, step: Step) {
        self.count += 1;
        self.due.push(Reverse((at, self.count, node, step)));
    }

    /// How long a message takes, in milliseconds; some take up to 5 s, as a statement may.
    fn latency(&mut self) -> u64 {
        match self.late && self.random.chance(3) {
            true => self.random.below(5_000),
            false => self.random.below(20),
        }
    }

    fn is_connected(&self, number: usize, at: u64) -> bool {
        self.database.is_good(at) && self.nodes[number].link.is_good(at)
    }

    /// Sends a step to the database. It may be lost on the way.
    fn send(&mut self, at: u64, number: usize, step: Step) {
        let arrives = at + self.latency();
        if self.is_connected(number, at) && self.is_connected(number, arrives) {
            self.schedule(arrives, number, step);
        }
    }

    /// Sends the database's answer to a node. A frozen node sees it when it wakes.
    fn answer(&mut self, at: u64, number: usize, step: Step) {
        let arrives = at + self.latency();
        if self.is_connected(number, arrives) {
            let seen = self.nodes[number].awake.good_from(arrives);
            self.schedule(seen, number, step);
        }
    }

    fn register(&mut self, number: usize, at: u64) {
        let node = &mut self.nodes[number];
        node.names += 1;
        let name = format!("n{number}-{}", node.names);
        let lease = Lease::new(
            name.as_str().into(),
            node.lease.uptime.clone(),
            Duration::ZERO,
        );
        lease.renew(node.local(at), SILENCE);
        node.lease = Arc::new(lease);
        self.rows.insert(name.clone(), [0, 0]);
        self.leases
            .insert(name, (number, Arc::clone(&self.nodes[number].lease)));
    }

    fn run(&mut self) {
        while let Some(Reverse((at, _, number, step))) = self.due.pop() {
            if at > END {
                return;
            }
            self.step(at, number, step);
        }
    }

    fn step(&mut self, at: u64, number: usize, step: Step) {
        let node = &self.nodes[number];
        let local = node.local(at);
        let millis = u64::try_from(local.as_millis()).unwrap();
        node.uptime.store(millis, Ordering::Relaxed);
        match step {
            Step::Wake => self.wake(at, number, local),
            Step::Renew(name, asked_at) => {
                let row = self.rows.get_mut(&name);
                let there = row.map(|mark| mark[0] += 1).is_some();
                self.answer(at, number, Step::Renewed(name, asked_at, there));
            }
            Step::Renewed(name, asked_at, true) => {
                let lease = Arc::clone(&self.leases[&name].1);
                lease.renew(asked_at, SILENCE);
                self.check(&name);
                self.send(at, number, Step::Look(local));
            }
            Step::Renewed(name, _, false) => {
                self.leases[&name].1.lose();
                if *self.nodes[number].lease.name == name {
                    self.register(number, at);
                }
            }
            Step::Look(asked_at) => {
                let own = Arc::clone(&self.nodes[number].lease.name);
                let others = self.rows.iter().filter(|(name, _)| ***name != *own);
                let others = others.map(|(name, mark)| (name.clone(), *mark));
                let others = others.collect();
                self.answer(at, number, Step::Looked(asked_at, others));
            }
            Step::Looked(asked_at, others) => {
                for (name, mark) in self.nodes[number].judge.look(asked_at, local, others) {
                    self.send(at, number, Step::Bury(name, mark));
                }
            }
            Step::Bury(name, mark) => {
                if self.rows.get(&name) == Some(&mark) {
                    self.rows.remove(&name);
                    self.bury(at, &name);
                }
            }
        }
    }

    fn wake(&mut self, at: u64, number: usize, local: Duration) {
        let node = &self.nodes[number];
        let name = node.lease.name.to_string();
        let pause = u64::try_from(renew_every(SILENCE).as_millis()).unwrap();
        let next = node.awake.good_from(at + pause);
        if node.awake.is_good(at) {
            self.send(at, number, Step::Renew(name, local));
        }
        self.schedule(next, number, Step::Wake);
    }

    /// A node's holds are ended: checks that it hands out nothing from now on, and that it was not healthy.
    fn bury(&mut self, at: u64, name: &str) {
        self.ended.insert(name.to_owned(), at);
        self.check(name);
        let (number, _) = self.leases[name];
        let begin = at.saturating_sub(45_000);
        let node = &self.nodes[number];
        let well = node.awake.is_good_since(begin, at)
            && node.link.is_good_since(begin, at)
            && self.database.is_good_since(begin, at);
        assert!(!well, "{name} was well and is taken for dead at {at}");
    }

    fn check(&self, name: &str) {
        let Some(&ended) = self.ended.get(name) else {
            return;
        };
        let (number, lease) = &self.leases[name];
        let until = self.nodes[*number].delivers_until(lease);
        assert!(
            until <= ended || lease.is_lost(),
            "{name} hands out until {until}, and its holds were ended at {ended}"
        );
    }
}

#[test]
fn nobody_hands_out_what_another_has_ended() {
    let mut ended = 0;
    for seed in 0..SEEDS {
        let mut world = World::new(seed, true);
        world.run();
        ended += world.ended.len();
    }
    assert!(ended > 100, "something happened: {ended}");
}

#[test]
fn the_healthy_live() {
    for seed in 0..20 {
        let mut world = World::new(seed, false);
        world.run();
        assert!(world.ended.is_empty(), "seed {seed}");
        assert!(world.rows.values().all(|mark| mark[0] > 150), "seed {seed}");
    }
}

/// Outages of the database, of every length, which all nodes see: no node is taken for dead.
#[test]
fn an_outage_is_nobodys_death() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, false);
        let length = 1 + seed * 60_000 / SEEDS;
        world.database = Phases::random(&mut world.random, 90_000, length);
        world.run();
        assert!(world.ended.is_empty(), "seed {seed}: {:?}", world.ended);
    }
}

/// A node that is gone for good is found dead in time.
#[test]
fn the_dead_are_found() {
    for seed in 0..50 {
        let mut world = World::new(seed, false);
        let gone = 100_000 + world.random.below(100_000);
        world.nodes[0].link = Phases(vec![gone]);
        world.run();
        let found = world.ended["n0-1"];
        assert!(
            (gone..gone + 45_000).contains(&found),
            "seed {seed}: {gone}, {found}"
        );
        assert_eq!(world.ended.len(), 1, "seed {seed}");
    }
}
