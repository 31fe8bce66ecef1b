//! The control socket of `umptcp run`, and the tools that speak to it, with the kernel's MPTCP at the other
//! end.

use crate::run::{LIMIT, RESTORED_WITHIN, both, network, wait_for_port};
use crate::terminal::Terminal;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use umptcp_testbed::host::Snapshot;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Background, Folder};
use umptcp_testbed::topology::{Family, Routed};

const PORT: u16 = 8684;
const PATIENCE: Duration = Duration::from_secs(30);

/// A program inside that transfers data when it is told to, beside a server of the kernel's MPTCP.
struct Instance {
    name: String,
    net: Routed,
    folder: Folder,
    running: Background,
    server: Background,
}

impl Instance {
    /// `options` of `run`, and of the client of measurements inside.
    fn start(net: Routed, options: &str, transfer: &str) -> Instance {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = Folder::new("control");
        let address = net.server.nics[0].socket_address(Family::V4, PORT);
        let server = Background::start(
            &net.server.ns,
            &format!("bench server --stack kernel-mptcp {address} --count 1"),
        );
        wait_for_port(&net.server.ns, PORT);
        let go = folder.path().join("go");
        let script = format!(
            "trap 'kill $! 2>/dev/null; exit 143' TERM\n\
             while [ ! -e {} ]; do sleep 0.05; done\n\
             {} bench client --stack kernel-tcp {address} {transfer} & wait $! && sleep 1",
            go.display(),
            program::path().display()
        );
        let mut command = program::command(&format!("run --name {name} {options} -- sh -c"));
        command.arg(script);
        let running = Background::spawn(&net.client.ns, command);
        let instance = Instance { name, net, folder, running, server };
        instance.until("it answers", |i| i.tool("limits show").1 == Some(0));
        instance
    }

    fn go(&self) {
        std::fs::write(self.folder.path().join("go"), "").expect("a file can be written");
    }

    /// A tool's output and exit code.
    fn tool(&self, arguments: &str) -> (String, Option<i32>) {
        both(&program::run(&self.net.client.ns, &format!("{arguments} --instance {}", self.name)))
    }

    /// What a tool that must succeed prints.
    fn ok(&self, arguments: &str) -> String {
        let (said, code) = self.tool(arguments);
        assert_eq!(code, Some(0), "{arguments}: {said}");
        said
    }

