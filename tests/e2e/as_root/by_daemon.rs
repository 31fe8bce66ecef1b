//! `umptcp run` by a daemon, for users without any privilege.

use super::Ssh;
use crate::programs::{HTTP, assert_same, prepare, serve};
use crate::run::{LIMIT, RESTORED_WITHIN, both, network};
use crate::up::as_root::Cgroup;
use crate::up::capture::by_mptcp;
use crate::up::{Daemon, file};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background, Folder};
use umptcp_testbed::topology::Routed;

/// The user whose programs they are, and the user's group.
const USER: &str = "65534";

/// What the daemon is told.
const FOR_USER: &str = "[run]\ngroup = 65534\n";

/// The folder has cgroups below it for the command: tests have a /sys of the namespace's, without any.
fn with_cgroups(folder: &Folder, words: &[&str]) -> Command {
    let at = folder.path().join("cgroups");
    std::fs::create_dir_all(&at).expect("a folder");
    let mut command = Command::new("sh");
    command.args(["-c", "mount -t cgroup2 none \"$1\" && shift && exec \"$@\"", "sh"]).arg(&at);
    command.arg(program::path()).args(words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A daemon, and what removes its cgroups when a test fails, after the daemon has ended.
fn daemon(ns: &Netns, text: &str) -> (Left, Daemon) {
    let daemon = Daemon::start_by(ns, text, |folder| {
        let file = file(folder).display().to_string();
        with_cgroups(folder, &["up", "-v", "--config", &file])
    });
    (Left(daemon.process()), daemon)
}

/// The cgroups of a daemon, which are removed at the end: none is left on the host.
struct Left(u32);

impl Drop for Left {
    fn drop(&mut self) {
        for cgroup in cgroups(self.0) {
            let above = cgroup.with_file_name("cgroup.procs");
            let gone = || {
                for process in
                    std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines()
                {
                    // It may have ended.
                    let _ = std::fs::write(&above, process);
                }
                std::fs::remove_dir(&cgroup).is_ok() || !cgroup.exists()
            };
            if std::thread::panicking() {
                (0..100).any(|_| {
                    gone() || {
                        std::thread::sleep(Duration::from_millis(20));
                        false
                    }
                });
            } else {
                wait_until("the cgroup goes", gone);
            }
        }
    }
}

/// What is started by an ordinary user: the program's name and arguments are added.
fn of_user(user: &str, group: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={group}"), "--clear-groups"]);
    // setpriv itself would start what the user may not.
    command.arg("/usr/bin/env").env_remove("XDG_RUNTIME_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `umptcp run` of an ordinary user.
fn as_user(user: &str, group: &str, options: &str) -> Command {
    let mut command = of_user(user, group);
    command.arg(program::path()).arg("run").args(options.split_whitespace()).arg("--");
    command
}

fn script(options: &str, script: &str) -> Command {
    let mut command = as_user(USER, USER, options);
    command.args(["sh", "-c", script]);
    command
}

fn finish(ns: &Netns, mut command: Command) -> Output {
    ns.run(|| command.spawn()).map(Running::new).expect("it starts").wait()
}

/// Runs a script to its end. Returns what it printed on both outputs, and its exit code.
fn run(ns: &Netns, options: &str, text: &str) -> (String, Option<i32>) {
    both(&finish(ns, script(options, text)))
}

/// Cgroups that a daemon has made for programs of this test.
fn cgroups(daemon: u32) -> Vec<PathBuf> {
    let own = std::fs::read_to_string("/proc/self/cgroup").expect("/proc is there");
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup").to_owned();
    let prefix = format!("umptcp-{daemon}-");
    let entries = std::fs::read_dir(Cgroup::root().join(own)).expect("it can be listed");
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .collect()
}

fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !there() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder that the user may write to.
pub(super) fn open_to_all(folder: &Folder) {
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("it is ours");
}

#[test]
fn programs_of_an_ordinary_user_use_both_nics() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        // One NIC alone must not be enough.
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 100.0));
        let folder = prepare(&net, "by-daemon");
        open_to_all(&folder);
        let _nginx = serve(&net, &folder);
        let mut iperf = Command::new("mptcpize");
        iperf.args(["run", "iperf3", "-s", "-1"]).stdin(Stdio::null()).stdout(Stdio::null());
        let _iperf = net.server.ns.run(|| iperf.spawn()).map(Running::new).expect("iperf3 starts");
        crate::run::wait_for_port(&net.server.ns, 5201);
        let before = Snapshot::take(ns);
        let (_left, daemon) = daemon(ns, FOR_USER);
        let links = net.client_link_bytes();
        let (path, server) = (folder.path().display(), net.server.nics[0].v4);
        let text = format!(
            "cd {path}; set -e; id -u; curl -sS -o one http://{server}:{HTTP}/big; wget -q -O two http://{server}:{HTTP}/big
             iperf3 -c {server} -n 4M -R > three; grep -c CapEff:.0000000000000000 /proc/self/status"
        );
        let (said, code) = run(ns, "--json", &text);
        assert_eq!(code, Some(0), "{said}");
        let json = said.lines().find(|line| line.starts_with('{')).expect("JSON");
        let summary: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let expected = ["connections", "mptcp"].map(|name| summary[name].as_u64());
        assert_eq!(expected, [Some(4), Some(4)], "two downloads, and iperf3's control and data: {said}");
        assert!(summary["down"].as_u64() > Some(84_000_000), "{said}");
        assert!(said.lines().any(|line| line == USER) && said.lines().any(|line| line == "1"), "{said}");
        let paths = summary["paths"].as_array().expect("paths");
        let received = paths.iter().map(|path| path["received"].as_u64().expect("a number"));
        let received: Vec<u64> = received.collect();
        assert!(received.len() == 2 && received.iter().all(|n| *n > 4 << 20), "{said}");
        assert!(received.iter().sum::<u64>() >= summary["down"].as_u64().expect("a number"), "{said}");
        for (before, after) in links.iter().zip(net.client_link_bytes()) {
            assert!(after.to_client - before.to_client > 4 << 20, "each NIC carries its part");
        }
        ["one", "two"].iter().for_each(|copy| assert_same(&folder, "www/big", copy));
        let id = daemon.process();
        wait_until("its cgroup goes", || cgroups(id).is_empty());
        // Others are not captured.
        let captured = by_mptcp(&net);
        let outside = format!("curl -sS -o /dev/null http://{server}:{HTTP}/s1");
        crate::programs::sh(ns, &folder, &outside);
        assert_eq!(by_mptcp(&net), captured);
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// Files of root, programs that become root, localhost and sockets: all as without us.
#[test]
fn nothing_but_tcp_to_others_is_different() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let ssh = Ssh::serve(&net);
        let folder = Folder::new("native");
        open_to_all(&folder);
        let path = folder.path().display();
        // sudo, as far as the kernel is concerned.
        let prepare = format!(
            "cp $(command -v id) {path}/sudo-id && chmod 4755 {path}/sudo-id && cp {key} {path}/key && chown {USER} {path}/key",
            key = ssh.key()
        );
        crate::programs::sh(ns, &folder, &prepare);
        let (_left, daemon) = daemon(ns, FOR_USER);
        let (server, config) = (net.server.nics[0].v4, ssh.client_configuration());
        let text = format!(
            "python3 -c '\n\
import socket, threading\n\
s = socket.create_server((\"127.0.0.1\", 7100))\n\
c = socket.create_connection((\"127.0.0.1\", 7100), 5); s.accept()[0].sendall(b\"localhost\"); print(c.recv(99))\n\
a = socket.socket(socket.AF_UNIX); a.connect(\"\\0umptcp-test-{id}\"); print(a.recv(99))\n'
             {path}/sudo-id -u
             ssh -F {config} -o IdentitiesOnly=yes -i {path}/key root@{server} 'echo logged in; echo $SSH_CONNECTION'",
            id = std::process::id(),
        );
        let name = format!("umptcp-test-{}", std::process::id());
        let abstract_socket = ns
            .spawn(move || {
                use std::os::linux::net::SocketAddrExt as _;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
                std::os::unix::net::UnixListener::bind_addr(&address).expect("it is free")
            })
            .join()
            .expect("a thread");
        let answer = std::thread::spawn(move || {
            use std::io::Write as _;
            abstract_socket.accept().expect("a client").0.write_all(b"abstract").expect("it reads");
        });
        let (said, code) = run(ns, "--summary", &text);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("b'localhost'\nb'abstract'\n0\nlogged in\n"), "{said}");
        assert!(said.contains(&net.client.nics[0].v4.to_string()), "{said}");
        assert!(said.contains("1 connection: 1 MPTCP, 0 TCP\n"), "{said}");
        answer.join().expect("it was asked");
        daemon.down(ns);
    });
}

