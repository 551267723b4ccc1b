//! A caller that was admitted to a model, and what it can ask for before anything is held.

use std::sync::Arc;

use tokio::sync::oneshot;
use weir_accounts::{Counts, Nanos, Price};
use weir_engine::{Engine, Facts, Prepared, Relaxed, Request, Token, Tokenizer};

use crate::limits::Permit;
use crate::{Offer, Refusal};

/// A caller's admission to a model. It counts as a concurrent request until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    pub(crate) account: Arc<str>,
    pub(crate) offer: Arc<Offer>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) permit: Permit,
}

/// The tokens and the cost that a request would need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    pub prompt_tokens: u64,
    /// The most tokens that can be generated, summed over all choices.
    pub output_tokens_max: u64,
    /// The amount that is held for a request with an explicit limit of output tokens.
    pub cost_max: Nanos,
    /// The parts of the request's schemas that aren't enforced.
    pub relaxed: Arc<[Relaxed]>,
}

impl Admitted {
    pub fn facts(&self) -> &Facts {
        self.engine.facts()
    }

    /// The model's tokenizer; refused if no engine of this process has it.
    pub fn tokenizer(&self) -> Result<Arc<dyn Tokenizer>, Refusal> {
        self.engine.tokenizer().ok_or_else(|| self.no_tokenizer())
    }

    /// The tokens of a request's prompts, one after the other; refused if no engine of this process has its tokenizer.
    pub async fn prompt_tokens(&self, request: Request) -> Result<Vec<Token>, Refusal> {
        let prepared = self.prepare(request).await?;
        let prompts = prepared.prompts.ok_or_else(|| self.no_tokenizer())?;
        Ok(prompts.concat())
    }

    fn no_tokenizer(&self) -> Refusal {
        Refusal::Unsupported {
            model: self.offer.id.clone(),
            feature: "tokenize",
        }
    }

    /// Prepares the request on the engine, with the model's output cap.
    pub async fn prepare(&self, mut request: Request) -> Result<Prepared, Refusal> {
        request.output = self.offer.limit_output(request.output)?;
        // A caller that names a seed wants the same answer again.
        request.repeatable = request.sampling.seed().is_some();
        request.sampling = request.sampling.or_seed(entropy()?);
        request.account = Arc::clone(&self.account);
        let request = Arc::new(request);
        self.engine
            .prepare(&request)
            .await
            .map_err(|error| Refusal::from_engine(error, &self.offer.id))
    }

    /// Runs `work`, CPU work with the tokenizer, where the tokenizer wants it run, and returns its result.
    pub async fn work<T: Send + 'static>(
        &self,
        tokenizer: &dyn Tokenizer,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move || {
            // The caller may have hung up, and the receiver be dropped.
            let _ = answer.send(work());
        });
        let done = tokenizer.run(&self.account, work).await;
        done.map_err(|error| Refusal::from_engine(error, &self.offer.id))?;
        let answered = answered.await;
        answered.map_err(|_| Refusal::Internal("work with a text ended in a panic".to_owned()))
    }

    /// Estimates the tokens that the request would need and the most that it could cost.
    pub async fn estimate(&self, request: Request) -> Result<Estimate, Refusal> {
        let prepared = self.prepare(request).await?;
        let Prepared {
            prompt_tokens,
            output_tokens_max,
            relaxed,
            ..
        } = prepared;
        Ok(Estimate {
            prompt_tokens,
            output_tokens_max,
            cost_max: cost_max(&self.offer.price, prompt_tokens, output_tokens_max)?,
            relaxed,
        })
    }
}

/// The most that this many tokens can cost, with no prompt token from the prefix cache. Refuses an amount that
/// overflows.
pub(crate) fn cost_max(price: &Price, prompt: u64, output: u64) -> Result<Nanos, Refusal> {
    let counts = Counts {
        prompt,
        completion: output,
        ..Counts::default()
    };
    price.cost(&counts).ok_or(Refusal::CostTooLarge)
}

/// A random seed, for requests without one.
fn entropy() -> Result<i64, Refusal> {
    let seed =
        getrandom::u64().map_err(|error| Refusal::Internal(format!("no entropy: {error}")))?;
    Ok(seed.cast_signed())
}
