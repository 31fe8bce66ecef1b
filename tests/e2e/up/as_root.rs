//! Capture of users and cgroups: root can become another user and make cgroups.

use super::capture::by_mptcp;
use super::{Daemon, LIMIT, RESTORED_WITHIN, file, network, python, wait_for_port};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::Background;
use umptcp_testbed::topology::Routed;

fn serve(net: &Routed) -> Background {
    let server = python(
        &net.server.ns,
        "
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(('', 7)); s.listen()
while True: s.accept()[0].sendall(b'hello')
",
    );
    wait_for_port(&net.server.ns, 7);
    server
}

/// Connects once, by this command in front of Python.
fn ask(net: &Routed, front: &[&str]) {
    let script = format!(
        "import socket; print(socket.create_connection(('{}', 7), 20).recv(9))",
        net.server.nics[0].v4
    );
    let words = [front, &["python3", "-c", script.as_str()]].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (code, said, errors) = Background::spawn(&net.client.ns, command).finish();
    assert_eq!((code, String::from_utf8_lossy(&said).trim()), (Some(0), "b'hello'"), "{errors}");
}

#[test]
fn a_users_connections_are_captured_and_only_those() {
    within(LIMIT, || {
        let net = network(2);
        let _server = serve(&net);
        let daemon = Daemon::start(&net.client.ns, "[[capture]]\nuser = 65534\n");
        ask(&net, &[]);
        assert_eq!(by_mptcp(&net), 0);
        ask(&net, &["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/env"]);
        assert_eq!(by_mptcp(&net), 1);
        daemon.down(&net.client.ns);
    });
}

/// A cgroup of this test, removed at its end.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    /// Makes one, with this at the end of its name.
    pub(crate) fn new(word: &str) -> Cgroup {
        let name = format!("umptcp-test-{}{word}", std::process::id());
        let cgroup = Cgroup(Cgroup::root().join(name));
        cgroup.make();
        cgroup
    }

    /// Where cgroups of version 2 are mounted.
    pub(crate) fn root() -> PathBuf {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is there");
        let mut all = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        all.find(|words| words[2] == "cgroup2").expect("cgroups of version 2 are mounted")[1].into()
    }

    fn make(&self) {
        std::fs::create_dir(&self.0).expect("a cgroup can be made");
    }

    fn remove(&self) {
        // Processes that have ended leave it in a moment.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() || !self.0.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A service that is started again has a new cgroup by the same name.
#[test]
fn a_cgroups_connections_are_captured_also_when_it_is_made_anew() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let _server = serve(&net);
        let cgroup = Cgroup::new("");
        let name = cgroup.0.file_name().expect("a name").to_string_lossy().into_owned();
        // Tests have a /sys of the namespace's, without cgroups: they are mounted elsewhere for the daemon.
        let mut daemon = Daemon::start_by(ns, &format!("[[capture]]\ncgroup = \"/{name}/\"\n"), |folder| {
            let at = folder.path().join("cgroups");
            std::fs::create_dir(&at).expect("a folder");
            let mut command = Command::new("sh");
            let script = "mount -t cgroup2 none \"$1\" && exec \"$2\" up -vv --config \"$3\"";
            command.args(["-c", script, "sh"]).args([&at, &umptcp_testbed::program::path(), &file(folder)]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        });
        let at = daemon.folder().path().join("cgroups").display().to_string();
        let enter =
            format!("mount -t cgroup2 none {at} && echo $$ > {at}/{name}/cgroup.procs && exec \"$@\"");
        let inside: Vec<&str> = vec!["sh", "-c", &enter, "sh"];
        ask(&net, &[]);
        assert_eq!(by_mptcp(&net), 0);
        ask(&net, &inside);
        assert_eq!(by_mptcp(&net), 1);
        cgroup.remove();
        daemon.wait_for("what is captured has changed");
        cgroup.make();
        daemon.wait_for("what is captured has changed");
        ask(&net, &inside);
        assert_eq!(by_mptcp(&net), 2);
        daemon.down(ns);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}
