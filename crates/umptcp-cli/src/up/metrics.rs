//! What Prometheus asks for: the stack's counters and paths, in its text format.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use super::relay::{Counts, Relayed};
use crate::serving::served::Served;
use crate::serving::tasks::Tasks;
use crate::transport::user_space::{Figures, UserSpace, View};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use umptcp::Counter;

/// How long a request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest request.
const LONGEST: usize = 8 << 10;

/// Serves them at this address.
///
/// # Errors
/// When the address is in use, or not of this host.
pub(super) fn start(
    stack: &UserSpace,
    relayed: Arc<Counts>,
    at: SocketAddr,
    tasks: &Tasks,
) -> anyhow::Result<Served> {
    let view = stack.view();
    Served::start(at, "metrics", tasks, move |stream, client| {
        let (view, relayed) = (view.clone(), relayed.clone());
        async move {
            match timeout(PATIENCE, serve(stream, view, relayed)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%client, %error, "no answer about metrics"),
                Err(_) => tracing::debug!(%client, "no request for metrics"),
            }
        }
    })
}

/// One request.
async fn serve(mut stream: TcpStream, view: View, relayed: Arc<Counts>) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < LONGEST {
        if stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let (status, body) = match asked(&request) {
        Asked::Metrics => match tokio::task::spawn_blocking(move || view.figures()).await {
            Ok(Some(figures)) => ("200 OK", text(&figures, &relayed.figures())),
            _ => ("503 Service Unavailable", "the stack has ended\n".to_owned()),
        },
        Asked::Else => ("404 Not Found", "there is /metrics only\n".to_owned()),
        Asked::Wrongly => ("405 Method Not Allowed", "only GET is answered\n".to_owned()),
        Asked::Nothing => ("400 Bad Request", "this is not HTTP\n".to_owned()),
    };
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n{allow}\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Metrics,
    Else,
    Wrongly,
    Nothing,
}

fn asked(request: &[u8]) -> Asked {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let [method, target, version] = words[..] else { return Asked::Nothing };
    if !version.starts_with(b"HTTP/1.") {
        return Asked::Nothing;
    }
    match (method, target.split(|b| *b == b'?').next().unwrap_or_default()) {
        (b"GET", b"/metrics") => Asked::Metrics,
        (b"GET", _) => Asked::Else,
        _ => Asked::Wrongly,
    }
}

