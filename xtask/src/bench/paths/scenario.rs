//! Scenarios of the benchmark as text, and what `umptcp emulate` makes of them.

use super::Stack;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A path: Mbit/s, ms one way, and what else stands in the text of its link.
#[derive(Clone, Copy)]
pub(super) struct PathText {
    pub(super) name: &'static str,
    pub(super) rate: u32,
    pub(super) delay: u32,
    /// ms; `None`: one bandwidth-delay product.
    pub(super) queue: Option<u32>,
    /// %.
    pub(super) loss: u32,
}

impl PathText {
    pub(super) const fn new(name: &'static str, rate: u32, delay: u32) -> PathText {
        PathText { name, rate, delay, queue: None, loss: 0 }
    }

    /// Its round-trip time without queues.
    pub(super) fn round_trip(&self) -> Duration {
        Duration::from_millis(u64::from(2 * self.delay))
    }
}

/// A scenario that is being written.
pub(super) struct ScenarioText {
    text: String,
}

impl ScenarioText {
    /// Measured for `duration` after `warm_up`, with that seed.
    pub(super) fn new(name: &str, seed: u16, warm_up: Duration, duration: Duration) -> ScenarioText {
        let [warm_up, duration] = [warm_up, duration].map(|t| t.as_millis());
        let text = format!(
            "name = {name:?}\nwarm-up = \"{warm_up} ms\"\nduration = \"{duration} ms\"\nseeds = [{seed}]\nsample = \"50 ms\"\n"
        );
        ScenarioText { text }
    }

    /// A flow over links of its own, called `FLOW-PATH`. `fields` are lines of its text.
    pub(super) fn flow(&mut self, name: &str, paths: &[PathText], fields: &[&str]) {
        for PathText { name: path, rate, delay, queue, loss } in paths {
            let queue = queue.unwrap_or(2 * delay);
            let _ = writeln!(
                self.text,
                "\n[[link]]\nname = \"{name}-{path}\"\nrate = \"{rate} Mbit/s\"\ndelay = \"{delay} ms\"\nqueue = \"{queue} ms\"\nloss = \"{loss} %\""
            );
        }
        let routes: Vec<String> = paths.iter().map(|p| format!("[\"{name}-{}\"]", p.name)).collect();
        let _ = writeln!(self.text, "\n[[flow]]\nname = \"{name}\"\nroutes = [{}]", routes.join(", "));
        for field in fields {
            let _ = writeln!(self.text, "{field}");
        }
    }

    /// An event, or how long something takes to recover: the lines of its text.
    pub(super) fn table(&mut self, kind: &str, fields: &[&str]) {
        let _ = writeln!(self.text, "\n[[{kind}]]\n{}", fields.join("\n"));
    }

    /// All of it.
    #[cfg(test)]
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Runs it over a stack.
    pub(super) fn emulate(&self, program: &Path, stack: Stack) -> Result<Outcome> {
        let file = std::env::temp_dir().join(format!("umptcp-bench-paths-{}.toml", std::process::id()));
        std::fs::write(&file, &self.text).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new(program);
        command.args(["emulate", "--quiet", "--json", "-", "--stack", stack.name()]).arg(&file);
        let output = command.stdin(Stdio::null()).output().context("cannot start the emulation");
        let _ = std::fs::remove_file(&file);
        let output = output?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("the emulation failed: {}", said.trim());
        }
        let report: Value = serde_json::from_slice(&output.stdout).context("the results are not JSON")?;
        if let Some(note) = report["notes"].as_array().and_then(|notes| notes.first()) {
            bail!("{note}");
        }
        Ok(Outcome(report))
    }
}

/// What came out of a run.
pub(super) struct Outcome(Value);

impl Outcome {
    /// A value of a flow, in the units of `umptcp emulate`. It may be `NaN`: there is none.
    pub(super) fn flow(&self, name: &str, quantity: &str) -> Result<f64> {
        let rows = self.rows("flow", name, quantity);
        rows.first().copied().with_context(|| format!("there is no {quantity} of {name}"))
    }

    /// The times that a flow took to recover, in the order of the scenario, in seconds. `NaN`: it did not.
    pub(super) fn recoveries(&self, name: &str) -> Vec<f64> {
        self.rows("recovery", name, "time")
    }

    fn rows(&self, object: &str, name: &str, quantity: &str) -> Vec<f64> {
        let rows = self.0["points"][0]["rows"].as_array();
        let wanted = |r: &&Value| r["object"] == object && r["name"] == name && r["quantity"] == quantity;
        let value = |r: &Value| r["mean"].as_f64().unwrap_or(f64::NAN);
        rows.into_iter().flatten().filter(wanted).map(value).collect()
    }
}
