//! Capture in the host's own namespace: connections that programs of this host begin, of some cgroups or
//! users or to some destinations, go into a TUN device, and so do connections of other hosts that this one
//! routes. Everything else stays as it is.
//!
//! Only a SYN is looked at. Connection tracking remembers which connections were taken, so that those that
//! there were before, and those of the host's servers, are never touched. What does not leave by a NIC with a
//! path (to a container, by a VPN, to this host itself) is left alone, and so are sockets with [`OWN_MARK`]:
//! what is captured can never be umptcp itself.

use crate::error::CaptureError;
use crate::periodic::Periodic;
use ipnet::IpNet;
use nix::sys::socket::{setsockopt, sockopt};
use std::fmt::Write as _;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use umptcp_tun_driver::device::{Tun, TunOptions};
use umptcp_tun_driver::paths::{Cgroup, Diversion, Diverted, cgroup_root, divert};

/// The bit of the mark that sockets of umptcp's own carry: they are never captured.
pub const OWN_MARK: u32 = 0x0200_0000;

/// The bit that captured packets carry, and the connection tracking's entries of their connections.
const CAPTURED: u32 = 0x0100_0000;

/// The table of nftables.
const TABLE: &str = "umptcp-capture";

/// How often to look whether cgroups or NICs have come or gone. A service that is started again has a new
/// cgroup.
const LOOK: Duration = Duration::from_millis(250);

/// What is captured: connections to which all of this applies.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Of programs in this cgroup (version 2) and those below, by its path from the root of cgroups. It may
    /// come later.
    pub cgroup: Option<String>,
    /// Of this user.
    pub user: Option<u32>,
    /// Of other hosts, which reach this one by these devices and are routed by it. Empty: of this host.
    pub from: Vec<String>,
    /// To these networks; empty: to all.
    pub to: Vec<IpNet>,
    /// But not to these.
    pub except: Vec<IpNet>,
    /// To these ports; empty: to all.
    pub ports: Vec<u16>,
}

/// Gives the socket the mark that keeps it from being captured.
///
/// # Errors
/// Without CAP_NET_ADMIN.
pub fn mark_own(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::Mark, &OWN_MARK)?)
}

/// A process that was taken into a cgroup of its own, with what it starts from then on.
#[derive(Debug)]
pub struct Adopted(Cgroup);

impl Adopted {
    /// What selects its connections.
    pub fn selection(&self) -> Selection {
        Selection { cgroup: Some(self.0.path().to_owned()), ..Selection::default() }
    }

    /// The number of the cgroup, as [`Owners`](crate::Owners) tells it.
    pub fn id(&self) -> u64 {
        self.0.id()
    }

    /// Moves the process in.
    ///
    /// # Errors
    /// What the kernel objects to.
    pub fn take(&self, process: u32) -> Result<(), CaptureError> {
        self.0.take(process).map_err(CaptureError::Process)
    }
}

/// Captures in the namespace of the thread that has started it. Dropping it undoes that.
#[derive(Debug)]
pub struct HostCapture {
    // Ends before what it works on.
    _follower: Periodic,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tun: String,
    diverted: Diverted,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    selections: Vec<Selection>,
    /// What the rules were made for.
    seen: Seen,
}

/// What rules depend on beside the selections.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Seen {
    /// The NICs by which connections may leave that are captured.
    nics: Vec<String>,
    /// For each selection that names a cgroup: where it is and its number; `None` while there is none.
    cgroups: Vec<Option<(PathBuf, u64)>>,
}

