//! A caller that was let to a model: what it may ask before it pays.

use std::sync::Arc;

use tokio::sync::oneshot;
use weir_accounts::{Counts, Nanos, Price};
use weir_engine::constraint::Relaxed;
use weir_engine::model::Tokenizer;
use weir_engine::request::Invalid;
use weir_engine::{Engine, Facts, Prepared, Request};

use crate::limits::Permit;
use crate::{Offer, Refusal};

/// Counts as a running request until it is dropped.
#[derive(Debug)]
pub struct Admitted {
    pub(crate) account: Arc<str>,
    pub(crate) offer: Arc<Offer>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) permit: Permit,
}

/// What a request would need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    pub prompt_tokens: u64,
    /// The most that can be generated, over all choices.
    pub output_tokens_max: u64,
    /// What is held for a request that says how many tokens it wants.
    pub cost_max: Nanos,
    /// What of the request's schemas isn't enforced.
    pub relaxed: Arc<[Relaxed]>,
}

impl Admitted {
    pub fn facts(&self) -> &Facts {
        self.engine.facts()
    }

    /// Not every engine has its model's tokenizer here.
    pub fn tokenizer(&self) -> Result<Arc<dyn Tokenizer>, Refusal> {
        self.engine.tokenizer().ok_or_else(|| Refusal::Unsupported {
            model: self.offer.id.clone(),
            feature: "tokenize",
        })
    }

    /// The request as the engine would get it, within the model's cap.
    pub async fn prepare(&self, mut request: Request) -> Result<Prepared, Refusal> {
        request.output = self.offer.limit_output(request.output)?;
        // Who names a seed wants the same answer again.
        request.repeatable = request.sampling.seed().is_some();
        request.sampling = request.sampling.or_seed(entropy()?);
        request.account = Arc::clone(&self.account);
        self.engine
            .prepare(request)
            .await
            .map_err(|error| Refusal::from_engine(error, &self.offer.id))
    }

    /// Does some work with texts when it is the account's turn, and returns its result.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let work = Box::new(move || {
            // Nobody may listen any more.
            let _ = answer.send(work());
        });
        let done = self.engine.work(&self.account, work).await;
        done.map_err(|error| Refusal::from_engine(error, &self.offer.id))?;
        let answered = answered.await;
        answered.map_err(|_| Refusal::Internal("work with a text ended in a panic".to_owned()))
    }

    /// What the request would need and could cost at most.
    pub async fn estimate(&self, request: Request) -> Result<Estimate, Refusal> {
        let prepared = self.prepare(request).await?;
        let (prompt_tokens, output_tokens_max) =
            (prepared.prompt_tokens(), prepared.output_tokens_max());
        Ok(Estimate {
            prompt_tokens,
            output_tokens_max,
            cost_max: cost_max(&self.offer.price, prompt_tokens, output_tokens_max)?,
            relaxed: prepared.relaxed,
        })
    }
}

/// The most that so many tokens can cost: none of them from a cache.
pub(crate) fn cost_max(price: &Price, prompt: u64, output: u64) -> Result<Nanos, Refusal> {
    let counts = Counts {
        prompt,
        completion: output,
        ..Counts::default()
    };
    price.cost(&counts).ok_or_else(|| {
        Refusal::Invalid(Invalid::new(
            "max_tokens",
            "the cost of this many tokens is beyond what can be counted",
        ))
    })
}

/// A seed for callers who gave none.
fn entropy() -> Result<i64, Refusal> {
    let seed =
        getrandom::u64().map_err(|error| Refusal::Internal(format!("no entropy: {error}")))?;
    Ok(seed.cast_signed())
}
