//! An hour of random traffic of 50 accounts, with a virtual clock: one account that sends as much as it can doesn't make
//! the others wait.

#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy only knows those inside a function with #[test]"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use weir_engine::event::{self, Event, Events};
use weir_engine::request::{Input, Prompt, Request, Sampling, SamplingFields};
use weir_inference::local::{Core, Progress};
use weir_inference::model::{Capacity, Forks};
use weir_inference::prepared::PreparedRequest;
use weir_inference::sim::{self, LateMasks, SimModel, SimOptions};

const HOUR: Duration = Duration::from_secs(3_600);
/// Mean time between the requests of all well-behaved accounts together: about half of what the engine can do.
const BETWEEN_ARRIVALS: Duration = Duration::from_millis(1_500);
/// Requests that the flooding account has waiting or running, from the tenth minute on.
const FLOOD: usize = 1_000;
/// The fixed time of a step, as on two cores, …
const STEP: Duration = Duration::from_millis(8);
/// … and the time of each token of the batch.
const ROW: Duration = Duration::from_micros(2_500);

#[test]
fn one_account_does_not_make_the_others_wait() {
    check(Forks::Anywhere);
}

#[test]
fn one_account_does_not_make_the_others_wait_for_states() {
    check(Forks::AtEnd);
}

fn check(forks: Forks) {
    let (alone, _) = Hour::new(forks).run(false);
    let (beside, flood) = Hour::new(forks).run(true);
    assert!(alone.len() > 2_000 && alone.len() == beside.len());
    assert!(flood > 1_000, "the others leave room: {flood} answers");
    let (before, after) = (p99(alone), p99(beside));
    assert!(
        after <= before.mul_f64(1.3),
        "first token, p99: {before:?} without the one, {after:?} with it"
    );
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() * 99 / 100]
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A random number between 0 and 1, both excluded.
    fn unit(&mut self) -> f64 {
        (self.below(1 << 53) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

struct Hour {
    core: Core<SimModel>,
    now: Arc<AtomicU64>,
    random: Random,
    clients: Vec<Client>,
    first_tokens: Vec<Duration>,
    floods: Vec<Events>,
    flooded: usize,
}

struct Client {
    events: Events,
    arrived: Duration,
    has_begun: bool,
}

impl Hour {
    fn new(forks: Forks) -> Self {
        let model = SimModel::new(SimOptions {
            capacity: Capacity {
                forks,
                ..SimOptions::default().capacity
            },
            chat: false,
            end_probability: 0.01,
            ..SimOptions::default()
        });
        let (probe, now) = (model.probe(), Arc::new(AtomicU64::new(0)));
        let (mut rows, mut steps, shared) = (0, 0, Arc::clone(&now));
        let clock = move || {
            let took = STEP * u32::try_from(probe.steps() - steps).unwrap()
                + ROW * u32::try_from(probe.rows() - rows).unwrap();
            (steps, rows) = (probe.steps(), probe.rows());
            let took = u64::try_from(took.as_nanos()).unwrap();
            Duration::from_nanos(shared.fetch_add(took, Ordering::Relaxed) + took)
        };
        let masks = Box::new(LateMasks::default());
        Hour {
            core: Core::new(model, &sim::options(), masks, Box::new(clock)),
            now,
            random: Random(1),
            clients: Vec::new(),
            first_tokens: Vec::new(),
            floods: Vec::new(),
            flooded: 0,
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    /// Returns the times to first token of the well-behaved accounts, and the number of answers to the flooding account.
    fn run(mut self, with_flood: bool) -> (Vec<Duration>, usize) {
        let mut arrivals = self.arrivals().into_iter().peekable();
        let mut steps = 0;
        loop {
            let now = self.now();
            while let Some((at, prepared)) = arrivals.next_if(|(at, _)| *at <= now) {
                self.arrive(at, prepared);
            }
            // The flooding account reads only now and then: its channels hold 64 events.
            if with_flood && now >= HOUR / 6 && now < HOUR && steps % 32 == 0 {
                self.flood();
            }
            let progress = self.core.step();
            self.read();
            steps += 1;
            match arrivals.peek() {
                Some(&(at, _)) if progress != Progress::Stepped => {
                    let at = u64::try_from(at.as_nanos()).unwrap();
                    self.now.fetch_max(at, Ordering::Relaxed);
                }
                None if self.clients.is_empty() => return (self.first_tokens, self.flooded),
                _ => {}
            }
        }
    }

    /// Arrivals of the well-behaved accounts, which are the same with and without the flood.
    fn arrivals(&mut self) -> Vec<(Duration, PreparedRequest)> {
        let mut at = Duration::ZERO;
        let mut arrivals = Vec::new();
        while at < HOUR {
            at += BETWEEN_ARRIVALS.mul_f64(-self.random.unit().ln());
            let account = format!("account {}", self.random.below(49));
            arrivals.push((at, self.prepared(&account)));
        }
        arrivals
    }

    fn prepared(&mut self, account: &str) -> PreparedRequest {
        let length = 50 + self.random.below(350);
        let prompt: Vec<u32> = (0..length)
            .map(|_| 65 + u32::try_from(self.random.below(26)).unwrap())
            .collect();
        let seed = i64::try_from(self.random.below(1_000)).unwrap();
        let fields = SamplingFields {
            seed: Some(seed),
            ..SamplingFields::default()
        };
        let output_max = 20 + u32::try_from(self.random.below(100)).unwrap();
        let request = Request {
            sampling: Sampling::new(fields).unwrap(),
            ..Request::new(Input::Prompts(vec![Prompt::Tokens(prompt.clone())]))
        };
        PreparedRequest {
            account: account.into(),
            ..PreparedRequest::new(request, vec![prompt.into()], output_max)
        }
    }

    fn arrive(&mut self, arrived: Duration, prepared: PreparedRequest) {
        let (sender, events) = event::channel(event::EVENTS_MAX);
        self.core.start(prepared, sender);
        self.clients.push(Client {
            events,
            arrived,
            has_begun: false,
        });
    }

    fn flood(&mut self) {
        let before = self.floods.len();
        self.floods.retain_mut(|events| {
            loop {
                match events.next().now_or_never() {
                    Some(Some(Event::Failed(error))) => panic!("{error}"),
                    Some(Some(_)) => {}
                    Some(None) => return false,
                    None => return true,
                }
            }
        });
        self.flooded += before - self.floods.len();
        while self.floods.len() < FLOOD {
            let prepared = self.prepared("one");
            let (sender, events) = event::channel(event::EVENTS_MAX);
            self.core.start(prepared, sender);
            self.floods.push(events);
        }
    }

    fn read(&mut self) {
        let now = self.now();
        let first_tokens = &mut self.first_tokens;
        self.clients.retain_mut(|client| {
            loop {
                match client.events.next().now_or_never() {
                    Some(Some(Event::Failed(error))) => panic!("{error}"),
                    Some(Some(_)) => {
                        if !std::mem::replace(&mut client.has_begun, true) {
                            first_tokens.push(now - client.arrived);
                        }
                    }
                    Some(None) => return false,
                    None => return true,
                }
            }
        });
    }
}
