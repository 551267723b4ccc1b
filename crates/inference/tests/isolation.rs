//! Isolation of accounts. One account sends the heaviest loads it can, of several kinds, and another a short request now
//! and then. The first tokens of these requests come at most two steps later than on an idle engine, and none of these
//! steps takes longer than a limit.
//!
//! Time is virtual. The time of a step follows from the tokens of its batch, the KV cells that their attention reads, and
//! the tokens that are sampled and scored.

#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy only knows those inside a function with #[test]"
)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use weir_engine::event::{self, Allowance, Event, Events};
use weir_engine::request::{Choices, Input, Logprobs, Prompt, Request, Sampling, SamplingFields};
use weir_inference::constraint::{Cancel, Constraint, Constraints, Grammar};
use weir_inference::local::{CacheSharing, Core, Progress};
use weir_inference::model::{AsideCapacity, Batching, Capacity, Forks};
use weir_inference::prepared::PreparedRequest;
use weir_inference::sim::{self, LateMasks, SimModel, SimOptions, SimTokenizer};

/// Requests of the other account, one after the other.
const PROBES: usize = 200;
/// Their longest prompt, in tokens: it fits in one step, unless steps are slow.
const PROBE_TOKENS: u64 = 32;
/// Steps that a first token may take in addition to those on an idle engine.
const STEPS_MORE: u64 = 2;
/// Limit on the time of a step while one of these requests runs, …
const STEP_MAX: Duration = Duration::from_millis(500);
/// … and the limit where attention is slow: about the time of 32 tokens of the batch.
const SLOW_STEP_MAX: Duration = Duration::from_millis(1_800);
/// Steps of the load before the other account's first request.
const WARM_UP: u64 = 300;

/// The fixed time of a step, …
const STEP: Duration = Duration::from_millis(8);
/// … the time of each token of the batch, …
const ROW: Duration = Duration::from_micros(2_500);
/// … and that of each token whose logits are wanted.
const OUTPUT: Duration = Duration::from_micros(600);
/// Nanoseconds for each KV cell that a token's attention reads, with fused attention, …
const FUSED_CELL_NANOS: u64 = 200;
/// … and without: with a full cache a token takes twenty times as long as with an empty one.
const CELL_NANOS: u64 = 3_000;

/// The load of one account.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    /// Requests that wait or run at the same time.
    at_once: usize,
    prompts: usize,
    prompt_tokens: u64,
    /// Tokens with which all prompts begin.
    common_tokens: u64,
    choices: i64,
    output_max: u32,
    scored: bool,
    format: bool,
    reader: Reader,
}

#[derive(Clone, Copy, PartialEq)]
enum Reader {
    Reads,
    /// Reads no events, so that its sequences wait and keep all their KV cells.
    Sleeps,
    /// Hangs up after a few steps.
    Leaves,
    /// Pays for a few tokens, and for no more.
    Owes,
}

const PLAIN: Load = Load {
    name: "short prompts",
    at_once: 300,
    prompts: 1,
    prompt_tokens: 30,
    common_tokens: 0,
    choices: 1,
    output_max: 200,
    scored: false,
    format: false,
    reader: Reader::Reads,
};

