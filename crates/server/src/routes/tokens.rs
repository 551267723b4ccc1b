//! `POST tokenize`, `detokenize` and `count`: what callers can learn about a request before they pay for it. All are
//! free.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Serialize, Serializer};
use weir_accounts::Caller;
use weir_api::tokens::{Count, Counted, Detokenize, Detokenized, Tokenize, Tokenized};
use weir_engine::Tokenizer;
use weir_engine::tokenizer::Encoded;
use weir_engine::{PromptSize, Token};
use weir_gateway::Admitted;

use crate::answer::text_offsets::detokenize_lossy;
use crate::app::App;
use crate::convert::Text;
use crate::error::{ApiError, ParamNames};
use crate::extract::{AskedModel, ReceivedBody};
use crate::{bounded, convert, extract, relaxed};

/// The names of the parameters of a conversation that is tokenized.
const CHAT: ParamNames = ParamNames {
    prompt: "messages",
    ..ParamNames::OPENAI
};

pub(crate) async fn tokenize(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    request: Request,
) -> Result<Response, ApiError> {
    let ReceivedBody { bytes, claim } = extract::body(request, &app).await?;
    let body: Tokenize = extract::parse(&bytes)?;
    drop(bytes);
    let model = convert::model(body.model.as_deref())?.to_owned();
    let offer = app.gateway.catalog().find(&model)?;
    let caller = asked_model.set(caller, &model);
    let wants_strings = body.return_token_strs == Some(true);
    let of = match body.messages.is_some() {
        true => "messages",
        false => "prompt",
    };
    let text = convert::tokenize(&offer, body)?;
    let admitted = app.gateway.admit(&caller, &model).await?;
    let tokenizer = admitted.tokenizer()?;
    let tokens = match text {
        Text::Prompt(prompt, tokenizing) => {
            let encode = {
                let tokenizer = Arc::clone(&tokenizer);
                move || tokenizer.encode(&prompt, tokenizing)
            };
            all(off_thread(&admitted, &*tokenizer, encode).await?)?
        }
        Text::Chat(request) => {
            let refused = |refusal| ApiError::of(refusal, CHAT);
            admitted.prompt_tokens(*request).await.map_err(refused)?
        }
    };
    let max_model_len = admitted.facts().context_tokens;
    let bytes_max = app.options.body_bytes_max;
    let answer_claim = app.bytes_in_flight.claim(&caller.key);
    let texts = Arc::clone(&tokenizer);
    off_thread(&admitted, &*tokenizer, move || {
        let tokenized = Tokenized {
            count: tokens.len(),
            max_model_len,
            tokens: &tokens,
            token_strs: wants_strings.then_some(TokenTexts {
                tokenizer: &*texts,
                tokens: &tokens,
            }),
        };
        let answer = bounded::json(&tokenized, bytes_max, answer_claim, of);
        // The memory of the request is freed only here, so its bytes are claimed until here.
        drop(claim);
        answer
    })
    .await?
}

pub(crate) async fn detokenize(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    request: Request,
) -> Result<Response, ApiError> {
    let ReceivedBody { bytes, claim } = extract::body(request, &app).await?;
    let body: Detokenize = extract::parse(&bytes)?;
    drop(bytes);
    let model = convert::model(body.model.as_deref())?;
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
    let bytes_max = app.options.body_bytes_max;
    let answer_claim = app.bytes_in_flight.claim(&caller.key);
    let texts = Arc::clone(&tokenizer);
    off_thread(&admitted, &*tokenizer, move || {
        let prompt = text_within(&*texts, &tokens, bytes_max)?;
        let answer = bounded::json(&Detokenized { prompt }, bytes_max, answer_claim, "tokens");
        drop(claim);
        answer
    })
    .await?
}

/// The text of the tokens. Fails if it is longer than an answer may be.
fn text_within(
    tokenizer: &dyn Tokenizer,
    tokens: &[Token],
    bytes_max: usize,
) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    for &token in tokens {
        tokenizer.token_bytes(token, &mut bytes);
        if bytes.len() > bytes_max {
            let message = format!("tokens: their text is longer than {bytes_max} bytes");
            return Err(ApiError::invalid("tokens", message));
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

pub(crate) async fn count(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    request: Request,
) -> Result<Response, ApiError> {
    let received = extract::body(request, &app).await?;
    let asked_for: Count = extract::parse(&received.bytes)?;
    let model = convert::model(asked_for.model.as_deref())?.to_owned();
    let offer = app.gateway.catalog().find(&model)?;
    let caller = asked_model.set(caller, &model);
    let job = match (asked_for.messages, asked_for.prompt) {
        (Some(_), None) => convert::chat(&offer, extract::parse(&received.bytes)?)?,
        (None, Some(_)) => convert::completion(&offer, extract::parse(&received.bytes)?)?,
        (None, None) => return Err(convert::missing("messages")),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "prompt",
                "prompt and messages exclude each other; give one of them",
            ));
        }
    };
    drop(received);
    let refused = |refusal| ApiError::of(refusal, job.names);
    let admitted = app.gateway.admit(&caller, &model).await.map_err(refused)?;
    let estimate = admitted.estimate(job.request).await.map_err(refused)?;
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

/// The tokens, if the whole text was tokenized.
fn all(encoded: Encoded) -> Result<Vec<Token>, ApiError> {
    if encoded.complete {
        return Ok(encoded.tokens);
    }
    let size = PromptSize {
        tokens: encoded.tokens.len() as u64,
        exact: false,
    };
    let message = format!("prompt is too long to be tokenized: it has {size} tokens");
    Err(ApiError::invalid("prompt", message))
}

/// Serializes the text of each token while the answer is written: all texts together may be much longer than the
/// prompt.
struct TokenTexts<'a> {
    tokenizer: &'a dyn Tokenizer,
    tokens: &'a [Token],
}

impl Serialize for TokenTexts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let texts = self.tokens.iter();
        serializer.collect_seq(texts.map(|&token| detokenize_lossy(self.tokenizer, &[token])))
    }
}

/// Runs work on a long text, which takes milliseconds, outside of the async threads, so that other requests don't wait
/// for it.
async fn off_thread<T: Send + 'static>(
    admitted: &Admitted,
    tokenizer: &dyn Tokenizer,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    Ok(admitted.work(tokenizer, work).await?)
}
