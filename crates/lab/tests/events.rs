//! What happens to links and hosts while connections run, and parameters that go together.

use std::time::Duration;
use umptcp_lab::{Experiment, Registries, Report, RunOptions};

fn parse(text: &str) -> Result<Experiment, String> {
    Experiment::parse("test.toml", text, None, &[], &Registries::default()).map_err(|e| e.to_string())
}

/// What was measured between two times of the scenario, in seconds.
fn between(text: &str, from: u64, to: u64) -> Report {
    let options = RunOptions {
        warm_up: Some(Duration::from_secs(from)),
        duration: Some(Duration::from_secs(to - from)),
        ..RunOptions::default()
    };
    let experiment = parse(text).unwrap_or_else(|e| panic!("{e}"));
    experiment.run(&options, &Registries::default(), |_, _| ()).unwrap_or_else(|e| panic!("{e}"))
}

fn value(report: &Report, object: &str, name: &str, quantity: &str) -> f64 {
    report.points[0].value(object, name, quantity).unwrap().mean
}

/// Two links of 6 Mbit/s and a flow over both, with events.
fn scenario(flow: &str, events: &[&str]) -> String {
    let events: String = events.iter().map(|e| format!("\n[[event]]\n{e}\n")).collect();
    format!(
        r#"
name = "events"
duration = "10 s"
seeds = 1

[[link]]
name = "a"
rate = "6 Mbit/s"
delay = "10 ms"
queue = "50 ms"

[[link]]
name = "b"
rate = "6 Mbit/s"
delay = "20 ms"
queue = "50 ms"

[[flow]]
name = "flow"
routes = [["a"], ["b"]]
{flow}
{events}"#
    )
}

const DIRECTIONS: [&str; 2] = ["direction = \"up\"", "direction = \"down\""];

#[test]
fn an_address_goes_and_comes_back() {
    for direction in DIRECTIONS {
        let text = scenario(
            direction,
            &[
                "at = \"3 s\"\nflow = \"flow\"\nroute = 1\naddress = \"removed\"",
                "at = \"4 s\"\nflow = \"flow\"\nroute = 1\naddress = \"removed\"",
                "at = \"6 s\"\nflow = \"flow\"\nroute = 1\naddress = \"added\"",
                "at = \"7 s\"\nflow = \"flow\"\nroute = 1\naddress = \"added\"",
            ],
        );
        let gone = between(&text, 4, 6);
        // A sender that has been told may still try what was on its way.
        assert!(value(&gone, "link", "a", "throughput") < 0.05, "{direction}");
        assert!(value(&gone, "flow", "flow", "goodput") > 5.0, "{direction}");
        let back = between(&text, 8, 12);
        assert!(value(&back, "link", "a", "throughput") > 4.0, "{direction}");
        assert!(value(&back, "flow", "flow", "goodput") > 9.0, "{direction}");
        let silence = value(&between(&text, 2, 8), "flow", "flow", "silence");
        assert!(silence < 500.0, "{direction}: {silence}");
    }
}

#[test]
fn routes_are_backups_from_the_start_or_from_an_event_on() {
    for direction in DIRECTIONS {
        let text = scenario(
            &format!("{direction}\nbackup = [2]"),
            &[
                "at = \"5 s\"\nflow = \"flow\"\nroute = 2\nbackup = false",
                "at = \"10 s\"\nflow = \"flow\"\nroute = 1\nbackup = true",
            ],
        );
        let used = |from, to, name| value(&between(&text, from, to), "link", name, "throughput");
        assert!(used(2, 5, "a") > 5.0 && used(2, 5, "b") < 0.1, "{direction}");
        assert!(used(7, 10, "a") > 4.0 && used(7, 10, "b") > 4.0, "{direction}");
        assert!(used(12, 15, "a") < 0.1 && used(12, 15, "b") > 5.0, "{direction}");
    }
}

#[test]
fn a_host_sees_that_its_link_is_down_but_not_that_it_is_silent() {
    let event = |state: &str| format!("at = \"3 s\"\nlink = \"a\"\nstate = {state:?}");
    let silence = |state: &str, flow: &str| {
        let report = between(&scenario(flow, &[&event(state)]), 2, 6);
        assert_eq!(value(&between(&scenario(flow, &[&event(state)]), 5, 6), "link", "a", "throughput"), 0.0);
        value(&report, "flow", "flow", "silence")
    };
    for direction in DIRECTIONS {
        let (down, silent) = (silence("down", direction), silence("silent", direction));
        // With another path either goes unnoticed: what is in its queue comes first.
        assert!(down <= silent && silent < 200.0, "{direction}: {down} {silent}");
    }
    // The only link: the connection waits, and goes on at once when it is up again.
    let back = "at = \"5 s\"\nlink = \"a\"\nstate = \"up\"";
    for protocol in ["tcp", "mptcp"] {
        let flow = format!("protocol = {protocol:?}");
        let text = scenario(&flow, &[&event("down"), back]).replace("[[\"a\"], [\"b\"]]", "[[\"a\"]]");
        let silence = value(&between(&text, 2, 8), "flow", "flow", "silence");
        assert!((2_000.0..2_200.0).contains(&silence), "{protocol}: {silence}");
        // Without being told it waits for a retransmission timeout that has backed off.
        let text = text.replace("\"down\"", "\"silent\"");
        assert!(value(&between(&text, 2, 8), "flow", "flow", "silence") > silence, "{protocol}");
    }
}

