//! A short time slice for the thread of the event loop.
//!
//! On a busy host a thread that is woken waits until the one that runs has had its slice: some 3 ms. That is a
//! round trip of many networks, added to each packet that has to be answered; the kernel's TCP runs in interrupts and
//! does not wait. Since Linux 6.12 a thread may ask for slices of another length (`sched_setattr(2)`,
//! `sched_runtime` of SCHED_OTHER): with a short one it is run soon after it is woken, and interrupted sooner. Its
//! share of the processor stays the same, so it needs no privilege. Older kernels ignore it.

use nix::errno::Errno;
use nix::libc;
use std::mem::size_of;
use std::time::Duration;

/// The shortest that Linux allows.
const SLICE: Duration = Duration::from_micros(100);

/// `struct sched_attr` of `linux/sched/types.h`, in its first version.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const SIZE: u32 = size_of::<Attributes>() as u32;

/// Asks for it for the calling thread, and for none that it starts. A thread of another policy than SCHED_OTHER stays
/// as it is: somebody has chosen that.
///
/// # Errors
///
/// When the kernel refuses, which changes nothing.
pub(super) fn shorten() -> Result<(), Errno> {
    let mut attributes = get()?;
    if attributes.policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.runtime = SLICE.as_nanos() as u64;
    attributes.flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    set(&attributes)
}

#[allow(unsafe_code)]
fn get() -> Result<Attributes, Errno> {
    let mut attributes = Attributes::default();
    // SAFETY: the pointer is to a live structure of the size that is told; 0 is the calling thread.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, std::ptr::from_mut(&mut attributes), SIZE, 0) };
    Errno::result(result).map(|_| attributes)
}

#[allow(unsafe_code)]
fn set(attributes: &Attributes) -> Result<(), Errno> {
    let attributes = Attributes { size: SIZE, ..*attributes };
    // SAFETY: the pointer is to a live structure that says its size; 0 is the calling thread.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.12 and later: `SCHED_OTHER` has a slice that can be asked for.
    fn known() -> bool {
        get().is_ok_and(|attributes| attributes.runtime > 0)
    }

    #[test]
    fn a_thread_asks_for_itself_and_for_nobody_else() {
        let run = || {
            let before = get().expect("there is such a call");
            shorten().expect("it needs no privilege");
            let after = get().expect("there is such a call");
            assert_eq!((after.policy, after.nice), (before.policy, before.nice));
            let child = std::thread::spawn(|| get().expect("there is such a call")).join().expect("it ends");
            if known() {
                assert_eq!(after.runtime, 100_000);
                assert!(child.runtime > after.runtime, "{child:?} of {after:?}, before {before:?}");
            }
        };
        std::thread::spawn(run).join().expect("nothing fails");
    }
}
