//! The whole engine except its thread, driven by a seed: random arrivals, sizes, cancellations, slow readers, small
//! allowances, and a KV cache that says it is full when it isn't. Invariants are checked after every step.
//!
//! `WEIR_SIM_SEEDS=100000 cargo sim` tries more seeds; `WEIR_SIM_SEED=17` replays one seed.

#![expect(
    clippy::unwrap_used,
    reason = "a test; clippy only knows those inside a function with #[test]"
)]

use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures::FutureExt;
use weir_engine::event::{
    self, Allowance, Channel, Event, Events, FinishReason, TokenLogprob, Usage,
};
use weir_engine::request::{
    Choices, Input, Logprobs, Prompt, Request, Sampling, SamplingFields, Stop,
};
use weir_inference::constraint::{Cancel, Constraint, Constraints, Grammar};
use weir_inference::local::{CacheSharing, Core, Progress, Speculation};
use weir_inference::model::{AsideCapacity, Batching, Capacity, Forks, Tokenizer};
use weir_inference::prepared::PreparedRequest;
use weir_inference::scheduler::{Drafted, RequestId};
use weir_inference::sim::{self, Faults, LateMasks, SimModel, SimOptions, SimTokenizer, Solo};

const SEEDS: u64 = 600;
/// The number of tests among which the seeds are divided, so that they run in parallel.
const HANDS: u64 = 4;

#[test]
fn nothing_is_lost_whatever_happens_0() {
    simulate(0);
}

#[test]
fn nothing_is_lost_whatever_happens_1() {
    simulate(1);
}

#[test]
fn nothing_is_lost_whatever_happens_2() {
    simulate(2);
}

#[test]
fn nothing_is_lost_whatever_happens_3() {
    simulate(3);
}

fn simulate(hand: u64) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    if let Some(seed) = number("WEIR_SIM_SEED") {
        return World::new(seed).run(&mut Seen::default());
    }
    let mut seen = Seen::default();
    for seed in (0..number("WEIR_SIM_SEEDS").unwrap_or(SEEDS)).filter(|seed| seed % HANDS == hand) {
        let blame = Blame(seed);
        World::new(seed).run(&mut seen);
        drop(blame);
    }
    // A simulation in which little happens proves nothing.
    assert!(
        seen.forks > 300
            && seen.preemptions > 50
            && seen.faults > 60
            && seen.parked > 100
            && seen.cached > 300
            && seen.cached_at_ends > 30
            && seen.failed > 10
            && seen.cut > 50
            && seen.turns_aside > 300
            && seen.accepted > 50
            && seen.drafted > seen.accepted + 20,
        "{seen:?}"
    );
}

static CONSTRAINTS: LazyLock<Vec<Constraint>> = LazyLock::new(|| {
    let constraints = Constraints::new(Arc::new(SimTokenizer));
    let object = serde_json::json!({
        "type": "object",
        "properties": {
            "a": { "enum": ["x", "yy", null] },
            "b": { "type": "integer", "minimum": 0, "maximum": 99 },
        },
        "required": ["a"],
        "additionalProperties": false,
    });
    let grammars = [
        Grammar::json_object(),
        Grammar::json_schema(&object),
        Grammar::json_schema(&serde_json::json!({ "type": "boolean" })),
        Grammar::regex("[a-z ]*ü?"),
    ];
    let compile = |grammar| constraints.compile(grammar, &Cancel::default()).unwrap();
    grammars
        .iter()
        .map(|grammar| compile(grammar).constraint)
        .collect()
});

