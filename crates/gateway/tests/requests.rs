//! A request from admission to settlement, with a real ledger on disk and a simulated model.
#![expect(clippy::unwrap_used, reason = "a test fails where it can't go on")]

use std::sync::Arc;

use jiff::Timestamp;
use weir_accounts::{
    Account, Accounts, Caller, KeyOptions, Nanos, Options, Outcome, Price, Role, UsageRecord,
};
use weir_engine::request::{
    Choices, Input, Message, OutputLimit, Overflow, Prompt, Role as MessageRole,
};
use weir_engine::{Engine, Event, FinishReason, Request, Sampling, Usage};
use weir_gateway::limits::Quotas;
use weir_gateway::{Catalog, Clock, Delivery, Gateway, Generation, Job, NotReady, Offer, Refusal};
use weir_inference::local::{LocalEngine, QUEUE_REQUESTS_MAX};
use weir_inference::sim::{self, Faults, Gate, Probe, SimModel, SimOptions};

const MODEL: &str = "test/model";
/// 1 USD per million prompt tokens, 2 USD per million generated ones: 1,000 and 2,000 nano-USD each.
const PRICE: Price = Price {
    input: 10_000,
    output: 20_000,
    cached: None,
};

struct Bench {
    gateway: Gateway,
    accounts: Accounts,
    caller: Caller,
    account: Account,
    probe: Probe,
    gate: Option<Gate>,
    requests: std::sync::atomic::AtomicU32,
    _folder: tempfile::TempDir,
}

/// The options of a bench.
struct Setup {
    sim: SimOptions,
    credit: String,
    quotas: Quotas,
    max_output_tokens: Option<u32>,
    gated: bool,
    models: Option<Vec<String>>,
    /// Capacity of the engine's queue, in requests.
    queue: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            sim: SimOptions::default(),
            credit: "1".to_owned(),
            quotas: Quotas::default(),
            max_output_tokens: None,
            gated: false,
            models: None,
            queue: QUEUE_REQUESTS_MAX,
        }
    }
}

fn noon() -> Timestamp {
    Timestamp::from_second(1_700_000_000).unwrap()
}

impl Bench {
    async fn new(setup: Setup) -> Bench {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("weir.db");
        let accounts = Accounts::open(Options::new(database, Role::Server), noon())
            .await
            .unwrap();
        let account = accounts.add_account("alice", noon()).await.unwrap();
        let credit: Nanos = setup.credit.parse().unwrap();
        if credit.is_positive() {
            accounts
                .credit(&account.id, credit, "first", "test", noon())
                .await
                .unwrap();
        }
        let options = KeyOptions {
            models: setup.models,
            ..KeyOptions::default()
        };
        let key = accounts
            .add_key_with(&account.id, options, noon())
            .await
            .unwrap();
        let caller = accounts
            .authenticate(key.secret.expose(), noon())
            .await
            .unwrap();

        let mut model = SimModel::new(setup.sim);
        let probe = model.probe();
        let mut gate = None;
        if setup.gated {
            let (gated, opener) = model.gated();
            (model, gate) = (gated, Some(opener));
        }
        let mut options = sim::options();
        options.queue_requests_max = setup.queue;
        let engine = LocalEngine::spawn(model, options).unwrap();
        let catalog = Catalog::new(vec![
            offer(MODEL, vec![Arc::new(engine)], setup.max_output_tokens),
            offer("test/missing", Vec::new(), None),
        ]);
        let gateway = Gateway::new(
            catalog,
            accounts.clone(),
            setup.quotas,
            Clock::from_fn(noon),
        );
        Bench {
            gateway,
            accounts,
            caller,
            account,
            probe,
            gate,
            requests: 0.into(),
            _folder: folder,
        }
    }

    fn job(&self, request: Request) -> Job {
        let number = self
            .requests
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Job {
            request_id: format!("request-{number}"),
            model: MODEL.to_owned(),
            request,
            delivery: Delivery::Stream,
        }
    }

    async fn start(&self, request: Request) -> Result<Generation, Refusal> {
        self.gateway.start(&self.caller, self.job(request)).await
    }

