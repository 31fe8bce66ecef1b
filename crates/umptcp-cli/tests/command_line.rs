//! The command line: help, errors, completions, manual pages.

mod common;

use common::{run, umptcp};

#[test]
fn help_explains_every_command() {
    let out = run(umptcp().arg("--help"));
    assert_eq!(out.code, 0);
    for word in ["demo", "listen", "connect", "bench", "Examples:", "UMPTCP_LOG"] {
        assert!(out.stdout.contains(word), "{word} is missing:\n{}", out.stdout);
    }
    for command in [
        &["demo"][..],
        &["listen"],
        &["connect"],
        &["bench"],
        &["bench", "server"],
        &["bench", "client"],
        &["clean-up"],
        &["completions"],
        &["man"],
    ] {
        let out = run(umptcp().args(command).arg("--help"));
        assert_eq!(out.code, 0, "{command:?}");
        assert!(out.stdout.contains("Usage: umptcp"), "{command:?}:\n{}", out.stdout);
        assert!(command == ["bench"] || out.stdout.contains("Examples:"), "{command:?}:\n{}", out.stdout);
    }
    for option in ["--path", "--congestion", "--scheduler", "--checksum", "--no-mptcp", "--pcap"] {
        let out = run(umptcp().args(["connect", "--help"]));
        assert!(out.stdout.contains(option), "{option}");
    }
}

#[test]
fn without_a_command_it_shows_what_there_is() {
    let out = run(&mut umptcp());
    assert_eq!(out.code, 2);
    assert!(out.stderr.contains("demo") && out.stderr.contains("Usage:"), "{}", out.stderr);
    let out = run(umptcp().arg("--version"));
    assert_eq!((out.code, out.stdout.trim()), (0, concat!("umptcp ", env!("CARGO_PKG_VERSION"))));
}

/// Each line: arguments, and what the message must contain.
#[test]
fn mistakes_get_exit_code_2_and_a_message_that_helps() {
    for (arguments, names) in [
        ("frobnicate", "frobnicate"),
        ("listen", "<PORT|ADDRESS:PORT>"),
        ("listen nowhere", "ADDRESS:PORT"),
        ("listen 70000", "PORT"),
        ("connect localhost", "localhost:PORT"),
        ("connect localhost:80 81", "twice"),
        ("connect localhost:http", "HOST:PORT"),
        ("connect [::1]80", "[2001:db8::1]:PORT"),
        ("bench client localhost:80 81", "twice"),
        ("connect localhost 99999", "99999"),
        ("connect localhost 80 --stack bsd", "kernel-mptcp"),
        ("connect localhost 80 --path eth0,mode=bridge", "nat"),
        ("connect localhost 80 --path eth0,speed=9", "weight=N"),
        ("connect localhost 80 -4 -6", "cannot be used with"),
        ("connect localhost 80 --congestion fastest", "fastest"),
        ("connect localhost 80 --scheduler best", "best"),
        ("connect localhost 80 --stack kernel-mptcp --no-mptcp", "kernel-tcp"),
        ("connect localhost 80 --stack kernel-tcp --path eth0", "--stack umptcp"),
        ("connect localhost 80 --stack kernel-tcp --scheduler x", "ip mptcp"),
        ("bench", "client"),
        ("bench client h --bytes many", "64k"),
        ("bench client h --seconds 0", "10, 0.5 or 500ms"),
        ("bench client h --mode latency --verify", "--mode throughput"),
        ("bench client h --count 5", "--mode latency"),
        ("bench client h --parallel 4", "--mode connections"),
        ("bench client h --response 10", "--mode latency"),
        ("bench client h --mode latency --request 0", "1 to 1048576"),
        ("bench client h --bytes 1k --seconds 2", "cannot be used with"),
        ("bench server --once --count 3", "cannot be used with"),
        ("bench server 127.0.0.1:9 --stack kernel-tcp --congestion snail", "reno"),
        ("completions tcsh", "bash"),
        ("demo --server qnx", "kernel"),
        ("demo --sim --pcap x.pcapng", "cannot be used with"),
        ("demo --sim --server umptcp", "cannot be used with"),
    ] {
        let out = run(umptcp().args(arguments.split(' ')));
        assert_eq!(out.code, 2, "{arguments}: {}", out.stderr);
        assert!(out.stderr.contains(names), "{arguments}: {names:?} is missing in\n{}", out.stderr);
        assert_eq!(out.stdout, "", "{arguments}");
    }
    let out = run(umptcp().args(["listen", "--stack", "kernel-tcp", "1"]).env("UMPTCP_LOG", "a=b=c"));
    assert_eq!(out.code, 2);
    assert!(out.stderr.contains("UMPTCP_LOG"), "{}", out.stderr);
}

