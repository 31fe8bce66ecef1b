//! Handmade segments by each path: which way something takes MPTCP's options out.
//!
//! A stack only sees that an option has not come back. Segments that no stack would send tell where it got lost:
//! a server that has MPTCP answers some of them with a reset, and a server that has not seen the option does not.

mod joins;
mod link;
mod open;
mod probe;
mod talk;
#[cfg(test)]
mod tests;
mod verdict;

pub(super) use joins::{Join, Joins, join};
pub(super) use link::open;
pub(super) use open::Later;
pub(super) use probe::{Seen, Syn, examine};
pub(super) use verdict::{REWRITTEN_DOWN, REWRITTEN_UP, Text, of_join, of_later, of_syn};

use serde::Serialize;

/// Which way something happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Way {
    /// In what this host sends.
    ToServer,
    /// In what the server sends.
    FromServer,
    /// In one of them, or in both.
    Untold,
}
