//! `umptcp run` with other users: root can become another one, a user namespace with one user cannot.

mod by_daemon;
mod run_inside_udp;
mod setup;

use crate::inside_udp;
use crate::proxy;
use crate::run::{LIMIT, RESTORED_WITHIN, both, captured, network, run, wait_for_port};
use std::path::Path;
use std::process::{Command, Stdio};
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program;
use umptcp_testbed::topology::{Family, Routed};

#[test]
fn without_privilege_one_line_says_what_to_do() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program::path());
        command.args(["run", "--", "true"]);
        let output = ns.run(|| command.output()).expect("setpriv starts");
        let (said, code) = both(&output);
        assert!(code == Some(3) && said.lines().count() == 1 && said.contains("sudo umptcp run"), "{said}");
    });
}

/// Somebody without any privilege, and a host without TUN devices.
#[test]
fn paths_inside_udp_are_for_everybody() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        inside_udp::unchanged(&net, || inside_udp::exchange(&net, Family::V4, nobody, |_| {}));
    });
}

/// The same by the proxy, and the server is nobody's, too.
#[test]
fn the_proxy_is_for_everybody() {
    within(LIMIT, || proxy::both_protocols("setpriv --reuid=65534 --regid=65534 --clear-groups"));
}

/// With `sudo`, the command is the caller's, not root's.
#[test]
fn the_command_has_the_privileges_of_whoever_called_sudo() {
    within(LIMIT, || {
        let net = network(1);
        let mut command = captured("", "id -u; id -g; grep -c CapEff:.0000000000000000 /proc/self/status");
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65533").env("SUDO_USER", "nobody");
        let output = net.client.ns.run(|| command.spawn()).map(Running::new).expect("it starts").wait();
        assert_eq!(both(&output).0, "65534\n65533\n1\n");
    });
}

/// A server of ssh, by the kernel's MPTCP, with a key, and configuration of a client that it reads only if root
/// or the user owns it.
struct Ssh {
    folder: program::Folder,
    _sshd: Running,
}

impl Ssh {
    fn serve(net: &Routed) -> Ssh {
        let folder = program::Folder::new("ssh");
        let path = folder.path().display().to_string();
        let prepare = format!(
            "cd {path} && ssh-keygen -q -t ed25519 -N '' -f key && cp key.pub allowed && mkdir conf.d &&
             echo 'ConnectTimeout 20' > conf.d/x.conf &&
             printf 'Include {path}/conf.d/*.conf\nIdentityFile {path}/key\nStrictHostKeyChecking no\nUserKnownHostsFile /dev/null\nLogLevel ERROR\nPort 2222\n' > client.conf &&
             printf 'Port 2222\nHostKey {path}/key\nAuthorizedKeysFile {path}/allowed\nStrictModes no\nPidFile none\nUsePAM no\nSubsystem sftp internal-sftp\n' > server.conf"
        );
        let done = Command::new("sh").args(["-c", &prepare]).status().expect("sh starts");
        assert!(done.success());
        // sshd wants a folder of its own in /run.
        let serve = format!(
            "mount -t tmpfs none /run && mkdir /run/sshd && exec mptcpize run $(command -v sshd) -D -e -f {path}/server.conf"
        );
        let mut sshd = Command::new("unshare");
        sshd.args(["-m", "sh", "-c", &serve])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let sshd = net.server.ns.run(|| sshd.spawn()).map(Running::new).expect("sshd starts");
        wait_for_port(&net.server.ns, 2222);
        Ssh { folder, _sshd: sshd }
    }

    fn path(&self) -> String {
        self.folder.path().display().to_string()
    }

    fn key(&self) -> String {
        format!("{}/key", self.path())
    }

    fn client_configuration(&self) -> String {
        format!("{}/client.conf", self.path())
    }
}