#[test]
fn a_command_has_its_own_exit_code_and_signals() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let (_left, daemon) = daemon(ns, FOR_USER);
        // Without a summary, the process is the command.
        assert_eq!(finish(ns, script("", "kill -9 $$")).status.signal(), Some(9));
        let mut running = Background::spawn(ns, script("--tier daemon", "echo $$; exec sleep 60"));
        let process = running.process().id().to_string();
        assert_eq!(running.next_line(), process);
        running.process().signal(Signal::SIGTERM);
        assert_eq!(running.finish().0, None);
        for options in ["", "--summary"] {
            for (text, code) in [("exit 3", 3), ("true", 0), ("nosuchcommand", 127)] {
                assert_eq!(run(ns, options, text).1, Some(code), "{text}");
            }
            for (command, code, why) in
                [("/etc/passwd", 126, "cannot execute"), ("nosuchcommand", 127, "not found")]
            {
                let mut run = as_user(USER, USER, options);
                run.arg(command);
                let (said, got) = both(&finish(ns, run));
                assert!(got == Some(code) && said.contains(why), "{said}");
            }
        }
        assert_eq!(run(ns, "--summary", "kill -9 $$").1, Some(137));
        let waits = "trap 'echo took it; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
        let mut running = Background::spawn(ns, script("--summary", waits));
        assert_eq!(running.next_line(), "ready");
        running.process().signal(Signal::SIGTERM);
        assert_eq!(running.next_line(), "took it");
        assert_eq!(running.finish().0, Some(5));
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// A server of Python that says hello, by the kernel's MPTCP, and a client of it.
pub(super) fn hello(net: &Routed) -> (Background, String) {
    let text = "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 7)); s.listen()
while True: s.accept()[0].sendall(b'hello')
";
    let server = crate::programs::python(&net.server.ns, text);
    crate::run::wait_for_port(&net.server.ns, 7);
    let ask = format!(
        "python3 -c 'import socket; print(socket.create_connection((\"{}\", 7), 20).recv(9))'",
        net.server.nics[0].v4
    );
    (server, ask)
}

