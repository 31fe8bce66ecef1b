//! Reading scenarios, running them, and what comes out.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use umptcp_lab::{CSV_COLUMNS, Experiment, FORMAT, Registries, Report, RunOptions};
use umptcp_netsim::capture::Capture;

const TWO_LINKS: &str = r#"
name = "two-links"
warm-up = "1 s"
duration = "3 s"
seeds = [4, 9]

[parameters]
rate = [5, 10]

[[link]]
name = "a"
rate = "10 Mbit/s"
delay = "10 ms"

[[link]]
name = "b"
rate = "${rate} Mbit/s"
delay = "20 ms"
queue = "50 ms"
loss = { mean = "0.5 %", burst = 2 }

[[flow]]
name = "both"
routes = [["a"], ["b"]]
direction = "down"
spread = "100 ms"

[[flow]]
name = "file"
count = 2
protocol = "tcp"
routes = [["b"]]
size = "100 kB"

[[reference]]
flow = "both"
published = 9.0
tolerance = "90 %"
"#;

fn parse(text: &str) -> Result<Experiment, String> {
    Experiment::parse("test.toml", text, None, &[], &Registries::default()).map_err(|e| e.to_string())
}

fn run(experiment: &Experiment, options: &RunOptions) -> Report {
    experiment.run(options, &Registries::default(), |_, _| ()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn both_links_are_used_and_results_do_not_depend_on_the_number_of_threads() {
    let experiment = parse(TWO_LINKS).unwrap();
    assert_eq!(experiment.point_names(), ["rate=5", "rate=10"]);
    let one = run(&experiment, &RunOptions { threads: 1, ..RunOptions::default() });
    let two = run(&experiment, &RunOptions { threads: 3, ..RunOptions::default() });
    assert_eq!(one.csv(), two.csv());
    assert_eq!(one.json(), two.json());
    let goodput = |i: usize| one.points[i].value("flow", "both", "goodput").unwrap();
    assert!(goodput(0).mean > 9.0 && goodput(0).mean < 15.0, "{:?}", goodput(0));
    assert!(goodput(1).mean > goodput(0).mean, "{:?}", goodput(1));
    assert_eq!(goodput(0).values.len(), 2);
    let completion = one.points[0].value("flow", "file", "completion").unwrap();
    assert!(completion.mean > 0.1 && completion.mean < 3.0, "{completion:?}");
    let loss = one.points[0].value("link", "b", "random-loss").unwrap();
    assert!(loss.mean > 0.0 && loss.mean < 2.0, "{loss:?}");
    assert!(one.points[0].comparisons[0].agrees());
    assert!(one.table(true).contains("both goodput"), "{}", one.table(true));
}

#[test]
fn every_number_of_every_run_is_in_the_csv_with_version_seed_and_hash() {
    let experiment = parse(TWO_LINKS).unwrap();
    let report = run(&experiment, &RunOptions { seeds: Some(vec![5]), ..RunOptions::default() });
    let csv = report.csv();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some(CSV_COLUMNS));
    let columns = CSV_COLUMNS.split(',').count();
    let start = format!("{FORMAT},{},two-links,{},rate=5,1,3,5,5,", env!("CARGO_PKG_VERSION"), report.hash);
    let first = lines.next().unwrap();
    assert!(first.starts_with(&start), "{first}");
    assert_eq!(report.hash.len(), 16);
    let rows: usize = report.points.iter().map(|p| p.rows.len()).sum();
    assert_eq!(lines.clone().count() + 1, rows);
    assert!(lines.all(|l| l.split(',').count() == columns));
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["format"], FORMAT);
    assert_eq!(json["hash"], report.hash.as_str());
    assert_eq!(json["points"][1]["parameters"]["rate"], "10");
    assert_eq!(json["points"][0]["rows"].as_array().unwrap().len(), report.points[0].rows.len());
    let series = report.series_csv();
    assert!(series.lines().count() > 500 && series.contains(",subflow,both.1/2,rtt,ms,"));
    // Another seed, other numbers; another text, another hash.
    let other = run(&experiment, &RunOptions { seeds: Some(vec![6]), ..RunOptions::default() });
    assert_ne!(other.csv(), csv);
    let changed = parse(&TWO_LINKS.replace("20 ms", "21 ms")).unwrap();
    let short =
        RunOptions { seeds: Some(vec![1]), duration: Some(Duration::from_secs(1)), ..RunOptions::default() };
    assert_ne!(run(&changed, &short).hash, report.hash);
}

