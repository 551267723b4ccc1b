//! A node in a process of its own: the gateway, the ledger, a simulated engine, and callers.

use std::io::Write;
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir_accounts::{Accounts, Caller, Location, Options, Price, Role};
use weir_engine::request::{Choices, Input, OutputLimit, Overflow, Prompt};
use weir_engine::{Event, Request, Sampling, Token};
use weir_gateway::limits::Quotas;
use weir_gateway::{Catalog, Clock, Delivery, Gateway, Job, Offer};
use weir_inference::sim::{self, Faults, SimModel, SimOptions};

use super::{ACCOUNTS, CHECKPOINT_EVERY, Fact, MID_STREAM, Payment, Prices, Random};

/// The number of callers, each of which sends one request after the other.
const CALLERS: u64 = 12;
const MODELS: [&str; 2] = ["sim/first", "sim/second"];
/// A token that stands for a word, for prompts.
const WORD: Token = 260;

/// A node that doesn't write to the database for this long counts as dead. Live nodes are never silent for so long, even on a
/// busy machine.
const SILENCE: Duration = Duration::from_secs(2);

/// The orders for a node.
#[derive(Debug, Clone)]
pub struct Order {
    pub database: Location,
    /// The node's name, with which its request ids begin.
    pub node: String,
    pub seed: u64,
    /// The place where the node kills itself, and how often it passes that place before.
    pub strike: Option<(String, u32)>,
}

impl Order {
    /// The order as command-line arguments.
    pub fn arguments(&self, database: &str) -> Vec<String> {
        let mut arguments = vec![
            database.to_owned(),
            self.node.clone(),
            self.seed.to_string(),
        ];
        if let Some((place, passes)) = &self.strike {
            arguments.extend([place.clone(), passes.to_string()]);
        }
        arguments
    }

    pub fn from_arguments(arguments: &[String]) -> Self {
        let database = location(&arguments[0]);
        let strike = arguments.get(3).map(|place| {
            let passes = arguments[4].parse().unwrap();
            (place.clone(), passes)
        });
        Order {
            database,
            node: arguments[1].clone(),
            seed: arguments[2].parse().unwrap(),
            strike,
        }
    }
}

/// The database at a path or a PostgreSQL address.
pub fn location(text: &str) -> Location {
    if text.starts_with("postgres://") {
        return weir_accounts::PostgresUrl::from_str(text).unwrap().into();
    }
    std::path::Path::new(text).into()
}

/// The options to open the database for serving.
pub fn options(database: Location) -> Options {
    Options {
        timeout: Duration::from_secs(30),
        node_silence: SILENCE,
        ..Options::new(database, Role::Server)
    }
}

/// Dies as in a power cut: nothing is written, closed or dropped any more.
fn die() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        std::thread::park();
    }
}

/// Writes a fact to stdout, in one write. If that fails the test has ended, and the node dies.
fn say(fact: &Fact) {
    let line = format!("{fact}\n");
    if std::io::stdout().write_all(line.as_bytes()).is_err() {
        die();
    }
}

static STRIKE: OnceLock<(String, AtomicU32)> = OnceLock::new();

fn pass(place: &str) {
    if let Some((fatal, passes)) = STRIKE.get()
        && fatal == place
        && passes.fetch_sub(1, Ordering::Relaxed) == 0
    {
        die();
    }
}

struct World {
    node: String,
    gateway: Gateway,
    callers: Vec<Caller>,
    prices: [Prices; 2],
    requests: AtomicU64,
    began: Instant,
    stop: CancellationToken,
}

