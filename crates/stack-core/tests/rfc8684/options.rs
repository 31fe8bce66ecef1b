//! The 40 bytes of option space, shared by timestamps, SACK and MPTCP as the head of `mptcp/output.rs` says.

use crate::peer::{Lab, Out, Seen, bytes, peer_address, seq};
use std::net::{IpAddr, SocketAddr};
use umptcp_stack_core::config::ConnectionConfig;
use umptcp_stack_core::types::{AddressId, Duration};
use umptcp_stack_core::wire::mptcp::{MpPrio, MptcpOption};

fn server(checksum: bool) -> Lab {
    let config = ConnectionConfig::default().with_checksum(checksum).with_send_buffer(1 << 20);
    Lab::server_with_timestamps(config, 1)
}

fn is_add_addr(s: &Seen) -> bool {
    s.has(|o| matches!(o, MptcpOption::AddAddr(_)))
}

/// What always holds: everything fits, timestamps are there, data carries mapping and DATA_ACK and no signal.
fn check(sent: &[Seen]) {
    for s in sent {
        let o = &s.seg.options;
        assert!(o.fits() && o.malformed == 0, "{o:?}");
        assert!(o.timestamps.is_some() || s.seg.flags.rst, "{o:?}");
        if !s.payload.is_empty() {
            assert!(matches!(o.mptcp[..], [MptcpOption::Dss(d)] if d.mapping.is_some() && d.ack.is_some()));
        }
        let signals = o.mptcp.iter().filter(|o| !matches!(o, MptcpOption::Dss(_))).count();
        assert!(signals <= 1);
    }
}

#[test]
fn a_mapping_with_checksum_a_data_ack_and_timestamps_fill_a_header() {
    let mut l = server(true);
    l.data(0, 1, 10);
    l.take_all();
    l.write(100);
    let sent = l.take_all();
    check(&sent);
    let data = sent.iter().find(|s| !s.payload.is_empty()).expect("data");
    assert_eq!(data.seg.options.len(), 40);
    assert!(data.mapping().is_some_and(|m| m.checksum.is_some()));
}

#[test]
fn sack_takes_what_is_left_and_displaces_a_data_ack_without_news() {
    let mut l = server(false);
    l.data(0, 1, 100);
    l.take_all();
    for hole in 1..=4 {
        let at = 101 + 200 * hole;
        let option = l.dss(Some(l.map(at, at, 100)));
        l.send(0, Out { at: Some(at), options: vec![option], payload: bytes(at, 100), ..Out::default() });
        let sent = l.take_all();
        check(&sent);
        let ack = sent.last().expect("an ACK");
        let blocks = ack.seg.options.sack.len();
        // One block beside a DATA_ACK; with more to say, three without it.
        match hole {
            1 => assert_eq!((blocks, ack.dss().is_some()), (1, true)),
            2 => assert_eq!((blocks, ack.dss().is_some()), (2, false)),
            _ => assert_eq!((blocks, ack.dss().is_some()), (3, false)),
        }
        let first = ack.seg.options.sack[0];
        assert_eq!((first.0.0, first.1.0), (seq(at as u32), seq(at as u32 + 100)), "the latest first");
    }
    // News at the data level comes first again.
    l.data(0, 101, 200);
    let sent = l.take_all();
    check(&sent);
    let ack = sent.iter().rev().find(|s| s.dss().is_some()).expect("a DATA_ACK");
    assert_eq!(ack.seg.options.sack.len(), 1);
    assert_eq!(l.data_acked, 401);
}

/// Data have no room for SACK blocks. Without an ACK of its own the sender would learn of nothing but the
/// cumulative acknowledgement as long as data flow both ways, and take a probe that arrived twice for a
/// repaired loss.
#[test]
fn sack_goes_on_an_ack_of_its_own_when_data_leave_at_the_same_time() {
    let mut l = server(false);
    l.data(0, 1, 100);
    l.write(1_000_000);
    l.take_all();
    // A hole, then something that came before: SACK and D-SACK, each with an acknowledgement that lets data
    // out.
    for (at, len) in [(301_u64, 100_u16), (1, 100)] {
        let option = l.dss(Some(l.map(at, at, len)));
        let payload = bytes(at, u64::from(len));
        l.send(0, Out { at: Some(at), options: vec![option], payload, ..Out::default() });
        let sent = l.take_all();
        check(&sent);
        assert!(sent.iter().any(|s| !s.payload.is_empty()), "the window was to open");
        let block = (seq(at as u32), seq(at as u32 + u32::from(len)));
        let told =
            sent.iter().filter(|s| s.seg.options.sack.first().is_some_and(|(l, r)| (l.0, r.0) == block));
        assert_eq!(told.count(), 1, "{at}: {sent:?}");
    }
}

#[test]
fn the_longest_signal_fits_beside_timestamps_and_the_data_ack_follows() {
    let mut l = server(false);
    let v6: IpAddr = "2001:db8::7".parse().expect("an address");
    l.stack.advertise_address(l.now, l.conn, v6, Some(8443)).expect("advertise");
    // Data arrives before the ADD_ADDR has left: one ACK tells of the address, the next of the data.
    let option = l.dss(Some(l.map(1, 1, 100)));
    l.send(0, Out::options([option]).payload(bytes(1, 100)));
    let sent = l.take_all();
    check(&sent);
    let signal = sent.iter().find(|s| is_add_addr(s)).expect("ADD_ADDR");
    assert_eq!(signal.seg.options.len(), 40);
    assert!(signal.dss().is_none());
    assert_eq!(l.data_acked, 101, "the DATA_ACK on an ACK of its own");
}

#[test]
fn signals_leave_data_alone_and_go_on_acks() {
    let mut l = server(true);
    let id = l.subflows()[0].id;
    l.stack.set_backup(l.now, l.conn, id, true).expect("set");
    l.stack.advertise_address(l.now, l.conn, peer_address(9), None).expect("advertise");
    l.stack.withdraw_addresses(l.now, l.conn, &[AddressId(77)]).expect("withdraw");
    l.write(5000);
    l.advance(Duration::from_secs(1));
    let sent = l.take_all();
    check(&sent);
    let prio = MptcpOption::Prio(MpPrio { backup: true, address_id: None });
    assert!(sent.iter().any(|s| s.has(|o| *o == prio)));
    assert!(sent.iter().any(is_add_addr));
    assert!(sent.iter().any(|s| s.has(|o| matches!(o, MptcpOption::RemoveAddr(_)))));
    assert!(sent.iter().any(|s| !s.payload.is_empty()));
}

#[test]
fn an_echo_shares_its_ack_with_the_data_ack_where_both_fit() {
    let mut l = server(false);
    let option = l.add_addr(5, SocketAddr::new(peer_address(5), 80), false);
    let mapping = l.map(1, 1, 10);
    let dss = l.dss(Some(mapping));
    l.send(0, Out::options([option.into(), dss]).payload(bytes(1, 10)));
    let sent = l.take_all();
    check(&sent);
    let echo = sent.iter().find(|s| is_add_addr(s)).expect("an echo");
    assert!(echo.dss().is_some_and(|d| d.ack.is_some()));
}
