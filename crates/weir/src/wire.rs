//! Builds everything from the config, and runs nothing of it: the one place where all concrete types meet.

#[cfg(feature = "llama")]
pub(crate) mod model_files;
#[cfg(feature = "llama")]
mod model_watch;
#[cfg(feature = "llama")]
mod optimize;

#[cfg(feature = "llama")]
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "llama")]
use self::model_files::{Identity, ModelFiles};
#[cfg(feature = "llama")]
use self::model_watch::{Watch, Watched};
use anyhow::Context;
use jiff::SignedDuration;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use weir_accounts::{Accounts, Options, Price, Role, SpillOptions};
use weir_engine::Engine;
#[cfg(feature = "llama")]
use weir_engine::embed::Shortening;
use weir_gateway::limits::{StoreFailure, StoreOptions};
use weir_gateway::{Catalog, Clock, Gateway, Offer, Rules};
use weir_inference::constraint::AdmissionOptions;
use weir_inference::local::{CacheSharing, Speculation};
#[cfg(feature = "llama")]
use weir_inference::local::{EmbeddingEngine, LocalEngine};
use weir_server::{App, Reload};
use weir_webhooks::{Deps, Webhooks};

use crate::commands::accounts::{DATABASE, not_opened};
use crate::config::limits::OnFailure;
use crate::config::models::{DraftTokens, PrefixCache};
#[cfg(feature = "llama")]
use crate::config::models::{FlashAttention, KvFormat, KvLayout, Optimize};
use crate::config::types::Store;
use crate::config::{Config, Database, EngineSection, Llama, Model};
use crate::model_file;

/// The options with which the config says to open the database.
pub(crate) fn options(config: &Config, role: Role) -> Options {
    let options = match &config.database {
        Database::Sqlite => Options::new(config.data.join(DATABASE), role),
        Database::Postgres(url) => Options {
            timeout: config.postgres.timeout(),
            readers_max: config.postgres.connections_max,
            ..Options::new(url.clone(), role)
        },
    };
    Options {
        node: config.node.name.clone(),
        node_silence: config.node.silence(),
        spill: Some(SpillOptions {
            folder: config.data.clone(),
            requests_max: usize::try_from(config.usage.unsettled_requests_max).expect("a u32 fits"),
        }),
        ..options
    }
}

/// Opens the database for serving, and settles or releases holds that dead processes left open.
pub(crate) async fn accounts(config: &Config, clock: &Clock) -> anyhow::Result<Accounts> {
    let options = options(config, Role::Server);
    let location = options.database.clone();
    let opening = Accounts::open(options, clock.now()).await;
    let accounts = opening.map_err(|error| not_opened(&location, error))?;
    let recovered = accounts
        .recover(clock.now())
        .await
        .context("open holds of an earlier process")?;
    if recovered.settled + recovered.released > 0 {
        tracing::info!(
            settled = recovered.settled,
            released = recovered.released,
            charged_usd = %recovered.charged,
            "ended the open holds of an earlier process"
        );
    }
    verify(&accounts).await;
    Ok(accounts)
}

/// The most differences that a start logs; `weir ledger verify` prints all.
const DIFFERENCES_LOGGED_MAX: usize = 100;

/// Logs errors in the books, as far as they can be found in a time that doesn't grow with the history. The server starts all
/// the same: the errors can't overdraw a balance, and an outage for all accounts is worse than an error in one.
async fn verify(accounts: &Accounts) {
    match accounts.verify_quickly().await {
        Ok(differences) => {
            for difference in differences.iter().take(DIFFERENCES_LOGGED_MAX) {
                tracing::error!("the books don't balance: {difference}");
            }
            if differences.len() > DIFFERENCES_LOGGED_MAX {
                let count = differences.len();
                tracing::error!(count, "`weir ledger verify` names all differences");
            }
        }
        Err(error) => tracing::error!(%error, "the books can't be verified"),
    }
}

/// The running engines, which must be stopped in the end.
pub(crate) struct Models {
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    /// Watches the models' files.
    #[cfg(feature = "llama")]
    pub(crate) watch: Option<Watch>,
}

