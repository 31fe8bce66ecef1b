//! TUN devices and the event loop on real packets.
#![cfg(target_os = "linux")]
#![allow(missing_docs)]

mod common;

use bytes::Bytes;
use common::{in_namespace, ip, sysctl};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};
use umptcp_stack_core::interface::{
    ChecksumRequest, ChecksumState, HeaderBuf, PathConfig, RxPacket, Transmit,
};
use umptcp_stack_core::payload::Payload;
use umptcp_tun_driver::device::{
    BufferPool, Device, DeviceError, Offload, TransmitOutcome, Tun, TunOptions, is_gone,
};
use umptcp_types::{Instant as StackInstant, PathId};

fn open(name: &str, offload: Offload) -> Tun {
    Tun::open(&TunOptions { name: Some(name.into()), offload, mtu: 1500 }).expect("a TUN device")
}

/// Waits for a packet that `wanted` takes; others (router solicitations and the like) are dropped.
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

/// A TCP segment with a header as the stack writes it: the checksum is left to the device where `partial`.
fn segment(from: IpAddr, to: IpAddr, payload: &[Bytes], gso: Option<u16>, partial: bool) -> Transmit {
    let mut body = Payload::new();
    payload.iter().for_each(|p| body.push(p.clone()));
    let ip_len = if from.is_ipv4() { 20 } else { 40 };
    let mut header = HeaderBuf::zeroed(ip_len + 20);
    let h = header.as_mut_slice();
    let tcp_len = 20 + body.len();
    let mut pseudo = 6 + tcp_len as u64;
    match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            h[0] = 0x45;
            h[2..4].copy_from_slice(&((20 + tcp_len) as u16).to_be_bytes());
            h[6] = 0x40;
            h[8] = 64;
            h[9] = 6;
            h[12..16].copy_from_slice(&a.octets());
            h[16..20].copy_from_slice(&b.octets());
            let check = !fold(sum(&h[..20], 0));
            h[10..12].copy_from_slice(&check.to_be_bytes());
            pseudo = sum(&h[12..20], pseudo);
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            h[0] = 0x60;
            h[4..6].copy_from_slice(&(tcp_len as u16).to_be_bytes());
            h[6] = 6;
            h[7] = 64;
            h[8..24].copy_from_slice(&a.octets());
            h[24..40].copy_from_slice(&b.octets());
            pseudo = sum(&h[8..40], pseudo);
        }
        _ => panic!("two families"),
    }
    h[ip_len..ip_len + 20]
        .copy_from_slice(&[0x30, 0x39, 0xd4, 0x31, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let checksum =
        if partial { fold(pseudo) } else { !fold(sum(&body.to_bytes(), sum(&h[ip_len..], pseudo))) };
    h[ip_len + 16..ip_len + 18].copy_from_slice(&checksum.to_be_bytes());
    Transmit {
        path: PathId(0),
        header,
        payload: body,
        gso_size: gso.and_then(NonZeroU16::new),
        checksum: if partial {
            ChecksumRequest::Partial { start: ip_len as u16, offset: 16 }
        } else {
            ChecksumRequest::Complete
        },
        earliest: StackInstant::ZERO,
    }
}

/// Whether a received TCP packet's checksum is right; and its payload.
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

const V4: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(10, 99, 1, 2)), IpAddr::V4(Ipv4Addr::new(10, 99, 2, 2)));
const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 1, 0, 0, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 2, 0, 0, 0, 2)),
);

/// Two devices between which this namespace forwards.
fn two_devices(a: Offload, b: Offload) -> (Tun, Tun) {
    let devices = (open("a0", a), open("b0", b));
    for (name, net) in [("a0", 1), ("b0", 2)] {
        ip(&format!("addr add 10.99.{net}.1/24 dev {name}"));
        ip(&format!("-6 addr add fd99:0:0:{net}::1/64 dev {name} nodad"));
        ip(&format!("link set {name} up"));
    }
    sysctl("net.ipv4.ip_forward", "1");
    sysctl("net.ipv6.conf.all.forwarding", "1");
    devices
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
            let request = Transmit {
                path: PathId(0),
                header,
                payload: Payload::from(Bytes::from(echo)),
                gso_size: None,
                checksum: ChecksumRequest::Complete,
                earliest: StackInstant::ZERO,
            };
            assert_eq!(tun.transmit(&request).unwrap(), TransmitOutcome::Sent);
            let reply = receive(&mut tun, &mut pool, |p| p.buffer[9] == 1 && p.buffer[20] == 0);
            assert_eq!(&reply.buffer[24..], b"\x00\x07\x00\x01hello");

            UdpSocket::bind("10.98.0.1:0").unwrap().send_to(b"datagram", "10.98.0.2:9").unwrap();
            let datagram = receive(&mut tun, &mut pool, |p| p.buffer[9] == 17);
            assert_eq!(&datagram.buffer[28..], b"datagram");
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
            // More slices than fit the array on the stack, then more than one system call takes.
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

            // And back: what it cannot do is an error, what it can do arrives.
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
        let again = Tun::open(&TunOptions { name: Some("taken0".into()), ..TunOptions::default() });
        assert!(matches!(again, Err(DeviceError::NameInUse(n)) if n == "taken0"));
        ip("link add br0 type veth peer name br1");
        let other = Tun::open(&TunOptions { name: Some("br0".into()), ..TunOptions::default() });
        assert!(matches!(&other, Err(DeviceError::NameInUse(n)) if n == "br0"), "{other:?}");
        let bad = Tun::open(&TunOptions { name: Some("no/slash".into()), ..TunOptions::default() });
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

/// Prints how fast packets cross from one device to the other through the kernel's forwarding, in segments of 64 kB and in single packets.
/// `cargo test --release -p umptcp-tun-driver --test devices -- --ignored --nocapture measure`
#[test]
#[ignore = "a measurement, meaningful on an idle machine only"]
fn measure_forwarding() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    in_namespace(|| {
        for (offload, payload) in [(Offload::Auto, 64_400), (Offload::Off, 1_400)] {
            let (mut a, mut b) = two_devices(offload, offload);
            let partial = offload == Offload::Auto;
            let bytes: Bytes = vec![7; payload].into();
            let packet = segment(V4.0, V4.1, &[bytes], partial.then_some(1400), partial);
            let received = Arc::new(AtomicUsize::new(0));
            let done = Arc::new(AtomicBool::new(false));
            let (count, end) = (received.clone(), done.clone());
            let reader = std::thread::spawn(move || {
                let mut pool = BufferPool::default();
                while !end.load(Ordering::Relaxed) {
                    match b.receive(&mut pool).unwrap() {
                        Some(p) => {
                            count.fetch_add(p.buffer.len().saturating_sub(40), Ordering::Relaxed);
                        }
                        None => std::thread::yield_now(),
                    }
                }
            });
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < Duration::from_secs(2) {
                // The queue between the two holds 500 packets and tells nobody when it overflows.
                if sent - received.load(Ordering::Relaxed).min(sent) < 100 * payload {
                    assert_eq!(a.transmit(&packet).unwrap(), TransmitOutcome::Sent);
                    sent += payload;
                } else {
                    std::thread::yield_now();
                }
            }
            let rate = received.load(Ordering::Relaxed) as f64 * 8e-9 / start.elapsed().as_secs_f64();
            println!("{offload:?}, {payload} bytes a segment: {rate:.2} Gbit/s");
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap();
            drop(a);
        }
    });
}

/// The Internet checksum's sum of 16-bit words, not complemented.
fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut sum = start;
    for w in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)]));
    }
    sum
}

/// Folds a sum to 16 bits.
fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
