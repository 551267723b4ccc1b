//! `POST tokenize`, `detokenize` and `count`: what callers can know before they pay. None is charged.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use weir_accounts::Caller;
use weir_api::tokens::{Count, Counted, Detokenize, Detokenized, Tokenize, Tokenized};
use weir_engine::Token;
use weir_engine::model::Tokenizer;

use super::detokenize_lossy;
use crate::answer::Kind;
use crate::convert::Text;
use crate::error::ApiError;
use crate::extract::AskedModel;
use crate::{App, convert, extract, relaxed};

pub(crate) async fn tokenize(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    request: Request,
) -> Result<Json<Tokenized>, ApiError> {
    let body: Tokenize = extract::json(request, &app.options).await?;
    let model = convert::model(body.model.as_ref())?.to_owned();
    let offer = app.gateway.catalog().find(&model)?;
    let caller = asked_model.set(caller, &model);
    let wants_strings = body.return_token_strs == Some(true);
    let text = convert::tokenize(offer, body)?;
    let admitted = app.gateway.admit(&caller, &model).await?;
    let tokenizer = admitted.tokenizer()?;
    let tokens = match text {
        Text::Prompt(prompt, bos) => {
            let tokenizer = Arc::clone(&tokenizer);
            off_thread(move || tokenizer.tokenize(&prompt, bos)).await?
        }
        Text::Chat(request) => {
            let refused = |refusal| ApiError::of(refusal, Kind::Chat, "max_tokens");
            let prepared = admitted.prepare(*request).await.map_err(refused)?;
            prepared.prompts.concat()
        }
    };
    let (tokens, token_strs) = match wants_strings {
        true => off_thread(move || with_strings(&*tokenizer, tokens)).await?,
        false => (tokens, None),
    };
    Ok(Json(Tokenized {
        count: tokens.len(),
        max_model_len: admitted.facts().context_tokens,
        tokens,
        token_strs,
    }))
}

pub(crate) async fn detokenize(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    request: Request,
) -> Result<Json<Detokenized>, ApiError> {
    let body: Detokenize = extract::json(request, &app.options).await?;
    let model = convert::model(body.model.as_ref())?;
    app.gateway.catalog().find(model)?;
    let caller = asked_model.set(caller, model);
    let tokens = body.tokens.ok_or_else(|| convert::missing("tokens"))?;
    let admitted = app.gateway.admit(&caller, model).await?;
    let tokenizer = admitted.tokenizer()?;
    let vocabulary = tokenizer.vocabulary();
    if let Some(index) = tokens.iter().position(|&token| token >= vocabulary) {
        let param = format!("tokens.{index}");
        let last = vocabulary - 1;
        let message = format!("{param}: the model's vocabulary ends at {last}");
        return Err(ApiError::invalid(param, message));
    }
    let prompt = off_thread(move || detokenize_lossy(&*tokenizer, &tokens)).await?;
    Ok(Json(Detokenized { prompt }))
}

pub(crate) async fn count(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    request: Request,
) -> Result<Response, ApiError> {
    let bytes = extract::body(request, &app.options).await?;
    let asked_for: Count = extract::parse(&bytes)?;
    let model = convert::model(asked_for.model.as_ref())?.to_owned();
    let offer = app.gateway.catalog().find(&model)?;
    let caller = asked_model.set(caller, &model);
    let (kind, asked) = match (asked_for.messages, asked_for.prompt) {
        (Some(_), None) => (Kind::Chat, convert::chat(offer, extract::parse(&bytes)?)?),
        (None, Some(_)) => (
            Kind::Completion,
            convert::completion(offer, extract::parse(&bytes)?)?,
        ),
        (None, None) => return Err(convert::missing("messages")),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "prompt",
                "prompt and messages exclude each other; give one of them",
            ));
        }
    };
    let refused = |refusal| ApiError::of(refusal, kind, asked.limit);
    let admitted = app.gateway.admit(&caller, &model).await.map_err(refused)?;
    let estimate = admitted.estimate(asked.request).await.map_err(refused)?;
    let mut response = Json(Counted {
        object: Counted::OBJECT,
        model,
        prompt_tokens: estimate.prompt_tokens,
        max_completion_tokens: estimate.output_tokens_max,
        max_total_tokens: estimate.prompt_tokens + estimate.output_tokens_max,
        max_cost_nano_usd: estimate.cost_max.get(),
        max_cost_usd: estimate.cost_max.to_string(),
    })
    .into_response();
    relaxed::list(response.headers_mut(), &estimate.relaxed);
    Ok(response)
}

fn with_strings(
    tokenizer: &dyn Tokenizer,
    tokens: Vec<Token>,
) -> (Vec<Token>, Option<Vec<String>>) {
    let strings = tokens
        .iter()
        .map(|&token| detokenize_lossy(tokenizer, &[token]))
        .collect();
    (tokens, Some(strings))
}

/// A long text takes milliseconds: nothing for the async threads.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|panic| {
        tracing::error!(%panic, "tokenizing failed");
        ApiError::internal()
    })
}
