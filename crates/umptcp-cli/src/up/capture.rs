//! Connections that programs of this host begin, or hosts behind it, taken into the stack without their help.

use super::instance;
use crate::control::run_summary;
use crate::failure::Class;
use crate::session::Session;
use crate::transport::user_space::{CAPTURED, UserSpace, View, captured};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use umptcp::{Forwarder, Traffic};
use umptcp_capture::{Adopted, CaptureError, HostCapture, Owners, Periodic, Selection};
use umptcp_control::state::RunSummary;
use umptcp_tun_driver::error::DriverError;

/// The MTU where that of no NIC is known.
const MTU: u16 = 1500;

/// How often to look whether connections have ended.
const LOOK: Duration = Duration::from_millis(20);

/// How often to look whether programs have ended that asked to be captured.
const LOOK_AT_PROGRAMS: Duration = Duration::from_millis(250);

/// Most programs at once that asked to be captured. Each takes a rule.
const MOST_PROGRAMS: usize = 1_024;

/// Capture that runs. Dropping it undoes it.
pub(super) struct Capture {
    // Ends before what it looks at.
    _programs: Periodic,
    shared: Arc<Shared>,
}

/// What is captured, for whoever adds to it.
pub(super) struct Shared {
    forwarder: Arc<Forwarder>,
    view: View,
    wanted: Mutex<Wanted>,
    /// `None` once a signal has undone it.
    host: Arc<Mutex<Option<HostCapture>>>,
}

#[derive(Default)]
struct Wanted {
    /// What the configuration says.
    selections: Vec<Selection>,
    /// Programs that asked for it, by their numbers.
    programs: BTreeMap<u64, Adopted>,
    next: u64,
    /// Nothing is added any more.
    ended: bool,
}

impl Capture {
    /// Sets it up. Nothing is captured yet.
    ///
    /// # Errors
    /// When another daemon captures on this host, or the kernel or nftables refuses.
    pub(super) fn start(stack: &UserSpace, session: &Session) -> anyhow::Result<Capture> {
        let failed = || Class::Host.failure("cannot capture");
        let view = stack.view();
        let host = Arc::new(Mutex::new(None));
        // Before anything is set up, because a signal may arrive at any time.
        let on_signal = host.clone();
        session.on_signal(move || drop(lock(&on_signal).take()));
        let nics = view.clone();
        let (capture, tun) =
            HostCapture::start(largest_mtu(&view.nics()), move || nics.nics()).map_err(captured_by)?;
        *lock(&host) = Some(capture);
        let forwarder = Arc::new(stack.capture_outward(captured(CAPTURED, tun)).with_context(failed)?);
        tell_apart(&forwarder);
        let shared = Arc::new(Shared { forwarder, view, wanted: Mutex::default(), host });
        let looked_at = Arc::downgrade(&shared);
        let programs = Periodic::start("umptcp-programs", LOOK_AT_PROGRAMS, move || {
            let Some(shared) = looked_at.upgrade() else { return ControlFlow::Break(()) };
            shared.let_go_of_ended();
            ControlFlow::Continue(())
        });
        Ok(Capture { _programs: programs.with_context(failed)?, shared })
    }

    /// From now on this is captured. What was captured before goes on, and so do programs that asked for it.
    ///
    /// # Errors
    /// What nftables objects to; everything stays as it was then.
    pub(super) fn select(&mut self, selections: &[Selection]) -> anyhow::Result<()> {
        let mut wanted = lock(&self.shared.wanted);
        if wanted.selections != selections {
            selections.iter().flat_map(|s| &s.from).try_for_each(|device| check_forwarding(device))?;
            let before = std::mem::replace(&mut wanted.selections, selections.to_vec());
            if let Err(error) = self.shared.apply(&wanted) {
                wanted.selections = before;
                return Err(anyhow::Error::new(error).context(Class::Host.failure("cannot capture")));
            }
        }
        Ok(())
    }

    /// Nothing new is captured, whoever has asked for it.
    pub(super) fn end(&mut self) {
        let mut wanted = lock(&self.shared.wanted);
        wanted.ended = true;
        wanted.selections.clear();
        for program in std::mem::take(&mut wanted.programs).into_values() {
            self.shared.let_go(&program);
        }
        if let Err(error) = self.shared.apply(&wanted) {
            tracing::warn!(%error, "cannot end the capture");
        }
    }

    /// What sends captured connections on.
    pub(super) fn forwarder(&self) -> Arc<Forwarder> {
        self.shared.forwarder.clone()
    }

    /// What programs that ask for it are added to.
    pub(super) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Waits until all that was captured has ended, until then at most.
    pub(super) fn wait(&self, end: Instant) {
        let forwarder = &self.shared.forwarder;
        while Instant::now() < end && forwarder.connections().is_ok_and(|open| !open.is_empty()) {
            std::thread::sleep(LOOK);
        }
    }
}

/// Names the daemon that captures already.
fn captured_by(error: CaptureError) -> anyhow::Error {
    let CaptureError::Host(DriverError::Diverted { process: Some(process), .. }) = &error else {
        return anyhow::Error::new(error).context(Class::Host.failure("cannot capture"));
    };
    let (who, end) = match instance::name_of(*process) {
        Some(name) => (format!("the daemon {name:?} (process {process})"), format!("`umptcp down {name}`")),
        None => (format!("process {process}"), format!("`kill {process}`")),
    };
    let text = format!(
        "cannot capture: {who} captures on this host already, and one daemon does; end it by {end}, or have what this one is to          capture in the configuration of that one ([[capture]], [gateway] and [run])"
    );
    Class::Host.failure(text).into()
}

