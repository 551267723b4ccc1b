//! Reads requests to the administrative API, and describes its routes for the OpenAPI document.

use std::fmt;

use axum::extract::{Query, RawPathParams, Request, State};
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderValue, Uri, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use weir_accounts::{Account, AccountId, Accounts, Actor, By, Caller, IDEMPOTENCY_KEY_MAX};
use weir_api::admin::Nothing;

use super::schemas::{Operation, Schemas};
use crate::app::App;
use crate::error::{ApiError, Reason};
use crate::extract;
use crate::reload::Reload;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// A parsed request to the administrative API.
pub(crate) struct Call<Q, I> {
    pub(crate) accounts: Accounts,
    pub(crate) by: By,
    pub(crate) reload: Option<Reload>,
    /// The account of the request's key.
    pub(crate) own: AccountId,
    /// The id or name of the account or key in the path; empty if the path has none.
    pub(crate) target: String,
    pub(crate) query: Q,
    pub(crate) input: I,
}

impl<Q, I> Call<Q, I> {
    /// The account that the path names, by id or name.
    pub(crate) async fn account(&self) -> Result<Account, ApiError> {
        Ok(self.accounts.account(&self.target).await?)
    }
}

/// A route's handler, and the description that its types give.
pub(crate) struct Endpoint {
    pub(crate) router: MethodRouter<App>,
    pub(crate) name: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) describe: fn(&mut Schemas) -> Operation,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(crate) fn new<Q, I, A, F>(
        method: MethodFilter,
        name: &'static str,
        summary: &'static str,
        handler: fn(Call<Q, I>) -> F,
    ) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        I: Input + Send + 'static,
        A: Answer + 'static,
        F: Future<Output = Result<A, ApiError>> + Send + 'static,
    {
        let serve = move |State(app): State<App>,
                          Extension(caller): Extension<Caller>,
                          path: Result<RawPathParams, _>,
                          request: Request| async move {
            // A path that isn't UTF-8 names no account or key.
            let path = path.ok();
            let target = path.as_ref().and_then(|path| path.iter().next());
            let target = target.map_or_else(String::new, |(_, target)| target.to_owned());
            let call = match read(&app, &caller, target, request).await {
                Ok(call) => call,
                Err(error) => return error.into_response(),
            };
            let mut response = match Box::pin(handler(call)).await {
                Ok(answer) => answer.into_response(),
                Err(error) => error.into_response(),
            };
            let uncached = HeaderValue::from_static("no-store");
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, uncached);
            response
        };
        Endpoint {
            router: on(method, serve),
            name,
            summary,
            describe: |schemas| {
                let mut operation = Operation {
                    parameters: schemas.query::<Q>(),
                    body: None,
                    answer: A::content(schemas),
                };
                I::describe(schemas, &mut operation);
                operation
            },
        }
    }
}

async fn read<Q: DeserializeOwned, I: Input>(
    app: &App,
    caller: &Caller,
    target: String,
    request: Request,
) -> Result<Call<Q, I>, ApiError> {
    // No id or name contains a NUL, and no database accepts one.
    if target.contains('\0') {
        return Err(ApiError::new(Reason::NotFound, "nothing is called so"));
    }
    let query = query(request.uri())?;
    let headers = request.headers().clone();
    let body = extract::body(request, app).await?;
    let by = By {
        actor: Actor::key(&caller.key),
        now: app.gateway.now(),
    };
    Ok(Call {
        accounts: app.gateway.accounts().clone(),
        by,
        reload: app.reload.clone(),
        own: caller.account.clone(),
        target,
        query,
        input: I::read(&headers, &body.bytes)?,
    })
}

/// Unknown parameters are refused: with a misspelt filter, everything would be listed.
fn query<Q: DeserializeOwned>(uri: &Uri) -> Result<Q, ApiError> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
        let message = format!("the query can't be read: {}", error.body_text());
        ApiError::new(Reason::InvalidRequest, message)
    })?;
    let mut fields = Map::new();
    for (name, value) in pairs.0 {
        if fields.contains_key(&name) {
            let message = format!("{name} is there twice");
            return Err(ApiError::invalid(name, message));
        }
        if value.contains('\0') {
            return Err(ApiError::invalid(&*name, format!("{name} has a NUL in it")));
        }
        fields.insert(name, value.into());
    }
    extract::parse_value(Value::Object(fields), "the query is not one of this route")
}

