//! Start, reload and end of the daemon.

use super::{Daemon, LIMIT, RESTORED_WITHIN, both, configuration, file, network, python, up};
use nix::sys::signal::Signal;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background};

fn run_to_end(ns: &Netns, mut command: Command) -> (String, Option<i32>) {
    both(&Running::new(ns.run(|| command.spawn()).expect("it starts")).wait())
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let (_, folder) = configuration("[stack]\n\nshceduler = \"min-rtt\"\n");
        let file = file(&folder).display().to_string();
        for command in [format!("check {file}"), format!("up --config {file}")] {
            let (said, code) = both(&program::run(ns, &command));
            assert_eq!(code, Some(2), "{said}");
            let error = format!("umptcp: {file}:4: unknown field `shceduler`");
            assert!(said.starts_with(&error) && said.contains("did you mean `scheduler`?"), "{said}");
        }
        let (said, code) = both(&program::run(ns, "check /nosuch.toml"));
        assert!(code == Some(2) && said.contains("cannot read the configuration /nosuch.toml"), "{said}");
        let (_, good) = configuration("[[path]]\ndevice = \"nosuch0\"\n");
        let file = super::file(&good).display().to_string();
        let checked = both(&program::run(ns, &format!("check {file}")));
        assert!(
            checked.0.starts_with(&format!("{file}: 1 path, 0 listeners\n")) && checked.1 == Some(0),
            "{checked:?}"
        );
        assert!(checked.0.contains("warning: this host has no network device \"nosuch0\""), "{checked:?}");
        let (said, code) = both(&program::run(ns, &format!("up --config {file}")));
        assert!(code == Some(3) && said.contains("nosuch0"), "{said}");
    });
}

#[test]
fn a_daemon_is_found_by_its_name_and_leaves_nothing_behind() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let daemon = Daemon::start(ns, "[[listen]]\nat = 80\nto = 8080\n");
        let (said, code) = run_to_end(ns, up(daemon.folder()));
        let runs = format!("a daemon named {:?} runs already as process", daemon.name());
        assert!(code == Some(3) && said.contains(&runs), "{said}");
        let (said, code) = both(&program::run(ns, "down nosuch"));
        assert!(code == Some(3) && said.contains("no daemon named \"nosuch\" runs"), "{said}");
        // A port that a program of this host has is not taken from it.
        let taken =
            ns.spawn(|| std::net::TcpListener::bind("0.0.0.0:81")).join().expect("a thread").expect("a port");
        let (_, folder) = configuration("[[listen]]\nat = 81\nto = 8080\n");
        let (said, code) = run_to_end(ns, up(&folder));
        assert!(code == Some(3) && said.contains("cannot listen on *:81"), "{said}");
        drop(taken);
        let name = daemon.name().to_owned();
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
        assert_eq!(program::run(ns, &format!("down {name}")).status.code(), Some(3));

        let daemon = Daemon::start(ns, "[[listen]]\nat = 80\nto = 8080\n");
        daemon.signal(Signal::SIGKILL);
        let (name, _) = (daemon.name().to_owned(), daemon.finish());
        assert_eq!(program::run(ns, &format!("down {name}")).status.code(), Some(3), "it runs no more");
        assert!(program::run(ns, "clean-up").status.success());
        before.assert_restored(ns, RESTORED_WITHIN);
        let left = Path::new("/run/umptcp").join(format!("{name}.daemon"));
        assert!(!left.exists(), "{}", left.display());
    });
}

/// A stream that is cut short must not look complete.
#[test]
fn connections_have_their_time_to_end_and_are_reset_then() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let mut service = python(
            ns,
            "
import socket
s = socket.create_server(('127.0.0.1', 8080))
print('listening')
# The daemon's test.
s.accept()[0].close()
a, b = s.accept()[0], s.accept()[0]
print(a.recv(1), b.recv(1))
print(a.recv(1))
a.sendall(b'the end')
a.close()
try: print(b.recv(1))
except OSError as e: print(type(e).__name__)
",
        );
        assert_eq!(service.next_line(), "listening");
        let daemon = Daemon::start(ns, "[stack]\ndrain = \"1500 ms\"\n[[listen]]\nat = 80\nto = 8080\n");
        let to = net.client.nics[0].v4;
        let mut client = python(
            &net.server.ns,
            &format!(
                "
import socket, time
a, b = (socket.create_connection(('{to}', 80), 20) for _ in range(2))
a.sendall(b'a'); b.sendall(b'b')
print('sent')
time.sleep(0.7)
a.sendall(b'c')
print(a.recv(99))
try: print(b.recv(1))
except OSError as e: print(type(e).__name__)
"
            ),
        );
        assert_eq!(client.next_line(), "sent");
        assert_eq!(service.next_line(), "b'a' b'b'");
        daemon.signal(Signal::SIGTERM);
        assert_eq!(client.next_line(), "b'the end'");
        assert_eq!(client.next_line(), "ConnectionResetError");
        assert_eq!(service.next_line(), "b'c'");
        assert_eq!(service.next_line(), "ConnectionResetError");
        assert_eq!(daemon.finish(), Some(0));
    });
}