/// Serves until the node kills itself, or until SIGTERM.
pub async fn run(order: Order) {
    let Order {
        database,
        node,
        seed,
        strike,
    } = order;
    if let Some((place, passes)) = strike {
        let known = place == MID_STREAM || weir_accounts::PLACES.contains(&place.as_str());
        assert!(known, "nothing passes {place}");
        STRIKE.get_or_init(|| (place, passes.into()));
        weir_accounts::at_each_place(pass);
    }
    let mut random = Random::new(seed);
    let clock = Clock::system();
    let shared = matches!(database, Location::Postgres(_));
    let accounts = Accounts::open(options(database), clock.now())
        .await
        .unwrap();
    say(&Fact::Opened);
    accounts.recover(clock.now()).await.unwrap();
    say(&Fact::Recovered);
    let callers = callers(&accounts, &clock, &node, &mut random).await;
    let prices = [(); 2].map(|()| Prices {
        input: i64::try_from(random.between(100, 300)).unwrap(),
        output: i64::try_from(random.between(300, 600)).unwrap(),
    });
    let world = Arc::new(World {
        node,
        gateway: gateway(&accounts, &clock, prices, &mut random),
        callers,
        prices,
        requests: AtomicU64::new(0),
        began: Instant::now(),
        stop: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    if shared {
        tasks.spawn(end_the_dead(
            accounts.clone(),
            clock.clone(),
            world.stop.clone(),
        ));
    }
    for _ in 0..CALLERS {
        tasks.spawn(call(Arc::clone(&world), random.fork()));
    }
    tasks.close();
    signal(SignalKind::terminate()).unwrap().recv().await;
    world.gateway.drain();
    world.stop.cancel();
    tasks.wait().await;
    world.gateway.settled().await;
    accounts.close().await;
    say(&Fact::Drained);
}

/// Makes the accounts unless another node has, pays into each, and makes a key for each.
async fn callers(
    accounts: &Accounts,
    clock: &Clock,
    node: &str,
    random: &mut Random,
) -> Vec<Caller> {
    let made = ACCOUNTS.map(|name| accounts.add_account(name, clock.now()));
    // The call fails if another node has made the account: the name is taken.
    join_all(made).await;
    let mut callers = Vec::new();
    for (name, most) in ACCOUNTS.into_iter().zip([3_000_000, 300_000, 40_000]) {
        let account = accounts.account(name).await.unwrap();
        let payment = Payment {
            key: format!("{node}/{name}"),
            account: name.to_owned(),
            nanos: i64::try_from(random.between(1, most)).unwrap(),
            promotional: random.chance(30),
        };
        say(&Fact::Paying(payment.clone()));
        payment.make(accounts, clock.now()).await;
        say(&Fact::Paid { key: payment.key });
        let key = accounts
            .add_key(&account.id, None, clock.now())
            .await
            .unwrap();
        let caller = accounts.authenticate(key.secret.expose(), clock.now());
        callers.push(caller.await.unwrap());
    }
    callers
}

/// A gateway with two models at this node's prices; each fails at some step.
fn gateway(
    accounts: &Accounts,
    clock: &Clock,
    prices: [Prices; 2],
    random: &mut Random,
) -> Gateway {
    let offers = MODELS
        .into_iter()
        .zip(prices)
        .map(|(id, Prices { input, output })| {
            let faults = Faults {
                fault_at: Some(random.between(20, 3_000)),
                ..Faults::default()
            };
            let model = SimModel::new(SimOptions {
                seed: random.number(),
                end_probability: 0.002,
                faults,
                ..SimOptions::default()
            });
            Offer {
                id: id.to_owned(),
                created: 0,
                title: id.to_owned(),
                description: String::new(),
                price: Price {
                    input,
                    output,
                    cached: None,
                },
                max_output_tokens: None,
                engines: vec![Arc::new(sim::engine_with(model))],
            }
        });
    let catalog = Catalog::new(offers.collect());
    Gateway::new(catalog, accounts.clone(), Quotas::default(), clock.clone())
        .with_checkpoints_every(CHECKPOINT_EVERY)
}

/// Ends the holds of dead nodes, as a server does, but far more often.
async fn end_the_dead(accounts: Accounts, clock: Clock, stop: CancellationToken) {
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        accounts.expire(clock.now()).await.unwrap();
    }
}

async fn call(world: Arc<World>, mut random: Random) {
    while !world.stop.is_cancelled() {
        let number = world.requests.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}/{number}", world.node);
        request(&world, id, &mut random).await;
    }
}

/// Sends a request, and reports it from the beginning to whichever end.
async fn request(world: &World, id: String, random: &mut Random) {
    let (prompt, choices) = (random.between(1, 60), random.pick(&[1, 1, 1, 2, 4]));
    let model = usize::from(random.chance(40));
    let account = random.pick(&[0, 0, 0, 0, 1, 1, 2]);
    let whole = random.chance(10);
    let output_tokens = random.chance(70).then(|| random.between(1, 400));
    let texts_max = random.chance(20).then(|| random.between(1, 120));
    say(&Fact::Asked {
        id: id.clone(),
        account: ACCOUNTS[account].to_owned(),
        whole,
        choices,
        prompt,
        prices: world.prices[model],
    });
    let tokens = vec![WORD; usize::try_from(prompt).unwrap()];
    let request = Request {
        sampling: Sampling::default().or_seed(random.number().cast_signed()),
        choices: Choices::new(choices.cast_signed()).unwrap(),
        output: OutputLimit {
            tokens: output_tokens.map(|tokens| u32::try_from(tokens).unwrap()),
            overflow: Overflow::Lower,
        },
        ..Request::new(Input::Prompts(vec![Prompt::Tokens(tokens)]))
    };
    let job = Job {
        request_id: id.clone(),
        model: MODELS[model].to_owned(),
        request,
        delivery: if whole {
            Delivery::Whole
        } else {
            Delivery::Stream
        },
    };
    let mut generation = match world.gateway.start(&world.callers[account], job).await {
        Ok(generation) => generation,
        Err(refusal) => {
            return say(&Fact::Refused {
                id,
                why: refusal.to_string(),
            });
        }
    };
    say(&Fact::Started { id: id.clone() });
    let mut texts = 0;
    while let Some(event) = generation.next().await {
        match event {
            Ok(Event::Text { tokens, .. }) => {
                let at_us = u64::try_from(world.began.elapsed().as_micros()).unwrap();
                say(&Fact::Delivered {
                    id: id.clone(),
                    tokens: tokens.into(),
                    at_us,
                });
                pass(MID_STREAM);
                texts += 1;
                if texts_max == Some(texts) {
                    return say(&Fact::HangsUp { id });
                }
            }
            Ok(Event::Prompt { .. } | Event::Call { .. } | Event::Finished { .. }) => {}
            Ok(Event::Done(usage)) => say(&Fact::Done {
                id: id.clone(),
                prompt: usage.prompt,
                completion: usage.completion,
            }),
            Ok(Event::Failed(_)) | Err(_) => say(&Fact::Failed { id: id.clone() }),
        }
    }
}
