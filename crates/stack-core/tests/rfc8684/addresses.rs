//! RFC 8684 §3.3.8 and §3.4: ADD_ADDR, REMOVE_ADDR, MP_PRIO.

use crate::peer::{KEY, Lab, Out, Seen, bytes, peer_address, stack_address};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::{ConnectOptions, ConnectionConfig};
use umptcp_stack_core::device::{Families, PathConfig, SignalPort};
use umptcp_stack_core::error::{ConnectError, SignalError};
use umptcp_stack_core::event::Event;
use umptcp_stack_core::observe::Counter;
use umptcp_stack_core::scheduler::Health;
use umptcp_stack_core::types::{AddressId, Duration, PathId, SubflowId};
use umptcp_stack_core::wire::mptcp::keys::add_addr_hmac;
use umptcp_stack_core::wire::mptcp::{AddAddr, MpJoin, MpPrio, MptcpOption, RemoveAddr};
use umptcp_stack_core::wire::tcp::TcpFlags;

fn client(paths: u8) -> Lab {
    Lab::client(ConnectionConfig::default(), paths)
}

fn add_addr_of(s: &Seen) -> Option<AddAddr> {
    s.seg.options.mptcp.iter().find_map(|o| match o {
        MptcpOption::AddAddr(a) => Some(*a),
        _ => None,
    })
}

fn removed(s: &Seen) -> Vec<u8> {
    s.seg
        .options
        .mptcp
        .iter()
        .filter_map(|o| match o {
            MptcpOption::RemoveAddr(r) => Some(r.ids.iter().map(|i| i.0)),
            _ => None,
        })
        .flatten()
        .collect()
}

fn add(l: &mut Lab, flow: usize, id: u8, address: SocketAddr, port: bool) {
    let option = l.add_addr(id, address, port);
    l.send(flow, Out::options([option.into()]));
}

fn remove(l: &mut Lab, flow: usize, ids: &[u8]) {
    let ids = ids.iter().map(|i| AddressId(*i)).collect();
    l.send(flow, Out::options([MptcpOption::RemoveAddr(RemoveAddr { ids })]));
}

/// Refuses the join that is among the segments not looked at.
fn refuse_join(l: &mut Lab) -> SocketAddr {
    let syn = l.take(|s| s.seg.flags.syn).expect("a join");
    let mut rst = syn.seg.clone();
    (rst.src_port, rst.dst_port) = (syn.seg.dst_port, syn.seg.src_port);
    rst.ack = syn.seg.seq.wrapping_add(1);
    rst.flags = TcpFlags { rst: true, ack: true, ..TcpFlags::default() };
    rst.options.mptcp.clear();
    l.inject(syn.from, syn.to, &rst, &[]);
    syn.to
}

#[test]
fn add_addr_is_echoed_and_followed() {
    let v6: IpAddr = "2001:db8::7".parse().expect("an address");
    for (address, port) in [
        (SocketAddr::new(peer_address(5), 80), false),
        (SocketAddr::new(peer_address(5), 8080), true),
        (SocketAddr::new(v6, 80), false),
        (SocketAddr::new(v6, 8080), true),
    ] {
        let mut l = client(1);
        l.stack.path_added(l.now, PathConfig::new("v6", "2001:db8::1".parse().expect("an address")));
        l.take_all();
        add(&mut l, 0, 5, address, port);
        let sent = l.take_all();
        let echo = sent.iter().find_map(add_addr_of).expect("an echo");
        let expected = AddAddr { hmac: None, ..l.add_addr(5, address, port) };
        assert_eq!(echo, expected);
        let syn = sent.iter().find(|s| s.seg.flags.syn).expect("a join");
        assert_eq!(syn.to, address);
        assert_eq!(l.counter(Counter::AddAddr), 1);
        assert_eq!(l.counter(Counter::EchoAddTx), 1);
        assert_eq!(l.counter(Counter::PortAdd), u64::from(port));
    }
}

#[test]
fn add_addr_without_port_means_that_of_the_subflow_that_carries_it() {
    let mut l = client(1);
    add(&mut l, 0, 5, SocketAddr::new(peer_address(5), 8080), true);
    let second = l.accept_join(5);
    add(&mut l, second, 6, SocketAddr::new(peer_address(6), 0), false);
    let syn = l.take(|s| s.seg.flags.syn).expect("a join");
    assert_eq!(syn.to, SocketAddr::new(peer_address(6), 8080));
}

#[test]
fn a_forged_add_addr_is_ignored() {
    // RFC 8684 §3.4.1, §5: who does not know the keys cannot divert the connection.
    let mut l = client(1);
    let address = SocketAddr::new(peer_address(5), 80);
    let right = l.add_addr(5, address, false);
    let elsewhere = AddAddr { address: peer_address(6), ..right };
    let other_id = AddAddr { address_id: AddressId(6), ..right };
    let other_port = AddAddr { port: Some(22), ..right };
    let guessed = AddAddr { hmac: Some(0), ..right };
    // What we ourselves sent, reflected.
    let hmac = add_addr_hmac(l.key, KEY, AddressId(5), address.ip(), 0);
    let reflected = AddAddr { hmac: Some(hmac), ..right };
    for forged in [elsewhere, other_id, other_port, guessed, reflected] {
        l.send(0, Out::options([forged.into()]));
    }
    let sent = l.take_all();
    assert!(sent.iter().all(|s| add_addr_of(s).is_none() && !s.seg.flags.syn), "{sent:?}");
    assert_eq!(l.counter(Counter::AddAddrDrop), 5);
    // The right one outside the TCP window counts for nothing either.
    l.send(0, Out { at: Some(0x4000_0000), ..Out::options([right.into()]) });
    assert!(l.take_all().iter().all(|s| add_addr_of(s).is_none() && !s.seg.flags.syn));
}

#[test]
fn add_addr_before_the_first_data_ack_is_echoed_and_followed_at_once() {
    let mut l = Lab::client_unconfirmed(ConnectionConfig::default(), 1);
    add(&mut l, 0, 5, SocketAddr::new(peer_address(5), 80), false);
    // Its HMAC shows that the peer has the keys, so that MP_CAPABLE gives way to the echo, and joins may
    // begin.
    let sent = l.take_all();
    assert!(sent.iter().any(|s| add_addr_of(s).is_some()));
    assert!(sent.iter().any(|s| s.seg.flags.syn));
}