/// Totals of all simulations.
#[derive(Debug, Default)]
struct Seen {
    forks: u64,
    preemptions: u64,
    faults: u64,
    /// Steps in which every sequence that could go on waited for its mask.
    parked: u64,
    /// Prompt tokens that were in the prefix cache.
    cached: u64,
    /// The part of `cached` of models whose sequences fork only at their end.
    cached_at_ends: u64,
    /// Requests that failed because the KV cache was lost.
    failed: u64,
    /// Sequences that were cut, and so kept only a part of their KV cells, in simulations without draft tokens.
    cut: u64,
    /// Turns of background prefill.
    turns_aside: u64,
    /// Draft tokens that were computed.
    drafted: u64,
    /// Draft tokens that were accepted.
    accepted: u64,
}

/// Prints the seed if a simulation panics.
struct Blame(u64);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("the simulation failed: WEIR_SIM_SEED={}\n", self.0),
            );
        }
    }
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

    fn within(&mut self, range: Range<u32>) -> u32 {
        range.start + u32::try_from(self.next() % u64::from(range.end - range.start)).unwrap()
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.within(0..100) < percent
    }

    fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.within(0..u32::try_from(items.len()).unwrap()) as usize]
    }
}

struct World {
    random: Random,
    model: SimOptions,
    prefix_cache: CacheSharing,
    core: Core<SimModel>,
    masks: LateMasks,
    /// The percentage of masks that are ready one step after they were requested.
    masks_percent: u32,
    parked: u64,
    clients: Vec<Client>,
    arrivals_left: u32,
    arrival_percent: u32,
    steps: u64,
}

struct Client {
    request: RequestId,
    prepared: PreparedRequest,
    events: Option<Events>,
    reader: Reader,
    payer: Payer,
    answers: Vec<Answer>,
    usage: Option<Usage>,
    /// Whether the KV cache may be lost. A request in the step that loses it fails.
    may_fail: bool,
    has_failed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Reader {
    Eager,
    /// Reads one event in this percentage of steps.
    Slow(u32),
    /// Hangs up after about this many steps.
    Leaves(u32),
}

#[derive(Debug, Clone, Copy)]
enum Payer {
    Unlimited,
    /// Pays for one more token in some steps.
    Slow,
    /// Pays for a few tokens, and for no more.
    Stops,
}

#[derive(Debug, Default)]
struct Answer {
    text: String,
    tokens: u64,
    logprobs: Vec<TokenLogprob>,
    finished: Option<FinishReason>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let cells = random.one_of(&[12, 40, 100, 100, 160]);
        let rows = random.one_of(&[1, 3, 8, 32]);
        let sequences = random.one_of(&[1, 2, 3, 8, 20]);
        let outputs = random.one_of(&[1, 4, 20]).min(rows);
        let batching = random.one_of(&[
            Batching::Together,
            Batching::Together,
            Batching::OneSequence,
        ]);
        let (all_cells, cache_full_probability) = match batching {
            Batching::Together => (cells, random.one_of(&[0.0, 0.0, 0.05, 0.3])),
            // Each sequence has the cells of a whole context. Its logits depend on the steps that computed it.
            Batching::OneSequence => (cells * sequences, 0.0),
        };
        let forks = match batching {
            Batching::Together => random.one_of(&[Forks::Anywhere, Forks::AtEnd]),
            Batching::OneSequence => Forks::Anywhere,
        };
        let aside = match (batching, forks) {
            (Batching::Together, Forks::Anywhere) => random.one_of(&[
                None,
                Some(AsideCapacity {
                    rows: 24,
                    rows_min: 6,
                    tokens: cells / 2,
                }),
                Some(AsideCapacity {
                    rows: 5,
                    rows_min: 0,
                    tokens: u32::MAX,
                }),
            ]),
            _ => None,
        };
        let lost_probability = match forks {
            Forks::Anywhere => 0.0,
            Forks::AtEnd => random.one_of(&[0.0, 0.0, 0.02]),
        };
        let capacity = Capacity {
            cells: all_cells,
            sequences,
            rows,
            outputs,
            batching,
            forks,
        };
        let model = SimOptions {
            seed,
            capacity,
            context_tokens: cells,
            end_probability: random.one_of(&[0.0, 0.02, 0.2]),
            habit: random.one_of(&[0.0, 0.9, 0.98, 0.98]),
            noise: false,
            chat: false,
            aside,
            faults: Faults {
                cache_full_probability,
                lost_probability,
                ..Faults::default()
            },
        };
        let mut options = sim::options();
        options.output_expected = random.one_of(&[0, 4, 16]);
        options.prefix_cache = random.one_of(&[
            CacheSharing::Account,
            CacheSharing::Account,
            CacheSharing::Everybody,
            CacheSharing::Off,
        ]);
        options.speculation = random.one_of(&[
            Speculation::Ngram,
            Speculation::Ngram,
            Speculation::Ngram,
            Speculation::Off,
        ]);
        // Every reader reads on before the end.
        options.write_timeout = Duration::MAX;
        let mut now = Duration::ZERO;
        let clock = move || {
            now += Duration::from_millis(30);
            now
        };
        let masks = LateMasks::default();
        let core = Core::new(
            SimModel::new(model.clone()),
            &options,
            Box::new(masks.clone()),
            Box::new(clock),
        );
        World {
            core,
            prefix_cache: options.prefix_cache,
            masks,
            masks_percent: random.one_of(&[100, 60, 5]),
            parked: 0,
            model,
            clients: Vec::new(),
            arrivals_left: random.within(1..25),
            arrival_percent: random.one_of(&[2, 20, 100]),
            random,
            steps: 0,
        }
    }

