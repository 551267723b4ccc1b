//! Embeddings in this process: a thread of its own owns the [`Embedder`], so that text generation doesn't wait for
//! embeddings. Accounts take turns, and so do the requests of each; they fill steps together.

mod choose;
mod queue;

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use weir_engine::embed::{
    EmbedJob, EmbedRequest, Embedded, Embedding, INPUTS_MAX, PreparedEmbed, Shortening, TOKENS_MAX,
};
use weir_engine::request::{Invalid, Prompt};
use weir_engine::{Engine, EngineError, Facts, Health, Prepared, PromptSize, Request, Token};

use crate::local::LocalEngine;
use crate::local::embedding::choose::choose;
use crate::local::embedding::queue::{Queue, Refused};
use crate::local::text_tokenizer::TextTokenizer;
use crate::local::workers::{Purpose, Workers};
use crate::model::{Bos, DecodeError, Embedder, EmbedderFacts, Tokenizer};
use crate::specials::Names;

/// The `retry_after` of a full queue: most requests take less.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An engine for embeddings, beside an engine that generates text or alone.
#[derive(Debug)]
pub struct EmbeddingEngine {
    facts: Facts,
    embeddings: Arc<EmbeddingThread>,
    /// The threads for texts: the generator's, if there is one.
    workers: Arc<Workers>,
    generator: Option<Arc<LocalEngine>>,
}

impl EmbeddingEngine {
    /// Starts the thread that owns the embedder; it ends when the engine is dropped. `generator`, if there is one,
    /// shares the embedder's vocabulary.
    pub fn spawn(
        embedder: impl Embedder,
        shortening: Shortening,
        queue_requests_max: usize,
        generator: Option<Arc<LocalEngine>>,
    ) -> std::io::Result<Self> {
        let embeddings = EmbeddingThread::spawn(embedder, shortening, queue_requests_max)?;
        let workers = match &generator {
            Some(generator) => Arc::clone(&generator.workers),
            None => Arc::new(Workers::start(super::cores(), Purpose::Texts)?),
        };
        let alone = Facts {
            context_tokens: embeddings.facts.input_tokens_max,
            chat: false,
            generates: false,
            embedding: None,
            features: Vec::new(),
            fingerprint: Arc::default(),
        };
        let facts = generator
            .as_ref()
            .map_or(alone, |engine| engine.facts().clone());
        Ok(EmbeddingEngine {
            facts: Facts {
                embedding: Some(embeddings.embedding),
                ..facts
            },
            embeddings: Arc::new(embeddings),
            workers,
            generator,
        })
    }
}

const NO_COMPLETIONS: EngineError = EngineError::Unsupported {
    feature: "completions",
};

impl Engine for EmbeddingEngine {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn health(&self) -> Health {
        let generator = self.generator.as_ref().map(|engine| engine.health());
        match generator {
            Some(Health::Down(why)) => Health::Down(why),
            _ if self.embeddings.queue.is_closed() => Health::Down(gone().to_string()),
            Some(Health::Ready) | None => Health::Ready,
        }
    }

    fn accepts(&self, account: &str) -> Result<(), EngineError> {
        let generator = self.generator.as_ref();
        generator.map_or(Ok(()), |engine| engine.accepts(account))
    }

    fn prepare<'a>(
        &'a self,
        request: &'a Arc<Request>,
    ) -> BoxFuture<'a, Result<Prepared, EngineError>> {
        match &self.generator {
            Some(generator) => generator.prepare(request),
            None => async { Err(NO_COMPLETIONS) }.boxed(),
        }
    }

    fn drain(&self) {
        self.embeddings.queue.drain();
        if let Some(generator) = &self.generator {
            generator.drain();
        }
    }

    fn stop(&self) -> BoxFuture<'_, ()> {
        let thread = self.embeddings.stop();
        async move {
            if let Some(generator) = &self.generator {
                generator.stop().await;
            }
            super::join(thread).await;
        }
        .boxed()
    }

    fn embeddings(&self) -> Option<&dyn weir_engine::embed::Embeddings> {
        Some(self)
    }

    fn tokenizer(&self) -> Option<Arc<dyn weir_engine::Tokenizer>> {
        Some(Arc::new(TextTokenizer {
            tokenizer: Arc::clone(&self.embeddings.tokenizer),
            workers: Arc::clone(&self.workers),
        }))
    }
}

