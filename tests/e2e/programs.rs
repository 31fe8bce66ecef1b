//! Real programs under `umptcp run`, with the kernel's MPTCP at the other end: MPTCP on the wire, every byte
//! right.

use crate::run::{LIMIT, RESTORED_WITHIN, captured, network, run, wait_for_port};
use crate::terminal::Terminal;
use std::process::{Command, Stdio};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{Background, Folder};
use umptcp_testbed::topology::Routed;

pub(crate) const HTTP: u16 = 8080;

/// Runs a script in `ns`, in the folder. Returns what it printed.
pub(crate) fn sh(ns: &Netns, folder: &Folder, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", script]).current_dir(folder.path()).stdin(Stdio::null());
    let output = ns.run(|| command.output()).expect("sh starts");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}:\n{text}");
    text
}

/// A script of Python in a namespace.
pub(crate) fn python(ns: &Netns, script: &str) -> Background {
    let mut command = Command::new("python3");
    command.args(["-u", "-c", script]).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Background::spawn(ns, command)
}

/// A folder `www` with a large file and fifty small ones, and a configuration of nginx that serves it.
pub(crate) fn prepare(net: &Routed, word: &str) -> Folder {
    let folder = Folder::new(word);
    let path = folder.path().display().to_string();
    let script = format!(
        "chmod 755 . && mkdir www && head -c 40000000 /dev/urandom > www/big &&
         for i in $(seq 50); do head -c 20000 /dev/urandom > www/s$i; done
         cat > nginx.conf <<END
         worker_processes 1; master_process off; daemon off; pid {path}/nginx.pid; error_log {path}/error.log;
         events {{ worker_connections 500; }}
         http {{
         access_log {path}/access.log; root {path}/www; client_body_temp_path {path}/b; proxy_temp_path {path}/p;
         fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s; server {{ listen {HTTP}; }}
         }}
END"
    );
    sh(&net.server.ns, &folder, &script);
    folder
}

/// nginx on the server, by the kernel's MPTCP.
pub(crate) fn serve(net: &Routed, folder: &Folder) -> Running {
    serve_with(net, folder, Command::new("mptcpize").args(["run", "nginx"]))
}

/// nginx on the server, as `nginx` starts it.
pub(crate) fn serve_with(net: &Routed, folder: &Folder, nginx: &mut Command) -> Running {
    nginx.arg("-c").arg(folder.path().join("nginx.conf"));
    nginx.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = net.server.ns.run(|| nginx.spawn()).map(Running::new).expect("nginx starts");
    wait_for_port(&net.server.ns, HTTP);
    running
}

/// Both files have the same bytes.
pub(crate) fn assert_same(folder: &Folder, one: &str, other: &str) {
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(read(one) == read(other), "{one} and {other} differ");
}

#[test]
fn curl_wget_and_git_from_nginx() {
    within(LIMIT, || {
        let net = network(2);
        // One NIC alone must not be enough.
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 100.0));
        let folder = prepare(&net, "http");
        let _nginx = serve(&net, &folder);
        sh(
            &net.server.ns,
            &folder,
            "cd www && git init -q r && cd r && cp ../s1 . && git add s1 &&
             git -c user.email=a@b -c user.name=x commit -qm x && git update-server-info",
        );
        let before = Snapshot::take(&net.client.ns);
        let (path, server) = (folder.path().display(), net.server.nics[0].v4);
        let links = net.client_link_bytes();
        let script = format!(
            "cd {path}; set -e; curl -sS -o one http://{server}:{HTTP}/big; wget -q -O two http://{server}:{HTTP}/big
             git clone -q http://{server}:{HTTP}/r/.git clone"
        );
        let (said, code) = run(&net.client.ns, "--summary", &script);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(" MPTCP, 0 TCP"), "{said}");
        for (before, after) in links.iter().zip(net.client_link_bytes()) {
            assert!(after.to_client - before.to_client > 4 << 20, "each NIC carries its part");
        }
        ["one", "two"].iter().for_each(|copy| assert_same(&folder, "www/big", copy));
        assert_same(&folder, "www/s1", "clone/s1");
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

