//! Paths that may carry so much in a month, or for each connection.

use super::*;
use crate::umptcp_host::{Mode, Stream, spec};
use umptcp::{PathSpec, Stack};
use umptcp_testbed::limit::within;
use umptcp_testbed::program::Folder;

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
    let link = net.client_link_bytes()[1];
    link.to_server + link.to_client
}

#[test]
fn a_monthly_cap_holds_across_instances() {
    within(LIMIT, || {
        let net = shaped();
        let server = kernel_server(&net);
        let folder = Folder::new("caps");
        let first = capped(&net, "16MB/month", &folder);
        exchange(&net, &first, &server, 2 * MIB);
        let used = on_second(&net);
        assert!(used > MIB / 2, "it is used: {used}");
        first.stop(Duration::from_secs(5)).expect("all was delivered");
        let text = std::fs::read_to_string(folder.path().join("traffic")).expect("it is kept");
        let line = text.lines().find(|line| line.contains(" c1 ")).unwrap_or_else(|| panic!("{text}"));
        let kept: u64 =
            line.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        let used = on_second(&net);
        // The router's counters have the headers of links, and one for each large segment instead of each packet.
        assert!(kept * 100 <= used * 106 && kept * 100 >= used * 94, "{kept} of {used}");

        let second = capped(&net, "16MB/month", &folder);
        exchange(&net, &second, &server, 40 * MIB);
        let used = on_second(&net);
        // Nothing new begins a mebibyte before it.
        assert!(used > 14_000_000 && used < 16_000_000 + BESIDE, "{used}");
        drop(second);
        let third = capped(&net, "16MB/month", &folder);
        exchange(&net, &third, &server, 2 * MIB);
        let more = on_second(&net) - used;
        assert!(more < 10_000, "{more} bytes after the cap");
        // A larger one.
        drop(third);
        let fourth = capped(&net, "32MB/month", &folder);
        exchange(&net, &fourth, &server, 4 * MIB);
        assert!(on_second(&net) > used + MIB / 2, "it is used again");
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
        let stack = capped(&net, "4MB/connection", &folder);
        exchange(&net, &stack, &server, 12 * MIB);
        let used = on_second(&net);
        assert!(used > 2_000_000 && used < 4_000_000 + BESIDE, "{used}");
        exchange(&net, &stack, &server, 12 * MIB);
        let more = on_second(&net) - used;
        assert!(more > 2_000_000 && more < 4_000_000 + BESIDE, "{more}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "nothing is kept");
    });
}
