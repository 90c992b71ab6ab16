//! The terminal: drawn on twice a second or when a key is pressed, and left as it was.
//!
//! Keys are read by a thread of their own, because reading one from a terminal that has gone away need not return; and
//! another waits for signals. Both only send words to the loop.

use std::io::{self, IsTerminal, Stdout, stdin, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute};

use super::draw::{Chosen, Focus, draw};
use super::folder::Folder;
use super::look::{Look, can_draw};
use super::view::{Running, View};
use crate::governor::{Asked, Control};
use crate::node::unix_time;

/// Time between two looks at the folder.
const LOOK: Duration = Duration::from_millis(500);
/// How long a message is shown.
const MESSAGE: Duration = Duration::from_secs(4);
/// Rows that a page key scrolls.
const PAGE: usize = 10;
/// Keys that wait; who presses more waits, too.
const WAITING: usize = 64;

/// Whether the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What the loop is told.
enum Word {
    Key(KeyCode, KeyModifiers),
    /// The terminal has another size.
    Resized,
    /// A signal, or a terminal that cannot be read.
    Leave,
}

/// Shows a node until the user has seen enough. `false`: there is no terminal that can be drawn on.
///
/// # Errors
/// A terminal that does not work.
pub(crate) fn watch(folder: &mut Folder, look: Look) -> Result<bool> {
    if !can_draw() {
        return Ok(false);
    }
    let (sender, words) = sync_channel(WAITING);
    on_signals(sender.clone())?;
    let mut screen = Screen::open()?;
    on_keys(sender)?;
    follow(&mut screen, folder, look, &words)?;
    Ok(true)
}

/// A terminal that is drawn on; as it was when this is dropped, also by a panic.
struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    fn open() -> Result<Self> {
        static HOOK: Once = Once::new();
        // So that what a panic says is read, and not wiped away with the screen.
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                before(panic);
            }));
        });
        TAKEN.store(true, Ordering::SeqCst);
        let taken = enable_raw_mode().and_then(|()| execute!(stdout(), EnterAlternateScreen));
        let terminal = taken.and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match terminal {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                restore();
                Err(error).context("this terminal cannot be drawn on; try --once")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back, once: a second time would move the cursor to where it was before.
fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that does not listen any more needs nothing.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, cursor::Show);
    }
}

fn on_keys(sender: SyncSender<Word>) -> Result<()> {
    let wait = move || {
        loop {
            let word = match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    Word::Key(key.code, key.modifiers)
                }
                Ok(Event::Resize(..)) => Word::Resized,
                Ok(_) => continue,
                Err(_) => Word::Leave,
            };
            let ends = matches!(word, Word::Leave);
            if sender.send(word).is_err() || ends {
                return;
            }
        }
    };
    std::thread::Builder::new().name("keys".into()).spawn(wait).context("no thread for keys")?;
    Ok(())
}

/// Whatever would end this program otherwise, and leave the terminal as it is.
fn on_signals(sender: SyncSender<Word>) -> Result<()> {
    let wait = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(asked_to_leave());
            let _ = sender.send(Word::Leave);
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("no thread for signals")?;
    Ok(())
}

async fn asked_to_leave() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let all =
            [SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit(), SignalKind::interrupt()];
        let all: io::Result<Vec<_>> = all.into_iter().map(signal).collect();
        if let Ok(mut all) = all {
            let each = all.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures::future::select_all(each).await;
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn follow(screen: &mut Screen, folder: &mut Folder, look: Look, words: &Receiver<Word>) -> Result<()> {
    let mut state = State { chosen: Chosen { keys: true, ..Chosen::default() }, said: None };
    let had_input = stdin().is_terminal();
    loop {
        let view = folder.look();
        let until = Instant::now() + LOOK;
        state.forget();
        loop {
            let paint = |frame: &mut ratatui::Frame<'_>| {
                draw(&view, &state.chosen, look, frame.area(), frame.buffer_mut());
            };
            screen.terminal.draw(paint).context("the terminal cannot be written")?;
            match words.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Word::Key(code, modifiers)) => {
                    if state.key(code, modifiers, &view, folder) {
                        return Ok(());
                    }
                }
                Ok(Word::Resized) => {}
                Ok(Word::Leave) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => bail!("keys cannot be read any more"),
            }
        }
        if had_input && !stdin().is_terminal() {
            // It was closed; nobody is looking.
            return Ok(());
        }
    }
}