#[test]
fn ssh_scp_and_rsync_go_over_mptcp() {
    within(LIMIT, || {
        let net = network(2);
        let before = Snapshot::take(&net.client.ns);
        let sshd = Ssh::serve(&net);
        let path = sshd.path();
        let prepare = format!(
            "mkdir {path}/from && cd {path}/from && head -c 3000000 /dev/urandom > a && echo small > b"
        );
        let done = Command::new("sh").args(["-c", &prepare]).status().expect("sh starts");
        assert!(done.success());
        let (config, server) = (sshd.client_configuration(), net.server.nics[0].v4);
        let ssh = format!("ssh -F {config}");
        let script = format!(
            "set -e; {ssh} {server} 'echo logged in; echo $SSH_CONNECTION'
             scp -q -F {config} {path}/from/a {server}:{path}/copy
             rsync -a -e '{ssh}' {path}/from/ {server}:{path}/to/"
        );
        let (said, code) = run(&net.client.ns, "--summary", &script);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("logged in") && said.contains(&net.client.nics[0].v4.to_string()), "{said}");
        assert!(said.contains("3 connections: 3 MPTCP, 0 TCP"), "{said}");
        let read = |name: &str| std::fs::read(Path::new(&path).join(name)).expect("it arrived");
        assert!(
            read("from/a") == read("copy") && read("from/a") == read("to/a") && read("to/b") == b"small\n"
        );
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

/// The control socket is for whoever has started the instance, and for root.
#[test]
fn tools_of_other_users_are_refused() {
    within(LIMIT, || {
        let net = network(1);
        let name = format!("owned-{}", std::process::id());
        let mut command = captured(&format!("--name {name}"), "echo started; exec sleep 60");
        command.env("SUDO_UID", "65534").env("SUDO_GID", "65534").env("SUDO_USER", "nobody");
        let mut instance = program::Background::spawn(&net.client.ns, command);
        assert_eq!(instance.next_line(), "started");
        let ask = |user: &str| {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), "--clear-groups"]).arg(program::path());
            command.args(["limits", "show", "--instance", &name]).env_remove("XDG_RUNTIME_DIR");
            both(&net.client.ns.run(|| command.output()).expect("setpriv starts"))
        };
        for owner in ["65534", "0"] {
            let (said, code) = ask(owner);
            assert!(code == Some(0) && said.contains("subflows"), "{owner}: {said}");
        }
        let (said, code) = ask("65533");
        assert!(code == Some(3) && said.contains("started by another user"), "{said}");
    });
}

/// In a /run of their own, so that no other instance is seen.
#[test]
fn instances_are_found_named_and_cleaned_up() {
    within(LIMIT, || {
        let net = network(1);
        let script = "mount -t tmpfs none /run
start() { $U run --name $1 -- sleep 60 & }
ready() { until $U limits show --instance $1 >/dev/null 2>&1; do sleep 0.05; done; }
say() { echo \"== $1\"; shift; \"$@\" 2>&1; echo \"code $?\"; }
say none $U ss
start a; a=$!; ready a
say one $U limits show
start b; b=$!; ready b
say several $U limits show
say other $U limits show --instance c
kill -9 $b; wait $b 2>/dev/null
say dead $U ss --instance b
say json $U ss --json --instance b
say alive $U limits show
say clean $U clean-up
say gone $U ss --instance b
kill $a; wait $a
say left ls -A /run/umptcp
";
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", script]).env("U", program::path()).env_remove("XDG_RUNTIME_DIR");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = net.client.ns.run(|| command.spawn()).map(Running::new).expect("it starts").wait();
        let (said, _) = both(&output);
        let part = |name: &str| {
            let from = said.split(&format!("== {name}\n")).nth(1).unwrap_or_else(|| panic!("{name}: {said}"));
            from.split("== ").next().unwrap_or_default().to_owned()
        };
        for (name, text, code) in [
            ("none", "no umptcp is running", 3),
            ("one", "subflows 7", 0),
            ("several", "a, b; choose one with --instance", 2),
            ("other", "no umptcp named \"c\" is running; there is a, b", 3),
            ("dead", "has died; `umptcp clean-up`", 3),
            ("json", "\"class\":\"host\"", 3),
            ("alive", "subflows 7", 0),
            ("clean", "the control socket of b", 0),
            ("gone", "no umptcp named \"b\"", 3),
        ] {
            let part = part(name);
            assert!(
                part.contains(text) && part.contains(&format!("code {code}\n")),
                "{name}: {part}\n{said}"
            );
        }
        assert!(!part("left").contains(".sock"), "{said}");
    });
}
