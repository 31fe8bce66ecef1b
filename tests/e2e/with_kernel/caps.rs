//! Paths that may carry so much in a month, or for each connection.

use super::*;
use crate::umptcp_host::{Mode, Stream, spec};
use umptcp::{PathSpec, Stack};
use umptcp_testbed::limit::within;
use umptcp_testbed::program::Folder;
use umptcp_testbed::topology::both_ways;

/// What else is on a link: the last packets of the peer before it hears of the limit, and neighbour discovery.
const BESIDE: u64 = MIB;

/// A stack that sets its paths up itself, the second with a cap.
fn capped(net: &Routed, cap: &str, folder: &Folder) -> Stack {
    let mut specs: Vec<PathSpec> = net.client.nics.iter().map(|nic| spec(nic, Mode::Nat)).collect();
    let second = format!("{},cap={cap}", specs[1].device);
    specs[1].caps = second.parse::<PathSpec>().expect("a path").caps;
    let start =
        || Stack::builder().nics(specs).state_directory(folder.path()).linger(Duration::from_secs(5)).start();
    net.client.ns.run(start).unwrap_or_else(|e| panic!("cannot start the stack: {e}"))
}

/// Exchanges this much over a new connection.
fn exchange(net: &Routed, stack: &Stack, server: &dyn Endpoint, bytes: u64) {
    let address = server_address(net, Family::V4);
    let listener = server.listen(address).expect("the port is free");
    let ours = stack.connect(address).expect("the kernel listens");
    let theirs = listener.accept().expect("one is there");
    let pair = Pair { client: Box::new(Stream(ours)), server: theirs, listener };
    hello(&*pair.client, &*pair.server);
    pair.exchange(bytes);
}

fn on_second(net: &Routed) -> u64 {
    both_ways(&net.client_link_bytes())[1]
}

#[test]
fn a_monthly_cap_holds_across_instances() {
    within(LIMIT, || {
        let net = shaped();
        let server = kernel_server(&net);
        let folder = Folder::new("caps");
        let first = capped(&net, "40MB/month", &folder);
        exchange(&net, &first, &server, 4 * MIB);
        let used = on_second(&net);
        assert!(used > MIB, "it is used: {used}");
        first.stop(Duration::from_secs(5)).expect("all was delivered");
        let text = std::fs::read_to_string(folder.path().join("traffic")).expect("it is kept");
        let line = text.lines().find(|line| line.contains(" c1 ")).unwrap_or_else(|| panic!("{text}"));
        let kept: u64 =
            line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let used = on_second(&net);
        // The router counts frames: 14 bytes more for each packet, and neighbour discovery.
        assert!(kept <= used && kept * 100 >= used * 95, "{kept} of {used}");

        let second = capped(&net, "40MB/month", &folder);
        exchange(&net, &second, &server, 48 * MIB);
        let used = on_second(&net);
        assert!(used > 30_000_000 && used < 40_000_000 + BESIDE, "{used}");
        drop(second);
        let third = capped(&net, "40MB/month", &folder);
        exchange(&net, &third, &server, 4 * MIB);
        let more = on_second(&net) - used;
        assert!(more < 10_000, "{more} bytes after the cap");
        // A larger one.
        drop(third);
        let fourth = capped(&net, "60MB/month", &folder);
        exchange(&net, &fourth, &server, 4 * MIB);
        assert!(on_second(&net) > used + MIB, "it is used again");
        drop(fourth);
        // One file and its lock.
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 2);
    });
}

#[test]
fn each_connection_has_its_cap_and_goes_on_over_the_other_path() {
    within(LIMIT, || {
        let net = shaped();
        let server = kernel_server(&net);
        let folder = Folder::new("caps");
        let stack = capped(&net, "8MB/connection", &folder);
        exchange(&net, &stack, &server, 24 * MIB);
        let used = on_second(&net);
        assert!(used > 4_000_000 && used < 8_000_000 + BESIDE, "{used}");
        exchange(&net, &stack, &server, 24 * MIB);
        let more = on_second(&net) - used;
        assert!(more > 4_000_000 && more < 8_000_000 + BESIDE, "{more}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is kept");
    });
}
