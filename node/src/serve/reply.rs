//! Answers: whole, or as a stream of events.
//!
//! A stream is one of server-sent events (HTML standard, section 9.2): `data: {...}` and an empty line for every piece,
//! and `data: [DONE]` at the end.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;

use super::error::ApiError;
use super::worker::Said;
use crate::inference::Finish;

/// What all parts of an answer say.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) chat: bool,
    pub(super) id: String,
    /// Unix time, seconds.
    pub(super) created: u64,
    pub(super) model: String,
}

impl Frame {
    fn object(&self, object: &str, choices: Value) -> Value {
        let Self { id, created, model, .. } = self;
        json!({"id": id, "object": object, "created": created, "model": model, "choices": choices})
    }

    fn whole(&self, text: &str, finish: Finish, usage: Value) -> Value {
        let reason = reason(finish);
        let mut whole = if self.chat {
            let message = json!({"role": "assistant", "content": text, "refusal": null});
            let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": reason});
            self.object("chat.completion", json!([choice]))
        } else {
            let choice = json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason});
            self.object("text_completion", json!([choice]))
        };
        whole["usage"] = usage;
        whole
    }

    /// A piece of a stream.
    fn piece(&self, text: Option<&str>, first: bool, finish: Option<Finish>) -> Value {
        let reason = finish.map(reason);
        if self.chat {
            let mut delta = json!({});
            if first {
                delta["role"] = "assistant".into();
            }
            if let Some(text) = text {
                delta["content"] = text.into();
            }
            let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason});
            self.object("chat.completion.chunk", json!([choice]))
        } else {
            let text = text.unwrap_or_default();
            let choice = json!({"index": 0, "text": text, "logprobs": null, "finish_reason": reason});
            self.object("text_completion", json!([choice]))
        }
    }

    /// The last piece of a stream that ends with the usage.
    fn usage(&self, usage: Value) -> Value {
        let object = if self.chat { "chat.completion.chunk" } else { "text_completion" };
        let mut piece = self.object(object, json!([]));
        piece["usage"] = usage;
        piece
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop | Finish::Cancelled => "stop",
    }
}

fn counts(prompt: usize, completion: usize) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
}

/// Waits for all of an answer.
///
/// # Errors
/// There is none.
pub(super) async fn whole(frame: &Frame, mut told: Receiver<Said>) -> Result<Response, ApiError> {
    let mut text = String::new();
    loop {
        match told.recv().await {
            Some(Said::Text(more)) => text.push_str(&more),
            Some(Said::Done { finish, prompt_tokens, tokens }) => {
                return Ok(Json(frame.whole(&text, finish, counts(prompt_tokens, tokens))).into_response());
            }
            Some(Said::Failed(error)) => return Err(error),
            None => return Err(ApiError::stopping()),
        }
    }
}

/// Waits for the beginning of an answer, then passes it on as it comes.
///
/// # Errors
/// There is none. What goes wrong later is an event of the stream.
pub(super) async fn streamed(
    frame: Frame,
    usage: bool,
    mut told: Receiver<Said>,
) -> Result<Response, ApiError> {
    let begun = match told.recv().await {
        Some(Said::Failed(error)) => return Err(error),
        Some(said) => said,
        None => return Err(ApiError::stopping()),
    };
    let mut head = String::new();
    if frame.chat {
        event(&mut head, &frame.piece(Some(""), true, None));
    }
    let state = Some((frame, told, Some(begun), head));
    let events = stream::unfold(state, move |state| async move {
        let (frame, mut told, begun, mut text) = state?;
        let said = match begun {
            Some(said) => Some(said),
            None => told.recv().await,
        };
        let mut more = true;
        match said {
            Some(Said::Text(piece)) => event(&mut text, &frame.piece(Some(&piece), false, None)),
            Some(Said::Done { finish, prompt_tokens, tokens }) => {
                event(&mut text, &frame.piece(None, false, Some(finish)));
                if usage {
                    event(&mut text, &frame.usage(counts(prompt_tokens, tokens)));
                }
                text.push_str("data: [DONE]\n\n");
                more = false;
            }
            Some(Said::Failed(error)) => {
                event(&mut text, &error.body());
                more = false;
            }
            None => {
                event(&mut text, &ApiError::stopping().body());
                more = false;
            }
        }
        let next = more.then_some((frame, told, None, String::new()));
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), next))
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((StatusCode::OK, headers, Body::from_stream(events)).into_response())
}

/// JSON has no line breaks of its own, so one line is enough.
fn event(text: &mut String, value: &Value) {
    text.push_str(&format!("data: {value}\n\n"));
}