/// Starts the engines, and makes the catalogue. A model that can't be loaded is logged, and listed as not available.
pub(crate) async fn models(config: &Config, clock: &Clock) -> (Catalog, Models) {
    let created = clock.now().as_second();
    let mut offers = Vec::new();
    let mut engines = Vec::new();
    #[cfg(feature = "llama")]
    let (known, mut watched) = (Arc::new(ModelFiles::open(&config.data)), Vec::new());
    // All load at the same time, so that a large model doesn't delay a small one.
    let starting: Vec<_> = config
        .models
        .iter()
        .map(|model| {
            start_engine(
                model,
                config,
                clock,
                #[cfg(feature = "llama")]
                &known,
            )
        })
        .collect();
    for (model, starting) in config.models.iter().zip(starting) {
        let started = starting
            .await
            .context("the loader panicked")
            .and_then(|loaded| loaded);
        let started = match started {
            Ok(started) => Some(started),
            Err(error) => {
                tracing::error!(
                    model = model.id,
                    error = format!("{error:#}"),
                    "the model is not available"
                );
                None
            }
        };
        #[cfg(feature = "llama")]
        watched.extend(started.as_ref().map(|started| Watched {
            model: model.id.clone(),
            files: Arc::clone(&started.files),
            identity: started.identity.clone(),
            checksum: {
                let EngineSection::Llama(llama) = model.engine();
                llama.checksum
            },
        }));
        let engine = started.map(|started| started.engine);
        engines.extend(engine.clone());
        offers.push(offer(model, engine.into_iter().collect(), created));
    }
    let models = Models {
        engines,
        #[cfg(feature = "llama")]
        watch: watch(watched, known, clock),
    };
    (Catalog::new(offers), models)
}

#[cfg(feature = "llama")]
fn watch(watched: Vec<Watched>, known: Arc<ModelFiles>, clock: &Clock) -> Option<Watch> {
    let started = Watch::start(watched, known, clock.clone());
    let failed = |error| tracing::error!(%error, "model files aren't looked after");
    started.map_err(failed).ok()
}

/// A started engine.
struct Started {
    engine: Arc<dyn Engine>,
    #[cfg(feature = "llama")]
    files: Arc<weir_llama::Files>,
    #[cfg(feature = "llama")]
    identity: Identity,
}

/// The catalogue with the same engines and the terms of the config. Models that only one of both has stay as they are.
pub(crate) fn catalog(config: &Config, running: &Catalog) -> Catalog {
    let offers = running.offers().iter().map(|old| {
        let model = config.models.iter().find(|model| model.id == old.id);
        match model {
            Some(model) => offer(model, old.engines.clone(), old.created),
            None => Offer::clone(old),
        }
    });
    Catalog::new(offers.collect())
}

fn offer(model: &Model, engines: Vec<Arc<dyn Engine>>, created: i64) -> Offer {
    let price = |price: u64| i64::try_from(price).expect("the key's range fits");
    Offer {
        id: model.id.clone(),
        created,
        title: model.title.clone().unwrap_or_else(|| model.id.clone()),
        description: model.description.clone().unwrap_or_default(),
        price: Price {
            input: price(model.input_price),
            output: price(model.output_price),
            cached: model.cached_price.map(price),
        },
        max_output_tokens: model.max_output_tokens,
        engines,
    }
}

pub(crate) async fn gateway(
    config: &Config,
    catalog: Catalog,
    accounts: Accounts,
    clock: Clock,
) -> anyhow::Result<Gateway> {
    let section = &config.limits;
    let limits = match &section.store {
        Store::Memory => weir_gateway::limits::Limits::new(Instant::now()),
        Store::Shared(url) => {
            let options = StoreOptions {
                url: url.clone(),
                timeout: section.store_timeout(),
                on_failure: match section.on_failure {
                    OnFailure::Local => StoreFailure::Local,
                    OnFailure::Open => StoreFailure::Open,
                    OnFailure::Closed => StoreFailure::Closed,
                },
                node: getrandom::u64().context("no randomness for a node's name")?,
            };
            let opened = weir_gateway::limits::Limits::shared(options, Instant::now()).await;
            opened.context("limits.store")?
        }
    };
    let rules = Rules {
        limits,
        key: section.key(),
        tiers: section.tier_rules(),
    };
    let gateway = Gateway::new(catalog, accounts, rules, clock);
    Ok(match config.usage.keep_days {
        Some(days) => gateway.with_usage_kept(SignedDuration::from_hours(i64::from(days) * 24)),
        None => gateway,
    })
}

