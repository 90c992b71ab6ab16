//! HTTP as a client speaks it, byte by byte, so that a test can also say what no good client would.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::GUARD;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers, a line each, with names in small letters.
    pub headers: Vec<String>,
    /// Its body.
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }

    /// Checks that it has this status, and that its body has all of `words`.
    ///
    /// # Errors
    /// It does not.
    pub fn refused(&self, status: u16, words: &[&str]) -> Result<()> {
        ensure!(self.status == status, "{} instead of {status}: {}", self.status, self.body);
        for word in words {
            ensure!(self.body.contains(word), "'{word}' is not in: {}", self.body);
        }
        Ok(())
    }

    /// The data of its server-sent events.
    ///
    /// # Errors
    /// It has something else.
    pub fn events(&self) -> Result<Vec<String>> {
        let events = self.body.split_terminator("\n\n");
        events
            .map(|event| {
                Ok(event.strip_prefix("data: ").with_context(|| format!("no event: {event}"))?.into())
            })
            .collect()
    }
}

/// A connection over which one request was sent.
#[derive(Debug)]
pub struct Asked {
    reader: BufReader<TcpStream>,
}

/// Sends a request as it is to `address`, such as `127.0.0.1:8080`.
///
/// # Errors
/// Nobody is there.
pub fn send(address: &str, request: &[u8]) -> Result<Asked> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("nobody answers at {address}"))?;
    stream.set_read_timeout(Some(GUARD))?;
    // What refuses a request may close the connection before it has read all of it.
    let _ = stream.write_all(request);
    Ok(Asked { reader: BufReader::new(stream) })
}

/// Asks `path` with JSON and waits for the answer. `headers` are further lines, each with its end.
///
/// # Errors
/// There is no answer.
pub fn post(address: &str, path: &str, headers: &str, body: &str) -> Result<Reply> {
    send(address, posted(address, path, headers, body).as_bytes())?.reply()
}

/// The bytes of a request with JSON.
pub fn posted(address: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// Asks for `path`.
///
/// # Errors
/// There is no answer.
pub fn get(address: &str, path: &str, headers: &str) -> Result<Reply> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    send(address, request.as_bytes())?.reply()
}

impl Asked {
    /// The next line.
    ///
    /// # Errors
    /// There is none.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.reader.read_line(&mut line)? > 0, "the connection was closed");
        Ok(line.trim_end().to_owned())
    }

    /// Waits until a line begins with `start`.
    ///
    /// # Errors
    /// The answer ends before.
    pub fn wait_for_line(&mut self, start: &str) -> Result<String> {
        loop {
            let line = self.line()?;
            if line.starts_with(start) {
                return Ok(line);
            }
        }
    }

    /// All of the answer.
    ///
    /// # Errors
    /// There is none, or it is not HTTP.
    pub fn reply(mut self) -> Result<Reply> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status: {first}"))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => headers.push(format!("{}:{value}", name.to_lowercase())),
                None => break,
            }
        }
        let mut body = Vec::new();
        if headers.iter().any(|header| header == "transfer-encoding: chunked") {
            loop {
                let length = u64::from_str_radix(&self.line()?, 16).context("no chunk's length")?;
                self.reader.by_ref().take(length).read_to_end(&mut body)?;
                self.line()?;
                if length == 0 {
                    break;
                }
            }
        } else {
            self.reader.read_to_end(&mut body)?;
        }
        Ok(Reply { status, headers, body: String::from_utf8(body).context("the body is no text")? })
    }
}
