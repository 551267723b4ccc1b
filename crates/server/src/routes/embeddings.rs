//! `POST embeddings`

use axum::extract::{Request, State};
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use weir_accounts::Caller;
use weir_api::embeddings::{Answer, Embedding, Usage, Vector};
use weir_gateway::EmbedJob;

use crate::app::App;
use crate::convert::Encoding;
use crate::error::{ApiError, ParamNames};
use crate::extract::AskedModel;
use crate::layers::RequestId;
use crate::{convert, extract};

const NAMES: ParamNames = ParamNames {
    prompt: "input",
    ..ParamNames::OPENAI
};

pub(crate) async fn create(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    Extension(asked_model): Extension<AskedModel>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<Answer>, ApiError> {
    app.gateway.may_spend(&caller)?;
    let body: weir_api::embeddings::Request = extract::json(request, &app).await?;
    let model = convert::model(body.model.as_deref())?.to_owned();
    let offer = app.gateway.catalog().find(&model)?;
    let caller = asked_model.set(caller, &model);
    let (request, encoding) = convert::embeddings(&offer, body)?;
    let job = EmbedJob {
        request_id,
        model: model.clone(),
        request,
    };
    let embedded = app
        .gateway
        .embed(&caller, job)
        .await
        .map_err(|refusal| ApiError::of(refusal, NAMES))?;
    let data = embedded.vectors.into_iter().enumerate();
    Ok(Json(Answer {
        object: Answer::OBJECT,
        data: data
            .map(|(index, vector)| Embedding {
                object: Embedding::OBJECT,
                index,
                embedding: encoded(vector, encoding),
            })
            .collect(),
        model,
        usage: Usage {
            prompt_tokens: embedded.tokens,
            total_tokens: embedded.tokens,
        },
    }))
}

fn encoded(vector: Vec<f32>, encoding: Encoding) -> Vector {
    match encoding {
        Encoding::Float => Vector::Floats(vector),
        Encoding::Base64 => {
            let bytes: Vec<u8> = vector.into_iter().flat_map(f32::to_le_bytes).collect();
            Vector::Base64(STANDARD.encode(bytes))
        }
    }
}
