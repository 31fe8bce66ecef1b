//! Several instances at once, crashes, and clean-up.

use crate::network::{Flow, Ns, PATIENCE, TestNetwork, assert_unchanged, echo_client, options, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use umptcp_tun_driver::paths::{PathSpec, clean_up, set_up};

const CHILD: &str = "UMPTCP_TEST_CHILD";
const ENDED_EARLY: &str = "UMPTCP_TEST_CHILD_ENDED_EARLY";

/// Runs in a child process: sets up the paths given in the environment, reports it, and executes commands.
#[test]
fn child() {
    let Ok(text) = std::env::var(CHILD) else { return };
    let (records, specs) = text.split_once('|').unwrap();
    let specs: Vec<PathSpec> = specs.split('|').map(|s| s.parse().unwrap()).collect();
    let options = options().record_directory(records);
    if std::env::var_os(ENDED_EARLY).is_some() {
        // Like a signal handler, whatever this thread is doing.
        std::thread::spawn(|| {
            let _ = std::io::stdin().read_line(&mut String::new());
            let _ = clean_up();
            std::process::exit(0);
        });
    }
    let mut set = match set_up(&specs, &options) {
        Ok(set) => Some(set),
        Err(error) => {
            println!("\nfailed {error}");
            return;
        }
    };
    println!("\nready");
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line).unwrap_or(0) > 0 {
        match line.trim() {
            "clean up" => {
                let errors = clean_up();
                println!("\ncleaned {}", errors.len());
            }
            "exit" => std::process::exit(0),
            "let go and exit" => {
                let set = set.take();
                let other = std::thread::spawn(move || drop(set));
                // So that it has started but not finished.
                std::thread::sleep(std::time::Duration::from_millis(1));
                let _ = clean_up();
                drop(other);
                std::process::exit(0);
            }
            other => panic!("{other}"),
        }
        line.clear();
    }
    drop(set);
}

struct Instance {
    process: Child,
    lines: Box<dyn Iterator<Item = String> + Send>,
}

