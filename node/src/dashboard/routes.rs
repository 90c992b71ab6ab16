//! Which path means what, and what the browser is told of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Redirect, Response};
use tokio::sync::{Semaphore, watch};

use super::{attempt, stream};
use crate::web::only_local_names;

/// Pages that may be open at a time.
const MAX_STREAMS: usize = 8;

/// What every answer says: nothing but this page's own files, no other page around it or in hold of it, no address of it
/// to anybody, nothing kept.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The page: paths, types and contents.
pub(super) const FILES: [(&str, &str, &str); 15] = [
    ("", HTML, include_str!("page/index.html")),
    ("style.css", STYLE, include_str!("page/style.css")),
    ("charts.css", STYLE, include_str!("page/charts.css")),
    ("icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("app.js", SCRIPT, include_str!("page/app.js")),
    ("cells.js", SCRIPT, include_str!("page/cells.js")),
    ("dom.js", SCRIPT, include_str!("page/dom.js")),
    ("lines.js", SCRIPT, include_str!("page/lines.js")),
    ("live.js", SCRIPT, include_str!("page/live.js")),
    ("log.js", SCRIPT, include_str!("page/log.js")),
    ("peers.js", SCRIPT, include_str!("page/peers.js")),
    ("story.js", SCRIPT, include_str!("page/story.js")),
    ("traffic.js", SCRIPT, include_str!("page/traffic.js")),
    ("try.js", SCRIPT, include_str!("page/try.js")),
    ("words.js", SCRIPT, include_str!("page/words.js")),
];

struct Shown {
    dir: PathBuf,
    token: String,
    streams: Arc<Semaphore>,
    attempts: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// The page of the node in `dir` for who knows the `token`.
pub(super) fn router(dir: &Path, token: String, stopping: watch::Receiver<bool>) -> Router {
    let shown = Shown {
        dir: dir.to_owned(),
        token,
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        attempts: Arc::new(Semaphore::new(1)),
        stopping,
    };
    Router::new()
        .fallback(answer)
        .layer(from_fn(only_local_names))
        .layer(from_fn(with_headers))
        .with_state(Arc::new(shown))
}

async fn with_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn answer(State(shown): State<Arc<Shown>>, request: Request) -> Response {
    let path = request.uri().path().strip_prefix('/').unwrap_or_default();
    let (token, rest) = path.split_once('/').map_or((path, None), |(token, rest)| (token, Some(rest)));
    // Hashes are compared in constant time.
    if blake3::hash(token.as_bytes()) != blake3::hash(shown.token.as_bytes()) {
        let why = "there is nothing here: the whole address, with its token, is in the node's log and in what swarm run \
                   --dashboard prints\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    }
    let Some(rest) = rest else {
        return Redirect::temporary(&format!("/{token}/")).into_response();
    };
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    match rest {
        "api/live" if reads => match shown.streams.clone().try_acquire_owned() {
            Ok(place) => stream::live(&shown.dir, place, shown.stopping.clone()),
            Err(_) => {
                let why = format!("{MAX_STREAMS} pages are open already: close one\n");
                (StatusCode::SERVICE_UNAVAILABLE, why).into_response()
            }
        },
        "api/try" if request.method() == Method::POST => {
            let (dir, attempts) = (shown.dir.clone(), shown.attempts.clone());
            attempt::answer(&dir, &attempts, request).await.unwrap_or_else(IntoResponse::into_response)
        }
        _ => match FILES.iter().find(|(name, ..)| *name == rest) {
            Some((_, kind, text)) if reads => ([(header::CONTENT_TYPE, *kind)], *text).into_response(),
            Some(_) => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            None if rest.starts_with("api/") => StatusCode::METHOD_NOT_ALLOWED.into_response(),
            None => (StatusCode::NOT_FOUND, "there is nothing here\n").into_response(),
        },
    }
}
