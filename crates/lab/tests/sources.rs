//! What applications do in scenarios, and what is measured of it.

use umptcp_lab::{Experiment, Registries, Report, RunOptions};

fn parse(text: &str) -> Result<Experiment, String> {
    Experiment::parse("test.toml", text, None, &[], &Registries::default()).map_err(|e| e.to_string())
}

fn run(text: &str) -> Report {
    let experiment = parse(text).unwrap_or_else(|e| panic!("{e}"));
    experiment
        .run(&RunOptions::default(), &Registries::default(), |_, _| ())
        .unwrap_or_else(|e| panic!("{e}"))
}

/// A link of 10 Mbit/s and 20 ms, and one of 2 Mbit/s and 150 ms, with a flow over both.
fn scenario(source: &str, more: &str) -> String {
    format!(
        r#"
name = "sources"
warm-up = "2 s"
duration = "10 s"
seeds = 1

[[link]]
name = "near"
rate = "10 Mbit/s"
delay = "20 ms"

[[link]]
name = "far"
rate = "2 Mbit/s"
delay = "150 ms"

[[flow]]
name = "flow"
routes = [["near"], ["far"]]
{source}
{more}
"#
    )
}

fn value(report: &Report, quantity: &str) -> f64 {
    let found = report.points[0].value("flow", "flow", quantity);
    found.unwrap_or_else(|| panic!("{quantity} is not measured")).mean
}

#[test]
fn a_constant_rate_arrives_in_time() {
    for direction in ["up", "down"] {
        let more = format!("direction = {direction:?}");
        let source = r#"source = { kind = "constant", rate = "400 kbit/s", message = "500 B" }"#;
        let report = run(&scenario(source, &more));
        let goodput = value(&report, "goodput");
        assert!((0.396..0.404).contains(&goodput), "{goodput}");
        // 20 ms, and the transmission of a packet.
        let (p50, p95) = (value(&report, "delay-p50"), value(&report, "delay-p95"));
        assert!((20.0..22.0).contains(&p50) && p95 >= p50, "{p50} {p95}");
        let (p99, max) = (value(&report, "delay-p99"), value(&report, "delay-max"));
        assert!(p99 >= p95 && max >= p99 && max < 1_000.0, "{p99} {max}");
        // A message every 10 ms; two may be under way at the end.
        assert!((10.0..30.0).contains(&value(&report, "silence")), "{}", value(&report, "silence"));
        assert!(value(&report, "missing") <= 3.0);
    }
}

#[test]
fn what_a_dead_link_holds_back_is_late_and_the_silence_is_seen() {
    let source = r#"source = { kind = "constant", rate = "400 kbit/s", message = "500 B" }"#;
    let event = |at: &str, cut: bool| {
        format!(
            "\n[[event]]\nat = {at:?}\nlink = \"near\"\ncut = {cut}\n\n[[event]]\nat = {at:?}\nlink = \"far\"\ncut = {cut}\n"
        )
    };
    let cut = event("4 s", true);
    let report = run(&scenario(source, &format!("{cut}{}", event("5 s", false))));
    let (silence, max) = (value(&report, "silence"), value(&report, "delay-max"));
    assert!(silence > 990.0 && max > 980.0, "{silence} {max}");
    // For good: what is missing counts as what it has waited.
    let report = run(&scenario(source, &cut));
    let (silence, max) = (value(&report, "silence"), value(&report, "delay-max"));
    assert!((7_950.0..8_050.0).contains(&silence) && (7_950.0..8_050.0).contains(&max), "{silence} {max}");
    let missing = value(&report, "missing");
    assert!((795.0..=805.0).contains(&missing), "{missing}");
}

