//! `POST chat/completions`

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use weir_accounts::Caller;

use super::respond;
use crate::answer::Kind;
use crate::error::ApiError;
use crate::extract::AskedModel;
use crate::layers::RequestId;
use crate::{App, convert, extract};

pub(crate) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    Extension(id): Extension<RequestId>,
    request: Request,
) -> Result<Response, ApiError> {
    app.gateway.may_spend(&caller)?;
    let body: weir_api::chat::Request = extract::json(request, &app).await?;
    let model = convert::model(body.model.as_ref())?.to_owned();
    let offer = app.gateway.catalog().find(&model)?;
    let caller = asked_model.set(caller, &model);
    let asked = convert::chat(&offer, body)?;
    respond(&app, &caller, id, Kind::Chat, model, asked).await
}