    async fn now(&self) -> Account {
        self.accounts
            .account(self.account.id.as_str())
            .await
            .unwrap()
    }

    /// The amount charged so far, in nano-USD, out of the dollar that a bench starts with.
    async fn charged(&self) -> i64 {
        let now = self.now().await;
        1_000_000_000 - nanos(now.posted)
    }

    async fn records(&self) -> Vec<UsageRecord> {
        self.accounts.usage(&self.account.id, 100).await.unwrap()
    }

    /// Asserts that nothing is held, that the books balance and that the engine has freed every sequence.
    async fn check_clean(&self) {
        assert_eq!(self.now().await.held, Nanos::ZERO);
        assert_eq!(self.accounts.verify().await.unwrap(), Vec::<String>::new());
        self.probe.freed().await;
    }
}

fn offer(id: &str, engines: Vec<Arc<dyn Engine>>, max_output_tokens: Option<u32>) -> Offer {
    Offer {
        id: id.to_owned(),
        created: 0,
        title: id.to_owned(),
        description: String::new(),
        price: PRICE,
        max_output_tokens,
        engines,
    }
}

/// Dollars with nine decimals are nano-USD without the point.
fn nanos(amount: Nanos) -> i64 {
    let text = amount.to_string();
    let (sign, digits) = text
        .strip_prefix('-')
        .map_or((1, text.as_str()), |digits| (-1, digits));
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    sign * format!("{whole}{part:0<9}").parse::<i64>().unwrap()
}

fn cost(usage: Usage) -> i64 {
    i64::try_from(usage.prompt * 1_000 + usage.completion * 2_000).unwrap()
}

fn completion(prompt: &str, max_tokens: u32) -> Request {
    Request {
        sampling: Sampling::default().or_seed(1),
        output: OutputLimit {
            tokens: Some(max_tokens),
            overflow: Overflow::Refuse,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Text(prompt.to_owned())]))
    }
}

/// A conversation without `max_tokens`: its hold is extended while it runs.
fn open_ended(prompt: &str) -> Request {
    let message = Message::new(MessageRole::User, prompt);
    Request {
        input: Input::Chat(vec![message].into()),
        output: OutputLimit {
            tokens: None,
            overflow: Overflow::Lower,
        },
        ..completion("", 1)
    }
}

/// Options of a model that never ends its text.
fn endless() -> SimOptions {
    SimOptions {
        end_probability: 0.0,
        ..SimOptions::default()
    }
}

/// The number of prompt tokens that the engine counts, including those of the chat template.
async fn prompt_tokens(request: Request) -> u64 {
    let bench = Bench::new(Setup {
        sim: endless(),
        ..Setup::default()
    })
    .await;
    let output = OutputLimit {
        tokens: Some(1),
        ..request.output
    };
    usage(&collect(bench.start(Request { output, ..request }).await.unwrap()).await).prompt
}

struct Answer {
    reasons: Vec<FinishReason>,
    tokens_of_text: u64,
    last: Result<Event, Refusal>,
}

async fn collect(mut generation: Generation) -> Answer {
    let (mut reasons, mut tokens_of_text) = (Vec::new(), 0);
    loop {
        match generation.next().await.expect("a last event") {
            Ok(Event::Text { tokens, .. }) => tokens_of_text += u64::from(tokens),
            Ok(Event::Prompt { .. }) => panic!("a prompt that nobody wants to know"),
            Ok(Event::Call { .. }) => panic!("a call that nobody asked for"),
            Ok(Event::Finished { reason, .. }) => reasons.push(reason),
            last @ (Ok(Event::Done(_) | Event::Failed(_)) | Err(_)) => {
                assert_eq!(
                    generation.next().await,
                    None,
                    "nothing after the last event"
                );
                return Answer {
                    reasons,
                    tokens_of_text,
                    last,
                };
            }
        }
    }
}

