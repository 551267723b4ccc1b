//! The catalogue: models, their prices, and the engines behind them.

use std::sync::Arc;

use weir_accounts::Price;
use weir_engine::request::OutputLimit;
use weir_engine::{Engine, Facts, Health, Tokenizer};

use crate::Refusal;

/// A model that callers can request by its id.
#[derive(Debug, Clone)]
pub struct Offer {
    pub id: String,
    /// Unix seconds.
    pub created: i64,
    pub title: String,
    pub description: String,
    pub price: Price,
    /// The operator's cap on the output tokens of one choice.
    pub max_output_tokens: Option<u32>,
    /// The engines that serve the model. Empty when none could be started: the model is listed, but not available.
    pub engines: Vec<Arc<dyn Engine>>,
}

impl Offer {
    /// The model's capabilities; `None` while the model has no engine.
    pub fn facts(&self) -> Option<&Facts> {
        self.engines.first().map(|engine| engine.facts())
    }

    /// The largest number of output tokens that a choice may have: the operator's cap, or the whole context.
    pub fn output_cap(&self) -> Option<u32> {
        let context = self.facts().map(|facts| facts.context_tokens);
        match (self.max_output_tokens, context) {
            (Some(cap), Some(context)) => Some(cap.min(context)),
            (cap, context) => cap.or(context),
        }
    }

    pub fn available(&self) -> bool {
        self.engine().is_some()
    }

    /// The model's tokenizer, if one of its engines has it in this process.
    pub fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        self.engines.iter().find_map(|engine| engine.tokenizer())
    }

    pub(crate) fn engine(&self) -> Option<&Arc<dyn Engine>> {
        self.engines
            .iter()
            .find(|engine| engine.health() == Health::Ready)
    }

    /// Applies the operator's cap: refuses an explicit limit above it, and puts it in place of an absent limit.
    pub(crate) fn limit_output(&self, asked: OutputLimit) -> Result<OutputLimit, Refusal> {
        let Some(cap) = self.max_output_tokens else {
            return Ok(asked);
        };
        match asked.tokens {
            None => Ok(OutputLimit {
                tokens: Some(cap),
                ..asked
            }),
            Some(asked) if asked > cap => Err(Refusal::OutputOverCap { asked, cap }),
            Some(_) => Ok(asked),
        }
    }
}

/// All models of the catalogue, in the operator's order.
#[derive(Debug, Default)]
pub struct Catalog {
    offers: Vec<Arc<Offer>>,
}

impl Catalog {
    /// The ids must be unique; the configuration checks this.
    pub fn new(offers: Vec<Offer>) -> Self {
        Catalog {
            offers: offers.into_iter().map(Arc::new).collect(),
        }
    }

    pub fn offers(&self) -> &[Arc<Offer>] {
        &self.offers
    }

    pub fn find(&self, id: &str) -> Result<Arc<Offer>, Refusal> {
        let found = self.offers.iter().find(|offer| offer.id == id);
        found.cloned().ok_or_else(|| Refusal::ModelNotFound {
            model: id.chars().take(MODEL_ECHO_CHARS_MAX).collect(),
        })
    }
}

/// The longest part of an unknown model's name, in characters, that an error message repeats.
const MODEL_ECHO_CHARS_MAX: usize = 200;
