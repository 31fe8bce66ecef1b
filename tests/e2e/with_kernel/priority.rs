//! Backup paths: the B flag of MP_JOIN and MP_PRIO (RFC 8684 §3.3.8).

use super::*;
use crate::umptcp_host::{Mode, Stream, spec};
use umptcp::ConnectionConfig;
use umptcp_testbed::kernel;
use umptcp_testbed::limit::within;
use umptcp_testbed::topology::to_client;
use umptcp_testbed::traffic::{until_each, until_idle};

/// Limit of the traffic on the backup link, of 8 MiB each way: handshake, acknowledgements, DATA_FINs, neighbour
/// discovery, and what is sent again over it when the machine stands still and the other path seems to be silent.
const QUIET: u64 = MIB;

/// Our client, whose second path is a backup.
fn client_with_backup(net: &Routed) -> UmptcpHost {
    let mut specs: Vec<_> = net.client.nics.iter().map(|nic| spec(nic, Mode::Nat)).collect();
    specs[1].backup = true;
    UmptcpHost::with_paths(&net.client, &specs, ConnectionConfig::default())
}

fn assert_backup_idle(net: &Routed) {
    let links = net.client_link_bytes();
    assert!(
        links[1].to_server < QUIET && links[1].to_client < QUIET,
        "the backup path carried data: {links:?}"
    );
}

#[test]
fn a_path_of_ours_that_is_a_backup_carries_nothing() {
    within(LIMIT, || {
        let net = shaped();
        let server = kernel_server(&net);
        let client = client_with_backup(&net);
        let pair = connected(&net, &client, &server);
        wait_ours(&client, "MPJoinSynAckRx", 1);
        pair.exchange(8 * MIB);
        assert_backup_idle(&net);
        assert_eq!(Counters::read(&net.server.ns).mptcp("MPJoinSynBackupRx"), 1);
        same_story(&client, &net.server.ns);
    });
}

#[test]
fn a_kernel_clients_backup_endpoint_carries_nothing() {
    within(LIMIT, || {
        let net = shaped();
        let client = kernel_client(&net);
        net.client.ns.script(&format!(
            "ip mptcp endpoint flush
             ip mptcp endpoint add {} dev c1 subflow backup",
            net.client.nics[1].v4
        ));
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let pair = connected(&net, &client, &server);
        wait_ours(&server, "MPJoinAckRx", 1);
        pair.exchange(8 * MIB);
        assert_backup_idle(&net);
        assert_eq!(server.counter("MPJoinSynBackupRx"), 1);
        same_story(&server, &net.client.ns);
    });
}

#[test]
fn a_backup_of_ours_takes_over_when_the_other_path_falls_silent() {
    within(LIMIT, || {
        let net = shaped();
        let server = kernel_server(&net);
        let client = client_with_backup(&net);
        let pair = connected(&net, &client, &server);
        wait_ours(&client, "MPJoinSynAckRx", 1);
        pair.exchange_while(16 * MIB, || {
            net.wait_client_link(0, 2 * MIB);
            net.silence(0, true);
            net.wait_client_link(1, 4 * MIB);
            net.silence(0, false);
        });
    });
}

/// MP_PRIO from the kernel during a transfer: our data leaves that path, and returns when it is no longer a
/// backup.
#[test]
fn a_kernel_client_makes_a_path_a_backup_and_takes_it_back() {
    within(LIMIT, || {
        let net = shaped();
        let client = kernel_client(&net);
        let endpoint = net.client.nics[1].v4;
        net.client.ns.script(&format!(
            "ip mptcp endpoint flush
             ip mptcp endpoint add {endpoint} id 7 dev c1 subflow"
        ));
        let server = UmptcpHost::new(&net.server, Mode::Nat);
        let pair = connected(&net, &client, &server);
        pair.exchange_while(48 * MIB, || {
            net.wait_client_link(1, 2 * MIB);
            net.client.ns.sh("ip mptcp endpoint change id 7 backup");
            wait_ours(&server, "MPPrioRx", 1);
            until_idle(|| to_client(&net.client_link_bytes()), 1, 6 * MIB);
            let before = net.client_link_bytes();
            net.client.ns.sh("ip mptcp endpoint change id 7 nobackup");
            net.wait_client_link(1, before[1].to_client + 3 * MIB);
        });
        assert_eq!(server.counter("MPPrioRx"), 2, "{}", server.counters());
        same_story(&server, &net.client.ns);
    });
}