/// What keys change.
struct State {
    chosen: Chosen,
    /// When the message was said.
    said: Option<Instant>,
}

impl State {
    fn forget(&mut self) {
        if self.said.is_some_and(|said| said.elapsed() > MESSAGE) {
            (self.said, self.chosen.message) = (None, None);
        }
    }

    fn say(&mut self, message: impl Into<String>) {
        (self.said, self.chosen.message) = (Some(Instant::now()), Some(message.into()));
    }

    /// Does what a key says; whether that is to leave.
    fn key(&mut self, code: KeyCode, modifiers: KeyModifiers, view: &View, folder: &Folder) -> bool {
        let chosen = &mut self.chosen;
        match code {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return true,
            KeyCode::Char('q' | 'Q') => return true,
            // Who only wanted to be rid of the help stays.
            KeyCode::Esc if !chosen.help => return true,
            KeyCode::Esc => chosen.help = false,
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => chosen.help = !chosen.help,
            KeyCode::Tab | KeyCode::BackTab => {
                chosen.focus = if chosen.focus == Focus::Peers { Focus::Log } else { Focus::Peers };
            }
            KeyCode::Up | KeyCode::Char('k') => chosen.scroll(view, 1, true),
            KeyCode::Down | KeyCode::Char('j') => chosen.scroll(view, 1, false),
            KeyCode::PageUp => chosen.scroll(view, PAGE, true),
            KeyCode::PageDown => chosen.scroll(view, PAGE, false),
            KeyCode::Home => chosen.scroll(view, usize::MAX, true),
            KeyCode::End => chosen.scroll(view, usize::MAX, false),
            KeyCode::Char('p') => {
                let said = pause(view, folder).unwrap_or_else(|error| format!("error: {error:#}"));
                self.say(super::text::clean(&said, 200));
            }
            _ => {}
        }
        false
    }
}

impl Chosen {
    /// Scrolls what is chosen by so many rows.
    fn scroll(&mut self, view: &View, rows: usize, up: bool) {
        // The list is counted from its top, the log, which grows at its end, from there.
        let (at, most, grows) = match self.focus {
            Focus::Peers => (&mut self.peers, view.peers.len(), !up),
            Focus::Log => (&mut self.log, view.log.len(), up),
        };
        *at =
            if grows { at.saturating_add(rows).min(most.saturating_sub(1)) } else { at.saturating_sub(rows) };
    }
}