#[test]
fn bursts_wait_for_those_before_them() {
    let source = r#"source = { kind = "on-off", rate = "20 Mbit/s", message = "10 kB", on = "100 ms", off = "400 ms" }
protocol = "tcp""#;
    let report = run(&scenario(source, "").replace("[[\"near\"], [\"far\"]]", "[[\"near\"]]"));
    // 250 kB every 500 ms, which take 200 ms and their headers.
    let (goodput, max) = (value(&report, "goodput"), value(&report, "delay-max"));
    assert!((3.9..4.1).contains(&goodput), "{goodput}");
    assert!((100.0..250.0).contains(&max), "{max}");
    assert!(value(&report, "silence") > 250.0);
    // Drawn lengths differ with the seed.
    let source = source.replace("off = \"400 ms\"", "off = \"400 ms\", random = true");
    let text = scenario(&source, "").replace("[[\"near\"], [\"far\"]]", "[[\"near\"]]");
    let report = run(&text.replace("seeds = 1", "seeds = 2"));
    let goodput = report.points[0].value("flow", "flow", "goodput").unwrap();
    assert_ne!(goodput.values[0], goodput.values[1]);
}

#[test]
fn answers_pages_and_videos_are_timed() {
    let report = run(&scenario(
        r#"source = { kind = "requests", request = "100 B", response = "1 kB", pause = "50 ms" }"#,
        "",
    ));
    // A round trip: 40 ms.
    let p50 = value(&report, "delay-p50");
    assert!((40.0..44.0).contains(&p50), "{p50}");
    assert!(value(&report, "goodput") > 0.08);

    // Whoever connects asks when the other sends.
    for direction in ["up", "down"] {
        let more = format!("direction = {direction:?}");
        let page =
            r#"source = { kind = "page", objects = 12, size = "20 kB", connections = 4, every = "2 s" }"#;
        let report = run(&scenario(page, &more));
        // 240 kB in three rounds: at least 120 ms, and 192 ms of transmission over the first link alone.
        let (mean, max) = (value(&report, "page-mean"), value(&report, "page-max"));
        assert!((160.0..900.0).contains(&mean) && max >= mean, "{mean} {max}");
        // Of each connection, over the two links together.
        let total = value(&report, "total");
        assert!((0.9..1.0).contains(&total), "{total}");
        assert!((value(&report, "goodput") * 4.0 - total).abs() < 1e-9);
    }

    let video = |rate| {
        format!(r#"source = {{ kind = "video", rate = "{rate} Mbit/s", segment = "1 s", buffer = "3 s" }}"#)
    };
    let report = run(&scenario(&video(4), ""));
    assert_eq!((value(&report, "stalls"), value(&report, "stalled")), (0.0, 0.0));
    assert!((3.0..5.0).contains(&value(&report, "goodput")));
    // More than the links carry: each segment of 1 s takes longer.
    let report = run(&scenario(&video(20), ""));
    let (stalls, stalled) = (value(&report, "stalls"), value(&report, "stalled"));
    assert!((3.0..10.0).contains(&stalls) && (30.0..70.0).contains(&stalled), "{stalls} {stalled}");
}

#[test]
fn what_waits_for_others_is_measured_at_the_receiver() {
    let alone = scenario("", "").replace("[[\"near\"], [\"far\"]]", "[[\"near\"]]");
    let held = |text: &str| value(&run(text), "out-of-order-max");
    // One link that loses nothing, and then two that overtake one another.
    assert_eq!(held(&alone.replace("delay = \"20 ms\"", "delay = \"20 ms\"\nqueue = \"unlimited\"")), 0.0);
    let both = scenario("scheduler = \"round-robin\"", "");
    assert!(held(&both) > 50.0, "{}", held(&both));
    assert!(value(&run(&both), "out-of-order") > 10.0);
}

#[test]
fn mistakes_in_sources_are_named() {
    for (source, hint) in [
        (r#"source = { kind = "magic" }"#, "magic"),
        (r#"source = { kind = "constant" }"#, "rate"),
        (r#"source = { kind = "constant", rate = "1 Mbit/s", speed = 3 }"#, "speed"),
        (r#"source = { kind = "constant", rate = "1 Mbit/s", message = "0 B" }"#, "at least 1 B"),
        (r#"source = { kind = "constant", rate = "100 Gbit/s", message = "1 B" }"#, "1 us apart"),
        (r#"source = { kind = "on-off", rate = "1 Mbit/s", on = "0 s", off = "1 s" }"#, "1 ms or more"),
        (r#"source = { kind = "requests", response = "0 B" }"#, "at least 1 B"),
        (r#"source = { kind = "page", objects = 3, size = "1 kB", connections = 99 }"#, "between 1 and 32"),
        (r#"source = { kind = "page", objects = 3, size = "1 kB", every = "0 s" }"#, "1 ms or more"),
        (r#"source = { kind = "video", rate = "1 bit/s", segment = "1 s" }"#, "at least 1 B"),
        ("size = \"1 kB\"\nsource = { kind = \"requests\", response = \"1 kB\" }", "not both"),
    ] {
        let error = parse(&scenario(source, "")).unwrap_err();
        assert!(error.contains(hint), "{source}: {error}");
    }
    let many = scenario("count = 1000\nsource = { kind = \"page\", objects = 3, size = \"1 kB\" }", "");
    assert!(parse(&many).unwrap_err().contains("more than 4096 connections"));
}

/// Bursts near the rate of the better path, which fill its window: what the other path takes of them is not waited
/// for, with any scheduler that goes by time.
#[test]
fn bursts_do_not_wait_for_the_slow_path() {
    let bursts = |routes: &str, more: &str| {
        let text = format!(
            r#"
name = "bursts"
warm-up = "5 s"
duration = "10 s"
seeds = 1
link = [
    {{ name = "better", rate = "8 Mbit/s", delay = "20 ms", queue = "40 ms" }},
    {{ name = "other", rate = "2 Mbit/s", delay = "150 ms", queue = "300 ms" }},
]

[[flow]]
name = "flow"
routes = {routes}
source = {{ kind = "constant", rate = "7.2 Mbit/s", message = "64 kB" }}
{more}
"#
        );
        value(&run(&text), "delay-p99")
    };
    let alone = bursts(r#"[["better"]]"#, r#"protocol = "tcp""#);
    for scheduler in ["min-rtt", "linux", "blest", "ecf"] {
        let both = bursts(r#"[["better"], ["other"]]"#, &format!("scheduler = {scheduler:?}"));
        assert!(both <= 1.2 * alone, "{scheduler}: {both} ms, alone {alone} ms");
    }
    let interactive = "scheduler = \"interactive\"\npath-policy = \"interactive\"";
    let both = bursts(r#"[["better"], ["other"]]"#, interactive);
    assert!(both <= 1.2 * alone, "interactive: {both} ms, alone {alone} ms");
}

/// The policy for people and machines that wait for each other: a message of one kilobyte takes no longer than over
/// the better path alone, whatever the other is like and whichever of the two is first.
#[test]
fn interactive_delivers_small_messages_as_soon_as_the_better_path_alone() {
    let near = ["8 Mbit/s", "20 ms", ""];
    let far = [
        ["2 Mbit/s", "150 ms", ""],
        ["10 Mbit/s", "100 ms", ""],
        ["8 Mbit/s", "20 ms", "loss = \"1 %\""],
        ["10 Mbit/s", "25 ms", "queue = \"2 s\""],
    ];
    let scenario = |links: &[[&str; 3]], settings: &str| {
        let link = |(i, [rate, delay, more]): (usize, &[&str; 3])| {
            format!("[[link]]\nname = \"path{i}\"\nrate = {rate:?}\ndelay = {delay:?}\n{more}\n\n")
        };
        let routes: Vec<[String; 1]> = (0..links.len()).map(|i| [format!("path{i}")]).collect();
        let links: String = links.iter().enumerate().map(link).collect();
        format!(
            "name = \"messages\"\nwarm-up = \"2 s\"\nduration = \"10 s\"\nseeds = 1\n\n{links}[[flow]]\nname = \"flow\"\n\
             routes = {routes:?}\nsource = {{ kind = \"constant\", rate = \"1 Mbit/s\", message = \"1 kB\" }}\n{settings}\n"
        )
    };
    let delays = |text: &str| {
        let report = run(text);
        ["delay-p50", "delay-p99", "delay-max"].map(|quantity| value(&report, quantity))
    };
    let alone = delays(&scenario(&[near], "protocol = \"tcp\""));
    for far in far {
        for links in [[near, far], [far, near]] {
            let both = delays(&scenario(&links, "path-policy = \"interactive\""));
            let within = both.iter().zip(&alone).all(|(both, alone)| *both <= 1.2 * alone);
            assert!(within, "{both:?} ms, alone {alone:?} ms: {links:?}");
        }
    }
}
