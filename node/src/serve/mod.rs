//! Answering other programs as OpenAI's API does, so that clients made for it work.
//!
//! - [`ask`]: what a request asks for, and what of it is not understood here;
//! - [`worker`]: the one thread that has the model; requests wait for it in a queue;
//! - [`routes`]: which path means what; [`reply`]: answers, whole and as streams; [`error`]: what went wrong.
//!
//! Of the API there are `/v1/models`, `/v1/completions` and `/v1/chat/completions`, with `stream`, `stop`,
//! `max_tokens`, `temperature`, `top_p` and `seed`. What would change an answer and is not there (`n` above 1,
//! penalties, log probabilities, tools, formats, pictures) is refused, so that nobody takes an answer for what it is not;
//! what would not is ignored (`user`, `store`, `metadata`).

mod ask;
mod error;
mod reply;
mod routes;
#[cfg(test)]
mod tests;
mod worker;

pub(crate) use routes::{Offer, router};
pub(crate) use worker::{Source, Worker};