impl Instance {
    /// A process that runs [`child`] in a namespace, through the command `wrapper`.
    fn command(records: &Path, specs: &[&str], wrapper: &[&str]) -> Command {
        let mut words: Vec<std::ffi::OsString> = wrapper.iter().map(Into::into).collect();
        words.push(std::env::current_exe().unwrap().into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(["--exact", "instances::child", "--nocapture", "--test-threads=1"]);
        command.env(CHILD, format!("{}|{}", records.display(), specs.join("|")));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    fn start(ns: &Ns, specs: &[&str]) -> Instance {
        Self::start_by(ns, specs, &[])
    }

    fn start_by(ns: &Ns, specs: &[&str], wrapper: &[&str]) -> Instance {
        let mut command = Self::command(&ns.records, specs, wrapper);
        let mut instance = Self::spawn(ns.run(move || command.spawn().unwrap()));
        instance.expect("ready");
        instance
    }

    fn spawn(mut process: Child) -> Instance {
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        Instance { process, lines: Box::new(lines) }
    }

    fn expect(&mut self, wanted: &str) -> String {
        let words = ["ready", "failed", "cleaned"];
        let line = self.lines.find(|l| words.iter().any(|w| l.starts_with(w))).expect("the child ended");
        assert!(line.starts_with(wanted), "{line}");
        line
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// Kills it, so that it cannot clean up.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Lets it exit normally.
    fn finish(&mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const ROUTED: &str = "eth0,address=10.0.0.7,address=2001:db8:a0::7,mode=routed";

#[test]
fn what_a_crash_leaves_is_removed_at_the_next_start() {
    let network = TestNetwork::new();
    let before = network.client.state();
    for specs in [["eth0", "eth1"], [ROUTED, "eth1"]] {
        let mut crashed = Instance::start(&network.client, &specs);
        crashed.kill();
        wait_until("the TUN devices are gone", || !network.client.ip("link").contains("umptcp"));
        assert!(network.client.nft("list tables").contains("umptcp"));
        assert!(network.client.ip("rule").contains("14"));
        assert_ne!(network.client.state(), before);
        let set = network.client.set_up(&["eth0,address=198.51.100.1,mode=routed"], &options()).unwrap();
        assert_eq!(network.client.nft("list tables"), "");
        drop(set);
        assert_unchanged(&network.client, &before);
    }
}

#[test]
fn a_crash_at_any_moment_leaves_nothing_that_cannot_be_undone() {
    let network = TestNetwork::new();
    network.client.sysctl("net/ipv4/ip_local_reserved_ports", "60990-60995");
    let before = network.client.state();
    // Set-up takes about 200 ms; these times are spread over it.
    for delay in (0..300).step_by(15) {
        let mut command = Instance::command(&network.client.records, &["eth0", ROUTED, "eth1"], &[]);
        let mut instance = Instance::spawn(network.client.run(move || command.spawn().unwrap()));
        std::thread::sleep(std::time::Duration::from_millis(delay));
        instance.kill();
    }
    drop(network.client.set_up(&["eth1,address=198.51.100.1,mode=routed"], &options()).unwrap());
    assert_unchanged(&network.client, &before);
    assert_eq!(records(&network.client), 0);
}

/// Clean-up waits for what another thread is undoing at the same time.
#[test]
fn a_process_that_ends_while_it_lets_go_leaves_nothing() {
    let network = TestNetwork::new();
    let before = network.client.state();
    for _ in 0..5 {
        let mut instance = Instance::start(&network.client, &["eth0", "eth1"]);
        instance.tell("let go and exit");
        assert!(instance.process.wait().unwrap().success());
        assert_unchanged(&network.client, &before);
        assert_eq!(records(&network.client), 0);
    }
}

#[test]
fn a_clean_up_at_any_moment_of_the_set_up_leaves_nothing() {
    let network = TestNetwork::new();
    let before = network.client.state();
    for delay in (0..300).step_by(20) {
        let mut command = Instance::command(&network.client.records, &["eth0", ROUTED, "eth1"], &[]);
        command.env(ENDED_EARLY, "1");
        let mut instance = Instance::spawn(network.client.run(move || command.spawn().unwrap()));
        std::thread::sleep(std::time::Duration::from_millis(delay));
        instance.tell("now");
        instance.process.wait().unwrap();
        assert_unchanged(&network.client, &before);
        assert_eq!(records(&network.client), 0, "ended after {delay} ms");
    }
}

#[test]
fn instances_that_start_at_the_same_time_do_not_collide() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let mut instances: Vec<Instance> = (0..4)
        .map(|_| {
            let mut command = Instance::command(&network.client.records, &["eth0", "eth1"], &[]);
            Instance::spawn(network.client.run(move || command.spawn().unwrap()))
        })
        .collect();
    for instance in &mut instances {
        instance.expect("ready");
    }
    let rules = network.client.ip("rule");
    let own: std::collections::BTreeSet<&str> =
        rules.lines().filter_map(|l| l.split(" to ").nth(1)?.split(' ').next()).collect();
    assert_eq!(own.len(), 8, "{rules}");
    let reserved = network.client.read("net/ipv4/ip_local_reserved_ports");
    let ports: u32 = reserved
        .split(',')
        .map(|r| {
            r.split_once('-').map(|(a, b)| b.parse::<u32>().unwrap() - a.parse::<u32>().unwrap() + 1).unwrap()
        })
        .sum();
    assert!(ports >= 4 * 64, "{reserved}");
    for instance in &mut instances {
        instance.finish();
    }
    assert_unchanged(&network.client, &before);
}

#[test]
fn what_a_running_instance_has_set_up_is_left_alone() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let mut port = 5000;
    let mut connects = |set: &umptcp_tun_driver::paths::PathSet| {
        let path = &set.paths[0];
        port += 1;
        Flow::connect(&path.tun, (path.config.addresses[0], port), "10.0.0.1:80").echo("alive");
    };
    let set = network.client.set_up(&["eth0"], &options()).unwrap();
    let settled = network.client.state();
    // Other instances over the same NIC come and go, in and out of order, translated or not.
    for specs in [["eth0", "eth1"], [ROUTED, "eth1"]] {
        let mut other = Instance::start(&network.client, &specs);
        connects(&set);
        other.finish();
        assert_unchanged(&network.client, &settled);
        connects(&set);
        let mut other = Instance::start(&network.client, &specs);
        other.kill();
        // Another start removes what is left of it, and nothing else.
        let mut next = Instance::start(&network.client, &["eth1"]);
        connects(&set);
        next.finish();
        assert_unchanged(&network.client, &settled);
        connects(&set);
    }
    drop(set);
    assert_unchanged(&network.client, &before);
}

#[test]
fn the_last_of_several_instances_restores_what_was_before_the_first() {
    let network = TestNetwork::new();
    let before = network.client.state();
    let mut first = Instance::start(&network.client, &[ROUTED]);
    let second = network.client.set_up(&["eth0"], &options()).unwrap();
    first.finish();
    assert!(network.client.read("net/ipv4/conf/eth0/forwarding").starts_with('1'));
    network.server.echo_server("[::]:80");
    let path = &second.paths[0];
    Flow::connect(&path.tun, (path.config.addresses[1], 5000), "[2001:db8:a0::1]:80").echo("alive");
    let mut third = Instance::start(&network.client, &[ROUTED]);
    drop(second);
    assert!(network.client.read("net/ipv4/conf/eth0/forwarding").starts_with('1'));
    third.kill();
    let fourth = network.client.set_up(&["eth1"], &options()).unwrap();
    drop(fourth);
    assert_unchanged(&network.client, &before);
}

#[test]
fn a_setting_that_somebody_else_changed_meanwhile_stays() {
    let network = TestNetwork::new();
    let set = network.client.set_up(&[ROUTED], &options()).unwrap();
    network.client.sysctl("net/ipv4/neigh/eth0/proxy_delay", "40");
    drop(set);
    let value = network.client.read("net/ipv4/neigh/eth0/proxy_delay");
    assert_eq!(value.trim(), "40");
}

#[test]
fn clean_up_takes_everything_down_at_once() {
    let network = TestNetwork::new();
    let before = network.client.state();
    let mut instance = Instance::start(&network.client, &["eth0", "eth1"]);
    instance.tell("clean up");
    assert_eq!(instance.expect("cleaned"), "cleaned 0");
    // The TUN devices exist as long as they are held, but nothing routes to them.
    let state = network.client.state();
    assert!(!state.contains("lookup 1970") && network.client.nft("list tables").is_empty());
    instance.tell("exit");
    wait_until("the process has ended", || instance.process.try_wait().unwrap().is_some());
    wait_until("the TUN devices are gone", || !network.client.ip("link").contains("umptcp"));
    assert_unchanged(&network.client, &before);
    assert_eq!(records(&network.client), 0);
}

/// How many records are left. An instance that ended early may not even have created the directory.
fn records(ns: &Ns) -> usize {
    let entries = match std::fs::read_dir(&ns.records) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return 0,
        other => other.unwrap(),
    };
    entries.flatten().filter(|e| e.path().extension().is_some()).count()
}

#[test]
fn a_path_can_go_while_others_stay() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let mut set = network.client.set_up(&["eth0"], &options()).unwrap();
    let alone = network.client.state();
    let added = set.add(&"eth1".parse().unwrap()).unwrap();
    let again = set.add(&ROUTED.parse().unwrap()).unwrap();
    drop(added);
    drop(again);
    assert_unchanged(&network.client, &alone);
    let path = set.paths.remove(0);
    drop(set);
    assert_unchanged(&network.client, &alone);
    Flow::connect(&path.tun, (path.config.addresses[0], 5000), "10.0.0.1:80").echo("kept by its guard");
    drop(path);
    assert_unchanged(&network.client, &before);
    assert_eq!(records(&network.client), 0);
}

#[test]
fn an_address_in_the_nic_s_own_subnet_is_answered_for() {
    let network = TestNetwork::new();
    let before = network.client.state();
    let set = network.client.set_up(&[ROUTED], &options()).unwrap();
    for address in ["10.0.0.7:22", "[2001:db8:a0::7]:22"] {
        let client = echo_client(&network.server, address);
        Flow::accept(&set.paths[0].tun, 22).answer();
        client.join().unwrap();
    }
    // Without the entries, nobody answers.
    network.client.ip("neighbour del proxy 10.0.0.7 dev eth0");
    network.client.ip("neighbour del proxy 2001:db8:a0::7 dev eth0");
    network.server.ip("neighbour flush all");
    for address in ["10.0.0.7:22", "[2001:db8:a0::7]:22"] {
        let address = address.parse().unwrap();
        let wait = std::time::Duration::from_secs(1);
        let result = network.server.run(move || std::net::TcpStream::connect_timeout(&address, wait));
        assert!(result.is_err());
    }
    drop(set);
    assert_unchanged(&network.client, &before);
}

/// Runs [`child`] through a command that takes something away; returns its result.
fn verdict(ns: &Ns, specs: &[&str], wrapper: &[&str]) -> String {
    let mut command = Instance::command(&ns.records, specs, wrapper);
    let process = ns.run(move || command.spawn().unwrap());
    let mut instance = Instance::spawn(process);
    let line =
        instance.lines.find(|l| l.starts_with("ready") || l.starts_with("failed")).expect("the child ended");
    instance.finish();
    line
}

#[test]
fn without_privilege_it_says_what_is_needed() {
    let network = TestNetwork::new();
    let without = ["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"];
    let failed = verdict(&network.client, &["eth0"], &without);
    assert!(failed.contains("no permission") && failed.contains("CAP_NET_ADMIN"), "{failed}");
    let hidden = "mount -t tmpfs none /dev/net && exec \"$0\" \"$@\"";
    let failed = verdict(&network.client, &["eth0"], &["unshare", "-m", "sh", "-c", hidden]);
    assert!(failed.contains("no /dev/net/tun"), "{failed}");
}

#[test]
fn a_user_namespace_without_nft_is_enough_for_routed_paths() {
    // Like the demo: a separate process creates the namespaces, and has no nft.
    let ns = Ns::new();
    let script = "ip link set lo up && ip link add eth0 type veth peer name peer0 && ip link set eth0 up && \
                  ip link set peer0 up && ip address add 10.0.0.2/24 dev eth0 && \
                  ip address add 2001:db8::2/64 dev eth0 nodad && \
                  mount -t tmpfs none /run && exec env PATH=/nowhere \"$0\" \"$@\"";
    let wrapper = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script];
    let spec = "eth0,address=198.51.100.1,address=2001:db8:10::1,mode=routed";
    let in_subnet = "eth0,address=10.0.0.7,address=2001:db8::7,mode=routed";
    for spec in [spec, in_subnet] {
        assert_eq!(verdict(&ns, &[spec], &wrapper), "ready");
    }
}

