//! What can go wrong for a client and for a server that starts.

use crate::message::Failure;
use std::io;
use std::path::PathBuf;

/// Why something failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No instance runs that this user may speak to.
    #[error("no umptcp is running (looked in {})", places(.looked))]
    NoInstance {
        /// Where sockets were looked for.
        looked: Vec<PathBuf>,
    },
    /// No instance has that name.
    #[error("no umptcp named {name:?} is running; there {}", those(.running))]
    NotFound {
        /// The name.
        name: String,
        /// Those that run.
        running: Vec<String>,
    },
    /// The socket is there, and nobody listens: the process has died.
    #[error("the umptcp named {name:?} has died; `umptcp clean-up` removes what it has left")]
    Dead {
        /// The name.
        name: String,
    },
    /// Several run, and none was named.
    #[error("several instances of umptcp are running: {}; choose one with --instance NAME", .running.join(", "))]
    Several {
        /// Their names.
        running: Vec<String>,
    },
    /// The socket belongs to somebody else.
    #[error("the umptcp named {name:?} was started by another user: only root and that user may speak to it")]
    Denied {
        /// The name.
        name: String,
    },
    /// The socket belongs to a group that this user is not in.
    #[error(
        "the umptcp named {name:?} is for root and the members of the group {group}: `usermod -aG {group} USER` makes USER \
         one, from the next login on"
    )]
    NotMember {
        /// The name.
        name: String,
        /// The group.
        group: String,
    },
    /// The name cannot be that of a file.
    #[error(
        "{name:?} cannot be the name of an instance: use up to 64 letters, digits, '-', '_', '.', and begin with a letter or digit"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// An instance of that name runs.
    #[error("an instance named {name:?} is running already{}", .process.map_or_else(String::new, |id| format!(", as process {id}")))]
    NameTaken {
        /// The name.
        name: String,
        /// Its process, as far as it says so.
        process: Option<u32>,
    },
    /// No directory for sockets can be used.
    #[error("no directory for control sockets: {}: {source}", .path.display())]
    Directory {
        /// The last that was tried.
        path: PathBuf,
        /// What was wrong with it.
        source: io::Error,
    },
    /// The socket cannot be made or used.
    #[error("{}: {source}", .path.display())]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody listens at the socket, and says nothing.
    #[error("{}: {} does not answer; if it was stopped, `kill -CONT` lets it go on", .path.display(), who(*.process))]
    Silent {
        /// Its path.
        path: PathBuf,
        /// The process, where the system tells.
        process: Option<u32>,
    },
    /// The other end is not an umptcp, or a newer one.
    #[error("what answers at {} does not speak this protocol: {why}", .path.display())]
    Protocol {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The instance has closed the connection.
    #[error("the instance has ended")]
    Ended,
    /// The instance did not do what it was asked for.
    #[error(transparent)]
    Refused(#[from] Failure),
}

fn places(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn who(process: Option<u32>) -> String {
    process.map_or_else(|| "whoever listens there".to_owned(), |process| format!("process {process}"))
}

fn those(names: &[String]) -> String {
    match names {
        [] => "is none".to_owned(),
        names => format!("is {}", names.join(", ")),
    }
}
