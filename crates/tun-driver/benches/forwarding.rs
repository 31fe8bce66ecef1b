//! Throughput from one TUN device to another through the kernel's forwarding, with 64 kB segments and with
//! single packets: the upper limit for tun-driver.
//!
//! `cargo bench -p umptcp-tun-driver`, as root or with permission to create network namespaces.

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
#[path = "../tests/common/mod.rs"]
mod common;
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
#[path = "../tests/common/two_devices.rs"]
mod two_devices;

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
fn main() {
    use std::time::Duration;
    use umptcp_tun_driver::device::Offload;

    // `cargo test --all-targets` only checks that it works.
    let measured = std::env::args().any(|a| a == "--bench");
    let (runs, time) = if measured { (5, Duration::from_secs(2)) } else { (1, Duration::from_millis(50)) };
    for (name, offload, payload) in
        [("segments of 64 kB", Offload::Auto, 64_400), ("single packets", Offload::Off, 1_400)]
    {
        let (report, rates) = std::sync::mpsc::channel();
        for _ in 0..runs {
            let report = report.clone();
            common::in_namespace(move || {
                report.send(linux::forward(offload, payload, time)).expect("the receiver waits");
            });
        }
        drop(report);
        let mut rates: Vec<f64> = rates.into_iter().collect();
        rates.sort_by(f64::total_cmp);
        if let [least, .., most] | [least @ most] = rates[..] {
            let median = rates[rates.len() / 2];
            println!("{name:<18} {median:>6.2} Gbit/s (median of {}, {least:.2} to {most:.2})", rates.len());
        }
    }
}

#[cfg(any(not(target_os = "linux"), umptcp_portable))]
fn main() {}

#[cfg(all(target_os = "linux", not(umptcp_portable)))]
mod linux {
    use super::two_devices::{V4, segment, two_devices};
    use bytes::Bytes;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
    use std::time::{Duration, Instant};
    use umptcp_tun_driver::device::{BufferPool, Device, Offload, TransmitOutcome};

    /// IPv4 and TCP without options.
    const HEADERS: usize = 40;
    /// Maximum number of segments in flight: the queue between the devices holds 500 packets and overflows
    /// silently.
    const UNDER_WAY: usize = 100;

    /// Sends segments of `payload` bytes for `time`. Returns the payload that arrived, in Gbit/s.
    pub(crate) fn forward(offload: Offload, payload: usize, time: Duration) -> f64 {
        let (mut a, mut b) = two_devices(offload, offload);
        let partial = offload == Offload::Auto;
        let bytes: Bytes = vec![7; payload].into();
        let packet = segment(V4.0, V4.1, &[bytes], partial.then_some(1400), partial);
        let (received, done) = (AtomicUsize::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut pool = BufferPool::default();
                while !done.load(Relaxed) {
                    match b.receive(&mut pool).expect("the device is there") {
                        Some(p) => {
                            received.fetch_add(p.buffer.len().saturating_sub(HEADERS), Relaxed);
                        }
                        None => std::thread::yield_now(),
                    }
                }
            });
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < time {
                if sent - received.load(Relaxed).min(sent) < UNDER_WAY * payload {
                    assert_eq!(a.transmit(&packet).expect("it takes it"), TransmitOutcome::Sent);
                    sent += payload;
                } else {
                    std::thread::yield_now();
                }
            }
            let rate = received.load(Relaxed) as f64 * 8e-9 / start.elapsed().as_secs_f64();
            done.store(true, Relaxed);
            assert!(rate > 0.0, "nothing arrived");
            rate
        })
    }
}
