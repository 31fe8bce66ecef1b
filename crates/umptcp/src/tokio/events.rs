//! What happens in a stack.

use crate::events::{Event, Events as BlockingEvents};
use crate::wakers::Key;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use tokio::task::coop;

/// What happens in a stack, as it happens, for tasks of tokio; see [`umptcp::Events`](crate::Events), from
/// which it is made.
///
/// ```
/// # #[cfg(target_os = "linux")]
/// # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
/// use umptcp::MonitorEvent;
/// use umptcp::tokio::{Events, MptcpStream};
///
/// # #[cfg(target_os = "linux")]
/// # fn main() -> std::io::Result<()> {
/// # let (here, there) = pipe::two_stacks(1, |s| s);
/// # let listener = there.listen("10.0.0.2:80")?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let mut events = Events::from(here.events()?);
/// let established = tokio::spawn(async move {
///     loop {
///         if let MonitorEvent::ConnectionEstablished { connection } = events.recv().await?.what {
///             return std::io::Result::Ok(connection);
///         }
///     }
/// });
/// let stream = MptcpStream::connect(&here, "10.0.0.2:80").await?;
/// assert_eq!(established.await??.local, stream.local_addr()?);
/// # Ok(())
/// # })
/// # }
/// # #[cfg(not(target_os = "linux"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Events(BlockingEvents);

impl From<BlockingEvents> for Events {
    fn from(events: BlockingEvents) -> Self {
        Events(events)
    }
}

impl From<Events> for BlockingEvents {
    fn from(events: Events) -> Self {
        events.0
    }
}

impl Events {
    /// Waits for the next event. A future that is dropped loses none.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotConnected`] when the stack has been stopped and all events have been read.
    pub async fn recv(&mut self) -> io::Result<Event> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// Polls for the next event. Of several tasks, the last to poll is woken.
    ///
    /// # Errors
    /// As with [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Event>> {
        let progress = ready!(coop::poll_proceed(cx));
        ready!(self.0.waiting().poll_ready(cx, &mut { Key::POLL }));
        progress.made_progress();
        // Nobody else takes any.
        Poll::Ready(self.0.try_recv())
    }
}
