//! Transfers over any paths: every byte arrives, and then there is silence.

use super::{buffer_of, direction, directions, side};
use crate::digest::Digest;
use proptest::prelude::*;
use umptcp_netsim::application::Bulk;
use umptcp_netsim::middlebox::{OneWay, StripMptcp, StripWhere};
use umptcp_netsim::trace::TraceMode;
use umptcp_netsim::{Direction, Duration, FlowId, Instant, Link, Loss, Pair, Queue, Side, SimError};
use umptcp_stack_core::config::ConnectionConfig;

fn loss() -> impl Strategy<Value = Loss> {
    prop_oneof![
        4 => Just(Loss::None),
        3 => (0.0..0.05f64).prop_map(Loss::Random),
        1 => (0.0..0.05f64, 1.0..6.0f64).prop_map(|(mean, length)| Loss::bursts(mean, length)),
    ]
}

prop_compose! {
    fn link()(
        rate in prop_oneof![1 => Just(None), 6 => (500_000u64..200_000_000).prop_map(Some)],
        delay in 0u64..60_000,
        jitter in prop_oneof![Just(0u64), 0u64..5_000],
        reorder in prop_oneof![3 => Just((0.0, 0)), 1 => (0.0..0.1f64, 0u64..20_000)],
        queue in prop_oneof![
            (5usize..500).prop_map(Queue::Packets),
            (10_000u64..500_000).prop_map(Queue::Bytes),
            (5u64..200).prop_map(|ms| Queue::Time(Duration::from_millis(ms))),
        ],
        loss in loss(),
        duplicate in prop_oneof![3 => Just(0.0), 1 => 0.0..0.05f64],
    ) -> Link {
        Link {
            rate,
            delay: Duration::from_micros(delay),
            jitter: Duration::from_micros(jitter),
            queue,
            loss,
            duplicate,
            ..Link::default()
        }
        .reorder(reorder.0, Duration::from_micros(reorder.1))
    }
}

/// A path, with a time at which a direction of it goes silent, and for how long.
#[derive(Clone, Debug)]
struct PathPlan {
    up: Link,
    down: Link,
    mtu: u16,
    cut: Option<(u64, u64, Option<Direction>)>,
}

prop_compose! {
    fn path()(
        up in link(),
        down in link(),
        mtu in prop_oneof![4 => Just(1500u16), 1 => 576u16..9000],
        cut in prop::option::weighted(
            0.3,
            (0u64..3_000, 1u64..8_000, prop::option::of(prop_oneof![Just(Direction::Forward), Just(Direction::Reverse)])),
        ),
    ) -> PathPlan {
        PathPlan { up: up.mtu(mtu), down: down.mtu(mtu), mtu, cut }
    }
}

/// Paths, settings, and how much is sent each way.
#[derive(Clone, Debug)]
pub struct Plan {
    paths: Vec<PathPlan>,
    seed: u64,
    up_bytes: u64,
    down_bytes: u64,
    ipv6: bool,
    multihomed: bool,
    segmentation: bool,
    checksum_offload: bool,
    gro: bool,
    mptcp: bool,
    dss_checksum: bool,
    buffers: usize,
    scheduler: &'static str,
    congestion: &'static str,
}

prop_compose! {
    /// Any plan.
    pub fn plan()(
        paths in prop::collection::vec(path(), 1..4),
        seed in any::<u64>(),
        up_bytes in prop_oneof![Just(0), 1u64..100, 1u64..2_000_000],
        down_bytes in prop_oneof![Just(0), 1u64..100, 1u64..2_000_000],
        bits in any::<[bool; 6]>(),
        plain in prop::bool::weighted(0.15),
        buffers in prop_oneof![Just(8usize << 20), 20_000usize..400_000],
        scheduler in prop_oneof![Just("min-rtt"), Just("round-robin")],
        congestion in prop_oneof![Just("lia"), Just("reno"), Just("cubic")],
    ) -> Plan {
        Plan {
            // IPv6 asks for 1280 at least (RFC 8200 §5).
            paths: paths
                .into_iter()
                .map(|p| {
                    let mtu = if bits[0] { p.mtu.max(1280) } else { p.mtu };
                    PathPlan { up: p.up.mtu(mtu), down: p.down.mtu(mtu), mtu, ..p }
                })
                .collect(),
            seed,
            up_bytes,
            down_bytes,
            ipv6: bits[0],
            multihomed: bits[1],
            segmentation: bits[2],
            checksum_offload: bits[3],
            gro: bits[4],
            mptcp: !plain,
            dss_checksum: bits[5],
            buffers,
            scheduler,
            congestion,
        }
    }
}

fn build(plan: &Plan, user_timeout: Duration, digest: Option<&Digest>) -> Pair {
    let config = ConnectionConfig::default()
        .with_mptcp(plan.mptcp)
        .with_checksum(plan.dss_checksum)
        .with_scheduler(plan.scheduler.to_string())
        .with_congestion(plan.congestion.to_string())
        .with_send_buffer(buffer_of(plan.buffers))
        .with_receive_buffer(buffer_of(plan.buffers))
        .with_user_timeout(user_timeout);
    let mut builder = Pair::builder()
        .seed(plan.seed)
        .ipv6(plan.ipv6)
        .multihomed(plan.multihomed)
        .segmentation(plan.segmentation)
        .checksum_offload(plan.checksum_offload)
        .gro(plan.gro)
        .trace(TraceMode::Last(400))
        .config(config);
    for p in &plan.paths {
        builder = builder.path_both(p.up.clone(), p.down.clone());
    }
    let mut net = builder.build();
    if let Some(digest) = digest {
        net.set_probe(Box::new(digest.clone()));
    }
    net
}

