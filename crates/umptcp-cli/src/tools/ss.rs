//! `ss`.

use super::{connect, failed, print_json, print_lines};
use crate::args::tools::SsArgs;
use std::fmt::Write as _;
use umptcp_control::call::ListConnections;
use umptcp_control::state::{Connection, Mapping, Subflow};

pub(crate) fn ss(args: &SsArgs) -> anyhow::Result<()> {
    let mut list = connect(&args.instance)?.call(&ListConnections {}).map_err(failed)?;
    list.connections.retain(|c| args.all || !c.captured);
    if args.instance.json {
        return print_json(&list);
    }
    print_lines(&lines(&list.connections))
}

fn lines(connections: &[Connection]) -> Vec<String> {
    let row = |columns: [&str; 5]| {
        let [state, receive, send, local, peer] = columns;
        format!("{state:<9} {receive:<6} {send:<6} {local:>25} {peer:>25}").trim_end().to_owned()
    };
    let mut lines = vec![row(["State", "Recv-Q", "Send-Q", "Local Address:Port", "Peer Address:Port"])];
    for c in connections {
        let (receive, send) = (c.receive_queue.to_string(), c.send_queue.to_string());
        lines.push(row([state(c), &receive, &send, &c.local.to_string(), &c.remote.to_string()]));
        lines.push(format!("\t {}", details(c)));
        lines.extend(c.subflows.iter().map(|s| format!("\t  {}", subflow(c, s))));
        lines.extend(c.lost_subflows.iter().map(|lost| format!("\t  lost: subflow {lost}")));
    }
    lines
}

/// The word of `ss` for the state.
fn state(c: &Connection) -> &'static str {
    match c.state.as_str() {
        "connecting" => "SYN-SENT",
        "established" => "ESTAB",
        "closing" => "CLOSING",
        _ => "UNCONN",
    }
}

/// The line of a connection: first the words of `ss -Mni`, in its order.
fn details(c: &Connection) -> String {
    let mut s = String::new();
    // Writing to a String cannot fail.
    match c.mptcp {
        Some(true) => {
            let more = c.subflows.len().saturating_sub(1);
            let _ = write!(s, "subflows:{more} subflows_max:{}", c.subflows_max);
            let _ = write!(s, " add_addr_accepted_max:{}", c.add_addr_accepted_max);
            if c.remote_token.is_some() {
                s.push_str(" remote_key");
            }
            if let Some(token) = c.token {
                let _ = write!(s, " token:{token:x}");
            }
            for (name, value) in [("write_seq", c.write_seq), ("snd_una", c.snd_una), ("rcv_nxt", c.rcv_nxt)]
            {
                if let Some(value) = value {
                    let _ = write!(s, " {name}:{value:x}");
                }
            }
            if c.checksum {
                s.push_str(" csum_enabled");
            }
        }
        Some(false) => {
            let why = c.why_tcp.as_deref().unwrap_or("unknown");
            let _ = write!(s, "fallback plain TCP: {why};");
        }
        None => s.push_str("negotiating"),
    }
    let _ = write!(
        s,
        " bytes_sent:{} bytes_acked:{} bytes_received:{} rcvbuf:{} sndbuf:{} id:{} {} {}",
        c.bytes_sent,
        c.bytes_acked,
        c.bytes_received,
        c.receive_buffer,
        c.send_buffer,
        c.id,
        c.congestion,
        c.scheduler
    );
    if c.captured {
        s.push_str(" captured");
    }
    if let Some(error) = &c.error {
        let _ = write!(s, " error: {error}");
    }
    s
}

/// The line of a subflow: where it goes, the words of `ss -tni`, and its MPTCP part.
fn subflow(c: &Connection, f: &Subflow) -> String {
    let mut s = format!("subflow {} dev {} {} {} {}", f.id, f.path, short(&f.state), f.local, f.remote);
    let _ = write!(s, " {} rto:{}", c.congestion, f.rto_ms);
    if let Some(rtt) = f.rtt_ms {
        let _ = write!(s, " rtt:{rtt}/{}", f.rttvar_ms);
    }
    let packets = f.window / u64::from(f.mss.max(1));
    let _ = write!(s, " mss:{} cwnd:{packets} cwnd_bytes:{}", f.mss, f.window);
    if f.ssthresh < u64::from(u32::MAX) {
        let _ = write!(s, " ssthresh:{}", f.ssthresh / u64::from(f.mss.max(1)));
    }
    let _ = write!(s, " bytes_sent:{}", f.bytes_sent + f.bytes_retrans);
    for (name, value) in [
        ("bytes_retrans", f.bytes_retrans),
        ("bytes_acked", f.bytes_acked),
        ("bytes_received", f.bytes_received),
        ("unacked_bytes", f.in_flight),
        ("timeouts", f.timeouts),
        ("recoveries", f.recoveries),
    ] {
        if value > 0 {
            let _ = write!(s, " {name}:{value}");
        }
    }
    for (name, value) in [("lastsnd", f.lastsnd_ms), ("lastrcv", f.lastrcv_ms), ("lastack", f.lastack_ms)] {
        // As `ss`, which has no word for "just now" either.
        if let Some(value) = value.filter(|value| *value > 0) {
            let _ = write!(s, " {name}:{value}");
        }
    }
    if f.pacing_rate > 0 {
        let _ = write!(s, " pacing_rate {}bps", f.pacing_rate * 8);
    }
    if let Some(min) = f.min_rtt_ms {
        let _ = write!(s, " minrtt:{min}");
    }
    let _ = write!(s, " {}", f.health);
    if c.mptcp == Some(true) {
        let (remote, local) = (c.remote_token.unwrap_or(0), c.token.unwrap_or(0));
        // Tokens in a subflow's line are those of the join: the first subflow has none.
        let remote = if f.initial { 0 } else { remote };
        let _ = write!(
            s,
            " tcp-ulp-mptcp flags:{} token:{remote:04x}(id:{})/{local:x}(id:{})",
            flags(f),
            f.remote_id,
            f.local_id
        );
        if let Some(m) = f.mapping {
            let Mapping { seq, sfseq, ssnoff, maplen } = m;
            let _ = write!(s, " seq:{seq:x} sfseq:{sfseq:x} ssnoff:{ssnoff:x} maplen:{maplen:x}");
        }
    }
    s
}