    fn json(&self, arguments: &str) -> Value {
        let said = self.ok(&format!("{arguments} --json"));
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments}: {said}: {error}"))
    }

    /// The failure of a tool, as text.
    fn refused(&self, arguments: &str, code: i32) -> String {
        let (said, found) = self.tool(arguments);
        assert_eq!(found, Some(code), "{arguments}: {said}");
        said
    }

    /// Path and bytes received of each subflow of the only connection.
    fn subflows(&self) -> Vec<(String, u64)> {
        let all = self.json("ss");
        let Some(connection) = all["connections"].as_array().and_then(|c| c.first()) else {
            return Vec::new();
        };
        let subflows = connection["subflows"].as_array().expect("subflows").iter();
        let open = subflows.filter(|s| s["state"] == "ESTABLISHED");
        open.map(|s| (text(&s["path"]), s["bytes_received"].as_u64().expect("a number"))).collect()
    }

    fn nic(&self, at: usize) -> &str {
        &self.net.client.nics[at].device
    }

    fn until(&self, what: &str, happened: impl Fn(&Instance) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !happened(self) {
            assert!(Instant::now() < end, "{what}: it did not happen; {:?}", self.tool("ss"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Until the subflow over that NIC has received more than it has now, or the bytes given.
    fn until_carries(&self, nic: usize, bytes: u64) {
        let name = self.nic(nic).to_owned();
        self.until(&format!("{name} carries"), |i| {
            i.subflows().iter().any(|(path, received)| *path == name && *received >= bytes)
        });
    }

    /// The end of the program, which has checked that every byte arrived.
    fn finish(self) -> Routed {
        let (code, _, said) = self.running.finish();
        assert_eq!(code, Some(0), "{said}");
        let (_, _, errors) = self.server.finish();
        assert!(!errors.contains("panicked"), "{errors}");
        self.net
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// A network on which a transfer takes some seconds and needs both NICs.
fn slow(nics: u8) -> Routed {
    let net = network(nics);
    (0..usize::from(nics)).for_each(|nic| net.shape_client(nic, 40.0));
    net
}

#[test]
fn tools_show_connections_counters_and_addresses() {
    within(LIMIT, || {
        let i = Instance::start(slow(2), "--scheduler round-robin", "--bytes 64Mi --direction down --verify");
        assert_eq!(i.json("ss")["connections"], serde_json::json!([]));
        i.go();
        i.until_carries(0, 100_000);
        i.until_carries(1, 100_000);
        let all = i.json("ss --all");
        let all = all["connections"].as_array().expect("connections");
        assert_eq!(all.iter().filter(|c| c["captured"] == true).count(), 1, "{all:?}");
        let shown = &i.json("ss")["connections"];
        let c = &shown[0];
        assert_eq!(shown.as_array().map(Vec::len), Some(1));
        let address = i.net.server.nics[0].socket_address(Family::V4, PORT);
        assert_eq!((&c["mptcp"], text(&c["remote"])), (&true.into(), address.to_string()));
        assert_eq!((&c["scheduler"], &c["state"]), (&"round-robin".into(), &"established".into()));
        for (at, s) in c["subflows"].as_array().expect("subflows").iter().enumerate() {
            let own: Vec<String> = i.net.client.nics.iter().map(|nic| nic.v4.to_string()).collect();
            let local = text(&s["local"]);
            assert!(own.iter().any(|a| local.starts_with(&format!("{a}:"))), "{local}, not one of {own:?}");
            assert_eq!((&s["initial"], &s["health"]), (&(at == 0).into(), &"answers".into()));
            assert!(s["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0), "{s}");
            assert!(s["mapping"]["maplen"].as_u64().is_some_and(|len| len > 0), "{s}");
        }
        let token = format!("token:{:x}", c["token"].as_u64().expect("a token"));
        let said = i.ok("ss");
        let lines: Vec<&str> = said.lines().collect();
        assert!(lines[0].starts_with("State") && lines[1].starts_with("ESTAB"), "{said}");
        assert!(lines[2].contains("subflows:1 subflows_max:7") && lines[2].contains(&token), "{said}");
        assert_eq!(lines.iter().filter(|l| l.contains("tcp-ulp-mptcp flags:")).count(), 2, "{said}");
        assert_eq!(lines.iter().filter(|l| l.contains(" sfseq:")).count(), 2, "{said}");

        let counters = i.json("nstat -a");
        for name in ["MPTcpExtMPCapableSYNTX", "MPTcpExtMPCapableSYNACKRX", "MPTcpExtMPJoinSynAckRx"] {
            assert_eq!(counters["kernel"][name], 1, "{counters}");
        }
        let said = i.ok("nstat -az MPTcpExtMPJoinSyn* MPTcpExtMPFailTx");
        let lines: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["#kernel"]);
        assert!(lines.contains(&vec!["MPTcpExtMPJoinSynTx", "1", "0.0"]), "{said}");
        assert!(lines.contains(&vec!["MPTcpExtMPFailTx", "0", "0.0"]), "{said}");

        // What has come since the last time; without the history as before. Nobody else has this name.
        i.ok("nstat -n");
        assert!(i.json("nstat MPTcpExtMPCapable*")["kernel"].as_object().is_some_and(|o| o.is_empty()));
        assert_eq!(i.json("nstat -rs")["kernel"]["MPTcpExtMPCapableSYNTX"], 1);
        assert_eq!(i.json("nstat -as")["kernel"]["MPTcpExtMPCapableSYNTX"], 1);
        let times = &i.json("ss")["connections"][0]["subflows"][0];
        assert!(["lastrcv_ms", "lastsnd_ms", "lastack_ms"].iter().all(|t| times[t].is_u64()), "{times}");

        let endpoints = i.json("endpoint show");
        let shown: Vec<String> =
            endpoints.as_array().expect("endpoints").iter().map(|e| text(&e["address"])).collect();
        for nic in &i.net.client.nics {
            assert!(shown.contains(&nic.v4.to_string()) && shown.contains(&nic.v6.to_string()), "{shown:?}");
        }
        let v4 = i.net.client.nics[1].v4.to_string();
        let line = i.ok("endpoint show");
        let line = line.lines().find(|l| l.starts_with(&v4)).expect("the second NIC's").to_owned();
        assert!(
            line.contains(" signal subflow dev ") && line.ends_with(&format!("dev {} ", i.nic(1))),
            "{line}"
        );
        assert_eq!(i.ok("limits show").trim_end(), "add_addr_accepted 8 subflows 7");
        i.finish();
    });
}

#[test]
fn a_connection_that_is_plain_tcp_says_why() {
    within(LIMIT, || {
        let net = slow(1);
        // The offer is taken out of the SYN on the way.
        net.strip_mptcp_from_syn(0);
        let i = Instance::start(net, "", "--bytes 32Mi --direction down --verify");
        i.go();
        i.until_carries(0, 100_000);
        let why = "carried no MP_CAPABLE";
        let c = &i.json("ss")["connections"][0];
        assert!(c["mptcp"] == false && text(&c["why_tcp"]).contains(why), "{c}");
        let said = i.ok("ss");
        assert!(said.contains("fallback plain TCP: ") && said.contains(why), "{said}");
        // It has one subflow, which stays.
        let (id, nic) = (c["id"].as_u64().expect("an id"), i.nic(0).to_owned());
        assert!(i.refused(&format!("subflow add {id} {nic}"), 1).contains("not MPTCP"));
        assert!(i.refused(&format!("subflow close {id} 0"), 1).contains("not MPTCP"));
        i.finish();
    });
}

#[test]
fn monitor_tells_the_life_of_a_connection() {
    within(LIMIT, || {
        let i = Instance::start(network(2), "", "--bytes 4Mi --direction both --verify");
        let line = format!("monitor --instance {}", i.name);
        let watch = |json: &str| {
            let mut watcher = Background::start(&i.net.client.ns, &format!("{line} {json} -v"));
            watcher.wait_for("watching");
            watcher
        };
        let (mut people, programs) = (watch(""), watch("--json"));
        i.go();
        let first = loop {
            let line = people.next_line();
            assert!(!line.is_empty(), "it ended early");
            if line.contains("dport=8684") {
                break line;
            }
        };
        assert!(first.starts_with("[         CREATED] token="), "{first}");
        let own = i.net.client.nics[0].v4;
        assert!(first.contains(&format!(" saddr4={own} daddr4=")), "{first}");
        let nics: Vec<String> = i.net.client.nics.iter().map(|n| n.device.clone()).collect();
        i.finish();
        let (code, rest, said) = people.finish();
        assert!(code == Some(0) && said.contains("has ended"), "{said}");
        let rest = String::from_utf8_lossy(&rest).into_owned();
        assert!(rest.contains("[          CLOSED] token="), "{rest}");
        let (code, output, _) = programs.finish();
        assert_eq!(code, Some(0));
        let output = String::from_utf8_lossy(&output).into_owned();
        let events: Vec<Value> = output.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        let outside =
            events.iter().find(|e| e["event"] == "CREATED" && e["remote"].to_string().contains(":8684"));
        let outside = outside.expect("a connection")["connection"].clone();
        let of_it: Vec<&Value> = events.iter().filter(|e| e["connection"] == outside).collect();
        let at = |name: &str| {
            of_it.iter().position(|e| e["event"] == name).unwrap_or_else(|| panic!("{name}: {output}"))
        };
        assert!(at("CREATED") < at("ESTABLISHED") && at("ESTABLISHED") < at("SF_ESTABLISHED"), "{output}");
        assert!(at("SF_ESTABLISHED") < at("CLOSED"), "{output}");
        let established: Vec<String> =
            of_it.iter().filter(|e| e["event"] == "SF_ESTABLISHED").map(|e| text(&e["path"])).collect();
        assert!(established.len() == 2 && nics.iter().all(|nic| established.contains(nic)), "{output}");
        assert_eq!(of_it.iter().filter(|e| e["event"] == "SF_CLOSED").count(), 2, "{output}");
    });
}

#[test]
fn paths_and_subflows_come_and_go_while_every_byte_arrives() {
    within(LIMIT, || {
        let net = slow(2);
        let before = Snapshot::take(&net.client.ns);
        let options = format!("--path {}", net.client.nics[0].device);
        let i = Instance::start(net, &options, "--bytes 96Mi --direction down --verify");
        i.go();
        i.until_carries(0, 500_000);
        assert_eq!(i.subflows().len(), 1);
        assert!(i.refused(&format!("path remove {}", i.nic(0)), 1).contains("the only path"));

        // A path is added, by its NIC's address.
        let (address, nic) = (i.net.client.nics[1].v4, i.nic(1).to_owned());
        i.ok(&format!("endpoint add {address} dev {nic}"));
        i.until_carries(1, 500_000);
        let shown = i.ok("endpoint show");
        assert!(shown.contains(&format!("{address} id ")), "{shown}");
        assert!(i.refused(&format!("path add {nic}"), 1).contains("has a path already"));

        // Another subflow beside it, and both closed.
        let connection = i.json("ss")["connections"][0]["id"].as_u64().expect("an id");
        i.ok(&format!("subflow add {connection} {nic}"));
        i.until("three subflows", |i| i.subflows().len() == 3);
        let list = i.json("ss");
        for s in list["connections"][0]["subflows"].as_array().expect("subflows") {
            if s["initial"] == false {
                i.ok(&format!("subflow close {connection} {}", s["id"]));
            }
        }
        i.until("one subflow", |i| i.subflows().len() == 1);
        assert!(i.refused(&format!("subflow close {connection} 0"), 1).contains("the only subflow"));
        let token = list["connections"][0]["token"].as_u64().expect("a token");
        i.ok(&format!("subflow add token:{token:x} {nic}"));
        i.until_carries(1, 100_000);

        // It becomes a backup and carries no more; and the path goes.
        let endpoints = i.json("endpoint show");
        let id = endpoints.as_array().expect("endpoints").iter().find(|e| e["dev"] == nic.as_str());
        let id = id.expect("the second NIC's")["id"].clone();
        i.ok(&format!("endpoint change id {id} backup"));
        assert!(i.ok(&format!("endpoint show id {id}")).contains(" backup dev "));
        i.ok(&format!("path remove {nic}"));
        i.until("no subflow over it", |i| i.subflows().iter().all(|(path, _)| *path != nic));
        let paths = i.json("path show");
        let outside = |p: &&Value| p["captured"] == false;
        let left: Vec<&Value> = paths["paths"].as_array().expect("paths").iter().filter(outside).collect();
        assert!(left.len() == 1 && left[0]["name"] == i.nic(0), "{paths}");

        // Algorithms and limits.
        assert!(i.ok("set scheduler round-robin").contains("1 connection uses it"));
        i.ok("set congestion olia");
        assert!(i.refused("set congestion nonsense", 2).contains("known: "));
        assert!(i.ok("limits set add_addr_accepted 0").contains("warning: addresses that peers advertise"));
        assert!(!i.ok("limits set subflows 3 add_addr_accepted 1").contains("warning"));
        let c = &i.json("ss")["connections"][0];
        assert_eq!((&c["scheduler"], &c["congestion"]), (&"round-robin".into(), &"olia".into()));
        assert_eq!((&c["subflows_max"], &c["add_addr_accepted_max"]), (&3.into(), &1.into()));
        let net = i.finish();
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

/// The kernel sends, so what it was told by the B flag and MP_PRIO decides.
#[test]
fn with_handover_one_path_at_a_time_carries_data() {
    within(LIMIT, || {
        let net = slow(2);
        let before = Snapshot::take(&net.client.ns);
        let i = Instance::start(net, "--path-policy handover", "--bytes 128Mi --direction down --verify");
        let received = |i: &Instance, nic: usize| {
            let name = i.nic(nic).to_owned();
            i.subflows().iter().filter(|(path, _)| *path == name).map(|(_, bytes)| *bytes).sum::<u64>()
        };
        i.go();
        i.until_carries(0, 2_000_000);
        i.until("two subflows", |i| i.subflows().len() == 2);
        assert!(received(&i, 1) < 200_000, "{:?}", i.subflows());
        assert_eq!(i.json("ss")["connections"][0]["path_policy"], "handover");
        i.net.silence(0, true);
        i.until_carries(1, 2_000_000);
        i.net.silence(0, false);
        let first = received(&i, 0);
        i.until("the first carries again", |i| received(i, 0) > first + 2_000_000);
        // What was under way has arrived: the second is idle again.
        let second = received(&i, 1);
        let first = received(&i, 0);
        i.until("the first goes on", |i| received(i, 0) > first + 4_000_000);
        assert!(received(&i, 1) < second + 500_000, "{second} and then {:?}", i.subflows());
        // All paths at once from now on.
        assert!(i.ok("set path-policy aggregate").contains("1 connection uses it"));
        assert!(i.refused("set path-policy nonsense", 2).contains("handover"));
        let net = i.finish();
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

/// The words of `ip mptcp endpoint`, with the kernel as the server.
#[test]
fn an_endpoint_that_is_only_told_is_joined_by_the_server() {
    within(LIMIT, || {
        let net = slow(2);
        let before = Snapshot::take(&net.client.ns);
        let options = format!("--path {}", net.client.nics[0].device);
        let i = Instance::start(net, &options, "--bytes 96Mi --direction down --verify");
        i.go();
        i.until_carries(0, 200_000);
        let (address, nic) = (i.net.client.nics[1].v4, i.nic(1).to_owned());
        i.ok(&format!("endpoint add {address} dev {nic} signal"));
        let shown = i.ok("endpoint show");
        assert!(shown.contains(" signal dev "), "{shown}");
        // Its SYN comes from the server: we open nothing from there.
        i.until_carries(1, 500_000);
        let counters = i.json("nstat -a");
        assert_eq!(counters["kernel"]["MPTcpExtMPJoinSynRx"], 1, "{counters}");
        assert_eq!(counters["kernel"]["MPTcpExtMPJoinSynTx"], Value::Null, "{counters}");
        let id = i.json("endpoint show");
        let id =
            id.as_array().expect("endpoints").iter().find(|e| e["dev"] == nic.as_str()).expect("it")["id"]
                .clone();
        // As Linux has it.
        assert!(i.refused(&format!("endpoint change id {id} fullmesh"), 2).contains("exclude each other"));

        // One more port, with an id of our choice, of a NIC that is used already.
        let first = i.net.client.nics[0].v4;
        let add = format!("endpoint add {first} id 77 port 8443 signal");
        i.ok(&add);
        let shown = format!("{first} id 77 signal port 8443 dev {} ", i.nic(0));
        assert!(i.ok("endpoint show").lines().any(|line| line == shown), "{}", i.ok("endpoint show"));
        let by_port = |i: &Instance| {
            let all = i.json("ss");
            let of = all["connections"][0]["subflows"].as_array().cloned().unwrap_or_default();
            let of: Vec<Value> = of.into_iter().filter(|s| text(&s["local"]).ends_with(":8443")).collect();
            of.iter().filter(|s| s["state"] == "ESTABLISHED").cloned().collect::<Vec<Value>>()
        };
        i.until("it is joined", |i| by_port(i).len() == 1);
        assert_eq!(by_port(&i)[0]["local_id"], 77, "{:?}", by_port(&i));
        let counters = i.json("nstat -a");
        assert_eq!(counters["kernel"]["MPTcpExtMPJoinPortSynRx"], 1, "{counters}");
        for (what, why) in [
            (add.clone(), "the id 77 is that of"),
            (format!("endpoint add {first} id 78 port 8443 signal"), "already: id 77"),
            (format!("endpoint add {first} port 8444"), "takes signal"),
            (format!("endpoint add {first} port 8444 signal subflow"), "neither subflow"),
        ] {
            let (said, code) = i.tool(&what);
            assert!(code != Some(0) && said.contains(why), "{what}: {said}");
        }
        i.ok("endpoint delete id 77");
        i.until("the peer has closed what it opened to the port", |i| by_port(i).is_empty());
        assert!(!i.ok("endpoint show").contains(" port "));
        let net = i.finish();
        before.assert_restored(&net.client.ns, RESTORED_WITHIN);
    });
}

#[test]
fn signals_remove_the_socket_and_a_name_is_taken_once() {
    within(LIMIT, || {
        let i = Instance::start(network(1), "", "--bytes 1 --direction down");
        // Tools would reach the first by the name of the second.
        let before = Snapshot::take(&i.net.client.ns);
        let (said, code) =
            both(&program::run(&i.net.client.ns, &format!("run --name {} -- echo ran", i.name)));
        let process = format!("is running already, as process {}", i.running.process().id());
        assert!(code == Some(3) && said.contains(&process) && said.contains("another --name"), "{said}");
        assert!(!said.contains("ran\n"), "its command was not started: {said}");
        before.assert_restored(&i.net.client.ns, RESTORED_WITHIN);
        i.ok("limits show");
        i.running.process().signal(Signal::SIGTERM);
        i.until("it has ended", |i| i.tool("ss").0.contains("no umptcp named"));
    });
}

#[test]
fn top_shows_rates_on_small_and_large_terminals_and_gives_the_terminal_back() {
    within(LIMIT, || {
        let i = Instance::start(slow(2), "", "--bytes 400Mi --direction down --verify");
        i.go();
        let terminal = Terminal::new(&i.net.client.ns, 80, 24);
        let program = program::path().display().to_string();
        terminal.keys(&[&format!("{program} top --interval 0.2 --instance {}", i.name), "Enter"]);
        let shows = |screen: &str, sort: &str| {
            let line =
                |start: &str| screen.lines().find(|l| l.starts_with(start)).unwrap_or_default().to_owned();
            screen.starts_with(&format!("umptcp top: {}", i.name))
                && screen.contains(sort)
                && (0..2).all(|nic| line(i.nic(nic)).contains("Mbit/s"))
                && (0..2)
                    .all(|nic| screen.contains(&format!(" {} {}", i.nic(nic), i.net.client.nics[nic].v4)))
                && screen.lines().last().is_some_and(|l| l.starts_with("q quit"))
        };
        terminal.until("rates", |screen| shows(screen.trim_end(), "RECEIVED/s*"));
        terminal.keys(&["t"]);
        terminal.until("sorted otherwise", |screen| shows(screen.trim_end(), "SENT/s*"));
        terminal.resize(140, 50);
        terminal.until("wider", |screen| {
            shows(screen.trim_end(), "SENT/s*")
                && screen.contains("answers")
                && screen.contains("MPTCP min-rtt")
        });
        terminal.keys(&["q"]);
        // What is typed before that would be for it.
        terminal.until("the shell", |screen| !screen.contains("q quit"));
        terminal.keys(&["echo code \"$?\"", "Enter"]);
        terminal.see("code 0");
        // For programs, and without a terminal.
        let json = i.ok("top --json --count 2 --interval 0.2");
        let looks: Vec<Value> = json.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(looks.len(), 2, "{json}");
        let paths = looks[1]["paths"].as_array().expect("paths");
        assert!(paths.len() == 2 && paths.iter().all(|p| p["received_bps"].as_f64().is_some()), "{json}");
        assert!(i.refused("top", 2).contains("needs a terminal"));
        // It ends with the instance.
        terminal.keys(&[&format!("{program} top --instance {}", i.name), "Enter"]);
        terminal.until("again", |screen| screen.contains("q quit"));
        i.running.process().signal(Signal::SIGTERM);
        terminal.see("umptcp: the instance has ended");
        assert!(terminal.end());
    });
}