/// Has connections tagged with the cgroups that they are of. Without that, nothing is known of programs'.
fn tell_apart(forwarder: &Forwarder) {
    let tagged = Owners::open().map(|owners| {
        let owners = Mutex::new(owners);
        forwarder.tag_by(move |client, server| lock(&owners).cgroup(client, server))
    });
    match tagged {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "connections cannot be told apart"),
        Err(error) => tracing::warn!(%error, "connections cannot be told apart"),
    }
}

impl Shared {
    /// Has nftables do as is wanted now.
    fn apply(&self, wanted: &Wanted) -> Result<(), CaptureError> {
        let programs = wanted.programs.values().map(Adopted::selection);
        let all: Vec<Selection> = wanted.selections.iter().cloned().chain(programs).collect();
        match &*lock(&self.host) {
            Some(host) => host.select(&all, self.view.nics()),
            None => Ok(()),
        }
    }

    /// Names of the paths by which captured connections leave.
    pub(super) fn paths(&self) -> Vec<String> {
        self.view.paths()
    }

    /// Captures a process, and what it starts. `is_it` says, once it has been moved, whether it is still the
    /// one that was meant. Returns its number.
    ///
    /// # Errors
    /// When there are too many already, it is not the one, or the kernel or nftables refuses. Nothing is left
    /// then.
    pub(super) fn adopt(&self, process: u32, is_it: impl FnOnce() -> bool) -> anyhow::Result<u64> {
        let mut wanted = lock(&self.wanted);
        anyhow::ensure!(!wanted.ended, "the daemon ends");
        anyhow::ensure!(wanted.programs.len() < MOST_PROGRAMS, "{MOST_PROGRAMS} programs run already");
        let host = || lock(&self.host);
        let program = host().as_ref().context("the daemon ends")?.adopt(process)?;
        let number = wanted.next;
        wanted.next += 1;
        self.forwarder.count(program.id());
        wanted.programs.insert(number, program);
        // Captured before it is moved: not even its first connection goes another way.
        let moved = self.apply(&wanted).and_then(|()| wanted.programs[&number].take(process));
        let known = moved.map_err(anyhow::Error::new).and_then(|()| {
            anyhow::ensure!(is_it(), "the process has ended");
            Ok(())
        });
        if let Err(error) = known {
            if let Some(program) = wanted.programs.remove(&number) {
                self.let_go(&program);
            }
            if let Err(error) = self.apply(&wanted) {
                tracing::warn!(%error, "cannot change what is captured");
            }
            return Err(error);
        }
        Ok(number)
    }

    /// What became of the connections of a program; `None`: it has ended, or there was none by that number.
    pub(super) fn summary(&self, number: u64) -> Option<RunSummary> {
        let tag = lock(&self.wanted).programs.get(&number)?.id();
        let counted = self.forwarder.counted(tag).ok()??;
        let unused = self.paths().into_iter().map(|nic| (nic, Traffic::default()));
        let mut carried: BTreeMap<String, Traffic> = unused.collect();
        carried.extend(counted.carried);
        Some(run_summary(&counted.summary, &counted.open, carried))
    }

    /// Removes the cgroups of programs that have ended, and the rules for them.
    fn let_go_of_ended(&self) {
        let mut wanted = lock(&self.wanted);
        let before = wanted.programs.len();
        wanted.programs.retain(|_, program| {
            let ended = lock(&self.host).as_ref().is_none_or(|host| host.release_ended(program));
            if ended {
                self.forwarder.stop_counting(program.id());
            }
            !ended
        });
        if wanted.programs.len() != before
            && let Err(error) = self.apply(&wanted)
        {
            tracing::warn!(%error, "cannot change what is captured");
        }
    }

    /// A program is not captured any more. It goes on where it came from.
    fn let_go(&self, program: &Adopted) {
        self.forwarder.stop_counting(program.id());
        if let Some(host) = &*lock(&self.host)
            && let Err(error) = host.release(program)
        {
            tracing::warn!(%error, "a cgroup stays until the end");
        }
    }
}

/// A host that does not forward is no gateway. Which packets it forwards is not ours to say, so that stays as
/// it is.
fn check_forwarding(device: &str) -> anyhow::Result<()> {
    let setting = |family: &str| {
        let file = format!("/proc/sys/net/{family}/conf/{device}/forwarding");
        std::fs::read_to_string(file).ok().map(|text| text.trim() == "1")
    };
    match (setting("ipv4"), setting("ipv6")) {
        (Some(false), Some(false) | None) => {
            let text = format!(
                "this host forwards nothing that comes by {device}, so it is no gateway: sysctl -w net.ipv4.ip_forward=1"
            );
            Err(Class::Host.failure(text).into())
        }
        (None, _) => {
            tracing::warn!(device, "there is no such device; what comes by it is captured once there is");
            Ok(())
        }
        _ => Ok(()),
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Whoever waits for signals holds it, too.
        drop(lock(&self.shared.host).take());
    }
}

/// No packet for a NIC is too large for the device that takes its place.
fn largest_mtu(nics: &[String]) -> u16 {
    let of = |nic: &String| {
        let text = std::fs::read_to_string(Path::new("/sys/class/net").join(nic).join("mtu")).ok()?;
        text.trim().parse::<u16>().ok()
    };
    nics.iter().filter_map(of).max().unwrap_or(MTU).max(MTU)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
