//! Answering beside something else: on a thread and a runtime of its own, so that what listens here can neither delay
//! nor be delayed by a node's own loop.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::listener::serve;

/// What is under way when it ends gets this long.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that answers until this is dropped.
#[derive(Debug)]
pub(crate) struct Background {
    /// Where.
    pub(crate) address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Listens where `bind` does, and answers with the router that `make` gives. What `make` is handed changes when it
    /// ends: long answers have to end by it.
    ///
    /// # Errors
    /// What `bind` says; no thread to be had.
    pub(crate) fn start(
        name: &str,
        bind: impl Future<Output = Result<TcpListener>>,
        make: impl FnOnce(watch::Receiver<bool>) -> Router,
    ) -> Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
        let listener = runtime.block_on(bind)?;
        let address = listener.local_addr().context("the listener has no address")?;
        let (stop, stopping) = watch::channel(false);
        let router = make(stopping.clone());
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&runtime, listener, router, stopping))
            .with_context(|| format!("no thread for the {name}"))?;
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

fn run(runtime: &Runtime, listener: TcpListener, router: Router, mut stopping: watch::Receiver<bool>) {
    runtime.block_on(async {
        let stop = async {
            // Its sender being gone means the same.
            let _ = stopping.wait_for(|stop| *stop).await;
        };
        serve(listener, router, stop, tokio::time::sleep(PATIENCE)).await;
    });
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that answers at {} has failed", self.address);
        }
    }
}