impl weir_engine::embed::Embeddings for EmbeddingEngine {
    fn prepare_embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<PreparedEmbed, EngineError>> {
        async move {
            let account = Arc::clone(&request.account);
            let embeddings = Arc::clone(&self.embeddings);
            // Tokenizing takes too long for the async threads.
            let tokenized = self
                .workers
                .run(&account, move || embeddings.tokenized(&request));
            let inputs = tokenized.await??;
            let embeddings = Arc::clone(&self.embeddings);
            Ok(PreparedEmbed {
                tokens: inputs.tokens(),
                job: Box::new(LocalEmbedJob { inputs, embeddings }),
            })
        }
        .boxed()
    }
}

/// A tokenized request, and the thread that computes it.
#[derive(Debug)]
struct LocalEmbedJob {
    inputs: Inputs,
    embeddings: Arc<EmbeddingThread>,
}

impl EmbedJob for LocalEmbedJob {
    fn run(self: Box<Self>) -> BoxFuture<'static, Result<Embedded, EngineError>> {
        async move { self.embeddings.embed(self.inputs).await }.boxed()
    }
}

/// The inputs of a request, tokenized.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Inputs {
    /// The tokens of each input; none of them is empty, and each fits the model.
    tokens: Vec<Arc<[Token]>>,
    /// The number of dimensions of each vector.
    dimensions: u32,
    /// The account that pays; accounts take turns.
    account: Arc<str>,
}

impl Inputs {
    /// The tokens of all inputs.
    fn tokens(&self) -> u64 {
        self.tokens.iter().map(|input| input.len() as u64).sum()
    }
}

