//! Services of this host behind `[[listen]]`.

use super::{Daemon, LIMIT, RESTORED_WITHIN, both, network, python, until_connected, wait_for_port};
use std::net::SocketAddrV4;
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::inject::{self, Segment};
use umptcp_testbed::kernel::Counters;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background};

#[test]
fn a_service_is_reached_over_both_nics_and_every_byte_arrives() {
    within(LIMIT, || {
        let net = network(2);
        // One NIC alone must not be enough.
        [0, 1].iter().for_each(|nic| net.shape_client(*nic, 40.0));
        let ns = &net.client.ns;
        let before = Snapshot::take(ns);
        let service = Background::start(ns, "bench server --stack kernel-tcp 127.0.0.1:8684");
        wait_for_port(ns, 8684);
        let daemon = Daemon::start(ns, "[[listen]]\nat = 8684\nto = \"127.0.0.1:8684\"\n");
        let address = net.client.nics[0].v4;
        for kind in ["mptcp", "tcp"] {
            let line = format!(
                "bench client --stack kernel-{kind} {address} --bytes 12Mi --direction both --verify"
            );
            let (said, code) = both(&program::run(&net.server.ns, &line));
            assert_eq!(code, Some(0), "{kind}: {said}");
        }
        let counters = Counters::read(&net.server.ns);
        assert!(counters.mptcp("MPCapableSYNACKRX") >= 1 && counters.mptcp("MPJoinSynAckRx") >= 1);
        daemon.down(ns);
        drop(service);
        before.assert_restored(ns, RESTORED_WITHIN);
    });
}

/// The service hears of the test that the daemon makes at its start, too.
#[test]
fn a_service_is_told_its_client_and_half_closed_streams_arrive_in_full() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let mut service = python(
            ns,
            "
import socket
s = socket.create_server(('127.0.0.1', 8080))
print('listening')
for _ in range(4):
    c, _ = s.accept()
    data = b''
    while True:
        piece = c.recv(65536)
        if not piece: break
        data += piece
    assert data[:12] == b'\\r\\n\\r\\n\\0\\r\\nQUIT\\n', data[:12]
    n = int.from_bytes(data[14:16], 'big')
    told, rest = data[12:16 + n], data[16 + n:]
    family = {0x11: socket.AF_INET, 0x21: socket.AF_INET6}.get(told[1])
    size = {0x11: 4, 0x21: 16}.get(told[1], 0)
    ends = [socket.inet_ntop(family, told[4 + size * i:4 + size * (i + 1)]) for i in (0, 1)] if family else []
    ports = told[4 + 2 * size:]
    print(hex(told[0]), *ends, int.from_bytes(ports[2:], 'big'), len(rest))
    c.sendall(b'got %d' % len(rest))
    c.close()
",
        );
        assert_eq!(service.next_line(), "listening");
        let daemon =
            Daemon::start(ns, "[[listen]]\nat = 80\nto = \"127.0.0.1:8080\"\nproxy-protocol = true\n");
        assert_eq!(service.next_line(), "0x20 0 0");
        let (here, there) = (&net.client.nics[1], &net.server.nics[0]);
        for (kind, from, to) in [
            ("mptcp", there.v4.to_string(), here.v4.to_string()),
            ("tcp", there.v4.to_string(), here.v4.to_string()),
            ("mptcp", there.v6.to_string(), here.v6.to_string()),
        ] {
            let output = until_connected(&net.server.ns, &format!("connect --stack kernel-{kind} {to} 80"));
            assert_eq!(both(&output), ("got 0".to_owned(), Some(0)));
            assert_eq!(service.next_line(), format!("0x21 {from} {to} 80 0"));
        }
        assert_eq!(service.finish().0, Some(0));
        daemon.down(ns);
    });
}