#[test]
fn fifty_downloads_at_once_are_whole() {
    within(LIMIT, || {
        let net = network(2);
        let folder = prepare(&net, "fifty");
        let _nginx = serve(&net, &folder);
        let (path, server) = (folder.path().display(), net.server.nics[0].v4);
        // HTTP/1.0: the server closes first.
        let script = format!(
            "cd {path}; mkdir got; for i in $(seq 50); do curl -0 -sS -o got/s$i http://{server}:{HTTP}/s$i & done; wait"
        );
        let (said, code) = run(&net.client.ns, "--summary", &script);
        assert!(code == Some(0) && said.contains("50 connections: 50 MPTCP, 0 TCP"), "{said}");
        (1..=50).for_each(|i| assert_same(&folder, &format!("www/s{i}"), &format!("got/s{i}")));
    });
}

#[test]
fn nginx_inside_logs_its_clients_address() {
    within(LIMIT, || {
        let net = network(2);
        let folder = prepare(&net, "inside");
        let nginx = format!("exec nginx -c {}/nginx.conf", folder.path().display());
        let inside = Background::spawn(&net.client.ns, captured("--summary", &nginx));
        let (client, address) = (&net.server, net.client.nics[0].v4);
        for (how, name) in [("mptcpize run ", "one"), ("", "two")] {
            sh(
                &client.ns,
                &folder,
                &format!(
                    "{how}curl -sS --retry 20 --retry-connrefused --retry-delay 1 -o {name} http://{address}:{HTTP}/big"
                ),
            );
            assert_same(&folder, "www/big", name);
        }
        inside.process().signal(nix::sys::signal::Signal::SIGTERM);
        let (code, _, said) = inside.finish();
        assert!(code == Some(0) && said.contains("2 connections: 1 MPTCP, 1 TCP"), "{said}");
        let log = std::fs::read_to_string(folder.path().join("access.log")).expect("a log");
        let seen = client.nics[0].v4.to_string();
        assert!(log.lines().count() == 2 && log.lines().all(|line| line.starts_with(&seen)), "{log}");
    });
}

#[test]
fn netcat_listens_inside() {
    within(LIMIT, || {
        let net = network(1);
        let folder = Folder::new("nc");
        let mut inside = Background::spawn(&net.client.ns, captured("", "nc -l 9100"));
        let address = net.client.nics[0].v4;
        sh(
            &net.server.ns,
            &folder,
            &format!(
                "for i in $(seq 100); do echo from outside | nc -N {address} 9100 && exit; sleep 0.1; done; exit 1"
            ),
        );
        assert_eq!(inside.next_line(), "from outside");
        assert_eq!(inside.finish().0, Some(0));
    });
}

/// An interactive shell: jobs stop and go on, Ctrl-C ends the job and not the shell, and the terminal is the
/// caller's again at the end.
#[test]
fn a_shell_has_its_terminal() {
    within(LIMIT, || {
        let net = network(1);
        let terminal = Terminal::new(&net.client.ns, 120, 50);
        let program = umptcp_testbed::program::path();
        terminal.keys(&[&format!("SHELL=/bin/bash {} run", program.display()), "Enter"]);
        terminal.keys(&["PS1='$ '; set -m; echo rea''dy", "Enter"]);
        terminal.see("ready");
        let job = "sh -c 'echo started; exec sleep 100'";
        terminal.keys(&[job, "Enter"]);
        terminal.see("started");
        terminal.keys(&["C-z"]);
        terminal.keys(&["jobs | grep -c Stopp''ed", "Enter"]);
        terminal.see("1");
        terminal.keys(&["fg", "Enter"]);
        // It names the job that goes on.
        terminal.see(job);
        terminal.keys(&["C-c"]);
        terminal.keys(&["echo after inter''rupt", "Enter"]);
        terminal.see("after interrupt");
        terminal.keys(&["exit 9", "Enter"]);
        terminal.keys(&["echo code \"$?\"", "Enter"]);
        terminal.see("code 9");
        assert!(terminal.end());
    });
}
