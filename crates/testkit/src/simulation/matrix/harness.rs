//! The network, the workload, and what is looked at afterwards.

use crate::digest::Digest;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use umptcp_netsim::application::{Bulk, Requests, Responder};
use umptcp_netsim::middlebox::Middlebox;
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{
    CableId, Direction, Duration, FlowId, FlowSpec, Instant, Link, Network, NodeId, Side, SimError,
};
use umptcp_stack_core::config::{ConnectionConfig, StackConfig};
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::error::{ConnectionError, FallbackReason};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::stack::NativeTrouble;

/// Where a box stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On the first path, before the client's queue.
    ClientSide,
    /// On the first path, behind the router.
    ServerSide,
    /// On the second path only.
    SecondPath,
    /// On both paths.
    Both,
}

impl Place {
    /// Its name, for the name of a cell.
    pub(super) fn name(self) -> &'static str {
        match self {
            Place::ClientSide => "client's side",
            Place::ServerSide => "server's side",
            Place::SecondPath => "second path",
            Place::Both => "both paths",
        }
    }

    /// Every place.
    pub const ALL: &[Place] = &[Place::ClientSide, Place::ServerSide, Place::SecondPath, Place::Both];

    /// Whether it meets the connection's first subflow.
    pub fn first(self) -> bool {
        self != Place::SecondPath
    }

    fn cables(self) -> &'static [usize] {
        match self {
            Place::ClientSide => &[0],
            Place::ServerSide => &[2],
            Place::SecondPath => &[1],
            Place::Both => &[0, 1],
        }
    }
}

/// The addresses of all hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Its name, for the name of a cell.
    pub(super) fn name(self) -> &'static str {
        match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        }
    }

    /// Both.
    pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

    fn address(self, block: u8, index: u8) -> IpAddr {
        match self {
            Family::V4 => [10, block, index, 1].into(),
            Family::V6 => [0xfd00, 0, 0, u16::from(block), u16::from(index), 0, 0, 1].into(),
        }
    }
}

/// What to put on a cable.
pub type Boxes = Vec<Box<dyn Middlebox>>;

/// Whose packets a box acts on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The client's.
    Client,
    /// The server's.
    Server,
    /// Either's.
    All,
}

impl Whose {
    /// Its name, for the name of a cell.
    pub(super) fn name(self) -> &'static str {
        match self {
            Whose::Client => "client's packets",
            Whose::Server => "server's packets",
            Whose::All => "all packets",
        }
    }

    pub(super) fn directions(self) -> Vec<Direction> {
        match self {
            Whose::Client => vec![Direction::Forward],
            Whose::Server => vec![Direction::Reverse],
            Whose::All => Direction::BOTH.to_vec(),
        }
    }
}

/// Bytes sent each way.
const BYTES: u64 = 400_000;

/// How the client's packets go through the boxes.
#[derive(Clone, Copy, Default)]
pub enum Ways<'a> {
    /// As they are.
    #[default]
    Native,
    /// Between these two, which stand at both ends of each chain of boxes and make datagrams of UDP of them. `auto`: each
    /// interface has a native path, too, that the other stands in for ([`Ways::is_inside`] tells the two apart), and the
    /// client knows in advance that the native paths of these interfaces are in the way.
    Inside {
        /// Makes a new pair.
        ends: &'a dyn Fn() -> [Box<dyn Middlebox>; 2],
        /// Native paths, too; those that are known to be in the way.
        auto: Option<&'static [usize]>,
    },
}

impl Ways<'_> {
    /// Whether an address of the client's is of a path inside UDP beside a native one.
    pub fn is_inside(address: IpAddr) -> bool {
        [0, 1].iter().any(|i| Family::BOTH.iter().any(|family| family.address(3, *i) == address))
    }
}

