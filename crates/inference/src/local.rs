//! An engine in this process: one thread owns the model and only steps. Templates and tokenizing happen before a
//! request reaches that thread, text and JSON after.

mod budget;
mod core;
mod embedding;
mod fair_queue;
mod generation;
mod inbox;
mod mask_watch;
mod masks;
mod prepare;
mod row_cost;
mod score;
mod step_budget;
mod text_tokenizer;
mod thread;
mod token_limits;
mod workers;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use weir_engine::{
    Engine, EngineError, Events, Facts, Feature, Health, Job, Prepared, Request, Terms, event,
};

use crate::chat_format::ChoiceParsers;
use crate::chat_format::{ChatFormat, ChatTemplate};
use crate::constraint::{
    Admission, AdmissionOptions, Cancel, Compiled, Constraints, Grammar, NotAdmitted,
};
use crate::local::inbox::{Inbox, Start};
use crate::local::prepare::{Preparer, kept_to};
use crate::local::text_tokenizer::TextTokenizer;
use crate::local::workers::{Purpose, Workers};
use crate::model::{Model, ModelFacts};
use crate::prepared::PreparedRequest;
use crate::scheduler::Drafted;

pub use crate::local::core::{Core, Monotonic, Progress};
pub use crate::local::embedding::EmbeddingEngine;
pub use crate::local::inbox::QueueStats;
pub use crate::local::masks::AccountMasks;
pub use crate::local::prepare::ECHOED_LOGPROBS_MAX;

/// Tokens that a choice is expected to generate when it is admitted to the KV cache.
pub const OUTPUT_EXPECTED: u32 = 64;
/// The most requests that wait for their first step.
pub const QUEUE_REQUESTS_MAX: usize = 512;
/// The inter-token latency that a stream is to have at most while prompts of others are computed.
pub const INTER_TOKEN_TARGET: Duration = Duration::from_millis(100);
/// Prompt tokens that a step beside streams may have although it takes longer than the target, up to twice the target.
/// With fewer, a prompt would hardly advance: half of each step would be its neighbours' decode tokens.
pub const PROMPT_TOKENS_MIN: u32 = 32;
/// How long a generation waits for a slow reader before it fails.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// The options of a [`LocalEngine`].
#[derive(Clone)]
pub struct Options {
    pub queue_requests_max: usize,
    pub inter_token_target: Duration,
    pub prompt_tokens_min: u32,
    pub write_timeout: Duration,
    pub output_expected: u32,
    pub prefix_cache: CacheSharing,
    pub speculation: Speculation,
    /// Threads that compute token masks: which tokens a format allows next.
    pub mask_threads: usize,
    pub grammar_compiles: AdmissionOptions,
    /// Wall time, for templates that print the date.
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Options {
    /// The defaults; `now` tells the wall time.
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Options {
            queue_requests_max: QUEUE_REQUESTS_MAX,
            inter_token_target: INTER_TOKEN_TARGET,
            prompt_tokens_min: PROMPT_TOKENS_MIN,
            write_timeout: WRITE_TIMEOUT,
            output_expected: OUTPUT_EXPECTED,
            prefix_cache: CacheSharing::Account,
            speculation: Speculation::Off,
            mask_threads: mask_threads(),
            grammar_compiles: AdmissionOptions::default(),
            now: Arc::new(now),
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("queue_requests_max", &self.queue_requests_max)
            .field("inter_token_target", &self.inter_token_target)
            .field("prompt_tokens_min", &self.prompt_tokens_min)
            .field("write_timeout", &self.write_timeout)
            .field("output_expected", &self.output_expected)
            .field("prefix_cache", &self.prefix_cache)
            .field("speculation", &self.speculation)
            .field("mask_threads", &self.mask_threads)
            .field("grammar_compiles", &self.grammar_compiles)
            .finish_non_exhaustive()
    }
}

/// Which requests share the prefix cache. Sharing tells something: if an answer begins fast, another caller has sent
/// the same prefix before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSharing {
    /// Requests of the same account.
    Account,
    /// All requests.
    Everybody,
    /// Only the choices of the request.
    Off,
}

/// Whether to use speculative decoding, so that a step can yield several tokens of a choice. It doesn't change the
/// answers, but for the kernels' rounding; reproducible engines never do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speculation {
    /// Drafts the tokens that followed the last tokens where these were before, in the prompt or the answer.
    Ngram,
    Off,
}

