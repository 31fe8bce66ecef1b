//! One connection over two paths of 50 Mbit/s for 60 s of virtual time: rates per path, and what simulating
//! it cost.
//!
//! `cargo run --release -p umptcp-netsim --example transfer`

use umptcp_netsim::application::{Endless, Sink};
use umptcp_netsim::{Direction, Duration, Link, Pair, Queue, Side};

fn main() {
    for recording in [true, false] {
        let path = |ms| Link::mbit(50).delay_ms(ms).queue(Queue::Packets(100));
        let mut net = Pair::builder().path(path(10)).path(path(20)).seed(1).build();
        net.set_recording(recording);
        let start = std::time::Instant::now();
        let spec = net.flow_spec().applications(Endless, Sink);
        let flow = match net.connect_with(spec) {
            Ok(flow) => flow,
            Err(e) => return eprintln!("{e}"),
        };
        if let Err(e) = net.run_for(Duration::from_secs(60)) {
            return eprintln!("{e}");
        }
        let mbit = |bytes: u64| bytes as f64 * 8.0 / 60.0 / 1e6;
        let on = |i: usize| mbit(net.stats(net.path_cable(i), Direction::Forward).delivered_bytes);
        println!(
            "{:.1} Mbit/s received, {:.1} and {:.1} on the paths; {} events in {:.2} s, packets {}recorded",
            mbit(net.flow(flow).end(Side::Server).progress.received),
            on(0),
            on(1),
            net.events(),
            start.elapsed().as_secs_f64(),
            if recording { "" } else { "not " },
        );
    }
}
