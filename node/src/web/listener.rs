//! A listener on loopback, and connections that cannot take more than their share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::patient::Patient;

/// Connections at a time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// A request's line and headers must come within this time; a connection without a request is closed after it.
const HEADER_TIME: Duration = Duration::from_secs(20);
/// Most bytes of a request's line and headers.
const MAX_HEAD: usize = 64 << 10;
/// Pause after a connection that could not be accepted (no more file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What flags are called, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// The one that takes an address.
    pub(crate) listen: &'static str,
    /// The one that lets others in.
    pub(crate) beyond: &'static str,
}

/// Listens at `address`, which must be of loopback unless `beyond` it is meant.
///
/// # Errors
/// An address that others reach though that is not meant; one that cannot be listened at.
pub(crate) async fn bind(address: SocketAddr, beyond: bool, flags: Flags) -> Result<TcpListener> {
    permitted(address, beyond, flags)?;
    let Flags { listen, .. } = flags;
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen at {address}: is the port taken? Another one is chosen with {listen}, any free one with :0")
    })
}

/// Checks that `address` is of loopback, unless `beyond` it is meant.
///
/// # Errors
/// It is not.
pub(crate) fn permitted(address: SocketAddr, beyond: bool, flags: Flags) -> Result<()> {
    let Flags { listen, beyond: flag } = flags;
    ensure!(
        address.ip().is_loopback() || beyond,
        "{listen} {address} can be reached by others, without encryption: listen at 127.0.0.1, or add {flag} if that \
         is what you want"
    );
    Ok(())
}

/// Answers what comes in through `listener`, until `stop`; what has begun by then is finished, for at most `patience`.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    patience: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            both = accepted => both,
            () = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("a connection cannot be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // What is written goes out at once: it comes in small pieces. Without it, it only takes longer.
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(Patient::new(stream)), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection ended: {error}");
            }
            drop(place);
        });
    }
    drop(listener);
    // So that nothing but requests under way holds on to what answers them.
    drop(router);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = patience => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: Flags = Flags { listen: "--listen", beyond: "--beyond" };

    #[tokio::test]
    async fn beyond_loopback_only_with_the_flag() {
        let error = bind(([0, 0, 0, 0], 0).into(), false, FLAGS).await.unwrap_err().to_string();
        assert!(
            error.contains("0.0.0.0:0 can be reached by others") && error.contains("--beyond"),
            "{error}"
        );
        let held = bind(([127, 0, 0, 1], 0).into(), false, FLAGS).await.unwrap();
        let error = bind(held.local_addr().unwrap(), false, FLAGS).await.unwrap_err();
        assert!(format!("{error:#}").contains("is the port taken?"), "{error:#}");
        assert!(bind(([0, 0, 0, 0], 0).into(), true, FLAGS).await.is_ok());
    }
}