fn usage(answer: &Answer) -> Usage {
    match answer.last {
        Ok(Event::Done(usage)) => usage,
        ref other => panic!("not done: {other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_charged_its_usage_to_the_nano() {
    let bench = Bench::new(Setup::default()).await;
    let mut expected = 0;
    for (choices, max_tokens) in [(1, 1), (1, 50), (3, 20), (1, 0)] {
        let request = Request {
            choices: Choices::new(choices).unwrap(),
            ..completion("hello there", max_tokens)
        };
        let answer = collect(bench.start(request).await.unwrap()).await;
        let usage = usage(&answer);
        assert_eq!(answer.reasons.len() as i64, choices);
        assert!(usage.completion <= u64::from(max_tokens) * choices as u64);
        expected += cost(usage);
        assert_eq!(
            bench.charged().await,
            expected,
            "n={choices} max_tokens={max_tokens}"
        );
    }
    let records = bench.records().await;
    assert_eq!(records.len(), 4);
    assert_eq!(
        records.iter().map(|record| nanos(record.cost)).sum::<i64>(),
        expected
    );
    assert!(
        records
            .iter()
            .all(|record| record.outcome == Outcome::Success)
    );
    bench.check_clean().await;
}

/// New terms are those of the next request; a request under way keeps the price that it was admitted with.
#[tokio::test]
async fn new_terms_are_for_new_requests() {
    let bench = Bench::new(Setup::default()).await;
    let running = bench.start(completion("hello there", 20)).await.unwrap();
    let engines = bench.gateway.catalog().find(MODEL).unwrap().engines.clone();
    let dearer = Price {
        input: PRICE.input * 10,
        output: PRICE.output * 10,
        cached: None,
    };
    let catalog = Catalog::new(vec![Offer {
        price: dearer,
        ..offer(MODEL, engines, Some(5))
    }]);
    let one = Quotas {
        requests_per_minute: Some(2),
        ..Quotas::default()
    };
    bench.gateway.replace_terms(catalog, one, Vec::new());
    let cheap = cost(usage(&collect(running).await));
    assert_eq!(bench.charged().await, cheap);

    let refused = bench.start(completion("hello there", 20)).await;
    let over_cap = Refusal::OutputOverCap { asked: 20, cap: 5 };
    assert_eq!(refused.map(|_| ()), Err(over_cap));
    let dear = bench.start(completion("hello there", 5)).await.unwrap();
    let dear = 10 * cost(usage(&collect(dear).await));
    assert_eq!(bench.charged().await, cheap + dear);
    let refused = bench.start(completion("hello there", 5)).await;
    assert!(
        matches!(refused, Err(Refusal::RequestLimit { .. })),
        "{refused:?}"
    );
    bench.check_clean().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_pays_for_what_was_generated() {
    for events_read in 0..=12 {
        let bench = Bench::new(Setup {
            sim: endless(),
            gated: true,
            ..Setup::default()
        })
        .await;
        let mut generation = bench.start(completion("hello", 500)).await.unwrap();
        let gate = bench.gate.as_ref().unwrap();
        let (mut read, mut passed) = (0, 0);
        while read < events_read {
            tokio::select! {
                biased;
                next = generation.next() => match next {
                    Some(Ok(Event::Text { tokens, .. })) => read += tokens,
                    other => panic!("{other:?}"),
                },
                // A step may complete no character: then the next one is let through.
                () = gate.arrived(passed + 1) => {
                    gate.pass(1);
                    passed += 1;
                }
            }
        }
        drop(generation);
        gate.open();
        bench.gateway.settled().await;

        let records = bench.records().await;
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].outcome, Outcome::Disconnected);
        let generated = records[0].counts.completion;
        assert!(
            generated >= u64::from(events_read),
            "{generated} charged, {events_read} read"
        );
        let steps = bench.probe.steps();
        assert!(
            generated <= steps,
            "{generated} tokens charged in {steps} steps"
        );
        // The step that waited at the gate is still made; after it the engine sees that the receiver is closed.
        assert!(
            steps <= passed + 1,
            "{steps} steps, and {passed} were asked for"
        );
        let used = Usage {
            prompt: records[0].counts.prompt,
            cached: 0,
            reasoning: 0,
            completion: generated,
        };
        assert_eq!(bench.charged().await, cost(used));
        bench.check_clean().await;
    }
}

#[tokio::test]
async fn what_the_balance_does_not_cover_is_refused() {
    // 6 prompt tokens and 10 generated ones are 26,000 nano-USD.
    for (credit, affordable) in [
        ("0", 0),
        ("0.000005", 0),
        ("0.000007999", 0),
        ("0.000025999", 9),
    ] {
        let bench = Bench::new(Setup {
            credit: credit.to_owned(),
            ..Setup::default()
        })
        .await;
        let refusal = bench.start(completion("hello", 10)).await.unwrap_err();
        assert_eq!(
            refusal,
            Refusal::BalanceTooLow { affordable },
            "credit {credit}"
        );
        assert_eq!(bench.records().await.len(), 0);
    }
    let bench = Bench::new(Setup {
        credit: "0.000026".to_owned(),
        sim: endless(),
        ..Setup::default()
    })
    .await;
    let answer = collect(bench.start(completion("hello", 10)).await.unwrap()).await;
    assert_eq!(
        usage(&answer),
        Usage {
            prompt: 6,
            cached: 0,
            reasoning: 0,
            completion: 10
        }
    );
    assert_eq!(bench.now().await.available, Nanos::ZERO);
    let refusal = bench.start(completion("hello", 10)).await.unwrap_err();
    assert_eq!(refusal, Refusal::BalanceTooLow { affordable: 0 });
    // The engine had started the prefill while the hold was being placed.
    bench.gateway.settled().await;
    bench.check_clean().await;
}

#[tokio::test]
async fn open_requests_hold_the_balance() {
    let setup = Setup {
        credit: "0.000026".to_owned(),
        sim: endless(),
        gated: true,
        ..Setup::default()
    };
    let bench = Bench::new(setup).await;
    let first = bench.start(completion("hello", 10)).await.unwrap();
    let refusal = bench.start(completion("hello", 10)).await.unwrap_err();
    assert!(
        matches!(refusal, Refusal::BalanceInFlight { .. }),
        "{refusal:?}"
    );
    bench.gate.as_ref().unwrap().open();
    collect(first).await;
    bench.check_clean().await;
}

#[tokio::test]
async fn without_a_limit_the_hold_rolls_until_the_context_ends() {
    let bench = Bench::new(Setup {
        sim: endless(),
        ..Setup::default()
    })
    .await;
    let answer = collect(bench.start(open_ended("hi")).await.unwrap()).await;
    let usage = usage(&answer);
    assert_eq!(
        usage.prompt + usage.completion,
        4096,
        "up to the end of the context"
    );
    assert_eq!(answer.reasons, [FinishReason::Length]);
    assert_eq!(bench.charged().await, cost(usage));
    bench.check_clean().await;
}

#[tokio::test]
async fn without_a_limit_the_text_ends_where_the_balance_does() {
    let prompt = prompt_tokens(open_ended("hi")).await;
    // Some balances end within the first slice of 1,024 tokens, some after it.
    for tokens in [1, 2, 100, 1023, 1024, 1025, 1500, 3000] {
        let credit = format!("0.{:09}", prompt * 1_000 + tokens * 2_000 + 1_999);
        let bench = Bench::new(Setup {
            sim: endless(),
            credit,
            ..Setup::default()
        })
        .await;
        let answer = collect(bench.start(open_ended("hi")).await.unwrap()).await;
        assert_eq!(
            usage(&answer),
            Usage {
                prompt,
                cached: 0,
                reasoning: 0,
                completion: tokens
            }
        );
        assert_eq!(answer.reasons, [FinishReason::Length]);
        assert!(answer.tokens_of_text <= tokens);
        assert_eq!(
            nanos(bench.now().await.available),
            1_999,
            "the rest covers no token"
        );
        bench.check_clean().await;
    }
}

#[tokio::test]
async fn an_engine_that_fails_charges_only_what_was_delivered() {
    let faulty = |step| SimOptions {
        faults: Faults {
            fault_at: Some(step),
            ..Faults::default()
        },
        ..endless()
    };
    for (step, delivery, charged_something) in [
        (0, Delivery::Stream, false),
        (20, Delivery::Whole, false),
        (20, Delivery::Stream, true),
    ] {
        let bench = Bench::new(Setup {
            sim: faulty(step),
            ..Setup::default()
        })
        .await;
        let job = Job {
            delivery,
            ..bench.job(completion("hello", 100))
        };
        let answer = collect(bench.gateway.start(&bench.caller, job).await.unwrap()).await;
        assert!(
            matches!(answer.last, Err(Refusal::Internal(_))),
            "{:?}",
            answer.last
        );
        let record = &bench.records().await[0];
        assert_eq!(record.outcome, Outcome::EngineFailed);
        let delivered = if charged_something {
            answer.tokens_of_text
        } else {
            0
        };
        assert_eq!(
            record.counts.completion, delivered,
            "fault at step {step}, {delivery:?}"
        );
        assert_eq!(record.counts.prompt > 0, charged_something);
        assert_eq!(bench.now().await.held, Nanos::ZERO);
    }
}

#[tokio::test]
async fn refusals_before_the_engine() {
    let setup = Setup {
        max_output_tokens: Some(64),
        models: Some(vec![MODEL.to_owned(), "gone".to_owned()]),
        ..Setup::default()
    };
    let bench = Bench::new(setup).await;
    let start = async |model: &str, request| {
        let job = Job {
            model: model.to_owned(),
            ..bench.job(request)
        };
        bench
            .gateway
            .start(&bench.caller, job)
            .await
            .map(|_| ())
            .unwrap_err()
    };
    let name = |model: &str| model.to_owned();
    assert_eq!(
        start("nobody/nothing", completion("x", 1)).await,
        Refusal::ModelNotFound {
            model: name("nobody/nothing")
        }
    );
    assert_eq!(
        start("test/missing", completion("x", 1)).await,
        Refusal::ModelAccessDenied {
            model: name("test/missing")
        }
    );
    let too_many = start(MODEL, completion("x", 65)).await;
    assert!(
        matches!(too_many, Refusal::OutputOverCap { asked: 65, cap: 64 }),
        "{too_many:?}"
    );
    let long = "x".repeat(5_000);
    let too_long = start(MODEL, completion(&long, 1)).await;
    assert!(
        matches!(too_long, Refusal::TooLong { context: 4096, .. }),
        "{too_long:?}"
    );

    let free = Bench::new(Setup::default()).await;
    let job = Job {
        model: name("test/missing"),
        ..free.job(completion("x", 1))
    };
    let missing = free
        .gateway
        .start(&free.caller, job)
        .await
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        missing,
        Refusal::ModelNotAvailable {
            model: name("test/missing")
        }
    );
    assert_eq!(bench.records().await.len() + free.records().await.len(), 0);
    bench.check_clean().await;
}