#[test]
fn two_runs_at_once_are_told_apart() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let (_server, ask) = hello(&net);
        let (_left, daemon) = daemon(ns, FOR_USER);
        let refused = ask.replace(", 7)", ", 9)");
        let mut first = Background::spawn(
            ns,
            script("--summary", &format!("{ask}; echo $(read a); {ask}; {refused} 2>/dev/null")),
        );
        assert_eq!(first.next_line(), "b'hello'");
        let (said, _) = run(ns, "--summary", &format!("{ask}; {ask}; {ask}; {ask}; {ask}"));
        assert!(said.contains("5 connections: 5 MPTCP, 0 TCP\n"), "{said}");
        let (_, _, said) = first.finish();
        assert!(said.contains("2 connections: 2 MPTCP, 0 TCP\n"), "{said}");
        assert!(said.contains("1 not established: "), "{said}");
        daemon.down(ns);
    });
}

#[test]
fn who_is_not_admitted_gets_one_line_and_members_do_not_steer() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let (_left, daemon) = daemon(ns, FOR_USER);
        let mut other = as_user("65533", "65533", "");
        other.arg("true");
        let (said, code) = both(&finish(ns, other));
        assert!(code == Some(3) && said.lines().count() == 1, "{said}");
        let named = format!("{:?} is for root and the members of the group", daemon.name());
        assert!(said.contains(&named) && said.contains("sudo umptcp setup"), "{said}");
        let ask = |user: &str, words: &[&str]| {
            let mut command = of_user(user, user);
            command.arg(program::path()).args(words);
            both(&ns.run(|| command.output()).expect("setpriv starts"))
        };
        let (said, code) = ask(USER, &["limits", "show", "--instance", daemon.name()]);
        assert!(code == Some(0) && said.contains("subflows"), "{said}");
        let answers = format!("{:?} answers: `umptcp run` asks it first", daemon.name());
        assert!(
            ask(USER, &["doctor"]).0.contains(&answers) && !ask("65533", &["doctor"]).0.contains(&answers)
        );
        assert!(ask("65533", &["doctor"]).0.contains(&named));
        let (said, code) = ask(USER, &["set", "scheduler", "round-robin", "--instance", daemon.name()]);
        assert!(code == Some(3) && said.contains("is for root"), "{said}");
        // What the daemon cannot do is said by name.
        let (said, code) = run(ns, "--path eth0 --no-quic", "true");
        assert!(
            code == Some(3) && said.contains("--path, --no-quic") && said.contains("takes root"),
            "{said}"
        );
        let (said, code) = run(ns, "--tier daemon --pcap x", "true");
        assert!(code == Some(2) && said.contains("leave out --pcap"), "{said}");
        let (said, code) = run(ns, "--tier own", "true");
        assert!(code == Some(3) && said.contains("--tier own") && said.contains("takes root"), "{said}");
        daemon.down(ns);
        let without = Daemon::start(ns, "");
        let (said, code) = run(ns, "--tier daemon", "true");
        assert_eq!(code, Some(3), "{said}");
        let mut root = program::command("run --tier daemon -- true");
        let (said, code) = both(&ns.run(|| root.output()).expect("it starts"));
        assert!(code == Some(3) && said.contains("no [run]"), "{said}");
        without.down(ns);
    });
}