/// Paths and listeners come and go while a connection that they do not concern goes on.
#[test]
fn a_reload_changes_what_has_changed_and_drops_no_connection() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let mut service = python(
            ns,
            "
import socket, threading, time
def serve(port, name):
    s = socket.create_server(('127.0.0.1', port))
    while True:
        c, _ = s.accept()
        def echo(c=c):
            while True:
                data = c.recv(65536)
                if not data: break
                c.sendall(name + data)
            c.close()
        threading.Thread(target=echo, daemon=True).start()
for port, name in (8080, b'one '), (8081, b'two '):
    threading.Thread(target=serve, args=(port, name), daemon=True).start()
time.sleep(0.2); print('listening'); time.sleep(80)
",
        );
        assert_eq!(service.next_line(), "listening");
        let nics: Vec<&str> = net.client.nics.iter().map(|nic| nic.device.as_str()).collect();
        let path = |nic: usize| format!("[[path]]\ndevice = \"{}\"\n", nics[nic]);
        let listen = |at: u16, to: u16| format!("[[listen]]\nat = {at}\nto = {to}\n");
        let mut daemon = Daemon::start(ns, &(path(0) + &listen(80, 8080)));
        let to = net.client.nics[0].v4;
        let mut client = python(
            &net.server.ns,
            &format!(
                "
import os, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.settimeout(30)
s.connect(('{to}', 80))
for line in range(5):
    s.sendall(b'%d' % line)
    print(s.recv(99))
    while not os.path.exists('{folder}/go%d' % line):
        time.sleep(0.02)
",
                folder = daemon.folder().path().display()
            ),
        );
        let go = |n: u8, daemon: &Daemon| {
            std::fs::write(daemon.folder().path().join(format!("go{n}")), "").expect("a file");
        };
        assert_eq!(client.next_line(), "b'one 0'");
        // Another path, another service, and another port.
        daemon.reload(
            &(path(0) + &path(1) + &listen(80, 8081) + &listen(443, 8080)),
            "ready: 2 paths, 2 listeners",
        );
        go(0, &daemon);
        assert_eq!(client.next_line(), "b'one 1'", "the connection stays with its service");
        let ask = |nic: usize, port: u16| {
            let to = net.client.nics[nic].v4;
            let script = format!(
                "import socket\ntry:\n s = socket.create_connection(('{to}', {port}), 10); s.sendall(b'!'); print(s.recv(9))\n\
                 except OSError as e: print(type(e).__name__)"
            );
            String::from_utf8_lossy(&python(&net.server.ns, &script).finish().1).trim().to_owned()
        };
        assert_eq!([ask(0, 80), ask(1, 80), ask(1, 443)], ["b'two !'", "b'two !'", "b'one !'"]);
        // The file is wrong: everything stays.
        daemon.reload("[[path]]\ndevcie = 1\n", "the configuration stays as it is");
        assert_eq!(ask(1, 443), "b'one !'");
        go(1, &daemon);
        assert_eq!(client.next_line(), "b'one 2'");
        // A path that the connection uses goes, and so does a listener.
        daemon.reload(&(path(1) + &listen(443, 8080)), "ready: 1 path, 1 listener");
        go(2, &daemon);
        assert_eq!(client.next_line(), "b'one 3'");
        assert_eq!([ask(1, 80), ask(1, 443)], ["ConnectionRefusedError", "b'one !'"]);
        // What cannot be done is said, and the rest is done.
        let taken =
            ns.spawn(|| std::net::TcpListener::bind("0.0.0.0:81")).join().expect("a thread").expect("a port");
        daemon.reload(&(path(1) + &listen(81, 8080) + &listen(80, 8080)), "cannot listen on *:81");
        assert_eq!(ask(1, 80), "b'one !'");
        drop(taken);
        go(3, &daemon);
        assert_eq!(client.next_line(), "b'one 4'");
        go(4, &daemon);
        assert_eq!(client.finish().0, Some(0));
        daemon.down(ns);
        drop(service);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// `[stack]` counts for a connection that there is and for those that come; what cannot be changed is said.
