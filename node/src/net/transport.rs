//! TCP and QUIC, with every byte counted, and held back where there is a limit (`meter`).
//!
//! ```text
//! TCP   socket ─ counted ─ (pre-shared key, if there is one) ─ noise ─ yamux ─ streams
//! QUIC  socket ─ quinn (TLS 1.3) ─ counted streams, without a pre-shared key only
//! relay a stream of one of these ─ noise ─ yamux ─ streams
//! ```
//!
//! What goes through a relay is counted as part of the stream to the relay, and not a second time. A relayed
//! address is resolved and timed out as a whole, like any other.
//!
//! libp2p's own counter (`libp2p-metrics`) sits above yamux, so it misses encryption and multiplexing, and it
//! keeps one counter for every distinct protocol stack it was ever asked to dial, which remote peers can
//! choose. Here are two counters, below everything on TCP; on QUIC the socket belongs to quinn, so there the
//! streams are what can be counted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::{AsyncRead, AsyncWrite, future::Either};
use libp2p::{
    PeerId, Transport,
    core::{
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
        transport::{Boxed, OptionalTransport, timeout::TransportTimeout},
        upgrade,
    },
    dns, identity, noise,
    pnet::PnetConfig,
    quic, relay, tcp, yamux,
};

use super::{
    Counters, NetworkKey,
    meter::{Meter, Turn},
};

/// How long a connection may take from the first packet to the end of the handshakes. Less than the 10 s that
/// AutoNAT gives a test: whoever asked for it would otherwise not learn that it failed.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

type Base = Boxed<(PeerId, StreamMuxerBox)>;

/// TCP (noise, yamux), QUIC, and relayed connections over these, with names resolved as the system does. The
/// behaviour is the relayed part's other half.
pub(super) fn build(
    keypair: &identity::Keypair,
    counters: &Arc<Counters>,
    key: Option<NetworkKey>,
) -> anyhow::Result<(Base, relay::client::Behaviour)> {
    let base = || -> anyhow::Result<(Base, relay::client::Behaviour)> {
        let noise = noise::Config::new(keypair).context("cannot set up encryption")?;
        let tcp_counters = counters.clone();
        let quic_counters = counters.clone();
        let tcp = tcp::tokio::Transport::new(tcp::Config::default())
            .map(move |stream, _| Counted::new(stream, tcp_counters.clone()))
            .and_then(move |stream, _| async move {
                match key {
                    Some(NetworkKey(key)) => PnetConfig::new(key).handshake(stream).await.map(Either::Left),
                    None => Ok(Either::Right(stream)),
                }
            })
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(noise)
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        let quic = quic::tokio::Transport::new(quic::Config::new(keypair)).map(move |(peer, muxer), _| {
            (peer, StreamMuxerBox::new(Counted::new(muxer, quic_counters.clone())))
        });
        let (relayed, behaviour) = relay::client::new(keypair.public().to_peer_id());
        let relayed = relayed
            .upgrade(upgrade::Version::V1Lazy)
            .authenticate(noise::Config::new(keypair).context("cannot set up encryption")?)
            .multiplex(yamux::Config::default())
            .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
        let quic = if key.is_none() { OptionalTransport::some(quic) } else { OptionalTransport::none() };
        let direct = tcp.or_transport(quic).map(|either, _| either.into_inner());
        // The relay's part comes first: the others would not see that an address goes on after their own.
        let all = relayed.or_transport(direct).map(|either, _| either.into_inner());
        Ok((TransportTimeout::new(all, HANDSHAKE_TIMEOUT).boxed(), behaviour))
    };
    let (transport, behaviour) = base()?;
    Ok(match dns::tokio::Transport::system(transport) {
        Ok(resolving) => (resolving.boxed(), behaviour),
        Err(error) => {
            // An isolated machine has no resolver, and needs none on its own network.
            tracing::warn!(%error, "cannot read the system's DNS settings: addresses with names will not work");
            base()?
        }
    })
}

/// A stream, or a multiplexer of streams, whose bytes are counted, and held back where there is a limit.
struct Counted<T> {
    inner: T,
    counters: Arc<Counters>,
    reading: Turn,
    writing: Turn,
}

impl<T> Counted<T> {
    fn new(inner: T, counters: Arc<Counters>) -> Self {
        Self { inner, counters, reading: Turn::default(), writing: Turn::default() }
    }
}

/// As much of a buffer as may be used now.
fn cut<'a>(meter: &Meter, buffer: &'a [u8]) -> &'a [u8] {
    buffer.get(..meter.piece().unwrap_or(usize::MAX)).unwrap_or(buffer)
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let meter = &this.counters.received;
        ready!(this.reading.poll(meter, cx));
        let length = buffer.len().min(meter.piece().unwrap_or(usize::MAX));
        let count = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer[..length]))?;
        meter.count(count, Instant::now());
        Poll::Ready(Ok(count))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let meter = &this.counters.sent;
        ready!(this.writing.poll(meter, cx));
        let count = ready!(Pin::new(&mut this.inner).poll_write(cx, cut(meter, bytes)))?;
        meter.count(count, Instant::now());
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.counters.sent.piece().is_some() {
            let first = buffers.iter().find(|buffer| !buffer.is_empty());
            return self.poll_write(cx, first.map_or(&[], |buffer| &buffer[..]));
        }
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, buffers))?;
        this.counters.sent.count(count, Instant::now());
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}

impl<M> StreamMuxer for Counted<M>
where
    M: StreamMuxer + Unpin,
    M::Substream: Unpin,
{
    type Substream = Counted<M::Substream>;
    type Error = M::Error;

    fn poll_inbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_inbound(cx))?;
        Poll::Ready(Ok(Counted::new(inner, self.counters.clone())))
    }

    fn poll_outbound(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Self::Substream, M::Error>> {
        let inner = ready!(Pin::new(&mut self.inner).poll_outbound(cx))?;
        Poll::Ready(Ok(Counted::new(inner, self.counters.clone())))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), M::Error>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, M::Error>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}
