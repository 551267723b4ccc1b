//! The handlers, in a module for each kind of resource.

pub(crate) mod admin;
pub(crate) mod billing;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod health;
pub(crate) mod key;
pub(crate) mod models;
pub(crate) mod tokens;

use std::sync::Arc;

use axum::response::Response;
use http::{Method, Uri};
use weir_accounts::Caller;
use weir_engine::Token;
use weir_engine::Tokenizer;
use weir_gateway::{Delivery, Job};

use crate::answer::{self, Envelope, Kind, Shape};
use crate::convert::{Asked, Reply, Shown, Starts};
use crate::error::{ApiError, Reason};
use crate::layers::RequestId;
use crate::{App, relaxed, sse};

/// Handles a request of either endpoint, from the converted request to its answer.
async fn respond(
    app: &App,
    caller: &Caller,
    RequestId(request_id): RequestId,
    kind: Kind,
    model: String,
    asked: Asked,
) -> Result<Response, ApiError> {
    let mut envelope = Envelope {
        kind,
        id: kind.id(&request_id),
        created: app.gateway.now().as_second(),
        model: model.clone(),
        prompts: asked.prompts(),
        of_each: asked.request.choices.get(),
        shape: Shape::default(),
        fingerprint: Arc::default(),
    };
    let Asked {
        request,
        reply,
        limit,
        shown,
    } = asked;
    let delivery = match reply {
        Reply::Whole => Delivery::Whole,
        Reply::Stream | Reply::StreamWithUsage => Delivery::Stream,
    };
    let (token_ids, prompt_logprobs) = (request.token_ids, request.prompt_logprobs.is_some());
    let job = Job {
        request_id,
        model,
        request,
        delivery,
    };
    // The future is boxed because it is large, and done long before a whole answer is: it would take space until then.
    let started = Box::pin(app.gateway.start(caller, job)).await;
    let generation = started.map_err(|refusal| ApiError::of(refusal, kind, limit))?;
    // Computed only now, when the prompts' tokens are known to be in the vocabulary and to fit the context.
    envelope.shape = Shape {
        token_ids,
        prompt_logprobs,
        ..shape(app, &envelope.model, shown)
    };
    envelope.fingerprint = fingerprint(app, &envelope.model);
    let relaxed = generation.relaxed().to_vec();
    let mut response = match reply {
        Reply::Whole => answer::whole(envelope, generation).await?,
        Reply::Stream | Reply::StreamWithUsage => sse::stream(envelope, reply, generation),
    };
    relaxed::list(response.headers_mut(), &relaxed);
    Ok(response)
}

/// The model's fingerprint, which changes with its weights and settings.
fn fingerprint(app: &App, model: &str) -> Arc<str> {
    let offer = app.gateway.catalog().find(model).ok();
    let facts = offer.as_ref().and_then(|offer| offer.facts());
    facts
        .map(|facts| Arc::clone(&facts.fingerprint))
        .unwrap_or_default()
}

fn shape(app: &App, model: &str, shown: Shown) -> Shape {
    let tokenizer = || app.gateway.catalog().find(model).ok()?.tokenizer();
    Shape {
        best: shown.best,
        logprobs: shown.logprobs,
        hides_reasoning: shown.hides_reasoning,
        token_ids: false,
        prompt_logprobs: false,
        starts: match shown.starts {
            Starts::Zero => Vec::new(),
            Starts::Characters(characters) => characters,
            Starts::After(prompts) => tokenizer().map_or_else(Vec::new, |tokenizer| {
                let characters =
                    |tokens: &Vec<_>| detokenize_lossy(&*tokenizer, tokens).chars().count();
                prompts.iter().map(characters).collect()
            }),
        },
    }
}

/// The text of tokens. Bytes that aren't valid UTF-8 become replacement characters.
fn detokenize_lossy(tokenizer: &dyn Tokenizer, tokens: &[Token]) -> String {
    let mut bytes = Vec::new();
    for &token in tokens {
        tokenizer.token_bytes(token, &mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) async fn not_found(uri: Uri) -> ApiError {
    let path = uri.path();
    ApiError::new(Reason::NotFound, format!("no such path: {path}"))
}

/// The router adds the header `Allow`.
pub(crate) async fn method_not_allowed(method: Method) -> ApiError {
    ApiError::new(
        Reason::MethodNotAllowed,
        format!("method {method} is not allowed here; see the header Allow"),
    )
}