#[test]
fn the_exit_code_says_what_kind_of_failure_it_was() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = port.local_addr().unwrap().to_string();
    // A port that nothing listens on: one that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (arguments, code, class) in [
        (&["listen", "--stack", "kernel-tcp", &busy][..], 3, "host"),
        (&["connect", "--stack", "kernel-tcp", "nowhere.invalid:80"], 4, "name"),
        (&["connect", "--stack", "kernel-tcp", &free], 5, "connect"),
        (&["bench", "client", "--stack", "kernel-tcp", "nowhere.invalid", "--json"], 4, "name"),
        (&["bench", "client", "--stack", "kernel-tcp", &free, "--json"], 5, "connect"),
        (&["bench", "client", "--json", "--count", "3", &free], 2, "usage"),
        (&["bench", "server", "--stack", "kernel-tcp", &busy, "--json"], 3, "host"),
    ] {
        let out = run(umptcp().args(arguments));
        assert_eq!(out.code, code, "{arguments:?}: {}", out.stderr);
        assert!(out.stderr.starts_with("umptcp: "), "{arguments:?}: {}", out.stderr);
        if arguments.contains(&"--json") {
            let found: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
            assert_eq!(found["error"]["class"], class, "{found}");
            assert_eq!(found["error"]["exit_code"], code, "{found}");
            let message = found["error"]["message"].as_str().unwrap();
            assert_eq!(out.stderr.trim_end(), format!("umptcp: {message}"));
        } else {
            assert_eq!(out.stdout, "");
        }
    }
    let manual = run(umptcp().arg("man")).stdout;
    assert!(manual.contains("Exit codes:") && run(umptcp().arg("--help")).stdout.contains("Exit codes:"));
}

#[test]
fn completions_for_every_shell_name_the_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let out = run(umptcp().args(["completions", shell]));
        assert_eq!(out.code, 0, "{shell}: {}", out.stderr);
        for word in ["demo", "bench", "congestion"] {
            assert!(out.stdout.contains(word), "{shell}: {word} is missing");
        }
    }
}

#[test]
fn manual_pages_are_written_for_every_command() {
    let out = run(umptcp().arg("man"));
    assert_eq!(out.code, 0);
    assert!(out.stdout.contains(".TH umptcp 1") && out.stdout.contains(".SH DESCRIPTION"), "{}", out.stdout);

    let dir = common::TempDir::new("man");
    let out = run(umptcp().arg("man").arg("--dir").arg(dir.path().join("deep")));
    assert_eq!(out.code, 0, "{}", out.stderr);
    let mut pages: Vec<String> = std::fs::read_dir(dir.path().join("deep"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    for page in ["umptcp.1", "umptcp-bench.1", "umptcp-bench-client.1", "umptcp-demo.1", "umptcp-listen.1"] {
        assert!(pages.iter().any(|p| p == page), "{page} is missing in {pages:?}");
    }
    let out = run(umptcp().args(["man", "--dir", "/proc/nowhere"]));
    assert_eq!(out.code, 1);
    assert!(out.stderr.contains("/proc/nowhere"), "{}", out.stderr);
}
