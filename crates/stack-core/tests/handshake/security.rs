//! Attacks on handshakes, and what they come to (RFC 8684 §5, RFC 6181 §3, RFC 7430 §2).

use std::net::SocketAddr;
use umptcp_stack_core::config::{ConnectionConfig, ListenOptions, StackConfig, SynCookiePolicy};
use umptcp_stack_core::error::{ConnectError, ConnectionError};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::Duration;
use umptcp_stack_core::wire::mptcp::{MpJoin, MptcpOption};
use umptcp_stack_core::wire::tcp::TcpRepr;
use umptcp_testkit::script::*;
use umptcp_testkit::segment::Segment;

fn stack_at() -> SocketAddr {
    SocketAddr::new(STACK, PORT)
}

/// Who guesses tokens learns nothing but RSTs, and those are limited in number; nothing is remembered of it.
#[test]
fn guessing_tokens_leaves_no_state_and_is_answered_within_bounds() {
    let mut lab = Lab::listening();
    let (mut end, keys, c) = establish(&mut lab, peer(1, 4000));
    let timer = lab.stack.poll_timeout();
    let mut answers = 0;
    for guess in 0..20_000u32 {
        let at = peer(9, 1024 + (guess % 60_000) as u16);
        let token = guess.wrapping_mul(0x9e37_79b9);
        assert_ne!(token, keys.stack_token());
        let sent = End::new(at, stack_at()).send(&mut lab, SYN, &[join_syn(token, 1, 1)], &[]);
        assert!(sent.iter().all(|s| s.seg.flags.rst && s.payload.is_empty()));
        answers += sent.len();
    }
    assert_eq!(lab.counter(Counter::MPJoinNoTokenFound), 20_000);
    assert!(answers <= 1000, "{answers} RSTs in one instant");
    assert_eq!(lab.stack.poll_timeout(), timer, "guesses left timers");
    assert_eq!(lab.stack.subflows(c).len(), 1);
    assert_eq!(lab.stack.connection_count(), 1);
    end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 2)))], b"ok");
    assert_eq!(lab.received(c), b"ok");
}

/// RFC 7430 §2.2: who has seen the token but not the keys floods the connection with joins. The half-open
/// ones are bounded and short-lived, and real joins get through all the while.
#[test]
fn join_flooding_does_not_keep_real_joins_out() {
    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    let syn = [join_syn(keys.stack_token(), 1, 1)];
    let flood = |lab: &mut Lab, n: u16| {
        for port in 0..n {
            End::new(peer(9, 10_000 + port), stack_at()).send(lab, SYN, &syn, &[]);
        }
    };
    flood(&mut lab, 5000);
    assert!(lab.stack.subflows(c).len() <= 9);
    assert_eq!(lab.counter(Counter::MPJoinHalfOpenDrop), 4992);
    for n in 0..3 {
        let mut end = End::new(peer(2 + n, 5000), stack_at());
        let syn_ack = only(end.send(&mut lab, SYN, &[join_syn(keys.stack_token(), 5, 2 + n)], &[]));
        end.hear(&syn_ack);
        let Some(MpJoin::SynAck { nonce, .. }) = syn_ack.join() else { panic!("{syn_ack:?}") };
        flood(&mut lab, 4);
        let hmac = MptcpOption::Join(MpJoin::Ack { hmac: keys.ack_hmac(5, nonce) });
        end.send(&mut lab, ACK, &[hmac], &[]);
        assert_eq!(lab.counter(Counter::MPJoinAckRx), u64::from(n) + 1);
    }
    // A guessed HMAC is one chance in 2^160, and costs the attacker its subflow.
    let mut end = End::new(peer(9, 9999), stack_at());
    let syn_ack = only(end.send(&mut lab, SYN, &syn, &[]));
    end.hear(&syn_ack);
    let rst = only(end.send(&mut lab, ACK, &[MptcpOption::Join(MpJoin::Ack { hmac: [0; 20] })], &[]));
    assert!(rst.seg.flags.rst && rst.reset() == Some((1, false)));
    assert_eq!(lab.counter(Counter::MPJoinAckHMacFailure), 1);
    // After a minute and a bit only the real ones are left.
    lab.pass(Duration::from_secs(100));
    assert_eq!(lab.stack.subflows(c).len(), 4);
    lab.assert_mptcp(c);
}

/// RFC 6181 §3, RFC 8684 §5: a recorded handshake, replayed, fails, because the stack's nonce is fresh each
/// time.
#[test]
fn a_replayed_join_fails() {
    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    let mut end = End::new(peer(2, 5000), stack_at());
    let syn_ack = only(end.send(&mut lab, SYN, &[join_syn(keys.stack_token(), 5, 2)], &[]));
    end.hear(&syn_ack);
    let Some(MpJoin::SynAck { nonce, .. }) = syn_ack.join() else { panic!("{syn_ack:?}") };
    let recorded = MptcpOption::Join(MpJoin::Ack { hmac: keys.ack_hmac(5, nonce) });
    end.send(&mut lab, ACK, std::slice::from_ref(&recorded), &[]);
    assert_eq!(lab.stack.subflows(c).len(), 2);
    end.send(&mut lab, RST, &[], &[]);
    assert_eq!(lab.stack.subflows(c).len(), 1);
    // The attacker takes over the address and says the same again, from there and from elsewhere.
    for at in [peer(2, 5000), peer(3, 5000)] {
        let mut end = End::new(at, stack_at());
        let syn_ack = only(end.send(&mut lab, SYN, &[join_syn(keys.stack_token(), 5, 2)], &[]));
        end.hear(&syn_ack);
        let rst = only(end.send(&mut lab, ACK, std::slice::from_ref(&recorded), &[]));
        assert!(rst.seg.flags.rst, "{rst:?}");
    }
    assert_eq!(lab.counter(Counter::MPJoinAckHMacFailure), 2);
    assert_eq!(lab.stack.subflows(c).len(), 1);
}

