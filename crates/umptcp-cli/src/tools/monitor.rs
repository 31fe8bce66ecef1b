//! `monitor`.

use super::{connect, failed, print_json};
use crate::args::tools::MonitorArgs;
use crate::console::{print, say};
use std::fmt::Write as _;
use std::net::SocketAddr;
use umptcp_control::state::Event;
use umptcp_control::{Code, ControlError};

pub(crate) fn monitor(args: &MonitorArgs) -> anyhow::Result<()> {
    let client = connect(&args.instance)?;
    let name = client.greeting().name.clone();
    let events = client.monitor().map_err(failed)?;
    tracing::info!("watching {name}");
    for event in events {
        match event {
            Ok(event) if args.instance.json => print_json(&event)?,
            Ok(event) => print(&line(&event))?,
            Err(ControlError::Ended) => break,
            Err(ControlError::Refused(failure)) if failure.code == Code::Ending => break,
            Err(error) => return Err(failed(error)),
        }
    }
    say("umptcp: the instance has ended");
    Ok(())
}

/// An event as `ip mptcp monitor` prints it.
fn line(e: &Event) -> String {
    let mut s = format!("[{:>16}]", e.event);
    // Writing to a String cannot fail.
    if let Some(token) = e.token {
        let _ = write!(s, " token={token:08x}");
    } else if let Some(connection) = e.connection {
        // Plain TCP has no token.
        let _ = write!(s, " connection={connection}");
    }
    let mut number = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            let _ = write!(s, " {name}={value}");
        }
    };
    number("remid", e.remote_id.map(u64::from));
    number("locid", e.local_id.map(u64::from));
    address(&mut s, 's', e.local);
    address(&mut s, 'd', e.remote);
    for (name, end) in [("sport", e.local), ("dport", e.remote)] {
        if let Some(end) = end {
            let _ = write!(s, " {name}={}", end.port());
        }
    }
    let mut number = |name: &str, value: Option<i64>| {
        if let Some(value) = value {
            let _ = write!(s, " {name}={value}");
        }
    };
    number("backup", e.backup.map(i64::from));
    number("error", e.error.map(i64::from));
    number("reset_reason", e.reset_reason.map(i64::from));
    number("reset_flags", e.reset_flags.map(i64::from));
    number("ifindex", e.ifindex.map(i64::from));
    number("missed", e.missed.map(|n| n as i64));
    if e.server_side == Some(true) {
        s.push_str(" server_side");
    }
    if let Some(path) = &e.path {
        let _ = write!(s, " dev={path}");
    }
    for address in &e.addresses {
        let _ = write!(s, " address={address}");
    }
    if let Some(reason) = &e.reason {
        let _ = write!(s, " reason=\"{reason}\"");
    }
    s
}

fn address(s: &mut String, side: char, end: Option<SocketAddr>) {
    if let Some(end) = end {
        let _ = write!(s, " {side}addr{}={}", if end.is_ipv4() { 4 } else { 6 }, end.ip());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_ip_mptcp_monitor() {
        let ends = |local: &str, remote: &str| (local.parse().ok(), remote.parse().ok());
        let (local, remote) = ends("10.0.1.1:1025", "10.0.0.2:80");
        let created = Event {
            event: "CREATED".to_owned(),
            token: Some(0x00e3_d83f),
            connection: Some(3),
            remote_id: Some(0),
            local_id: Some(0),
            local,
            remote,
            server_side: Some(false),
            ..Event::default()
        };
        assert_eq!(
            line(&created),
            "[         CREATED] token=00e3d83f remid=0 locid=0 saddr4=10.0.1.1 daddr4=10.0.0.2 sport=1025 dport=80"
        );
        let (local, remote) = ends("[2001:db8::1]:1", "[2001:db8::2]:2");
        let closed = Event {
            event: "SF_CLOSED".to_owned(),
            token: Some(1),
            local,
            remote,
            backup: Some(true),
            error: Some(104),
            reset_reason: Some(3),
            reset_flags: Some(1),
            ifindex: Some(4),
            path: Some("eth1".to_owned()),
            server_side: Some(true),
            reason: Some("connection reset by peer".to_owned()),
            ..Event::default()
        };
        assert_eq!(
            line(&closed),
            "[       SF_CLOSED] token=00000001 saddr6=2001:db8::1 daddr6=2001:db8::2 sport=1 dport=2 backup=1 error=104 \
             reset_reason=3 reset_flags=1 ifindex=4 server_side dev=eth1 reason=\"connection reset by peer\""
        );
        let fallback = Event { event: "FALLBACK".to_owned(), connection: Some(7), ..Event::default() };
        assert_eq!(line(&fallback), "[        FALLBACK] connection=7");
    }
}