fn network(
    seed: u64,
    family: Family,
    digest: Option<&Digest>,
    ways: Ways<'_>,
) -> (Network, NodeId, NodeId, Vec<CableId>) {
    let mut net = Network::new(seed);
    net.set_trace(TraceMode::Last(300));
    if let Some(digest) = digest {
        net.set_probe(Box::new(digest.clone()));
    }
    let client = net.add_host("client", StackConfig::default());
    let routers = [net.add_router("r0"), net.add_router("r1")];
    let server = net.add_host("server", StackConfig::default());
    let link = |ms| Link::mbit(10).delay_ms(ms);
    let mut cables: Vec<CableId> =
        (0..2).map(|i| net.add_cable(client, routers[i], link(4 + i as u64), link(4 + i as u64))).collect();
    cables.extend((0..2).map(|i| net.add_cable(routers[i], server, link(6), link(6))));
    for i in 0..2u8 {
        let config = PathConfig::new(format!("client{i}"), family.address(1, i));
        let native = net.add_path(client, config, &[cables[usize::from(i)]], true);
        if let Ways::Inside { auto: Some(bad), .. } = ways {
            let config = PathConfig::new(format!("client{i}/udp"), family.address(3, i));
            let config = config.standing_in_for(format!("client{i}"));
            net.add_path(client, config, &[cables[usize::from(i)]], true);
            if bad.contains(&usize::from(i)) {
                let remote = SocketAddr::new(family.address(2, 0), 5_000);
                let what = NativeTrouble::Stripped;
                net.with_stack(client, |now, stack| stack.native_failed(now, native, remote, what));
            }
        }
    }
    net.add_path(server, PathConfig::new("server", family.address(2, 0)), &cables[2..], true);
    (net, client, server, cables)
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// MPTCP to the end, all bytes right.
    Mptcp {
        /// Used at some time.
        subflows: usize,
        /// Lost to an error.
        lost: usize,
    },
    /// All bytes right, as plain TCP; the reasons that client and server give.
    Plain(Option<FallbackReason>, Option<FallbackReason>),
    /// An error, as seen by the application that saw one first.
    Error(ConnectionError),
    /// Bytes other than those sent, from this offset on.
    Changed(Side, u64),
}

