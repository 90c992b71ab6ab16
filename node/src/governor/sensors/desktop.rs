//! The user's session and network, on Linux.
//!
//! Under X11 the screen saver extension counts since when no key and no mouse has been touched. Under Wayland it would
//! count only for old programs, so there only the desktop knows: GNOME's is asked over D-Bus. Others (KDE's is not to be
//! relied on) count as not told. Where the variables that name the display are missing, as in a service that was started
//! before anybody logged in, systemd's user manager is asked for them.

use std::collections::HashMap;
use std::time::Duration;

use x11rb::connection::Connection;
use x11rb::protocol::screensaver;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt, Window};
use x11rb::rust_connection::RustConnection;
use zbus::zvariant::{OwnedObjectPath, OwnedValue};

use super::bus::{Bus, Which};
use crate::governor::readings::{Network, Reading};

/// How often a display that was not there is looked for again.
const RETRY: Duration = Duration::from_secs(5);

/// Who is asked for what the user does.
enum Screen {
    X11 { connection: Box<RustConnection>, root: Window },
    Gnome,
    None(String),
}

/// The session, and the buses.
pub(super) struct Desktop {
    screen: Option<Screen>,
    looked: Option<Duration>,
    session: Bus,
    system: Bus,
}

impl Default for Desktop {
    fn default() -> Self {
        Self {
            screen: None,
            looked: None,
            session: Bus::new(Which::Session),
            system: Bus::new(Which::System),
        }
    }
}

impl Desktop {
    /// Since when nobody has touched keyboard or mouse.
    pub(super) fn untouched(&mut self, now: Duration) -> Reading<Duration> {
        self.find(now);
        let millis = match &self.screen {
            Some(Screen::X11 { connection, root }) => {
                let asked = screensaver::query_info(&**connection, *root).map_err(|error| error.to_string());
                let answer = asked.and_then(|cookie| cookie.reply().map_err(|error| error.to_string()));
                answer.map(|info| u64::from(info.ms_since_user_input))
            }
            Some(Screen::Gnome) => self.gnome_idle(),
            Some(Screen::None(why)) => Err(why.clone()),
            None => Err("no display has been looked for".to_owned()),
        };
        self.forget_if_gone(&millis);
        millis.map(Duration::from_millis)
    }

    /// Whether a program fills the screen.
    pub(super) fn full_screen(&mut self, now: Duration) -> Reading<bool> {
        self.find(now);
        let fills = match &self.screen {
            Some(Screen::X11 { connection, root }) => fills_screen(connection, *root),
            Some(Screen::Gnome) => return Err("GNOME does not tell it".to_owned()),
            Some(Screen::None(why)) => return Err(why.clone()),
            None => return Err("no display has been looked for".to_owned()),
        };
        fills
            .map_err(|error| error.to_string())?
            .ok_or_else(|| "the window manager does not tell it".to_owned())
    }

    /// NetworkManager's opinion of the network that leads outside.
    pub(super) fn network(&mut self) -> Reading<Network> {
        const MANAGER: &str = "org.freedesktop.NetworkManager";
        const PATH: &str = "/org/freedesktop/NetworkManager";
        let metered = self.system.property(MANAGER, PATH, MANAGER, "Metered")?;
        // NMMetered: 1 yes, 3 guessed to be; 2 no, 4 guessed not to be; 0 unknown.
        let metered = matches!(u32::try_from(metered), Ok(1 | 3));
        let primary = self.system.property(MANAGER, PATH, MANAGER, "PrimaryConnection")?;
        let primary = OwnedObjectPath::try_from(primary).map_err(|error| error.to_string())?;
        if primary.as_str() == "/" {
            return Err("NetworkManager knows of no connection".to_owned());
        }
        let active = format!("{MANAGER}.Connection.Active");
        let name = self.system.property(MANAGER, primary.as_str(), &active, "Id")?;
        let name = String::try_from(name).map_err(|error| error.to_string())?;
        Ok(Network { name, metered })
    }