/// An error of the simulator, and the network as it was then.
pub type Failure = (SimError, Box<Pair>);

/// Runs a plan to the end; the hash of all packets.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When bytes are missing.
pub fn run(plan: &Plan, digest: Option<&Digest>) -> Result<u64, Failure> {
    // Bad luck must not end a connection here.
    let mut net = build(plan, Duration::from_secs(1800), digest);
    for (i, p) in plan.paths.iter().enumerate() {
        let Some((at, time, direction)) = p.cut else { continue };
        let cable = net.path_cable(i);
        for d in directions(direction) {
            net.at(Instant::from_millis(at), move |n| n.set_cut(cable, d, true));
            net.at(Instant::from_millis(at + time), move |n| n.set_cut(cable, d, false));
        }
    }
    let spec = net.flow_spec().applications(Bulk(plan.up_bytes), Bulk(plan.down_bytes));
    let go = |net: &mut Pair| {
        let flow = net.add_flow(spec)?;
        net.await_closed(flow)?;
        net.run_until_idle(Duration::from_secs(1800))?;
        let f = net.flow(flow);
        let got = (f.client.progress.received, f.server.progress.received);
        assert_eq!(got, (plan.down_bytes, plan.up_bytes));
        Ok(net.packet_hash())
    };
    go(&mut net).map_err(|e| (e, Box::new(net)))
}

/// Ends a test with all that is known.
///
/// # Panics
/// Always.
pub fn fail((e, net): Failure) -> ! {
    let flows: Vec<_> = (0..net.flow_count()).map(|i| net.flow(FlowId(i))).collect();
    panic!(
        "{e}\n{flows:#?}\n{:?}\nlast packets of {}:\n{}",
        net.sample().ends,
        net.packet_events(),
        net.trace().join("\n")
    );
}

/// Something that happens to a connection under way.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// The application of a side stops reading for so many milliseconds.
    Pause(Side, u64),
    /// A path of the client's is taken away for good. The first `paths - 1` of these count.
    Remove(usize),
    /// A middlebox begins to strip options from one direction of a path.
    Strip(usize, StripWhere, Direction),
    /// A path goes silent for so many milliseconds.
    Cut(usize, u64),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    let strip = prop_oneof![
        Just(StripWhere::Syn),
        Just(StripWhere::InitialSyn),
        Just(StripWhere::SynAck),
        Just(StripWhere::AfterSyn),
        Just(StripWhere::Everything),
    ];
    prop_oneof![
        (side(), 1u64..3_000).prop_map(|(s, ms)| Trouble::Pause(s, ms)),
        (0usize..3).prop_map(Trouble::Remove),
        (0usize..3, strip, direction()).prop_map(|(p, w, d)| Trouble::Strip(p, w, d)),
        (0usize..3, 1u64..5_000).prop_map(|(p, ms)| Trouble::Cut(p, ms)),
    ]
}

/// Any troubles, with the milliseconds at which they begin.
pub fn troubles() -> impl Strategy<Value = Vec<(u64, Trouble)>> {
    prop::collection::vec((0u64..3_000, trouble()), 0..6)
}

/// What must hold whatever happens: no wrong byte, no byte too many, an end, and then silence. The end may be
/// an error.
///
/// # Errors
/// What did not hold.
///
/// # Panics
/// When bytes are missing, or a side has not ended.
pub fn survive(plan: &Plan, troubles: &[(u64, Trouble)], digest: Option<&Digest>) -> Result<(), Failure> {
    let mut net = build(plan, Duration::from_secs(60), digest);
    let paths = plan.paths.len();
    let spec = net.flow_spec().applications(Bulk(plan.up_bytes), Bulk(plan.down_bytes));
    let flow = FlowId(0);
    let mut removed = Vec::new();
    for (at, trouble) in troubles {
        let (at, client) = (Instant::from_millis(*at), net.client());
        match trouble.clone() {
            Trouble::Pause(side, ms) => {
                net.at(at, move |n| n.pause_reading(flow, side, true));
                net.at(at + Duration::from_millis(ms), move |n| n.pause_reading(flow, side, false));
            }
            Trouble::Remove(p) => {
                let p = p % paths;
                if removed.len() + 1 < paths && !removed.contains(&p) {
                    removed.push(p);
                    let id = net.paths(client)[p];
                    net.at(at, move |n| n.remove_path(client, id));
                }
            }
            Trouble::Strip(p, which, direction) => {
                let cable = net.path_cable(p % paths);
                let inner = StripMptcp::new(which);
                net.at(at, move |n| n.add_middlebox(cable, OneWay { direction, inner }));
            }
            Trouble::Cut(p, ms) => {
                net.cut_path_at(at, p % paths);
                net.restore_path_at(at + Duration::from_millis(ms), p % paths);
            }
        }
    }
    let go = |net: &mut Pair| {
        net.add_flow(spec)?;
        net.run_until_idle(Duration::from_secs(7200))?;
        let f = net.flow(flow);
        if f.error().is_none() {
            assert!(f.is_closed(), "silence, but neither side has ended: {f:?}");
            let got = (f.client.progress.received, f.server.progress.received);
            assert_eq!(got, (plan.down_bytes, plan.up_bytes));
        }
        // With an error on one side the other may wait for ever: without keep-alive nothing tells it (RFC
        // 9293 §3.8.4).
        Ok(())
    };
    go(&mut net).map_err(|e| (e, Box::new(net)))
}