#[test]
fn a_reload_ends_what_is_taken_and_not_what_runs() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let (_server, ask) = hello(&net);
        let (_left, mut daemon) = daemon(ns, FOR_USER);
        let mut command = script("--summary", &format!("{ask}; read go; {ask}"));
        command.stdin(Stdio::piped());
        let mut running = Background::spawn(ns, command);
        assert_eq!(running.next_line(), "b'hello'");
        daemon.reload("", "ready: ");
        let (said, code) = run(ns, "--tier daemon", "true");
        assert!(code == Some(3) && said.contains("no [run]"), "{said}");
        running.write_line("");
        assert_eq!(running.next_line(), "b'hello'");
        let (code, _, said) = running.finish();
        assert!(code == Some(0) && said.contains("2 connections: 2 MPTCP, 0 TCP"), "{said}");
        daemon.reload(FOR_USER, "ready: ");
        assert_eq!(run(ns, "--tier daemon", "true").1, Some(0));
        daemon.down(ns);
    });
}

/// More at once than there are places at the socket.
#[test]
fn a_hundred_runs_at_once_are_captured() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let (_server, ask) = hello(&net);
        let (_left, daemon) = daemon(ns, FOR_USER);
        let id = daemon.process();
        let folder = Folder::new("hundred");
        open_to_all(&folder);
        std::fs::write(folder.path().join("ask"), ask).expect("a file");
        let many = format!(
            "cd {}; for i in $(seq 100); do {} run --summary --tier daemon -- sh ask 2>&1 & done; wait",
            folder.path().display(),
            program::path().display()
        );
        let mut command = of_user(USER, USER);
        command.args(["sh", "-c", &many]);
        let (said, _) = both(&finish(ns, command));
        assert_eq!(said.matches("b'hello'").count(), 100, "{said}");
        assert_eq!(said.matches("1 connection: 1 MPTCP, 0 TCP").count(), 100, "{said}");
        assert_eq!(by_mptcp(&net), 100);
        wait_until("the cgroups go", || cgroups(id).is_empty());
        daemon.down(ns);
    });
}

