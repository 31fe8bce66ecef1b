//! Two connections joined: what comes in on one goes out on the other.

use crate::error::Error;
use crate::stream::MptcpStream;
use crate::worker::{Commands, Outcome};
use crossbeam_channel::Receiver;
use std::io;
use umptcp_stack_core::error::ConnectionError;
use umptcp_types::ConnectionId;

/// Two connections of a stack that have been joined by [`splice`]. Dropping it changes nothing for them.
#[derive(Debug)]
pub struct Splice {
    commands: Commands,
    one: ConnectionId,
    outcome: Receiver<Outcome>,
}

/// What went through a [`Splice`] that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Spliced {
    /// Bytes that came from the first connection.
    pub from_first: u64,
    /// Bytes that came from the second.
    pub from_second: u64,
    /// Which of the two failed (`false`: the first), and how; the other was reset then. `None`: both streams
    /// arrived in full, with their ends.
    pub failed: Option<(bool, ConnectionError)>,
}

/// Joins two connections of one stack: what either receives is sent on the other, by the worker itself and
/// without a copy. The end of a stream passes, and a reset. Either takes only as much as the other has room
/// for, so that a reader that stops is felt by the writer at the far end.
///
/// What was written before is sent first, and what was not read yet goes to the other. Clones of the streams
/// are of no more use.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] when the connections belong to different stacks, or are one and the same;
/// [`io::ErrorKind::NotConnected`] when one has ended or its sending direction is shut down.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
/// # use std::io::Write as _;
/// # #[cfg(target_os = "linux")]
/// # fn main() -> std::io::Result<()> {
/// # let (stack, there) = pipe::two_stacks(1, |s| s);
/// # let server = there.listen("10.0.0.2:80")?;
/// let listener = stack.listen("10.0.0.1:80")?;
/// # let caller = there.connect("10.0.0.1:80")?;
/// let (client, _) = listener.accept()?;
/// let onward = stack.connect("10.0.0.2:80")?;
/// # (&caller).write_all(b"question")?;
/// # caller.shutdown(std::net::Shutdown::Write)?;
/// # let (answerer, _) = server.accept()?;
/// # (&answerer).write_all(b"answer")?;
/// # answerer.shutdown(std::net::Shutdown::Write)?;
/// let result = umptcp::splice(client, onward)?.wait()?;
/// assert_eq!((result.from_first, result.from_second), (8, 6));
/// # Ok(())
/// # }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
pub fn splice(first: MptcpStream, second: MptcpStream) -> io::Result<Splice> {
    let commands = first.0.handle.commands.clone();
    let ids = [first.id(), second.id()];
    if !commands.is_same(&second.0.handle.commands) || ids[0] == ids[1] {
        let what = "only two connections of one stack can be joined";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let (done, outcome) = crossbeam_channel::bounded(1);
    if commands.call(move |worker, cx| worker.splice(cx, ids, done))? {
        Ok(Splice { commands, one: ids[0], outcome })
    } else {
        let what = "a connection has ended, or its sending direction is shut down";
        Err(io::Error::new(io::ErrorKind::NotConnected, what))
    }
}

impl Splice {
    /// Waits until both connections have ended.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn wait(self) -> io::Result<Spliced> {
        let Outcome { moved: [from_first, from_second], error } =
            self.outcome.recv().map_err(|_| Error::Stopped)?;
        Ok(Spliced { from_first, from_second, failed: error.map(|(side, error)| (side == 1, error)) })
    }

    /// Resets both connections.
    pub fn abort(&self) -> io::Result<()> {
        let one = self.one;
        Ok(self.commands.call(move |worker, cx| worker.abort_splice(cx, one))?)
    }
}
