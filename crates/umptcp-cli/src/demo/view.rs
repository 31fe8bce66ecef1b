//! Output of the demo: progress as bars, and a table at the end.

use super::plan::Plan;
use crate::bench::meter::Interval;
use crate::{console, units};

/// Length of the bar when all links are full.
const BAR: usize = 50;
/// One per NIC.
const MARKS: [char; 2] = ['#', '='];

/// Result of one of the transfers.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) seconds: f64,
    /// Bytes per NIC, in the plan's order.
    pub(super) by_nic: Vec<u64>,
    pub(super) intact: bool,
}

/// Prints the demo's output.
pub(super) struct View<'a> {
    plan: &'a Plan,
}

impl View<'_> {
    pub(super) fn new(plan: &Plan) -> View<'_> {
        View { plan }
    }

    /// Prints the introduction.
    pub(super) fn introduce(&self, server: &str, how: &str) -> anyhow::Result<()> {
        console::print(&format!("One MPTCP connection over two NICs ({how})\n"))?;
        self.plan.describe(server).iter().try_for_each(|line| console::print(line))
    }

    /// A heading.
    pub(super) fn heading(&self, text: &str) -> anyhow::Result<()> {
        console::print(&format!("\n{text}"))
    }

    /// Prints a line of progress; `note` says what happens at that moment.
    pub(super) fn progress(&self, interval: &Interval, note: &str) -> anyhow::Result<()> {
        console::print(&self.line(interval, note))
    }

    fn line(&self, interval: &Interval, note: &str) -> String {
        let rates: Vec<Option<f64>> =
            self.plan.nics.iter().map(|nic| self.rate(interval, &nic.name)).collect();
        let total = if self.plan.down { interval.down } else { interval.up };
        let full: f64 = self.plan.nics.iter().map(|nic| nic.rate as f64).sum();
        let mut bar = String::new();
        let mut reached = 0.0;
        for (rate, mark) in rates.iter().zip(MARKS) {
            reached += rate.unwrap_or(0.0);
            let length = ((reached / full * BAR as f64).round() as usize).min(BAR);
            while bar.len() < length {
                bar.push(mark);
            }
        }
        let shares = self.plan.nics.iter().zip(&rates).zip(MARKS);
        let shares: Vec<String> = shares
            .map(|((nic, rate), mark)| match rate {
                Some(rate) => format!("{} {mark} {:>5.1}", nic.name, rate / 1e6),
                None => format!("{} {mark} {:>5}", nic.name, "-"),
            })
            .collect();
        let line = format!(
            "{:6.1} s |{bar:<BAR$}| {:>5.1} Mbit/s   {}  {note}",
            interval.seconds,
            total / 1e6,
            shares.join("   "),
        );
        line.trim_end().to_owned()
    }

    /// Rate over one NIC, the sum of its subflows; `None` if it has none.
    fn rate(&self, interval: &Interval, nic: &str) -> Option<f64> {
        let flows = interval.subflows.iter().filter(|s| s.path == nic);
        flows.map(|s| if self.plan.down { s.down } else { s.up }).reduce(|sum, rate| sum + rate)
    }

    /// Prints the table and the verdict.
    pub(super) fn table(&self, parts: &[Part], check: &str) -> anyhow::Result<()> {
        console::print("")?;
        let names: Vec<String> = self.plan.nics.iter().map(|nic| format!("{:>7}", nic.name)).collect();
        console::print(&format!(
            "{:<28}{:>9}{:>10}{:>15}{}   data",
            "",
            "bytes",
            "time",
            "goodput",
            names.join("")
        ))?;
        for part in parts {
            let all: u64 = part.by_nic.iter().sum();
            let shares: Vec<String> = part
                .by_nic
                .iter()
                .map(|bytes| match *bytes {
                    0 => format!("{:>7}", "-"),
                    bytes => format!("{:>5.0} %", bytes as f64 * 100.0 / all as f64),
                })
                .collect();
            console::print(&format!(
                "{:<28}{:>9}{:>10}{:>15}{}   {}",
                part.name,
                units::bytes(part.bytes),
                format!("{:.2} s", part.seconds),
                units::rate(part.bytes as f64 * 8.0 / part.seconds.max(1e-9)),
                shares.join(""),
                if part.intact { "intact" } else { "CORRUPTED" },
            ))?;
        }
        console::print("")?;
        let verdict = if parts.iter().all(|part| part.intact) {
            format!("Every byte arrived intact: {check}.")
        } else {
            format!("DATA WAS CORRUPTED (check: {check}). This is a bug in umptcp; please report it.")
        };
        console::print(&verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use crate::bench::meter::SubflowRate;
    use clap::Parser as _;

    fn plan(arguments: &[&str]) -> anyhow::Result<Plan> {
        let cli = Cli::parse_from([&["umptcp", "demo"], arguments].concat());
        let Command::Demo(args) = cli.command else { unreachable!() };
        Plan::new(&args)
    }

    #[test]
    fn a_line_shows_each_nic_and_the_sum() {
        let plan = plan(&[]).unwrap();
        let view = View::new(&plan);
        let flow =
            |id, path: &str, up| SubflowRate { id, path: path.to_owned(), up, down: 1.0, stale: false };
        let subflows = vec![flow(0, "nic0", 240e6), flow(1, "nic1", 100e6), flow(2, "nic1", 50e6)];
        let interval = Interval { seconds: 2.5, up: 388e6, down: 0.0, subflows };
        let line = view.line(&interval, "nic0 goes silent");
        assert!(
            line.starts_with(&format!(
                "   2.5 s |{}{}{}| 388.0",
                "#".repeat(24),
                "=".repeat(15),
                " ".repeat(11)
            )),
            "{line}"
        );
        assert!(line.contains("nic0 # 240.0   nic1 = 150.0  nic0 goes silent"), "{line}");
        let wild = Interval { up: 9e12, subflows: vec![flow(0, "nic1", 9e12)], ..interval };
        assert!(view.line(&wild, "").contains(&format!("|{}|", "=".repeat(BAR))));
    }

    #[test]
    fn the_plan_follows_the_options() {
        let p = plan(&["--seconds", "4", "--rates", "20,5", "--delay", "40ms", "--down"]).unwrap();
        assert_eq!((p.nics[0].rate, p.nics[1].rate, p.down), (20_000_000, 5_000_000, true));
        assert_eq!(p.bytes, 9_400_000);
        assert!(p.silent.0 < p.silent.1 && p.silent.1 < p.last);
        for bad in ["300", "300,200,100", "0,5"] {
            let error = plan(&["--rates", bad]).unwrap_err();
            assert!(error.to_string().contains("--rates"), "{error}");
        }
    }
}