#[test]
fn a_reload_changes_the_stack_of_connections_that_there_are() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let mut service = python(
            ns,
            "
import socket
s = socket.create_server(('127.0.0.1', 8080))
print('listening')
kept = []
while True:
    c, _ = s.accept()
    kept.append(c)
    c.sendall(c.recv(9))
",
        );
        assert_eq!(service.next_line(), "listening");
        let listen = "[[listen]]\nat = 80\nto = 8080\n";
        let mut daemon = Daemon::start(ns, listen);
        let to = net.client.nics[0].v4;
        let connect = || {
            let script = format!(
                "import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)\ns.settimeout(30)\n\
                 s.connect(('{to}', 80)); s.sendall(b'!'); print(s.recv(9)); time.sleep(80)"
            );
            let mut client = python(&net.server.ns, &script);
            assert_eq!(client.next_line(), "b'!'");
            client
        };
        let name = daemon.name().to_owned();
        let shown = |field: &str| {
            let said = program::run(ns, &format!("ss --json --instance {}", name));
            let said = both(&said).0;
            let all: serde_json::Value =
                serde_json::from_str(&said).unwrap_or_else(|e| panic!("{said}: {e}"));
            let all = all["connections"].as_array().expect("connections").clone();
            all.iter().map(|c| c[field].to_string()).collect::<Vec<String>>()
        };
        let first = connect();
        assert_eq!(shown("scheduler"), ["\"min-rtt\""]);
        let pcap = daemon.folder().path().join("trace");
        let stack = "[stack]\nscheduler = \"redundant\"\ncongestion = \"olia\"\npath-policy = \"handover\"\nsubflows = 3\n\
             add-addr-accepted = 2\nbuffer = \"256 KiB\"\n";
        let with_trace = format!("{stack}pcap = \"{}\"\n{listen}", pcap.display());
        daemon.reload(&with_trace, "pcap of [stack] has changed, and stays as it was: that needs a restart");
        daemon.wait_for("ready: ");
        let second = connect();
        for (field, value) in [
            ("scheduler", "\"redundant\""),
            ("congestion", "\"olia\""),
            ("path_policy", "\"handover\""),
            ("subflows_max", "3"),
            ("add_addr_accepted_max", "2"),
            ("receive_buffer", "262144"),
        ] {
            assert_eq!(shown(field), [value, value], "{field}");
        }
        assert!(!pcap.exists());
        // What the file does not say any more is what it was in the beginning.
        daemon.reload(listen, "ready: ");
        assert_eq!(shown("scheduler"), ["\"min-rtt\"", "\"min-rtt\""]);
        assert_eq!(shown("subflows_max"), ["7", "7"]);
        // MPTCP is switched off for connections that come, and on again.
        assert_eq!(shown("mptcp"), ["true", "true"]);
        let more = ["0", "1"].map(|switch| {
            let said = both(&program::run(ns, &format!("set enabled {switch} --instance {name}")));
            assert_eq!(said.1, Some(0), "{}", said.0);
            connect()
        });
        assert_eq!(shown("mptcp"), ["true", "true", "false", "true"]);
        drop((first, second, more, service));
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

#[test]
fn check_says_what_comes_to_nothing_and_what_needs_a_restart() {
    within(LIMIT, || {
        let net = network(1);
        let text = "[stack]\nsubflows = 0\npcap = \"/tmp/none\"\n[socks]\nat = \"127.0.0.1:1080\"\n\
                    [[path]]\ndevice = \"c0\"\nsignal = true\n";
        let (name, folder) = configuration(text);
        let mut command = program::command("check");
        command.arg(file(&folder));
        let (said, code) = run_to_end(&net.client.ns, command);
        assert_eq!(code, Some(0), "{said}");
        for part in [
            "warning: with a limit of 0 subflows, new connections use one path",
            "warning: c0: nothing is opened from it",
            "but for pcap of [stack], the name: to change that needs a restart",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
        assert!(!name.is_empty());
    });
}

#[test]
fn systemd_is_told_what_happens() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let (_, folder) = configuration("[log]\nformat = \"json\"\n");
        let address = folder.path().join("notify");
        let socket = UnixDatagram::bind(&address).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        let mut command = up(&folder);
        command.env("NOTIFY_SOCKET", &address);
        let daemon = Background::spawn(ns, command);
        let told = || {
            let mut room = [0; 1024];
            let n = socket.recv(&mut room).expect("a message");
            String::from_utf8_lossy(&room[..n]).into_owned()
        };
        assert_eq!(told(), "READY=1\nSTATUS=every usable NIC, 0 listeners\n");
        daemon.process().signal(Signal::SIGHUP);
        let reloading = told();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("with the time");
        assert!(since.trim().parse::<u64>().is_ok_and(|n| n > 0), "{reloading}");
        assert_eq!(told(), "READY=1\nSTATUS=every usable NIC, 0 listeners\n");
        std::fs::write(file(&folder), "nonsense").expect("a file");
        daemon.process().signal(Signal::SIGHUP);
        assert!(told().starts_with("RELOADING=1"));
        assert!(told().starts_with("READY=1\nSTATUS=not reloaded: "), "it goes on");
        daemon.process().signal(Signal::SIGTERM);
        assert_eq!(told(), "STOPPING=1\n");
        let (code, _, log) = daemon.finish();
        assert_eq!(code, Some(0), "{log}");
        let lines: Vec<serde_json::Value> =
            log.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
        assert!(
            lines.iter().any(
                |l| l["level"] == "INFO" && l["message"].as_str().is_some_and(|m| m.starts_with("ready"))
            )
        );
    });
}

#[test]
fn the_unit_is_right() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/umptcp.service");
    let text = std::fs::read_to_string(unit).expect("the unit is there");
    // systemd-analyze wants the program to exist.
    let (_, folder) = configuration("");
    let copy = folder.path().join("umptcp.service");
    let text = text.replace("/usr/bin/umptcp", &program::path().display().to_string());
    std::fs::write(&copy, text).expect("a copy");
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(&copy);
    let output = command.output().expect("systemd-analyze is installed");
    assert_eq!(both(&output), (String::new(), Some(0)));
}