/// All figures, with what each means.
fn text(figures: &Figures, relay: &Relayed) -> String {
    let mut s = String::new();
    let mut family = |name: &str, kind: &str, help: &str, values: Vec<(String, u64)>| {
        // Writing to a String cannot fail.
        let _ = writeln!(s, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(s, "{name}{labels} {value}");
        }
    };
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    family("umptcp_info", "gauge", "The version that runs.", vec![(version, 1)]);
    let (gauges, counters): (Vec<Counter>, Vec<Counter>) =
        Counter::ALL.iter().partition(|counter| **counter == Counter::MPCurrEstab);
    let values = |all: Vec<Counter>| {
        let one = |c: Counter| (format!("{{event=\"{}\"}}", c.name()), figures.counters.get(c));
        all.into_iter().map(one).collect::<Vec<_>>()
    };
    let help = "What the stack has counted, by the names of Linux's MPTcpExt counters.";
    family("umptcp_events_total", "counter", help, values(counters));
    let current = gauges.into_iter().map(|c| (String::new(), figures.counters.get(c))).collect();
    family("umptcp_mptcp_connections", "gauge", "Connections that are MPTCP.", current);
    let all = vec![(String::new(), figures.connections as u64)];
    family("umptcp_connections", "gauge", "Connections, plain TCP included.", all);
    let [held, bound] = figures.memory.map(|bytes| vec![(String::new(), bytes)]);
    family("umptcp_buffer_bytes", "gauge", "What the buffers of all connections hold.", held);
    family("umptcp_buffer_bytes_max", "gauge", "What they may hold together.", bound);
    let by_path = |values: &BTreeMap<String, u64>| {
        let one = |(path, value): (&String, &u64)| (format!("{{path=\"{}\"}}", escaped(path)), *value);
        values.iter().map(one).collect::<Vec<_>>()
    };
    let up =
        figures.traffic.keys().map(|path| (path.clone(), u64::from(figures.paths.contains(path)))).collect();
    family("umptcp_path_up", "gauge", "Whether the path can be used.", by_path(&up));
    family("umptcp_subflows", "gauge", "Established subflows of each path.", by_path(&figures.subflows));
    let sent = figures.traffic.iter().map(|(path, t)| (path.clone(), t.sent)).collect();
    family("umptcp_path_sent_bytes_total", "counter", "Payload that was sent over the path.", by_path(&sent));
    let received = figures.traffic.iter().map(|(path, t)| (path.clone(), t.received)).collect();
    let help = "Payload that came over the path.";
    family("umptcp_path_received_bytes_total", "counter", help, by_path(&received));
    let outcomes = [
        ("made", relay.made),
        ("not-reached", relay.failed),
        ("refused", relay.refused),
        ("silent", relay.silent),
    ];
    let outcomes = outcomes.map(|(outcome, count)| (format!("{{outcome=\"{outcome}\"}}"), count));
    let help = "What became of the clients of the relay.";
    family("umptcp_relay_requests_total", "counter", help, outcomes.to_vec());
    let label = |client: &str| format!("{{client=\"{}\"}}", escaped(client));
    let open = relay.clients.iter().map(|(client, open, _)| (label(client), *open)).collect();
    family("umptcp_relay_connections", "gauge", "Connections of each client of the relay.", open);
    let bytes = relay.clients.iter().map(|(client, _, bytes)| (label(client), *bytes)).collect();
    let help = "Bytes that each client of the relay has moved, both ways.";
    family("umptcp_relay_bytes_total", "counter", help, bytes);
    s
}

/// A value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_meant_is_answered() {
        for (request, what) in [
            ("GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Asked::Metrics),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", Asked::Metrics),
            ("GET / HTTP/1.1\r\n\r\n", Asked::Else),
            ("GET /metricsx HTTP/1.1\r\n\r\n", Asked::Else),
            ("POST /metrics HTTP/1.1\r\n\r\n", Asked::Wrongly),
            ("GET /metrics\r\n\r\n", Asked::Nothing),
            ("GET /metrics HTTP/2\r\n\r\n", Asked::Nothing),
            ("\x16\x03\x01", Asked::Nothing),
            ("", Asked::Nothing),
        ] {
            assert_eq!(asked(request.as_bytes()), what, "{request:?}");
        }
    }

    #[test]
    fn each_family_is_described_before_its_values() {
        let mut figures = Figures::default();
        figures.traffic.entry("e\"0".into()).or_default().sent = 7;
        figures.memory = [5, 9];
        let relayed = Relayed { refused: 3, clients: vec![("a".into(), 1, 2)], ..Relayed::default() };
        let text = text(&figures, &relayed);
        assert!(text.contains("umptcp_relay_requests_total{outcome=\"refused\"} 3\n"), "{text}");
        assert!(text.contains("umptcp_relay_bytes_total{client=\"a\"} 2\n"), "{text}");
        let mut known = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                known = rest.split(' ').next();
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next();
                assert_eq!(name, known, "{line}");
                assert!(line.rsplit(' ').next().is_some_and(|v| v.parse::<u64>().is_ok()), "{line}");
            }
        }
        assert!(text.contains("umptcp_path_sent_bytes_total{path=\"e\\\"0\"} 7\n"), "{text}");
        assert!(
            text.contains("\numptcp_buffer_bytes 5\n") && text.contains("\numptcp_buffer_bytes_max 9\n"),
            "{text}"
        );
        assert!(text.contains("umptcp_path_up{path=\"e\\\"0\"} 0\n"), "{text}");
    }
}
