//! Waiting for descriptors with nanosecond timeouts.

use crate::device::Device;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Maximum number of events fetched from the kernel at once.
const EVENTS: usize = 64;

/// Token of the timer used on kernels without epoll_pwait2.
const TIMER: u64 = u64::MAX;

/// Token of the bell. Paths use their 32-bit ids.
const BELL: u64 = 1 << 32;

/// What happened to the descriptor registered under `token`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Readiness {
    pub(super) token: u64,
    /// It can be read, or reading returns its error.
    pub(super) readable: bool,
    pub(super) writable: bool,
}

pub(super) struct Poller {
    epoll: Epoll,
    /// Used instead of epoll_pwait2 on kernels before 5.11.
    timer: Option<TimerFd>,
    events: Vec<libc::epoll_event>,
    ready: usize,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let mut poller = Poller { epoll, timer: None, events, ready: 0 };
        match poller.pwait2(Some(Duration::ZERO)) {
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => poller.use_timer()?,
            other => {
                other?;
            }
        }
        Ok(poller)
    }

    fn use_timer(&mut self) -> io::Result<()> {
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        self.epoll.add(timer.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        self.timer = Some(timer);
        Ok(())
    }

    /// What ends a wait from another thread.
    pub(super) fn bell(&self) -> io::Result<Bell> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Bell(EventFd::from_value_and_flags(0, flags)?.into());
        self.add_edge(bell.0.as_fd(), BELL)?;
        Ok(bell)
    }

    /// Waits for a device.
    pub(super) fn watch(&self, device: &mut dyn Device, path: u32) -> io::Result<()> {
        self.add(device.fd(), path.into())
    }

    pub(super) fn unwatch(&self, device: &mut dyn Device) {
        self.remove(device.fd());
    }

    /// Starts or stops waiting for room in a device.
    pub(super) fn watch_room(&self, device: &dyn Device, path: u32, wanted: bool) -> io::Result<()> {
        self.watch_writable(device.fd(), path.into(), wanted)
    }

    /// Watches a descriptor for input. Level-triggered: reported as long as there is some.
    fn add(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Watches a descriptor that is never read: each write to it is reported once.
    fn add_edge(&self, fd: BorrowedFd<'_>, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, token))?)
    }

    /// Starts or stops watching for room to write.
    fn watch_writable(&self, fd: BorrowedFd<'_>, token: u64, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        Ok(self.epoll.modify(fd, &mut EpollEvent::new(flags, token))?)
    }

    fn remove(&self, fd: BorrowedFd<'_>) {
        // If the device is gone, the descriptor has already been removed.
        let _ = self.epoll.delete(fd);
    }

    /// Waits until something is ready or `timeout` has passed; `None` means no limit. [`Poller::ready`]
    /// returns the result.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.ready = 0;
        let n = match &self.timer {
            None => self.pwait2(timeout),
            Some(_) => self.wait_with_timer(timeout),
        };
        match n {
            Ok(n) => self.ready = n,
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The result of the last wait.
    pub(super) fn ready(&self) -> impl Iterator<Item = Readiness> + '_ {
        self.events[..self.ready].iter().filter(|e| e.u64 != TIMER).map(|e| {
            let has = |flags: i32| e.events & flags as u32 != 0;
            Readiness {
                token: e.u64,
                readable: has(libc::EPOLLIN | libc::EPOLLERR | libc::EPOLLHUP),
                writable: has(libc::EPOLLOUT | libc::EPOLLERR | libc::EPOLLHUP),
            }
        })
    }

    #[allow(unsafe_code)]
    fn pwait2(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let timeout = timeout.map(|t| *TimeSpec::from_duration(t.min(MAX_WAIT)).as_ref());
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the event pointer and count describe a live, writable vector; `timeout` is null or points
        // to a timespec that outlives the call; a null signal mask leaves the mask alone, whatever its size
        // argument.
        let n = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.0.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                timeout,
                std::ptr::null::<libc::sigset_t>(),
                8usize,
            )
        };
        Ok(Errno::result(n)? as usize)
    }

    #[allow(unsafe_code)]
    fn wait_with_timer(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        let mut millis = -1;
        match (timeout, &self.timer) {
            (Some(Duration::ZERO), _) => millis = 0,
            (Some(t), Some(timer)) => {
                let expiration = Expiration::OneShot(TimeSpec::from_duration(t.min(MAX_WAIT)));
                timer.set(expiration, TimerSetTimeFlags::empty())?;
            }
            (None, Some(timer)) => timer.unset()?,
            (_, None) => {}
        }
        // SAFETY: the event pointer and count describe a live, writable vector.
        let n = unsafe {
            libc::epoll_wait(
                self.epoll.0.as_raw_fd(),
                self.events.as_mut_ptr(),
                self.events.len() as libc::c_int,
                millis,
            )
        };
        Ok(Errno::result(n)? as usize)
    }
}

/// Ends a wait of a [`Poller`].
#[derive(Debug)]
pub(super) struct Bell(OwnedFd);

impl Bell {
    pub(super) fn ring(&self) {
        // Fails only if the counter is about to overflow, in which case the loop is already being woken.
        let _ = nix::unistd::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Longest single wait: keeps every timespec valid, and waking up once an hour costs nothing.
const MAX_WAIT: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn both() -> [Poller; 2] {
        let modern = Poller::new().unwrap();
        let mut old = Poller::new().unwrap();
        old.use_timer().unwrap();
        [modern, old]
    }

    #[test]
    fn timeouts_are_finer_than_a_millisecond() {
        for mut poller in both() {
            let best = (0..20)
                .map(|_| {
                    let start = Instant::now();
                    poller.wait(Some(Duration::from_micros(100))).unwrap();
                    assert_eq!(poller.ready().count(), 0);
                    start.elapsed()
                })
                .min()
                .unwrap();
            assert!(best >= Duration::from_micros(100), "{best:?}");
            assert!(best < Duration::from_micros(900), "{best:?}");
        }
    }

    #[test]
    fn an_edge_is_reported_once_and_a_level_as_long_as_it_lasts() {
        for mut poller in both() {
            let event = EventFd::new().unwrap();
            poller.add_edge(event.as_fd(), 7).unwrap();
            for _ in 0..2 {
                event.write(1).unwrap();
                poller.wait(None).unwrap();
                assert_eq!(poller.ready().map(|r| (r.token, r.readable)).collect::<Vec<_>>(), [(7, true)]);
                poller.wait(Some(Duration::ZERO)).unwrap();
                assert_eq!(poller.ready().count(), 0);
            }
            let level = EventFd::new().unwrap();
            poller.add(level.as_fd(), 8).unwrap();
            level.write(1).unwrap();
            for _ in 0..2 {
                poller.wait(None).unwrap();
                assert_eq!(poller.ready().map(|r| r.token).collect::<Vec<_>>(), [8]);
            }
            poller.watch_writable(level.as_fd(), 8, true).unwrap();
            poller.wait(None).unwrap();
            assert!(poller.ready().all(|r| r.readable && r.writable));
            poller.remove(level.as_fd());
            poller.wait(Some(Duration::ZERO)).unwrap();
            assert_eq!(poller.ready().count(), 0);
        }
    }
}