/// An outcome, and the counters that moved.
#[derive(Debug)]
pub struct Seen {
    /// What came of it.
    pub outcome: Outcome,
    /// The counters that moved, of client and server.
    pub counters: [BTreeSet<&'static str>; 2],
    /// Why each application was told that MPTCP ended.
    pub told: [Option<FallbackReason>; 2],
    /// The names of the client's paths that the connection has used.
    pub paths: BTreeSet<String>,
    /// The last packets.
    pub trace: Vec<String>,
}

/// What a cell asks for.
#[derive(Clone, Debug)]
pub enum Want {
    /// MPTCP, all bytes, and exactly so many subflows, none lost to an error.
    Kept(usize),
    /// The same, and a counter has moved on one side at least.
    KeptCounting(usize, Counter),
    /// MPTCP and all bytes, though a subflow was lost, which this counter shows.
    Lost(Counter),
    /// The same without a counter.
    LostSilently,
    /// MPTCP and all bytes, whatever became of single subflows.
    Mptcp,
    /// All bytes by plain TCP, for the reasons that client and server are told; `None`: it never was MPTCP
    /// there.
    Plain(Option<FallbackReason>, Option<FallbackReason>),
    /// An end with one of these errors.
    Error(&'static [ConnectionError]),
    /// MPTCP and all bytes, or an end with one of these errors.
    MptcpOrError(&'static [ConnectionError]),
    /// A wrong byte on this side, not before this offset: as with plain TCP.
    Changed(Side, u64),
    /// A wrong byte on this side, the first one exactly here.
    ChangedAt(Side, u64),
    /// All bytes, or an error, or a wrong byte after a checksum failure on the last subflow had the
    /// connection fall back and the application was told so.
    ErrorOrTold,
}

impl Seen {
    fn counted(&self, counter: Counter) -> bool {
        self.counters.iter().any(|c| c.contains(counter.name()))
    }

    fn satisfies(&self, want: &Want) -> bool {
        let reasons = [Some(FallbackReason::ChecksumFailure), Some(FallbackReason::MpFail)];
        match (want, &self.outcome) {
            (Want::Kept(n), Outcome::Mptcp { subflows, lost }) => subflows == n && *lost == 0,
            (Want::KeptCounting(n, counter), Outcome::Mptcp { subflows, lost }) => {
                subflows == n && *lost == 0 && self.counted(*counter)
            }
            (Want::Lost(counter), Outcome::Mptcp { lost, .. }) => *lost > 0 && self.counted(*counter),
            (Want::LostSilently, Outcome::Mptcp { lost, .. }) => *lost > 0,
            (Want::Mptcp, Outcome::Mptcp { .. }) => true,
            (Want::Plain(c, s), Outcome::Plain(client, server)) => c == client && s == server,
            (Want::Error(errors), Outcome::Error(e)) => errors.contains(e),
            (Want::MptcpOrError(_), Outcome::Mptcp { .. }) => true,
            (Want::MptcpOrError(errors), Outcome::Error(e)) => errors.contains(e),
            (Want::Changed(side, from), Outcome::Changed(at, offset)) => side == at && offset >= from,
            (Want::ChangedAt(side, offset), Outcome::Changed(at, first)) => side == at && offset == first,
            (Want::ErrorOrTold, Outcome::Changed(side, _)) => reasons.contains(&self.told[*side as usize]),
            (Want::ErrorOrTold, Outcome::Plain(..)) => self.told.iter().any(|t| reasons.contains(t)),
            (Want::ErrorOrTold, Outcome::Mptcp { .. } | Outcome::Error(_)) => true,
            _ => false,
        }
    }
}

/// Fails when a cell is not as it should be.
///
/// # Panics
/// With what was wanted, what came of it and the last packets.
#[track_caller]
pub fn check(cell: &str, seen: &Seen, want: &Want) {
    assert!(
        seen.satisfies(want),
        "{cell}: wanted {want:?}, got {:?}, told {:?}\n{:?}\n{}",
        seen.outcome,
        seen.told,
        seen.counters,
        seen.trace.join("\n")
    );
}

pub(super) fn settings(checksum: bool) -> ConnectionConfig {
    ConnectionConfig::default().with_checksum(checksum).with_user_timeout(Duration::from_secs(30))
}

/// Runs a transfer both ways through the boxes that `make` makes for a cable.
pub(super) fn transfer(
    place: Place,
    family: Family,
    config: ConnectionConfig,
    make: &dyn Fn() -> Boxes,
    (digest, ways): (Option<&Digest>, Ways<'_>),
) -> Seen {
    let (mut net, client, server, cables) = network(5, family, digest, ways);
    put(&mut net, place, &cables, make, ways);
    let spec = FlowSpec::new(client, server).config(config).applications(Bulk(BYTES), Bulk(BYTES));
    let flow = net.add_flow(spec).expect("a connection can be tried");
    let result = net.run_until_idle(Duration::from_secs(3_600));
    seen(&net, flow, BYTES, result)
}

/// Requests with pauses of half a minute, through the boxes that `make` makes for a cable.
pub(super) fn conversation(
    place: Place,
    family: Family,
    config: ConnectionConfig,
    make: &dyn Fn() -> Boxes,
    (digest, ways): (Option<&Digest>, Ways<'_>),
) -> Seen {
    const COUNT: u64 = 6;
    let (mut net, client, server, cables) = network(6, family, digest, ways);
    put(&mut net, place, &cables, make, ways);
    let requests = Requests::new(COUNT, 1_000, 1_000, Duration::from_secs(30));
    let responder = Responder { request: 1_000, response: 1_000 };
    let spec = FlowSpec::new(client, server).config(config).applications(requests, responder);
    let flow = net.add_flow(spec).expect("a connection can be tried");
    let result = net.run_until_idle(Duration::from_secs(3_600));
    seen(&net, flow, COUNT * 1_000, result)
}

fn put(net: &mut Network, place: Place, cables: &[CableId], make: &dyn Fn() -> Boxes, ways: Ways<'_>) {
    for cable in place.cables() {
        let mut boxes = make();
        if let Ways::Inside { ends, .. } = ways {
            let [near, far] = ends();
            boxes.insert(0, near);
            boxes.push(far);
        }
        for b in boxes {
            net.add_middlebox(cables[*cable], b);
        }
    }
}

fn seen(net: &Network, flow: FlowId, bytes: u64, result: Result<(), SimError>) -> Seen {
    let f = net.flow(flow);
    let counters = [Side::Client, Side::Server].map(|side| {
        let stack = net.stack(f.end(side).node).expect("both ends have a stack");
        stack.counters().iter_nonzero().map(|(name, _)| name).collect()
    });
    let subflows = f.client.subflows.len().max(f.server.subflows.len());
    let lost =
        |side| f.end(side).subflows.iter().filter(|s| s.closed.is_some_and(|(_, e)| e.is_some())).count();
    let outcome = match result {
        Err(SimError::Corrupt { side, offset, .. }) => Outcome::Changed(side, offset),
        Err(SimError::Length { side, received, .. }) => Outcome::Changed(side, received),
        Err(e) => panic!("{e}\n{f:#?}\n{}", net.trace().join("\n")),
        Ok(()) => match f.error() {
            Some((_, e)) => Outcome::Error(e),
            None => {
                assert!(f.is_closed(), "silence, and no end: {f:#?}\n{}", net.trace().join("\n"));
                let got = (f.client.progress.received, f.server.progress.received);
                assert_eq!(got, (bytes, bytes), "an end without error, and bytes are missing");
                match (f.client.fell_back, f.server.fell_back) {
                    (None, None) => {
                        Outcome::Mptcp { subflows, lost: lost(Side::Client).max(lost(Side::Server)) }
                    }
                    (c, s) => Outcome::Plain(c, s),
                }
            }
        },
    };
    let told = [f.client.fell_back, f.server.fell_back];
    let stack = net.stack(f.end(Side::Client).node).expect("the client has a stack");
    let used = f.client.subflows.iter().filter_map(|s| stack.path(s.path)).map(|path| path.name.clone());
    Seen { outcome, counters, told, paths: used.collect(), trace: net.trace() }
}

/// Time at which the connection is in full swing.
pub(super) const MIDDLE: Instant = Instant::from_millis(200);
