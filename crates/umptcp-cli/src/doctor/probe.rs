//! What the way to a server does to MPTCP, path by path.

use super::handmade::{self, Join, Joins, Later, Syn, Text, Way};
use super::{Finding, trace};
use crate::args::{DoctorArgs, HostPort};
use crate::failure::usage;
use crate::registry::Registry;
use crate::session::Session;
use crate::transport::Subflow;
use crate::transport::resolve;
use crate::transport::user_space::{Connection, Settings, UserSpace};
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};
use umptcp::{FallbackReason, Protocol};

/// How long the server gets to say something, and other paths to join.
const PATIENCE: Duration = Duration::from_secs(3);

/// So much of what the server says is listened to.
const ENOUGH: usize = 256 << 10;

/// What a server without MPTCP needs.
const SWITCH_ON: &str =
    "on a Linux server: sysctl -w net.mptcp.enabled=1, and start its program with `mptcpize run`";

/// What a path did.
enum Seen {
    /// Not even TCP.
    Nothing(String),
    /// TCP, and why not MPTCP.
    Tcp(Protocol),
    Mptcp(Duration),
}

/// Connects by each path alone, and then by all together.
pub(super) fn examine(
    server: &HostPort,
    args: &DoctorArgs,
    registry: &Registry,
) -> anyhow::Result<Vec<Finding>> {
    let (host, port) = server.with(None, Some(80)).map_err(usage)?;
    let remotes = resolve(host, port, &args.target)?;
    let request = match &args.request {
        Some(text) => text.replace("\\r", "\r").replace("\\n", "\n").into_bytes(),
        None if matches!(port, 80 | 8080) => format!("HEAD / HTTP/1.0\r\nHost: {host}\r\n\r\n").into_bytes(),
        None => Vec::new(),
    };
    let session = Session::start()?;
    let (by_hand, joins) = by_hand(args, &remotes, &request, &session);
    // With checksums, a path that rewrites what is sent is found out (RFC 8684 section 3.3.1).
    let settings = Settings { paths: args.paths.clone(), checksum: true, ..Settings::default() };
    let stack = UserSpace::open(&settings, registry, &session)?;
    let probe = Probe { stack: &stack, remotes: &remotes, timeout: args.target.timeout, request: &request };
    let seen: Vec<(String, Seen)> =
        stack.paths().into_iter().map(|path| (path.clone(), probe.by(&path))).collect();
    let speaks = seen.iter().any(|(_, seen)| matches!(seen, Seen::Mptcp(_)))
        || by_hand.iter().any(|(_, seen)| seen.syn == Syn::Passes);
    let leave = |path: &str| leave_out(path, seen.iter().map(|(name, _)| name.as_str()));
    let mut findings: Vec<Finding> = Vec::new();
    for (path, seen) in &seen {
        let hand = by_hand.iter().find(|(name, _)| name == path).map(|(_, seen)| seen);
        findings.extend(describe(path, seen, hand, speaks, &leave(path)));
    }
    let refused = join_findings(&joins, &leave, &mut findings);
    let reached =
        |name: &String| seen.iter().any(|(path, seen)| path == name && !matches!(seen, Seen::Nothing(_)));
    let infos = stack.path_infos();
    findings.extend(infos.iter().filter(|i| reached(&i.name)).filter_map(|i| trace::examine(i, &remotes)));
    if speaks && seen.len() > 1 {
        let wrong = |path: &str| findings.iter().any(|f| f.about == path && f.level == super::Level::Problem);
        let accused: Vec<String> =
            seen.iter().map(|(path, _)| path.clone()).filter(|path| wrong(path)).collect();
        findings.push(probe.together(seen.len(), refused, &accused));
    }
    stack.close_finished()?;
    Ok(findings)
}

/// What handmade segments tell of each path, and of joins by each. Nothing where they cannot be sent.
fn by_hand(
    args: &DoctorArgs,
    remotes: &[SocketAddr],
    request: &[u8],
    session: &Session,
) -> (Vec<(String, handmade::Seen)>, Joins) {
    session.on_signal(|| {
        for error in umptcp_tun_driver::paths::clean_up() {
            tracing::error!(%error, "cannot undo a change");
        }
    });
    let (mut sites, _set) = match handmade::open(&args.paths, remotes) {
        Ok(open) => open,
        Err(error) => {
            tracing::debug!(%error, "no handmade segments");
            return (Vec::new(), Vec::new());
        }
    };
    let seen: Vec<handmade::Seen> = sites.iter_mut().map(|site| handmade::examine(site, request)).collect();
    // By a path that lets everything pass there is a connection to join.
    let base = seen.iter().position(|seen| seen.later == Later::Passes).filter(|_| sites.len() > 1);
    let joins = base.map(|base| handmade::join(&mut sites, base)).unwrap_or_default();
    (sites.iter().map(|site| site.name.clone()).zip(seen).collect(), joins)
}