impl CacheSharing {
    fn cache_salt(self, account: &Arc<str>) -> Option<Arc<str>> {
        match self {
            CacheSharing::Account => Some(Arc::clone(account)),
            CacheSharing::Everybody => Some(Arc::default()),
            CacheSharing::Off => None,
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Half of the cores: the kernels want the others, and a mask takes far less time than a step.
fn mask_threads() -> usize {
    (cores() / 2).max(1)
}

/// Why a model can't be served.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    #[error("the model's chat template: {0}")]
    Template(String),
    #[error("the model has no room for a single token: {0}")]
    Capacity(String),
    #[error("the engine's thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// An engine around a [`Model`] in this process.
///
/// Dropping it ends its thread after the step that is running; what is still being generated fails
/// with [`EngineError::Unavailable`]. [`Engine::stop`] does the same and waits.
#[derive(Debug)]
pub struct LocalEngine {
    facts: Facts,
    preparer: Arc<Preparer>,
    workers: Arc<Workers>,
    admission: Arc<Admission>,
    inbox: Arc<Inbox>,
    /// The engine's thread, and one that reads the vocabulary and ends.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl LocalEngine {
    /// Starts the thread that owns the model. It logs in the span that is current now.
    pub fn spawn<M: Model>(model: M, options: Options) -> Result<Self, SpawnError> {
        let capacity = model.capacity();
        if capacity.cells == 0
            || capacity.sequences == 0
            || capacity.rows == 0
            || capacity.outputs == 0
        {
            return Err(SpawnError::Capacity(format!("{capacity:?}")));
        }
        let model_facts = model.facts();
        // A single sequence must fit the KV cache, even if the model's context is longer.
        let context_tokens = model_facts.context_tokens.min(capacity.cells);
        let tokenizer = model.tokenizer();
        let chat_format = match &model_facts.chat_template {
            Some(source) => {
                let template = ChatTemplate::parse(source, &model_facts.bos, &model_facts.eos)
                    .map_err(SpawnError::Template)?;
                Some(ChatFormat::new(template, source, &*tokenizer))
            }
            None => None,
        };
        let facts = Facts {
            context_tokens,
            chat: chat_format.is_some(),
            generates: true,
            embedding: None,
            features: features(chat_format.as_ref()),
            fingerprint: fingerprint(model_facts, &options),
        };
        let preparer = Preparer {
            constraints: Constraints::new(Arc::clone(&tokenizer)),
            tokenizer,
            chat_format,
            context_tokens,
            ends: OnceLock::new(),
            now: Arc::clone(&options.now),
        };
        let inbox = Arc::new(Inbox::new(options.queue_requests_max));
        let preparer = Arc::new(preparer);
        let admission = Arc::new(Admission::new(options.grammar_compiles));
        let stepping = thread::spawn(model, &options, Arc::clone(&inbox), Arc::clone(&admission))?;
        let threads = vec![stepping, read_vocabulary(Arc::clone(&preparer))?];
        Ok(LocalEngine {
            facts,
            preparer,
            workers: Arc::new(Workers::start(cores(), Purpose::Texts)?),
            admission,
            inbox,
            threads: Mutex::new(threads),
        })
    }

    /// The numbers of draft tokens until the last step, and of accepted ones.
    pub fn drafted(&self) -> Drafted {
        self.inbox.drafted()
    }

    /// Renders and tokenizes a request, and compiles its grammar.
    pub async fn render(
        &self,
        request: impl Into<Arc<Request>>,
    ) -> Result<PreparedRequest, EngineError> {
        let request = request.into();
        let account = Arc::clone(&request.account);
        let preparer = Arc::clone(&self.preparer);
        // A long prompt takes milliseconds to tokenize, too long for the async threads.
        let rendered = self.workers.run(&account, move || preparer.render(request));
        let rendered = rendered.await??;
        match rendered.grammar {
            None => Ok(rendered.prepared),
            Some(grammar) => {
                let compiled = self.compile(grammar, &account).await?;
                Ok(kept_to(rendered.prepared, Some(compiled)))
            }
        }
    }

    /// Starts a rendered request, which must come from this engine.
    pub fn start(&self, prepared: PreparedRequest) -> Result<Events, EngineError> {
        self.preparer.check(&prepared)?;
        enqueue(prepared, &self.inbox)
    }

    fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops the engine, and blocks until its threads have ended. Not for async code, which has [`Engine::stop`].
    pub fn stop_and_wait(&self) {
        self.inbox.stop();
        join_blocking(self.take_threads());
    }
}

impl LocalEngine {
    /// Compiles a grammar when it is the account's turn. Dropping the future cancels it.
    async fn compile(&self, grammar: Grammar, account: &Arc<str>) -> Result<Compiled, EngineError> {
        if let Some(kept) = self.preparer.constraints.kept(&grammar) {
            let admitted = self.admission.admit_kept(account, Instant::now());
            return admitted.map(|()| kept).map_err(EngineError::from);
        }
        let permit = self.admission.admit(account, Instant::now()).await?;
        let (preparer, admission, charged) = (
            Arc::clone(&self.preparer),
            Arc::clone(&self.admission),
            Arc::clone(account),
        );
        let leaving = CancelOnDrop(Cancel::default());
        let cancel = leaving.0.clone();
        let compiled = self.workers.run(account, move || {
            // The permit lasts as long as the work, even if the caller has left.
            let _turn = permit;
            let compiled = preparer.compile(&grammar, &cancel);
            admission.charge(&charged, cancel.steps(), Instant::now());
            compiled
        });
        let compiled = compiled.await;
        drop(leaving);
        compiled?
    }
}

impl From<NotAdmitted> for EngineError {
    fn from(NotAdmitted { retry_after }: NotAdmitted) -> Self {
        EngineError::TooMuchGrammarWork { retry_after }
    }
}

/// Cancels a compilation when it is dropped, since its caller has left.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Drop for LocalEngine {
    fn drop(&mut self) {
        self.inbox.stop();
    }
}

impl Engine for LocalEngine {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn health(&self) -> Health {
        self.inbox.health()
    }

    fn accepts(&self, account: &str) -> Result<(), EngineError> {
        self.inbox.accepts(account)
    }

    fn prepare<'a>(
        &'a self,
        request: &'a Arc<Request>,
    ) -> BoxFuture<'a, Result<Prepared, EngineError>> {
        async move {
            let prepared = self.render(Arc::clone(request)).await?;
            Ok(Prepared {
                prompt_tokens: prepared.prompt_tokens(),
                output_tokens_max: prepared.output_tokens_max(),
                prompts: Some(prepared.prompts.clone()),
                relaxed: Arc::clone(&prepared.relaxed),
                job: Box::new(LocalJob {
                    prepared,
                    inbox: Arc::clone(&self.inbox),
                }),
            })
        }
        .boxed()
    }