const LOADS: &[Load] = &[
    PLAIN,
    Load {
        name: "long prompts",
        at_once: 50,
        prompt_tokens: 2_000,
        output_max: 1,
        ..PLAIN
    },
    Load {
        name: "prompts that are scored",
        at_once: 20,
        prompts: 64,
        prompt_tokens: 60,
        choices: 2,
        output_max: 16,
        scored: true,
        ..PLAIN
    },
    Load {
        name: "scores and nothing else",
        at_once: 50,
        prompt_tokens: 1_500,
        output_max: 0,
        scored: true,
        ..PLAIN
    },
    Load {
        name: "many choices",
        at_once: 20,
        choices: 128,
        ..PLAIN
    },
    Load {
        name: "formats",
        at_once: 100,
        format: true,
        ..PLAIN
    },
    Load {
        name: "open streams",
        at_once: 800,
        prompt_tokens: 10,
        output_max: 2_000,
        ..PLAIN
    },
    Load {
        name: "readers that sleep",
        at_once: 200,
        reader: Reader::Sleeps,
        ..PLAIN
    },
    Load {
        name: "few readers that sleep beside long prompts",
        at_once: 64,
        prompt_tokens: 250,
        reader: Reader::Sleeps,
        ..PLAIN
    },
    Load {
        name: "callers that leave",
        at_once: 200,
        prompt_tokens: 300,
        reader: Reader::Leaves,
        ..PLAIN
    },
    Load {
        name: "callers that don't pay",
        at_once: 200,
        reader: Reader::Owes,
        ..PLAIN
    },
    Load {
        name: "a long common beginning",
        at_once: 100,
        prompt_tokens: 1_000,
        common_tokens: 950,
        ..PLAIN
    },
];

fn capacity() -> Capacity {
    SimOptions::default().capacity
}

#[test]
fn nobody_waits_for_another_account() {
    check(capacity(), None, FUSED_CELL_NANOS);
}

#[test]
fn nobody_waits_for_another_account_where_its_cells_make_steps_slow() {
    check(capacity(), None, CELL_NANOS);
}

#[test]
fn nobody_waits_for_another_account_beside_prompts_that_are_computed_aside() {
    let aside = AsideCapacity {
        rows: 256,
        rows_min: 256,
        tokens: 4_096,
    };
    check(capacity(), Some(aside), FUSED_CELL_NANOS);
}

#[test]
fn nobody_waits_for_another_accounts_states() {
    let forks = Forks::AtEnd;
    check(
        Capacity {
            forks,
            ..capacity()
        },
        None,
        FUSED_CELL_NANOS,
    );
}

#[test]
fn nobody_waits_for_another_account_on_a_reproducible_engine() {
    let capacity = Capacity {
        cells: 16_384 * 8,
        sequences: 8,
        batching: Batching::OneSequence,
        ..capacity()
    };
    check(capacity, None, 0);
}

fn check(capacity: Capacity, aside: Option<AsideCapacity>, cell_nanos: u64) {
    let world = |load| World::new(capacity, aside, cell_nanos, load);
    let idle = world(None).run();
    let mut late = Vec::new();
    for load in LOADS {
        let beside = world(Some(*load)).run();
        let line = format!("{:45} {beside:?}", load.name);
        let more = beside.steps_p99.saturating_sub(idle.steps_p99);
        // Where attention is slow, a prompt takes several steps, and each of them should compute a part of it.
        let is_late = match cell_nanos {
            CELL_NANOS => beside.waits_p99 > STEPS_MORE || beside.step_max > SLOW_STEP_MAX,
            _ => more > STEPS_MORE || beside.step_max > STEP_MAX,
        };
        if is_late {
            late.push(line);
        }
    }
    assert!(
        late.is_empty(),
        "{idle:?} on an idle engine\n{}",
        late.join("\n")
    );
}

/// Measurements of the probes, up to their first tokens.
#[derive(Debug)]
#[expect(dead_code, reason = "a failure shows them all")]
struct Seen {
    steps_p99: u64,
    steps_max: u64,
    /// Steps that computed no token of the probe.
    waits_p99: u64,
    time_p50: Duration,
    time_p99: Duration,
    /// The longest step while a probe ran.
    step_max: Duration,
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

    fn tokens(&mut self, count: u64) -> impl Iterator<Item = u32> {
        (0..count).map(|_| 65 + u32::try_from(self.below(26)).unwrap())
    }
}

/// Measurements of one probe, up to its first token.
#[derive(Debug, Default)]
struct Probed {
    /// All steps.
    steps: u64,
    /// Steps that computed no token of the probe.
    waits: u64,
    time: Duration,
    longest: Duration,
}

