//! The laboratory: reading scenarios, running them, and what comes out.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use umptcp_netsim::lab::{CSV_COLUMNS, Experiment, FORMAT, Registries, Report, RunOptions};

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
    let start = format!("{FORMAT},{},two-links,{},rate=5,5,", env!("CARGO_PKG_VERSION"), report.hash);
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
fn mistakes_are_named_with_line_and_field() {
    for (from, to, line, hint) in [
        ("\"10 ms\"", "\"10\"", 13, "no unit"),
        ("delay = \"10 ms\"", "delai = \"10 ms\"", 13, "delai"),
        ("[\"b\"]]\ndirection", "[\"c\"]]\ndirection", 24, "\"c\" does not exist; there are: a, b"),
        ("name = \"b\"", "name = \"a\"", 16, "two links"),
        ("direction = \"down\"", "congestion = \"magic\"", 25, "none of: lia"),
        ("direction = \"down\"", "scheduler = \"magic\"", 25, "none of: min-rtt"),
        ("direction = \"down\"", "direction = \"left\"", 25, "up, down"),
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
                assert!(row.summary.mean > 0.0, "{name} {}: {} got nothing", point.name(), row.name);
            }
        }
    }
}
