//! What Prometheus is told.

use super::{Daemon, LIMIT, network, python};
use std::collections::BTreeMap;
use umptcp_testbed::Netns;
use umptcp_testbed::limit::within;
use umptcp_testbed::program;

/// Asks for something, and returns the first line of the answer and its body.
fn ask(ns: &Netns, request: &str) -> (String, String) {
    let script = format!(
        "
import socket
s = socket.create_connection(('127.0.0.1', 9684), 20)
s.sendall({request:?}.encode())
while piece := s.recv(65536): print(piece.decode(), end='')
"
    );
    let (code, said, errors) = python(ns, &script).finish();
    assert_eq!(code, Some(0), "{errors}");
    let said = String::from_utf8(said).expect("text");
    let (head, body) = said.split_once("\r\n\r\n").expect("a head and a body");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn figures(ns: &Netns) -> BTreeMap<String, u64> {
    let (status, body) = ask(ns, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let value = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    body.lines().filter(|line| !line.starts_with('#')).map(value).collect()
}

#[test]
fn counters_and_paths_are_those_of_the_stack() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let service = program::Background::start(ns, "bench server --stack kernel-tcp 127.0.0.1:8684");
        super::wait_for_port(ns, 8684);
        let daemon = Daemon::start(
            ns,
            "[metrics]\nat = \"127.0.0.1:9684\"\n[[listen]]\nat = 8684\nto = \"127.0.0.1:8684\"\n",
        );
        let nics: Vec<&str> = net.client.nics.iter().map(|nic| nic.device.as_str()).collect();
        let before = figures(ns);
        for nic in &nics {
            assert_eq!(before[&format!("umptcp_path_up{{path=\"{nic}\"}}")], 1);
            assert_eq!(before[&format!("umptcp_path_received_bytes_total{{path=\"{nic}\"}}")], 0);
        }
        assert_eq!((before["umptcp_connections"], before["umptcp_mptcp_connections"]), (0, 0));
        let line = format!("bench client --stack kernel-mptcp {} --bytes 2Mi", net.client.nics[0].v4);
        assert!(program::run(&net.server.ns, &line).status.success());
        net.client.ns.sh(&format!("ip link set {} down", nics[1]));
        let down = format!("umptcp_path_up{{path=\"{}\"}}", nics[1]);
        let end = std::time::Instant::now() + LIMIT / 4;
        let after = loop {
            let after = figures(ns);
            if after[&down] == 0 || std::time::Instant::now() > end {
                break after;
            }
        };
        assert_eq!(after[&down], 0);
        assert!(after["umptcp_events_total{event=\"MPCapableSYNRX\"}"] >= 1);
        let received: u64 = nics
            .iter()
            .map(|nic| after[&format!("umptcp_path_received_bytes_total{{path=\"{nic}\"}}")])
            .sum();
        assert!(received >= 2 << 20, "{received}");
        // Tools see the same.
        let line = format!("nstat -a --instance {} MPTcpExtMPCapableSYNRX", daemon.name());
        let (said, code) = super::both(&program::run(ns, &line));
        let counted = after["umptcp_events_total{event=\"MPCapableSYNRX\"}"].to_string();
        assert!(code == Some(0) && said.split_whitespace().any(|word| word == counted), "{said}");
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
            ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(ask(ns, request).0, status);
        }
        daemon.down(ns);
        drop(service);
    });
}
