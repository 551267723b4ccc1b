//! Reads requests: the caller by its key, and a body of bounded size.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use weir_accounts::{Caller, KeyRole};
use weir_gateway::Refusal;

use crate::app::{App, Options};
use crate::error::{ApiError, Reason};
use crate::in_flight::Claim;
use crate::layers;

/// The roles of keys that may use models.
const INFERS: &[KeyRole] = &[KeyRole::Inference];

/// Authenticates the caller on routes that need a key of role `inference`, after the route has matched and before the
/// body is read.
pub(crate) async fn require_key(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let authenticated = app
        .gateway
        .authenticate_as(INFERS, credential(request.headers()))
        .await;
    let caller = match let_in(&mut request, authenticated) {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let asked = AskedModel::default();
    request.extensions_mut().insert(asked.clone());
    // A caller that would be refused anyway doesn't have to send its body.
    let mut response = match app.gateway.may_ask(&caller) {
        Ok(()) => next.run(request).await,
        Err(refusal) => ApiError::from(refusal).into_response(),
    };
    let model = asked.get();
    let asking = model.map(|model| caller.clone().asking_for(model));
    let quota = app.gateway.quota(asking.as_ref().unwrap_or(&caller), model);
    layers::quota_headers(response.headers_mut(), &quota);
    response.extensions_mut().insert(caller);
    response
}

/// Authenticates the caller on routes for any key, whatever its role, even while its account is suspended.
pub(crate) async fn require_any_key(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Response {
    let credential = credential(request.headers());
    let authenticated = app.gateway.authenticate(credential).await;
    run_as(let_in(&mut request, authenticated), request, next).await
}

/// Authenticates the caller on the administrative routes, by their roles.
pub(crate) async fn require_role(
    State((app, roles)): State<(App, &'static [KeyRole])>,
    mut request: Request,
    next: Next,
) -> Response {
    let credential = credential(request.headers());
    let authenticated = app.gateway.authenticate_as(roles, credential).await;
    run_as(let_in(&mut request, authenticated), request, next).await
}

/// Passes the caller on to the handler and to the connection.
fn let_in(
    request: &mut Request,
    authenticated: Result<Caller, Refusal>,
) -> Result<Caller, ApiError> {
    let caller = authenticated?;
    layers::connection::has_key(request.extensions(), &caller)?;
    request.extensions_mut().insert(caller.clone());
    Ok(caller)
}

async fn run_as(caller: Result<Caller, ApiError>, request: Request, next: Next) -> Response {
    let caller = match caller {
        Ok(caller) => caller,
        Err(error) => return error.into_response(),
    };
    let mut response = next.run(request).await;
    response.extensions_mut().insert(caller);
    response
}

/// The model that the request asks for, set once its body is read. The headers of the answer show its limits.
#[derive(Debug, Clone, Default)]
pub(crate) struct AskedModel(Arc<OnceLock<String>>);

impl AskedModel {
    /// Notes the model, and returns the caller with its limits for that model.
    pub(crate) fn set(&self, caller: Caller, model: &str) -> Caller {
        // A request asks for a single model: the first value stays.
        let _ = self.0.set(model.to_owned());
        caller.asking_for(model)
    }

    fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// The key, with or without `Bearer`. Two `Authorization` headers count as none: a proxy in front might have checked
/// the other one.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else {
        return None;
    };
    let value = value.to_str().ok()?.trim();
    match value.split_once([' ', '\t']) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Some(key.trim_start()),
        _ => Some(value),
    }
}

/// The body as JSON, whatever its content type: clients often send a wrong one.
pub(crate) async fn json<T: DeserializeOwned>(request: Request, app: &App) -> Result<T, ApiError> {
    parse(&body(request, app).await?.bytes)
}

/// The bytes of a body. They count as in flight until it is dropped.
#[derive(Debug)]
pub(crate) struct ReceivedBody {
    pub(crate) bytes: Vec<u8>,
    pub(crate) claim: Claim,
}

/// Parses the bytes of a body as JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        unreadable(format!(
            "the body is not valid UTF-8: byte {at} does not belong there"
        ))
    })?;
    // Editors on Windows put a byte order mark in front, which isn't JSON.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(unreadable(
            "the body is empty; a JSON object is expected".to_owned(),
        ));
    }
    // Tracking the path of a field costs time, so it is done only in a second pass, after an error.
    serde_json::from_str(text).or_else(|_| read_with_path(text))
}

fn read_with_path<T: DeserializeOwned>(text: &str) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_str(text);
    let read = serde_path_to_error::deserialize(&mut json);
    let value = read.map_err(|error| refuse(&dotted(error.path()), error.inner(), BODY))?;
    json.end().map_err(|error| refuse("", &error, BODY))?;
    Ok(value)
}

/// Converts a parsed JSON value in the same way.
pub(crate) fn parse_value<T: DeserializeOwned>(value: Value, what: &str) -> Result<T, ApiError> {
    let read = serde_path_to_error::deserialize(value);
    read.map_err(|error| refuse(&dotted(error.path()), error.inner(), what))
}

const BODY: &str = "the body is not a request";

