//! How much the link model carries per second of processor time: segments of 64 kB in, cut into packets of
//! the MTU, queued, delayed, merged, out. Prints gigabits and packets per second.
//!
//! `cargo run --release -p umptcp-netsim --example link_rate`

use std::net::SocketAddr;
use umptcp_netsim::realtime::{Emulation, PortId};
use umptcp_netsim::{Direction, Duration, Instant, Link, Packet, Queue};
use umptcp_stack_core::device::ChecksumState;

/// A TCP segment of `payload` bytes from `source`, sequence number 0, checksum left to the device.
fn segment(source: SocketAddr, payload: usize) -> Packet {
    let total = 52 + payload;
    let mut b =
        vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    b.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x80, 0x10, 1, 0, 0, 0, 0, 0]);
    b.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    b.resize(total, 7);
    let mut p = Packet::from_bytes(b.into(), std::num::NonZeroU16::new(1448), ChecksumState::Verified);
    p.rewrite(Some(source), None);
    p
}

fn main() {
    for (name, link) in [
        ("unlimited", Link::unlimited().delay_ms(1)),
        ("10 Gbit/s", Link::mbit(10_000).delay_ms(1).queue(Queue::Unlimited)),
        ("500 Mbit/s", Link::mbit(500).delay_ms(10).queue(Queue::Unlimited)),
    ] {
        let mut e = Emulation::new(1);
        let (a, b) = (e.add_port(), e.add_port());
        let cable = e.add_cable(a, b, link.clone(), link);
        let sources = [1, 2].map(|port| segment(SocketAddr::from(([10, 0, 0, 1], port)), 44 * 1448));
        let (mut now, mut out, mut bytes) = (Instant::ZERO, 0u64, 0u64);
        let start = std::time::Instant::now();
        let mut sent = 0u64;
        while start.elapsed() < Duration::from_secs(2) {
            for s in &sources {
                e.input(now, PortId(0), s.clone());
                sent += 1;
            }
            // As fast as the slowest link drains.
            now += Duration::from_nanos(2 * 44 * 1500 * 8 * 2);
            e.output(now, |_, p| {
                out += 1;
                bytes += p.len() as u64;
            });
        }
        let time = start.elapsed().as_secs_f64();
        let stats = e.cable(cable).stats(Direction::Forward);
        println!(
            "{name:>10}: {:6.1} Gbit/s, {:.2} million packets/s; {sent} segments in, {out} out of {:.0} bytes",
            bytes as f64 * 8.0 / time / 1e9,
            stats.delivered_packets as f64 / time / 1e6,
            bytes as f64 / out as f64,
        );
    }
}
