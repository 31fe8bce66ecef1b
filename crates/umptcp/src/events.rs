//! What happens in a stack, as it happens.

use crate::error::Error;
#[cfg(feature = "tokio")]
use crate::mailbox::Mailbox;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
use crate::readiness::{Readiness, Source};
use crate::shared::{TimedOut, deadline};
use crate::stack::Stack;
use crate::worker::{Command, Commands, Watcher};
use std::io;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use umptcp_stack_core::monitor::{MonitorEvent, Monitored};
use umptcp_tun_driver::clock::Clock;

/// Default number of events that wait for a slow reader.
const MOST: usize = 4096;

/// One thing that happened in a stack.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When.
    pub at: SystemTime,
    /// What.
    pub what: MonitorEvent,
}

/// What happens in a stack, as it happens: paths, listeners, connections, subflows, addresses and priorities.
/// It is what `ip mptcp monitor` shows of the kernel, and more.
///
/// Made by [`Stack::events`]. Nothing is lost between that call and the first read; what happened before is
/// told by [`Stack::paths`] and [`Stack::connections`]. Each `Events` gets all that happens. As an iterator,
/// it waits for each event, and ends when the stack has been stopped.
///
/// Events wait in a queue of bounded length. For a reader that is too slow, those that do not fit are
/// dropped, and [`MonitorEvent::Missed`] says in their place how many they were. While nobody watches,
/// nothing is done for events.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
/// use umptcp::MonitorEvent;
///
/// # #[cfg(target_os = "linux")]
/// # fn main() -> std::io::Result<()> {
/// # let (here, there) = pipe::two_stacks(1, |s| s);
/// # let listener = there.listen("10.0.0.2:80")?;
/// let events = here.events()?;
/// let stream = here.connect("10.0.0.2:80")?;
/// # drop(listener);
/// stream.abort();
/// here.stop(std::time::Duration::ZERO)?;
///
/// let mut subflows = 0;
/// for event in events {
///     match event.what {
///         MonitorEvent::SubflowEstablished { connection, subflow } => {
///             println!("{:?}: a subflow from {} to {}", connection.token, subflow.local, subflow.remote);
///             subflows += 1;
///         }
///         MonitorEvent::ConnectionClosed { connection, error } => {
///             println!("{:?}: the end: {error:?}", connection.token);
///         }
///         MonitorEvent::Missed { events } => println!("{events} events were lost"),
///         _ => {}
///     }
/// }
/// assert_eq!(subflows, 1);
/// # Ok(())
/// # }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Events {
    commands: Commands,
    clock: Clock,
    watcher: Arc<Watcher>,
}

impl Stack {
    /// What happens in the stack from now on.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn events(&self) -> io::Result<Events> {
        self.events_with_room(MOST)
    }

    /// What happens in the stack from now on, with room for so many events that have not been read.
    ///
    /// # Errors
    /// When the stack has been stopped.
    pub fn events_with_room(&self, most: usize) -> io::Result<Events> {
        let watcher = Arc::new(Watcher::new(most));
        let (to, handle) = (watcher.clone(), self.handle());
        handle.commands.call(move |worker, cx| worker.watch(cx, to))?;
        Ok(Events { commands: handle.commands.clone(), clock: handle.clock, watcher })
    }
}

impl Events {
    /// Waits for the next event.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] when the stack has been stopped and all events have been read.
    pub fn recv(&self) -> io::Result<Event> {
        self.recv_by(None)
    }

    /// Waits for the next event for at most `limit`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there was none; [`io::ErrorKind::NotConnected`] as with
    /// [`recv`](Self::recv).
    pub fn recv_timeout(&self, limit: Duration) -> io::Result<Event> {
        self.recv_by(deadline(Some(limit)))
    }

    /// An event that waits already.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none; [`io::ErrorKind::NotConnected`] as with
    /// [`recv`](Self::recv).
    pub fn try_recv(&self) -> io::Result<Event> {
        self.recv_timeout(Duration::ZERO)
    }

    /// A descriptor that is readable while [`recv`](Self::recv) would not wait, for event loops. Every call
    /// returns the same.
    ///
    /// # Errors
    /// When the process has too many descriptors.
    #[cfg(all(target_os = "linux", not(umptcp_portable)))]
    pub fn readiness(&self) -> io::Result<Readiness> {
        self.watcher.events().descriptor().open()?;
        self.watcher.events().show();
        Ok(Readiness::new(Source::Events(self.watcher.clone())))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn waiting(&self) -> &Mailbox<Monitored> {
        self.watcher.events()
    }

    fn recv_by(&self, deadline: Option<Instant>) -> io::Result<Event> {
        match self.watcher.events().take(deadline, |_| true) {
            Ok(Some(Monitored { at, event, .. })) => Ok(Event { at: self.clock.wall_time(at), what: event }),
            Ok(None) => Err(Error::Stopped.into()),
            Err(TimedOut) => Err(Error::WouldBlock.into()),
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.recv().ok()
    }
}

impl FusedIterator for Events {}

impl Drop for Events {
    fn drop(&mut self) {
        let watcher = self.watcher.clone();
        // If the worker has ended, it tells nobody anything.
        self.commands.send(Command::Run(Box::new(move |worker, cx| worker.unwatch(cx, &watcher))));
    }
}
