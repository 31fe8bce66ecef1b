//! `umptcp sim`: options, output files, errors.

mod common;

use common::{Output, TempDir, run, umptcp};
use std::path::{Path, PathBuf};

const SCENARIO: &str = r#"
name = "small"
warm-up = "500 ms"
duration = "1 s"
seeds = 2

[parameters]
rate = [2, 4]

[[link]]
name = "a"
rate = "${rate} Mbit/s"
delay = "5 ms"

[[link]]
name = "b"
rate = "2 Mbit/s"
delay = "10 ms"
loss = "0.5 %"

[[flow]]
name = "both"
routes = [["a"], ["b"]]
"#;

/// A directory with the scenario, after replacing `from` by `to`, in `small.toml`.
fn scenario(from: &str, to: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new("sim");
    let file = dir.path().join("small.toml");
    let text = SCENARIO.replacen(from, to, 1);
    assert!(from == to || text != SCENARIO, "{from:?} is not in the scenario");
    std::fs::write(&file, text).unwrap();
    (dir, file)
}

fn sim(file: &Path, arguments: &[&str]) -> Output {
    run(umptcp().arg("sim").arg("--quiet").arg(file).args(arguments))
}

fn good(file: &Path, arguments: &[&str]) -> Output {
    let out = sim(file, arguments);
    assert_eq!(out.code, 0, "{arguments:?}: {}", out.stderr);
    out
}

/// The distinct values of a CSV column, sorted.
fn column(csv: &str, name: &str) -> Vec<String> {
    let mut lines = csv.lines();
    let at = lines.next().unwrap().split(',').position(|c| c == name).unwrap();
    let mut values: Vec<String> = lines.map(|l| l.split(',').nth(at).unwrap().to_owned()).collect();
    values.sort_unstable();
    values.dedup();
    values
}

#[test]
fn a_table_shows_every_combination_and_check_runs_nothing() {
    let (_dir, file) = scenario("", "");
    let out = good(&file, &["--seeds", "1"]);
    for part in ["rate=2", "rate=4", "both", "goodput", "Mbit/s"] {
        assert!(out.stdout.contains(part), "{part} is missing:\n{}", out.stdout);
    }
    assert!(!out.stdout.contains("utilisation"), "{}", out.stdout);
    assert!(good(&file, &["--seeds", "1", "--all"]).stdout.contains("utilisation"));
    // Run time goes to the terminal, not to the results.
    let out = run(umptcp().arg("sim").arg(&file).args(["--seeds", "1", "--csv", "-"]));
    assert!(out.stderr.contains("small: 2 run(s) in ") && !out.stdout.contains("run(s)"), "{}", out.stderr);
    let out = good(&file, &["--check"]);
    assert_eq!(out.stderr, "");
    assert!(
        out.stdout.contains("valid; 2 combination(s)") && !out.stdout.contains("goodput"),
        "{}",
        out.stdout
    );
}

#[test]
fn csv_and_json_name_format_version_scenario_hash_and_seed() {
    let (dir, file) = scenario("", "");
    let csv = good(&file, &["--csv", "-"]).stdout;
    let columns = "format,version,scenario,hash,parameters,warm_up_s,duration_s,seeds,seed,object,name,quantity,unit,value";
    assert_eq!(csv.lines().next(), Some(columns));
    assert_eq!(column(&csv, "format"), ["umptcp-sim/2"]);
    assert_eq!(column(&csv, "version"), [env!("CARGO_PKG_VERSION")]);
    assert_eq!(column(&csv, "scenario"), ["small"]);
    assert_eq!(column(&csv, "seed"), ["1", "2"]);
    assert_eq!(column(&csv, "seeds"), ["1-2"]);
    assert_eq!(column(&csv, "warm_up_s"), ["0.5"]);
    assert_eq!(column(&csv, "duration_s"), ["1"]);
    assert_eq!(column(&csv, "parameters"), ["rate=2", "rate=4"]);
    let hash = column(&csv, "hash");
    assert!(
        hash.len() == 1 && hash[0].len() == 16 && hash[0].bytes().all(|b| b.is_ascii_hexdigit()),
        "{hash:?}"
    );

    let path = dir.path().join("out.json");
    let out = good(&file, &["--json", path.to_str().unwrap()]);
    assert!(out.stdout.contains("goodput"), "the table is still shown: {}", out.stdout);
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(json["format"], "umptcp-sim/2");
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["hash"], hash[0].as_str());
    assert_eq!(json["points"].as_array().unwrap().len(), 2);
    let rows = json["points"][0]["rows"].as_array().unwrap();
    assert!(rows.iter().all(|r| r["unit"].is_string() && r["quantity"].is_string()), "{rows:?}");
}

