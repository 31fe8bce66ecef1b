//! User errors and network failures: each gives a clear error and leaves the host unchanged.

use std::process::Output;
use std::time::Duration;
use umptcp_testbed::Netns;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::kernel::{KernelListener, Kind};
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background};
use umptcp_testbed::topology::{Family, Routed};

const LIMIT: Duration = Duration::from_secs(90);
const RESTORED_WITHIN: Duration = Duration::from_secs(5);

/// Asserts that the program failed with one of its exit codes, without a panic, and printed each of `parts`.
fn assert_explains(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(1..=7)), "it ended with {} and said:\n{said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    for part in parts {
        assert!(said.to_lowercase().contains(&part.to_lowercase()), "{part:?} is not in:\n{said}");
    }
}

/// Runs the program in `ns`. It must fail, say why, and leave the namespace unchanged.
fn fails(ns: &Netns, arguments: &str, parts: &[&str]) {
    let before = Snapshot::take(ns);
    assert_explains(&program::run(ns, arguments), parts);
    before.assert_restored(ns, RESTORED_WITHIN);
}

#[test]
fn an_unknown_device_is_named_with_those_there_are() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        fails(&net.client.ns, "connect --path nosuch0 10.2.0.2 4000", &["nosuch0", "c0", "c1"]);
    });
}

#[test]
fn a_malformed_path_option_is_explained() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        for (option, parts) in [
            ("c0,mode=bridge", ["mode", "nat"]),
            ("c0,address=10.1", ["address", "10.1"]),
            ("c0,colour=red", ["colour", "weight"]),
            ("c0,weight=-1", ["weight", "-1"]),
        ] {
            fails(&net.client.ns, &format!("connect --path {option} 10.2.0.2 4000"), &parts);
        }
    });
}

#[test]
fn without_the_privilege_it_says_which_is_missing() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let output = ns.run(|| {
            let mut command = std::process::Command::new("setpriv");
            command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]).arg(program::path());
            command.args(["connect", "--path", "c0", "10.2.0.2", "4000"]).stdin(std::process::Stdio::null());
            command.output().expect("setpriv can be started")
        });
        assert_explains(&output, &["permission", "CAP_NET_ADMIN"]);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

#[test]
fn without_nft_it_says_how_to_get_it_and_routed_mode_still_works() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let try_with = |path: &str| {
            let mut command = program::command(&format!("connect --timeout 5 --path {path} 10.2.0.2 4000"));
            // A PATH without nft, and a separate mount namespace in which the system directories have none
            // either.
            command.env("PATH", "/nonexistent");
            ns.run(|| {
                hide_nft();
                command.output().expect("the program can be started")
            })
        };
        assert_explains(&try_with("c0"), &["nft", "mode=routed"]);
        // Nothing listens there: "connection refused" shows that the path works.
        assert_explains(&try_with("c0,mode=routed,address=10.11.0.2"), &["refused"]);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// Hides `nft` behind an empty file in the calling thread's mount namespace.
fn hide_nft() {
    use nix::mount::{MsFlags, mount};
    for place in ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft"] {
        if std::path::Path::new(place).exists() {
            mount::<str, str, str, str>(Some("/dev/null"), place, None, MsFlags::MS_BIND, None)
                .expect("a file can be hidden in a private mount namespace");
        }
    }
}

#[test]
fn an_address_that_is_taken_is_refused() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        for address in ["10.1.0.2", "10.1.1.2", "fd00:1::2"] {
            let arguments = format!("connect --path c0,mode=routed,address={address} 10.2.0.2 4000");
            fails(&net.client.ns, &arguments, &[address, "taken"]);
        }
    });
}

#[test]
fn a_path_without_a_route_is_refused() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.ns.sh("ip route del default via 10.1.1.1 dev c1 metric 101");
        // Now it reaches only its own subnet.
        fails(
            &net.client.ns,
            "connect --path c1 10.2.0.2 4000",
            &["no route to 10.2.0.2 via c1", "ip route add"],
        );
        net.client.ns.sh("ip addr flush dev c1");
        fails(&net.client.ns, "connect --path c1 10.2.0.2 4000", &["c1"]);
    });
}