#[test]
fn addresses_that_cannot_be_connected_to_are_dropped() {
    let mut l = client(1);
    for ip in ["224.0.0.1", "0.0.0.0", "255.255.255.255", "127.0.0.1"] {
        let ip: IpAddr = ip.parse().expect("an address");
        add(&mut l, 0, 5, SocketAddr::new(ip, 80), false);
    }
    assert!(l.take_all().iter().all(|s| !s.seg.flags.syn));
    assert_eq!(l.counter(Counter::AddAddrDrop), 4);
    // Private ones are not (RFC 8684 §3.4.1).
    add(&mut l, 0, 5, SocketAddr::from(([192, 168, 1, 1], 80)), false);
    assert!(l.take(|s| s.seg.flags.syn).is_some());
}

#[test]
fn an_address_that_failed_is_tried_again_later_or_when_advertised_anew() {
    let mut l = client(1);
    let address = SocketAddr::new(peer_address(5), 80);
    add(&mut l, 0, 5, address, false);
    assert_eq!(refuse_join(&mut l), address);
    assert!(l.events.iter().any(|e| matches!(e, Event::JoinFailed { remote, .. } if *remote == address)));
    l.data(0, 1, 10);
    l.advance(Duration::from_millis(900));
    assert!(l.take_all().iter().all(|s| !s.seg.flags.syn));
    l.advance(Duration::from_millis(200));
    assert_eq!(refuse_join(&mut l), address);
    l.advance(Duration::from_millis(1900));
    assert!(l.take_all().iter().all(|s| !s.seg.flags.syn), "later each time");
    // Another address of the same ID is a contradiction, and no way to refresh it.
    add(&mut l, 0, 5, SocketAddr::new(peer_address(6), 80), false);
    assert!(l.take_all().iter().all(|s| !s.seg.flags.syn));
    // The same again is.
    add(&mut l, 0, 5, address, false);
    assert_eq!(refuse_join(&mut l), address);
    // And so is another port, which replaces the first.
    let other_port = SocketAddr::new(peer_address(5), 443);
    add(&mut l, 0, 5, other_port, true);
    assert_eq!(l.take(|s| s.seg.flags.syn).map(|s| s.to), Some(other_port));
}

#[test]
fn no_more_addresses_are_followed_than_configured() {
    let config = ConnectionConfig::default().with_max_add_addr_accepted(2);
    let mut l = Lab::client(config, 1);
    for id in 1..100 {
        add(&mut l, 0, id, SocketAddr::new(peer_address(id), 80), false);
    }
    let syns: std::collections::BTreeSet<_> =
        l.take_all().into_iter().filter(|s| s.seg.flags.syn).map(|s| s.to).collect();
    assert_eq!(syns.len(), 2);
    assert_eq!(l.counter(Counter::AddAddrDrop), 97);
}

/// RFC 8684 §3.4.2: a subflow that still works ends by FIN, and the peer is told of the address.
#[test]
fn a_path_that_is_to_be_removed_takes_leave_in_order_if_there_is_another() {
    let mut l = client(2);
    let path = PathId(0);
    l.stack.path_leaving(l.now, path);
    l.poll();
    assert!(l.take_all().iter().all(|s| !s.seg.flags.fin && removed(s).is_empty()), "the only subflow");
    l.write(1);
    l.ack(0);
    let mut l = client(2);
    l.data(0, 1, 1);
    l.accept_join(7);
    l.stack.path_leaving(l.now, path);
    l.poll();
    assert_eq!(l.stack.subflows_closing(path), 1);
    let sent = l.take_all();
    assert!(sent.iter().any(|s| s.seg.flags.fin && s.flow == Some(0)));
    assert!(sent.iter().any(|s| removed(s) == [0] && s.flow == Some(1)));
    l.ack(0);
    l.send(0, Out { fin: true, ..Out::default() });
    assert_eq!((l.stack.subflows_closing(path), l.subflows().len()), (0, 1));
}

/// RFC 8684 §3.4.2 has the peer ask a subflow of a removed address whether it lives, and it knows of no use
/// for one that has carried nothing: such joins are given up here, not left to its RST.
#[test]
fn joins_over_a_path_that_is_to_be_removed_are_given_up() {
    for answered in [false, true] {
        let mut l = client(2);
        l.data(0, 1, 1);
        l.accept_join(7);
        add(&mut l, 0, 5, SocketAddr::new(peer_address(5), 80), false);
        let flow = answered.then(|| l.answer_join(5, false));
        assert_eq!(l.subflows().len(), 3);
        l.stack.path_leaving(l.now, PathId(0));
        l.poll();
        assert_eq!(l.subflows().len(), 2, "the join ends at once");
        let sent = l.take_all();
        assert!(sent.iter().any(|s| s.seg.flags.fin && s.flow == Some(0)), "what works takes leave");
        assert_eq!(sent.iter().any(|s| s.seg.flags.rst && s.flow == flow), answered);
        let lost = l.stack.info(l.conn).expect("info").lost_subflows;
        assert!(
            matches!(&lost[..], [s] if !s.established && s.reset.is_some_and(|r| !r.by_peer)),
            "{lost:?}"
        );
    }
}

/// A route that came late, a rule that is back: what failed before is no sign any more, however often.
#[test]
fn a_path_that_has_changed_is_joined_over_at_once() {
    let mut l = client(2);
    l.data(0, 1, 1);
    let over_it = |s: &Seen| s.seg.flags.syn && s.from.ip() == stack_address(1);
    for _ in 0..6 {
        let syn = l.advance_until(Duration::from_secs(40), over_it).expect("a join, after a growing pause");
        // As the host says it where no route leads.
        l.unreachable(&syn, 0);
    }
    l.take_all();
    l.advance(Duration::from_secs(5));
    assert!(l.take_all().iter().all(|s| !over_it(s)), "nothing has changed yet");
    l.stack.path_changed(l.now, PathId(0));
    l.poll();
    assert!(l.take_all().iter().all(|s| !over_it(s)), "another path has changed");
    l.stack.path_changed(l.now, PathId(1));
    l.poll();
    l.accept_join(0);
    assert_eq!(l.subflows().len(), 2);
}