    fn run(mut self, seen: &mut Seen) {
        while self.arrivals_left > 0 {
            if self.random.percent(self.arrival_percent) {
                self.arrive();
            }
            self.step();
        }
        for client in &mut self.clients {
            client.settle_down();
        }
        // Faults make steps fail, and a small cache makes them short, but not forever.
        let steps_max = self.steps + 200_000;
        while self.step() != Progress::Idle {
            assert!(
                self.steps < steps_max,
                "it goes on and on: {:?}",
                self.model
            );
        }
        self.check_end();
        let model = self.core.model().probe();
        seen.forks += model.forks();
        seen.faults += model.faults();
        seen.turns_aside += model.turns_aside();
        seen.preemptions += self.core.scheduler().preemptions();
        seen.parked += self.parked;
        let cached = self.clients.iter().map(Client::cached).sum::<u64>();
        seen.cached += cached;
        if self.model.capacity.forks == Forks::AtEnd {
            seen.cached_at_ends += cached;
        }
        let failed = self.clients.iter().filter(|client| client.has_failed);
        seen.failed += failed.count() as u64;
        let drafted = self.core.scheduler().drafted();
        seen.drafted += drafted.drafted;
        seen.accepted += drafted.accepted;
        if drafted == Drafted::default() {
            seen.cut += model.cuts();
        }
    }

    fn arrive(&mut self) {
        self.arrivals_left -= 1;
        let prepared = self.prepared();
        let choices = usize::try_from(prepared.choices()).unwrap();
        let capacity = (choices * 2 + 2).max(self.random.one_of(&[0, event::EVENTS_MAX]));
        let (sender, events) = event::channel(capacity);
        let request = self.core.start(prepared.clone(), sender);
        let twice = self.clients.iter().any(|client| client.request == request);
        assert!(!twice, "{request:?} is given twice");
        let within = self.random.within(1..80);
        let reader = self.random.one_of(&[
            Reader::Eager,
            Reader::Eager,
            Reader::Slow(within),
            Reader::Leaves(within),
        ]);
        let payer = if !prepared.allowance.is_closed() {
            self.random.one_of(&[Payer::Slow, Payer::Stops])
        } else {
            Payer::Unlimited
        };
        let answers = (0..choices).map(|_| Answer::default()).collect();
        self.clients.push(Client {
            request,
            prepared,
            events: Some(events),
            reader,
            payer,
            answers,
            usage: None,
            may_fail: self.model.faults.lost_probability > 0.0,
            has_failed: false,
        });
    }

