//! The one thread that has the model. Requests wait for it in a queue of bounded length; each is told what is written
//! through a channel of its own, and when nobody listens there any more, it is not gone on with.
//!
//! Between two requests the worker looks whether there is a newer model, as there is while training goes on, and
//! takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::SystemTime;

use anyhow::{Context, Result};
use axum::http::StatusCode;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::ask::{Ask, Prompt};
use super::error::ApiError;
use crate::inference::talk::{self, Trimmed};
use crate::inference::{Finish, Loaded, Request, TooLong, answer};

/// Where the model comes from.
pub(crate) trait Source: Send + 'static {
    /// Loads it, on the thread that will use it.
    ///
    /// # Errors
    /// There is none that can be used.
    fn load(&self) -> Result<Loaded>;

    /// Another version, another model.
    fn version(&self) -> Option<(SystemTime, u64)>;
}

/// What is told of a request.
#[derive(Debug)]
pub(super) enum Said {
    /// A piece of the answer, never empty.
    Text(String),
    /// It is complete.
    Done { finish: Finish, prompt_tokens: usize, tokens: usize },
    /// It cannot be had.
    Failed(ApiError),
}

/// A request, and who asks.
#[derive(Debug)]
struct Job {
    ask: Ask,
    tell: mpsc::Sender<Said>,
}

/// The way to the worker.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    jobs: mpsc::Sender<Job>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Starts it; at most `waiting` requests wait for it. Also gives the thread, which ends when the last [`Worker`] is
    /// dropped, and which model it is, in words.
    ///
    /// # Errors
    /// The model cannot be loaded.
    pub(crate) fn start(source: impl Source, waiting: usize) -> Result<(Self, JoinHandle<()>, String)> {
        let (jobs, queue) = mpsc::channel(waiting.max(1));
        let (tell, loaded) = std::sync::mpsc::sync_channel(1);
        let stop = Arc::new(AtomicBool::new(false));
        let stops = stop.clone();
        let run = move || {
            let version = source.version();
            match source.load() {
                Ok(model) => {
                    if tell.send(Ok(model.about.clone())).is_ok() {
                        work(&source, version, model, queue, &stops);
                    }
                }
                // Whoever started this may be gone.
                Err(error) => drop(tell.send(Err(error))),
            }
        };
        let thread =
            std::thread::Builder::new().name("model".into()).spawn(run).context("no thread for the model")?;
        let about = loaded.recv().context("the model's thread has ended")??;
        Ok((Self { jobs, stop }, thread, about))
    }

    /// Puts a request into the queue; gives what is told of it.
    pub(super) fn put(&self, ask: Ask) -> Result<mpsc::Receiver<Said>, ApiError> {
        // Room for every piece: the worker never waits for who reads slowly. At most one piece a token comes, one at the
        // end, and the end itself.
        let (tell, told) = mpsc::channel(ask.most.saturating_add(2));
        match self.jobs.try_send(Job { ask, tell }) {
            Ok(()) => Ok(told),
            Err(TrySendError::Full(_)) => {
                let waiting = self.jobs.max_capacity();
                tracing::debug!("a request is refused: {waiting} wait already");
                Err(ApiError::busy(waiting))
            }
            Err(TrySendError::Closed(_)) => Err(ApiError::stopping()),
        }
    }

    /// Ends what is being written, and what waits.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Answers one request after the other, until nobody can send any more.
fn work(
    source: &impl Source,
    mut version: Option<(SystemTime, u64)>,
    mut model: Loaded,
    mut queue: mpsc::Receiver<Job>,
    stop: &AtomicBool,
) {
    while let Some(Job { ask, tell }) = queue.blocking_recv() {
        if tell.is_closed() {
            continue;
        }
        let newest = source.version();
        if newest != version {
            // Tried once: what cannot be read now will not be by the next request, unless it changes.
            version = newest;
            match source.load() {
                Ok(newer) => {
                    model = newer;
                    tracing::info!("now {}", model.about);
                }
                Err(error) => tracing::warn!("there is a newer model, but {error:#}; the old one answers"),
            }
        }
        tracing::debug!("a request is answered, with at most {} tokens", ask.most);
        let chat = matches!(ask.prompt, Prompt::Talk { .. });
        let mut trimmed = Trimmed::default();
        let heard = |text: &str| {
            let text = if chat { trimmed.push(text) } else { text };
            let told = if text.is_empty() {
                !tell.is_closed()
            } else {
                tell.try_send(Said::Text(text.into())).is_ok()
            };
            told && !stop.load(Ordering::Relaxed)
        };
        let last = match reply(&mut model, ask, heard) {
            Ok(done) => done,
            Err(error) => Said::Failed(error),
        };
        // Whoever asked may be gone.
        let _ = tell.try_send(last);
    }
}

fn reply(model: &mut Loaded, ask: Ask, on_text: impl FnMut(&str) -> bool) -> Result<Said, ApiError> {
    let Loaded { sequence, tokenizer, .. } = model;
    let mut prompt = Vec::new();
    let encoded = match &ask.prompt {
        Prompt::Tokens(tokens) => {
            let vocabulary = sequence.vocabulary().min(tokenizer.vocabulary());
            if let Some(token) = tokens.iter().find(|token| **token >= vocabulary) {
                let message = format!("token {token} is not in the model's vocabulary of {vocabulary}");
                return Err(ApiError::of("prompt", message));
            }
            prompt.extend(tokens);
            Ok(())
        }
        // A model has no other notion of a beginning.
        Prompt::Text(text) if text.is_empty() => tokenizer.end_document(&mut prompt),
        Prompt::Text(text) => tokenizer.encode(text, &mut prompt),
        Prompt::Talk { system, turns } => tokenizer.encode(&talk::transcript(system, turns), &mut prompt),
    };
    let Ask { most, stop, sampling, .. } = ask;
    let prompt_tokens = prompt.len();
    let request = Request { prompt, most, stop, sampling };
    let outcome = encoded.and_then(|()| answer(sequence, tokenizer, &request, on_text));
    match outcome {
        Ok(outcome) if outcome.finish == Finish::Cancelled => {
            tracing::debug!("nobody waits for an answer any more: ended after {} tokens", outcome.tokens);
            Err(ApiError::stopping())
        }
        Ok(outcome) => Ok(Said::Done { finish: outcome.finish, prompt_tokens, tokens: outcome.tokens }),
        Err(error) if error.is::<TooLong>() => {
            let field = if matches!(ask.prompt, Prompt::Talk { .. }) { "messages" } else { "prompt" };
            Err(ApiError::of(field, format!("{error}: shorten it")).with_code("context_length_exceeded"))
        }
        Err(error) => {
            tracing::error!("a request failed: {error:#}");
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")))
        }
    }
}
