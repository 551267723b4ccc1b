//! `GET models` and `GET models/{id}`: open to everyone, since clients list models before they have a key.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use weir_api::models::{Model, Models, Price, Pricing};
use weir_engine::Facts;
use weir_gateway::Offer;

use crate::app::App;
use crate::error::{ApiError, Reason};

pub(crate) async fn list(State(app): State<App>) -> Json<Models> {
    let data = app
        .gateway
        .catalog()
        .offers()
        .iter()
        .map(|offer| describe(offer))
        .collect();
    Json(Models {
        object: Models::OBJECT,
        data,
    })
}

/// The id is the rest of the path, including slashes, with `%2F` decoded.
pub(crate) async fn show(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    let Ok(Path(id)) = id else {
        let message = "model not found: the id in the path is not UTF-8";
        return Err(ApiError::new(Reason::ModelNotFound, message).param("model"));
    };
    Ok(Json(describe(&*app.gateway.catalog().find(&id)?)))
}

fn describe(offer: &Offer) -> Model {
    let facts = offer.facts();
    let price = offer.price;
    Model {
        id: offer.id.clone(),
        object: Model::OBJECT,
        created: offer.created,
        owned_by: offer
            .id
            .split_once('/')
            .map_or("unknown", |(owner, _)| owner)
            .to_owned(),
        title: offer.title.clone(),
        display_name: offer.title.clone(),
        description: offer.description.clone(),
        context_size: facts.map_or(0, |facts| facts.context_tokens),
        max_output_tokens: offer.output_cap().unwrap_or(0),
        input_token_price_per_m: price.input,
        output_token_price_per_m: price.output,
        pricing: Pricing {
            prompt: Price::per_million(price.input),
            completion: Price::per_million(price.output),
            input_cache_read: price.cached.map(Price::per_million),
        },
        features: facts.map_or_else(Vec::new, |facts| {
            facts
                .features
                .iter()
                .map(|feature| feature.name())
                .collect()
        }),
        endpoints: endpoints(facts),
        model_type: model_type(facts),
        status: u8::from(offer.available()),
    }
}

/// The endpoints that serve this model. A model without an engine is listed as one for plain completions.
fn endpoints(facts: Option<&Facts>) -> Vec<&'static str> {
    let Some(facts) = facts else {
        return vec!["completions"];
    };
    let endpoints = [
        (facts.generates && facts.chat, "chat/completions"),
        (facts.generates, "completions"),
        (facts.embedding.is_some(), "embeddings"),
    ];
    let there = endpoints.into_iter().filter(|(there, _)| *there);
    there.map(|(_, endpoint)| endpoint).collect()
}

/// The model's main purpose.
fn model_type(facts: Option<&Facts>) -> &'static str {
    match facts {
        Some(facts) if !facts.generates => "embedding",
        Some(facts) if facts.chat => "chat",
        Some(_) | None => "completion",
    }
}