#[test]
fn duration_warm_up_and_seeds_are_in_the_hash() {
    let experiment = parse(&TWO_LINKS.replace("[5, 10]", "5")).unwrap();
    let short = RunOptions {
        warm_up: Some(Duration::from_millis(100)),
        duration: Some(Duration::from_millis(200)),
        seeds: Some(vec![1]),
        ..RunOptions::default()
    };
    let hash = |options: RunOptions| run(&experiment, &options).hash;
    let mut hashes = vec![
        hash(RunOptions::default()),
        hash(short.clone()),
        hash(RunOptions { warm_up: Some(Duration::from_millis(101)), ..short.clone() }),
        hash(RunOptions { duration: Some(Duration::from_millis(201)), ..short.clone() }),
        hash(RunOptions { seeds: Some(vec![1, 2, 3, 7]), ..short.clone() }),
    ];
    // What the scenario says itself is no difference.
    let same = RunOptions {
        warm_up: Some(Duration::from_secs(1)),
        duration: Some(Duration::from_secs(3)),
        seeds: Some(vec![4, 9]),
        ..RunOptions::default()
    };
    assert_eq!(hash(same), hashes[0]);
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 5);
    let csv = run(&experiment, &RunOptions { seeds: Some(vec![1, 2, 3, 7]), ..short }).csv();
    assert!(csv.lines().nth(1).unwrap().contains(",rate=5,0.1,0.2,1-3;7,1,"), "{csv}");
}

#[test]
fn a_run_that_is_stopped_has_what_was_complete() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let experiment = parse(TWO_LINKS).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let options = RunOptions { threads: 1, stop: Some(stop.clone()), ..RunOptions::default() };
    let report = experiment
        .run(&options, &Registries::default(), |done, _| stop.store(done == 3, Ordering::Relaxed))
        .unwrap();
    assert_eq!(report.runs, (3, 4));
    assert_eq!(report.points.iter().map(|p| &p.seeds[..]).collect::<Vec<_>>(), [&[4, 9][..], &[4]]);
    assert_eq!(report.notes(), ["stopped: 3 of 4 runs are in these results"]);
    assert!(report.table(false).contains("3 of 4 runs") && report.html().unwrap().contains("3 of 4 runs"));
    assert!(report.json().contains("3 of 4 runs") && report.markdown("f").unwrap().0.contains("3 of 4 runs"));
    assert_eq!(report.hash, run(&experiment, &RunOptions::default()).hash);
    // Before the first: nothing, but no error.
    let options = RunOptions { stop: Some(Arc::new(AtomicBool::new(true))), ..RunOptions::default() };
    let report = run(&experiment, &options);
    assert!(report.points.is_empty() && report.html().is_ok() && report.markdown("f").is_ok());
    assert_eq!(report.csv().lines().count(), 1);
}

#[test]
fn seeds_that_change_nothing_are_noted() {
    let text = TWO_LINKS.replace("[5, 10]", "5").replace("loss = { mean = \"0.5 %\", burst = 2 }\n", "");
    let notes = |text: &str| run(&parse(text).unwrap(), &RunOptions::default()).notes();
    assert_eq!(notes(&TWO_LINKS.replace("[5, 10]", "5")), [""; 0]);
    let same = notes(&text.replace("spread = \"100 ms\"\n", ""));
    assert!(same.len() == 1 && same[0].starts_with("the seeds change nothing:"), "{same:?}");
    // Of one combination only.
    let text = text.replace("spread = \"100 ms\"", "spread = \"${spread} ms\"");
    let same = notes(&text.replace("rate = 5", "rate = 5\nspread = [0, 100]"));
    assert!(same.len() == 1 && same[0].contains("nothing with rate=5,spread=0:"), "{same:?}");
    let one = text.replace("rate = 5", "rate = 5\nspread = 0").replace("[4, 9]", "1");
    assert_eq!(notes(&one), [""; 0]);
}

