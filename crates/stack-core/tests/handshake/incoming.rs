//! Connections that wait for the caller's word, as a relay needs it: it answers the SYN when its own
//! connection stands, refuses it as that was refused, and learns that the client has given up.

use std::net::SocketAddr;
use umptcp_stack_core::config::ListenOptions;
use umptcp_stack_core::error::ListenError;
use umptcp_stack_core::event::{Event, RefuseWith};
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::types::{Duration, SeqNumber};
use umptcp_stack_core::wire::icmp::{IcmpCause, IcmpError, Unreachable};
use umptcp_stack_core::wire::ip::{self, IpHeader};
use umptcp_testkit::script::*;

fn stack_at(port: u16) -> SocketAddr {
    SocketAddr::new(STACK, port)
}

/// A stack whose SYNs wait, and a client that has sent one.
fn waiting() -> (Lab, End) {
    let mut lab = Lab::listening();
    lab.accept = None;
    let mut end = End::new(peer(1, 4000), stack_at(PORT));
    assert!(end.send(&mut lab, SYN, &[capable_syn()], &[]).is_empty(), "it is not answered");
    assert_eq!(lab.incoming.len(), 1);
    (lab, end)
}

fn is_gone(lab: &Lab) -> bool {
    lab.events.iter().any(|e| matches!(e, Event::IncomingGone { incoming } if *incoming == lab.incoming[0]))
}

#[test]
fn a_refusal_says_what_the_caller_says() {
    for (with, cause) in [
        (Unreachable::Network, IcmpCause::NetworkUnreachable),
        (Unreachable::Host, IcmpCause::HostUnreachable),
        (Unreachable::Protocol, IcmpCause::ProtocolUnreachable),
        (Unreachable::Port, IcmpCause::PortUnreachable),
        (Unreachable::Prohibited, IcmpCause::Prohibited),
    ] {
        let (mut lab, _) = waiting();
        lab.stack.refuse(lab.now, lab.incoming[0], RefuseWith::Unreachable(with));
        let packet = lab.stack.poll_transmit(lab.now).expect("an ICMP error").to_vec();
        let header = IpHeader::parse(&packet).expect("an IP header");
        assert_eq!((header.src, header.dst), (STACK, peer(1, 4000).ip()));
        let error = IcmpError::parse(&header, &packet).expect("right in every respect");
        assert_eq!((error.cause, error.src, error.dst), (cause, peer(1, 4000), stack_at(PORT)));
        assert_eq!(error.unreachable(), Some(with));
        assert!(lab.poll().is_empty());
    }
    let (mut lab, _) = waiting();
    lab.stack.refuse(lab.now, lab.incoming[0], RefuseWith::Reset);
    assert!(only(lab.poll()).seg.flags.rst);
    let (mut lab, mut end) = waiting();
    lab.stack.refuse(lab.now, lab.incoming[0], RefuseWith::Silence);
    assert!(lab.poll().is_empty());
    // The client asks again, and is offered again.
    end.send(&mut lab, SYN, &[capable_syn()], &[]);
    assert_eq!(lab.incoming.len(), 2);
}

/// Both families, against the parser of what others send.
#[test]
fn unreachable_messages_are_right_in_both_families() {
    let at = |a: &str| a.parse::<SocketAddr>().expect("an address");
    for (src, dst) in [("10.0.0.1:4000", "192.0.2.1:80"), ("[fd00::1]:4000", "[2001:db8::1]:80")] {
        let (src, dst) = (at(src), at(dst));
        let message = Unreachable::Host.message(src, dst, SeqNumber(77)).expect("one family");
        let len = ip::ip_header_len(&src.ip());
        let mut packet = vec![0; len];
        let protocol = if src.is_ipv4() { 1 } else { 58 };
        let addresses = (dst.ip(), src.ip());
        ip::emit_ip_header_for(&mut packet, addresses, protocol, message.len(), 0, 1).expect("one family");
        packet.extend(message);
        let header = IpHeader::parse(&packet).expect("an IP header");
        let error = IcmpError::parse(&header, &packet).expect("right in every respect");
        assert_eq!((error.src, error.dst, error.seq.0), (src, dst, 77));
        assert_eq!(error.cause, IcmpCause::HostUnreachable);
    }
    assert!(Unreachable::Port.message(at("10.0.0.1:1"), at("[::1]:1"), SeqNumber(0)).is_none());
}