    fn drain(&self) {
        self.inbox.drain();
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        self.inbox.stop();
        join(self.take_threads()).boxed()
    }

    fn tokenizer(&self) -> Option<Arc<dyn weir_engine::Tokenizer>> {
        Some(Arc::new(TextTokenizer {
            tokenizer: Arc::clone(&self.preparer.tokenizer),
            workers: Arc::clone(&self.workers),
        }))
    }
}

/// A rendered request, and the queue of the engine that rendered it.
#[derive(Debug)]
struct LocalJob {
    prepared: PreparedRequest,
    inbox: Arc<Inbox>,
}

impl Job for LocalJob {
    fn start(self: Box<Self>, terms: Terms) -> BoxFuture<'static, Result<Events, EngineError>> {
        let LocalJob { prepared, inbox } = *self;
        let Terms { allowance, weight } = terms;
        let prepared = PreparedRequest {
            allowance,
            weight,
            ..prepared
        };
        ready(enqueue(prepared, &inbox)).boxed()
    }
}

/// Puts a request into the engine's queue.
fn enqueue(prepared: PreparedRequest, inbox: &Inbox) -> Result<Events, EngineError> {
    let choices = usize::try_from(prepared.choices()).expect("choices fit the memory");
    // Two events per choice: each of them may send text and its end in one step. Each prompt has an event, too.
    let capacity = event::EVENTS_MAX.max(choices * 2 + 2) + prepared.prompts.len();
    let (sender, events) = event::channel(capacity);
    let parser = ChoiceParsers::from(prepared.parse_rules.clone());
    inbox.push(Start { prepared, sender })?;
    Ok(events.through(Box::new(parser)))
}

/// Waits until the threads have ended, without blocking an async thread.
async fn join(threads: impl IntoIterator<Item = JoinHandle<()>> + Send + 'static) {
    if tokio::task::spawn_blocking(|| join_blocking(threads))
        .await
        .is_err()
    {
        tracing::error!("the engine's threads can't be waited for");
    }
}

fn join_blocking(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the engine ended in a panic");
        }
    }
}

/// Reads the vocabulary in the background, so that neither the start nor the first request with a format waits for all
/// of it.
fn read_vocabulary(preparer: Arc<Preparer>) -> std::io::Result<JoinHandle<()>> {
    let parse_rules = std::thread::Builder::new().name("weir-vocabulary".to_owned());
    parse_rules.spawn(move || preparer.constraints.read_vocabulary())
}

/// The fingerprint: `fp_` and ten hex digits, like OpenAI's.
fn fingerprint(model: &ModelFacts, options: &Options) -> Arc<str> {
    let mut digest = Sha256::new();
    let version = env!("CARGO_PKG_VERSION");
    let speculation = format!("{:?}", options.speculation);
    for part in [version, &model.digest, &speculation] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    let digits: String = digest
        .finalize()
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("fp_{digits}").into()
}

/// The model's features. Every chat model can call tools, whether or not its template knows them.
fn features(chat_format: Option<&ChatFormat>) -> Vec<Feature> {
    let Some(chat_format) = chat_format else {
        return vec![Feature::StructuredOutputs];
    };
    let reasoning = chat_format.thinks().then_some(Feature::Reasoning);
    [Feature::FunctionCalling, Feature::StructuredOutputs]
        .into_iter()
        .chain(reasoning)
        .collect()
}

#[cfg(test)]
mod tests;
