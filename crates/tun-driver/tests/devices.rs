//! TUN devices and the event loop on real packets.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;
#[path = "common/two_devices.rs"]
mod two_devices;

use bytes::Bytes;
use common::{in_namespace, ip};
use std::net::UdpSocket;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};
use two_devices::{V4, V6, fold, open, segment, sum, two_devices};
use umptcp_stack_core::device::{ChecksumState, HeaderBuf, PathConfig, RxPacket, Transmit};
use umptcp_stack_core::payload::Payload;
use umptcp_tun_driver::device::{
    BufferPool, Device, DeviceError, Offload, TransmitOutcome, Tun, TunOptions, is_gone,
};
use umptcp_types::PathId;

/// Waits for a packet that `wanted` accepts; others (router solicitations and the like) are dropped.
fn receive(tun: &mut Tun, pool: &mut BufferPool, wanted: impl Fn(&RxPacket) -> bool) -> RxPacket {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        match tun.receive(pool).expect("receive") {
            Some(p) if wanted(&p) => return p,
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("no such packet came");
}

/// Whether a received TCP packet's checksum is correct, and its payload.
fn check(packet: &[u8]) -> (bool, &[u8]) {
    let (ip_len, addresses) = if packet[0] >> 4 == 4 { (20, 12..20) } else { (40, 8..40) };
    let pseudo = sum(&packet[addresses], 6 + (packet.len() - ip_len) as u64);
    let header = ip_len + usize::from(packet[ip_len + 12] >> 4) * 4;
    (fold(sum(&packet[ip_len..], pseudo)) == 0xffff, &packet[header..])
}

fn is_tcp(p: &RxPacket) -> bool {
    match p.buffer[0] >> 4 {
        4 => p.buffer[9] == 6,
        _ => p.buffer[6] == 6,
    }
}

#[test]
fn the_host_answers_a_ping_and_its_datagrams_come_out() {
    in_namespace(|| {
        for offload in [Offload::Auto, Offload::Off] {
            let mut tun = open("ping0", offload);
            assert_eq!(tun.has_offload(), offload == Offload::Auto);
            assert_eq!((tun.name(), tun.index()), ("ping0", nix::net::if_::if_nametoindex("ping0").unwrap()));
            ip("addr add 10.98.0.1/24 dev ping0");
            ip("link set ping0 up");
            let mut pool = BufferPool::default();

            let mut header = HeaderBuf::zeroed(20);
            let h = header.as_mut_slice();
            h.copy_from_slice(&[0x45, 0, 0, 33, 0, 0, 0, 0, 64, 1, 0, 0, 10, 98, 0, 2, 10, 98, 0, 1]);
            let c = !fold(sum(h, 0));
            h[10..12].copy_from_slice(&c.to_be_bytes());
            let mut echo = vec![8, 0, 0, 0, 0, 7, 0, 1];
            echo.extend(b"hello");
            let c = !fold(sum(&echo, 0));
            echo[2..4].copy_from_slice(&c.to_be_bytes());
            let request = Transmit::new(PathId(0), header, Payload::from(Bytes::from(echo)));
            assert_eq!(tun.transmit(&request).unwrap(), TransmitOutcome::Sent);
            let reply = receive(&mut tun, &mut pool, |p| p.buffer[9] == 1 && p.buffer[20] == 0);
            assert_eq!(&reply.buffer[24..], b"\x00\x07\x00\x01hello");

            UdpSocket::bind("10.98.0.1:0").unwrap().send_to(b"datagram", "10.98.0.2:9").unwrap();
            let datagram = receive(&mut tun, &mut pool, |p| p.buffer[9] == 17);
            assert_eq!(&datagram.buffer[28..], b"datagram");
        }
    });
}

/// A thread that waits for a busy processor finds all that came meanwhile.
#[test]
fn thousands_of_packets_wait_for_a_reader_that_is_late() {
    in_namespace(|| {
        let mut tun = open("late0", Offload::Auto);
        ip("addr add 10.97.0.1/24 dev late0");
        ip("link set late0 up");
        let socket = UdpSocket::bind("10.97.0.1:0").unwrap();
        for n in 0..4000u16 {
            socket.send_to(&n.to_be_bytes(), "10.97.0.2:9").unwrap();
        }
        let mut pool = BufferPool::default();
        for n in 0..4000u16 {
            let datagram = receive(&mut tun, &mut pool, |p| p.buffer[9] == 17);
            assert_eq!(&datagram.buffer[28..], n.to_be_bytes());
        }
    });
}

#[test]
fn a_large_segment_crosses_whole() {
    in_namespace(|| {
        let (mut a, mut b) = two_devices(Offload::Auto, Offload::Auto);
        let mut pool = BufferPool::default();
        for (from, to) in [V4, V6] {
            let bytes: Bytes = (0..60_000u32).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into();
            // More slices than fit the array on the stack, then more than fit one system call.
            for pieces in [1, 3, 40, 2_000] {
                let slices: Vec<Bytes> =
                    bytes.chunks(bytes.len().div_ceil(pieces)).map(Bytes::copy_from_slice).collect();
                let sent = segment(from, to, &slices, Some(1400), true);
                assert_eq!(a.transmit(&sent).unwrap(), TransmitOutcome::Sent);
                let got = receive(&mut b, &mut pool, is_tcp);
                assert_eq!(got.gso_size, NonZeroU16::new(1400));
                assert_eq!(got.checksum, ChecksumState::Verified);
                assert_eq!(check(&got.buffer).1, &bytes[..]);
            }
        }
    });
}

#[test]
fn a_device_without_offload_gets_single_packets_with_checksums() {
    in_namespace(|| {
        let (mut a, mut b) = two_devices(Offload::Auto, Offload::Off);
        let mut pool = BufferPool::default();
        for (from, to) in [V4, V6] {
            let bytes: Bytes = (0..20_000u32).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into();
            a.transmit(&segment(from, to, std::slice::from_ref(&bytes), Some(1400), true)).unwrap();
            let mut got = Vec::new();
            while got.len() < bytes.len() {
                let p = receive(&mut b, &mut pool, is_tcp);
                assert_eq!((p.gso_size, p.checksum), (None, ChecksumState::Unverified));
                assert!(p.buffer.len() <= 1500);
                let (right, payload) = check(&p.buffer);
                assert!(right);
                got.extend_from_slice(payload);
            }
            assert_eq!(got, bytes);

            // And back: packets it cannot send are an error, others arrive.
            assert!(b.transmit(&segment(to, from, std::slice::from_ref(&bytes), Some(1400), true)).is_err());
            b.transmit(&segment(to, from, &[bytes.slice(..1000)], None, false)).unwrap();
            let p = receive(&mut a, &mut pool, is_tcp);
            let (right, payload) = check(&p.buffer);
            assert!(right);
            assert_eq!(payload, &bytes[..1000]);
        }
    });
}

#[test]
fn errors_name_their_cause() {
    in_namespace(|| {
        let _first = open("taken0", Offload::Auto);
        let again = Tun::open(&TunOptions::named("taken0"));
        assert!(matches!(again, Err(DeviceError::NameInUse(n)) if n == "taken0"));
        ip("link add br0 type veth peer name br1");
        let other = Tun::open(&TunOptions::named("br0"));
        assert!(matches!(&other, Err(DeviceError::NameInUse(n)) if n == "br0"), "{other:?}");
        let bad = Tun::open(&TunOptions::named("no/slash"));
        assert!(matches!(bad, Err(DeviceError::BadName(_))));
        let unnamed =
            [Tun::open(&TunOptions::default()).unwrap(), Tun::open(&TunOptions::default()).unwrap()];
        assert_eq!(unnamed.map(|t| t.name().to_owned()), ["umptcp0", "umptcp1"]);
    });
}

#[test]
fn a_device_that_is_down_is_full_and_one_that_was_deleted_is_gone() {
    in_namespace(|| {
        let (mut a, _b) = two_devices(Offload::Auto, Offload::Auto);
        let packet = segment(V4.0, V4.1, &[Bytes::from_static(b"x")], None, true);
        assert_eq!(a.transmit(&packet).unwrap(), TransmitOutcome::Sent);
        ip("link set a0 down");
        assert_eq!(a.transmit(&packet).unwrap(), TransmitOutcome::Full);
        ip("link del a0");
        assert!(is_gone(&a.transmit(&packet).unwrap_err()));
        assert!(is_gone(&a.receive(&mut BufferPool::default()).unwrap_err()));
    });
}

#[test]
fn a_device_describes_itself() {
    in_namespace(|| {
        let mut config = PathConfig::new("x", V4.0);
        open("d0", Offload::Auto).describe(&mut config);
        assert_eq!((config.max_packet, config.checksum_offload), (65_535, true));
        open("d1", Offload::Off).describe(&mut config);
        assert_eq!((config.max_packet, config.checksum_offload), (1500, false));
    });
}