    fn gnome_idle(&mut self) -> Result<u64, String> {
        const MONITOR: &str = "org.gnome.Mutter.IdleMonitor";
        self.session.call(MONITOR, "/org/gnome/Mutter/IdleMonitor/Core", MONITOR, "GetIdletime")
    }

    /// A display that has gone is looked for again.
    fn forget_if_gone<T>(&mut self, reading: &Result<T, String>) {
        if reading.is_err() && !matches!(self.screen, Some(Screen::None(_))) {
            self.screen = reading.as_ref().err().cloned().map(Screen::None);
        }
    }

    /// Finds out whom to ask.
    fn find(&mut self, now: Duration) {
        let waits = self.looked.is_some_and(|then| now.saturating_sub(then) < RETRY);
        if matches!(self.screen, Some(Screen::X11 { .. } | Screen::Gnome)) || waits {
            return;
        }
        self.looked = Some(now);
        self.screen = Some(self.look());
    }

    fn look(&mut self) -> Screen {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (mut display, mut wayland) = (set("DISPLAY"), set("WAYLAND_DISPLAY"));
        if display.is_none() && wayland.is_none() {
            let mut manager = self.managers_environment();
            (display, wayland) = (manager.remove("DISPLAY"), manager.remove("WAYLAND_DISPLAY"));
        }
        if wayland.is_some() {
            return match self.gnome_idle() {
                Ok(_) => Screen::Gnome,
                Err(_) => Screen::None("under Wayland only GNOME's desktop tells it".to_owned()),
            };
        }
        let Some(display) = display else {
            return Screen::None("there is no display here".to_owned());
        };
        match x11rb::connect(Some(&display)) {
            Ok((connection, screen)) => {
                match connection.setup().roots.get(screen).map(|screen| screen.root) {
                    Some(root) => Screen::X11 { connection: Box::new(connection), root },
                    None => Screen::None(format!("the display {display} has no screen")),
                }
            }
            Err(error) => Screen::None(format!("the display {display} cannot be asked: {error}")),
        }
    }

    /// The variables that a session has told systemd's user manager.
    fn managers_environment(&mut self) -> HashMap<String, String> {
        const MANAGER: &str = "org.freedesktop.systemd1";
        let interface = format!("{MANAGER}.Manager");
        let told = self.session.property(MANAGER, "/org/freedesktop/systemd1", &interface, "Environment");
        let lines =
            told.ok().and_then(|value: OwnedValue| Vec::<String>::try_from(value).ok()).unwrap_or_default();
        let pairs = lines.iter().filter_map(|line| line.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Whether the active window says that it fills the screen; `None` if nobody tells which is active.
fn fills_screen(
    connection: &RustConnection,
    root: Window,
) -> Result<Option<bool>, x11rb::errors::ReplyError> {
    /// States of a window that are read; there are a dozen.
    const MOST: u32 = 64;
    let atom = |name: &str| {
        Ok::<u32, x11rb::errors::ReplyError>(connection.intern_atom(false, name.as_bytes())?.reply()?.atom)
    };
    let read = |window: Window, property: u32, kind: AtomEnum| {
        let reply = connection.get_property(false, window, property, kind, 0, MOST)?.reply()?;
        Ok::<Option<Vec<u32>>, x11rb::errors::ReplyError>(reply.value32().map(Iterator::collect))
    };
    let active = read(root, atom("_NET_ACTIVE_WINDOW")?, AtomEnum::WINDOW)?;
    let Some(window) = active.and_then(|windows| windows.first().copied()) else { return Ok(None) };
    if window == x11rb::NONE {
        return Ok(Some(false));
    }
    let filling = atom("_NET_WM_STATE_FULLSCREEN")?;
    match read(window, atom("_NET_WM_STATE")?, AtomEnum::ATOM) {
        Ok(states) => Ok(Some(states.is_some_and(|states| states.contains(&filling)))),
        // The window has been closed in between.
        Err(x11rb::errors::ReplyError::X11Error(_)) => Ok(Some(false)),
        Err(error) => Err(error),
    }
}
