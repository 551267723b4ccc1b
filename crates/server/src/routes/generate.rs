//! The one handler of all APIs that generate text: from a body to an answer, streamed or whole.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use serde::de::DeserializeOwned;
use weir_accounts::Caller;
use weir_gateway::{Delivery, Job, Offer};

use crate::answer::{self, AnswerFormat, Envelope, Folded};
use crate::app::App;
use crate::convert::ChatJob;
use crate::error::ApiError;
use crate::extract::AskedModel;
use crate::layers::RequestId;
use crate::{convert, extract, relaxed, sse};

/// An API that generates text: how its requests are read, and how its answers are written.
pub trait GenerationApi: 'static {
    /// The body of a request.
    type Body: DeserializeOwned + Send;
    /// The request's wishes for the form of its answer.
    type Shape: Send;
    type Answer: AnswerFormat;

    /// The model that the body names. It is read first: its offer decides how other fields are checked.
    fn model(body: &Self::Body) -> Option<&str>;

    /// Checks the body and converts it.
    fn job(offer: &Offer, body: Self::Body) -> Result<ChatJob<Self::Shape>, ApiError>;

    /// The answer to a job, before the first event of its generation.
    fn answer(envelope: Envelope, shape: Self::Shape) -> Self::Answer;
}

pub(crate) async fn create<A: GenerationApi>(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    app.gateway.may_spend(&caller)?;
    let body: A::Body = extract::json(request, &app).await?;
    let model = convert::model(A::model(&body))?.to_owned();
    let offer = app.gateway.catalog().find(&model)?;
    let caller = asked_model.set(caller, &model);
    let job = A::job(&offer, body)?;
    respond::<A>(&app, &caller, &offer, id, job).await
}

/// Starts the generation of a job, and answers with it.
async fn respond<A: GenerationApi>(
    app: &App,
    caller: &Caller,
    offer: &Offer,
    RequestId(request_id): RequestId,
    job: ChatJob<A::Shape>,
) -> Result<Response, ApiError> {
    let (created, prompts) = (app.gateway.now().as_second(), job.prompts());
    let ChatJob {
        request,
        delivery,
        names,
        shape,
    } = job;
    let choices_per_prompt = request.choices.get();
    let job = Job {
        request_id: request_id.clone(),
        model: offer.id.clone(),
        request,
        delivery,
    };
    // The future is boxed because it is large, and done long before a whole answer is: it would take space until then.
    let started = Box::pin(app.gateway.start(caller, job)).await;
    let generation = started.map_err(|refusal| ApiError::of(refusal, names))?;
    let fingerprint = offer.facts().map(|facts| Arc::clone(&facts.fingerprint));
    let envelope = Envelope {
        request_id,
        created,
        model: offer.id.clone(),
        prompts,
        choices_per_prompt,
        prompt_tokens: generation.prompt_tokens(),
        fingerprint: fingerprint.unwrap_or_default(),
    };
    let relaxed = generation.relaxed().to_vec();
    let folded = Folded::new(envelope.choices(), prompts);
    let format = A::answer(envelope, shape);
    let mut response = match delivery {
        Delivery::Whole => answer::whole(format, folded, generation, names).await?,
        Delivery::Stream => sse::stream(format, generation, names),
    };
    relaxed::list(response.headers_mut(), &relaxed);
    Ok(response)
}