#[test]
fn resets_pass_both_ways_and_a_service_that_is_not_there_refuses() {
    within(LIMIT, || {
        let net = network(2);
        let ns = &net.client.ns;
        let mut daemon = Daemon::start(ns, "[[listen]]\nat = 80\nto = \"127.0.0.1:8080\"\n");
        let to = net.client.nics[0].v4;
        let client = |body: &str| {
            let script = format!(
                "
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.settimeout(20)
RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
try:
    s.connect(('{to}', 80))
{body}
except OSError as e: print(type(e).__name__)
"
            );
            let (code, said, errors) = python(&net.server.ns, &script).finish();
            assert_eq!(code, Some(0), "{errors}");
            String::from_utf8_lossy(&said).trim().to_owned()
        };
        assert_eq!(client("    pass"), "ConnectionRefusedError");
        let mut service = python(
            ns,
            "
import socket, struct, time
s = socket.create_server(('127.0.0.1', 8080))
print('listening')
c, _ = s.accept()
assert c.recv(1) == b'x'
c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
c.close()
for half_closed in False, True:
    c, _ = s.accept()
    assert c.recv(1) == b'x'
    if half_closed: c.shutdown(socket.SHUT_WR)
    c.sendall(b'y') if not half_closed else None
    try: print(c.recv(1))
    except OSError as e: print(type(e).__name__)
c, _ = s.accept()
assert c.recv(1) == b''
for _ in range(200):
    try: c.send(b'z')
    except OSError as e:
        print(type(e).__name__)
        break
    time.sleep(0.1)
",
        );
        assert_eq!(service.next_line(), "listening");
        assert_eq!(client("    s.sendall(b'x'); print(s.recv(1))"), "ConnectionResetError");
        daemon.wait_for("the service answers");
        assert_eq!(client("    s.sendall(b'x'); print(s.recv(1)); s.setsockopt(*RESET); s.close()"), "b'y'");
        assert_eq!(service.next_line(), "ConnectionResetError");
        // Each has ended its stream, and then the client resets.
        assert_eq!(client("    s.sendall(b'x'); print(s.recv(1)); s.setsockopt(*RESET); s.close()"), "b''");
        assert_eq!(service.next_line(), "ConnectionResetError");
        assert_eq!(
            client("    s.shutdown(socket.SHUT_WR); print(s.recv(1)); s.setsockopt(*RESET); s.close()"),
            "b'z'"
        );
        let ended = service.next_line();
        assert!(["ConnectionResetError", "BrokenPipeError"].contains(&ended.as_str()), "{ended}");
        daemon.down(ns);
    });
}

/// Their SYN/ACKs are lost, so none of the handshakes ends.
#[test]
fn a_flood_of_syns_keeps_nobody_out() {
    within(LIMIT, || {
        let net = network(1);
        let ns = &net.client.ns;
        let mut service = python(
            ns,
            "
import asyncio
async def echo(reader, writer):
    writer.write(await reader.read(9))
    writer.close()
async def main():
    server = await asyncio.start_server(echo, '127.0.0.1', 8080, backlog=4096)
    print('listening')
    await server.serve_forever()
asyncio.run(main())
",
        );
        assert_eq!(service.next_line(), "listening");
        let daemon = Daemon::start(ns, "[[listen]]\nat = 80\nto = 8080\n");
        net.server.ns.nft(
            "table inet flood {
             chain c {
             type filter hook input priority 0
             tcp sport 80 tcp dport 10000-14999 drop
             }
             }",
        );
        let (from, to) = (net.server.nics[0].v4, SocketAddrV4::new(net.client.nics[0].v4, 80));
        let syn = |port| Segment {
            flags: inject::SYN,
            acknowledgement: 0,
            options: vec![2, 4, 5, 0xb4],
            ..Segment::new(SocketAddrV4::new(from, port), to)
        };
        let flood: Vec<Segment> = (10_000..14_000).map(syn).collect();
        inject::send(&net.server.ns, &flood);
        let script = format!(
            "import socket
s = socket.create_connection(('{}', 80), 20, ('', 20000)); s.sendall(b'hello'); print(s.recv(9))",
            to.ip()
        );
        let (code, said, errors) = python(&net.server.ns, &script).finish();
        assert_eq!((code, String::from_utf8_lossy(&said).trim()), (Some(0), "b'hello'"), "{errors}");
        // What is held for the others is bounded.
        let held = ns.sh("ss -Htn state established dport = :8080").lines().count();
        assert!((1..=1_024).contains(&held), "{held} connections to the service");
        daemon.down(ns);
    });
}
