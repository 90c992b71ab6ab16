//! Which path means what.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::ask::Ask;
use super::error::ApiError;
use super::reply::{Frame, streamed, whole};
use super::worker::Worker;
use crate::web::{only_local_names, read_json};

/// Most bytes of a request's body.
const MAX_BODY: usize = 1 << 20;

/// What is offered, and to whom.
#[derive(Debug)]
pub(crate) struct Offer {
    /// What the model is called.
    pub(crate) model: String,
    /// Who does not show it is not answered.
    pub(crate) api_key: Option<String>,
    /// Who answers.
    pub(crate) worker: Worker,
}

/// The paths of the API.
pub(crate) fn router(offer: Offer) -> Router {
    let offer = Arc::new(offer);
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{model}", get(one_model))
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat_completions))
        .fallback(async || {
            ApiError::new(StatusCode::NOT_FOUND, "there is nothing here: see swarm serve --help")
        })
        .method_not_allowed_fallback(async || {
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path is not asked with this method")
        })
        .layer(from_fn_with_state(offer.clone(), authorised))
        .layer(from_fn(only_local_names))
        .with_state(offer)
}

/// Asks for the key, if there is one.
async fn authorised(
    State(offer): State<Arc<Offer>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if let Some(key) = &offer.api_key {
        let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|shown| shown.strip_prefix("Bearer ")).unwrap_or_default();
        // Hashes are compared in constant time.
        if blake3::hash(shown.as_bytes()) != blake3::hash(key.as_bytes()) {
            let message = "this server asks for its API key: Authorization: Bearer KEY";
            return Err(ApiError::new(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"));
        }
    }
    Ok(next.run(request).await)
}

fn model(offer: &Offer) -> Value {
    json!({"id": offer.model, "object": "model", "created": 0, "owned_by": "swarm"})
}

async fn models(State(offer): State<Arc<Offer>>) -> Json<Value> {
    Json(json!({"object": "list", "data": [model(&offer)]}))
}

async fn one_model(
    State(offer): State<Arc<Offer>>,
    Path(named): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if named == offer.model {
        return Ok(Json(model(&offer)));
    }
    let message = format!("there is no model {named:?} here, only {:?}", offer.model);
    Err(ApiError::new(StatusCode::NOT_FOUND, message).with_code("model_not_found"))
}

async fn completions(State(offer): State<Arc<Offer>>, request: Request) -> Result<Response, ApiError> {
    complete(&offer, request, false).await
}

async fn chat_completions(State(offer): State<Arc<Offer>>, request: Request) -> Result<Response, ApiError> {
    complete(&offer, request, true).await
}

async fn complete(offer: &Offer, request: Request, chat: bool) -> Result<Response, ApiError> {
    let body = read_json(request, MAX_BODY).await?;
    let ask = Ask::read(&body, chat, &offer.model, rand::random())?;
    let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let kind = if chat { "chatcmpl" } else { "cmpl" };
    let id = format!("{kind}-{:016x}", rand::random::<u64>());
    let frame = Frame { chat, id, created, model: offer.model.clone() };
    let (stream, usage) = (ask.stream, ask.usage);
    let told = offer.worker.put(ask)?;
    if stream { streamed(frame, usage, told).await } else { whole(&frame, told).await }
}
