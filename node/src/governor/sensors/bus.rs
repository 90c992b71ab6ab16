//! D-Bus: one question at a time, with a short patience.

use std::time::Duration;

use tokio::runtime::Runtime;
use zbus::Connection;
use zbus::zvariant::{DynamicDeserialize, OwnedValue};

/// A service that answers later than this counts as one that does not.
const PATIENCE: Duration = Duration::from_millis(400);

/// Which bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// The machine's.
    System,
    /// The session's.
    Session,
}

/// A connection that is opened when it is needed.
pub(super) struct Bus {
    which: Which,
    open: Option<(Runtime, Connection)>,
}

impl Bus {
    /// A connection to `which`, not opened yet.
    pub(super) fn new(which: Which) -> Self {
        Self { which, open: None }
    }

    /// Calls a method without arguments.
    pub(super) fn call<T>(
        &mut self,
        service: &str,
        path: &str,
        interface: &str,
        method: &str,
    ) -> Result<T, String>
    where
        T: for<'a> DynamicDeserialize<'a>,
    {
        self.ask(service, path, interface, method, &())
    }

    /// Reads a property.
    pub(super) fn property(
        &mut self,
        service: &str,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<OwnedValue, String> {
        self.ask(service, path, "org.freedesktop.DBus.Properties", "Get", &(interface, name))
    }

    fn ask<T, B>(
        &mut self,
        service: &str,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<T, String>
    where
        T: for<'a> DynamicDeserialize<'a>,
        B: serde::Serialize + zbus::zvariant::DynamicType,
    {
        let (runtime, connection) = match self.open.take() {
            Some(open) => open,
            None => self.connect()?,
        };
        let asked = runtime.block_on(async {
            let answer = connection.call_method(Some(service), path, Some(interface), method, body);
            tokio::time::timeout(PATIENCE, answer).await
        });
        match asked {
            Err(_) => Err(format!("{service} does not answer")),
            // The connection may be gone; the next question opens another.
            Ok(Err(zbus::Error::InputOutput(error))) => Err(error.to_string()),
            Ok(answer) => {
                self.open = Some((runtime, connection));
                let answer = answer.map_err(|error| short(&error))?;
                answer.body().deserialize().map_err(|error| error.to_string())
            }
        }
    }

    fn connect(&self) -> Result<(Runtime, Connection), String> {
        // Its tasks make progress while somebody asks, and that is when they have something to do.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let connection = runtime.block_on(async {
            let opened = async {
                match self.which {
                    Which::System => Connection::system().await,
                    Which::Session => Connection::session().await,
                }
            };
            tokio::time::timeout(PATIENCE, opened).await
        });
        match connection {
            Ok(Ok(connection)) => Ok((runtime, connection)),
            Ok(Err(_)) => Err("there is no D-Bus here".to_owned()),
            Err(_) => Err("D-Bus does not answer".to_owned()),
        }
    }
}

/// An answer that is an error, without its type.
fn short(error: &zbus::Error) -> String {
    match error {
        zbus::Error::MethodError(name, text, _) => text.clone().unwrap_or_else(|| name.to_string()),
        error => error.to_string(),
    }
}
