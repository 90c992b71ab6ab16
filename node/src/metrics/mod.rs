//! Numbers for Prometheus, at `/metrics`.
//!
//! They are read from the node's folder at the moment that somebody asks: its status and its newest events, as the
//! dashboard reads them, so the node's loop has nothing to do with it. [`gather`] says what there is; the format is
//! OpenMetrics', which `prometheus-client` writes.
//!
//! There is no secret to be shown, as Prometheus' own exporters have none: whoever may ask learns peer ids, losses and
//! traffic, and can change nothing. On loopback only names of this machine are answered ([`crate::web`]); where others are
//! let in, they reach it by whatever name their network has.

mod gather;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use gather::{Newest, exposition};

use crate::web::{self, Background, Flags, only_local_names};

/// The port that OpenTelemetry's exporter for Prometheus has, too.
pub(crate) const PORT: u16 = 9464;
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the numbers of the node in `dir`, which is this process.
///
/// # Errors
/// An address that others reach though that is not meant; one that cannot be listened at.
pub(crate) fn start(dir: &Path, address: SocketAddr, beyond: bool, flags: Flags) -> Result<Background> {
    let bind = web::bind(address, beyond, flags);
    Background::start("metrics", bind, |_| router(dir, address.ip().is_loopback()))
}

fn router(dir: &Path, loopback: bool) -> Router {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "there is only /metrics here\n"))
        .with_state(Arc::new((dir.to_owned(), Mutex::new(Newest::new(dir)))));
    if loopback { router.layer(from_fn(only_local_names)) } else { router }
}

async fn metrics(State(node): State<Arc<(PathBuf, Mutex<Newest>)>>) -> Response {
    let (dir, newest) = &*node;
    let text = exposition(dir, &mut newest.lock().unwrap_or_else(PoisonError::into_inner));
    match text {
        Ok(text) => ([(CONTENT_TYPE, KIND), (CACHE_CONTROL, "no-store")], text).into_response(),
        Err(error) => {
            tracing::warn!("the metrics cannot be written: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
