//! Printing to stdout where it may be a pipe.
//!
//! Rust ignores the signal that ends other programs when nobody reads their output any more, and its own `println!`
//! panics then. `swarm ledger | head` must do neither: here are macros of the same names, which end the program quietly
//! if nobody reads, and with a reason if the output cannot be written (a full disk).

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stdout};

/// As [`std::print!`].
macro_rules! print {
    ($($what:tt)*) => { $crate::print::out(format_args!($($what)*), "") };
}

/// As [`std::println!`].
macro_rules! println {
    () => { $crate::print::out(format_args!(""), "\n") };
    ($($what:tt)*) => { $crate::print::out(format_args!($($what)*), "\n") };
}

/// Prints `what` and the line's `end`.
pub(crate) fn out(what: Arguments<'_>, end: &str) {
    let mut out = stdout().lock();
    let written = out.write_fmt(what).and_then(|()| out.write_all(end.as_bytes()));
    if let Err(error) = written {
        // Whoever stopped reading has what it wants.
        if error.kind() != ErrorKind::BrokenPipe {
            eprintln!("error: cannot print: {error}");
        }
        std::process::exit(i32::from(error.kind() != ErrorKind::BrokenPipe));
    }
}