#[tokio::test]
async fn limits_refuse_and_permits_come_back() {
    let quotas = Quotas {
        requests_per_minute: Some(5),
        tokens_per_minute: Some(1_000),
        concurrent_requests: Some(1),
    };
    let bench = Bench::new(Setup {
        quotas,
        gated: true,
        sim: endless(),
        ..Setup::default()
    })
    .await;
    let first = bench.start(completion("hello", 10)).await.unwrap();
    let refusal = bench.start(completion("hello", 10)).await.unwrap_err();
    assert!(
        matches!(refusal, Refusal::ConcurrencyLimit { limit: 1, .. }),
        "{refusal:?}"
    );
    bench.gate.as_ref().unwrap().open();
    collect(first).await;

    let remaining = bench
        .gateway
        .quota(&bench.caller, None)
        .tokens
        .unwrap()
        .remaining;
    assert!(
        (984..=986).contains(&remaining),
        "15 tokens used, {remaining} left"
    );
    let refusal = bench.start(completion("hello", 999)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::TokenLimit { .. }), "{refusal:?}");
    for _ in 0..3 {
        collect(bench.start(completion("hello", 1)).await.unwrap()).await;
    }
    let refusal = bench.start(completion("hello", 1)).await.unwrap_err();
    assert!(
        matches!(refusal, Refusal::RequestLimit { .. }),
        "{refusal:?}"
    );
    bench.check_clean().await;
}

