//! What the way to a server does to MPTCP, path by path.

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
    // With checksums, a path that rewrites what is sent is found out (RFC 8684 section 3.3.1).
    let settings = Settings { paths: args.paths.clone(), checksum: true, ..Settings::default() };
    let stack = UserSpace::open(&settings, registry, &session)?;
    let probe = Probe { stack: &stack, remotes: &remotes, timeout: args.target.timeout, request: &request };
    let seen: Vec<(String, Seen)> =
        stack.paths().into_iter().map(|path| (path.clone(), probe.by(&path))).collect();
    let speaks = seen.iter().any(|(_, seen)| matches!(seen, Seen::Mptcp(_)));
    let mut findings: Vec<Finding> = seen.iter().map(|(path, seen)| describe(path, seen, speaks)).collect();
    let reached =
        |name: &String| seen.iter().any(|(path, seen)| path == name && !matches!(seen, Seen::Nothing(_)));
    let infos = stack.path_infos();
    findings.extend(infos.iter().filter(|i| reached(&i.name)).filter_map(|i| trace::examine(i, &remotes)));
    if speaks && seen.len() > 1 {
        findings.push(probe.together(seen.len()));
    }
    stack.close_finished()?;
    Ok(findings)
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
        let _ = stream.read(&mut [0; 1]);
    }

    /// All paths, in one connection.
    fn together(&self, paths: usize) -> Finding {
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
        let what =
            format!("a connection that could use {paths} paths uses only {list}: joins do not come through");
        Finding::problem("together", what).mended_by(
            "on the server allow more subflows (`ip mptcp limits set subflow 8`), or look for a firewall that does not know joins",
        )
    }
}

/// The paths that a connection uses.
fn used(connection: &Connection) -> Vec<String> {
    let established = |s: Subflow| (s.state == "ESTABLISHED").then_some(s.path);
    let names: BTreeSet<String> = connection.subflows().into_iter().filter_map(established).collect();
    names.into_iter().collect()
}

fn describe(path: &str, seen: &Seen, speaks: bool) -> Finding {
    let protocol = match seen {
        Seen::Nothing(why) => return Finding::problem(path, format!("the server is not reached: {why}")),
        Seen::Mptcp(took) => {
            return Finding::ok(
                path,
                format!(
                    "the server speaks MPTCP by this path; it answered within {:.0} ms",
                    took.as_secs_f64() * 1e3
                ),
            );
        }
        Seen::Tcp(protocol) => protocol,
    };
    let why = match protocol {
        Protocol::Tcp { reason } => Some(reason),
        _ => None,
    };
    let what = match why {
        Some(FallbackReason::NoOptionInSynAck) if speaks => {
            "something on this path takes the MPTCP option out of the SYN or the SYN/ACK: by another path the server speaks MPTCP"
        }
        Some(FallbackReason::StrippedAndNoUdp) => {
            "something on this path takes the MPTCP option out of the SYN or the SYN/ACK, and nothing comes back inside UDP"
        }
        Some(FallbackReason::NoOptionInSynAck) => {
            "plain TCP: the server does not speak MPTCP, or something on every path takes the option out"
        }
        Some(FallbackReason::SynsLost | FallbackReason::SwallowedAndNoUdp | FallbackReason::BlackHole) => {
            "something on this path drops SYNs with the MPTCP option"
        }
        Some(FallbackReason::NoDataAck | FallbackReason::NoOptionInData | FallbackReason::NoOptionInAck) => {
            "something on this path takes MPTCP options out after the handshake"
        }
        Some(FallbackReason::InfiniteMapping | FallbackReason::ChecksumFailure | FallbackReason::MpFail) => {
            "something on this path rewrites what is sent"
        }
        _ => "plain TCP",
    };
    let finding = Finding::problem(path, format!("{what} ({protocol})"));
    if speaks || !matches!(why, Some(FallbackReason::NoOptionInSynAck)) {
        return finding.mended_by("leave the path out (`--path` names those to use), or ask who runs that network to let TCP option 30 pass");
    }
    finding.mended_by(
        "on a Linux server: sysctl -w net.mptcp.enabled=1, and start its program with `mptcpize run`",
    )
}
