//! Any sequence of what applications, links and boxes do to a connection between two stacks.
//!
//! After every operation: no wrong byte, no byte too many (the simulator compares on receipt), no window that
//! shrinks, no more buffered and no more subflows than configured. In the end the network is mended and
//! everybody reads: whatever has not ended with an error makes progress, closes cleanly, and leaves silence.

use super::windows::Windows;
use super::{buffer_of, direction, directions, side};
use crate::digest::Digest;
use proptest::prelude::*;
use std::net::IpAddr;
use umptcp_netsim::middlebox::{DropIf, Duplicate, Nat, OneWay, Reorder, Since};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Direction, Duration, FlowId, Instant, Link, Packet, Pair, Side};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::device::PathConfig;
use umptcp_stack_core::error::SignalError;
use umptcp_stack_core::types::{AddressId, PathId};

/// A unit of the largest window scale that the settings bring about: an edge is told only that exactly (RFC
/// 7323 §2.4).
pub const WINDOW_UNIT: usize = 32;

/// Joins of the peer at once whose third ACK has not come.
const MAX_HALF_OPEN: usize = 8;

/// One thing that an application, a link or a box does.
#[derive(Clone, Debug)]
pub enum Op {
    /// So many bytes more are sent.
    Send(Side, u64),
    /// Reading stops, or goes on.
    Pause(Side, bool),
    /// The next packets one way on a path are lost.
    Drop(usize, Direction, u8),
    /// One packet of so many is held back.
    Reorder(usize, u8),
    /// The same for packets that come twice.
    Duplicate(usize, u8),
    /// A path goes silent, one way or both.
    Cut(usize, Option<Direction>),
    /// A path is mended.
    Restore(usize),
    /// A path of the client's goes.
    RemovePath(usize),
    /// The NAT on a path forgets every mapping.
    Rebind(usize),
    /// So many milliseconds pass.
    Wait(u64),
    /// A side shuts down.
    HalfClose(Side),
    /// A side aborts.
    Abort(Side),
    /// MP_PRIO: a subflow becomes a backup, or is none any more.
    SetBackup(Side, usize, bool),
    /// A path of the client's comes: one that was removed with the address that it had, or another with a new
    /// one.
    AddPath(usize),
    /// ADD_ADDR with one of the side's addresses, and perhaps a port.
    Advertise(Side, usize, Option<u16>),
    /// REMOVE_ADDR.
    Withdraw(Side, u8),
}

/// Any operations.
pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..40)
}

fn op() -> impl Strategy<Value = Op> {
    let path = || 0usize..3;
    prop_oneof![
        6 => (side(), 1u64..200_000).prop_map(|(s, n)| Op::Send(s, n)),
        2 => (side(), any::<bool>()).prop_map(|(s, p)| Op::Pause(s, p)),
        3 => (path(), direction(), 1u8..20).prop_map(|(p, d, n)| Op::Drop(p, d, n)),
        1 => (path(), 2u8..10).prop_map(|(p, n)| Op::Reorder(p, n)),
        1 => (path(), 2u8..10).prop_map(|(p, n)| Op::Duplicate(p, n)),
        2 => (path(), prop::option::of(direction())).prop_map(|(p, d)| Op::Cut(p, d)),
        3 => path().prop_map(Op::Restore),
        1 => path().prop_map(Op::RemovePath),
        1 => path().prop_map(Op::Rebind),
        8 => prop_oneof![0u64..50, 50u64..3_000, 3_000u64..40_000].prop_map(Op::Wait),
        1 => side().prop_map(Op::HalfClose),
        1 => prop_oneof![9 => Just(None), 1 => side().prop_map(Some)]
            .prop_map(|s| s.map_or(Op::Wait(1), Op::Abort)),
        2 => (side(), 0usize..4, any::<bool>()).prop_map(|(s, i, b)| Op::SetBackup(s, i, b)),
        2 => path().prop_map(Op::AddPath),
        2 => (side(), 0usize..4, prop::option::weighted(0.3, 4_000u16..6_000))
            .prop_map(|(s, i, port)| Op::Advertise(s, i, port)),
        1 => (side(), 0u8..4).prop_map(|(s, id)| Op::Withdraw(s, id)),
    ]
}

/// Settings of the connection and its network.
#[derive(Clone, Debug)]
pub struct Shape {
    seed: u64,
    paths: usize,
    checksum: bool,
    mptcp: bool,
    buffers: usize,
    round_robin: bool,
    ipv6: bool,
    multihomed: bool,
    server_joins: bool,
    advertise: bool,
    /// The client has a cookie, so that what it sends first goes with the SYN (RFC 7413).
    fast_open: bool,
}

