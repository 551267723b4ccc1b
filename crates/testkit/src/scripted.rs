//! An engine that says what a test tells it to say, and remembers what it was asked.

use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use weir_engine::embed::{EmbedRequest, Embedded, PreparedEmbed};
use weir_engine::event::{self, EVENTS_MAX};
use weir_engine::model::{Bos, Tokenizer};
use weir_engine::request::Prompt;
use weir_engine::sim::SimTokenizer;
use weir_engine::{
    Engine, EngineError, Event, Events, Facts, Feature, Health, Input, Prepared, Request, Token,
};

/// The tokenizer is that of the simulated model. A conversation counts one token per message.
#[derive(Debug, Clone)]
pub struct Scripted {
    facts: Facts,
    script: Vec<Event>,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// An engine that supports all features, and answers each request with these events.
    pub fn new(script: Vec<Event>) -> Self {
        Scripted {
            facts: Facts {
                context_tokens: 4096,
                chat: true,
                generates: true,
                embedding: None,
                features: vec![
                    Feature::FunctionCalling,
                    Feature::StructuredOutputs,
                    Feature::Reasoning,
                ],
                fingerprint: "fp_0123456789".into(),
            },
            script,
            asked: Arc::default(),
        }
    }

    /// The engine with other facts, which say what it supports.
    #[must_use]
    pub fn with_facts(self, facts: Facts) -> Self {
        Scripted { facts, ..self }
    }

    /// The requests so far. Clones of the engine share them.
    pub fn asked(&self) -> Vec<Request> {
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Engine for Scripted {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn prepare(&self, request: Request) -> BoxFuture<'_, Result<Prepared, EngineError>> {
        let prompts = match &request.input {
            Input::Chat(conversation) => vec![vec![0; conversation.messages.len()].into()],
            Input::Prompts(prompts) => prompts.iter().map(tokens).collect(),
        };
        let output_max = request.output.tokens.unwrap_or(64);
        let prepared = Prepared::new(request, prompts, output_max);
        Box::pin(async { Ok(prepared) })
    }

    fn generate(&self, prepared: Prepared) -> BoxFuture<'_, Result<Events, EngineError>> {
        let (sender, events) = event::channel(EVENTS_MAX.max(self.script.len()));
        sender.meter().add_prompt(prepared.prompt_tokens(), 0);
        for event in &self.script {
            if let Event::Text { tokens, .. } = event {
                sender.meter().add_completion(u64::from(*tokens));
            }
            sender.send(event.clone());
        }
        self.asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(prepared.request);
        Box::pin(async { Ok(events) })
    }

    fn prepare_embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<PreparedEmbed, EngineError>> {
        let prepared = match self.facts.embedding {
            None => Err(EngineError::Unsupported {
                feature: "embeddings",
            }),
            Some(embedding) => {
                let dimensions = embedding.dimensions(request.dimensions);
                dimensions
                    .map(|dimensions| PreparedEmbed {
                        inputs: request.inputs.iter().map(tokens).collect(),
                        dimensions,
                        account: request.account.clone(),
                    })
                    .map_err(EngineError::from)
            }
        };
        Box::pin(async { prepared })
    }

    /// Each number of a vector is the input's number of tokens.
    fn embed(&self, prepared: PreparedEmbed) -> BoxFuture<'_, Result<Embedded, EngineError>> {
        let vector = |input: &Arc<[Token]>| vec![input.len() as f32; prepared.dimensions as usize];
        let embedded = Embedded {
            vectors: prepared.inputs.iter().map(vector).collect(),
            tokens: prepared.tokens(),
        };
        Box::pin(async { Ok(embedded) })
    }

    fn health(&self) -> Health {
        Health::Ready
    }

    fn tokenizer(&self) -> Option<Arc<dyn Tokenizer>> {
        Some(Arc::new(SimTokenizer))
    }
}

fn tokens(prompt: &Prompt) -> Arc<[Token]> {
    match prompt {
        Prompt::Text(text) => SimTokenizer.tokenize(text, Bos::Add).into(),
        Prompt::Tokens(tokens) => tokens.as_slice().into(),
    }
}
