//! Being asked to stop.

/// Ctrl-C or a request to terminate, from the moment of the call on: also if it comes before anybody waits. Must be
/// called inside a tokio runtime. Where the system does not let a program hear of one, that one ends it as usual.
pub(crate) fn asked_to_stop() -> impl Future<Output = ()> + Send + 'static {
    #[cfg(unix)]
    let listened = {
        use tokio::signal::unix::{SignalKind, signal};
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    };
    #[cfg(windows)]
    let listened = (tokio::signal::windows::ctrl_c(), tokio::signal::windows::ctrl_shutdown());
    async move {
        let (interrupt, terminate) = listened;
        tokio::select! {
            Some(()) = async { interrupt.ok()?.recv().await } => {}
            Some(()) = async { terminate.ok()?.recv().await } => {}
            else => std::future::pending().await,
        }
    }
}
