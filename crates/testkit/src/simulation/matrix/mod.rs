//! Middleboxes of every kind, at every place, acting on either side's packets: what becomes of the
//! connection, and that no byte is wrong.
//!
//! The network is a client with two interfaces, a router on the way of each, and a server with one address:
//!
//! ```text
//!        ┌── cable 0 ── r0 ── cable 2 ──┐
//! client ┤                              ├ server
//!        └── cable 1 ── r1 ── cable 3 ──┘
//! ```
//!
//! A row is a box, its cells are the places ([`Place`]) and whose packets it acts on ([`Whose`]). A cell says
//! what comes of a transfer both ways ([`Want`]). Everywhere each byte arrives as it was sent, or the
//! connection ends with an error, but for payload that a box rewrites. Without DSS checksums MPTCP delivers
//! that as plain TCP would have. With them it does not, until the only subflow is damaged: then RFC 8684 §3.7
//! has the connection fall back, the application is told why, and from there on the box may do to it what it
//! does to TCP. With `strict_checksums` the connection ends with an error instead.

mod boxes;
mod harness;
pub mod rows;

pub use harness::{Boxes, Family, Outcome, Place, Seen, Want, Ways, Whose, check};

use crate::digest::Digest;
use umptcp_stack_core::config::ConnectionConfig;

/// What the applications do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Workload {
    /// A transfer both ways.
    Transfer,
    /// Requests and responses with pauses of half a minute.
    Conversation,
}

/// A box with the places it is put at and what is wanted of each.
pub struct Row {
    name: String,
    workload: Workload,
    config: ConnectionConfig,
    roles: &'static [Whose],
    places: &'static [Place],
    make: Box<dyn Fn(Whose) -> Boxes + Send + Sync>,
    want: Box<dyn Fn(Place, Whose) -> Want + Send + Sync>,
}

/// One box at one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// Whose packets it acts on.
    pub whose: Whose,
    /// Where.
    pub place: Place,
    /// The addresses.
    pub family: Family,
}

impl Row {
    /// Every cell: both families, every place, each role. No box looks at the addresses, so a cell wants the
    /// same of both families.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for whose in self.roles.iter().copied() {
            for family in Family::BOTH {
                cells.extend(self.places.iter().map(|place| Cell { whose, place: *place, family }));
            }
        }
        cells
    }

    /// The name of a cell: unlike that of any other.
    pub fn cell_name(&self, cell: Cell) -> String {
        let Cell { whose, place, family } = cell;
        format!("{}, {}, {}, {}", self.name, place.name(), whose.name(), family.name())
    }

    /// What is wanted of a cell.
    pub fn want(&self, cell: Cell) -> Want {
        (self.want)(cell.place, cell.whose)
    }

    /// Runs a cell.
    ///
    /// # Panics
    /// When the connection neither ends nor goes on, or a byte is missing.
    pub fn run(&self, cell: Cell, digest: Option<&Digest>) -> Seen {
        self.run_by(cell, digest, Ways::Native)
    }

    /// Runs a cell with the client's packets as `ways` has them.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_by(&self, cell: Cell, digest: Option<&Digest>, ways: Ways<'_>) -> Seen {
        let run = match self.workload {
            Workload::Transfer => harness::transfer,
            Workload::Conversation => harness::conversation,
        };
        run(cell.place, cell.family, self.config.clone(), &|| (self.make)(cell.whose), (digest, ways))
    }
}