/// The letters of `ss` for what a subflow is: of MP_CAPABLE (M) or a join (J), established (e), a backup (b).
fn flags(f: &Subflow) -> String {
    let mut flags = String::from(if f.initial { "Mm" } else { "Jj" });
    if f.state == "ESTABLISHED" {
        flags.push('e');
    }
    if f.backup {
        flags.push('b');
    }
    flags
}

/// The word of `ss` for a TCP state.
fn short(state: &str) -> &str {
    match state {
        "ESTABLISHED" => "ESTAB",
        "FIN-WAIT-1" | "FIN-WAIT-2" | "TIME-WAIT" | "CLOSE-WAIT" | "LAST-ACK" => state,
        "SYN-RECEIVED" => "SYN-RECV",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Connection {
        let text = r#"{"id":7,"state":"established","local":"10.0.0.1:1025","remote":"10.9.0.1:80","mptcp":true,
            "token":3593354627,"remote_token":1,"write_seq":4096,"snd_una":4095,"rcv_nxt":255,"congestion":"lia",
            "scheduler":"min-rtt","subflows_max":7,"add_addr_accepted_max":8,"bytes_sent":10,"bytes_acked":9,
            "bytes_received":8,"send_queue":1,"receive_queue":2,"send_buffer":131072,"receive_buffer":262144,"subflows":[{"id":1,"path":"eth1","local":"10.0.1.1:1025",
            "remote":"10.9.0.1:80","local_id":2,"mapping":{"seq":4660,"sfseq":10,"ssnoff":255,"maplen":1428},"state":"ESTABLISHED","backup":true,"health":"answers","rtt_ms":1.5,
            "rttvar_ms":0.25,"rto_ms":201.5,"mss":1428,"window":14280,"ssthresh":18446744073709551615,"in_flight":0,
            "pacing_rate":1000,"bytes_sent":5,"bytes_acked":5,"bytes_received":0,"bytes_retrans":3,"timeouts":0,
            "recoveries":1,"lastsnd_ms":12,"lastrcv_ms":0,"lastack_ms":7}]}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn looks_like_ss() {
        let lines = lines(&[sample()]);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&lines[1]), ["ESTAB", "2", "1", "10.0.0.1:1025", "10.9.0.1:80"]);
        assert!(lines[2].starts_with(
            "\t subflows:0 subflows_max:7 add_addr_accepted_max:8 remote_key token:d62e3d83 write_seq:1000 snd_una:fff \
             rcv_nxt:ff bytes_sent:10"
        ));
        assert!(lines[2].contains(" bytes_received:8 rcvbuf:262144 sndbuf:131072 id:7 lia "), "{}", lines[2]);
        assert!(lines[3].starts_with(
            "\t  subflow 1 dev eth1 ESTAB 10.0.1.1:1025 10.9.0.1:80 lia rto:201.5 rtt:1.5/0.25"
        ));
        for part in [
            " cwnd:10 ",
            " bytes_sent:8 bytes_retrans:3 bytes_acked:5 recoveries:1 ",
            " recoveries:1 lastsnd:12 lastack:7 pacing_rate ",
            " answers ",
            "tcp-ulp-mptcp flags:Jjeb token:0001(id:0)/d62e3d83(id:2) seq:1234 sfseq:a ssnoff:ff maplen:594",
        ] {
            assert!(lines[3].contains(part), "{part}: {}", lines[3]);
        }
        assert!(!lines[3].contains("ssthresh"));
    }

    #[test]
    fn plain_tcp_says_why() {
        let mut c = sample();
        (c.mptcp, c.why_tcp, c.token) = (Some(false), Some("the peer has no MPTCP".into()), None);
        assert!(details(&c).contains("fallback plain TCP: the peer has no MPTCP;"));
        assert!(!subflow(&c, &c.subflows[0]).contains("mptcp"));
    }
}
