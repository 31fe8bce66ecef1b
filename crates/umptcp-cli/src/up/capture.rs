//! Connections that programs of this host begin, or hosts behind it, taken into the stack without their help.

use crate::failure::Class;
use crate::session::Session;
use crate::transport::user_space::{CAPTURED, UserSpace, View, captured};
use anyhow::Context as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use umptcp::Forwarder;
use umptcp_capture::{HostCapture, Selection};

/// The MTU where that of no NIC is known.
const MTU: u16 = 1500;

/// How often to look whether connections have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Capture that runs. Dropping it undoes it.
pub(super) struct Capture {
    forwarder: Arc<Forwarder>,
    view: View,
    selections: Vec<Selection>,
    /// `None` once a signal has undone it.
    host: Arc<Mutex<Option<HostCapture>>>,
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
            HostCapture::start(largest_mtu(&view.nics()), move || nics.nics()).with_context(failed)?;
        *lock(&host) = Some(capture);
        let forwarder = Arc::new(stack.capture_outward(captured(CAPTURED, tun)).with_context(failed)?);
        Ok(Capture { forwarder, view, selections: Vec::new(), host })
    }

    /// From now on this is captured. What was captured before goes on.
    ///
    /// # Errors
    /// What nftables objects to; everything stays as it was then.
    pub(super) fn select(&mut self, selections: &[Selection]) -> anyhow::Result<()> {
        if self.selections != selections {
            selections.iter().flat_map(|s| &s.from).try_for_each(|device| check_forwarding(device))?;
            if let Some(host) = &*lock(&self.host) {
                host.select(selections, self.view.nics()).context(Class::Host.failure("cannot capture"))?;
            }
            self.selections = selections.to_vec();
        }
        Ok(())
    }

    /// What sends captured connections on.
    pub(super) fn forwarder(&self) -> Arc<Forwarder> {
        self.forwarder.clone()
    }

    /// Waits until all that was captured has ended, until then at most.
    pub(super) fn wait(&self, end: Instant) {
        while Instant::now() < end && self.forwarder.connections().is_ok_and(|open| !open.is_empty()) {
            std::thread::sleep(LOOK);
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
        drop(lock(&self.host).take());
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