/// What who runs a network is asked for.
const LET_PASS: &str = "let TCP option 30 pass";
const LEAVE_ALONE: &str = "leave alone what connections carry; with TLS it cannot be changed unnoticed";

/// How to do without a path. What its network is asked for follows.
fn leave_out<'a>(path: &str, all: impl Iterator<Item = &'a str>) -> String {
    let others: Vec<String> = all.filter(|name| *name != path).map(|name| format!("--path {name}")).collect();
    let without = match others.as_slice() {
        [] => String::new(),
        _ => format!(
            "leave the path out (`{}`; where umptcp runs: `umptcp path remove {path}`), or ",
            others.join(" ")
        ),
    };
    format!("{without}ask who runs that network to ")
}

/// What is wrong with joins. Returns what the server refuses by every path, which is no path's fault.
fn join_findings(
    joins: &Joins,
    leave_out: &impl Fn(&str) -> String,
    findings: &mut Vec<Finding>,
) -> Option<(String, &'static str)> {
    let works = joins.iter().any(|(_, join)| *join == Join::Works);
    let mut refused = None;
    for (path, join) in joins {
        let Some((Text { what, way }, mend)) = handmade::of_join(*join, works) else { continue };
        let by_server = matches!(join, Join::Refused(_) | Join::ThirdRefused(_) if !works);
        if by_server || *join == Join::Forbidden {
            refused = Some((what, mend));
            continue;
        }
        // Said once: what takes every option takes those of joins, too.
        if findings.iter().any(|f| f.about == *path && f.level == super::Level::Problem) {
            continue;
        }
        let mend = match join {
            Join::Refused(_) => mend.to_owned(),
            _ => leave_out(path) + LET_PASS,
        };
        findings.push(Finding::problem(path, what).going(way).mended_by(mend));
    }
    refused
}

struct Probe<'a> {
    stack: &'a UserSpace,
    remotes: &'a [SocketAddr],
    timeout: Duration,
    request: &'a [u8],
}

impl Probe<'_> {
    /// One path alone.
    fn by(&self, path: &str) -> Seen {
        let start = Instant::now();
        let connection = match self.stack.connect(self.remotes, self.timeout, &[path]) {
            Ok(connection) => connection,
            Err(error) => return Seen::Nothing(format!("{error:#}")),
        };
        let took = start.elapsed();
        self.talk(&connection);
        match connection.stream.protocol() {
            Ok(Protocol::Negotiating) => Seen::Mptcp(took),
            Ok(protocol) if protocol.is_mptcp() => Seen::Mptcp(took),
            Ok(protocol) => Seen::Tcp(protocol),
            Err(error) => Seen::Nothing(format!("the connection ended at once: {error}")),
        }
    }

    /// What a path does later than to the first packets shows when something is said.
    fn talk(&self, connection: &Connection) {
        let mut stream = &connection.stream;
        if !self.request.is_empty() {
            // What fails shows in the protocol or in the end of the connection.
            let _ = stream.write_all(self.request);
            let _ = stream.shutdown(Shutdown::Write);
        }
        let _ = stream.set_read_timeout(Some(PATIENCE));
        let (end, mut buffer, mut heard) = (Instant::now() + PATIENCE, [0; 16 << 10], 0);
        while let Ok(more @ 1..) = stream.read(&mut buffer) {
            heard += more;
            if heard >= ENOUGH || Instant::now() > end {
                break;
            }
        }
    }

    /// All paths, in one connection.
    /// `refused`: what the server refuses by every path, and what mends it. `accused`: paths of which something is said
    /// already.
    fn together(&self, paths: usize, refused: Option<(String, &'static str)>, accused: &[String]) -> Finding {
        let connection = match self.stack.connect(self.remotes, self.timeout, &[]) {
            Ok(connection) => connection,
            Err(error) => return Finding::problem("together", format!("{error:#}")),
        };
        // Others may join once data have been acknowledged (RFC 8684 section 3.2). The server must not answer
        // and close at once, so the end of the request stays here.
        if let Some((_, most)) = self.request.split_last() {
            let _ = (&connection.stream).write_all(most);
        }
        let end = Instant::now() + PATIENCE;
        let mut names = used(&connection);
        while names.len() < paths && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            names = used(&connection);
        }
        let list = names.join(", ");
        if names.len() >= paths {
            return Finding::ok("together", format!("one connection uses {list}"));
        }
        if self.request.is_empty() {
            let what = format!(
                "one connection used only {list}, but it carried no data, before which others cannot join"
            );
            return Finding::note("together", what).mended_by("--request TEXT says what to send");
        }
        let what = format!("a connection that could use {paths} paths uses only {list}");
        if let Some((why, mend)) = refused {
            return Finding::problem("together", format!("{what}: {why}")).mended_by(mend);
        }
        let what = format!("{what}: joins do not come through");
        if names.len() + accused.iter().filter(|path| !names.contains(path)).count() >= paths {
            return Finding::problem("together", what)
                .mended_by(format!("what mends {}", accused.join(", ")));
        }
        Finding::problem("together", what)
            .mended_by("on the server allow more subflows: `ip mptcp limits set subflow 8`")
    }
}