/// The callers' handle on the embedding thread. When it is dropped, the thread ends after the jobs that it has.
struct EmbeddingThread {
    facts: EmbedderFacts,
    embedding: Embedding,
    tokenizer: Arc<dyn Tokenizer>,
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for EmbeddingThread {
    fn drop(&mut self) {
        self.queue.end();
    }
}

struct Job {
    account: Arc<str>,
    inputs: Vec<Arc<[Token]>>,
    vectors: Vec<Vec<f32>>,
    /// Closed when the caller has left.
    answer: oneshot::Sender<Result<Vec<Vec<f32>>, EngineError>>,
}

impl EmbeddingThread {
    fn spawn(
        embedder: impl Embedder,
        shortening: Shortening,
        queue_requests_max: usize,
    ) -> std::io::Result<Self> {
        let facts = embedder.facts();
        let embedding = Embedding {
            dimensions: facts.dimensions,
            input_tokens_max: facts.input_tokens_max,
            shortening,
        };
        let tokenizer = embedder.tokenizer();
        let queue = Arc::new(Queue::new(queue_requests_max.max(1)));
        let jobs = Arc::clone(&queue);
        let span = tracing::Span::current();
        let thread = std::thread::Builder::new()
            .name("weir-embed".to_owned())
            .spawn(move || {
                let _span = span.entered();
                // Callers learn of a panic by the end of their channels.
                if catch_unwind(AssertUnwindSafe(|| run(embedder, &jobs))).is_err() {
                    tracing::error!("the embedding thread panicked");
                }
                jobs.close();
            })?;
        Ok(EmbeddingThread {
            facts,
            embedding,
            tokenizer,
            queue,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Refuses new jobs, drops waiting ones, and returns the thread, which ends after the jobs that it has.
    fn stop(&self) -> Option<JoinHandle<()>> {
        self.queue.close();
        self.queue.end();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.take()
    }

    /// Checks and tokenizes a request, which takes too long for async threads.
    fn tokenized(&self, request: &EmbedRequest) -> Result<Inputs, EngineError> {
        let dimensions = self.embedding.dimensions(request.dimensions)?;
        if request.inputs.is_empty() || request.inputs.len() > INPUTS_MAX {
            let message = format!(
                "input must have 1 to {INPUTS_MAX} entries, got {}",
                request.inputs.len()
            );
            return Err(Invalid::new("input", message).into());
        }
        let mut total = 0;
        let mut inputs = Vec::with_capacity(request.inputs.len());
        for input in &request.inputs {
            let tokens = self.tokens(input)?;
            total += tokens.len() as u64;
            if total > TOKENS_MAX {
                let message = format!("input may have at most {TOKENS_MAX} tokens in all");
                return Err(Invalid::new("input", message).into());
            }
            inputs.push(tokens);
        }
        Ok(Inputs {
            tokens: inputs,
            dimensions,
            account: Arc::clone(&request.account),
        })
    }

    async fn embed(&self, inputs: Inputs) -> Result<Embedded, EngineError> {
        let tokens = inputs.tokens();
        let dimensions = inputs.dimensions;
        let (answer, vectors) = oneshot::channel();
        let job = Job {
            vectors: Vec::with_capacity(inputs.tokens.len()),
            account: inputs.account,
            inputs: inputs.tokens,
            answer,
        };
        self.queue.push(job).map_err(|refused| match refused {
            Refused::Full => EngineError::Busy {
                retry_after: RETRY_AFTER,
            },
            Refused::Draining => EngineError::Draining {
                retry_after: RETRY_AFTER,
            },
            Refused::Closed => gone(),
        })?;
        let vectors = vectors.await.unwrap_or_else(|_| Err(gone()))?;
        let shorten = |vector| unit(vector, dimensions as usize);
        Ok(Embedded {
            vectors: vectors.into_iter().map(shorten).collect(),
            tokens,
        })
    }

    fn tokens(&self, input: &Prompt) -> Result<Arc<[Token]>, EngineError> {
        let mut exact = true;
        let tokens: Arc<[Token]> = match input {
            Prompt::Text(text) => {
                let mut encoded = self.tokenizer.encode(text, Names::All, Bos::Add);
                exact = encoded.complete;
                encoded.tokens.extend(self.facts.last);
                encoded.tokens.into()
            }
            Prompt::Tokens(tokens) => tokens.as_slice().into(),
        };
        self.check(&tokens, exact)?;
        Ok(tokens)
    }

    fn check(&self, input: &[Token], exact: bool) -> Result<(), EngineError> {
        if input.is_empty() {
            let message = "input must not be empty: it has no tokens";
            return Err(Invalid::new("input", message).into());
        }
        if input.len() as u64 > u64::from(self.facts.input_tokens_max) {
            return Err(EngineError::TooLong {
                context: self.facts.input_tokens_max,
                prompt: PromptSize {
                    tokens: input.len() as u64,
                    exact,
                },
                requested: None,
            });
        }
        let vocabulary = self.tokenizer.vocabulary();
        match input.iter().find(|&&token| token >= vocabulary) {
            None => Ok(()),
            Some(token) => {
                let message = format!(
                    "input has token {token}, but the model's vocabulary ends at {}",
                    vocabulary - 1
                );
                Err(Invalid::new("input", message).into())
            }
        }
    }
}

fn gone() -> EngineError {
    EngineError::Unavailable("the embedding thread has ended".to_owned())
}

/// The vector's first `dimensions` numbers, normalized to length 1. A vector of zeros stays as it is.
fn unit(mut vector: Vec<f32>, dimensions: usize) -> Vec<f32> {
    vector.truncate(dimensions);
    let square = |&number: &f32| f64::from(number) * f64::from(number);
    let length = vector.iter().map(square).sum::<f64>().sqrt();
    if length > 0.0 {
        let shorten = |number: &mut f32| *number = (f64::from(*number) / length) as f32;
        vector.iter_mut().for_each(shorten);
    }
    vector
}

/// The most jobs of an account that are computed beside each other, so that a short one doesn't wait for a long one.
const JOBS_AT_ONCE: usize = 16;

fn run(mut embedder: impl Embedder, queue: &Queue) {
    let mut jobs: VecDeque<Job> = VecDeque::new();
    loop {
        let may = |account: &str| may_have_more(&jobs, account);
        let Some(next) = queue.take(jobs.is_empty(), may) else {
            return;
        };
        jobs.extend(next);
        if let Step::Damaged(why) = step(&mut embedder, &mut jobs) {
            tracing::error!("embeddings are not available until the model is loaded again: {why}");
            // Refuse new jobs first: no thread would answer them.
            queue.close();
            for job in jobs {
                let _ = job.answer.send(Err(EngineError::Unavailable(why.clone())));
            }
            return;
        }
    }
}

/// Whether one more job of the account may be computed beside its others.
fn may_have_more(jobs: &VecDeque<Job>, account: &str) -> bool {
    let own = jobs.iter().filter(|job| *job.account == *account);
    own.count() < JOBS_AT_ONCE
}

/// The outcome of a step.
enum Step {
    Done,
    /// The model is damaged: nothing more can be computed.
    Damaged(String),
}

/// Computes some inputs of several jobs, and answers those that are complete.
fn step(embedder: &mut impl Embedder, jobs: &mut VecDeque<Job>) -> Step {
    jobs.retain(|job| !job.answer.is_closed());
    let facts = embedder.facts();
    let chosen = choose(&facts, jobs);
    if chosen.is_empty() {
        return Step::Done;
    }
    let inputs: Vec<Arc<[Token]>> = chosen
        .iter()
        .map(|&(job, input)| Arc::clone(&jobs[job].inputs[input]))
        .collect();
    match embedder.embed(&inputs) {
        Ok(vectors) => {
            let served: HashSet<Arc<str>> = chosen
                .iter()
                .map(|&(job, _)| Arc::clone(&jobs[job].account))
                .collect();
            for (&(job, _), vector) in chosen.iter().zip(vectors) {
                jobs[job].vectors.push(vector);
            }
            for job in std::mem::take(jobs) {
                if job.vectors.len() < job.inputs.len() {
                    jobs.push_back(job);
                } else {
                    // The caller may have left.
                    let _ = job.answer.send(Ok(job.vectors));
                }
            }
            // A job that was first is last in the next step, and an account that had no input in this one goes before the others, however
            // many jobs they have.
            jobs.rotate_left(usize::from(jobs.len() > 1));
            jobs.make_contiguous()
                .sort_by_key(|job| served.contains(&job.account));
        }
        Err(DecodeError::CacheFull) => fail(jobs, &chosen, "no room for a step of embeddings"),
        Err(DecodeError::Fault(why) | DecodeError::Lost(why)) => fail(jobs, &chosen, &why),
        Err(error @ DecodeError::Unwanted) => fail(jobs, &chosen, &error.to_string()),
        Err(DecodeError::Damaged(why)) => return Step::Damaged(why),
    }
    Step::Done
}

/// Fails the jobs in the step. The others weren't touched.
fn fail(jobs: &mut VecDeque<Job>, chosen: &[(usize, usize)], why: &str) {
    tracing::error!(inputs = chosen.len(), "a step of embeddings failed: {why}");
    for (at, job) in std::mem::take(jobs).into_iter().enumerate() {
        if chosen.iter().any(|&(unlucky, _)| unlucky == at) {
            let _ = job.answer.send(Err(EngineError::Fault(why.to_owned())));
        } else {
            jobs.push_back(job);
        }
    }
}

impl fmt::Debug for EmbeddingThread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingThread")
            .field("embedding", &self.embedding)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
