//! Waiting for sockets by what every system has; [`poller`](super) is Linux's own.

use crate::device::{Device, Sources};
use mio::{Events, Poll, Token, Waker};
use std::io;
use std::time::Duration;

/// Maximum number of events fetched from the system at once.
const EVENTS: usize = 256;

/// Token of the waker.
const WAKER: Token = Token(usize::MAX);

/// Systems round timeouts up to this: shorter ones are slept away, or pacing would be slower than it should.
const FINEST: Duration = Duration::from_millis(1);

/// Longest single wait, as some systems know no longer ones. Waking up once an hour costs nothing.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// What happened to a socket of the path `token`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    pub(super) token: u64,
    /// The socket.
    pub(super) source: usize,
    /// It can be read, or reading returns its error.
    pub(super) readable: bool,
    pub(super) writable: bool,
}

pub(super) struct Poller {
    poll: Poll,
    events: Events,
    sources: Sources,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let sources = Sources::new(poll.registry().try_clone()?);
        Ok(Poller { poll, events: Events::with_capacity(EVENTS), sources })
    }

    /// What ends a wait from another thread.
    pub(super) fn bell(&self) -> io::Result<Bell> {
        Ok(Bell(Waker::new(self.poll.registry(), WAKER)?))
    }

    /// Waits for a device's sockets, those it has now and those it will have.
    pub(super) fn watch(&self, device: &mut dyn Device, path: u32) -> io::Result<()> {
        device.watch(Some(self.sources.of(path)))
    }

    pub(super) fn unwatch(&self, device: &mut dyn Device) {
        if let Err(error) = device.watch(None) {
            tracing::debug!(%error, "a device's sockets are still waited for");
        }
    }

    /// Room is always waited for.
    #[allow(clippy::unnecessary_wraps, reason = "Linux's own may fail")]
    pub(super) fn watch_room(&self, _device: &dyn Device, _path: u32, _wanted: bool) -> io::Result<()> {
        Ok(())
    }

    /// Waits until something is ready or `timeout` has passed; `None` means no limit. [`Poller::ready`]
    /// returns the result.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = match timeout {
            Some(short) if !short.is_zero() && short < FINEST => {
                std::thread::sleep(short);
                Some(Duration::ZERO)
            }
            other => other.map(|long| long.min(MAX_WAIT)),
        };
        match self.poll.poll(&mut self.events, timeout) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            other => other,
        }
    }

    /// The result of the last wait.
    pub(super) fn ready(&self) -> impl Iterator<Item = Readiness> + '_ {
        self.events.iter().filter_map(|event| {
            let source = event.token().0;
            Some(Readiness {
                // A socket that was closed meanwhile has none.
                token: self.sources.path(source)?.into(),
                source,
                readable: event.is_readable() || event.is_error() || event.is_read_closed(),
                writable: event.is_writable() || event.is_error() || event.is_write_closed(),
            })
        })
    }
}

/// Ends a wait of a [`Poller`].
#[derive(Debug)]
pub(super) struct Bell(Waker);

impl Bell {
    pub(super) fn ring(&self) {
        if let Err(error) = self.0.wake() {
            tracing::error!(%error, "cannot wake the event loop");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{BufferPool, TransmitOutcome};
    use mio::net::UdpSocket;
    use std::time::Instant;
    use umptcp_stack_core::device::{RxPacket, Transmit};

    /// A socket that is waited for.
    struct Sole(UdpSocket, Option<(Sources, usize)>);

    impl Device for Sole {
        fn receive(&mut self, _pool: &mut BufferPool) -> io::Result<Option<RxPacket>> {
            Ok(None)
        }
        fn transmit(&mut self, _packet: &Transmit) -> io::Result<TransmitOutcome> {
            Ok(TransmitOutcome::Sent)
        }
        fn watch(&mut self, sources: Option<Sources>) -> io::Result<()> {
            if let Some((before, token)) = self.1.take() {
                before.remove(&mut self.0, token);
            }
            self.1 = match sources {
                Some(sources) => Some((sources.clone(), sources.add(&mut self.0)?)),
                None => None,
            };
            Ok(())
        }
        fn is_readable(&mut self, _token: usize) {}
        fn offload(&self) -> bool {
            false
        }
    }

    /// Which paths were ready, waiting for one for some seconds.
    fn ready(poller: &mut Poller) -> Vec<u64> {
        poller.wait(Some(Duration::from_secs(10))).unwrap();
        poller.ready().filter(|r| r.readable).map(|r| r.token).collect()
    }

    #[test]
    fn short_timeouts_pass_and_a_bell_ends_a_wait() {
        let mut poller = Poller::new().unwrap();
        let start = Instant::now();
        poller.wait(Some(Duration::from_micros(200))).unwrap();
        assert!(start.elapsed() >= Duration::from_micros(200));
        let bell = poller.bell().unwrap();
        std::thread::spawn(move || bell.ring());
        poller.wait(None).unwrap();
        assert_eq!(poller.ready().count(), 0, "it is no path's");
    }

    #[test]
    fn a_socket_is_told_of_with_its_path_until_it_is_not_watched_any_more() {
        let Ok(socket) = UdpSocket::bind("127.0.0.1:0".parse().unwrap()) else { return };
        let at = socket.local_addr().unwrap();
        let mut poller = Poller::new().unwrap();
        let mut device = Sole(socket, None);
        poller.watch(&mut device, 7).unwrap();
        // That it can be written to.
        poller.wait(Some(Duration::from_secs(10))).unwrap();
        let other = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        other.send_to(b"x", at).unwrap();
        assert_eq!(ready(&mut poller), [7]);
        poller.unwatch(&mut device);
        other.send_to(b"y", at).unwrap();
        poller.wait(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(poller.ready().count(), 0);
    }
}