/// Pauses the node or lets it go on, as `swarm pause` and `swarm resume` do, and says which.
fn pause(view: &View, folder: &Folder) -> Result<String> {
    if view.guest.is_none() {
        let why = if view.running == Running::Never {
            "no node has run here yet"
        } else {
            "this node does not train"
        };
        return Ok(format!("{why}: there is nothing to pause"));
    }
    let dir = folder.dir();
    let mut control = Control::read(dir).unwrap_or_default();
    let now = unix_time();
    let said = match control.asked(now) {
        Asked::Pause { .. } => {
            control.resume();
            "asked it to go on; rules on when to train hold all the same"
        }
        Asked::Nothing => {
            control.pause(now, None);
            "asked it to pause; p again lets it go on"
        }
    };
    control.write(dir)?;
    Ok(match view.running {
        Running::Yes => said.to_owned(),
        _ => format!("{said}, once it runs"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::Glance;
    use serde_json::json;

    fn training(_: &std::path::Path) -> Result<Glance> {
        let status = json!({"phase": "training", "guest": {"trains": true, "words": "training"}});
        Ok(Glance { status, age: Duration::ZERO, runs: true })
    }

    #[test]
    fn keys_scroll_help_pause_and_leave() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path(), training);
        let mut view = folder.look();
        view.log = (0..50).map(|line| line.to_string()).collect();
        let mut state = State { chosen: Chosen::default(), said: None };
        let mut press = |code| {
            let left = state.key(code, KeyModifiers::NONE, &view, &folder);
            (left, state.chosen.clone())
        };
        assert_eq!(press(KeyCode::Down).1.peers, 0, "there are no peers to scroll");
        assert_eq!(press(KeyCode::Tab).1.focus, Focus::Log);
        assert_eq!(press(KeyCode::PageUp).1.log, PAGE);
        assert_eq!(press(KeyCode::Down).1.log, PAGE - 1);
        assert_eq!(press(KeyCode::Home).1.log, 49);
        assert_eq!(press(KeyCode::End).1.log, 0);
        assert!(press(KeyCode::Char('?')).1.help);
        let (left, chosen) = press(KeyCode::Esc);
        assert!(!left && !chosen.help);
        assert!(press(KeyCode::Char('p')).1.message.unwrap().starts_with("asked it to pause"));
        assert_eq!(Control::read(dir.path()).unwrap().asked(unix_time()), Asked::Pause { left: None });
        assert!(press(KeyCode::Char('p')).1.message.unwrap().starts_with("asked it to go on"));
        assert_eq!(Control::read(dir.path()).unwrap().asked(unix_time()), Asked::Nothing);
        assert!(press(KeyCode::Esc).0 && press(KeyCode::Char('q')).0);
        assert!(!press(KeyCode::Char('c')).0);
        assert!(state.key(KeyCode::Char('c'), KeyModifiers::CONTROL, &view, &folder));
        view.guest = None;
        assert!(pause(&view, &folder).unwrap().contains("nothing to pause"));
    }

    /// Not a test: what the next one starts, on a terminal.
    #[test]
    #[ignore = "panics on purpose; the next test starts it on a terminal of its own"]
    fn panics_on_a_terminal() {
        let mut screen = Screen::open().unwrap();
        screen
            .terminal
            .draw(|frame| frame.buffer_mut().set_string(0, 0, "drawn", ratatui::style::Style::new()))
            .unwrap();
        panic!("on purpose");
    }

    #[cfg(unix)]
    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        use rustix::termios::{LocalModes, tcgetattr};
        use std::io::Read;
        let (mut ours, theirs) = pty_process::blocking::open().unwrap();
        ours.resize(pty_process::Size::new(24, 80)).unwrap();
        // Kept open: with the last of them the terminal's settings go.
        let kept = rustix::io::dup(&theirs).unwrap();
        let before = tcgetattr(&kept).unwrap();
        assert!(before.local_modes.contains(LocalModes::ICANON | LocalModes::ECHO));
        let mut child = pty_process::blocking::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "top::screen::tests::panics_on_a_terminal", "--ignored", "--nocapture"])
            .env("TERM", "xterm")
            .env("RUST_BACKTRACE", "0")
            .spawn(theirs)
            .unwrap();
        let mut parser = vt100::Parser::new(24.try_into().unwrap(), 80.try_into().unwrap(), 0);
        let (mut entered, mut buffer) = (false, [0; 4096]);
        // Ends when what it wrote has "test result", which is the last that the child says.
        while !parser.screen().contents().contains("test result") {
            let read = ours.read(&mut buffer).unwrap();
            assert!(read > 0, "the child said only\n{}", parser.screen().contents());
            for byte in buffer.get(..read).unwrap() {
                parser.process(&[*byte]);
                entered |= parser.screen().alternate_screen();
            }
        }
        assert!(!child.wait().unwrap().success(), "it should have panicked");
        let shown = parser.screen().contents();
        assert!(entered && !parser.screen().alternate_screen() && !parser.screen().hide_cursor(), "{shown}");
        assert!(shown.contains("on purpose") && !shown.contains("drawn"), "{shown}");
        let after = tcgetattr(&kept).unwrap();
        assert_eq!((after.local_modes, after.input_modes), (before.local_modes, before.input_modes));
    }
}