/// With the link of one path down, its subflow ends and the peer is told; the last subflow is kept for when
/// its link is up again, as a kernel's connection is, unless another takes its place.
#[test]
fn a_link_that_is_down_ends_no_connection() {
    let mut l = client(2);
    l.data(0, 1, 1);
    l.accept_join(7);
    l.write(2_000);
    l.take_all();
    l.stack.path_down(l.now, PathId(0), Families::BOTH);
    l.poll();
    assert_eq!(l.subflows().len(), 1);
    assert!(l.take_all().iter().any(|s| removed(s) == [0] && s.flow == Some(1)), "the peer is told");
    l.stack.path_down(l.now, PathId(1), Families::BOTH);
    l.write(500);
    l.advance(Duration::from_secs(5));
    assert!(l.take_all().is_empty(), "nothing is sent by a link that is down");
    assert_eq!(l.subflows().len(), 1, "the last is kept");
    let refused = l.stack.connect(l.now, ConnectOptions::new(SocketAddr::new(peer_address(9), 80)));
    assert!(matches!(refused, Err(ConnectError::NoPath(_))), "{refused:?}");
    // Up again: what waits goes out at once, without a new subflow.
    l.stack.path_up(l.now, PathId(1), Families::BOTH);
    l.poll();
    let sent = l.take_all();
    assert!(sent.iter().any(|s| s.flow == Some(1) && !s.payload.is_empty()), "data at once");
    assert!(sent.iter().all(|s| !s.seg.flags.rst));

    // The other comes first: it takes over.
    l.stack.path_down(l.now, PathId(1), Families::BOTH);
    l.write(700);
    l.stack.path_up(l.now, PathId(0), Families::BOTH);
    l.poll();
    let flow = l.accept_join(7);
    l.poll();
    // Paced.
    l.advance(Duration::from_millis(20));
    assert_eq!(l.subflows().len(), 1);
    let sent = l.take_all();
    assert!(
        sent.iter().any(|s| s.flow == Some(flow) && !s.payload.is_empty()),
        "data go on over it: {sent:?}"
    );
    assert!(l.stack.info(l.conn).is_some_and(|info| info.error.is_none()));
}

/// A NIC with addresses of both families loses one of them for a while: what goes by the other goes on, and
/// what went by that one waits for it, in both roles.
#[test]
fn a_family_that_is_down_ends_no_connection_and_holds_back_no_other() {
    let v6: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7_u16].into();
    let (v4_only, v6_only) = (Families { ipv4: true, ipv6: false }, Families { ipv4: false, ipv6: true });
    for client in [false, true] {
        let config = ConnectionConfig::default();
        let mut l = if client { Lab::client(config, 1) } else { Lab::server(config, 1) };
        let path = PathId(0);
        let both = vec![stack_address(0), v6];
        l.stack.path_readdressed(l.now, path, both, Vec::new(), Families::default());
        l.data(0, 1, 1);
        l.take_all();
        // The other one, which it does not use.
        l.stack.path_down(l.now, path, v6_only);
        l.write(300);
        l.poll();
        let sent = l.take_all();
        assert!(sent.iter().any(|s| !s.payload.is_empty()), "IPv4 goes on: {sent:?}");
        l.ack(0);
        l.stack.path_up(l.now, path, v6_only);
        l.poll();
        assert!(l.take_all().iter().all(|s| s.payload.is_empty()), "nothing was waiting");
        // Its own.
        l.stack.path_down(l.now, path, v4_only);
        l.write(500);
        l.advance(Duration::from_secs(5));
        assert!(l.take_all().iter().all(|s| s.flow.is_none()), "nothing is sent by what is down");
        assert_eq!(l.subflows().len(), 1, "it is kept");
        let to = |last| SocketAddr::new(last, 80);
        let refused = l.stack.connect(l.now, ConnectOptions::new(to(peer_address(9))));
        assert!(matches!(refused, Err(ConnectError::NoPath(_))), "{refused:?}");
        let other = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 9_u16].into();
        assert!(l.stack.connect(l.now, ConnectOptions::new(to(other))).is_ok());
        assert!(l.stack.is_path_down(path, stack_address(0)) && !l.stack.is_path_down(path, v6));
        l.stack.path_up(l.now, path, Families::BOTH);
        l.poll();
        let sent = l.take_all();
        assert!(sent.iter().any(|s| s.flow == Some(0) && !s.payload.is_empty()), "data at once: {sent:?}");
        assert!(sent.iter().all(|s| !s.seg.flags.rst));
        assert!(l.stack.info(l.conn).is_some_and(|info| info.error.is_none()));
    }
}

/// Addresses that lead nowhere get two SYNs at a time, and for a short time each. A path of ours that comes
/// is used at once.
#[test]
fn seven_addresses_that_lead_nowhere_keep_no_path_from_being_used() {
    for limit in [3, 8] {
        let config = ConnectionConfig::default().with_max_add_addr_accepted(7).with_max_subflows(limit);
        let mut l = Lab::client(config, 1);
        for id in 1..=7 {
            add(&mut l, 0, id, SocketAddr::new(peer_address(10 + id), 80), false);
        }
        let waiting = |l: &Lab| l.subflows().iter().filter(|s| s.state == "SYN-SENT").count();
        let syns_to = |l: &mut Lab| -> std::collections::BTreeSet<IpAddr> {
            l.take_all().iter().filter(|s| s.seg.flags.syn).map(|s| s.to.ip()).collect()
        };
        assert_eq!((waiting(&l), syns_to(&mut l).len()), (2, 2));
        // Both are given up soon, and every address has its turn within two minutes.
        let mut tried = std::collections::BTreeSet::new();
        for _ in 0..120 {
            l.advance(Duration::from_secs(1));
            assert!(waiting(&l) <= 2);
            tried.extend(syns_to(&mut l));
        }
        assert_eq!(tried.len(), 7, "{tried:?}");
        // With all places taken, a path of ours displaces one of them.
        assert_eq!(l.subflows().len(), 3);
        l.stack.path_added(l.now, PathConfig::new("late", stack_address(9)));
        l.advance(Duration::from_millis(100));
        let syns = l.take_all();
        let late = syns.iter().filter(|s| s.seg.flags.syn && s.from.ip() == stack_address(9));
        assert!(late.clone().any(|s| s.to.ip() == peer_address(0)), "{}", late.count());
        assert!(l.subflows().len() <= limit);
    }
}