/// One member that connects again and again keeps neither root nor other members out.
#[test]
fn a_member_cannot_take_every_place() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let (_left, daemon) = daemon(ns, FOR_USER);
        let connect = format!(
            "
import socket, time
all = []
for _ in range(100):
    s = socket.socket(socket.AF_UNIX); s.connect('/run/umptcp/{}.sock'); all.append(s)
said = [s.recv(4096) for s in all]
print(sum(b'umptcp-control' in s for s in said), sum(b'of this user already' in s for s in said), flush=True)
time.sleep(60)
",
            daemon.name()
        );
        let mut command = of_user(USER, USER);
        command.args(["python3", "-c", &connect]);
        let mut holding = Background::spawn(ns, command);
        let said = holding.next_line();
        assert!(said == "16 84", "{said} {:?}", holding.finish());
        let (said, code) = both(&program::run(ns, &format!("limits show --instance {}", daemon.name())));
        assert!(code == Some(0) && said.contains("subflows"), "{said}");
        let mut another = as_user("65533", USER, "--tier daemon");
        another.arg("true");
        let (said, code) = both(&finish(ns, another));
        assert_eq!(code, Some(0), "{said}");
        daemon.down(ns);
    });
}

/// Root asks the daemon, too, and with what it cannot do goes its own way.
#[test]
fn root_is_captured_by_the_daemon_or_by_itself() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let (_server, ask) = hello(&net);
        let (_left, daemon) = daemon(ns, "[run]\n");
        for (options, how) in [
            ("-v", format!("captured by the daemon {:?}", daemon.name())),
            ("-v --tier own", "capturing as root (asked for by --tier own)".to_owned()),
            ("-v --no-quic", "capturing as root (--no-quic is not for the daemon)".to_owned()),
        ] {
            let (said, code) = crate::run::run(ns, options, &format!("{ask}; readlink /proc/self/ns/net"));
            assert!(code == Some(0) && said.contains(&how), "{said}");
            assert!(said.contains("1 connection: 1 MPTCP, 0 TCP"), "{said}");
        }
        daemon.down(ns);
    });
}

/// A daemon that cannot make cgroups says so, and root goes its own way.
#[test]
fn without_cgroups_the_reason_is_said() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        // Tests have a /sys of the namespace's, and cgroups of version 2 are to be nowhere else.
        let daemon = Daemon::start_by(ns, FOR_USER, |folder| {
            let mut command = Command::new("sh");
            command.args(["-c", "umount -a -t cgroup2; exec \"$@\"", "sh"]).arg(program::path());
            command.args(["up", "-v", "--config"]).arg(file(folder));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        });
        let (said, code) = run(ns, "", "true");
        assert!(code == Some(3) && said.lines().count() == 1, "{said}");
        assert!(
            said.contains("no cgroups of version 2 are mounted") && said.contains("sudo umptcp run"),
            "{said}"
        );
        let (said, code) = crate::run::run(ns, "-v", "echo ran");
        assert!(code == Some(0) && said.contains("ran\n"), "{said}");
        assert!(said.contains("capturing as root (the daemon") && said.contains("no cgroups"), "{said}");
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// The command goes on without the daemon, where it came from.
#[test]
fn a_daemon_that_ends_or_is_killed_lets_its_programs_go() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let (_server, ask) = hello(&net);
        let before = Snapshot::take(ns);
        for kill in [false, true] {
            let (_left, daemon) = daemon(ns, FOR_USER);
            let id = daemon.process();
            let mut command = script("", &format!("{ask}; read go; {ask}; cat /proc/self/cgroup"));
            command.stdin(Stdio::piped());
            let mut running = Background::spawn(ns, command);
            assert_eq!(running.next_line(), "b'hello'");
            assert_eq!(cgroups(id).len(), 1);
            let captured = by_mptcp(&net);
            if kill {
                daemon.signal(Signal::SIGKILL);
                let folder = Folder::new("clean-up");
                daemon.finish();
                let (said, code) = both(&finish(ns, with_cgroups(&folder, &["clean-up"])));
                assert_eq!(code, Some(0), "{said}");
            } else {
                daemon.down(ns);
            }
            assert!(cgroups(id).is_empty());
            before.assert_restored(ns, RESTORED_WITHIN);
            running.write_line("");
            assert_eq!(running.next_line(), "b'hello'");
            let (code, said, errors) = running.finish();
            assert_eq!(code, Some(0), "{errors}");
            let own = std::fs::read_to_string("/proc/self/cgroup").expect("/proc is there");
            assert_eq!(String::from_utf8_lossy(&said), own, "it is where it came from");
            assert_eq!(by_mptcp(&net), captured, "by the kernel's TCP now");
        }
    });
}

