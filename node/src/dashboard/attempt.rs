//! The model, tried: `swarm generate` as a process of its own, one at a time.
//!
//! A process of its own takes little priority and one thread without touching what the trainer of this one has set, gives
//! its memory back when it ends, and can be ended at any moment. The text goes through its input, not its command line,
//! which other users of the machine could see.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::web::{Refused, read_json};

/// Most bytes of a request.
const MAX_BODY: usize = 64 << 10;
/// Most tokens.
const MAX_TOKENS: u32 = 1000;
/// A process that says nothing for so long is ended: it may be that the machine has no time for it.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pieces that wait for who reads.
const WAITING: usize = 16;
/// Most bytes of what went wrong.
const MAX_WHY: u64 = 4096;
/// The least there is, as the training's: whoever uses the device comes first.
#[cfg(unix)]
const PRIORITY: i32 = 19;

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.status, self.message + "\n").into_response()
    }
}

/// What to go on with.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    prompt: String,
    tokens: u32,
    temperature: f64,
    #[serde(default)]
    shared: bool,
}

impl Ask {
    fn read(body: &[u8]) -> Result<Self, Refused> {
        let bad = |message: String| Refused { status: StatusCode::BAD_REQUEST, message };
        let ask: Self =
            serde_json::from_slice(body).map_err(|error| bad(format!("that is not understood: {error}")))?;
        if !(1..=MAX_TOKENS).contains(&ask.tokens) {
            return Err(bad(format!("between 1 and {MAX_TOKENS} tokens can be asked for")));
        }
        if !(0.0..=2.0).contains(&ask.temperature) {
            return Err(bad("the temperature must be between 0 and 2".into()));
        }
        Ok(ask)
    }
}

/// Answers a request: with the text as it is written, or with why there is none.
///
/// # Errors
/// What was asked is not understood, somebody else is being answered, or there is no model.
pub(super) async fn answer(
    dir: &Path,
    attempts: &Arc<Semaphore>,
    request: Request,
) -> Result<Response, Refused> {
    let ask = Ask::read(&read_json(request, MAX_BODY).await?)?;
    let refused = |status, message: &str| Refused { status, message: message.to_owned() };
    if cfg!(not(feature = "train")) {
        let why = "this program was built without training: it cannot compute what a model says";
        return Err(refused(StatusCode::NOT_IMPLEMENTED, why));
    }
    if !dir.join("snapshot").exists() {
        let why = "there is no snapshot of the model yet: the node saves one every five minutes (--snapshot-seconds), \
                   and when it stops";
        return Err(refused(StatusCode::CONFLICT, why));
    }
    let Ok(place) = attempts.clone().try_acquire_owned() else {
        let why = "another text is being written: wait for its end";
        return Err(refused(StatusCode::TOO_MANY_REQUESTS, why));
    };
    let mut running = Running::start(dir, &ask, place).map_err(|error| {
        refused(StatusCode::INTERNAL_SERVER_ERROR, &format!("it cannot be tried: {error}"))
    })?;
    // It repeats the text that it goes on with, once the model is there. All of it, and what follows at once:
    let mut before = ask.prompt.len();
    let first = loop {
        match running.next().await {
            Some(Ok(bytes)) if bytes.len() < before => before -= bytes.len(),
            Some(Ok(bytes)) => break bytes.slice(before..),
            Some(Err(why)) => return Err(refused(StatusCode::CONFLICT, &why)),
            None => return Err(refused(StatusCode::CONFLICT, "the model ended without a word")),
        }
    };
    let body = futures::stream::unfold((Some(first), running), async |(first, mut running)| {
        let bytes = match first {
            Some(bytes) => Ok(bytes),
            None => running.next().await?.map_err(std::io::Error::other),
        };
        Some((bytes, (None, running)))
    });
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body)).into_response())
}

/// A process that writes. It ends with this.
struct Running {
    child: Arc<Mutex<Child>>,
    said: mpsc::Receiver<Result<Bytes, String>>,
    _place: OwnedSemaphorePermit,
}

impl Running {
    fn start(dir: &Path, ask: &Ask, place: OwnedSemaphorePermit) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["generate", "--threads", "1", "--device", "cpu", "--prompt-file", "-", "--truncate"]);
        command.arg(format!("--tokens={}", ask.tokens)).arg(format!("--temperature={}", ask.temperature));
        command.arg(format!("--seed={}", rand::random::<u64>())).arg("--dir").arg(dir);
        if ask.shared {
            command.arg("--shared");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        lower(&child);
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let child = Arc::new(Mutex::new(child));
        let (tell, said) = mpsc::channel(WAITING);
        // From here on it ends when this is dropped.
        let running = Self { child: child.clone(), said, _place: place };
        let prompt = ask.prompt.clone();
        let work = move || {
            // A process that has ended says why, or nothing.
            let _ = stdin.map(|mut stdin| stdin.write_all(prompt.as_bytes()));
            let mut wrote = false;
            if let Some(mut stdout) = stdout {
                let mut bytes = [0; 4096];
                while let Ok(length @ 1..) = stdout.read(&mut bytes) {
                    wrote = true;
                    let piece = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
                    if tell.blocking_send(Ok(piece)).is_err() {
                        break;
                    }
                }
            }
            let mut why = Vec::new();
            // With one that nobody hears any more this ends at once: it was ended.
            let _ = stderr.map(|stderr| stderr.take(MAX_WHY).read_to_end(&mut why));
            let ended = child.lock().unwrap_or_else(PoisonError::into_inner).wait();
            if !ended.is_ok_and(|status| status.success()) {
                let why = String::from_utf8_lossy(&why);
                let why = why.lines().rev().find_map(|line| line.strip_prefix("error: "));
                let why =
                    if wrote { "the model broke off" } else { why.unwrap_or("the model could not be used") };
                // Whoever asked may be gone.
                let _ = tell.blocking_send(Err(why.to_owned()));
            }
        };
        std::thread::Builder::new().name("attempt".into()).spawn(work)?;
        Ok(running)
    }

    /// What it writes next; `None` at its end.
    async fn next(&mut self) -> Option<Result<Bytes, String>> {
        match tokio::time::timeout(PATIENCE, self.said.recv()).await {
            Ok(said) => said,
            Err(_) => Some(Err(format!("the model has said nothing for {} s", PATIENCE.as_secs()))),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended by itself has been waited for, or will be.
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).kill();
    }
}

/// Lets all others come first. A system that cannot be asked for it does not.
fn lower(child: &Child) {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::setpriority_process(Some(pid), PRIORITY);
    }
    #[cfg(not(unix))]
    let _ = child;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_has_bounds() {
        let read = |body: &str| Ask::read(body.as_bytes());
        let good = r#"{"prompt": "a", "tokens": 1000, "temperature": 0}"#;
        assert_eq!(
            read(good).unwrap(),
            Ask { prompt: "a".into(), tokens: 1000, temperature: 0.0, shared: false }
        );
        for (from, to, word) in [
            ("1000", "0", "between 1 and 1000"),
            ("1000", "1001", "between 1 and 1000"),
            ("1000", "-1", "not understood"),
            (": 0}", ": 2.1}", "temperature"),
            (": 0}", ": null}", "not understood"),
            ("\"prompt\"", "\"other\"", "not understood"),
        ] {
            let error = read(&good.replace(from, to)).unwrap_err();
            assert_eq!(error.status, StatusCode::BAD_REQUEST);
            assert!(error.message.contains(word), "{}", error.message);
        }
    }
}
