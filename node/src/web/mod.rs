//! Answering programs and browsers on this machine over HTTP.
//!
//! A page of any web site can make the browser of whoever looks at it send requests to 127.0.0.1. What protects a
//! program that listens there:
//!
//! - **Names.** A page may let its own name point to 127.0.0.1 once it is loaded (DNS rebinding), and is then allowed
//!   to read answers. Its requests carry that name in `Host`: only IP addresses and `localhost` are answered
//!   ([`host`]).
//! - **No CORS.** No answer carries a permission for other origins, so a page cannot read any; and what changes or
//!   costs something asks for a content type that a page cannot send without that permission.
//! - **Bounds.** Connections, headers, bodies and the time that they may take are limited ([`listener`]), and who does
//!   not read what was asked for is not waited for ([`patient`]).
//!
//! There is no encryption: beyond this machine, only through something that adds it.

mod background;
mod host;
mod json;
mod listener;
mod patient;

pub(crate) use background::Background;
pub(crate) use host::only_local_names;
pub(crate) use json::{Refused, read_json};
#[cfg(feature = "train")]
pub(crate) use listener::serve;
pub(crate) use listener::{Flags, bind, permitted};
