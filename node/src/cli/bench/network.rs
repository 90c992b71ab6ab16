//! `swarm bench network`: two nodes' network parts in one process, over loopback, beside a plain TCP stream.
//!
//! Measured through the same queues that a node's core uses, so encryption, multiplexing, framing and the hops
//! between tasks are all in it; the plain stream has none of these. What a real line adds is not in it.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use libp2p::Multiaddr;
use serde::Serialize;
use swarm_protocol::identity::PeerKey;
use swarm_protocol::peer::Verdict;
use swarm_protocol::wire::{MAX_CHUNK, MAX_GOSSIP, MAX_REQUEST, MAX_RESPONSE, SIGNED_HEADER_LEN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::{Progress, median, print};
use crate::net::{self, Command, Config, Event};

/// Bytes of a question, and of its answer: about a status.
const QUESTION: usize = 800;
/// Questions under way at a time: no more than a connection takes both ways together.
const UNDER_WAY: usize = 8;
/// Blobs under way at a time.
const BLOBS_UNDER_WAY: usize = 2;
/// The first byte of a question for a blob; others are answered with as many bytes as they have.
const FOR_A_BLOB: u8 = 1;
/// Bytes of a gossiped header.
const HEADER: usize = SIGNED_HEADER_LEN + 2;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Until gossip knows who listens, a message is sent again after this.
const AGAIN: Duration = Duration::from_millis(50);

/// Measure the network: questions a second, MB a second of 1 MiB blobs, and how long a gossiped header takes,
/// between two nodes in this process over loopback, by TCP and by QUIC; and a plain TCP stream in the same run.
#[derive(Args)]
pub(super) struct Network {
    /// How often each has its turn.
    #[arg(long, value_name = "N", default_value_t = 5)]
    turns: usize,

    /// Questions a turn.
    #[arg(long, value_name = "N", default_value_t = 2000)]
    questions: usize,

    /// Blobs of 1 MiB a turn.
    #[arg(long, value_name = "N", default_value_t = 64)]
    blobs: usize,

    /// Gossiped headers a turn.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=300))]
    headers: u32,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One turn of one way of sending.
#[derive(Clone, Copy, Debug)]
struct Turn {
    questions_per_second: f64,
    round_trip: f64,
    megabytes_per_second: f64,
    header: f64,
}

/// Medians over the turns.
#[derive(Debug, Serialize)]
struct Line {
    way: &'static str,
    /// Small questions and answers, 8 under way.
    questions_per_second: f64,
    /// One question at a time.
    round_trip_us: f64,
    /// 1 MiB blobs, 2 under way.
    megabytes_per_second: f64,
    /// From handing a header to the sender to having it at the receiver.
    header_us: f64,
}

#[derive(Debug, Serialize)]
struct NetworkReport {
    turns: usize,
    question_bytes: usize,
    blob_bytes: u32,
    header_bytes: usize,
    lines: Vec<Line>,
}

impl Network {
    pub(super) fn execute(self) -> Result<()> {
        for (flag, value) in [("turns", self.turns), ("questions", self.questions), ("blobs", self.blobs)] {
            ensure!(value >= 1, "--{flag} 0: at least one is needed");
        }
        let progress = Progress::new()?;
        let report = super::super::block_on(self.measure(&progress))?;
        print(&report, self.json)
    }

    async fn measure(&self, progress: &Progress) -> Result<NetworkReport> {
        let mut ways = [
            ("tcp", Way::Swarm(Pair::start("/ip4/127.0.0.1/tcp/0").await.context("over TCP")?)),
            ("quic", Way::Swarm(Pair::start("/ip4/127.0.0.1/udp/0/quic-v1").await.context("over QUIC")?)),
            ("plain", Way::Plain(Plain::start().await.context("a plain TCP stream")?)),
        ];
        let mut turns: [Vec<Turn>; 3] = Default::default();
        let steps = (self.turns + 1) * ways.len();
        // The first turn is not counted: buffers grow, and congestion control looks for its window.
        for turn in 0..=self.turns {
            for (at, (name, way)) in ways.iter_mut().enumerate() {
                let step = turn * 3 + at;
                progress.say(step, steps, &format!("{name}, turn {turn} of {}", self.turns))?;
                let measured = self.turn(way).await.with_context(|| format!("measuring {name}"))?;
                if turn > 0 {
                    turns[at].push(measured);
                }
            }
        }
        let lines = ways.iter().zip(&turns).map(|((way, _), turns)| {
            let of = |get: fn(&Turn) -> f64| median(&turns.iter().map(get).collect::<Vec<_>>());
            Line {
                way,
                questions_per_second: of(|turn| turn.questions_per_second),
                round_trip_us: 1e6 * of(|turn| turn.round_trip),
                megabytes_per_second: of(|turn| turn.megabytes_per_second),
                header_us: 1e6 * of(|turn| turn.header),
            }
        });
        Ok(NetworkReport {
            turns: self.turns,
            question_bytes: QUESTION,
            blob_bytes: MAX_CHUNK,
            header_bytes: HEADER,
            lines: lines.collect(),
        })
    }

    async fn turn(&self, way: &mut Way) -> Result<Turn> {
        let began = Instant::now();
        way.ask(self.questions, UNDER_WAY, false).await?;
        let questions_per_second = self.questions as f64 / began.elapsed().as_secs_f64();
        let mut trips = Vec::new();
        for _ in 0..self.headers {
            let began = Instant::now();
            way.ask(1, 1, false).await?;
            trips.push(began.elapsed().as_secs_f64());
        }
        let began = Instant::now();
        way.ask(self.blobs, BLOBS_UNDER_WAY, true).await?;
        let bytes = self.blobs as f64 * f64::from(MAX_CHUNK);
        let megabytes_per_second = bytes * 1e-6 / began.elapsed().as_secs_f64();
        let mut headers = Vec::new();
        for _ in 0..self.headers {
            headers.push(way.header().await?);
        }
        let (round_trip, header) = (median(&trips), median(&headers));
        Ok(Turn { questions_per_second, round_trip, megabytes_per_second, header })
    }
}

enum Way {
    Swarm(Pair),
    Plain(Plain),
}

impl Way {
    /// Asks so many questions, and waits for all answers.
    async fn ask(&mut self, count: usize, under_way: usize, blobs: bool) -> Result<()> {
        let asked = async {
            match self {
                Self::Swarm(pair) => pair.ask(count, under_way, blobs).await,
                Self::Plain(plain) => plain.ask(count, under_way, blobs).await,
            }
        };
        timeout(PATIENCE, asked).await.context("no answer in half a minute")?
    }

    /// Seconds until a header is at the other end.
    async fn header(&mut self) -> Result<f64> {
        let sent = async {
            match self {
                Self::Swarm(pair) => pair.header().await,
                Self::Plain(plain) => plain.header().await,
            }
        };
        timeout(PATIENCE, sent).await.context("a header did not arrive in half a minute")?
    }
}

fn question(blob: bool) -> Vec<u8> {
    vec![if blob { FOR_A_BLOB } else { 0 }; QUESTION]
}

/// Two nodes' network parts, and a task that answers for the second.
struct Pair {
    handle: net::Handle,
    events: Receiver<Event>,
    answerer: PeerKey,
    /// When a header arrived, and which.
    arrivals: Receiver<(u64, Instant)>,
    next: u64,
}

fn config(secret: u8, listen: &str, bootstrap: Vec<Multiaddr>) -> Result<Config> {
    Ok(Config {
        secret: [secret; 32],
        swarm_id: [0; 32],
        listen: vec![net::parse_address(listen)?],
        bootstrap,
        mdns: false,
        max_gossip: MAX_GOSSIP,
        max_request: MAX_REQUEST,
        max_response: MAX_RESPONSE,
        max_upload: None,
        relay: false,
        upnp: false,
    })
}

impl Pair {
    async fn start(listen: &str) -> Result<Self> {
        timeout(PATIENCE, Self::connect(listen)).await.context("the two did not connect in half a minute")?
    }

    async fn connect(listen: &str) -> Result<Self> {
        let (answering, mut events, _) = net::start(config(1, listen, Vec::new())?).await?;
        let address = loop {
            match events.recv().await.context("the network ended")? {
                Event::Listening(address) => break address,
                Event::Fatal { reason } => bail!("{reason}"),
                _ => {}
            }
        };
        let (arrived, arrivals) = channel(1024);
        tokio::spawn(answer(answering, events, arrived));
        let (handle, mut events, _) = net::start(config(2, listen, vec![address])?).await?;
        let answerer = loop {
            match events.recv().await.context("the network ended")? {
                Event::Connected { peer } => break peer,
                Event::Fatal { reason } => bail!("{reason}"),
                _ => {}
            }
        };
        let mut pair = Self { handle, events, answerer, arrivals, next: 0 };
        while timeout(AGAIN, pair.header()).await.is_err() {}
        Ok(pair)
    }

    async fn ask(&mut self, count: usize, under_way: usize, blobs: bool) -> Result<()> {
        let (mut asked, mut answered) = (0, 0);
        while answered < count {
            while asked < count && asked - answered < under_way {
                let (peer, bytes) = (self.answerer, question(blobs));
                self.handle.send(Command::Request { peer, id: asked as u64, bytes }).await?;
                asked += 1;
            }
            match self.events.recv().await.context("the network ended")? {
                Event::Response { bytes, .. } => {
                    let expected = if blobs { MAX_CHUNK as usize } else { QUESTION };
                    ensure!(bytes.len() == expected, "an answer of {} bytes", bytes.len());
                    answered += 1;
                }
                Event::RequestFailed { reason, .. } => bail!("a question failed: {reason}"),
                Event::Fatal { reason } => bail!("{reason}"),
                _ => {}
            }
        }
        Ok(())
    }

    async fn header(&mut self) -> Result<f64> {
        self.next += 1;
        let mut bytes = vec![0; HEADER];
        bytes[..8].copy_from_slice(&self.next.to_le_bytes());
        let began = Instant::now();
        self.handle.send(Command::Publish(bytes)).await?;
        loop {
            let (which, at) = self.arrivals.recv().await.context("the network ended")?;
            if which == self.next {
                return Ok((at - began).as_secs_f64());
            }
        }
    }
}

/// Answers every question, accepts every header, and tells when it came.
async fn answer(handle: net::Handle, mut events: Receiver<Event>, arrived: Sender<(u64, Instant)>) {
    while let Some(event) = events.recv().await {
        let sent = match event {
            Event::Request { token, bytes, .. } => {
                let length =
                    if bytes.first() == Some(&FOR_A_BLOB) { MAX_CHUNK as usize } else { bytes.len() };
                handle.send(Command::Respond { token, bytes: vec![7; length], bulk: false }).await
            }
            Event::Gossip { token, bytes, .. } => {
                let which = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
                let _ = arrived.send((which, Instant::now())).await;
                handle.send(Command::Verdict { token, verdict: Verdict::Accept }).await
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// A plain TCP stream to a task that answers.
struct Plain {
    stream: TcpStream,
    arrivals: Receiver<Instant>,
    buffer: Vec<u8>,
}

/// The first byte of a header on the plain stream; it is not answered.
const NO_ANSWER: u8 = 2;

impl Plain {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let stream = TcpStream::connect(listener.local_addr()?).await?;
        let (other, _) = listener.accept().await?;
        for end in [&stream, &other] {
            end.set_nodelay(true)?;
        }
        let (arrived, arrivals) = channel(1024);
        tokio::spawn(answer_plainly(other, arrived));
        Ok(Self { stream, arrivals, buffer: vec![0; MAX_CHUNK as usize] })
    }

    async fn ask(&mut self, count: usize, under_way: usize, blobs: bool) -> Result<()> {
        let length = if blobs { MAX_CHUNK as usize } else { QUESTION };
        let (mut asked, mut answered) = (0, 0);
        while answered < count {
            while asked < count && asked - answered < under_way {
                self.stream.write_all(&question(blobs)).await?;
                asked += 1;
            }
            self.stream.read_exact(&mut self.buffer[..length]).await?;
            answered += 1;
        }
        Ok(())
    }

    async fn header(&mut self) -> Result<f64> {
        let mut bytes = vec![0; QUESTION];
        bytes[0] = NO_ANSWER;
        let began = Instant::now();
        self.stream.write_all(&bytes).await?;
        let at = self.arrivals.recv().await.context("the stream ended")?;
        Ok((at - began).as_secs_f64())
    }
}

async fn answer_plainly(mut stream: TcpStream, arrived: Sender<Instant>) {
    let blob = vec![7; MAX_CHUNK as usize];
    let mut question = vec![0; QUESTION];
    while stream.read_exact(&mut question).await.is_ok() {
        let length = match question[0] {
            FOR_A_BLOB => blob.len(),
            NO_ANSWER => {
                let _ = arrived.send(Instant::now()).await;
                continue;
            }
            _ => QUESTION,
        };
        if stream.write_all(&blob[..length]).await.is_err() {
            return;
        }
    }
}

impl fmt::Display for NetworkReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "network over loopback, medians of {} turns; questions of {} bytes, {UNDER_WAY} under way; blobs of {} \
             bytes, {BLOBS_UNDER_WAY} under way; headers of {} bytes",
            self.turns, self.question_bytes, self.blob_bytes, self.header_bytes
        )?;
        write!(f, "{:<8}{:>14}{:>14}{:>10}{:>14}", "", "questions/s", "round trip", "MB/s", "header")?;
        for line in &self.lines {
            write!(
                f,
                "\n{:<8}{:>14.0}{:>11.0} us{:>10.0}{:>11.0} us",
                line.way,
                line.questions_per_second,
                line.round_trip_us,
                line.megabytes_per_second,
                line.header_us
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way answers and delivers; how fast is nothing that a test may ask.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn all_ways_are_measured() {
        let bench = Network { turns: 1, questions: 20, blobs: 3, headers: 3, json: true };
        let progress = Progress { stop: Default::default() };
        let report = bench.measure(&progress).await.unwrap();
        assert_eq!(report.lines.iter().map(|line| line.way).collect::<Vec<_>>(), ["tcp", "quic", "plain"]);
        for line in &report.lines {
            let Line { questions_per_second, round_trip_us, megabytes_per_second, header_us, .. } = *line;
            for value in [questions_per_second, round_trip_us, megabytes_per_second, header_us] {
                assert!(value.is_finite() && value > 0.0, "{report}");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn it_stops_when_asked_to() {
        let bench = Network { turns: 1, questions: 1, blobs: 1, headers: 1, json: true };
        let progress = Progress { stop: std::sync::Arc::new(true.into()) };
        assert!(bench.measure(&progress).await.unwrap_err().to_string().contains("stopped"));
    }
}