#[tokio::test]
async fn parallel_requests_never_overdraw() {
    // The balance covers exactly 5 requests at once.
    let bench = Bench::new(Setup {
        credit: "0.000130".to_owned(),
        sim: endless(),
        ..Setup::default()
    })
    .await;
    let starts = (0..40).map(|_| async {
        match bench.start(completion("hello", 10)).await {
            Ok(generation) => collect(generation).await.reasons.len(),
            Err(Refusal::BalanceTooLow { .. } | Refusal::BalanceInFlight { .. }) => 0,
            Err(other) => panic!("{other:?}"),
        }
    });
    let served: usize = futures::future::join_all(starts).await.into_iter().sum();
    assert_eq!(served, 5, "each costs its whole hold, so exactly five fit");
    assert_eq!(bench.now().await.available, Nanos::ZERO);
    bench.check_clean().await;
}

#[tokio::test]
async fn a_draining_gateway_starts_nothing_and_finishes_all() {
    let bench = Bench::new(Setup {
        gated: true,
        ..Setup::default()
    })
    .await;
    assert_eq!(bench.gateway.ready().await, Ok(()));
    let running = bench.start(completion("hello", 20)).await.unwrap();
    bench.gateway.drain();
    assert_eq!(bench.gateway.ready().await, Err(NotReady::Draining));
    let refusal = bench.start(completion("hello", 20)).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Draining { .. }), "{refusal:?}");
    bench.gate.as_ref().unwrap().open();
    assert!(matches!(collect(running).await.last, Ok(Event::Done(_))));
    bench.gateway.settled().await;
    bench.check_clean().await;
}

