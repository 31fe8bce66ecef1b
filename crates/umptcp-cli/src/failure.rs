//! What can fail, and the exit code of each class.

use serde::Serialize;
use std::fmt;
use std::io::ErrorKind;

/// What failed. The exit code is the discriminant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    /// Anything that has no class of its own.
    Other = 1,
    /// The arguments.
    Usage = 2,
    /// This host: paths could not be set up, or the port could not be listened on.
    Host = 3,
    /// A name has no address.
    Name = 4,
    /// A connection could not be established.
    Connect = 5,
    /// An established connection ended with an error.
    Connection = 6,
    /// Data was corrupted.
    Data = 7,
}

/// The classes, for the manual.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0      success
  1      any failure that is not listed here
  2      mistake in the arguments
  3      this host: no permission, no usable NIC, a path cannot be set up, the port is in use, no such umptcp is running
  4      the server's name has no address
  5      the connection could not be established: refused, no route, no answer in time
  6      an established connection ended with an error, or data was not delivered
  7      data was corrupted (bench client --verify)
  128+N  ended by signal N";

impl Class {
    /// Its name in JSON.
    fn name(self) -> &'static str {
        match self {
            Class::Other => "other",
            Class::Usage => "usage",
            Class::Host => "host",
            Class::Name => "name",
            Class::Connect => "connect",
            Class::Connection => "connection",
            Class::Data => "data",
        }
    }

    /// The exit code.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The class of an error: that of the outermost failure in it, otherwise what the kind of an I/O error
    /// says.
    pub(crate) fn of(error: &anyhow::Error) -> Class {
        if let Some(failure) = error.downcast_ref::<Failure>() {
            return failure.class;
        }
        let io = error.chain().filter_map(|e| e.downcast_ref::<std::io::Error>());
        let ended = io.map(std::io::Error::kind).any(|kind| {
            matches!(
                kind,
                ErrorKind::ConnectionReset
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::TimedOut
                    | ErrorKind::WouldBlock
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::HostUnreachable
                    | ErrorKind::NetworkUnreachable
                    | ErrorKind::NetworkDown
            )
        });
        if ended { Class::Connection } else { Class::Other }
    }

    /// A failure of this class.
    pub(crate) fn failure(self, text: impl Into<String>) -> Failure {
        Failure { class: self, text: text.into() }
    }
}

/// An error, or the context of one, that says what class it is of.
#[derive(Debug)]
pub(crate) struct Failure {
    class: Class,
    text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// An error in the arguments that clap does not detect.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Class::Usage.failure(message))
}

/// An error for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Described {
    /// Name of its class.
    pub(crate) class: &'static str,
    /// The exit code of that class.
    pub(crate) exit_code: u8,
    /// The text for people.
    pub(crate) message: String,
}

impl Described {
    pub(crate) fn new(error: &anyhow::Error) -> Described {
        let class = Class::of(error);
        let message = crate::console::describe(error);
        Described { class: class.name(), exit_code: class.code(), message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};
    use std::io;

    #[test]
    fn the_class_of_an_error() {
        let reset = || io::Error::from(ErrorKind::ConnectionReset);
        let refused: Result<(), _> = Err(io::Error::from(ErrorKind::ConnectionRefused));
        let connect = refused.context(Class::Connect.failure("cannot connect")).context("connecting");
        for (error, class) in [
            (anyhow!("something"), Class::Other),
            (usage("--bad"), Class::Usage),
            (anyhow::Error::new(reset()).context("sending"), Class::Connection),
            (anyhow::Error::new(reset()).context(Class::Connect.failure("cannot connect")), Class::Connect),
            (connect.unwrap_err(), Class::Connect),
            (anyhow::Error::new(io::Error::from(ErrorKind::BrokenPipe)).context("writing"), Class::Other),
        ] {
            assert_eq!(Class::of(&error), class, "{error:#}");
            let code = format!("\n  {} ", class.code());
            assert!(EXIT_CODES.contains(&code), "{class:?} is not in the manual");
        }
    }
}