#[test]
fn the_same_seeds_give_the_same_numbers_and_others_do_not() {
    let (_dir, file) = scenario("", "");
    let csv = |arguments: &[&str]| good(&file, &[&["--csv", "-"], arguments].concat()).stdout;
    let one = csv(&["--threads", "1"]);
    assert_eq!(one, csv(&["--threads", "2"]));
    // Seeds 1 to N. The results of a seed do not depend on the others.
    let three = csv(&["--seeds", "3"]);
    assert_eq!(column(&three, "seed"), ["1", "2", "3"]);
    let of = |csv: &str, seed: &str| -> Vec<String> {
        let part = format!(",{seed},");
        let of = csv.lines().filter(|l| l.contains("rate=2,") && l.contains(&part));
        // Beside the hash and the list of seeds.
        of.map(|l| l.split(&part).last().unwrap().to_owned()).collect()
    };
    assert_eq!(of(&one, "2"), of(&three, "2"));
    let values = |seed| -> Vec<String> {
        of(&three, seed).iter().map(|l| l.rsplit(',').next().unwrap().to_owned()).collect()
    };
    assert_ne!(values("1"), values("2"));
}

#[test]
fn a_sweep_replaces_the_scenarios_values() {
    let (_dir, file) = scenario("", "");
    let csv = good(&file, &["--csv", "-", "--seeds", "1", "--set", "rate=1,3,5"]).stdout;
    assert_eq!(column(&csv, "parameters"), ["rate=1", "rate=3", "rate=5"]);
    // Overridden parameters are part of the scenario's hash.
    let unset = good(&file, &["--csv", "-", "--seeds", "1"]).stdout;
    assert_ne!(column(&csv, "hash"), column(&unset, "hash"));
}

#[test]
fn series_figures_page_chapter_and_capture_are_written() {
    let (dir, file) = scenario("[2, 4]", "2");
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let [series, page, chapter, pcap, figures] =
        ["series.csv", "page.html", "chapter.md", "out.pcapng", "figures"].map(at);
    good(
        &file,
        &[
            "--seeds",
            "1",
            "--series",
            &series,
            "--html",
            &page,
            "--markdown",
            &chapter,
            "--pcap",
            &pcap,
            "--pcap-link",
            "a",
            "--figures",
            &figures,
        ],
    );
    let text = |name: &str| String::from_utf8(std::fs::read(name).unwrap()).unwrap();
    assert!(text(&series).lines().next().unwrap().contains("time_s"), "{}", text(&series));
    assert!(text(&page).contains("<svg") && !text(&page).contains("<script src"));
    assert!(text(&chapter).contains("small.toml") || text(&chapter).contains("both"), "{}", text(&chapter));
    // The magic of a pcapng section header.
    assert_eq!(std::fs::read(&pcap).unwrap()[..4], [0x0a, 0x0d, 0x0d, 0x0a]);
    let svgs = std::fs::read_dir(&figures).unwrap().map(|e| e.unwrap().path());
    assert!(svgs.filter(|p| p.extension().is_some_and(|e| e == "svg")).count() >= 3);
}