    fn prepared(&mut self) -> PreparedRequest {
        let random = &mut self.random;
        let context = self.model.context_tokens;
        let choices = random.one_of(&[1, 1, 1, 2, 3, 8]);
        let longest = random.within(1..context + 1);
        let prompts: Vec<Arc<[u32]>> = (0..random.one_of(&[1, 1, 1, 3]))
            .map(|_| {
                let length = random.within(1..longest + 1);
                let mut prompt = Vec::new();
                if random.percent(60) && !self.clients.is_empty() {
                    // The next turn of a conversation, or a prompt with the same beginning.
                    let which = random.within(0..u32::try_from(self.clients.len()).unwrap());
                    prompt = self.clients[which as usize].said(&self.model);
                    prompt.truncate(length as usize);
                    if random.percent(30) {
                        prompt.truncate(random.within(0..length) as usize);
                    }
                    while text(&prompt).is_none() {
                        prompt.pop();
                    }
                }
                // Only few different tokens, so that prompts often begin alike.
                let rest = length as usize - prompt.len();
                prompt.extend((0..rest).map(|_| 70 + random.within(0..2)));
                prompt.into()
            })
            .collect();
        let echoed = prompts.iter().map(|prompt| Prompt::Tokens(prompt.to_vec()));
        let echoed = echoed.collect();
        let room = context
            - u32::try_from(prompts.iter().map(|prompt| prompt.len()).max().unwrap()).unwrap();
        let temperature = random.one_of(&[0.0, 1.0]);
        let seed = i64::from(random.within(0..1000));
        let fields = SamplingFields {
            temperature: Some(temperature),
            seed: Some(seed),
            ..SamplingFields::default()
        };
        let stop = if random.percent(20) {
            vec![" weir".to_owned(), "ü".to_owned()]
        } else {
            vec![]
        };
        let allowance = if random.percent(70) {
            Allowance::unlimited()
        } else {
            Allowance::rolling(u64::from(random.within(0..10)))
        };
        let request = Request {
            sampling: Sampling::new(fields).unwrap(),
            stop: Stop::new(stop).unwrap(),
            choices: Choices::new(choices).unwrap(),
            logprobs: random
                .percent(30)
                .then(|| Logprobs::new("", i64::from(random.one_of(&[0, 3]))).unwrap()),
            echo: random.percent(30),
            ..Request::new(Input::Prompts(echoed))
        };
        let account = random.one_of(&["a", "a", "b"]);
        PreparedRequest {
            constraint: random.percent(30).then(|| {
                let which = random.within(0..u32::try_from(CONSTRAINTS.len()).unwrap());
                CONSTRAINTS[which as usize].clone()
            }),
            allowance,
            account: account.into(),
            weight: NonZeroU32::new(if account == "b" { 2 } else { 1 }).unwrap(),
            ..PreparedRequest::new(request, prompts, random.within(0..room + 1))
        }
    }

    fn step(&mut self) -> Progress {
        self.steps += 1;
        let ready = self
            .clients
            .iter_mut()
            .fold(false, |ready, client| client.act(&mut self.random) | ready);
        let held_back = self.masks.waiting() > 0;
        let progress = self.core.step();
        self.parked += u64::from(held_back && progress == Progress::Blocked);
        for _ in 0..self.masks.waiting() {
            if self.random.percent(self.masks_percent) {
                let which = self.random.within(0..1000);
                self.masks.release(which as usize);
            }
        }
        let waiting = self.core.load().requests;
        assert!(
            waiting
                <= self
                    .clients
                    .iter()
                    .filter(|client| !client.is_over())
                    .count()
        );
        // A sequence that waits for a mask keeps its KV cells, and a complete text needs no step.
        if ready && !held_back {
            assert_eq!(
                progress,
                Progress::Stepped,
                "somebody is ready, but nothing is computed"
            );
        }
        for client in self.clients.iter().filter(|client| client.events.is_none()) {
            assert!(
                !self.core.scheduler().knows(client.request),
                "{:?} is computed for nobody",
                client.request
            );
        }
        let (kv, model) = (self.core.scheduler().kv(), self.core.model().probe());
        assert_eq!(
            kv.used_cells(),
            model.cells_used(),
            "cells are counted wrong"
        );
        let held = self.model.capacity.sequences as usize - kv.free_sequences();
        assert!(
            model.sequences_used() as usize <= held,
            "a sequence is held by nobody"
        );
        progress
    }

