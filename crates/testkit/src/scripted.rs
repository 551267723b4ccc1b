//! An engine that says what a test tells it to say, and remembers what it was asked.
//!
//! It knows no tokenizer: like an engine on another server, it counts an upper bound of a prompt's tokens.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use weir_engine::embed::{EmbedJob, EmbedRequest, Embedded, Embeddings, PreparedEmbed};
use weir_engine::event::{self, EVENTS_MAX};
use weir_engine::request::Prompt;
use weir_engine::{
    Engine, EngineError, Event, Events, Facts, Feature, Health, Input, Job, Prepared, Request,
    Terms,
};

/// A message of a conversation counts as one token, a text as one more than its bytes.
#[derive(Debug, Clone)]
pub struct Scripted {
    facts: Facts,
    script: Arc<[Event]>,
    asked: Asked,
}

type Asked = Arc<Mutex<Vec<Request>>>;

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
            script: script.into(),
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

    fn health(&self) -> Health {
        Health::Ready
    }

    fn prepare<'a>(
        &'a self,
        request: &'a Arc<Request>,
    ) -> BoxFuture<'a, Result<Prepared, EngineError>> {
        let (prompts, prompt_tokens) = match &request.input {
            Input::Chat(conversation) => (1, conversation.messages.len() as u64),
            Input::Prompts(prompts) => (
                prompts.len() as u64,
                prompts.iter().map(tokens_at_most).sum(),
            ),
        };
        let output_max = u64::from(request.output.tokens.unwrap_or(64));
        let prepared = Prepared {
            prompt_tokens,
            output_tokens_max: prompts * u64::from(request.choices.get()) * output_max,
            prompts: None,
            relaxed: Arc::default(),
            job: Box::new(ScriptedJob {
                request: Arc::clone(request),
                prompt_tokens,
                script: Arc::clone(&self.script),
                asked: Arc::clone(&self.asked),
            }),
        };
        ready(Ok(prepared)).boxed()
    }

    fn drain(&self) {}

    fn stop(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    fn embeddings(&self) -> Option<&dyn Embeddings> {
        self.facts.embedding.is_some().then_some(self)
    }
}

#[derive(Debug)]
struct ScriptedJob {
    request: Arc<Request>,
    prompt_tokens: u64,
    script: Arc<[Event]>,
    asked: Asked,
}

impl Job for ScriptedJob {
    fn start(self: Box<Self>, _terms: Terms) -> BoxFuture<'static, Result<Events, EngineError>> {
        let (sender, events) = event::channel(EVENTS_MAX.max(self.script.len()));
        sender.meter().add_prompt(self.prompt_tokens, 0);
        for event in &*self.script {
            if let Event::Text { tokens, .. } = event {
                sender.meter().add_completion(u64::from(*tokens));
            }
            sender.send(event.clone());
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.push(Request::clone(&self.request));
        ready(Ok(events)).boxed()
    }
}

impl Embeddings for Scripted {
    fn prepare_embed(
        &self,
        request: EmbedRequest,
    ) -> BoxFuture<'_, Result<PreparedEmbed, EngineError>> {
        let embedding = self.facts.embedding.expect("the facts have embeddings");
        let prepared = embedding.dimensions(request.dimensions).map(|dimensions| {
            let sizes: Vec<u64> = request.inputs.iter().map(tokens_at_most).collect();
            PreparedEmbed {
                tokens: sizes.iter().sum(),
                job: Box::new(ScriptedEmbedJob { sizes, dimensions }),
            }
        });
        ready(prepared.map_err(EngineError::from)).boxed()
    }
}

#[derive(Debug)]
struct ScriptedEmbedJob {
    /// The tokens of each input.
    sizes: Vec<u64>,
    dimensions: u32,
}

impl EmbedJob for ScriptedEmbedJob {
    /// Each number of a vector is the input's number of tokens.
    fn run(self: Box<Self>) -> BoxFuture<'static, Result<Embedded, EngineError>> {
        let vector = |&size: &u64| vec![size as f32; self.dimensions as usize];
        let embedded = Embedded {
            vectors: self.sizes.iter().map(vector).collect(),
            tokens: self.sizes.iter().sum(),
        };
        ready(Ok(embedded)).boxed()
    }
}

/// An upper bound of the prompt's tokens: a token has at least one byte, and a BOS token may come first.
fn tokens_at_most(prompt: &Prompt) -> u64 {
    match prompt {
        Prompt::Text(text) => text.len() as u64 + 1,
        Prompt::Tokens(tokens) => tokens.len() as u64,
    }
}