/// Refuses an array: serde would accept one with the values in the order of the fields.
fn object<B: DeserializeOwned>(body: &[u8]) -> Result<B, ApiError> {
    if body.trim_ascii_start().starts_with(b"[") {
        let message = "the body is not a request: an object is expected";
        return Err(ApiError::new(Reason::InvalidRequest, message));
    }
    extract::parse(body)
}

/// The input of a request besides path and query: its body and headers.
pub(crate) trait Input: Sized {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError>;
    fn describe(schemas: &mut Schemas, operation: &mut Operation);
}

/// An empty body counts as an empty object.
impl Input for Nothing {
    fn read(_: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        match body {
            [] => Ok(Nothing {}),
            body => extract::parse(body),
        }
    }

    fn describe(_: &mut Schemas, _: &mut Operation) {}
}

pub(crate) struct Body<B>(pub(crate) B);

impl<B: DeserializeOwned + JsonSchema> Input for Body<B> {
    fn read(_: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        Ok(Body(object(body)?))
    }

    fn describe(schemas: &mut Schemas, operation: &mut Operation) {
        operation.body = Some(schemas.input::<B>());
    }
}

/// A body whose effect happens once, however often it is sent with the same idempotency key.
pub(crate) struct Once<B> {
    pub(crate) key: String,
    pub(crate) body: B,
}

impl<B: DeserializeOwned + JsonSchema> Input for Once<B> {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        Ok(Once {
            key: idempotency_key(headers)?.ok_or_else(no_idempotency_key)?,
            body: object(body)?,
        })
    }

    fn describe(schemas: &mut Schemas, operation: &mut Operation) {
        operation.body = Some(schemas.input::<B>());
        let what = "The same key again changes nothing, and answers with the first result.";
        operation.parameters.push(idempotency_parameter(true, what));
    }
}

/// A body that creates an object with a secret. With an idempotency key the object is created once, however often the
/// body is sent.
pub(crate) struct MadeOnce<B> {
    pub(crate) key: Option<String>,
    pub(crate) body: B,
}

impl<B: DeserializeOwned + JsonSchema> Input for MadeOnce<B> {
    fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        Ok(MadeOnce {
            key: idempotency_key(headers)?.map(|key| format!("api:{key}")),
            body: object(body)?,
        })
    }

    fn describe(schemas: &mut Schemas, operation: &mut Operation) {
        operation.body = Some(schemas.input::<B>());
        let what = "The same key again makes nothing: it is 409 `KEY_MADE`, which names what was made, without its secret.";
        operation
            .parameters
            .push(idempotency_parameter(false, what));
    }
}

/// The idempotency key, which the caller chooses.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next().map(HeaderValue::to_str), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(key)), None) if (1..=IDEMPOTENCY_KEY_MAX).contains(&key.len()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(no_idempotency_key()),
    }
}

fn no_idempotency_key() -> ApiError {
    let message = format!(
        "the header {IDEMPOTENCY_KEY} is needed, once, with 1 to {IDEMPOTENCY_KEY_MAX} visible characters"
    );
    ApiError::invalid(IDEMPOTENCY_KEY, message)
}

fn idempotency_parameter(required: bool, description: &str) -> Value {
    json!({
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "required": required,
        "description": description,
        "schema": {"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_MAX},
    })
}

/// The answer of a handler.
pub(crate) trait Answer: IntoResponse {
    /// The answer's content by media type, as in OpenAPI.
    fn content(schemas: &mut Schemas) -> Value;
}

impl<A: Serialize + JsonSchema> Answer for Json<A> {
    fn content(schemas: &mut Schemas) -> Value {
        json!({"application/json": {"schema": schemas.answer::<A>()}})
    }
}