#[test]
fn a_device_that_is_down_is_refused() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.ns.sh("ip link set c1 down");
        fails(&net.client.ns, "connect --path c1 10.2.0.2 4000", &["c1", "down"]);
    });
}

#[test]
fn a_port_in_use_is_not_stolen() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        let ns = &net.server.ns;
        let held = net.server.nics[0].socket_address(Family::V4, 4000);
        let listener = ns.run(|| KernelListener::bind(held, Kind::Tcp)).expect("the port is free");
        fails(ns, "listen --path s0 4000", &["4000", "in use"]);
        drop(listener);
    });
}

#[test]
fn a_refused_connection_says_so() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        for (address, path) in [
            ("10.2.0.2", "c0"),
            ("fd00:2::2", "c0"),
            ("10.2.0.2", "c1,mode=routed,address=10.11.1.2"),
            ("fd00:2::2", "c1,mode=routed,address=fd00:11:1::2"),
        ] {
            fails(&net.client.ns, &format!("connect --path {path} {address} 4000"), &[address, "refused"]);
        }
    });
}

#[test]
fn an_unreachable_host_says_so() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        net.router.script("ip route add unreachable 10.9.0.0/24\nip -6 route add unreachable fd00:9::/64");
        for address in ["10.9.0.1", "fd00:9::1"] {
            fails(
                &net.client.ns,
                &format!("connect --timeout 10 --path c0 {address} 4000"),
                &[address, "unreachable"],
            );
        }
    });
}

#[test]
fn a_silent_host_ends_in_a_timeout() {
    within(LIMIT, || {
        let net = Routed::new(1, 1);
        net.router.script("ip route add blackhole 10.9.0.0/24");
        fails(
            &net.client.ns,
            "connect --timeout 2 --path c0 10.9.0.1 4000",
            &["10.9.0.1", "within the time limit"],
        );
    });
}

/// Each signal ends `listen` in both modes with exit code 128 + number, and the host is restored.
#[test]
fn signals_end_it_and_leave_nothing() {
    use nix::sys::signal::Signal;
    within(LIMIT, || {
        let net = Routed::new(1, 2);
        let ns = &net.server.ns;
        let before = Snapshot::take(ns);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let paths = "--path s0 --path s1,mode=routed,address=10.12.1.2,address=fd00:12:1::2";
            let mut listen = Background::start(ns, &format!("listen -v {paths} 4000"));
            listen.wait_for("listening on");
            assert!(!before.difference(&Snapshot::take(ns)).is_empty(), "it has set up nothing");
            listen.process().signal(signal);
            let (code, _, said) = listen.finish();
            assert_eq!(code, Some(128 + signal as i32), "{said}");
            before.assert_restored(ns, RESTORED_WITHIN);
        }
    });
}

/// The next start removes what a killed instance has left, but not what a running one uses.
#[test]
fn leftovers_of_a_crash_go_at_the_next_start_and_others_stay() {
    use nix::sys::signal::Signal;
    within(LIMIT, || {
        let net = Routed::new(1, 2);
        let ns = &net.server.ns;
        let before = Snapshot::take(ns);
        let mut killed = Background::start(ns, "listen -v --path s0 4000");
        killed.wait_for("listening on");
        let mut running = Background::start(ns, "listen -v --path s1 4001");
        running.wait_for("listening on");
        killed.process().signal(Signal::SIGKILL);
        assert_eq!(killed.finish().0, None);

        // The next instance serves one connection over the path of the killed one; then only the running
        // one's path is left.
        let mut next = Background::start(ns, "listen -v --path s0 4000");
        next.wait_for("listening on");
        let client = program::run(&net.client.ns, "connect --stack kernel-mptcp 10.2.0.2 4000");
        assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
        assert_eq!(next.finish().0, Some(0));
        // The running one still works.
        let client = program::run(&net.client.ns, "connect --stack kernel-mptcp 10.2.1.2 4001");
        assert!(client.status.success(), "{}", String::from_utf8_lossy(&client.stderr));
        assert_eq!(running.finish().0, Some(0));
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}