/// Starts the webhooks: from now on events are stored for them.
pub(crate) async fn webhooks(
    config: &Config,
    accounts: Accounts,
    clock: Clock,
) -> anyhow::Result<Webhooks> {
    let random = || getrandom::u64().expect("the operating system has randomness");
    let time = accounts.clone();
    let deps = Deps::new(move || time.time(clock.now()), random);
    let started = Webhooks::start(accounts, config.webhooks(), deps).await;
    started.context("webhooks")
}

/// Makes the application that serves HTTP.
pub(crate) fn app(config: &Config, gateway: Gateway, reload: Reload) -> App {
    let options = config.http.options(config.cors_origins());
    App::new(gateway, options, random).with_reload(reload)
}

fn random() -> u128 {
    let half = || u128::from(getrandom::u64().expect("the operating system has randomness"));
    half() << 64 | half()
}

/// The folder of requantized copies of model files.
#[cfg(feature = "llama")]
pub(crate) fn requantized(config: &Config) -> PathBuf {
    config.data.join("requantized")
}

fn start_engine(
    model: &Model,
    config: &Config,
    clock: &Clock,
    #[cfg(feature = "llama")] known: &Arc<ModelFiles>,
) -> JoinHandle<anyhow::Result<Started>> {
    let EngineSection::Llama(llama) = model.engine();
    let options = local_options(llama, config, clock);
    let llama = llama.clone();
    let span = tracing::info_span!("engine", model = model.id);
    #[cfg(feature = "llama")]
    let (known, requantized) = (Arc::clone(known), requantized(config));
    #[cfg(feature = "llama")]
    let load = move || load(llama, &known, &requantized, options);
    #[cfg(not(feature = "llama"))]
    let load = move || load(llama, options);
    // Mapping a file and allocating a cache blocks for a while.
    tokio::task::spawn_blocking(move || span.in_scope(load))
}

/// The options of a local engine.
fn local_options(llama: &Llama, config: &Config, clock: &Clock) -> weir_inference::local::Options {
    let clock = clock.clone();
    let mut options = weir_inference::local::Options::new(move || clock.now());
    options.queue_requests_max = number(llama.queue_requests_max, options.queue_requests_max);
    options.grammar_compiles = grammar_compiles(llama);
    if let Some(target) = llama.inter_token_target_ms {
        options.inter_token_target = Duration::from_millis(target);
    }
    if let Some(tokens) = llama.prompt_tokens_min {
        options.prompt_tokens_min = tokens;
    }
    options.prefix_cache = match llama.prefix_cache {
        PrefixCache::Account => CacheSharing::Account,
        PrefixCache::Everybody => CacheSharing::Everybody,
        PrefixCache::Off => CacheSharing::Off,
    };
    options.speculation = match llama.speculation {
        DraftTokens::Ngram => Speculation::Ngram,
        DraftTokens::Off => Speculation::Off,
    };
    options.write_timeout = config.http.write_timeout();
    options
}

fn grammar_compiles(llama: &Llama) -> AdmissionOptions {
    let usual = AdmissionOptions::default();
    let time = |written: Option<u64>, usual| written.map_or(usual, Duration::from_millis);
    AdmissionOptions {
        at_once: number(llama.grammar_compiles_max, usual.at_once),
        waiting_max: number(llama.grammar_compiles_waiting_max, usual.waiting_max),
        burst: time(llama.grammar_compile_burst_ms, usual.burst),
        per_second: time(llama.grammar_compile_ms_per_second, usual.per_second),
    }
}

