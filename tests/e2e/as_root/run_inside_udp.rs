//! `umptcp run` as an ordinary user without root and without a daemon: in a user namespace, over paths inside UDP.

use crate::programs::python;
use crate::proxy::{LENGTH, PORT, Site};
use crate::run::{LIMIT, both};
use std::process::{Command, Stdio};
use umptcp_testbed::command::Running;
use umptcp_testbed::limit::within;
use umptcp_testbed::program;
use umptcp_testbed::topology::Routed;

const NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// A script of shell inside, over both NICs, where everybody may open the TUN device, as on most hosts.
fn inside(net: &Routed, mode: &str, script: &str) -> Running {
    let program = program::path();
    let everybody = format!(
        "mount -t tmpfs none /dev/net && mknod -m 666 /dev/net/tun c 10 200 && cd / && exec {NOBODY} {} run {} --summary \
         --path c0,mode={mode} --path c1,mode={mode} -- sh -c \"$1\"",
        program.display(),
        if mode == "auto" { "-v" } else { "" },
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &everybody, "sh", script]).env_remove("RUST_BACKTRACE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    net.client.ns.run(|| command.spawn()).map(Running::new).expect("it starts")
}

#[test]
fn a_download_goes_on_when_a_nic_dies() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
        let site = Site::start(&net, NOBODY);
        let url = format!("http://{}:{PORT}/", net.server.nics[0].v4);
        let running =
            inside(&net, "udp", &format!("id -u; grep CapEff /proc/self/status; curl -sS {url} | md5sum"));
        net.wait_client_link(0, 1 << 20);
        net.wait_client_link(1, 1 << 20);
        net.client.ns.sh("ip link set c0 down");
        let (said, code) = both(&running.wait());
        assert_eq!(code, Some(0), "{said}");
        let body: Vec<u8> = (0..LENGTH).map(|i| i as u8).collect();
        let file = std::env::temp_dir().join(format!("umptcp-run-{}", std::process::id()));
        std::fs::write(&file, body).expect("a file");
        let sum = Command::new("md5sum").arg(&file).output().expect("md5sum starts").stdout;
        let _ = std::fs::remove_file(&file);
        let sum = String::from_utf8_lossy(&sum);
        let sum = sum.split_whitespace().next().expect("a sum");
        assert!(said.starts_with(&format!("65534\nCapEff:\t0000000000000000\n{sum}")), "{said}");
        assert!(said.contains("in a user namespace, sudo, su, and ssh"), "{said}");
        assert!(said.contains("1 connection: 1 MPTCP, 0 TCP"), "{said}");
        net.client.ns.sh("ip link set c0 up");
        site.end();
    });
}

/// UDP of any size, refusals, what a router says, and ping.
#[test]
fn what_is_not_tcp_passes_too() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        net.client.ns.sysctl("net.ipv4.ping_group_range", "0 65535");
        let mut echo = python(
            &net.server.ns,
            "
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 53))
print('ready')
while True:
    data, client = s.recvfrom(65535)
    s.sendto(data * 2, client)
",
        );
        assert_eq!(echo.next_line(), "ready");
        let (server, server_v6) = (net.server.nics[0].v4, net.server.nics[0].v6);
        let script = format!(
            "ping -c 1 -W 5 {server} | grep -c 'bytes from'; ping -6 -c 1 -W 5 {server_v6} | grep -c 'bytes from'
python3 -c \"
import socket, select
for family, server in (2, '{server}'), (10, '{server_v6}'):
    s = socket.socket(family, 2); s.settimeout(10)
    for n in (1, 600, 5000, 30000):
        s.sendto(bytes(n), (server, 53)); print(len(s.recvfrom(65535)[0]))
    c = socket.socket(family, 2); c.settimeout(10); c.connect((server, 9)); c.send(bytes(1))
    try: print(c.recv(9))
    except OSError as e: print(e.errno)
t = socket.socket(2, 2)
t.setsockopt(0, 2, 1); t.setsockopt(0, 11, 1)
t.sendto(bytes(9), ('{server}', 33434))
p = select.poll(); p.register(t, 0); p.poll(9000)
data, more, flags, to = t.recvmsg(99, 512, 0x2000)
print(to[0], more[0][2][4:7], socket.inet_ntoa(more[0][2][20:24]))
\""
        );
        let (said, code) = both(&inside(&net, "udp", &script).wait());
        assert_eq!(code, Some(0), "{said}");
        let router = net.client.nics[0].gateway_v4;
        let of_family = "2\n1200\n10000\n60000\n111\n";
        let expected = format!("1\n1\n{of_family}{of_family}{server} b'\\x02\\x0b\\x00' {router}\n");
        assert!(said.starts_with(&expected), "{said}\n{expected}");
    });
}

/// Who may have no native paths gets those inside UDP, and is told so.
#[test]
fn in_mode_auto_it_is_inside_udp() {
    within(LIMIT, || {
        let net = Routed::new(2, 1);
        let site = Site::start(&net, NOBODY);
        let url = format!("http://{}:{PORT}/", net.server.nics[0].v4);
        let (said, code) = both(&inside(&net, "auto", &format!("curl -sS {url} | wc -c")).wait());
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with(&format!("{LENGTH}\n")), "{said}");
        for part in ["1 connection: 1 MPTCP, 0 TCP", "inside UDP only", "over c0/udp, c1/udp"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        site.end();
    });
}