/// Each line: a change of the scenario, arguments, exit code, and what the message must contain.
#[test]
fn mistakes_are_named() {
    for (from, to, arguments, code, names) in [
        ("name = \"both\"", "name = \"both\"\nscheduler = \"best\"", "", 2, "\"best\" is none of: min-rtt"),
        ("name = \"both\"", "name = \"both\"\ncongestion = \"bbr\"", "", 2, "\"bbr\" is none of: lia"),
        ("[[\"a\"], [\"b\"]]", "[[\"a\"], [\"c\"]]", "", 2, "\"c\" does not exist; there are: a, b"),
        ("delay = \"5 ms\"", "delay = \"5\"", "", 2, "small.toml:13: "),
        ("duration = \"1 s\"", "durration = \"1 s\"", "", 2, "durration"),
        ("", "", "--set speed=3", 2, "there are: rate"),
        ("", "", "--set rate", 2, "NAME=VALUE"),
        ("", "", "--set rate=fast", 2, "small.toml"),
        ("", "", "--seeds 0", 2, "--seeds"),
        ("", "", "--duration soon", 2, "--duration"),
        ("", "", "--pcap-link a", 2, "--pcap"),
        ("", "", "--seeds 1 --pcap /dev/null --pcap-link c", 2, "the links are: a, b"),
        ("", "", "--seeds 1 --csv /proc/nowhere/x", 1, "/proc/nowhere/x"),
    ] {
        let (_dir, file) = scenario(from, to);
        let out = sim(&file, &arguments.split_whitespace().collect::<Vec<_>>());
        assert_eq!(out.code, code, "{to} {arguments}: {}", out.stderr);
        assert!(out.stderr.contains(names), "{to} {arguments}: {names:?} is missing in\n{}", out.stderr);
    }
    let out = run(umptcp().args(["sim", "/nowhere/scenario.toml"]));
    assert_eq!(out.code, 1);
    assert!(out.stderr.contains("cannot read /nowhere/scenario.toml"), "{}", out.stderr);
    let out = run(umptcp().arg("sim"));
    assert!(out.code == 2 && out.stderr.contains("SCENARIO"), "{}", out.stderr);
    // Two scenarios cannot be written to one file.
    let (_dir, file) = scenario("", "");
    let out = run(umptcp().arg("sim").arg(&file).arg(&file).args(["--csv", "-"]));
    assert!(out.code == 2 && out.stderr.contains("take one scenario"), "{}", out.stderr);
}

#[test]
fn strict_fails_when_a_published_value_is_missed() {
    let reference =
        |value: &str| format!("routes = [[\"a\"], [\"b\"]]\n\n[[reference]]\nflow = \"both\"\n{value}\n");
    let (_dir, file) = scenario("routes = [[\"a\"], [\"b\"]]\n", &reference("published = 900"));
    assert_eq!(sim(&file, &["--seeds", "1"]).code, 0);
    let out = sim(&file, &["--seeds", "1", "--strict"]);
    assert!(out.code == 1 && out.stderr.contains("2 result(s) disagree"), "{}", out.stderr);
    let (_dir, file) = scenario("routes = [[\"a\"], [\"b\"]]\n", &reference("at-least = 0.5"));
    good(&file, &["--seeds", "1", "--strict"]);
}

#[test]
fn seeds_that_change_nothing_are_noted() {
    let (_dir, file) = scenario("loss = \"0.5 %\"\n", "");
    let out = good(&file, &[]);
    assert!(out.stderr.contains("small: note: the seeds change nothing"), "{}", out.stderr);
    assert!(out.stdout.contains("note: the seeds change nothing"), "{}", out.stdout);
    let (_dir, file) = scenario("", "");
    let out = good(&file, &[]);
    assert!(!out.stderr.contains("note") && !out.stdout.contains("note"), "{}{}", out.stderr, out.stdout);
}

#[cfg(unix)]
#[test]
fn what_is_complete_when_a_signal_comes_is_written() {
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    // Hours of simulation, of which the first runs are done within seconds, however many a busy machine takes.
    let (dir, file) = scenario("rate = [2, 4]", "rate = [2, 4, 5]");
    let csv = dir.path().join("out.csv");
    for seconds in [1, 4, 16, 60] {
        let mut command = umptcp();
        command.arg("sim").arg(&file).args(["--seeds", "10000", "--threads", "1", "--csv"]).arg(&csv);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let said: Vec<String> =
            BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(2), "{status:?} {said:?}");
        let noted = |l: &String| l.contains("note: stopped: ") && l.contains("of 30000 runs");
        assert!(said.iter().any(noted), "{said:?}");
        let text = std::fs::read_to_string(&csv).unwrap();
        if text.lines().count() > 1 {
            assert_eq!(column(&text, "parameters"), ["rate=2"]);
            return;
        }
    }
    panic!("no run was complete within a minute");
}