struct World {
    core: Core<SimModel>,
    now: Arc<AtomicU64>,
    masks: LateMasks,
    random: Random,
    load: Option<Load>,
    running: Vec<(Events, u64)>,
    /// Receivers that are never read and never dropped.
    sleeping: Vec<Events>,
    steps: u64,
}

static FORMAT: LazyLock<Constraint> = LazyLock::new(|| {
    let constraints = Constraints::new(Arc::new(SimTokenizer));
    let grammar = Grammar::regex("[a-z ]*ü?");
    let compiled = constraints.compile(&grammar, &Cancel::default());
    compiled.unwrap().constraint
});

impl World {
    fn new(
        capacity: Capacity,
        aside: Option<AsideCapacity>,
        cell_nanos: u64,
        load: Option<Load>,
    ) -> Self {
        let model = SimModel::new(SimOptions {
            capacity,
            aside,
            chat: false,
            end_probability: 0.0,
            ..SimOptions::default()
        });
        let (probe, now) = (model.probe(), Arc::new(AtomicU64::new(0)));
        let shared = Arc::clone(&now);
        let mut before = probe.work();
        let clock = move || {
            let work = probe.work();
            let cells = cell_nanos * u64::from(probe.cells_used());
            let rows = u32::try_from(work.rows - before.rows).unwrap();
            let took = STEP * u32::try_from(work.steps - before.steps).unwrap()
                + ROW * rows
                + OUTPUT * u32::try_from(work.outputs - before.outputs).unwrap()
                + Duration::from_nanos(cells) * rows;
            before = work;
            let took = u64::try_from(took.as_nanos()).unwrap();
            Duration::from_nanos(shared.fetch_add(took, Ordering::Relaxed) + took)
        };
        let masks = LateMasks::default();
        let mut options = sim::options();
        options.prefix_cache = CacheSharing::Account;
        let core = Core::new(model, &options, Box::new(masks.clone()), Box::new(clock));
        World {
            core,
            now,
            masks,
            random: Random(1),
            load,
            running: Vec::new(),
            sleeping: Vec::new(),
            steps: 0,
        }
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.now.load(Ordering::Relaxed))
    }

    fn run(mut self) -> Seen {
        (0..WARM_UP).for_each(|_| {
            self.step();
        });
        let (mut steps, mut waits, mut times) = (Vec::new(), Vec::new(), Vec::new());
        let mut step_max = Duration::ZERO;
        for _ in 0..PROBES {
            for _ in 0..self.random.below(20) {
                self.step();
            }
            let probed = self.probe();
            steps.push(probed.steps);
            waits.push(probed.waits);
            times.push(probed.time);
            step_max = step_max.max(probed.longest);
        }
        steps.sort_unstable();
        waits.sort_unstable();
        times.sort_unstable();
        Seen {
            steps_p99: steps[PROBES * 99 / 100],
            steps_max: steps[PROBES - 1],
            waits_p99: waits[PROBES * 99 / 100],
            time_p50: times[PROBES / 2],
            time_p99: times[PROBES * 99 / 100],
            step_max,
        }
    }

    /// Measures how long a short request takes to its first token. The request ends with its fourth token.
    fn probe(&mut self) -> Probed {
        let length = 1 + self.random.below(PROBE_TOKENS);
        let prompt: Vec<u32> = self.random.tokens(length).collect();
        let request = Request {
            sampling: seeded(self.random.below(1_000)),
            ..Request::new(Input::Prompts(vec![Prompt::Tokens(prompt.clone())]))
        };
        let prepared = PreparedRequest {
            account: "two".into(),
            ..PreparedRequest::new(request, vec![prompt.into()], 4)
        };
        let (sender, mut events) = event::channel(event::EVENTS_MAX);
        let arrived = self.now();
        self.core.start(prepared, sender);
        let mut probed = Probed::default();
        let mut has_token = false;
        loop {
            let (began, stepped) = (self.now(), self.core.scheduler().stepped("two"));
            self.step();
            probed.longest = probed.longest.max(self.now() - began);
            if !has_token {
                has_token = events.usage().completion > 0;
                probed.steps += 1;
                probed.waits += u64::from(self.core.scheduler().stepped("two") == stepped);
                probed.time = self.now() - arrived;
            }
            assert!(probed.steps < 5_000, "a probe waits for ever");
            if !goes_on(&mut events) {
                return probed;
            }
        }
    }

    fn step(&mut self) -> Progress {
        if let Some(load) = self.load {
            self.keep_up(load);
        }
        // Computing a mask takes one step.
        (0..self.masks.waiting()).for_each(|_| self.masks.release(0));
        self.steps += 1;
        let progress = self.core.step();
        if progress != Progress::Stepped {
            // The engine thread would look again after 3 ms.
            self.now.fetch_add(3_000_000, Ordering::Relaxed);
        }
        progress
    }

    /// Reads the events that have come, and starts a new request for each that has ended.
    fn keep_up(&mut self, load: Load) {
        let steps = self.steps;
        if load.reader == Reader::Sleeps {
            while self.sleeping.len() < load.at_once {
                let (sender, events) = event::channel(event::EVENTS_MAX);
                let prepared = self.prepared(load);
                self.core.start(prepared, sender);
                self.sleeping.push(events);
            }
            return;
        }
        let leaves = load.reader == Reader::Leaves;
        self.running
            .retain_mut(|(events, since)| !(leaves && steps - *since > 6) && goes_on(events));
        while self.running.len() < load.at_once {
            let choices = usize::try_from(load.choices).unwrap() * load.prompts;
            let (sender, events) = event::channel(event::EVENTS_MAX.max(choices * 2 + 2));
            let prepared = self.prepared(load);
            self.core.start(prepared, sender);
            self.running.push((events, steps));
        }
    }

    fn prepared(&mut self, load: Load) -> PreparedRequest {
        let common: Vec<u32> = Random(7).tokens(load.common_tokens).collect();
        let own = load.prompt_tokens - load.common_tokens;
        let prompts: Vec<Vec<u32>> = (0..load.prompts)
            .map(|_| {
                common
                    .iter()
                    .copied()
                    .chain(self.random.tokens(own))
                    .collect()
            })
            .collect();
        let logprobs = load.scored.then(|| Logprobs::new("logprobs", 5).unwrap());
        let input = prompts.iter().cloned().map(Prompt::Tokens).collect();
        let request = Request {
            sampling: seeded(self.random.below(1_000)),
            choices: Choices::new(load.choices).unwrap(),
            echo: load.scored,
            logprobs,
            ..Request::new(Input::Prompts(input))
        };
        let allowance = match load.reader {
            Reader::Owes => Allowance::rolling(3),
            Reader::Reads | Reader::Sleeps | Reader::Leaves => Allowance::unlimited(),
        };
        let prompts = prompts.into_iter().map(Into::into).collect();
        PreparedRequest {
            account: "one".into(),
            allowance,
            constraint: load.format.then(|| FORMAT.clone()),
            ..PreparedRequest::new(request, prompts, load.output_max)
        }
    }
}

fn seeded(seed: u64) -> Sampling {
    let fields = SamplingFields {
        seed: Some(i64::try_from(seed).unwrap()),
        ..SamplingFields::default()
    };
    Sampling::new(fields).unwrap()
}

/// Reads all events that have come. Returns whether more can come.
fn goes_on(events: &mut Events) -> bool {
    loop {
        match events.next().now_or_never() {
            Some(Some(Event::Failed(error))) => panic!("{error}"),
            Some(Some(_)) => {}
            Some(None) => return false,
            None => return true,
        }
    }
}
