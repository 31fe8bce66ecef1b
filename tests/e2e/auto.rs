//! `mode=auto`: native paths, and the same NICs inside UDP where the network is in the way.

use crate::inside_udp::{NO_CAPABILITY, command, wait_for_datagrams};
use crate::programs::python;
use crate::relay::{PORT, SERVER, World};
use crate::run::{LIMIT, both, run, wait_for_port};
use std::fs;
use std::time::Duration;
use umptcp_testbed::command::Running;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background, Folder};
use umptcp_testbed::topology::{Family, Routed};

/// Both kinds at the relay's port.
const BOTH_KINDS: &str = "--path s0 --path s0,mode=udp";
const AUTO: &str = "--path c0,mode=auto --path c1,mode=auto";
const BYTES: u64 = 8 << 20;

/// What the router does to what comes by these NICs of the client's.
fn rules(net: &Routed, name: &str, nics: &[usize], rule: &str) {
    for nic in nics {
        let device = &net.client.nics[*nic].far_device;
        net.router.nft(&format!(
            "table inet {name}{nic} {{
               chain c {{
                 type filter hook forward priority 0;
                 {}
               }}
             }}",
            rule.replace("BY", &format!("iifname {device}"))
        ));
    }
}

const STRIP: &str = "BY tcp flags & syn == syn reset tcp option mptcp";
const STRIP_DATA: &str = "BY tcp flags & syn == 0 reset tcp option mptcp";
const SWALLOW: &str = "BY tcp flags & (syn | ack) == syn tcp option mptcp exists drop";
const NO_UDP: &str = "BY meta l4proto udp drop";

/// A transfer both ways by the relay, byte for byte.
fn transfer(world: &World, meanwhile: impl FnOnce()) -> String {
    let server = world.measures(SERVER);
    let line = format!(
        "bench client -v {} {AUTO} {SERVER}:{PORT} --bytes {BYTES} --direction both --verify",
        world.via()
    );
    let client = Background::start(&world.net.client.ns, &line);
    meanwhile();
    let (code, out, said) = client.finish();
    let said = format!("{}{said}", String::from_utf8_lossy(&out));
    assert_eq!(code, Some(0), "{said}");
    drop(server);
    said
}

/// Bytes that the client's NICs have carried since `before`.
fn carried(world: &World, before: &[u64]) -> Vec<u64> {
    let links = world.net.client_link_bytes();
    links.iter().zip(before).map(|(link, before)| link.to_server - before).collect()
}

#[track_caller]
fn is_mptcp_over_both(world: &World, what: &str) {
    let before: Vec<u64> = world.net.client_link_bytes().iter().map(|link| link.to_server).collect();
    let said = transfer(world, || {});
    assert!(said.contains("MPTCP"), "{what}: {said}");
    let each = carried(world, &before);
    assert!(each.iter().all(|bytes| *bytes > BYTES / 64), "{what}: {each:?}\n{said}");
}

#[test]
fn paths_that_strip_or_swallow_go_inside_udp() {
    within(LIMIT * 2, || {
        for (name, rule) in [("strip", STRIP), ("swallow", SWALLOW)] {
            for nics in [&[0][..], &[1], &[0, 1]] {
                let world = World::new(BOTH_KINDS, "");
                rules(&world.net, name, nics, rule);
                is_mptcp_over_both(&world, &format!("{name} {nics:?}"));
                world.end();
            }
        }
    });
}

#[test]
fn a_path_that_strips_data_only_loses_no_byte() {
    within(LIMIT, || {
        for nics in [&[0][..], &[1], &[0, 1]] {
            let world = World::new(BOTH_KINDS, "");
            rules(&world.net, "data", nics, STRIP_DATA);
            transfer(&world, || {});
            world.end();
        }
    });
}

#[test]
fn without_udp_it_is_native_and_without_both_that_is_said() {
    within(LIMIT, || {
        let world = World::new(BOTH_KINDS, "");
        rules(&world.net, "noudp", &[0, 1], NO_UDP);
        is_mptcp_over_both(&world, "no UDP");
        rules(&world.net, "strip", &[0, 1], STRIP);
        let said = transfer(&world, || {});
        assert!(said.contains("native: options stripped; UDP: no answer"), "{said}");
        world.end();
    });
}

/// One path is stripped, so that its part goes inside UDP; then UDP is blocked, and the box that stripped goes away.
#[test]
fn udp_that_is_blocked_in_the_middle_loses_no_byte() {
    within(LIMIT, || {
        let world = World::new(BOTH_KINDS, "");
        rules(&world.net, "strip", &[0, 1], STRIP);
        let said = transfer(&world, || {
            world.net.wait_client_link(0, 300 << 10);
            rules(&world.net, "noudp", &[0], NO_UDP);
            std::thread::sleep(Duration::from_secs(2));
            world.net.router.sh("nft delete table inet noudp0");
            rules(&world.net, "noudp", &[1], NO_UDP);
        });
        assert!(said.contains("MPTCP"), "{said}");
        world.end();
    });
}

