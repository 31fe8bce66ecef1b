//! Translators that forget a flow sooner than TCP would ask for a sign of life, as they do of UDP.

use umptcp_netsim::middlebox::Nat;
use umptcp_netsim::{Duration, Instant, Link, Pair, Side};
use umptcp_stack_core::config::{ConnectionConfig, KeepAlive};

const SILENCE: Duration = Duration::from_secs(20);

fn pair(silence: Option<Duration>, config: ConnectionConfig) -> Pair {
    let link = Link::mbit(50).delay_ms(10);
    Pair::builder().path(link).longest_silence(silence).config(config).seed(3).build()
}

/// The peer speaks first after a long pause, so that nothing of ours makes a new mapping.
#[test]
fn a_translator_remembers_a_flow_that_is_never_silent_for_long() {
    for (silence, arrives) in [(Some(SILENCE), true), (None, false)] {
        for v1 in [true, false] {
            let mut net = pair(silence, ConnectionConfig::default().with_mptcp(v1));
            net.middlebox(0, Nat::new().expiring(Duration::from_secs(30)));
            let flow = net.connect().unwrap();
            net.transfer(flow, Side::Client, 1000).unwrap();
            net.run_for(Duration::from_secs(3600)).unwrap();
            let late = net.transfer(flow, Side::Server, 1000);
            assert_eq!(late.is_ok(), arrives, "{silence:?}, MPTCP {v1}: {late:?}");
        }
    }
}

/// An hour without an answer ends nothing, unless the connection has keep-alives of its own.
#[test]
fn probes_for_translators_end_nothing() {
    let gives_up =
        KeepAlive::default().with_idle(Duration::from_secs(60)).with_interval(Duration::from_secs(60));
    for (keep_alive, lives) in [(None, true), (Some(gives_up), false)] {
        let config = ConnectionConfig::default().with_mptcp(false).with_keep_alive(keep_alive);
        let mut net = pair(Some(SILENCE), config);
        let flow = net.connect().unwrap();
        net.transfer(flow, Side::Client, 1000).unwrap();
        net.cut_path_at(Instant::ZERO + Duration::from_secs(100), 0);
        net.restore_path_at(Instant::ZERO + Duration::from_secs(3700), 0);
        let _ = net.run_for(Duration::from_secs(4000));
        let late = net.transfer(flow, Side::Client, 1000);
        assert_eq!(late.is_ok(), lives, "{keep_alive:?}: {late:?}");
    }
}