/// An MP_CAPABLE handshake replayed: the stack's key is fresh, so the recorded third ACK repeats the wrong
/// one.
#[test]
fn a_replayed_connection_gets_no_mptcp() {
    use umptcp_stack_core::error::FallbackReason;
    let mut lab = Lab::listening();
    let (mut end, keys, _) = establish(&mut lab, peer(1, 4000));
    end.send(&mut lab, RST, &[], &[]);
    lab.now += Duration::from_secs(1);
    let mut end = End::new(peer(1, 4000), stack_at());
    let syn_ack = only(end.send(&mut lab, SYN, &[capable_syn()], &[]));
    assert_ne!(key_of(&syn_ack), keys.stack);
    end.hear(&syn_ack);
    end.send(&mut lab, ACK, &[capable_ack(keys)], &[]);
    lab.assert_plain(lab.accepted[1], FallbackReason::KeyMismatch);
}

/// A blind attacker's data on a half-open join reach nobody: no subflow counts before its HMAC.
#[test]
fn data_on_an_unproven_join_is_never_delivered() {
    let mut lab = Lab::listening();
    let (_, keys, c) = establish(&mut lab, peer(1, 4000));
    let mut end = End::new(peer(9, 5000), stack_at());
    let syn_ack = only(end.send(&mut lab, SYN, &[join_syn(keys.stack_token(), 5, 2)], &[]));
    end.hear(&syn_ack);
    // Even with the right mapping, which only the keys' owner could know.
    let rst = only(end.send(&mut lab, ACK, &[keys.dss(0, Some((1, 1, 4)))], b"evil"));
    assert!(rst.seg.flags.rst);
    assert_eq!(lab.received(c), b"");
    assert_eq!(lab.stack.subflows(c).len(), 1);
}

/// A SYN that nobody accepts is forgotten, and so is a connection whose third ACK never comes; both are
/// counted.
#[test]
fn handshakes_that_are_not_completed_are_dropped() {
    let mut lab = Lab::listening();
    lab.accept = None;
    End::new(peer(1, 4000), stack_at()).send(&mut lab, SYN, &[capable_syn()], &[]);
    let incoming = lab.incoming[0];
    lab.pass(Duration::from_secs(149));
    assert_eq!(lab.counter(Counter::TcpListenDrops), 0);
    lab.pass(Duration::from_secs(2));
    lab.accept = Some(ConnectionConfig::default());
    End::new(peer(1, 4001), stack_at()).send(&mut lab, SYN, &[capable_syn()], &[]);
    assert_eq!(lab.counter(Counter::TcpListenDrops), 1);
    let late = lab.stack.accept(lab.now, incoming, &ConnectionConfig::default());
    assert_eq!(late, Err(ConnectError::Gone));
    // The second was accepted and answered; its client is silent.
    assert_eq!((lab.accepted.len(), lab.stack.connection_count()), (1, 1));
    let sent = lab.pass(Duration::from_secs(120));
    assert!(sent.len() >= 5 && sent.iter().all(|(_, s)| s.seg.flags.syn), "SYN/ACKs: {sent:?}");
    assert_eq!((lab.counter(Counter::TcpListenDrops), lab.counter(Counter::TcpAbortOnTimeout)), (2, 1));
    let end = |e: &Event| matches!(e, Event::Closed { error: Some(ConnectionError::TimedOut), .. });
    assert!(lab.events.iter().any(end) && lab.stack.subflows(lab.accepted[0]).is_empty());
}

/// An application that does not take its events: peers that come and go fill the queue only so far.
#[test]
fn events_that_nobody_takes_are_bounded() {
    let mut lab = Lab::with(StackConfig::default().with_max_events(10));
    let at = SocketAddr::new(STACK, PORT);
    let mut options = ListenOptions::new(at, 8);
    options.syn_cookies = SynCookiePolicy::Never;
    lab.listen(options);
    let path = lab.paths[0];
    for port in 1000..1100 {
        let end = End::new(peer(66, port), at);
        for (flags, seq) in [(SYN, end.seq), (RST, end.seq.wrapping_add(1))] {
            let (src_port, dst_port) = (port, PORT);
            let seg = TcpRepr { src_port, dst_port, seq, flags, ..TcpRepr::default() };
            lab.stack.handle_packet(lab.now, path, Segment::of(end.at, at, &seg, &[]).received());
            assert!(lab.stack.poll_transmit(lab.now).is_none(), "it waits for the caller");
        }
    }
    // Each of the SYNs that the queue had room for was offered, and then said to be gone; the others were
    // dropped as with a full backlog.
    assert_eq!(lab.counter(Counter::TcpListenOverflow), 95);
    let offered = std::iter::from_fn(|| lab.stack.poll_event()).count();
    assert_eq!(offered, 10);
    assert!(!End::new(peer(66, 2000), at).send(&mut lab, SYN, &[capable_syn()], &[]).is_empty());
}