/// Cgroups are of no network namespace: one that is gone leaves none.
#[test]
fn a_namespace_that_is_gone_leaves_no_cgroup() {
    within(LIMIT, || {
        let (left, id) = {
            let net = network(1);
            let ns = &net.client.ns;
            let (left, daemon) = daemon(ns, FOR_USER);
            let mut running = Background::spawn(ns, script("", "echo started; exec sleep 60"));
            assert_eq!(running.next_line(), "started");
            let id = daemon.process();
            daemon.signal(Signal::SIGKILL);
            daemon.finish();
            running.process().signal(Signal::SIGKILL);
            running.finish();
            (left, id)
        };
        assert_eq!(cgroups(id).len(), 1);
        let (other, folder) = (Netns::new("other"), Folder::new("clean-up"));
        // Processes that have ended leave a cgroup in a moment.
        wait_until("the cgroup goes", || {
            let (said, code) = both(&finish(&other, with_cgroups(&folder, &["clean-up"])));
            assert_eq!(code, Some(0), "{said}");
            cgroups(id).is_empty()
        });
        drop(left);
    });
}

/// The command stays below the cgroup of its caller, whatever that is called: its limits hold.
#[test]
fn a_command_stays_in_what_its_caller_is_in() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let (_server, ask) = hello(&net);
        let cgroup = Cgroup::new("-app\\x2d a.scope");
        let (_left, daemon) = daemon(ns, FOR_USER);
        let name = cgroup.0.file_name().expect("a name").to_string_lossy().into_owned();
        let folder = Folder::new("below");
        let at = folder.path().display().to_string();
        let enter =
            "mount -t cgroup2 none \"$1\" && echo $$ > \"$1/$2/cgroup.procs\" && shift 2 && exec \"$@\"";
        let command = script("--tier daemon", &format!("grep 0:: /proc/self/cgroup; {ask}"));
        let mut inside = Command::new("sh");
        inside.args(["-c", enter, "sh", &at, &name]).arg(command.get_program()).args(command.get_args());
        inside
            .env_remove("XDG_RUNTIME_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let (said, code) = both(&finish(ns, inside));
        let below = format!("0::/{name}/umptcp-{}-", daemon.process());
        assert!(code == Some(0) && said.contains(&below) && said.contains("b'hello'"), "{said}");
        assert_eq!(by_mptcp(&net), 1);
        let left = || std::fs::read_dir(&cgroup.0).expect("a folder").flatten().any(|e| e.path().is_dir());
        wait_until("its cgroup goes", || !left());
        daemon.down(ns);
    });
}

/// What a command leaves behind is captured as long as it runs, and a server inside is one of the host's.
#[test]
fn what_stays_behind_goes_on_and_servers_are_the_hosts() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let (_server, ask) = hello(&net);
        let (_left, daemon) = daemon(ns, FOR_USER);
        let id = daemon.process();
        let folder = Folder::new("behind");
        open_to_all(&folder);
        let path = folder.path().display();
        let listen =
            "import socket; s = socket.create_server((\"\", 7300)); s.accept()[0].sendall(b\"server\")";
        let text = format!("(python3 -c '{listen}'; {ask}) > {path}/said 2>&1 &");
        assert_eq!(run(ns, "", &text), (String::new(), Some(0)));
        assert_eq!(cgroups(id).len(), 1);
        crate::run::wait_for_port(ns, 7300);
        let client = format!("nc {} 7300", net.client.nics[0].v4);
        assert_eq!(crate::programs::sh(&net.server.ns, &folder, &client), "server");
        wait_until("what was left behind ends", || cgroups(id).is_empty());
        assert_eq!(std::fs::read_to_string(folder.path().join("said")).expect("a file"), "b'hello'\n");
        assert_eq!(by_mptcp(&net), 1);
        daemon.down(ns);
    });
}
