//! Paths that fall silent: packets leave the stack and nothing comes back.
//!
//! The stack finds that out by itself and uses other paths. Here the host is tested in both directions, to
//! name the cause.

use super::Manager;
use crate::described::Mode;
use crate::described::PathChange;
use crate::error::DriverError;
use crate::paths::nics::Snapshot;
use crate::paths::{check, nfnetlink, sysctl};
use std::time::Duration;

/// How often to look at a path's counters.
pub(super) const TICK: Duration = Duration::from_secs(3);
/// After how many looks in a row that found packets only outward a path is silent.
const TICKS: u32 = 2;

/// A path's counters, and what they said.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Packets from the stack and to it. `None` before the first look.
    seen: Option<(u64, u64)>,
    ticks: u32,
    /// Silent, and the cause has been named.
    silent: bool,
}

/// What to do after a look at the counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Nothing,
    Silent,
    HeardAgain,
}

impl Traffic {
    fn look(&mut self, now: (u64, u64)) -> Verdict {
        let Some((outward, inward)) = self.seen.replace(now) else { return Verdict::Nothing };
        if now.1 != inward {
            self.ticks = 0;
            return if std::mem::take(&mut self.silent) { Verdict::HeardAgain } else { Verdict::Nothing };
        }
        // Without packets in either direction, nothing can be said.
        self.ticks = if now.0 == outward { 0 } else { self.ticks + 1 };
        if self.ticks < TICKS || std::mem::replace(&mut self.silent, true) {
            return Verdict::Nothing;
        }
        Verdict::Silent
    }
}

impl Manager {
    /// Looks for paths that have fallen silent.
    pub(super) async fn look_for_silence(&mut self) {
        for i in 0..self.paths.len() {
            let path = &self.paths[i];
            if !path.usable {
                continue;
            }
            let Ok(now) = self.netlink.traffic(path.tun_index).await else { continue };
            match self.paths[i].traffic.look(now) {
                Verdict::Nothing => {}
                Verdict::HeardAgain => {
                    tracing::info!(device = self.paths[i].nic, "something answers over this path again");
                }
                Verdict::Silent => {
                    let (ours, cause) = match self.examine(i).await {
                        Ok(Some(cause)) => (true, cause),
                        Ok(None) => (
                            false,
                            "this host passes its packets in both directions, so the cause is in the network"
                                .into(),
                        ),
                        Err(error) => (true, error.to_string()),
                    };
                    let path = &self.paths[i];
                    // A server that is down is no fault of this host.
                    if ours {
                        tracing::warn!(device = path.nic, "nothing answers over this path: {cause}");
                    } else {
                        tracing::info!(device = path.nic, "nothing answers over this path: {cause}");
                    }
                    self.tell(PathChange::Silent { tun: path.tun.clone(), cause });
                }
            }
        }
    }

    /// Why this host does not pass a path's packets; `None` if it does.
    async fn examine(&mut self, i: usize) -> Result<Option<String>, DriverError> {
        // Puts back rules that are missing or overtaken.
        self.keep_rules(i).await?;
        let path = &self.paths[i];
        let Some(nic_index) = path.nic_index else { return Ok(Some(format!("{} is gone", path.nic))) };
        if path.mode == Mode::Nat {
            for own in &path.addresses {
                if !path.nic_addresses.iter().any(|a| a.is_ipv6() == own.is_ipv6()) {
                    let family = if own.is_ipv6() { "IPv6" } else { "IPv4" };
                    return Ok(Some(format!("{} has lost its {family} address", path.nic)));
                }
            }
            let tables =
                nfnetlink::tables().map_err(|e| DriverError::netlink("list the tables of nftables", e))?;
            if !tables.iter().any(|(_, name)| *name == path.tun) {
                return Ok(Some(format!("the nftables table {} is missing", path.tun)));
            }
        }
        if let Some(setting) = self.forwarding_off(i) {
            return Ok(Some(format!("{setting} is 0; somebody has changed it (set it to 1)")));
        }
        let lost = path.direction(nic_index).is_lost(&self.netlink).await;
        if lost.map_err(|e| DriverError::netlink("look up the path's routes", e))? {
            let what = "a routing rule or the reverse-path filter (rp_filter) of this host takes its packets elsewhere";
            return Ok(Some(what.into()));
        }
        let snapshot = Snapshot::take(&self.netlink).await?;
        match self.check(i, &snapshot, false) {
            Err(error @ DriverError::Blocked { .. }) => return Ok(Some(error.to_string())),
            other => other?,
        }
        let path = &self.paths[i];
        let nft = self.nft.as_ref().filter(|_| path.stateless);
        if let Some(nft) = nft
            && let Some(chain) = check::drops_what_is_untracked(nft)
        {
            // Translation is about to change to connection tracking.
            return Ok(Some(format!("the firewall's chain {chain} may drop its packets")));
        }
        Ok(None)
    }

    /// The setting, one of those that let the path's packets pass, that is off.
    fn forwarding_off(&self, i: usize) -> Option<String> {
        let path = &self.paths[i];
        let off = |setting: &String| sysctl::number(setting) == Some(0);
        for device in [&path.nic, &path.tun] {
            let v4 = format!("net/ipv4/conf/{device}/forwarding");
            if path.has(false) && off(&v4) {
                return Some(v4);
            }
            let v6 = format!("net/ipv6/conf/{device}/force_forwarding");
            let all = "net/ipv6/conf/all/forwarding".to_owned();
            let forced = path.forwarding.force_v6;
            if path.has(true) && off(&all) && (!forced || off(&v6)) {
                return Some(if forced { v6 } else { all });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_silent_when_packets_only_leave_for_a_while() {
        let mut traffic = Traffic::default();
        let mut looks = |list: &[(u64, u64)]| list.iter().map(|now| traffic.look(*now)).collect::<Vec<_>>();
        use Verdict::{HeardAgain, Nothing, Silent};
        assert_eq!(
            looks(&[(5, 5), (5, 5), (9, 6), (10, 6), (10, 6), (11, 6)]),
            [Nothing; 6],
            "idle, or alive"
        );
        assert_eq!(looks(&[(12, 6), (13, 6), (14, 6)]), [Silent, Nothing, Nothing], "said once");
        assert_eq!(looks(&[(14, 7), (15, 7), (16, 7)]), [HeardAgain, Nothing, Silent]);
    }
}
