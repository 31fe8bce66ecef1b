//! What a relay adds to a request: a program under `umptcp run --via` that connects to a server behind the relay and asks,
//! beside the same program that reaches the server by the kernel's TCP, over the same link with a delay.

use super::relayed::{SERVER, behind, keys, start};
use super::{Options, PORT, in_turn, median};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use umptcp_netsim::Link;
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::emulated_link::EmulatedLink;
use umptcp_testbed::program::Folder;

const NAME: &str = "relay-latency";

/// One way, in ms. What programs and threads take is little beside it, so that round trips can be counted.
const DELAY: u64 = 20;

/// Connections after the first.
const COUNT: u32 = 30;

/// What a request on a connection may take more than without the relay, in ms: it passes two more programs.
const HOP: f64 = 2.0;

/// A relay that has just begun asks for each request twice, because it may have seen it before: a round trip more.
const YOUNG: Duration = Duration::from_secs(125);

/// The names of the figures.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    [NAME].into_iter()
}

/// How the server is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contest {
    /// By the kernel's TCP.
    Direct,
    Native,
    Udp,
}

impl Contest {
    const ALL: [Contest; 3] = [Contest::Direct, Contest::Native, Contest::Udp];

    fn name(self) -> &'static str {
        match self {
            Contest::Direct => "kernel, direct",
            Contest::Native => "relay, native",
            Contest::Udp => "relay, udp",
        }
    }
}

/// In ms: the first connection with its request, a later one with its request, another request on that.
type Times = [f64; 3];

const WHAT: [&str; 3] = ["first", "later", "open"];

/// Measures if that is wanted, prints a row for each contest and returns all values. Whether all went through.
pub(super) fn run(options: &Options, program: &Path, all: &mut Vec<Value>) -> Result<bool> {
    if !options.wants(NAME) {
        return Ok(true);
    }
    println!("{NAME}: the relay has to be {} s old", YOUNG.as_secs());
    let ground = Ground::new(program)?;
    let measure = |contest| measure(contest, &ground, program);
    let (values, sound) = in_turn((NAME, options.runs), &Contest::ALL, Contest::name, measure);
    if values.iter().any(Vec::is_empty) {
        return Ok(sound);
    }
    let of = |values: &[Times], what: usize| median(&values.iter().map(|v| v[what]).collect::<Vec<_>>());
    let round_trip = 2.0 * DELAY as f64;
    println!(
        "\n{:<18} {:<16} {:>12} {:>12} {:>12}  goals: no round trip more when connecting later, {HOP} ms on an open one",
        format!("ms, {round_trip} a round trip"),
        "",
        "connect, ask",
        "again",
        "ask"
    );
    for (contest, values_of) in Contest::ALL.iter().zip(&values) {
        let times = [0, 1, 2].map(|what| of(values_of, what));
        let more = |what: usize| times[what] - of(&values[0], what);
        let verdict = match contest {
            Contest::Direct => "",
            _ if more(1) < round_trip / 2.0 && more(2) <= HOP => "met",
            _ => "MISSED",
        };
        let name = if *contest == Contest::Direct { NAME } else { "" };
        let [first, later, open] = times;
        println!("{name:<18} {:<16} {first:>12.2} {later:>12.2} {open:>12.2}  {verdict}", contest.name());
        for (at, what) in WHAT.into_iter().enumerate() {
            let each: Vec<f64> = values_of.iter().map(|v| v[at]).collect();
            all.push(
                json!({ "figure": NAME, "who": contest.name(), "what": what, "unit": "ms", "values": each }),
            );
        }
    }
    Ok(sound)
}

/// A client, a relay behind a link with a delay, and a server behind that.
struct Ground {
    net: EmulatedLink,
    keys: Folder,
    _behind: Netns,
    _running: [Running; 2],
}

impl Ground {
    fn new(program: &Path) -> Result<Ground> {
        let link = || Link::mbit(100).delay_ms(DELAY);
        let net = EmulatedLink::new(link(), link(), 1);
        let host = &net.server;
        let server = behind(&host.ns);
        host.ns.sysctl("net.ipv4.ip_forward", "1");
        server.sh(&format!("ip route add default via {}", SERVER[1]));
        let keys = keys(program)?;
        let relay = start(&host.ns, &host.nics[0].device, &keys, program)?;
        let serve = format!(
            "
import asyncio
async def answer(r, w):
    while data := await r.read(1): w.write(data)
    w.close()
async def main():
    await (await asyncio.start_server(answer, '', {PORT})).serve_forever()
asyncio.run(main())"
        );
        let mut serving = Command::new("python3");
        serving.args(["-c", &serve]).stdin(Stdio::null());
        let serving = Running::new(server.run(|| serving.spawn()).context("cannot start the server")?);
        super::wait_listening(&server)?;
        std::thread::sleep(YOUNG);
        Ok(Ground { net, keys, _behind: server, _running: [relay, serving] })
    }
}

fn measure(contest: Contest, ground: &Ground, program: &Path) -> Result<Times> {
    let Ground { net, keys, .. } = ground;
    let host = &net.server;
    let ask = format!(
        "
import json, socket, time
def ask(s): s.sendall(b'x'); assert s.recv(1) == b'x'
def one():
    start = time.perf_counter()
    s = socket.create_connection(('{}', {PORT}), 10); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); ask(s)
    asked = time.perf_counter(); ask(s); end = time.perf_counter(); s.close()
    return (1e3 * (asked - start), 1e3 * (end - asked))
first = one()[0]; rest = sorted([one() for _ in range({COUNT})])
print(json.dumps([first, rest[len(rest) // 2][0], sorted(open for _, open in rest)[len(rest) // 2]]))",
        SERVER[0]
    );
    let client = |mode: &str| {
        let mut client = Command::new(program);
        client.args(["run", "--via", &host.nics[0].v4.to_string(), "--via-key"]);
        client.arg(keys.path().join("key"));
        client.args(["--path", &format!("{},mode={mode}", net.client.nics[0].device), "--", "python3"]);
        client
    };
    let mut client = match contest {
        Contest::Direct => Command::new("python3"),
        Contest::Native => client("nat"),
        Contest::Udp => client("udp"),
    };
    client.args(["-c", &ask]).stdin(Stdio::null());
    let output = net.client.ns.run(|| client.output()).context("cannot start the client")?;
    ensure!(output.status.success(), "the client fails: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("the client's output is not as expected")
}
