//! What the node writes, as it writes it: server-sent events (HTML standard, section 9.2).
//!
//! First comes `history`: all events that the folder has, and the log's last lines. Then, whenever there is something
//! new, `status` (with its age in seconds), `events` and `log`; and `alive` where there would be silence. A browser whose
//! stream broke off asks again, and gets the history again.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::folder::{Log, read_status};
use crate::events::Told;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Something is said at least this often: by it a page knows that the node is there, and this that the page is.
const SIGN: Duration = Duration::from_secs(5);
/// Rounds of a history that still say how much each tensor moved: a page has no room for more.
const HEATED: usize = 150;
/// Messages that wait for who reads.
const WAITING: usize = 8;

/// Answers with the stream of the node in `dir`, which keeps `place` and ends with `stopping`.
pub(super) fn live(dir: &Path, place: OwnedSemaphorePermit, stopping: watch::Receiver<bool>) -> Response {
    let (tell, told) = mpsc::channel(WAITING);
    tokio::spawn(feed(dir.to_owned(), tell, stopping));
    // The place is free when the connection lets go of this, not when there is no more to say.
    let body = futures::stream::unfold((told, place), async |(mut told, place)| {
        let bytes: Bytes = told.recv().await?;
        Some((Ok::<_, Infallible>(bytes), (told, place)))
    });
    ([(CONTENT_TYPE, "text/event-stream")], Body::from_stream(body)).into_response()
}

async fn feed(dir: PathBuf, tell: mpsc::Sender<Bytes>, mut stopping: watch::Receiver<bool>) {
    let (first, mut news) = News::open(dir);
    let mut next = vec![first];
    loop {
        next.extend(news.look());
        for message in next.drain(..) {
            // A reader that takes too long is given up by the connection, and then nobody hears this any more.
            if tell.send(message).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = stopping.changed() => return,
            () = tell.closed() => return,
        }
    }
}

/// What was told, and so what is new.
struct News {
    dir: PathBuf,
    events: Told,
    log: Log,
    status: Option<Value>,
    told: Instant,
}

impl News {
    /// Begins with everything.
    fn open(dir: PathBuf) -> (Bytes, Self) {
        let (mut events, mut log) = (Told::new(&dir), Log::new(&dir));
        let mut history = events.read().unwrap_or_default();
        let heated = history.iter_mut().rev().filter(|event| event["event"] == "folded");
        for event in heated.skip(HEATED) {
            event["heat"] = json!([]);
        }
        let first = message("history", &json!({"events": history, "log": log.read()}));
        (first, Self { dir, events, log, status: None, told: Instant::now() })
    }

    fn look(&mut self) -> Vec<Bytes> {
        let mut messages = Vec::new();
        let sign = self.told.elapsed() >= SIGN;
        match read_status(&self.dir) {
            Some((status, age)) if sign || self.status.as_ref() != Some(&status) => {
                messages.push(message("status", &json!({"status": status, "age": age})));
                self.status = Some(status);
            }
            Some(_) => {}
            None if sign => messages.push(message("alive", &Value::Null)),
            None => {}
        }
        // What cannot be read now is read later.
        let events = self.events.read().unwrap_or_default();
        if !events.is_empty() {
            messages.push(message("events", &Value::Array(events)));
        }
        let lines = self.log.read();
        if !lines.is_empty() {
            messages.push(message("log", &json!(lines)));
        }
        if !messages.is_empty() {
            self.told = Instant::now();
        }
        messages
    }
}

/// JSON has no line breaks of its own, so one line is enough.
fn message(event: &str, data: &Value) -> Bytes {
    format!("event: {event}\ndata: {data}\n\n").into()
}
