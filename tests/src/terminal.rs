//! A program on a terminal of its own.
//!
//! The kernel makes the terminal, so sizes, raw mode and signals are real; what the program writes is obeyed by a
//! terminal without a window, whose screen can be asked what it shows.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};
use rustix::termios::{Termios, tcgetattr};
use vt100::Parser;

use crate::GUARD;

/// Time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// A program on a terminal. Dropping it kills the program.
pub struct Terminal {
    pty: Pty,
    /// The program's side, so that the terminal stays when the program goes.
    theirs: OwnedFd,
    before: Termios,
    child: Child,
    parser: Arc<Mutex<Parser>>,
}

impl Terminal {
    /// Starts `program` with `arguments` on a terminal that knows colours and UTF-8, unless `environment` says
    /// otherwise.
    ///
    /// # Errors
    /// The system has no terminals, or the program cannot be started.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        width: u16,
        height: u16,
    ) -> Result<Self> {
        let (pty, theirs) = open().context("no terminal")?;
        pty.resize(Size::new(height, width)).context("a terminal without a size")?;
        let kept = theirs.as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&kept)?;
        let child = Command::new(program)
            .args(arguments)
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8")
            .envs(environment.iter().copied())
            .spawn(theirs)
            .with_context(|| format!("cannot start {}", program.display()))?;
        let parser = Arc::new(Mutex::new(Parser::new(cells(height)?, cells(width)?, 0)));
        let mut output = File::from(pty.as_fd().try_clone_to_owned()?);
        let screen = parser.clone();
        // It ends with this process, at the latest.
        let obey = move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                let mut parser = screen.lock().unwrap_or_else(PoisonError::into_inner);
                parser.process(buffer.get(..read).unwrap_or_default());
            }
        };
        std::thread::Builder::new().name("terminal".into()).spawn(obey)?;
        Ok(Self { pty, theirs: kept, before, child, parser })
    }

    fn screen<T>(&self, look: impl FnOnce(&vt100::Screen) -> T) -> T {
        look(self.parser.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen(vt100::Screen::contents)
    }

    /// Cells that are not in the terminal's own colours.
    pub fn coloured(&self) -> usize {
        self.screen(|screen| {
            let (rows, columns) = screen.size();
            let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
            let plain = vt100::Color::Default;
            cells
                .filter_map(|(row, column)| screen.cell(row, column))
                .filter(|cell| cell.fgcolor() != plain || cell.bgcolor() != plain)
                .count()
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Presses keys.
    ///
    /// # Errors
    /// The terminal takes none.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.pty.write_all(keys.as_bytes()).context("no keys can be pressed")
    }

    /// Gives the terminal another size.
    ///
    /// # Errors
    /// It keeps the one that it has.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        self.parser
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .screen_mut()
            .set_size(cells(height)?, cells(width)?);
        self.pty.resize(Size::new(height, width)).context("the terminal keeps its size")
    }

    /// Waits until the screen is as `condition` wants it. `what` says it in words.
    ///
    /// # Errors
    /// The program ended, or it takes longer than [`GUARD`]; the text has what is on the screen.
    pub fn wait_for(&mut self, what: &str, condition: impl Fn(&str) -> bool) -> Result<()> {
        let began = Instant::now();
        loop {
            let ended = self.child.try_wait()?;
            let text = self.text();
            if condition(&text) {
                return Ok(());
            }
            if let Some(ended) = ended {
                bail!("ended ({ended}) before {what}; the screen:\n{text}");
            }
            ensure!(began.elapsed() < GUARD, "no {what} on the screen:\n{text}");
            std::thread::sleep(POLL);
        }
    }

    /// Waits until `text` is on the screen.
    ///
    /// # Errors
    /// As [`Self::wait_for`].
    pub fn shows(&mut self, text: &str) -> Result<()> {
        self.wait_for(&format!("'{text}'"), |shown| shown.contains(text))
    }

    /// Waits for the program's end, after which the terminal must be as it was.
    ///
    /// # Errors
    /// It does not end within [`GUARD`], or leaves the terminal otherwise.
    pub fn leaves(&mut self) -> Result<ExitStatus> {
        let began = Instant::now();
        let ended = loop {
            match self.child.try_wait()? {
                Some(ended) => break ended,
                None => ensure!(began.elapsed() < GUARD, "it does not end; the screen:\n{}", self.text()),
            }
            std::thread::sleep(POLL);
        };
        let after = tcgetattr(&self.theirs)?;
        let modes = |of: &Termios| (of.local_modes, of.input_modes, of.output_modes, of.control_modes);
        ensure!(modes(&after) == modes(&self.before), "it left the terminal in another mode");
        // What it wrote last may still be on its way to the screen.
        let put_back = |screen: &vt100::Screen| !screen.alternate_screen() && !screen.hide_cursor();
        while !self.screen(put_back) {
            ensure!(began.elapsed() < GUARD, "it left another screen, or no cursor:\n{}", self.text());
            std::thread::sleep(POLL);
        }
        Ok(ended)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn cells(number: u16) -> Result<NonZeroU16> {
    NonZeroU16::new(number).context("a terminal without cells")
}