prop_compose! {
    /// Any shape.
    pub fn shape()(
        seed in any::<u64>(),
        paths in 1usize..4,
        bits in any::<[bool; 6]>(),
        plain in prop::bool::weighted(0.1),
        fast_open in prop::bool::weighted(0.3),
        buffers in prop_oneof![Just(1usize << 20), 5_000usize..200_000],
    ) -> Shape {
        let [checksum, round_robin, ipv6, multihomed, server_joins, advertise] = bits;
        let mptcp = !plain;
        Shape {
            seed, paths, checksum, mptcp, buffers, round_robin, ipv6, multihomed, server_joins, advertise, fast_open,
        }
    }
}

/// The client's paths: by cable, and those that came later.
struct Paths {
    addresses: Vec<IpAddr>,
    /// `None`: it has been removed.
    ids: Vec<Option<PathId>>,
    extra: u8,
}

impl Paths {
    fn of(net: &Pair) -> Paths {
        let ids = net.paths(net.client()).into_iter().map(Some).collect();
        Paths { addresses: net.addresses(net.client()), ids, extra: 0 }
    }

    /// Another path over cable `p`.
    fn add(&mut self, net: &mut Pair, p: usize) {
        let (client, cable) = (net.client(), net.path_cable(p));
        let address = match (self.ids[p], self.addresses[p]) {
            (None, address) => address,
            (Some(_), _) if self.extra >= EXTRA_PATHS => return,
            (Some(_), IpAddr::V4(_)) => [10, 1, 100 + self.extra, 1].into(),
            (Some(_), IpAddr::V6(_)) => IpAddr::from([0xfd00, 0, 0, 1, 100 + u16::from(self.extra), 0, 0, 1]),
        };
        let id = net.add_path(client, PathConfig::new(format!("again{p}"), address), &[cable], true);
        match self.ids[p] {
            None => self.ids[p] = Some(id),
            Some(_) => self.extra += 1,
        }
    }
}

/// Paths that come besides those there are at first.
const EXTRA_PATHS: u8 = 2;

/// Lets the application of a side say something to its stack. What cannot be said is left unsaid.
fn signal(net: &mut Pair, flow: FlowId, op: &Op) {
    let side = match op {
        Op::SetBackup(side, ..) | Op::Advertise(side, ..) | Op::Withdraw(side, _) => *side,
        _ => return,
    };
    let end = net.flow(flow).end(side);
    let (node, Some(id)) = (end.node, end.connection) else { return };
    let addresses = net.addresses(node);
    let op = op.clone();
    net.with_stack(node, move |now, stack| {
        let said = match op {
            Op::SetBackup(_, i, backup) => {
                let subflows = stack.subflows(id);
                match subflows.get(i % subflows.len().max(1)) {
                    Some(s) => stack.set_backup(now, id, s.id, backup),
                    None => Ok(()),
                }
            }
            Op::Advertise(_, i, port) => {
                stack.advertise_address(now, id, addresses[i % addresses.len()], port).map(|_| ())
            }
            Op::Withdraw(_, address) => stack.withdraw_addresses(now, id, &[AddressId(address)]),
            _ => Ok(()),
        };
        // A connection that is plain TCP, or over, has no signals.
        assert!(matches!(said, Ok(()) | Err(SignalError::NotMptcp | SignalError::NotFound)), "{said:?}");
    });
}

fn apply(net: &mut Pair, flow: FlowId, op: &Op, client_paths: &mut Paths) {
    let paths = net.cables().len();
    let cables = net.cables().to_vec();
    let cable = |p: &usize| cables[p % paths];
    let soon = net.now() + Duration::from_secs(2);
    match op {
        Op::Send(side, n) => net.send(flow, *side, *n),
        Op::Pause(side, paused) => net.pause_reading(flow, *side, *paused),
        Op::Drop(p, direction, n) => {
            let (cable, direction, mut left) = (cable(p), *direction, *n);
            net.add_middlebox(
                cable,
                DropIf::new(move |_, d, _: &Packet| {
                    let hit = d == direction && left > 0;
                    left -= u8::from(hit);
                    hit
                }),
            );
        }
        Op::Reorder(p, every) => {
            let inner = Reorder::new(u64::from(*every), Duration::from_millis(15));
            net.add_middlebox(cable(p), OneWay { direction: Direction::Forward, inner });
        }
        Op::Duplicate(p, every) => {
            let inner = Duplicate::new(u64::from(*every));
            net.add_middlebox(cable(p), Since { at: soon, inner });
        }
        Op::Cut(p, direction) => {
            for d in directions(*direction) {
                net.set_cut(cable(p), d, true);
            }
        }
        Op::Restore(p) => net.restore(cable(p)),
        Op::RemovePath(p) => {
            let left = client_paths.ids.iter().flatten().count();
            if left > 1
                && let Some(id) = client_paths.ids[p % paths].take()
            {
                let client = net.client();
                net.remove_path(client, id);
            }
        }
        Op::AddPath(p) => client_paths.add(net, p % paths),
        Op::SetBackup(..) | Op::Advertise(..) | Op::Withdraw(..) => signal(net, flow, op),
        Op::Rebind(p) => {
            let cable = cable(p);
            net.with_cable(cable, |_, c| {
                c.clear_middleboxes();
                c.push_middlebox(Box::new(Nat::new().rebinding(Instant::ZERO)));
            });
        }
        Op::Wait(_) => {}
        Op::HalfClose(side) => net.finish(flow, *side),
        Op::Abort(side) => net.abort(flow, *side),
    }
}