    fn check_end(&mut self) {
        let kv = self.core.scheduler().kv();
        assert_eq!(kv.used_cells(), kv.idle_cells(), "cells have leaked");
        assert_eq!(
            kv.free_sequences() + self.core.scheduler().kept(),
            self.model.capacity.sequences as usize,
            "sequences have leaked"
        );
        if self.prefix_cache == CacheSharing::Off {
            assert_eq!(kv.used_cells(), 0, "something is kept");
        }
        for client in &mut self.clients {
            client.check_end(&self.model);
        }
        self.check_cached();
    }

    /// No request has more cached tokens than it has in common with others of the account, or than its prompts have in
    /// common with each other.
    fn check_cached(&self) {
        for client in &self.clients {
            let others = self.clients.iter().filter(|other| {
                other.request != client.request
                    && match self.prefix_cache {
                        CacheSharing::Account => other.prepared.account == client.prepared.account,
                        CacheSharing::Everybody => true,
                        CacheSharing::Off => false,
                    }
            });
            let prompts = &client.prepared.prompts;
            let mut known: Vec<Vec<u32>> = others
                .flat_map(|other| other.all_said(&self.model))
                .collect();
            if self.prefix_cache != CacheSharing::Off && prompts.len() > 1 {
                known.extend(client.all_said(&self.model));
            }
            let most: u64 = prompts
                .iter()
                .map(|prompt| {
                    let common = known.iter().map(|known| {
                        let both = prompt.iter().zip(known);
                        both.take_while(|(a, b)| a == b).count()
                    });
                    common.max().unwrap_or(0).min(prompt.len() - 1) as u64
                })
                .sum();
            assert!(
                client.cached() <= most,
                "{} tokens are said to be cached, {most} can be",
                client.cached()
            );
        }
    }
}

impl Client {
    fn cached(&self) -> u64 {
        self.usage.map_or(0, |usage| usage.cached)
    }

    /// The first choice's prompt with its answer.
    fn said(&self, model: &SimOptions) -> Vec<u32> {
        self.all_said(model).swap_remove(0)
    }

    fn all_said(&self, model: &SimOptions) -> Vec<Vec<u32>> {
        let choices = 0..u32::try_from(self.prepared.choices()).unwrap();
        choices
            .map(|choice| {
                let answer = solo(model, &self.prepared, choice, self.prepared.output_max);
                let prompt = prompt(&self.prepared, choice).iter().copied();
                prompt.chain(answer.spoken).collect()
            })
            .collect()
    }

    /// Reads, pays or hangs up. Returns whether the next step must compute something for this client.
    fn act(&mut self, random: &mut Random) -> bool {
        let paid = match self.payer {
            Payer::Unlimited => true,
            Payer::Slow | Payer::Stops => {
                let allowance = &self.prepared.allowance;
                match self.payer {
                    Payer::Slow if random.percent(30) => allowance.raise(1),
                    Payer::Stops if random.percent(10) => allowance.close(),
                    Payer::Slow | Payer::Stops | Payer::Unlimited => {}
                }
                let generated = self
                    .events
                    .as_ref()
                    .map_or(0, |events| events.usage().completion);
                allowance.tokens() > generated || self.prepared.output_max == 0
            }
        };
        let eager = match self.reader {
            Reader::Eager => true,
            Reader::Slow(percent) => {
                if random.percent(percent) {
                    self.read();
                }
                false
            }
            Reader::Leaves(0) => {
                self.events = None;
                return false;
            }
            Reader::Leaves(steps) => {
                self.reader = Reader::Leaves(steps - 1);
                true
            }
        };
        while eager && self.read() {}
        let free = self.prepared.constraint.is_none();
        eager && paid && free && !self.is_over()
    }

