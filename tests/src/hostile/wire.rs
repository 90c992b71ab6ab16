//! Sockets without libp2p's swarm: garbage in the middle of what is agreed on before any protocol speaks.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::core::transport::{DialOpts, PortUse};
use libp2p::core::upgrade::OutboundConnectionUpgrade;
use libp2p::core::{Endpoint, Transport};
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, identity, noise, tcp};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How far a connection is set up before it is spoilt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Depth {
    /// Not at all: the first bytes are garbage.
    Nothing,
    /// multistream-select has greeted.
    Greeted,
    /// The noise protocol has been agreed on.
    Noise,
    /// The channel is encrypted, and yamux has been agreed on.
    Yamux,
}

/// Where the socket of this address is.
pub(super) fn socket(address: &Multiaddr) -> Result<SocketAddr> {
    let (mut ip, mut port) = (None, None);
    for part in address {
        match part {
            Protocol::Ip4(at) => ip = Some(at.into()),
            Protocol::Ip6(at) => ip = Some(at.into()),
            Protocol::Tcp(at) => port = Some(at),
            _ => {}
        }
    }
    Ok(SocketAddr::new(ip.context("no IP address")?, port.context("no TCP port")?))
}

/// A socket on which nothing has been said.
pub(super) async fn silent(address: &Multiaddr) -> Result<TcpStream> {
    Ok(TcpStream::connect(socket(address)?).await?)
}

/// Connects, goes as far as `depth`, writes `garbage`, and waits for the node to hang up.
pub(super) async fn spoil(address: &Multiaddr, depth: Depth, garbage: &[u8]) -> Result<()> {
    if let Depth::Nothing = depth {
        let mut socket = silent(address).await?;
        socket.write_all(garbage).await?;
        let mut rest = Vec::new();
        // A reset is how it ends as well.
        let _ = socket.read_to_end(&mut rest).await;
        return Ok(());
    }
    let mut transport = tcp::tokio::Transport::new(tcp::Config::default());
    let options = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
    let bare: Multiaddr = address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect();
    let mut socket = transport.dial(bare, options)?.await?;
    say(&mut socket, "/multistream/1.0.0").await?;
    if let Depth::Greeted = depth {
        return hang_up(socket, garbage).await;
    }
    say(&mut socket, "/noise").await?;
    if let Depth::Noise = depth {
        return hang_up(socket, garbage).await;
    }
    let upgrade = noise::Config::new(&identity::Keypair::generate_ed25519())?;
    let (_, mut channel) = upgrade.upgrade_outbound(socket, "/noise").await?;
    say(&mut channel, "/multistream/1.0.0").await?;
    say(&mut channel, "/yamux/1.0.0").await?;
    hang_up(channel, garbage).await
}

/// Proposes a protocol and reads that it is accepted: its length, one byte here, its name and a newline.
async fn say<T: AsyncRead + AsyncWrite + Unpin>(io: &mut T, name: &str) -> Result<()> {
    let mut line = vec![u8::try_from(name.len() + 1)?];
    line.extend(name.bytes());
    line.push(b'\n');
    io.write_all(&line).await?;
    io.flush().await?;
    let mut answer = vec![0; line.len()];
    io.read_exact(&mut answer).await?;
    ensure!(answer == line, "{name} is answered with {answer:?}");
    Ok(())
}

async fn hang_up<T: AsyncRead + AsyncWrite + Unpin>(mut io: T, garbage: &[u8]) -> Result<()> {
    // It may have been cut off before all is written.
    let _ = io.write_all(garbage).await;
    let _ = io.flush().await;
    let mut rest = [0; 1024];
    while matches!(io.read(&mut rest).await, Ok(1..)) {}
    Ok(())
}