#[test]
fn the_caller_learns_that_a_client_has_given_up() {
    // By RST, as a program that is killed sends it.
    let (mut lab, mut end) = waiting();
    end.send(&mut lab, RST, &[], &[]);
    assert!(is_gone(&lab));
    assert!(lab.stack.accept(lab.now, lab.incoming[0], &Default::default()).is_err());
    // In silence: after longer than a kernel tries.
    let (mut lab, _) = waiting();
    lab.pass(Duration::from_secs(140));
    assert!(!is_gone(&lab), "Linux may still be asking");
    lab.pass(Duration::from_secs(11));
    assert!(is_gone(&lab));
    assert_eq!(lab.counter(Counter::TcpListenDrops), 1);
    // With the path.
    let (mut lab, _) = waiting();
    let path = lab.paths[0];
    lab.stack.path_removed(lab.now, path);
    lab.poll();
    assert!(is_gone(&lab));
}

#[test]
fn a_repeated_syn_is_one_connection() {
    let (mut lab, mut end) = waiting();
    for _ in 0..5 {
        lab.pass(Duration::from_secs(1));
        assert!(end.send(&mut lab, SYN, &[capable_syn()], &[]).is_empty());
    }
    assert_eq!(lab.incoming.len(), 1);
    lab.stack.accept(lab.now, lab.incoming[0], &Default::default()).expect("it waits");
    let syn_ack = only(lab.poll());
    assert!(syn_ack.seg.flags.syn && syn_ack.seg.flags.ack && syn_ack.capable().is_some());
}

#[test]
fn a_listener_for_every_port_of_a_path_comes_after_those_of_a_port() {
    let mut lab = Lab::new();
    lab.accept = None;
    let (first, second) = (lab.paths[0], lab.paths[1]);
    let every = lab.stack.listen(ListenOptions::every_port(vec![first], 8)).expect("listen");
    let own = lab.stack.listen(ListenOptions::new(stack_at(PORT), 8)).expect("listen");
    let again = lab.stack.listen(ListenOptions::every_port(vec![first, second], 8));
    assert!(matches!(again, Err(ListenError::InUse(_))), "one for each path");
    let mut zero = ListenOptions::new(stack_at(0), 8);
    assert_eq!(lab.stack.listen(zero.clone()), Err(ListenError::NoPort));
    (zero.every_port, zero.local) = (true, stack_at(80));
    assert_eq!(lab.stack.listen(zero), Err(ListenError::NoPort));
    let mut port = 4000;
    let mut listener_of = |lab: &mut Lab, to: SocketAddr| {
        port += 1;
        let sent = End::new(peer(1, port), to).send(lab, SYN, &[capable_syn()], &[]);
        let refused = sent.iter().any(|s| s.seg.flags.rst);
        match lab.events.pop() {
            Some(Event::Incoming { listener, local, .. }) if !refused => {
                assert_eq!(local, to);
                Some(listener)
            }
            _ => None,
        }
    };
    assert_eq!(listener_of(&mut lab, stack_at(PORT)), Some(own));
    assert_eq!(listener_of(&mut lab, stack_at(81)), Some(every));
    assert_eq!(listener_of(&mut lab, stack_at(65_535)), Some(every));
    assert_eq!(listener_of(&mut lab, SocketAddr::new(STACK_2, 81)), None, "another path");
    lab.stack.unlisten(lab.now, own);
    lab.poll();
    assert_eq!(listener_of(&mut lab, stack_at(PORT)), Some(every));
    lab.stack.unlisten(lab.now, every);
    assert_eq!(lab.poll().iter().filter(|s| s.seg.flags.rst).count(), 3);
    assert_eq!(listener_of(&mut lab, stack_at(81)), None);
}