    /// Whether the last event was read.
    fn is_over(&self) -> bool {
        self.usage.is_some() || self.has_failed
    }

    fn settle_down(&mut self) {
        if self.events.is_some() {
            self.reader = Reader::Eager;
        }
        if let Payer::Slow = self.payer {
            self.prepared.allowance.raise(1_000_000);
            self.payer = Payer::Unlimited;
        }
    }

    /// Reads one event. Returns whether there was one.
    fn read(&mut self) -> bool {
        let Some(Some(event)) = self
            .events
            .as_mut()
            .and_then(|events| events.next().now_or_never())
        else {
            return false;
        };
        assert!(!self.is_over(), "{event:?} comes after the last event");
        match event {
            Event::Text {
                choice,
                text,
                tokens,
                logprobs,
                channel,
                ids: _,
            } => {
                let answer = &mut self.answers[choice as usize];
                assert_eq!(channel, Channel::Content);
                assert_eq!(answer.finished, None, "text of a choice that has ended");
                assert!(!text.is_empty() || !logprobs.is_empty(), "an empty event");
                answer.logprobs.extend(logprobs);
                answer.text.push_str(&text);
                answer.tokens += u64::from(tokens);
            }
            Event::Prompt { .. } => panic!("a prompt that nobody wants to know"),
            Event::Call { .. } => panic!("a call that nobody asked for"),
            Event::Finished { choice, reason } => {
                let before = self.answers[choice as usize].finished.replace(reason);
                assert_eq!(before, None, "choice {choice} ends twice");
            }
            Event::Done(usage) => {
                let missing = self.answers.iter().any(|answer| answer.finished.is_none());
                assert!(!missing, "done before all choices are");
                self.usage = Some(usage);
            }
            Event::Failed(error) => {
                assert!(self.may_fail, "{error}");
                self.has_failed = true;
            }
        }
        true
    }

    fn check_end(&mut self, model: &SimOptions) {
        while self.read() {}
        let Some(events) = &mut self.events else {
            return;
        };
        assert_eq!(
            events.next().now_or_never(),
            Some(None),
            "the channel outlives the generation"
        );
        if self.has_failed {
            return;
        }
        let usage = self.usage.expect("the last event came");
        assert_eq!(usage, events.usage());
        let (prompt_tokens, limit) = (
            self.prepared.prompt_tokens(),
            self.prepared.allowance.tokens(),
        );
        assert!(usage.completion <= limit, "more tokens than were paid for");
        let stopped = matches!(self.payer, Payer::Stops) && usage.completion == limit;
        let mut completion = 0;
        for (choice, answer) in (0..).zip(&self.answers) {
            let solo = |output_max| solo(model, &self.prepared, choice, output_max);
            let whole = solo(self.prepared.output_max);
            let echo = echo(&self.prepared, choice);
            let text = answer.text.strip_prefix(&echo).unwrap_or_else(|| {
                assert!(stopped && answer.text.is_empty(), "no echo: {answer:?}");
                ""
            });
            check_logprobs(model, &self.prepared, choice, answer, &whole.spoken);
            assert!(answer.tokens <= whole.tokens);
            if stopped && whole.text != text {
                assert_eq!(answer.finished, Some(FinishReason::Length));
                let shortest = u32::try_from(answer.tokens).unwrap();
                let cut =
                    (shortest..self.prepared.output_max).any(|tokens| solo(tokens).text == text);
                assert!(
                    cut,
                    "choice {choice} is {text:?}, no part of {:?}",
                    whole.text
                );
            } else {
                assert_eq!(text, whole.text, "choice {choice} of {:?}", self.prepared);
            }
            if !stopped {
                assert_eq!(answer.finished, Some(whole.reason));
            }
            completion += whole.tokens;
        }
        if !stopped {
            assert_eq!(
                usage,
                Usage {
                    prompt: prompt_tokens,
                    cached: usage.cached,
                    completion,
                    reasoning: 0,
                }
            );
        }
    }
}