/// Two hosts with two cables: neither path of ours leads to the address of the peer's other one. The pairs
/// that fail leave room, as soon as they have failed, for the pair that has not been tried.
#[test]
fn a_pair_that_was_never_tried_comes_before_those_that_failed() {
    let mut l = client(2);
    let start = l.now;
    add(&mut l, 0, 5, SocketAddr::new(peer_address(2), 80), false);
    let mut tried = std::collections::BTreeMap::new();
    for _ in 0..200 {
        for s in l.take_all().iter().filter(|s| s.seg.flags.syn) {
            tried.entry((s.from.ip(), s.to.ip())).or_insert(l.now - start);
        }
        l.advance(Duration::from_millis(100));
    }
    let second = tried[&(stack_address(1), peer_address(2))];
    assert!(second < Duration::from_secs(9), "{tried:?}");
}

/// RFC 8684 §5: whoever has us connect to others by ADD_ADDR gets a few SYNs a second, however often it says
/// so.
#[test]
fn advertisements_without_end_make_few_joins() {
    let mut l = client(1);
    let mut syns = 0;
    for port in 1_000..1_200 {
        add(&mut l, 0, 5, SocketAddr::new(peer_address(5), port), true);
        while l.sent.iter().any(|s| s.seg.flags.syn) {
            syns += 1;
            refuse_join(&mut l);
        }
    }
    assert_eq!(syns, 16);
    assert!(l.counter(Counter::MPJoinSynTxPutOff) >= 180);
    // The last one advertised is tried when there is room again.
    l.advance(Duration::from_secs(2));
    assert_eq!(refuse_join(&mut l), SocketAddr::new(peer_address(5), 1_199));
}

#[test]
fn our_advertisement_is_repeated_until_echoed() {
    for port in [None, Some(8443)] {
        let mut l = Lab::server(ConnectionConfig::default(), 2);
        let address = stack_address(1);
        let id = l.stack.advertise_address(l.now, l.conn, address, port).expect("advertise");
        l.poll();
        let first = l.take(|s| add_addr_of(s).is_some()).and_then(|s| add_addr_of(&s)).expect("ADD_ADDR");
        let hmac = add_addr_hmac(l.key, KEY, id, address, port.unwrap_or(0));
        assert_eq!(first, AddAddr { address_id: id, address, port, hmac: Some(hmac) });
        let again = l.advance_until(Duration::from_secs(10), |s| add_addr_of(s).is_some());
        assert_eq!(again.and_then(|s| add_addr_of(&s)), Some(first));
        // An echo of something else is none of this.
        let other = AddAddr { hmac: None, address_id: AddressId(99), ..first };
        l.send(0, Out::options([other.into()]));
        assert!(l.advance_until(Duration::from_secs(10), |s| add_addr_of(s).is_some()).is_some());
        l.send(0, Out::options([AddAddr { hmac: None, ..first }.into()]));
        l.take_all();
        l.advance(Duration::from_millis(900));
        assert!(l.take_all().iter().all(|s| add_addr_of(s).is_none()));
        assert_eq!(l.counter(Counter::EchoAdd), 2);
        // A join to that address carries the same ID in the SYN/ACK; withdrawn, the ID is named.
        l.join(3, 1);
        l.take_all();
        l.stack.withdraw_addresses(l.now, l.conn, &[id]).expect("withdraw");
        l.poll();
        let sent = l.take_all();
        assert!(sent.iter().any(|s| removed(s) == [id.0] && s.flow == Some(0)));
        // The subflow worked, so it is closed by FIN.
        assert!(sent.iter().any(|s| s.seg.flags.fin && s.flow == Some(1)));
    }
}

/// A peer tries an address once, when it is told, and our network or its own may not have been ready (RFC
/// 8684 §3.4.1: a refreshed ADD_ADDR asks for another attempt).
#[test]
fn an_advertisement_that_nobody_joins_is_refreshed_with_growing_pauses() {
    let mut l = Lab::server(ConnectionConfig::default(), 2);
    l.stack.advertise_address(l.now, l.conn, stack_address(1), None).expect("advertise");
    l.poll();
    let begin = l.now;
    let mut after = Vec::new();
    let mut first = None;
    while let Some(told) = l.advance_until(Duration::from_secs(200), |s| add_addr_of(s).is_some()) {
        let told = add_addr_of(&told).expect("ADD_ADDR");
        assert_eq!(*first.get_or_insert(told), told);
        after.push((l.now - begin).as_secs());
        l.send(0, Out::options([AddAddr { hmac: None, ..told }.into()]));
    }
    assert_eq!(after, [0, 1, 3, 7, 15, 31, 63, 127]);
    assert_eq!(l.stack.poll_timeout(), None);
}

#[test]
fn an_advertisement_that_was_joined_is_not_refreshed() {
    let mut l = Lab::server(ConnectionConfig::default(), 2);
    l.stack.advertise_address(l.now, l.conn, stack_address(1), None).expect("advertise");
    l.poll();
    let told = l.take(|s| add_addr_of(s).is_some()).and_then(|s| add_addr_of(&s)).expect("ADD_ADDR");
    l.send(0, Out::options([AddAddr { hmac: None, ..told }.into()]));
    l.advance(Duration::from_millis(500));
    l.join(3, 1);
    l.take_all();
    l.advance(Duration::from_secs(200));
    assert!(l.take_all().iter().all(|s| add_addr_of(s).is_none()));
}

#[test]
fn an_advertisement_nobody_echoes_is_given_up() {
    let mut l = Lab::server(ConnectionConfig::default(), 2);
    l.stack.advertise_address(l.now, l.conn, stack_address(1), None).expect("advertise");
    l.advance(Duration::from_secs(600));
    let times = l.take_all().iter().filter(|s| add_addr_of(s).is_some()).count();
    assert_eq!(times, 4);
    assert_eq!(l.counter(Counter::AddAddrTxDrop), 1);
    assert_eq!(l.stack.poll_timeout(), None);
}