/// As in a container, where the host has prepared everything.
#[test]
fn a_read_only_proc_sys_is_accepted_if_everything_in_it_is_set_right() {
    let network = TestNetwork::new();
    let client = &network.client;
    let script =
        "mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec \"$0\" \"$@\"";
    let wrapper = ["unshare", "-m", "sh", "-c", script];
    let failed = verdict(client, &["eth0"], &wrapper);
    assert!(failed.contains("/proc/sys is read-only") && failed.contains("reserved"), "{failed}");
    client.sysctl("net/ipv4/ip_local_reserved_ports", "50000-52000\n");
    let failed = verdict(client, &["eth0"], &wrapper);
    assert!(failed.contains("forwarding") && failed.contains("read-only"), "{failed}");
    client.sysctl("net/ipv4/ip_forward", "1");
    client.sysctl("net/ipv6/conf/all/forwarding", "1");
    let before = client.state();
    let mut instances: Vec<Instance> =
        (0..3).map(|_| Instance::start_by(client, &["eth0", "eth1"], &wrapper)).collect();
    assert_eq!(client.read("net/ipv4/ip_local_reserved_ports"), "50000-52000");
    for instance in &mut instances {
        instance.finish();
    }
    assert_unchanged(client, &before);
    let set = client.set_up(&["eth0"], &options().port_range(50_000..=50_999)).unwrap();
    let error = client.set_up(&["eth1"], &options().port_range(50_900..=51_000)).unwrap_err().to_string();
    assert!(error.contains("another instance of umptcp uses ports 50000-50999"), "{error}");
    drop(set);
    assert_unchanged(client, &before);
}