#[test]
fn mistakes_are_named_with_line_and_field() {
    for (from, to, line, hint) in [
        ("\"10 ms\"", "\"10\"", 13, "no unit"),
        ("delay = \"10 ms\"", "delai = \"10 ms\"", 13, "delai"),
        ("[\"b\"]]\ndirection", "[\"c\"]]\ndirection", 24, "\"c\" does not exist; there are: a, b"),
        ("name = \"b\"", "name = \"a\"", 16, "two links"),
        ("direction = \"down\"", "congestion = \"magic\"", 25, "none of: lia"),
        ("direction = \"down\"", "scheduler = \"magic\"", 25, "none of: min-rtt"),
        ("direction = \"down\"", "direction = \"left\"", 25, "up, down"),
        ("direction = \"down\"", "receive-buffer = \"automatic\"", 25, "does not start with a number"),
        ("direction = \"down\"", "receive-buffer = 5", 25, "\"auto\""),
        (
            "protocol = \"tcp\"\nroutes = [[\"b\"]]",
            "protocol = \"tcp\"\nroutes = [[\"b\"], [\"a\"]]",
            29,
            "one route",
        ),
        ("queue = \"50 ms\"", "queue = \"50 hours\"", 19, "queue"),
        ("duration = \"3 s\"", "duration = \"0 s\"", 4, "duration"),
        ("mean = \"0.5 %\"", "mean = \"999 %\"", 20, "loss"),
        ("seeds = [4, 9]", "seeds = [4, 4]", 5, "seeds"),
        ("flow = \"both\"", "flow = \"neither\"", 36, "neither"),
        ("published = 9.0", "quantity = \"speed\"\npublished = 9.0", 37, "speed"),
        ("${rate}", "${speed}", 0, "\"rate\" is used nowhere"),
        ("delay = \"10 ms\"", "delay = \"${x} ms\"", 13, "does not start with a number"),
        ("name = \"two-links\"", "name = two-links", 2, "name = two-links"),
    ] {
        let text = TWO_LINKS.replacen(from, to, 1);
        assert_ne!(text, TWO_LINKS, "{from}");
        let error = parse(&text).unwrap_err();
        let place = if line == 0 { "test.toml: ".to_string() } else { format!("test.toml:{line}: ") };
        assert!(error.starts_with(&place) && error.contains(hint), "{to}: {error}");
    }
    let unknown = [("speed".to_string(), "1".to_string())];
    let error = Experiment::parse("t", TWO_LINKS, None, &unknown, &Registries::default()).unwrap_err();
    assert!(error.to_string().contains("there are: rate"), "{error}");
}

/// A buffer that may tune itself gives what a large one does, and one that may not grow as far less.
#[test]
fn buffers_may_tune_themselves() {
    let goodput = |size: &str| {
        let text = format!("direction = \"down\"\nsend-buffer = \"{size}\"\nreceive-buffer = \"{size}\"");
        let experiment = parse(&TWO_LINKS.replacen("direction = \"down\"", &text, 1)).unwrap();
        let report = run(&experiment, &RunOptions { threads: 2, ..RunOptions::default() });
        report.points[1].value("flow", "both", "goodput").unwrap().mean
    };
    let [fixed, automatic, bounded] = ["4 MiB", "auto", "auto 16 KiB"].map(goodput);
    assert!(automatic > 0.9 * fixed && bounded < 0.7 * fixed, "{fixed} {automatic} {bounded}");
}