#[test]
fn configured_advertisement_names_the_other_paths() {
    let config = ConnectionConfig::default().with_advertise_addresses(true);
    let mut l = Lab::server(config, 3);
    l.data(0, 1, 1);
    // Made at the next occasion for the path manager: another path comes.
    l.stack.path_added(l.now, PathConfig::new("late", stack_address(9)));
    l.poll();
    l.advance(Duration::from_secs(60));
    let told: std::collections::BTreeSet<IpAddr> =
        l.take_all().iter().filter_map(add_addr_of).map(|a| a.address).collect();
    assert_eq!(told, [stack_address(1), stack_address(2), stack_address(9)].into_iter().collect());
}

/// An endpoint with a port (`ip mptcp endpoint add ... signal port`): told beside the address that the first subflow
/// uses, with the chosen ID, and taken back.
#[test]
fn a_port_of_a_path_is_told_with_its_id_and_taken_back() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.data(0, 1, 1);
    l.take_all();
    let path = PathId(0);
    let port = |ipv6, port, id: Option<u8>| SignalPort { ipv6, port, id: id.map(AddressId) };
    let all = vec![port(false, 8443, Some(77)), port(true, 9443, Some(78)), port(false, 8444, None)];
    assert!(l.stack.set_signal_ports(l.now, path, all));
    assert!(!l.stack.set_signal_ports(l.now, PathId(9), Vec::new()));
    l.poll();
    l.advance(Duration::from_secs(60));
    let told: std::collections::BTreeSet<_> =
        l.take_all().iter().filter_map(add_addr_of).map(|a| (a.address, a.port, a.address_id.0)).collect();
    let expected = [(stack_address(0), Some(8443), 77), (stack_address(0), Some(8444), 1)];
    assert_eq!(told, expected.into_iter().collect(), "the path has no IPv6 address");
    assert!(l.stack.set_signal_ports(l.now, path, vec![port(false, 8443, Some(77))]));
    l.poll();
    l.advance(Duration::from_secs(60));
    let sent = l.take_all();
    let gone: std::collections::BTreeSet<u8> = sent.iter().flat_map(removed).collect();
    assert_eq!(gone, [1].into());
    assert!(sent.iter().filter_map(add_addr_of).all(|a| a.port == Some(8443)), "{sent:?}");
}

#[test]
fn signals_make_at_most_two_duplicate_acks_in_a_row() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    // More than fit into six options.
    let ids: Vec<AddressId> = (1..=180).map(AddressId).collect();
    l.stack.withdraw_addresses(l.now, l.conn, &ids).expect("withdraw");
    l.poll();
    let burst = l.take_all();
    assert_eq!(burst.iter().filter(|s| !removed(s).is_empty()).count(), 2);
    l.advance(Duration::from_micros(900));
    assert!(l.take_all().is_empty());
    l.advance(Duration::from_secs(1));
    let mut told: std::collections::BTreeSet<u8> =
        burst.iter().chain(&l.take_all()).flat_map(removed).collect();
    // What is sent anyway may carry one as well.
    l.data(0, 1, 10);
    told.extend(l.take_all().iter().flat_map(removed));
    assert_eq!(told.len(), 180, "{told:?}");
}

#[test]
fn add_addrs_leave_one_at_a_time_paced_by_the_echo_and_in_the_connections_family_first() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let other = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 9]);
    let addresses = [peer_address(101), other, peer_address(102)];
    for address in addresses {
        l.stack.advertise_address(l.now, l.conn, address, None).expect("advertise");
    }
    let mut told = Vec::new();
    for _ in 0..3 {
        // Two ACKs in a row for the sake of a signal are followed by a pause.
        l.advance(Duration::from_millis(150));
        let sent: Vec<AddAddr> = l.take_all().iter().filter_map(add_addr_of).collect();
        assert_eq!(sent.len(), 1, "{sent:?}");
        told.push(sent[0].address);
        l.send(0, Out::options([AddAddr { hmac: None, ..sent[0] }.into()]));
    }
    assert_eq!(told, [addresses[0], addresses[2], other]);
    l.advance(Duration::from_millis(500));
    assert!(l.take_all().iter().all(|s| add_addr_of(s).is_none()));
}

#[test]
fn duplicate_acks_with_signals_are_no_sign_of_congestion() {
    // Without SACK duplicates are counted; those with signals are not, nor are they cause for limited
    // transmit.
    for mut l in [
        Lab::server(ConnectionConfig::default(), 1),
        Lab::server_without_sack(ConnectionConfig::default(), 1),
    ] {
        l.write(5000);
        l.take_all();
        for id in 1..10 {
            let option =
                AddAddr { hmac: None, ..l.add_addr(id, SocketAddr::new(peer_address(id), 80), false) };
            // ACKs that acknowledge nothing new.
            let expected = std::mem::replace(&mut l.flows[0].expected, 1);
            l.send(0, Out::options([option.into()]));
            l.flows[0].expected = expected;
        }
        assert_eq!(l.counter(Counter::TcpRetransSegs), 0);
        assert_eq!(l.counter(Counter::TcpFastRecovery), 0);
    }
    // With nothing but a DSS they do count (RFC 8684 §4).
    let mut l = Lab::server_without_sack(ConnectionConfig::default(), 1);
    l.write(5000);
    l.flows[0].expected = 1;
    l.data_expected = 1;
    for _ in 0..3 {
        l.ack(0);
    }
    assert_eq!(l.counter(Counter::TcpFastRecovery), 1);
}

