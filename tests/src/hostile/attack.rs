//! What is done to a node, and who stops it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use swarm_protocol::delta::Header;
use swarm_protocol::digest::Digest;
use swarm_protocol::wire::{
    Checkpoint, Gossip, MAX_BODIES, MAX_CHUNK, MAX_INLINE, Refusal, Request, Response, Role, Status, VERSION,
};

use super::voice::{Answer, Spill, Voice};
use super::wire::{Depth, silent, spoil};
use super::{Target, pause};

/// More than a peer may ask, or say, of anything.
const MANY: usize = 40_000;
/// Connections that an attacker opens at once; a node takes 48 from outside.
const CONNECTIONS: usize = 100;
/// How slow a slow stream is.
const DRIP: Duration = Duration::from_millis(500);

/// Who stops an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The core, which counts it under this name.
    Core(&'static str),
    /// A library, or what the node has set it to, before it reaches the core.
    Before(&'static str),
}

macro_rules! attacks {
    ($($(#[$doc:meta])* $name:ident: $stopped:expr,)*) => {
        /// An attack.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Attack {
            $($(#[$doc])* $name,)*
        }

        impl Attack {
            /// All of them, from the bottom up.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Who stops it.
            pub fn stopped(self) -> Stopped {
                match self {
                    $(Self::$name => $stopped,)*
                }
            }
        }
    };
}

attacks! {
    /// Bytes that are no protocol.
    Garbage: Stopped::Before("multistream-select"),
    /// A protocol name that claims to be as long as can be.
    NameBomb: Stopped::Before("multistream-select"),
    /// A handshake of noise's that is none.
    BadHandshake: Stopped::Before("noise"),
    /// Frames that no multiplexer writes, on an encrypted channel.
    BadFrames: Stopped::Before("yamux"),
    /// Half of identify's message.
    BadIdentity: Stopped::Before("identify"),
    /// A gossip frame that claims to be as long as can be.
    GossipBomb: Stopped::Before("gossipsub's frame limit"),
    /// A gossip frame that is no protobuf.
    BadProtobuf: Stopped::Before("gossipsub's decoder"),
    /// The same for the address book.
    BadKademlia: Stopped::Before("kademlia's decoder"),
    /// A question whose frame claims four gigabytes, and one that claims what is allowed and is shorter.
    FrameBomb: Stopped::Before("the limit of a request's frame"),
    /// Streams that are opened and then get a byte now and then.
    SlowStreams: Stopped::Before("the time that a request may take"),
    /// Sockets on which nothing is ever said.
    SilentSockets: Stopped::Before("the limit of connections being set up"),
    /// Many identities that connect and stay, so that there is no place for others.
    Eclipse: Stopped::Before("the limit of connections from outside"),
    /// A status that boasts of rounds that nobody is at.
    Boast: Stopped::Before("nobody: it is not believed, for most neighbours say something else"),
    /// Questions that are none.
    MalformedRequest: Stopped::Core("malformed request"),
    /// A question that claims 2^60 hashes.
    RequestBomb: Stopped::Core("malformed request"),
    /// A question for more bodies than may be asked for.
    TooManyBodies: Stopped::Core("question for too many bodies"),
    /// Answers that are none: one claims 2^60 headers.
    ResponseBomb: Stopped::Core("malformed response"),
    /// Gossip that is none.
    MalformedGossip: Stopped::Core("malformed gossip message"),
    /// A status that cannot be.
    ImpossibleStatus: Stopped::Core("impossible status"),
    /// The node's own checkpoint with another state.
    FakeCheckpoint: Stopped::Core("another state for the same history"),
    /// A delta of another genesis.
    ForeignDelta: Stopped::Core("delta of another swarm"),
    /// A delta of another version of the rules.
    UnknownVersion: Stopped::Core("delta of an unknown version"),
    /// A header that claims a body of four gigabytes.
    LengthBomb: Stopped::Core("delta of an impossible length"),
    /// A delta whose signature is another's.
    WrongSignature: Stopped::Core("delta with a wrong signature"),
    /// A delta with another body than it names.
    WrongBody: Stopped::Core("delta whose body does not match its header"),
    /// A body with more behind it than it says.
    PackingBomb: Stopped::Core("delta whose body is too long"),
    /// A body that moves the model further than the genesis allows.
    OverTheCap: Stopped::Core("delta over the scale cap"),
    /// A delta for a round that nobody is at.
    FarFuture: Stopped::Core("delta of a far future round"),
    /// A delta for a round that is over.
    Settled: Stopped::Core("delta of a settled round"),
    /// One author that publishes two deltas for a round.
    Equivocation: Stopped::Core("two deltas of one author for one round"),
    /// A proof that an honest author did, which did not.
    FalseProof: Stopped::Core("false proof of equivocation"),
    /// A delta is announced, and its body not handed out.
    Withhold: Stopped::Core("announced body that did not come"),
    /// A delta is announced, and other bytes handed out.
    WrongBytes: Stopped::Core("wrong bytes for a blob"),
    /// Many identities that each publish what is in order: a round has so many places.
    Sybils: Stopped::Core("delta of a round that is full"),
    /// Gossip without end.
    GossipFlood: Stopped::Core("too much gossip"),
    /// Statuses without end.
    StatusFlood: Stopped::Core("too many statuses"),
    /// Questions about rounds without end.
    RoundFlood: Stopped::Core("too many questions about rounds"),
    /// Questions for bodies that nobody has without end.
    BodyFlood: Stopped::Core("too many bodies and chunks asked for"),
}

impl Attack {
    pub(super) async fn run(self, target: &Target) -> Result<()> {
        let forger = &target.forger;
        match self {
            Self::Garbage => {
                let garbage: Vec<u8> =
                    (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
                spoil(&target.address, Depth::Nothing, &garbage).await
            }
            Self::NameBomb => {
                for depth in [Depth::Nothing, Depth::Greeted] {
                    spoil(
                        &target.address,
                        depth,
                        &[&[0xff, 0xff, 0xff, 0xff, 0x7f][..], &[0; 50_000]].concat(),
                    )
                    .await?;
                }
                Ok(())
            }
            Self::BadHandshake => {
                spoil(&target.address, Depth::Noise, &[&[0xff, 0xff][..], &[7; 70_000]].concat()).await
            }
            Self::BadFrames => spoil(&target.address, Depth::Yamux, &[0xff; 4096]).await,
            Self::BadIdentity => spill(target, "/ipfs/id/push/1.0.0", &[0x20, 0x0a, 0xff]).await,
            Self::GossipBomb => spill(target, "/meshsub/1.1.0", &[0xff, 0xff, 0xff, 0xff, 0x7f]).await,
            Self::BadProtobuf => spill(target, "/meshsub/1.1.0", &[4, 0xff, 0xff, 0xff, 0xff]).await,
            Self::BadKademlia => {
                spill(target, &format!("/swarm/1/{}/kad", forger.swarm), &[4, 0xff, 0xff, 0xff, 0xff]).await
            }
            Self::FrameBomb => {
                let name = format!("/swarm/1/{}/request", forger.swarm);
                spill(target, &name, &u32::MAX.to_le_bytes()).await?;
                spill(target, &name, &60_000u32.to_le_bytes()).await
            }
            Self::SlowStreams => slow_streams(target).await,
            Self::SilentSockets => silent_sockets(target).await,
            Self::Eclipse => eclipse(target).await,
            Self::Boast => {
                let voice = Voice::new(target).await?;
                let status = voice.status().await?;
                let round = status.round + (1 << 40);
                let boast =
                    Status { round, settled: round - 10, your_next_round: round, checkpoint: None, ..status };
                voice.ask(&Request::Status(boast)).await;
                let after = voice.status().await?;
                ensure!(after.round < round, "it went after one who boasts");
                Ok(())
            }

            Self::MalformedRequest => {
                let voice = Voice::new(target).await?;
                for bytes in [&[][..], &[VERSION], &[VERSION, 99], &[9, 17, 0], &[VERSION, 17, 1]] {
                    voice.ask_bytes(bytes.to_vec()).await;
                }
                Ok(())
            }
            Self::RequestBomb => {
                let voice = Voice::new(target).await?;
                let mut bomb = vec![VERSION, 20];
                bomb.extend((1u64 << 60).to_le_bytes());
                voice.ask_bytes(bomb).await;
                Ok(())
            }
            Self::TooManyBodies => {
                let voice = Voice::new(target).await?;
                voice.ask(&Request::Bodies(vec![Digest::default(); MAX_BODIES + 1])).await;
                Ok(())
            }
            Self::ResponseBomb => {
                let lie: Answer = Arc::new(|question| match question {
                    Request::Round(_) | Request::Status(_) => {
                        let mut bomb = vec![VERSION, 33];
                        bomb.extend((1u64 << 60).to_le_bytes());
                        Some(bomb)
                    }
                    _ => Some(vec![0xff; 100_000]),
                });
                let _voice = Voice::with(target, lie, "/spill").await?;
                // It asks once a second.
                pause(2500).await;
                Ok(())
            }
            Self::ImpossibleStatus => {
                let voice = Voice::new(target).await?;
                let status = voice.status().await?;
                voice.ask(&Request::Status(Status { settled: status.round + 1, ..status })).await;
                Ok(())
            }
            Self::FakeCheckpoint => {
                let voice = Voice::new(target).await?;
                let status = voice.status().await?;
                let checkpoint = status.checkpoint.context("the node has no checkpoint yet")?;
                let fake = Checkpoint { manifest: Digest([7; 32]), ..checkpoint };
                voice
                    .ask(&Request::Status(Status { checkpoint: Some(fake), role: Role::Replica, ..status }))
                    .await;
                Ok(())
            }

            Self::MalformedGossip => {
                say(target, |_| Ok(vec![vec![VERSION, 1, 3, 3, 3]])).await?;
                say(target, |_| Ok(vec![vec![VERSION, 77]])).await
            }
            Self::ForeignDelta => forged(target, 0, |header| header.swarm = Digest([1; 32])).await,
            Self::UnknownVersion => forged(target, 0, |header| header.version = 9).await,
            Self::LengthBomb => forged(target, 0, |header| header.body_length = u32::MAX).await,
            Self::WrongBody => forged(target, 0, |header| header.body_hash = Digest([2; 32])).await,
            Self::FarFuture => forged(target, 1 << 40, |_| {}).await,
            Self::WrongSignature => {
                say(target, |round| {
                    let body = forger.body(1)?;
                    let (one, other) = (forger.identity(), forger.identity());
                    let mut signed = forger.header(&one, round, &body, |_| {});
                    signed.signature = signed.header.sign(&other).signature;
                    Ok(vec![Gossip::Delta(Box::new(signed), Some(body)).encode()])
                })
                .await
            }
            Self::PackingBomb => {
                say(target, |round| {
                    let mut body = forger.body(1)?;
                    body.extend((0..200u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8));
                    Ok(vec![forger.delta(round, &body, |_| {})])
                })
                .await
            }
            Self::OverTheCap => {
                say(target, |round| Ok(vec![forger.delta(round, &forger.body_over_the_cap()?, |_| {})])).await
            }
            Self::Settled => say(target, |_| Ok(vec![forger.delta(0, &forger.body(1)?, |_| {})])).await,
            Self::Equivocation => {
                say(target, |round| {
                    let (author, one, other) = (forger.identity(), forger.body(1)?, forger.body(2)?);
                    let twin = |body: Vec<u8>| {
                        let signed = forger.header(&author, round, &body, |_| {});
                        Gossip::Delta(Box::new(signed), Some(body)).encode()
                    };
                    Ok(vec![twin(one), twin(other)])
                })
                .await
            }
            Self::FalseProof => {
                say(target, |round| {
                    let (author, body) = (forger.identity(), forger.body(1)?);
                    let signed = forger.header(&author, round, &body, |_| {});
                    let mut forged = signed;
                    forged.header.tokens += 1;
                    Ok(vec![Gossip::Equivocation(Box::new((signed, forged))).encode()])
                })
                .await
            }
            Self::Withhold => announce(target, None).await,
            Self::WrongBytes => announce(target, Some(vec![9; 20])).await,
            Self::Sybils => {
                say(target, |round| {
                    let body = forger.body(1)?;
                    Ok((0..64).map(|_| forger.delta(round, &body, |_| {})).collect())
                })
                .await
            }

            Self::GossipFlood => gossip_flood(target).await,
            Self::StatusFlood => {
                let voice = Voice::new(target).await?;
                let status = Status { role: Role::Joining, ..voice.status().await? };
                flood(&voice, &Request::Status(status)).await
            }
            Self::RoundFlood => {
                let voice = Voice::new(target).await?;
                flood(&voice, &Request::Round(1 << 40)).await
            }
            Self::BodyFlood => {
                let voice = Voice::new(target).await?;
                let bodies = vec![Digest::default(); MAX_BODIES];
                let blob = Request::Blob { hash: Digest::default(), offset: 1 << 60, length: MAX_CHUNK };
                voice.ask(&blob).await;
                flood(&voice, &Request::Bodies(bodies)).await
            }
        }
    }
}

/// Asks the same until it is refused or cut off.
async fn flood(voice: &Voice, question: &Request) -> Result<()> {
    let mut asked = 0;
    while asked < MANY {
        let answers = join_all((0..32).map(|_| voice.ask(question))).await;
        let answered = |answer: &Option<Response>| {
            answer.as_ref().is_some_and(|answer| *answer != Response::Refused(Refusal::TooMuch))
        };
        if !answers.iter().any(answered) {
            return Ok(());
        }
        asked += answers.len();
    }
    anyhow::bail!("it answers whatever it is asked, {asked} times")
}

/// Gossips what `make` makes for the round that the node is at.
async fn say(target: &Target, make: impl FnOnce(u64) -> Result<Vec<Vec<u8>>>) -> Result<()> {
    let voice = Voice::new(target).await?;
    let round = voice.status().await?.round;
    for message in make(round)? {
        voice.gossip(message).await.context("it could not be said")?;
    }
    // What was said has arrived when a question after it is answered, or the connection is closed.
    voice.ask(&Request::History).await;
    pause(50).await;
    Ok(())
}

/// Gossips a delta that is in order but for `change`, so many rounds ahead.
async fn forged(target: &Target, ahead: u64, change: impl FnOnce(&mut Header)) -> Result<()> {
    let forger = &target.forger;
    say(target, |round| Ok(vec![forger.delta(round + ahead, &forger.body(1)?, change)])).await
}

/// Announces a delta and answers the question for its body with `bytes`, or that it has none.
async fn announce(target: &Target, bytes: Option<Vec<u8>>) -> Result<()> {
    let answer: Answer = Arc::new(move |question| match (question, &bytes) {
        (Request::Bodies(hashes), Some(bytes)) => {
            Some(Response::Bodies(vec![bytes.clone(); hashes.len()]).encode())
        }
        _ => Some(Response::Refused(Refusal::NotHeld).encode()),
    });
    let voice = Voice::with(target, answer, "/spill").await?;
    let round = voice.status().await?.round;
    let author = target.forger.identity();
    let signed = target.forger.header(&author, round, &[5; 20], |_| {});
    voice.gossip(Gossip::Delta(Box::new(signed), None).encode()).await.context("it could not be said")?;
    pause(300).await;
    Ok(())
}

/// Writes `bytes` into a stream of this protocol, once for each of a few streams.
async fn spill(target: &Target, protocol: &str, bytes: &[u8]) -> Result<()> {
    let voice = Voice::with(target, Arc::new(|_| None), protocol).await?;
    for _ in 0..8 {
        voice.spill(Spill { bytes: bytes.to_vec(), drip: None }).await;
    }
    pause(200).await;
    Ok(())
}

async fn slow_streams(target: &Target) -> Result<()> {
    let name = format!("/swarm/1/{}/request", target.forger.swarm);
    let voice = Voice::with(target, Arc::new(|_| None), &name).await?;
    for _ in 0..MANY / 100 {
        // A question of a length that is allowed, and a byte of it now and then.
        voice.spill(Spill { bytes: 60_000u32.to_le_bytes().to_vec(), drip: Some(DRIP) }).await;
    }
    // Meanwhile others are answered.
    let other = Voice::new(target).await?;
    for _ in 0..4 {
        other.status().await?;
        pause(300).await;
    }
    Ok(())
}

async fn silent_sockets(target: &Target) -> Result<()> {
    let mut sockets = Vec::new();
    for _ in 0..CONNECTIONS {
        sockets.push(silent(&target.address).await?);
    }
    pause(300).await;
    Ok(())
}

async fn eclipse(target: &Target) -> Result<()> {
    // Those that find no place fail, which is the point.
    let voices = join_all((0..CONNECTIONS).map(|_| Voice::new(target))).await;
    let inside = voices.iter().flatten().count();
    ensure!(inside > 0 && inside < CONNECTIONS, "{inside} of {CONNECTIONS} connections are let in");
    for voice in voices.iter().flatten().take(4) {
        voice.ask(&Request::History).await;
    }
    Ok(())
}

async fn gossip_flood(target: &Target) -> Result<()> {
    let voice = Voice::new(target).await?;
    let round = voice.status().await?.round + (1 << 40);
    let body = vec![3; MAX_INLINE / 64];
    let author = target.forger.identity();
    for n in 0..20 {
        for m in 0..50 {
            let signed = target.forger.header(&author, round + 50 * n + m, &body, |_| {});
            if voice.gossip(Gossip::Delta(Box::new(signed), Some(body.clone())).encode()).await.is_err() {
                return Ok(());
            }
        }
        // What it cannot read in time it drops unseen.
        pause(20).await;
    }
    Ok(())
}