#[test]
fn parameters_can_be_set() {
    let set = [("rate".to_string(), "1,2,3".to_string())];
    let experiment = Experiment::parse("t", TWO_LINKS, None, &set, &Registries::default()).unwrap();
    assert_eq!(experiment.point_names(), ["rate=1", "rate=2", "rate=3"]);
}

/// The scenarios that the repository ships.
fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .collect();
    files.sort();
    files
}

#[test]
fn shipped_scenarios_run() {
    let files = shipped();
    assert!(files.len() >= 3, "{files:?}");
    let registries = Registries::default();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let experiment = Experiment::parse(name, &text, file.parent(), &[], &registries).unwrap();
        assert_eq!(experiment.name(), name);
        let options = RunOptions {
            seeds: Some(vec![1]),
            warm_up: Some(Duration::from_secs(5)),
            duration: Some(Duration::from_secs(5)),
            ..RunOptions::default()
        };
        let report = run(&experiment, &options);
        for point in &report.points {
            for row in point.rows.iter().filter(|r| r.object == "flow" && r.quantity == "goodput") {
                // Its TCP connections come later than this.
                if name == "responsiveness" && row.name == "tcp" {
                    continue;
                }
                assert!(row.summary.mean > 0.0, "{name} {}: {} got nothing", point.name(), row.name);
            }
        }
    }
}

#[test]
fn a_page_and_figures_need_nothing_else() {
    let experiment = parse(&TWO_LINKS.replace("[5, 10]", "5")).unwrap();
    let report = run(&experiment, &RunOptions { seeds: Some(vec![1]), ..RunOptions::default() });
    let figures = report.figures().unwrap();
    let names: Vec<&str> = figures.iter().map(|f| f.name.as_str()).collect();
    for kind in ["subflow-throughput", "subflow-window", "subflow-rtt", "subflow-data-sequence", "link-queue"]
    {
        assert!(names.contains(&format!("two-links_rate=5_{kind}").as_str()), "{names:?}");
    }
    for figure in &figures {
        assert!(figure.svg.starts_with("<svg") && figure.svg.contains("<polyline"), "{}", figure.name);
    }
    let html = report.html().unwrap();
    for reference in ["src=", "href=\"http", "<link", "@import"] {
        assert!(!html.contains(reference), "{reference}");
    }
    assert_eq!(html.matches("<svg").count(), figures.len() + 1);
    let (section, used) = report.markdown("folder").unwrap();
    for figure in used {
        assert!(section.contains(&format!("](folder/{}.svg)", figure.name)));
    }
}

/// The blocks of a pcapng file: type and body.
fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let word = |b: &[u8], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    let mut found = Vec::new();
    while !file.is_empty() {
        let len = word(file, 4) as usize;
        assert_eq!(word(file, len - 4) as usize, len);
        found.push((word(file, 0), file[8..len - 4].to_vec()));
        file = &file[len..];
    }
    found
}

/// Bytes that can be read after their writer has gone.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_capture_has_every_packet_of_the_links_asked_for() {
    let experiment = parse(&TWO_LINKS.replace("[5, 10]", "5")).unwrap();
    assert_eq!(experiment.links(), ["a", "b"]);
    let (file, options) = (Shared::default(), RunOptions { seeds: Some(vec![3]), ..RunOptions::default() });
    let (capture, status) = Capture::new(file.clone(), &[None, Some("b")], "a comment").unwrap();
    experiment.capture(0, &options, &Registries::default(), Box::new(capture)).unwrap();
    status.check().unwrap();
    let file = file.0.lock().unwrap();
    let blocks = blocks(&file);
    assert_eq!(blocks.iter().map(|b| b.0).take(3).collect::<Vec<_>>(), [0x0a0d_0d0a, 1, 6]);
    assert!(blocks[0].1.windows(9).any(|w| w == b"a comment"));
    // Joins, and two connections of plain TCP: 4 s of at most 5 Mbit/s and the acknowledgements.
    let packets: Vec<&[u8]> = blocks[2..].iter().map(|b| &b.1[20..]).collect();
    assert!(packets.len() > 500 && packets.iter().all(|p| p[0] == 0x45 && p[9] == 6), "{}", packets.len());
    // A full disk is reported.
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(Capture::new(Full, &[Some("a")], "").is_err());
}