fn refuse(path: &str, error: &serde_json::Error, what: &str) -> ApiError {
    let message = error.to_string();
    if !error.is_data() {
        let message = telling(&message);
        return unreadable(format!("the body is not valid JSON: {message}"));
    }
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = without_echo(message.strip_suffix(&place).unwrap_or(&message));
    match &*with_missing(path, &message) {
        "" => unreadable(format!("{what}: {message}")),
        path => ApiError::invalid(path, placed(path, &message)),
    }
}

/// Replaces serde_json's message where a clearer one is possible: half of an emoji is cut off more often than an escape
/// is mistyped.
fn telling(message: &str) -> Cow<'_, str> {
    const SURROGATE: &str = "lone surrogate: half of a character that takes two \\u escapes";
    for words in [
        "lone leading surrogate in hex escape",
        "unexpected end of hex escape",
    ] {
        if let Some(place) = message.strip_prefix(words) {
            return format!("{SURROGATE}{place}").into();
        }
    }
    message.into()
}

/// The path of the missing field, if that is the error: `path` is then that of the object without it.
fn with_missing(path: &str, message: &str) -> String {
    let missing = message.strip_prefix("missing field `");
    match (path, missing.and_then(|rest| rest.strip_suffix('`'))) {
        (path, None) => path.to_owned(),
        ("", Some(field)) => field.to_owned(),
        (path, Some(field)) => format!("{path}.{field}"),
    }
}

/// The message after the place that it is about, without the name of a field that the message names itself.
fn placed(path: &str, message: &str) -> String {
    let named = ["missing field `", "unknown field `"]
        .into_iter()
        .find_map(|words| message.strip_prefix(words)?.split_once('`'));
    let parent = named.and_then(|(field, _)| path.strip_suffix(field));
    match parent.map(|parent| (parent, parent.strip_suffix('.'))) {
        Some(("", _)) => message.to_owned(),
        Some((_, Some(parent))) => format!("{parent}: {message}"),
        Some((_, None)) | None => format!("{path}: {message}"),
    }
}

fn unreadable(message: String) -> ApiError {
    ApiError::new(Reason::InvalidRequest, message)
}

/// Removes the string from `invalid type: string "sk_…", expected …`: it may be anything, even a secret.
fn without_echo(message: &str) -> String {
    match (message.find("string \""), message.rfind("\", expected")) {
        (Some(start), Some(end)) if start < end => {
            format!("{}string{}", &message[..start], &message[end + 1..])
        }
        _ => message.to_owned(),
    }
}

/// Longest path in an error message, in characters: parts of it may come from the caller.
const PATH_CHARS_MAX: usize = 200;

/// The path in OpenAI's form: `messages.2.role`.
fn dotted(path: &serde_path_to_error::Path) -> String {
    let name = |segment: &Segment| match segment {
        Segment::Seq { index } => Some(index.to_string()),
        Segment::Map { key } => Some(key.clone()),
        Segment::Enum { variant } => Some(variant.clone()),
        Segment::Unknown => None,
    };
    let names: Vec<_> = path.iter().filter_map(name).collect();
    names.join(".").chars().take(PATH_CHARS_MAX).collect()
}

/// Reads the whole body. Fails as soon as it is known to be too large, or when it takes too long.
pub(crate) async fn body(request: Request, app: &App) -> Result<ReceivedBody, ApiError> {
    let options = &*app.options;
    refuse_encoding(request.headers())?;
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    if announced
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: u64| {
            usize::try_from(length).is_ok_and(|length| length > options.body_bytes_max)
        })
    {
        return Err(too_large(options));
    }
    let caller = request.extensions().get::<Caller>();
    let caller = caller.expect("only routes that need a key take a body");
    let claim = app.bytes_in_flight.claim(&caller.key);
    let collected = collect(request.into_body(), options, claim);
    match tokio::time::timeout(options.body_timeout, collected).await {
        Ok(body) => body,
        Err(_elapsed) => Err(unreadable("the body took too long to arrive".to_owned())),
    }
}

async fn collect(
    mut body: Body,
    options: &Options,
    mut claim: Claim,
) -> Result<ReceivedBody, ApiError> {
    let mut bytes = Vec::new();
    loop {
        let frame = match tokio::time::timeout(options.body_idle_timeout, body.frame()).await {
            Ok(None) => return Ok(ReceivedBody { bytes, claim }),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                return Err(unreadable(format!("the body could not be read: {error}")));
            }
            Err(_elapsed) => return Err(unreadable("the body stopped arriving".to_owned())),
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if data.len() > options.body_bytes_max - bytes.len() {
            return Err(too_large(options));
        }
        // Memory is claimed only for bytes that have arrived, not for the announced length.
        claim.grow(data.len())?;
        bytes.extend_from_slice(&data);
    }
}

fn too_large(options: &Options) -> ApiError {
    let max = options.body_bytes_max;
    ApiError::new(
        Reason::RequestTooLarge,
        format!("the body is larger than {max} bytes"),
    )
}

/// A small compressed body can become a huge one.
fn refuse_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let plain =
        |encoding: &http::HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Ok(());
    }
    Err(unreadable(
        "Content-Encoding is not supported; send the body uncompressed".to_owned(),
    ))
}
