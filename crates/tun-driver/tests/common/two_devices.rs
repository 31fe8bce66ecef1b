//! Two TUN devices with forwarding between them, and segments to send over them.

use crate::common::{ip, sysctl};
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;
use umptcp_stack_core::device::{ChecksumRequest, HeaderBuf, Transmit};
use umptcp_stack_core::payload::Payload;
use umptcp_tun_driver::device::{Offload, Tun, TunOptions};
use umptcp_types::PathId;

pub(crate) const V4: (IpAddr, IpAddr) =
    (IpAddr::V4(Ipv4Addr::new(10, 99, 1, 2)), IpAddr::V4(Ipv4Addr::new(10, 99, 2, 2)));
#[allow(dead_code, reason = "not every program needs it")]
pub(crate) const V6: (IpAddr, IpAddr) = (
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 1, 0, 0, 0, 2)),
    IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 2, 0, 0, 0, 2)),
);

/// Two devices, 10.99.1.1/24 and 10.99.2.1/24 (`fd99:0:0:1::1/64`, `fd99:0:0:2::1/64`), with forwarding
/// between them enabled.
pub(crate) fn two_devices(a: Offload, b: Offload) -> (Tun, Tun) {
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

pub(crate) fn open(name: &str, offload: Offload) -> Tun {
    Tun::open(&TunOptions::named(name).offload(offload)).expect("a TUN device")
}

/// A TCP segment with a header as written by the stack; if `partial`, the device fills in the checksum.
pub(crate) fn segment(
    from: IpAddr,
    to: IpAddr,
    payload: &[Bytes],
    gso: Option<u16>,
    partial: bool,
) -> Transmit {
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
    Transmit::new(PathId(0), header, body).with_gso_size(gso.and_then(NonZeroU16::new)).with_checksum(
        if partial {
            ChecksumRequest::Partial { start: ip_len as u16, offset: 16 }
        } else {
            ChecksumRequest::Complete
        },
    )
}

/// The sum of 16-bit words for the Internet checksum, not complemented.
pub(crate) fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut sum = start;
    for w in bytes.chunks(2) {
        sum += u64::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)]));
    }
    sum
}

/// Folds a sum to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
