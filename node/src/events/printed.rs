//! Events for a program that reads this one's output.
//!
//! A node must never wait for who watches it, and a pipe that nobody reads from is full after some lines: so a thread of
//! its own writes them, and what it cannot take any more is left out, and said so.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Lines that wait: hours of rounds.
const WAITING: usize = 4096;
/// How long the end waits for the last lines to be read.
const FAREWELL: Duration = Duration::from_secs(2);

/// Where lines are printed.
pub(crate) struct Printed {
    /// `None` once nobody reads any more.
    lines: Option<SyncSender<String>>,
    /// Hangs up when all has been printed.
    done: Receiver<()>,
    left_out: u64,
}

impl Printed {
    /// Prints to `out`.
    ///
    /// # Errors
    /// No thread can be had.
    pub(crate) fn to(out: impl Write + Send + 'static) -> std::io::Result<Self> {
        Self::with(out, WAITING)
    }

    fn with(mut out: impl Write + Send + 'static, waiting: usize) -> std::io::Result<Self> {
        let (lines, given) = sync_channel::<String>(waiting);
        let (working, done) = sync_channel(0);
        let print = move || {
            let _working: SyncSender<()> = working;
            for line in given {
                if let Err(error) = out.write_all(line.as_bytes()).and_then(|()| out.flush()) {
                    tracing::warn!("events are not printed any more: {error}");
                    return;
                }
            }
        };
        std::thread::Builder::new().name("events".into()).spawn(print)?;
        Ok(Self { lines: Some(lines), done, left_out: 0 })
    }

    /// Prints a line, its end included.
    pub(super) fn line(&mut self, line: &str) {
        let Some(lines) = &self.lines else { return };
        match lines.try_send(line.to_owned()) {
            Ok(()) => {
                if self.left_out > 0 {
                    tracing::warn!("{} events were not printed; events.jsonl has them", self.left_out);
                    self.left_out = 0;
                }
            }
            Err(TrySendError::Full(_)) => {
                if self.left_out == 0 {
                    tracing::warn!("nobody reads what is printed: further events are only in events.jsonl");
                }
                self.left_out += 1;
            }
            Err(TrySendError::Disconnected(_)) => self.lines = None,
        }
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        self.lines = None;
        // An answer means that all is printed, or cannot be; none that nobody reads it.
        let _ = self.done.recv_timeout(FAREWELL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    /// Takes a line only when it is told to.
    struct Slow(Receiver<()>, Sender<String>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.recv().map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            let _ = self.1.send(String::from_utf8_lossy(bytes).into_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_does_not_read_costs_lines_and_no_time() {
        let (go, told) = std::sync::mpsc::channel();
        let (sender, printed) = std::sync::mpsc::channel();
        let mut lines = Printed::with(Slow(told, sender), 2).unwrap();
        lines.line("first\n");
        // With the writer at work and two lines waiting there is no room.
        for _ in 0..10 {
            lines.line("more\n");
        }
        assert!((8..=9).contains(&lines.left_out), "{}", lines.left_out);
        for _ in 0..5 {
            go.send(()).unwrap();
        }
        assert_eq!(printed.recv().unwrap(), "first\n");
        assert_eq!(printed.recv().unwrap(), "more\n");
        drop(go);
        drop(lines);
        assert!(printed.iter().all(|line| line == "more\n"));
    }

    #[test]
    fn the_end_waits_for_the_last_line_and_nobody_for_a_reader_that_is_gone() {
        let (go, told) = std::sync::mpsc::channel();
        let (sender, printed) = std::sync::mpsc::channel();
        let mut lines = Printed::to(Slow(told, sender)).unwrap();
        lines.line("last\n");
        go.send(()).unwrap();
        drop(lines);
        assert_eq!(printed.try_recv().unwrap(), "last\n");
        let (go, told) = std::sync::mpsc::channel();
        let (sender, _) = std::sync::mpsc::channel();
        let mut lines = Printed::to(Slow(told, sender)).unwrap();
        drop(go);
        lines.line("lost\n");
        lines.line("lost\n");
        drop(lines);
    }
}