#[test]
fn remove_addr_asks_whether_the_subflow_lives() {
    for alive in [true, false] {
        let mut l = Lab::server(ConnectionConfig::default(), 1);
        let second = l.join(3, 0);
        let third = l.join(4, 0);
        l.take_all();
        // Several IDs, of which one is unknown.
        remove(&mut l, 0, &[3, 77, 4]);
        let probe = l.take(|s| s.flow == Some(second)).expect("a keep-alive probe");
        assert!(probe.payload.is_empty() && !probe.seg.flags.rst);
        assert_eq!(l.counter(Counter::RmAddrDrop), 1);
        if alive {
            // What was on its way already says nothing.
            l.send(second, Out::default());
            assert!(l.subflows().iter().any(|s| s.health == Health::Suspect));
            l.advance(Duration::from_millis(150));
            l.send(second, Out::default());
            l.advance(Duration::from_secs(30));
            assert!(l.take_all().iter().all(|s| s.flow != Some(second) || !s.seg.flags.rst));
            l.data(second, 1, 100);
            assert_eq!(l.received, bytes(1, 100));
            assert_eq!(l.counter(Counter::RmSubflow), 1);
        } else {
            l.advance(Duration::from_secs(30));
            let resets: Vec<_> = l.take_all().into_iter().filter(|s| s.seg.flags.rst).collect();
            assert!(resets.iter().any(|s| s.flow == Some(second)));
            assert!(resets.iter().any(|s| s.flow == Some(third)));
            assert_eq!(l.counter(Counter::RmSubflow), 2);
            assert_eq!(l.subflows().len(), 1);
        }
    }
}

#[test]
fn what_is_on_the_way_to_a_removed_address_goes_by_others_at_once() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let second = l.join(3, 0);
    l.data(second, 1, 1);
    l.take_all();
    l.write(1000);
    let bytes_on = |sent: &[Seen], flow: usize| -> usize {
        sent.iter().filter(|s| s.flow == Some(flow)).map(|s| s.payload.len()).sum()
    };
    let sent = l.take_all();
    let (gone, id, other) = if bytes_on(&sent, 0) > 0 { (0, 0, second) } else { (second, 3, 0) };
    assert_eq!(bytes_on(&sent, gone), 1000);
    remove(&mut l, other, &[id]);
    assert_eq!(bytes_on(&l.take_all(), other), 1000);
    assert_eq!(l.counter(Counter::SubflowSuspect), 0, "the peer has said it; nothing was late");
}

#[test]
fn at_the_limit_a_join_takes_the_place_of_a_subflow_whose_address_was_removed() {
    let mut l = Lab::server(ConnectionConfig::default().with_max_subflows(2), 1);
    let gone = l.join(3, 0);
    // There is no room for a third.
    l.join_syn(4, 0);
    assert!(l.take(|s| s.seg.flags.rst).is_some());
    // The path of the second has gone; another came at the same time. The old one has not been asked yet.
    remove(&mut l, 0, &[3]);
    l.take_all();
    l.join(5, 0);
    let rst = l.take(|s| s.seg.flags.rst).expect("a RST");
    assert_eq!(rst.flow, Some(gone));
    assert_eq!(l.subflows().len(), 2);
}

#[test]
fn an_injected_remove_addr_takes_nothing_from_a_connection_that_lives() {
    // RFC 8684 §3.4.2: an answer to the keep-alive keeps the path; ID 0 is an address like any other.
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let second = l.join(3, 0);
    remove(&mut l, second, &[0, 3]);
    l.advance(Duration::from_millis(150));
    l.send(0, Out::default());
    l.advance(Duration::from_secs(30));
    assert_eq!(l.subflows().len(), 2);
    // Outside the window it is not even read.
    let ids = [AddressId(0)].into_iter().collect();
    let option = MptcpOption::RemoveAddr(RemoveAddr { ids });
    l.take_all();
    l.send(second, Out { at: Some(0x4000_0000), ..Out::options([option]) });
    assert!(l.take_all().iter().all(|s| s.flow != Some(0)));
}

#[test]
fn an_address_removed_is_not_connected_to_any_more() {
    let mut l = client(1);
    let address = SocketAddr::new(peer_address(5), 80);
    add(&mut l, 0, 5, address, false);
    let second = l.accept_join(5);
    remove(&mut l, 0, &[5]);
    // Alive, it stays; once it has ended, no other follows.
    l.send(second, Out::default());
    l.take_all();
    l.send(second, Out { rst: true, ..Out::default() });
    l.stack.path_added(l.now, PathConfig::new("late", stack_address(9)));
    l.poll();
    let syns: Vec<_> = l.take_all().into_iter().filter(|s| s.seg.flags.syn).map(|s| s.to).collect();
    assert!(!syns.contains(&address), "{syns:?}");
    // The ID may now stand for another address.
    add(&mut l, 0, 5, SocketAddr::new(peer_address(8), 80), false);
    assert!(l.take(|s| s.seg.flags.syn && s.to.ip() == peer_address(8)).is_some());
}

/// What the application has taken back is not joined from again, until it is advertised anew or its path
/// comes again.
#[test]
fn an_address_that_we_withdrew_is_not_joined_from_again() {
    for anew in [false, true] {
        let mut l = client(2);
        let second = l.accept_join(0);
        l.stack.withdraw_addresses(l.now, l.conn, &[AddressId(1)]).expect("withdraw");
        l.poll();
        l.take(|s| s.seg.flags.fin && s.flow == Some(second)).expect("a FIN");
        l.send(second, Out { fin: true, ..Out::default() });
        l.advance(Duration::from_secs(10));
        assert_eq!(l.subflows().len(), 1);
        let from = |s: &Seen| s.seg.flags.syn && s.from.ip() == stack_address(1);
        assert!(!l.take_all().iter().any(from));
        if anew {
            l.stack.advertise_address(l.now, l.conn, stack_address(1), None).expect("advertise");
        } else {
            l.stack.path_removed(l.now, PathId(1));
            l.stack.path_added(l.now, PathConfig::new("again", stack_address(1)));
        }
        l.poll();
        assert!(l.take(from).is_some(), "anew {anew}");
    }
}

/// Nothing tells the peer of the end of a join that it has not answered yet: it is gone at once.
#[test]
fn a_join_in_progress_ends_when_its_address_is_withdrawn() {
    let mut l = client(2);
    let from = |s: &Seen| s.seg.flags.syn && s.from.ip() == stack_address(1);
    assert!(l.advance_until(Duration::from_secs(1), from).is_some());
    l.stack.withdraw_addresses(l.now, l.conn, &[AddressId(1)]).expect("withdraw");
    assert_eq!(l.subflows().len(), 1);
    l.poll();
    let told = l.take(|s| !removed(s).is_empty()).expect("told");
    assert_eq!(removed(&told), [1]);
    l.advance(Duration::from_secs(10));
    assert!(!l.take_all().iter().any(from));
}

