//! Experiments in the simulator: scenarios as text, run with real stacks, measured and reported.
//!
//! A scenario names links, groups of connections with a route per subflow, and parameters; the format is
//! described in `docs/src/simulator.md`. [`Experiment::parse`] reads one, [`Experiment::run`] runs every
//! combination of parameters with every seed, on several threads, and returns a [`Report`]. The same text and
//! seeds give the same report, whatever the number of threads.
//!
//! The network itself (links, middleboxes, hosts, virtual time) is the crate `umptcp-netsim`.
//!
//! ```
//! use umptcp_lab::{Experiment, Registries, RunOptions};
//!
//! let text = r#"
//!     name = "two-links"
//!     duration = "2 s"
//!     seeds = 1
//!     [[link]]
//!     name = "a"
//!     rate = "10 Mbit/s"
//!     delay = "10 ms"
//!     [[link]]
//!     name = "b"
//!     rate = "5 Mbit/s"
//!     delay = "10 ms"
//!     [[flow]]
//!     name = "both"
//!     routes = [["a"], ["b"]]
//! "#;
//! let registries = Registries::default();
//! let experiment = Experiment::parse("two-links.toml", text, None, &[], &registries).unwrap();
//! let report = experiment.run(&RunOptions::default(), &registries, |_, _| ()).unwrap();
//! assert!(report.points[0].value("flow", "both", "goodput").unwrap().mean > 12.0); // Mbit/s
//! ```
#![forbid(unsafe_code)]

mod build;
pub mod emulation;
mod error;
mod experiment;
mod export;
mod grid;
mod markdown;
mod measure;
mod plot;
mod point;
mod registries;
mod report;
mod run;
mod scenario;
mod series;
mod setup;
mod statistics;
mod traffic;
pub mod units;
mod validate;

pub use error::LabError;
// Shared with the program; not part of the interface.
#[doc(hidden)]
pub use error::Source;
pub use experiment::{Experiment, RunOptions};
pub use export::CSV_COLUMNS;
pub use plot::Figure;
pub use registries::Registries;
pub use report::{Comparison, FORMAT, PointReport, Report, Row};
pub use series::SERIES_COLUMNS;
pub use statistics::{Summary, student_t};