#[test]
fn a_listener_in_mode_auto_takes_both_kinds_of_both_families() {
    within(LIMIT, || {
        for family in [Family::V4, Family::V6] {
            let net = Routed::new(2, 1);
            for (who, path) in
                [("", "mode=nat"), ("", "mode=udp"), ("", "mode=auto"), (NO_CAPABILITY, "mode=auto")]
            {
                let server = Background::start(&net.server.ns, &format!("listen --path s0,mode=auto {PORT}"));
                wait_for_datagrams(&net.server.ns, PORT);
                let address = net.server.nics[0].address(family);
                let line = format!("connect -v --path c0,{path} --path c1,{path} {address} {PORT}");
                let client = match who {
                    "" => program::run(&net.client.ns, &line),
                    _ => {
                        let mut command = command(who, &line);
                        net.client.ns.run(|| command.spawn()).map(Running::new).expect("it starts").wait()
                    }
                };
                let (said, code) = both(&client);
                assert!(code == Some(0) && said.contains("MPTCP, for"), "{path}: {said}");
                assert_eq!(who == NO_CAPABILITY, said.contains("inside UDP only"), "{path}: {said}");
                let (code, _, said) = server.finish();
                assert_eq!(code, Some(0), "{path}: {said}");
            }
        }
    });
}

/// A server in Python that sends back what it has read up to its end, reversed.
const REVERSED: &str = "
import socket, threading
def serve(c):
    data = b''
    while True:
        more = c.recv(65536)
        if not more: break
        data += more
    c.sendall(data[::-1])
    c.close()
s = socket.create_server(('203.0.113.2', 8684))
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
";

/// What asks it, in Python: whether data come back reversed.
fn asking() -> String {
    format!(
        "
import socket
def comes_back(data):
    s = socket.create_connection(('{SERVER}', {PORT}), 30)
    s.sendall(data); s.shutdown(socket.SHUT_WR)
    got = b''
    while True:
        more = s.recv(65536)
        if not more: break
        got += more
    return got == data[::-1]
"
    )
}

/// Captured connections, one after the other: the first finds out, and the others know.
#[test]
fn programs_under_run_do_not_notice_what_the_paths_do() {
    within(LIMIT, || {
        for (name, rule, mptcp) in [
            ("strip", STRIP, true),
            ("swallow", SWALLOW, true),
            ("none", "", true),
            ("neither", STRIP, false),
        ] {
            let world = World::new(BOTH_KINDS, "");
            let _server = python(&world.server, REVERSED);
            wait_for_port(&world.server, PORT);
            if !rule.is_empty() {
                rules(&world.net, "t", &[0, 1], rule);
            }
            if !mptcp {
                rules(&world.net, "u", &[0, 1], NO_UDP);
            }
            let script = format!(
                "python3 -c \"{}for n in range(4): print('whole', comes_back(bytes(range(256)) * 2000))\n\"",
                asking()
            );
            let (said, code) =
                run(&world.net.client.ns, &format!("--summary {} {AUTO}", world.via()), &script);
            assert_eq!(code, Some(0), "{name}: {said}");
            assert!(said.starts_with(&"whole True\n".repeat(4)), "{name}: {said}");
            let spoken =
                if mptcp { "4 connections: 4 MPTCP, 0 TCP" } else { "4 connections: 0 MPTCP, 4 TCP" };
            assert!(said.contains(spoken), "{name}: {said}");
            world.end();
        }
    });
}

/// One program, and a network that changes under it: each connection comes whole, and all are MPTCP but the one that
/// nothing lets through.
#[test]
fn a_network_that_changes_under_a_program_costs_no_connection() {
    /// What is in the way of the next connection, on both NICs.
    const STAGES: [&[(&str, &str)]; 8] = [
        &[],
        &[("strip", STRIP)],
        &[],
        &[("noudp", NO_UDP)],
        &[("swallow", SWALLOW)],
        &[],
        &[("strip", STRIP), ("noudp", NO_UDP)],
        &[],
    ];
    within(LIMIT * 2, || {
        for family in [Family::V4, Family::V6] {
            changes(family, &STAGES);
        }
    });
}

fn changes(family: Family, stages: &[&[(&str, &str)]]) {
    let world = World::new(BOTH_KINDS, "");
    let _server = python(&world.server, REVERSED);
    wait_for_port(&world.server, PORT);
    let folder = Folder::new("stages");
    let at = folder.path().display();
    let script = folder.path().join("stages.py");
    let text = format!(
        "{}
import os, time
for stage in range({}):
    while not os.path.exists(f'{at}/{{stage}}'): time.sleep(0.05)
    began = time.monotonic()
    print(stage, comes_back(os.urandom(500000)), round(time.monotonic() - began, 2), flush=True)
",
        asking(),
        stages.len()
    );
    fs::write(&script, text).expect("a file");
    let relay = match family {
        Family::V4 => world.net.server.nics[0].v4.to_string(),
        Family::V6 => format!("[{}]", world.net.server.nics[0].v6),
    };
    let key = world.key("laptop");
    let line = format!(
        "run --summary --via {relay} --via-key {} {AUTO} -- python3 {}",
        key.display(),
        script.display()
    );
    let mut run = Background::start(&world.net.client.ns, &line);
    for (stage, what) in stages.iter().enumerate() {
        for (name, rule) in *what {
            rules(&world.net, name, &[0, 1], rule);
        }
        fs::write(folder.path().join(stage.to_string()), "").expect("a file");
        let said = run.next_line();
        assert!(said.starts_with(&format!("{stage} True")), "{said}");
        for (name, _) in *what {
            for nic in [0, 1] {
                world.net.router.sh(&format!("nft delete table inet {name}{nic}"));
            }
        }
    }
    let (code, _, said) = run.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("8 connections: 7 MPTCP, 1 TCP"), "{said}");
    world.end();
}