fn solo(model: &SimOptions, prepared: &PreparedRequest, choice: u32, output_max: u32) -> Solo {
    let Request { sampling, stop, .. } = &*prepared.request;
    let prompt = prompt(prepared, choice);
    let constraint = prepared.constraint.as_ref();
    sim::solo(
        model, prompt, sampling, stop, output_max, constraint, choice,
    )
}

fn echo(prepared: &PreparedRequest, choice: u32) -> String {
    if !prepared.request.echo {
        return String::new();
    }
    text(prompt(prepared, choice)).unwrap()
}

/// The text of the tokens; `None` if it doesn't end with a whole character.
fn text(tokens: &[u32]) -> Option<String> {
    let mut bytes = Vec::new();
    for &token in tokens {
        SimTokenizer.token_bytes(token, &mut bytes);
    }
    String::from_utf8(bytes).ok()
}

/// Checks that each log-probability, of the answer's tokens and of the best, is that of the softmax over all logits.
fn check_logprobs(
    model: &SimOptions,
    prepared: &PreparedRequest,
    choice: u32,
    answer: &Answer,
    spoken: &[u32],
) {
    let Some(wanted) = prepared.request.logprobs else {
        return assert_eq!(answer.logprobs, []);
    };
    let prompt = prompt(prepared, choice);
    let known: Vec<u32> = prompt.iter().chain(spoken).copied().collect();
    let first = if prepared.request.echo {
        0
    } else {
        prompt.len()
    };
    // The allowance may have ended before the prompt was computed.
    let unsaid = prepared.request.echo && answer.text.is_empty();
    let stops = !prepared.request.stop.strings().is_empty();
    let cut = stops || unsaid || answer.tokens < spoken.len() as u64;
    if !cut {
        assert_eq!(first + answer.logprobs.len(), known.len());
    }
    let prompt_tokens = u32::try_from(prompt.len()).unwrap();
    for (place, told) in (first..).zip(&answer.logprobs) {
        assert_eq!(told.token, known[place], "at {place}");
        if place == 0 {
            assert_eq!((told.logprob, told.top.len()), (None, 0));
        } else {
            let expected = logprobs(&sim::logits(model, prompt_tokens, &known[..place]));
            let near = |token: u32, logprob: f32| {
                let exact = expected[token as usize];
                assert!(
                    (f64::from(logprob) - exact).abs() < 1e-5,
                    "{logprob} for {exact}"
                );
            };
            near(told.token, told.logprob.unwrap());
            let mut best: Vec<u32> = (0..).take(expected.len()).collect();
            best.sort_by(|&a, &b| {
                expected[b as usize]
                    .total_cmp(&expected[a as usize])
                    .then(a.cmp(&b))
            });
            best.truncate(wanted.top());
            let top: Vec<u32> = told.top.iter().map(|top| top.token).collect();
            assert_eq!(top, best);
            told.top.iter().for_each(|top| near(top.token, top.logprob));
        }
    }
}

fn logprobs(logits: &[f32]) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    logits
        .iter()
        .map(|&logit| f64::from(logit) - sum.ln())
        .collect()
}

fn prompt(prepared: &PreparedRequest, choice: u32) -> &[u32] {
    &prepared.prompts[(choice / prepared.request.choices.get()) as usize]
}
