//! `umptcp emulate`: scenarios in real time, over both stacks. Needs namespaces and the kernel's MPTCP.
#![cfg(all(target_os = "linux", not(umptcp_portable)))]

mod common;

use common::{Output, TempDir, run, umptcp};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SCENARIO: &str = r#"
name = "short"
warm-up = "300 ms"
duration = "1500 ms"
seeds = 1

[[link]]
name = "a"
rate = "20 Mbit/s"
delay = "2 ms"
queue = "50 ms"

[[link]]
name = "b"
rate = "10 Mbit/s"
delay = "4 ms"
queue = "50 ms"

[[link]]
name = "trunk"
delay = "1 ms"

[[flow]]
name = "bulk"
routes = [["a", "trunk"], ["b", "trunk"]]

[[flow]]
name = "messages"
routes = [["a"]]
protocol = "tcp"
direction = "down"
source = { kind = "constant", rate = "100 kbit/s", message = "500 B" }
"#;

fn scenario(text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new("emulate");
    let file = dir.path().join("short.toml");
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

fn emulate(text: &str, arguments: &[&str]) -> Output {
    let (_dir, file) = scenario(text);
    run(umptcp().arg("emulate").arg(&file).args(arguments))
}

/// A value of the CSV.
fn value(csv: &str, name: &str, quantity: &str) -> f64 {
    let line = csv.lines().find(|l| l.contains(&format!(",{name},{quantity},")));
    let line = line.unwrap_or_else(|| panic!("{name} {quantity} is missing:\n{csv}"));
    line.rsplit(',').next().unwrap().parse().unwrap_or(f64::NAN)
}

#[test]
fn both_stacks_carry_the_same_traffic_over_the_same_links() {
    for (arguments, stack) in [
        (&["--stack", "umptcp"][..], "umptcp"),
        (&["--stack", "kernel"], "kernel"),
        (&["--stack", "umptcp", "--peer", "kernel"], "umptcp-to-kernel"),
        (&["--stack", "kernel", "--peer", "umptcp"], "kernel-to-umptcp"),
    ] {
        let out = emulate(SCENARIO, &[arguments, &["--quiet", "--csv", "-"]].concat());
        assert_eq!((out.code, &out.stderr[..]), (0, ""), "{stack}");
        let csv = out.stdout;
        assert!(csv.contains(&format!(",stack={stack},0.3,1.5,1,1,flow,bulk,goodput,")), "{csv}");
        // How much a busy machine carries in a second and a half is not told here, but both links are used,
        // and no message takes less than the way.
        assert!(value(&csv, "bulk", "goodput") > 0.0, "{stack}: {csv}");
        for link in ["a", "b", "trunk"] {
            assert!(value(&csv, link, "throughput") > 0.0, "{stack}: {csv}");
        }
        assert!(value(&csv, "messages", "delay-p50") >= 2.0, "{stack}: {csv}");
        // The sender's stack tells of its subflows, if it is umptcp.
        let known = value(&csv, "bulk/1", "acknowledged").is_finite();
        assert_eq!(known, arguments[1] == "umptcp", "{stack}: {csv}");
    }
}

#[test]
fn links_addresses_and_backups_change_in_real_time() {
    let mut events = String::new();
    for (at, what) in [
        (400, "link = \"b\"\nstate = \"silent\""),
        (500, "link = \"b\"\nstate = \"up\""),
        (600, "link = \"b\"\nstate = \"down\""),
        (700, "link = \"b\"\nstate = \"up\""),
        (900, "flow = \"bulk\"\nroute = 2\nbackup = true"),
        (1000, "flow = \"bulk\"\nroute = 1\naddress = \"removed\""),
        (1300, "flow = \"bulk\"\nroute = 1\naddress = \"added\""),
        (1400, "link = \"a\"\nrate = \"5 Mbit/s\""),
    ] {
        events.push_str(&format!("\n[[event]]\nat = \"{at} ms\"\n{what}\n"));
    }
    for stack in ["umptcp", "kernel"] {
        for direction in ["up", "down"] {
            let text = SCENARIO.replacen(
                "routes = [[\"a\", \"trunk\"], [\"b\", \"trunk\"]]",
                "routes = [[\"a\"], [\"b\"]]\ndirection = \"DIRECTION\"",
                1,
            );
            let text = text.replace("DIRECTION", direction);
            let out = emulate(&format!("{text}{events}"), &["--stack", stack, "--quiet", "--csv", "-"]);
            // The connections live, and nothing was lost: every byte is compared.
            assert_eq!((out.code, &out.stderr[..]), (0, ""), "{stack} {direction}");
            assert!(value(&out.stdout, "bulk", "goodput") > 0.0, "{stack} {direction}: {}", out.stdout);
        }
    }
}

#[test]
fn pages_and_videos_run_on_real_connections() {
    let source = |source: &str| {
        let from = "source = { kind = \"constant\", rate = \"100 kbit/s\", message = \"500 B\" }";
        assert!(SCENARIO.contains(from));
        SCENARIO.replace(from, source)
    };
    for stack in ["umptcp", "kernel"] {
        let page = source(
            r#"source = { kind = "page", objects = 6, size = "5 kB", connections = 3, every = "500 ms" }"#,
        );
        let out = emulate(&page, &["--stack", stack, "--quiet", "--csv", "-"]);
        assert_eq!((out.code, &out.stderr[..]), (0, ""), "{stack}");
        assert!(value(&out.stdout, "messages", "page-mean") > 4.0, "{stack}: {}", out.stdout);
        let video = source(
            r#"source = { kind = "video", rate = "1 Mbit/s", segment = "200 ms", buffer = "400 ms" }"#,
        );
        let out = emulate(&video, &["--stack", stack, "--quiet", "--csv", "-"]);
        assert_eq!((out.code, &out.stderr[..]), (0, ""), "{stack}");
        assert!(value(&out.stdout, "messages", "delay-p50") > 4.0, "{stack}: {}", out.stdout);
    }
}

#[test]
fn what_cannot_be_emulated_is_named() {
    let event = "\n[[event]]\nat = \"1 s\"\nflow = \"bulk\"\nscheduler = \"min-rtt\"\n";
    let out = emulate(&format!("{SCENARIO}{event}"), &[]);
    assert!(out.code == 1 && out.stderr.contains("in the simulator only"), "{}", out.stderr);
    let out = emulate(&SCENARIO.replacen("name = \"bulk\"", "name = \"bulk\"\ncount = 100", 1), &[]);
    assert!(out.code == 1 && out.stderr.contains("at most 64"), "{}", out.stderr);
    let out = emulate(&SCENARIO.replacen("20 Mbit/s", "20", 1), &[]);
    assert!(out.code == 2 && out.stderr.contains("short.toml:"), "{}", out.stderr);
}

/// The program and the scenario where an ordinary user can read them, with `/dev/net/tun` of the mode given,
/// and then the program as that user with `arguments`.
fn as_user(tun_mode: &str, arguments: &str) -> Output {
    let (dir, file) = scenario(SCENARIO);
    let script = format!(
        "d=$(mktemp -d); trap 'rm -rf $d' EXIT; chmod 755 $d; cp $1 $d/umptcp; cp $2 $d/short.toml
         mknod $d/tun c 10 200; chmod {tun_mode} $d/tun; mount --bind $d/tun /dev/net/tun
         setpriv --reuid 1234 --regid 1234 --clear-groups $d/umptcp emulate $d/short.toml {arguments}"
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec", &script, "sh", env!("CARGO_BIN_EXE_umptcp")]).arg(&file);
    let out = run(command.env_remove("UMPTCP_LOG").stdin(Stdio::null()));
    drop(dir);
    out
}

#[test]
fn an_ordinary_user_can_run_it() {
    for stack in ["umptcp", "kernel"] {
        let out = as_user("666", &format!("--stack {stack} --quiet --csv -"));
        assert_eq!((out.code, &out.stderr[..]), (0, ""), "{stack}");
        assert!(value(&out.stdout, "bulk", "goodput") > 0.0, "{stack}: {}", out.stdout);
    }
}

#[test]
fn without_tun_it_says_how_to_proceed() {
    let out = as_user("0", "");
    assert_eq!(out.code, 1, "{}", out.stdout);
    assert!(
        out.stderr.contains("/dev/net/tun") && out.stderr.contains("or run `umptcp sim`"),
        "{}",
        out.stderr
    );
}

#[test]
fn a_signal_leaves_what_is_complete_and_nothing_else() {
    let (dir, file) = scenario(&SCENARIO.replacen("seeds = 1", "seeds = 1000", 1));
    let csv = dir.path().join("out.csv");
    let mut command = umptcp();
    command.arg("emulate").arg(&file).arg("--csv").arg(&csv);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("1 of 1000 runs") {
        assert!(std::io::BufRead::read_line(&mut stderr, &mut said).unwrap() > 0, "{said}");
    }
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    std::io::Read::read_to_string(&mut stderr, &mut said).unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()), Some(2), "{said}");
    assert!(said.contains("note: stopped: ") && said.contains("of 1000 runs"), "{said}");
    assert!(value(&std::fs::read_to_string(csv).unwrap(), "bulk", "goodput") > 0.0);
    let record = std::env::temp_dir().join(format!("umptcp-emulate-{pid}"));
    assert!(!record.exists(), "{}", record.display());
}