/// Runs operations to the end.
///
/// # Errors
/// What did not hold, with the last packets.
///
/// # Panics
/// When the stack refuses a signal for another reason than that the connection is no MPTCP, or not any more.
pub fn run(shape: &Shape, ops: &[Op], digest: Option<&Digest>) -> Result<(), String> {
    let buffers = buffer_of(shape.buffers);
    let config = ConnectionConfig::default()
        .with_mptcp(shape.mptcp)
        .with_checksum(shape.checksum)
        .with_scheduler(if shape.round_robin { "round-robin" } else { "min-rtt" }.to_string())
        .with_send_buffer(buffers)
        .with_receive_buffer(buffers)
        .with_user_timeout(Duration::from_secs(300))
        .with_server_joins(shape.server_joins)
        .with_advertise_addresses(shape.advertise)
        .with_fast_open(shape.fast_open);
    let max_subflows = config.max_subflows;
    let mut builder = Pair::builder()
        .seed(shape.seed)
        .trace(TraceMode::Last(300))
        .ipv6(shape.ipv6)
        .multihomed(shape.multihomed)
        .config(config);
    for i in 0..shape.paths {
        builder = builder.path(Link::mbit(10).delay_ms(5 + 10 * i as u64));
    }
    let mut net = builder.build();
    if let Some(digest) = digest {
        net.set_probe(Box::new(digest.clone()));
    }
    let windows = Windows::new(WINDOW_UNIT);
    net.set_tap(Some(Box::new(windows.clone())));
    for cable in net.cables().to_vec() {
        net.add_middlebox(cable, Nat::new());
    }
    let connect = |net: &mut Pair| {
        let mut spec = net.flow_spec();
        spec.port = Some(4000);
        net.add_flow(spec).map_err(|e| e.to_string())
    };
    if shape.fast_open {
        // A connection before, for the cookie.
        let first = connect(&mut net)?;
        mend_and_close(&mut net, first)?;
    }
    let flow = connect(&mut net)?;
    let fail =
        |net: &Pair, what: String| format!("{what}\n{:#?}\n{}", net.flow(flow), net.trace().join("\n"));
    let mut paths = Paths::of(&net);
    for op in ops {
        apply(&mut net, flow, op, &mut paths);
        let time = if let Op::Wait(ms) = op { *ms } else { 1 };
        net.run_for(Duration::from_millis(time)).map_err(|e| fail(&net, e.to_string()))?;
        if let Some(told) = windows.shrunk() {
            return Err(fail(&net, told));
        }
        for side in [Side::Client, Side::Server] {
            let end = net.flow(flow).end(side);
            let (Some(id), Some(stack)) = (end.connection, net.stack(end.node)) else { continue };
            let Some(info) = stack.info(id) else { continue };
            // Joins of the peer that have proved nothing yet have a limit of their own.
            let subflows = stack.subflows(id);
            let half_open = subflows.iter().filter(|s| s.state == "SYN-RECEIVED").count();
            let too_many = subflows.len() - half_open > max_subflows || half_open > MAX_HALF_OPEN;
            if info.readable > info.receive_buffer as usize + WINDOW_UNIT || too_many {
                return Err(fail(&net, format!("{side:?} exceeds its bounds: {info:?}")));
            }
        }
    }
    mend_and_close(&mut net, flow).map_err(|e| fail(&net, e))
}

/// The end: see the module.
fn mend_and_close(net: &mut Pair, flow: FlowId) -> Result<(), String> {
    for cable in net.cables().to_vec() {
        net.restore(cable);
    }
    for side in [Side::Client, Side::Server] {
        net.pause_reading(flow, side, false);
        net.finish(flow, side);
    }
    net.run_until_idle(Duration::from_secs(7_200)).map_err(|e| e.to_string())?;
    let f = net.flow(flow);
    if f.error().is_some() {
        // The other side may wait for ever when nothing tells it and it has nothing to say (RFC 9293 §3.8.4).
        return Ok(());
    }
    if !f.is_closed() {
        return Err("silence, and neither an end nor an error".to_string());
    }
    for side in [Side::Client, Side::Server] {
        let (sent, received) = (f.end(side).progress.sent, f.end(side.peer()).progress.received);
        if sent != received {
            return Err(format!("{side:?} sent {sent} and {received} arrived"));
        }
        if let Some(at) = net.stack(f.end(side).node).and_then(|s| s.poll_timeout()) {
            return Err(format!("{side:?} has a timer for {at} and nothing to do"));
        }
    }
    Ok(())
}