#[test]
fn a_path_that_goes_takes_its_addresses_with_it() {
    let mut l = Lab::server(ConnectionConfig::default(), 3);
    let used = l.stack.advertise_address(l.now, l.conn, stack_address(1), None).expect("advertise");
    let idle = l.stack.advertise_address(l.now, l.conn, stack_address(2), None).expect("advertise");
    l.join(3, 1);
    l.take_all();
    l.stack.path_removed(l.now, PathId(1));
    let told = l.advance_until(Duration::from_secs(1), |s| !removed(s).is_empty());
    assert_eq!(told.map(|s| removed(&s)), Some(vec![used.0]));
    assert_eq!(l.subflows().len(), 1);
    // Advertised and never used.
    l.data(0, 1, 10);
    l.advance(Duration::from_secs(5));
    l.take_all();
    l.stack.path_removed(l.now, PathId(2));
    let told = l.advance_until(Duration::from_secs(1), |s| !removed(s).is_empty());
    assert_eq!(told.map(|s| removed(&s)), Some(vec![idle.0]));
}

/// A NIC's IPv6 address follows that of IPv4 by a moment when its link comes up.
#[test]
fn a_path_whose_addresses_change_keeps_the_subflows_of_the_other_family() {
    let mut l = client(2);
    l.accept_join(0);
    l.take_all();
    let v6: IpAddr = [0x2001, 0xdb8, 0, 0, 0, 0, 0, 7_u16].into();
    let both = || vec![stack_address(1), v6];
    l.stack.path_readdressed(l.now, PathId(1), both(), vec![v6], Families::default());
    l.advance(Duration::from_secs(1));
    let said = l.take_all();
    assert!(!said.iter().any(|s| s.seg.flags.syn || s.seg.flags.rst || !removed(s).is_empty()), "{said:?}");
    assert_eq!(l.subflows().len(), 2);
    // Its translator has another address: what it has forgotten is opened anew.
    l.stack.path_readdressed(l.now, PathId(1), both(), vec![peer_address(9), v6], Families::default());
    l.poll();
    let said = l.take_all();
    assert!(said.iter().any(|s| removed(s) == [1]), "{said:?}");
    assert!(said.iter().any(|s| s.seg.flags.syn && s.from.ip() == stack_address(1)), "{said:?}");
    // Nothing has changed.
    l.stack.path_readdressed(l.now, PathId(1), both(), vec![peer_address(9), v6], Families::default());
    l.poll();
    assert!(l.take_all().is_empty());
    // Something that the stack does not see: what it tells the peer is fixed.
    let moved = Families { ipv4: true, ipv6: false };
    l.stack.path_readdressed(l.now, PathId(1), both(), vec![peer_address(9), v6], moved);
    l.poll();
    let said = l.take_all();
    assert!(said.iter().any(|s| s.seg.flags.syn && s.from.ip() == stack_address(1)), "{said:?}");
}

#[test]
fn more_ids_than_fit_one_option_are_spread() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let ids: Vec<AddressId> = (1..=60).map(AddressId).collect();
    l.stack.withdraw_addresses(l.now, l.conn, &ids).expect("withdraw");
    l.advance(Duration::from_secs(10));
    let told: Vec<u8> = l.take_all().iter().flat_map(removed).collect();
    // Said again three times, because nothing shows that it arrived.
    assert_eq!(told, (1..=60).collect::<Vec<u8>>().repeat(4));
}

#[test]
fn an_address_that_comes_back_is_not_removed_again() {
    let mut l = Lab::server(ConnectionConfig::default(), 2);
    let id = l.stack.advertise_address(l.now, l.conn, stack_address(1), None).expect("advertise");
    l.take_all();
    l.stack.withdraw_addresses(l.now, l.conn, &[id]).expect("withdraw");
    l.poll();
    assert!(l.take(|s| removed(s) == [id.0]).is_some());
    assert_eq!(l.stack.advertise_address(l.now, l.conn, stack_address(1), None), Ok(id));
    l.advance(Duration::from_secs(10));
    assert!(l.take_all().iter().all(|s| removed(s).is_empty()));
}

#[test]
fn mp_prio_concerns_the_subflow_that_carries_it() {
    let mut l = Lab::server(ConnectionConfig::default().with_no_delay(true), 1);
    let second = l.join(3, 0);
    for (backup, id) in [(true, None), (false, None), (true, Some(AddressId(3)))] {
        let prio = MpPrio { backup, address_id: id };
        l.send(0, Out::options([prio.into()]));
        let infos = l.subflows();
        // RFC 6824's form with an Address ID is ignored (RFC 8684 appendix E).
        assert_eq!((infos[0].backup, infos[1].backup), (backup && id.is_none(), false));
    }
    l.send(0, Out::options([MpPrio { backup: true, address_id: None }.into()]));
    l.take_all();
    l.write(10_000);
    let on: Vec<_> = l.take_all().into_iter().filter(|s| !s.payload.is_empty()).map(|s| s.flow).collect();
    assert!(!on.is_empty() && on.iter().all(|f| *f == Some(second)), "{on:?}");
    assert_eq!(l.counter(Counter::MPPrioRx), 3);
}

#[test]
fn set_backup_tells_the_peer() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let second = l.join(3, 0);
    l.take_all();
    let id = l.subflows()[1].id;
    for backup in [true, false] {
        l.stack.set_backup(l.now, l.conn, id, backup).expect("set");
        l.poll();
        let prio = MptcpOption::Prio(MpPrio { backup, address_id: None });
        let said = l.advance_until(Duration::from_millis(150), |s| s.has(|o| *o == prio)).expect("MP_PRIO");
        assert_eq!(said.flow, Some(second));
        assert_eq!(l.subflows()[1].backup, backup);
        l.advance(Duration::from_secs(5));
        let again = l.take_all().iter().filter(|s| s.flow == Some(second) && s.has(|o| *o == prio)).count();
        assert_eq!(again, 3, "nothing shows that it arrived");
    }
    assert_eq!(l.counter(Counter::MPPrioTx), 8);
    let error = l.stack.set_backup(l.now, l.conn, SubflowId(99), true);
    assert_eq!(error, Err(SignalError::NoSubflow));
}