#[test]
fn algorithm_and_scheduler_change_while_a_connection_runs() {
    let events = "
[[event]]
at = \"2 s\"
flow = \"both\"
congestion = \"olia\"
scheduler = \"round-robin\"

[[event]]
at = \"2500 ms\"
link = \"a\"
cut = true
";
    let text = format!("{}{events}", TWO_LINKS.replace("[5, 10]", "5"));
    let report = run(&parse(&text).unwrap(), &RunOptions { seeds: Some(vec![1]), ..RunOptions::default() });
    let without = parse(&TWO_LINKS.replace("[5, 10]", "5")).unwrap();
    let without = run(&without, &RunOptions { seeds: Some(vec![1]), ..RunOptions::default() });
    let rate = |r: &Report| r.points[0].value("flow", "both", "goodput").unwrap().mean;
    // One link of two for half of the time: less, but it goes on.
    assert!(rate(&report) < rate(&without) && rate(&report) > 4.0, "{} {}", rate(&report), rate(&without));
    for (event, hint) in [
        ("at = \"1 s\"\nflow = \"both\"\ncongestion = \"magic\"", "none of: lia"),
        ("at = \"1 s\"\nflow = \"both\"\ncut = true", "it needs a link"),
        ("at = \"1 s\"\nlink = \"z\"\ncut = true", "\"z\" does not exist"),
    ] {
        let error = parse(&format!("{TWO_LINKS}\n[[event]]\n{event}\n")).unwrap_err();
        assert!(error.contains(hint), "{error}");
    }
}

/// Two connections share a link whose RED or CoDel would drop; with ECN at both ends and on the link it marks
/// instead.
#[test]
fn connections_with_ecn_are_marked_and_lose_nothing() {
    for aqm in [
        r#"{ kind = "red", curve = [[25, 0], [50, 0.1], [100, 1]], per = "10 Mbit/s" }"#,
        r#"{ kind = "codel" }"#,
    ] {
        let text = |ecn: bool, protocol: &str| {
            format!(
                r#"
name = "marks"
warm-up = "5 s"
duration = "20 s"
seeds = 1

[[link]]
name = "bottleneck"
rate = "10 Mbit/s"
delay = "20 ms"
aqm = {aqm}
ecn = true

[[flow]]
name = "pair"
count = 2
protocol = "{protocol}"
congestion = "reno"
routes = [["bottleneck"]]
ecn = {ecn}
"#
            )
        };
        for protocol in ["tcp", "mptcp"] {
            let value = |ecn: bool, object: &str, name: &str, quantity: &str| {
                let report = run(&parse(&text(ecn, protocol)).unwrap(), &RunOptions::default());
                report.points[0].value(object, name, quantity).unwrap().mean
            };
            let marked = |ecn| value(ecn, "link", "bottleneck", "marked");
            let lost = |ecn| value(ecn, "link", "bottleneck", "congestion-loss");
            let repeated = |ecn| value(ecn, "flow", "pair", "retransmitted");
            let what = format!("{aqm}, {protocol}");
            assert!(
                marked(true) > 0.05 && marked(false) == 0.0,
                "{what}: {} {}",
                marked(true),
                marked(false)
            );
            assert!(lost(true) == 0.0 && lost(false) > 0.05, "{what}: {} {}", lost(true), lost(false));
            assert!(
                repeated(true) == 0.0 && repeated(false) > 0.0,
                "{what}: {} {}",
                repeated(true),
                repeated(false)
            );
            // Marks are obeyed: the link is full and the queue is not.
            assert!(value(true, "link", "bottleneck", "utilisation") > 90.0, "{what}");
            assert!(value(true, "link", "bottleneck", "queue") < 60.0, "{what}");
        }
    }
}