fn number(written: Option<u32>, usual: usize) -> usize {
    written.map_or(usual, |number| usize::try_from(number).expect("a u32 fits"))
}

#[cfg(feature = "llama")]
fn load(
    llama: Llama,
    known: &ModelFiles,
    requantized: &Path,
    options: weir_inference::local::Options,
) -> anyhow::Result<Started> {
    model_file::check(&llama.path)?;
    let serve = serve_options(&llama);
    let admitted = known.admit(&llama.path, &serve)?;
    let file = open(&llama, requantized)?;
    let files = file.files();
    let identity = if files.path() == llama.path {
        admitted
    } else {
        // A requantized copy is served instead.
        Identity::of(files.path(), &model_files::checked(files.path())?)?
    };
    let served = file.serve(&serve)?;
    let queue_requests_max = options.queue_requests_max;
    let generator = match served.model {
        Some(model) => Some(Arc::new(LocalEngine::spawn(model, options)?)),
        None => None,
    };
    let shortening = if llama.matryoshka {
        Shortening::Any
    } else {
        Shortening::Never
    };
    let engine: Arc<dyn Engine> = match (served.embedder, generator) {
        (Some(embedder), generator) => Arc::new(EmbeddingEngine::spawn(
            embedder,
            shortening,
            queue_requests_max,
            generator,
        )?),
        (None, Some(generator)) => generator,
        (None, None) => unreachable!("a model generates or embeds"),
    };
    Ok(Started {
        engine,
        files,
        identity,
    })
}

/// The options for all uses that the model is served for.
#[cfg(feature = "llama")]
pub(crate) fn serve_options(llama: &Llama) -> weir_llama::ServeOptions {
    weir_llama::ServeOptions {
        generate: load_options(llama),
        embed: weir_llama::EmbedOptions {
            threads: llama.threads,
            threads_min: llama.threads_min,
            input_tokens_max: llama.embedding_tokens,
            pooling: None,
        },
        embeddings: llama.embeddings.is_some(),
    }
}

/// Opens the model's file, or its faster copy.
#[cfg(feature = "llama")]
pub(crate) fn open(
    llama: &Llama,
    requantized: &Path,
) -> Result<weir_llama::ModelFile, weir_llama::LoadError> {
    match llama.optimize {
        Optimize::Off => weir_llama::open(&llama.path),
        Optimize::Speed => optimize::open(&llama.path, requantized, llama.threads),
    }
}

/// The options of a generating model.
#[cfg(feature = "llama")]
pub(crate) fn load_options(llama: &Llama) -> weir_llama::LoadOptions {
    weir_llama::LoadOptions {
        threads: llama.threads,
        threads_min: llama.threads_min,
        context_tokens: llama.context_tokens,
        cells: llama.cells,
        sequences: llama.sequences,
        kv_layout: match llama.kv_layout {
            KvLayout::Unified => weir_llama::KvLayout::Unified,
            KvLayout::Split => weir_llama::KvLayout::Split,
        },
        kv_format: match llama.kv_format {
            KvFormat::F16 => weir_llama::KvFormat::F16,
            KvFormat::Q8_0 => weir_llama::KvFormat::Q8_0,
            KvFormat::F32 => weir_llama::KvFormat::F32,
        },
        flash_attention: match llama.flash_attention {
            FlashAttention::Auto => weir_llama::FlashAttention::Auto,
            FlashAttention::On => weir_llama::FlashAttention::On,
            FlashAttention::Off => weir_llama::FlashAttention::Off,
        },
        aside_tokens: llama.aside_tokens,
        reproducible: llama.reproducible,
    }
}

#[cfg(not(feature = "llama"))]
fn load(llama: Llama, _options: weir_inference::local::Options) -> anyhow::Result<Started> {
    let Llama { path, .. } = llama;
    model_file::check(&path)?;
    anyhow::bail!(
        "{} can't be loaded: this program was built without the embedded engine",
        path.display()
    )
}