#[test]
fn a_first_subflow_on_a_backup_path_is_announced_as_a_backup() {
    // MP_CAPABLE has no B bit (RFC 8684 §3.1), so MP_PRIO says it.
    for client in [true, false] {
        let mut l = Lab::on_backup(client);
        l.advance(Duration::from_millis(300));
        let told = |s: &Seen| s.has(|o| *o == MptcpOption::Prio(MpPrio { backup: true, address_id: None }));
        assert!(l.take(told).is_some_and(|s| s.flow == Some(0)), "{client}");
        assert!(l.subflows()[0].backup);
    }
}

#[test]
fn a_plain_connection_has_no_signals() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    l.send(0, Out::default().payload(bytes(1, 10)));
    assert!(!l.is_mptcp());
    let error = l.stack.advertise_address(l.now, l.conn, stack_address(0), None);
    assert_eq!(error, Err(SignalError::NotMptcp));
}

#[test]
fn address_ids_are_unique_and_used_again_when_they_run_out() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    let mut seen = std::collections::BTreeSet::new();
    let address = |n: u32| IpAddr::from([172, 16, (n >> 8) as u8, n as u8]);
    for n in 0..255 {
        let id = l.stack.advertise_address(l.now, l.conn, address(n), None).expect("an ID");
        assert!(id != AddressId(0) && seen.insert(id));
        // The same address has the same ID.
        assert_eq!(l.stack.advertise_address(l.now, l.conn, address(n), Some(1)), Ok(id));
    }
    assert_eq!(l.stack.advertise_address(l.now, l.conn, address(999), None), Err(SignalError::NoAddressId));
    let free = *seen.iter().nth(40).expect("41 IDs");
    l.stack.withdraw_addresses(l.now, l.conn, &[free]).expect("withdraw");
    assert_eq!(l.stack.advertise_address(l.now, l.conn, address(999), None), Ok(free));
}

#[test]
fn an_advertised_address_that_the_peer_has_joined_from_is_not_joined() {
    // RFC 8684 §3.4: the Address ID tells, for a translator may have changed the address.
    let mut l = client(1);
    l.join(5, 0);
    l.take_all();
    add(&mut l, 0, 5, SocketAddr::from(([192, 168, 0, 5], 80)), false);
    let sent = l.take_all();
    assert!(sent.iter().any(|s| add_addr_of(s).is_some()) && sent.iter().all(|s| !s.seg.flags.syn));
    // One that it has not joined from is another matter.
    add(&mut l, 0, 6, SocketAddr::from(([192, 168, 0, 6], 80)), false);
    assert!(l.take(|s| s.seg.flags.syn).is_some());
}

#[test]
fn signals_wait_for_a_blocked_path_without_a_timer_that_never_rests() {
    let mut l = Lab::server(ConnectionConfig::default(), 1);
    for n in 1..=7 {
        l.stack.advertise_address(l.now, l.conn, peer_address(100 + n), None).expect("advertise");
    }
    l.poll();
    l.stack.path_blocked(l.now, PathId(0), true);
    l.take_all();
    l.advance(Duration::from_secs(1));
    assert!(l.take_all().is_empty());
    l.stack.path_blocked(l.now, PathId(0), false);
    l.advance(Duration::from_secs(1));
    let told: std::collections::BTreeSet<u8> =
        l.take_all().iter().filter_map(add_addr_of).map(|a| a.address_id.0).collect();
    assert_eq!(told.len(), 7, "{told:?}");
}

/// RFC 8684 §3.9.1.
#[test]
fn a_join_goes_to_the_port_of_the_first_subflow() {
    let mut l = client(2);
    l.data(0, 1, 1);
    let syn = l.take(|s| s.seg.flags.syn).expect("a join");
    assert_eq!(syn.seg.dst_port, l.flows[0].peer.port());
}

/// RFC 8684 §3.2, §5: with a nonce that comes again a recorded join would be good for another one.
#[test]
fn each_join_has_a_nonce_of_its_own() {
    let mut l = client(4);
    let nonces = |l: &mut Lab| -> Vec<u32> {
        let joins = l.take_all().into_iter().filter_map(|s| match s.seg.options.mptcp[..] {
            [MptcpOption::Join(MpJoin::Syn { nonce, .. })] => Some(nonce),
            _ => None,
        });
        joins.collect()
    };
    let nonces = nonces(&mut l);
    assert_eq!(nonces.len(), 3);
    let different: std::collections::BTreeSet<_> = nonces.iter().collect();
    assert_eq!(different.len(), 3, "{nonces:?}");
}

/// RFC 8684 §3.1: a server does not know that the client has its key before a DSS option has come; the third
/// ACK is none.
#[test]
fn a_server_joins_only_after_a_dss_option() {
    let config = ConnectionConfig::default().with_server_joins(true);
    let mut l = Lab::server(config, 2);
    l.advance(Duration::from_secs(5));
    let syns = |l: &mut Lab| l.take_all().iter().filter(|s| s.seg.flags.syn).count();
    assert_eq!(syns(&mut l), 0);
    add(&mut l, 0, 5, SocketAddr::new(peer_address(5), 80), true);
    assert_eq!(syns(&mut l), 0, "ADD_ADDR is none either");
    l.ack(0);
    assert!(syns(&mut l) > 0);
}

/// RFC 8684 §3.1: a client does not know that the server has its key before a DSS option says so.
#[test]
fn a_client_joins_only_after_a_dss_option() {
    let mut l = Lab::client_unconfirmed(ConnectionConfig::default(), 2);
    let syns = |l: &mut Lab| l.take_all().iter().filter(|s| s.seg.flags.syn).count();
    l.send(0, Out::default());
    l.advance(Duration::from_millis(500));
    assert_eq!(syns(&mut l), 0);
    l.ack(0);
    assert_eq!(syns(&mut l), 1);
}