impl HostCapture {
    /// Sets up the device, which captures nothing yet. `nics` tells, again and again, which NICs have a path.
    ///
    /// # Errors
    /// When another instance captures on this host, or the kernel or nftables refuses.
    pub fn start(
        mtu: u16,
        nics: impl Fn() -> Vec<String> + Send + 'static,
    ) -> Result<(HostCapture, Tun), CaptureError> {
        let tun = Tun::open(&TunOptions::default().mtu(mtu))?;
        let name = tun.name().to_owned();
        let rules = rules(&name, &[], &Seen::default());
        let diversion = Diversion { mark: CAPTURED, table: TABLE, rules: &rules };
        let diverted = divert(&tun, mtu, &diversion).map_err(CaptureError::Host)?;
        let shared = Arc::new(Shared { tun: name, diverted, state: Mutex::default() });
        let of_thread = Arc::downgrade(&shared);
        let follower = Periodic::start("umptcp-capture", LOOK, move || {
            let Some(shared) = of_thread.upgrade() else { return ControlFlow::Break(()) };
            if let Err(error) = shared.look(nics()) {
                tracing::warn!(%error, "cannot change what is captured");
            }
            ControlFlow::Continue(())
        })?;
        Ok((HostCapture { _follower: follower, shared }, tun))
    }

    /// From now on this is captured. Connections that were captured before go on.
    ///
    /// # Errors
    /// What nftables objects to; everything stays as it was then.
    pub fn select(&self, selections: &[Selection], nics: Vec<String>) -> Result<(), CaptureError> {
        let mut state = self.shared.state();
        let seen = Seen::now(selections, nics);
        self.shared.apply(selections, &seen)?;
        *state = State { selections: selections.to_vec(), seen };
        Ok(())
    }

    /// Makes a cgroup for a process, below the one that it is in. Nothing of it is captured before it is
    /// selected, and it is not moved in yet.
    ///
    /// # Errors
    /// When there are no cgroups of version 2, or the kernel refuses.
    pub fn adopt(&self, process: u32) -> Result<Adopted, CaptureError> {
        self.shared.diverted.make_cgroup(process).map(Adopted).map_err(CaptureError::Process)
    }

    /// Removes the cgroup if all of its processes have ended. Returns whether it is gone.
    pub fn release_ended(&self, adopted: &Adopted) -> bool {
        self.shared.diverted.remove_ended(&adopted.0)
    }