/// Each has ports of its own, and the host keeps a good part.
#[test]
fn fifty_instances_at_once_all_work_and_leave_nothing() {
    let network = TestNetwork::new();
    network.server.echo_server("[::]:80");
    let before = network.client.state();
    let start = std::time::Instant::now();
    let barrier = std::sync::Barrier::new(50);
    let ranges = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for n in 0..50 {
            let (network, barrier, ranges) = (&network, &barrier, &ranges);
            scope.spawn(move || {
                network.client.enter();
                let spec = PathSpec::new(format!("eth{}", n % 2));
                let set = set_up(&[spec], &options().record_directory(network.client.records.clone()));
                // Nobody leaves before all are there, and none is waited for that has failed.
                let set = set.map_err(|error| format!("instance {n}: {error}"));
                barrier.wait();
                let set = set.unwrap();
                let range = set.port_range().unwrap();
                let path = &set.paths[0];
                for (own, remote) in path
                    .config
                    .addresses
                    .iter()
                    .zip([format!("10.{}.0.1:80", n % 2), format!("[2001:db8:a{}::1]:80", n % 2)])
                {
                    Flow::connect(&path.tun, (*own, *range.start()), &remote).echo("one of fifty");
                }
                ranges.lock().unwrap().push(range);
            });
        }
    });
    println!("50 instances came and went in {:?}", start.elapsed());
    let mut ranges = ranges.into_inner().unwrap();
    ranges.sort_by_key(|r| *r.start());
    assert_eq!(ranges.len(), 50);
    assert!(ranges.windows(2).all(|w| w[0].end() < w[1].start()), "{ranges:?}");
    let ports: usize = ranges.iter().map(|r| r.len()).sum();
    assert!(ports < 3 * 28_232 / 4, "{ports} of 28232 ports");
    assert_unchanged(&network.client, &before);
    assert_eq!(records(&network.client), 0);
}