#[tokio::test]
async fn a_full_queue_is_an_answer_and_costs_nothing() {
    let setup = Setup {
        queue: 2,
        gated: true,
        ..Setup::default()
    };
    let bench = Bench::new(setup).await;
    let mut running = Vec::new();
    let refusal = loop {
        match bench.start(completion("hello", 10)).await {
            Ok(generation) => running.push(generation),
            Err(refusal) => break refusal,
        }
        assert!(running.len() <= 4, "more were let in than may wait");
    };
    let Refusal::QueueFull { retry_after } = refusal else {
        panic!("{refusal:?}")
    };
    assert!((1..=60).contains(&retry_after.as_secs()), "{retry_after:?}");
    assert!(running.len() >= 2, "{} wait", running.len());
    // A refused request isn't prepared: even one too long for any context gets the refusal for the full queue.
    let endless = bench.start(completion(&"hello ".repeat(100_000), 10)).await;
    assert!(matches!(endless, Err(Refusal::QueueFull { .. })));
    bench.gate.as_ref().unwrap().open();
    let accepted = running.len();
    for generation in running {
        collect(generation).await;
    }
    bench.gateway.settled().await;
    assert_eq!(bench.records().await.len(), accepted);
    bench.check_clean().await;
}

#[tokio::test]
async fn who_finds_the_queue_full_holds_nothing() {
    let bench = Bench::new(Setup {
        // The hold of four requests.
        credit: "0.000104".to_owned(),
        queue: 2,
        gated: true,
        ..Setup::default()
    })
    .await;
    // All requests at once: the queue has room when they come, and fills while their prompts are tokenized.
    let starts = (0..20).map(|_| bench.start(completion("hello", 10)));
    let mut running = Vec::new();
    for start in futures::future::join_all(starts).await {
        match start {
            Ok(generation) => running.push(generation),
            Err(Refusal::QueueFull { .. }) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!((2..=4).contains(&running.len()), "{} run", running.len());
    let held = nanos(bench.now().await.held);
    assert_eq!(held, 26_000 * running.len() as i64);
    bench.gate.as_ref().unwrap().open();
    for generation in running {
        collect(generation).await;
    }
    bench.gateway.settled().await;
    bench.check_clean().await;
}