/// The paths that a connection uses.
fn used(connection: &Connection) -> Vec<String> {
    let established = |s: Subflow| (s.state == "ESTABLISHED").then_some(s.path);
    let names: BTreeSet<String> = connection.subflows().into_iter().filter_map(established).collect();
    names.into_iter().collect()
}

/// What a path did to connections of the stack, and what handmade segments say of that.
fn describe(
    path: &str,
    seen: &Seen,
    hand: Option<&handmade::Seen>,
    speaks: bool,
    leave_out: &str,
) -> Vec<Finding> {
    let syn = hand.and_then(|hand| handmade::of_syn(hand.syn, speaks));
    let later = hand.and_then(|hand| handmade::of_later(hand.later));
    let problem = |text: Text, after: String| {
        let rewritten = [handmade::REWRITTEN_UP, handmade::REWRITTEN_DOWN].contains(&text.what.as_str());
        let favour = if rewritten { LEAVE_ALONE } else { LET_PASS };
        let otherwise = if speaks { String::new() } else { format!("{SWITCH_ON}; else ") };
        let mend = format!("{otherwise}{leave_out}{favour}");
        Finding::problem(path, text.what + &after).going(text.way).mended_by(mend)
    };
    let protocol = match seen {
        Seen::Nothing(why) => {
            let finding = Finding::problem(path, format!("the server is not reached: {why}"));
            return syn
                .or(later)
                .map(|text| problem(text, String::new()))
                .into_iter()
                .chain([finding])
                .collect();
        }
        Seen::Mptcp(took) => {
            let took = took.as_secs_f64() * 1e3;
            let what = format!("the server speaks MPTCP by this path; it answered within {took:.0} ms");
            // The stack may have done without what was taken out.
            let more = syn.or(later).map(|text| problem(text, String::new()));
            return [Finding::ok(path, what)].into_iter().chain(more).collect();
        }
        Seen::Tcp(protocol) => protocol,
    };
    let why = match protocol {
        Protocol::Tcp { reason } => Some(reason),
        _ => None,
    };
    let known = match why {
        Some(
            FallbackReason::NoOptionInSynAck
            | FallbackReason::StrippedAndNoUdp
            | FallbackReason::SynsLost
            | FallbackReason::SwallowedAndNoUdp
            | FallbackReason::BlackHole,
        ) => syn,
        // The same data passes without checksums: what fails is not the options.
        Some(FallbackReason::NoDataAck | FallbackReason::NoOptionInData)
            if hand.is_some_and(|hand| hand.later == Later::Passes) =>
        {
            Some(Text { what: handmade::REWRITTEN_UP.to_owned(), way: Way::ToServer })
        }
        _ => later.or(syn),
    };
    vec![match known.or_else(|| told_by_reason(why, speaks)) {
        Some(text) => problem(text, format!(" ({protocol})")),
        None => Finding::problem(
            path,
            format!(
                "plain TCP: the server does not speak MPTCP, or something on every path takes the option out ({protocol})"
            ),
        )
        .mended_by(SWITCH_ON),
    }]
}

/// What the reason of a fallback alone tells.
fn told_by_reason(why: Option<&FallbackReason>, speaks: bool) -> Option<Text> {
    let (way, what) = match why {
        Some(FallbackReason::NoOptionInSynAck | FallbackReason::StrippedAndNoUdp) if speaks => (
            Way::Untold,
            "something on this path takes the MPTCP option out of the SYN or the SYN/ACK: by another path the server speaks MPTCP",
        ),
        Some(FallbackReason::NoOptionInSynAck | FallbackReason::StrippedAndNoUdp) => return None,
        Some(FallbackReason::SynsLost | FallbackReason::SwallowedAndNoUdp | FallbackReason::BlackHole) => {
            (Way::Untold, "something on this path drops SYNs with the MPTCP option, or the answers to them")
        }
        Some(FallbackReason::NoDataAck | FallbackReason::NoOptionInData | FallbackReason::NoOptionInAck) => (
            Way::Untold,
            "something on this path takes MPTCP options out after the handshake; which way cannot be told",
        ),
        // Each end sees what has come to it.
        Some(FallbackReason::ChecksumFailure) => (Way::FromServer, handmade::REWRITTEN_DOWN),
        Some(FallbackReason::InfiniteMapping | FallbackReason::MpFail) => {
            (Way::ToServer, handmade::REWRITTEN_UP)
        }
        _ => (Way::Untold, "plain TCP"),
    };
    Some(Text { what: what.to_owned(), way })
}