#[test]
fn mistakes_in_events_are_named() {
    for (event, hint) in [
        ("flow = \"flow\"\naddress = \"removed\"", "need a route"),
        ("flow = \"flow\"\nroute = 3\naddress = \"removed\"", "the flow has 2"),
        ("flow = \"flow\"\nroute = 0\nbackup = true", "route 0 does not exist"),
        ("flow = \"flow\"\nroute = 1\naddress = \"lost\"", "none of: removed, added"),
        ("flow = \"flow\"\nroute = 1\naddress = \"added\"\nbackup = true", "both address and backup"),
        ("flow = \"flow\"\nroute = 1\nscheduler = \"min-rtt\"", "a route needs"),
        ("flow = \"flow\"\nroute = 1\nbackup = true\nscheduler = \"min-rtt\"", "of their own"),
        ("flow = \"flow\"\nroute = 1", "it needs a link"),
        ("link = \"a\"\nroute = 1\nstate = \"up\"", "it needs a link"),
        ("link = \"a\"\nstate = \"off\"", "none of: up, down, silent"),
        ("link = \"a\"\nstate = \"up\"\ncut = true", "both state and cut"),
    ] {
        let error = parse(&scenario("", &[&format!("at = \"1 s\"\n{event}")])).unwrap_err();
        assert!(error.contains(hint), "{event}: {error}");
    }
    assert!(parse(&scenario("backup = [3]", &[])).unwrap_err().contains("the flow has 2"));
}

const ZIPPED: &str = r#"
[parameters]
congestion = ["lia", "olia"]

[[zipped]]
rate = [6, 8, 10]
delay = [10, 20, 30]
queue = 50
"#;

fn zipped() -> String {
    scenario("congestion = \"${congestion}\"", &[])
        .replacen("\"6 Mbit/s\"", "\"${rate} Mbit/s\"", 1)
        .replacen("\"10 ms\"", "\"${delay} ms\"", 1)
        .replacen("\"50 ms\"", "\"${queue} ms\"", 1)
        .replace("seeds = 1\n", &format!("seeds = 1\n{ZIPPED}"))
}

#[test]
fn zipped_parameters_go_together() {
    let names = parse(&zipped()).unwrap().point_names();
    let expected = [
        "congestion=lia,delay=10,queue=50,rate=6",
        "congestion=lia,delay=20,queue=50,rate=8",
        "congestion=lia,delay=30,queue=50,rate=10",
        "congestion=olia,delay=10,queue=50,rate=6",
        "congestion=olia,delay=20,queue=50,rate=8",
        "congestion=olia,delay=30,queue=50,rate=10",
    ];
    assert_eq!(names, expected);
    let set = |set: &[(&str, &str)]| {
        let set: Vec<_> = set.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect();
        let experiment = Experiment::parse("test.toml", &zipped(), None, &set, &Registries::default());
        experiment.map(|e| e.point_names()).map_err(|e| e.to_string())
    };
    let names = set(&[("congestion", "lia"), ("rate", "1,2,3"), ("queue", "7")]).unwrap();
    assert_eq!(names.len(), 3);
    assert_eq!(names[2], "congestion=lia,delay=30,queue=7,rate=3");
    assert!(set(&[("rate", "1,2")]).unwrap_err().contains("go together"));
    assert!(set(&[("speed", "1")]).unwrap_err().contains("there are: congestion, delay, queue, rate"));
    for (from, to, hint) in [
        (
            "delay = [10, 20, 30]",
            "delay = [10, 20]",
            "\"delay\" has 2 values, and another of its group has 3",
        ),
        ("delay = [10, 20, 30]", "delay = [10, 20, 30]\ncongestion = \"lia\"", "more than one place"),
        ("[[zipped]]", "[zipped]", "[[zipped]]"),
        ("rate = [6, 8, 10]", "rate = []", "has 0 values"),
    ] {
        let text = zipped().replacen(from, to, 1);
        assert_ne!(text, zipped(), "{from}");
        assert!(parse(&text).unwrap_err().contains(hint), "{to}: {}", parse(&text).unwrap_err());
    }
}