    /// Removes the cgroup; its processes are again in the one that they came from.
    ///
    /// # Errors
    /// What the kernel objects to.
    pub fn release(&self, adopted: &Adopted) -> Result<(), CaptureError> {
        self.shared.diverted.remove_cgroup(&adopted.0).map_err(CaptureError::Process)
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what has changed.
    fn look(&self, nics: Vec<String>) -> Result<(), CaptureError> {
        let mut state = self.state();
        let seen = Seen::now(&state.selections, nics);
        if seen != state.seen {
            self.apply(&state.selections, &seen)?;
            tracing::debug!(?seen, "what is captured has changed");
            state.seen = seen;
        }
        Ok(())
    }

    fn apply(&self, selections: &[Selection], seen: &Seen) -> Result<(), CaptureError> {
        let rules = rules(&self.tun, selections, seen);
        self.diverted.set_rules(&rules).map_err(CaptureError::Host)
    }
}

impl Seen {
    fn now(selections: &[Selection], mut nics: Vec<String>) -> Seen {
        nics.sort();
        // Such a name cannot be written in a rule.
        nics.retain(|nic| !nic.contains(['"', '*', '\\', '$']));
        let named: Vec<&str> = selections.iter().filter_map(|s| s.cgroup.as_deref()).collect();
        // It takes a file to be read.
        let root = if named.is_empty() { None } else { cgroup_root() };
        let find = |name: &str| {
            let path = root.as_ref()?.join(name.trim_matches('/'));
            Some((path.clone(), path.metadata().ok()?.ino()))
        };
        Seen { nics, cgroups: named.into_iter().map(find).collect() }
    }
}

/// What is in the table of nftables.
fn rules(tun: &str, selections: &[Selection], seen: &Seen) -> String {
    let (of_host, of_others): (Vec<&Selection>, Vec<&Selection>) =
        selections.iter().partition(|selection| selection.from.is_empty());
    let devices: Vec<String> = of_others.iter().flat_map(|selection| selection.from.clone()).collect();
    // A connection that was taken stays so.
    let go_on = format!(
        "ct direction original ct mark and {CAPTURED:#x} == {CAPTURED:#x} meta mark set meta mark or {CAPTURED:#x}"
    );
    let mut s = format!(
        "chain take {{ ct mark set ct mark or {CAPTURED:#x} meta mark set meta mark or {CAPTURED:#x}\n}}\n\
         chain leaving {{ type route hook output priority mangle; policy accept;\n\
         meta l4proto != tcp return\n\
         meta mark and {OWN_MARK:#x} == {OWN_MARK:#x} return\n\
         tcp flags & (syn | ack) == syn goto begin\n{go_on}\n}}\n\
         chain arriving {{ type filter hook prerouting priority mangle; policy accept;\n\
         iifname \"{tun}\" meta mark set meta mark or {CAPTURED:#x} return\n\
         meta l4proto != tcp return\n"
    );
    // Writing to a String cannot fail. Those of hosts that are not served any more go on, too.
    if let Some(devices) = quoted(&devices) {
        let _ = writeln!(s, "iifname {devices} tcp flags & (syn | ack) == syn goto begin_of_others");
    }
    let _ = writeln!(s, "{go_on}\n}}");
    let nics = quoted(&seen.nics);
    let mut cgroups = seen.cgroups.iter();
    for (chain, selections) in [("begin", of_host), ("begin_of_others", of_others)] {
        // A mark that an earlier connection between the same ends has left is taken off first.
        let keep = !CAPTURED;
        let _ = write!(
            s,
            "chain {chain} {{\nct mark and {CAPTURED:#x} == {CAPTURED:#x} ct mark set ct mark and {keep:#x}\n\
             fib daddr type != unicast return\nip daddr 169.254.0.0/16 return\nip6 daddr fe80::/10 return\n"
        );
        for selection in selections {
            let cgroup = selection.cgroup.as_ref().map(|_| cgroups.next().cloned().flatten());
            // A cgroup that there is not has no programs, and without a NIC nothing leaves.
            if let (Some(nics), false) = (&nics, cgroup == Some(None)) {
                // Where it leaves is not decided yet when it arrives.
                let by = match quoted(&selection.from) {
                    None => format!("oifname {nics}"),
                    Some(from) => format!("iifname {from} fib daddr oifname {nics}"),
                };
                let cgroup = cgroup.flatten().map(|(path, _)| path);
                selection.write(&mut s, &by, cgroup.as_deref());
            }
        }
        s.push_str("}\n");
    }
    s
}

/// Names of devices, in a form that a rule can match; `None` without any.
fn quoted(devices: &[String]) -> Option<String> {
    let all: Vec<String> = devices.iter().map(|device| format!("\"{device}\"")).collect();
    (!all.is_empty()).then(|| format!("{{ {} }}", all.join(", ")))
}

impl Selection {
    /// Its rules, one for each family.
    fn write(&self, s: &mut String, leaving: &str, cgroup: Option<&Path>) {
        let mut common = leaving.to_owned();
        if let Some(path) = cgroup {
            // nft looks below /sys/fs/cgroup, wherever cgroups are mounted.
            let path = path.display().to_string();
            let level =
                self.cgroup.as_deref().unwrap_or_default().split('/').filter(|p| !p.is_empty()).count();
            let _ = write!(common, " socket cgroupv2 level {level} \"../../..{path}\"");
        }
        if let Some(user) = self.user {
            let _ = write!(common, " meta skuid {user}");
        }
        if !self.ports.is_empty() {
            let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
            let _ = write!(common, " tcp dport {{ {} }}", ports.join(", "));
        }
        for (v6, family, ip) in [(false, "ipv4", "ip"), (true, "ipv6", "ip6")] {
            let (to, except) = (set_of(&self.to, v6), set_of(&self.except, v6));
            if to.is_none() && !self.to.is_empty() {
                continue;
            }
            let to = to.map_or_else(String::new, |to| format!(" {ip} daddr {to}"));
            let except = except.map_or_else(String::new, |except| format!(" {ip} daddr != {except}"));
            let _ = writeln!(s, "meta nfproto {family} {common}{to}{except} goto take");
        }
    }
}

/// The networks of a family, in a form that a rule can match.
fn set_of(nets: &[IpNet], v6: bool) -> Option<String> {
    let of_family: Vec<IpNet> = nets.iter().copied().filter(|net| net.addr().is_ipv6() == v6).collect();
    let all: Vec<String> = IpNet::aggregate(&of_family).iter().map(IpNet::to_string).collect();
    (!all.is_empty()).then(|| format!("{{ {} }}", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(selection: Selection, seen: &Seen) -> Vec<String> {
        let all = rules("umptcp3", &[selection], seen);
        all.lines().filter(|line| line.ends_with("goto take")).map(str::to_owned).collect()
    }

    fn seen(cgroups: Vec<Option<(PathBuf, u64)>>) -> Seen {
        Seen { nics: vec!["eth0".into()], cgroups }
    }

    #[test]
    fn each_selection_is_a_rule_of_each_family_that_it_is_about() {
        let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect::<Vec<IpNet>>();
        let all = lines(Selection::default(), &seen(vec![]));
        assert_eq!(
            all,
            [
                "meta nfproto ipv4 oifname { \"eth0\" } goto take",
                "meta nfproto ipv6 oifname { \"eth0\" } goto take"
            ]
        );
        let to = Selection {
            to: nets(&["10.0.0.0/9", "10.128.0.0/9", "192.0.2.1/32"]),
            except: nets(&["10.1.0.0/16", "fd00::/8"]),
            ports: vec![80, 443],
            user: Some(1000),
            ..Selection::default()
        };
        assert_eq!(
            lines(to, &seen(vec![])),
            [
                "meta nfproto ipv4 oifname { \"eth0\" } meta skuid 1000 tcp dport { 80, 443 } ip daddr { 10.0.0.0/8, 192.0.2.1/32 } \
                 ip daddr != { 10.1.0.0/16 } goto take"
            ]
        );
    }

    #[test]
    fn what_comes_from_other_hosts_is_looked_at_where_it_arrives() {
        let lan = Selection { from: vec!["lan0".into()], ports: vec![80], ..Selection::default() };
        let expected = "iifname { \"lan0\" } fib daddr oifname { \"eth0\" } tcp dport { 80 } goto take";
        let of = |family| format!("meta nfproto {family} {expected}");
        assert_eq!(lines(lan.clone(), &seen(vec![])), [of("ipv4"), of("ipv6")]);
        let all = rules("umptcp3", &[lan], &seen(vec![]));
        assert!(
            all.contains("iifname { \"lan0\" } tcp flags & (syn | ack) == syn goto begin_of_others\n"),
            "{all}"
        );
        assert!(!rules("umptcp3", &[], &seen(vec![])).contains("goto begin_of_others"));
    }

    #[test]
    fn a_cgroup_that_is_not_there_captures_nothing() {
        let cgroup = || Selection { cgroup: Some("/system.slice/a.service".into()), ..Selection::default() };
        assert_eq!(lines(cgroup(), &seen(vec![None])), [""; 0]);
        let there = seen(vec![Some(("/cg/system.slice/a.service".into(), 7))]);
        let rules = lines(cgroup(), &there);
        assert!(
            rules[0].contains("socket cgroupv2 level 2 \"../../../cg/system.slice/a.service\""),
            "{rules:?}"
        );
        assert_eq!(lines(cgroup(), &Seen { nics: vec![], ..there }), [""; 0]);
    }
}