/// The same from a kernel server, for the subflow to an address that it has advertised.
#[test]
fn a_kernel_server_makes_a_path_a_backup_and_takes_it_back() {
    within(LIMIT, || {
        let net = Routed::new(1, 2);
        let server = kernel_server(&net);
        umptcp_testbed::netns::shape(&net.server.ns, "s0", 100.0);
        umptcp_testbed::netns::shape(&net.router, "r-s0", 100.0);
        umptcp_testbed::netns::shape(&net.server.ns, "s1", 100.0);
        umptcp_testbed::netns::shape(&net.router, "r-s1", 100.0);
        net.server.ns.script(&format!(
            "ip mptcp endpoint flush
             ip mptcp endpoint add {} id 9 dev s1 signal",
            net.server.nics[1].v4
        ));
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let pair = connected(&net, &client, &server);
        wait_ours(&client, "MPJoinSynAckRx", 1);
        // Data to the server counts as sent by the router on its links.
        let sent = |nic: &umptcp_testbed::topology::Nic| {
            umptcp_testbed::netns::device_bytes(&net.router, &nic.far_device).sent
        };
        let to_server = || net.server.nics.iter().map(sent).collect::<Vec<_>>();
        pair.exchange_while(48 * MIB, || {
            until_each(to_server, 2 * MIB);
            net.server.ns.sh("ip mptcp endpoint change id 9 backup");
            wait_ours(&client, "MPPrioRx", 1);
            until_idle(to_server, 1, 6 * MIB);
            let before = to_server()[1];
            net.server.ns.sh("ip mptcp endpoint change id 9 nobackup");
            until_each(to_server, before + 3 * MIB);
        });
        assert_eq!(client.counter("MPPrioRx"), 2, "{}", client.counters());
        same_story(&client, &net.server.ns);
    });
}

/// MP_PRIO from us: the kernel's data leaves that path and returns to it.
#[test]
fn we_make_a_path_a_backup_and_take_it_back() {
    within(LIMIT, || {
        let net = shaped();
        let server = kernel_server(&net);
        let client = UmptcpHost::new(&net.client, Mode::Nat);
        let address = server_address(&net, Family::V4);
        let listener = server.listen(address).expect("the port is free");
        let ours = client.stream(address).expect("the kernel listens");
        let theirs = listener.accept().expect("one is there");
        let pair = Pair { client: Box::new(Stream(ours.clone())), server: theirs, listener };
        hello(&*pair.client, &*pair.server);
        wait_ours(&client, "MPJoinSynAckRx", 1);
        let first = ours.subflows().expect("the connection stands")[0].id;
        let second = ours
            .subflows()
            .expect("the connection stands")
            .iter()
            .map(|s| s.id)
            .find(|id| *id != first)
            .expect("there are two");
        pair.exchange_while(48 * MIB, || {
            net.wait_client_link(1, 2 * MIB);
            ours.set_backup(second, true).expect("the subflow is there");
            kernel::wait_for(&net.server.ns, "told of the backup", |c| c.mptcp("MPPrioRx") >= 1);
            until_idle(|| to_client(&net.client_link_bytes()), 1, 6 * MIB);
            let before = net.client_link_bytes();
            ours.set_backup(second, false).expect("the subflow is there");
            net.wait_client_link(1, before[1].to_client + 3 * MIB);
        });
        assert!(client.counter("MPPrioTx") >= 2, "{}", client.counters());
        same_story(&client, &net.server.ns);
    });
}