/// Also with connection tracking, where each range of ports is translated to itself.
#[test]
fn an_instance_gets_more_ports_and_connections_from_the_old_ones_go_on() {
    for stateless in [true, false] {
        let network = TestNetwork::new();
        network.server.echo_server("[::]:80");
        network.client.sysctl("net/ipv4/ip_local_port_range", "40000 40255");
        let before = network.client.state();
        let options = options().stateless(stateless);
        let set = network.client.set_up(&["eth0", "eth1"], &options).unwrap();
        let connect = |port: u16| {
            let mut flows = Vec::new();
            for (n, path) in set.paths.iter().enumerate() {
                for (own, remote) in [(0, format!("10.{n}.0.1:80")), (1, format!("[2001:db8:a{n}::1]:80"))] {
                    let tap = network.server.tap();
                    let mut flow = Flow::connect(&path.tun, (path.config.addresses[own], port), &remote);
                    let (_, syn) = tap.find(PATIENCE, |s| s.flags == "S").unwrap();
                    assert_eq!(syn.source.port(), port, "{remote}: the port is kept");
                    flow.echo("from this port");
                    flows.push(flow);
                }
            }
            flows
        };
        let first = set.port_range().unwrap();
        let mut flows = connect(*first.start());
        let mut ranges = vec![first];
        for size in [64, 64] {
            let more = set.more_ports().unwrap();
            assert_eq!(more.len(), size);
            assert!(ranges.iter().all(|r| r.end() < more.start() || r.start() > more.end()));
            flows.append(&mut connect(*more.start()));
            flows.append(&mut connect(*more.end()));
            flows.iter_mut().for_each(|flow| flow.echo("still there"));
            ranges.push(more);
        }
        // The host keeps the last quarter. Tables that are put back have all ports.
        let error = set.more_ports().unwrap_err().to_string();
        assert!(error.contains("40000-40255") && error.contains("no free part"), "{error}");
        network.client.nft("flush ruleset");
        wait_until("the tables are back", || {
            network.client.nft("list tables").matches("umptcp").count() == 2
        });
        flows.iter_mut().for_each(|flow| flow.echo("still there"));
        let other = network.client.set_up(&["eth0"], &options).unwrap_err().to_string();
        assert!(other.contains("no free part"), "{other}");
        drop(flows);
        drop(set);
        assert_unchanged(&network.client, &before);
        let asked = options.port_range(40_000..=40_063);
        let set = network.client.set_up(&["eth0"], &asked).unwrap();
        let error = set.more_ports().unwrap_err().to_string();
        assert!(error.contains("40000-40063") && error.contains("larger"), "{error}");
    }
}

/// Whether another host has an address takes a second to find out. Each instance finds out by itself.
#[test]
fn instances_that_look_for_their_addresses_on_the_link_do_not_wait_for_each_other() {
    let network = TestNetwork::new();
    let before = network.client.state();
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for n in 50..62 {
            let network = &network;
            scope.spawn(move || {
                network.client.enter();
                let spec = format!("eth0,address=10.0.0.{n},address=2001:db8:a0::{n},mode=routed");
                let options = options().record_directory(network.client.records.clone());
                drop(set_up(&[spec.parse().unwrap()], &options).unwrap());
            });
        }
    });
    // One after the other, they would take a second each at least.
    assert!(start.elapsed() < std::time::Duration::from_secs(11), "{:?}", start.elapsed());
    assert_unchanged(&network.client, &before);
}
