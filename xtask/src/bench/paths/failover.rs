//! What a path that fails costs: two paths of 50 Mbit/s, 10 and 20 ms one way.

use super::scenario::{Outcome, PathText, ScenarioText};
use super::{Bench, DIRECTIONS, Goal, Row, Stack, typical};
use anyhow::Result;
use std::time::Duration;

const FIGURE: &str = "paths-failover";

const PATHS: [PathText; 2] = [PathText::new("first", 50, 10), PathText::new("second", 50, 20)];

/// When it happens, how long it lasts, and how long is measured after that.
const AT: Duration = Duration::from_secs(4);
const LASTS: Duration = Duration::from_secs(5);
const AFTER: Duration = Duration::from_secs(4);

/// What happens.
struct Case {
    name: &'static str,
    what: &'static str,
    /// Of the flow.
    fields: &'static [&'static str],
    /// Fields of events: at the beginning, and at the end. `FLOW` is the flow's name.
    begins: &'static [&'static str],
    ends: &'static [&'static str],
    /// Nothing can come meanwhile.
    all_gone: bool,
    /// Both paths carry data before.
    both_used: bool,
}

/// In groups that are measured at the same time.
const GROUPS: &[&[Case]] = &[
    &[
        Case {
            name: "first-silent",
            what: "the first path goes silent",
            fields: &[],
            begins: &["link = \"FLOW-first\"\nstate = \"silent\""],
            ends: &["link = \"FLOW-first\"\nstate = \"up\""],
            all_gone: false,
            both_used: true,
        },
        Case {
            name: "second-silent",
            what: "the second path goes silent",
            fields: &[],
            begins: &["link = \"FLOW-second\"\nstate = \"silent\""],
            ends: &["link = \"FLOW-second\"\nstate = \"up\""],
            all_gone: false,
            both_used: true,
        },
        Case {
            name: "backup",
            what: "the first is silent, the second a backup",
            fields: &["backup = [2]"],
            begins: &["link = \"FLOW-first\"\nstate = \"silent\""],
            ends: &["link = \"FLOW-first\"\nstate = \"up\""],
            all_gone: false,
            both_used: false,
        },
    ],
    &[
        Case {
            name: "link-down",
            what: "the first link is down",
            fields: &[],
            begins: &["link = \"FLOW-first\"\nstate = \"down\""],
            ends: &["link = \"FLOW-first\"\nstate = \"up\""],
            all_gone: false,
            both_used: true,
        },
        Case {
            name: "address-removed",
            what: "the first address is removed",
            fields: &[],
            begins: &["flow = \"FLOW\"\nroute = 1\naddress = \"removed\""],
            ends: &["flow = \"FLOW\"\nroute = 1\naddress = \"added\""],
            all_gone: false,
            both_used: true,
        },
        Case {
            name: "both-silent",
            what: "both go silent, the second comes back",
            fields: &[],
            begins: &[
                "link = \"FLOW-first\"\nstate = \"silent\"",
                "link = \"FLOW-second\"\nstate = \"silent\"",
            ],
            ends: &["link = \"FLOW-second\"\nstate = \"up\""],
            all_gone: true,
            both_used: true,
        },
    ],
];

/// Measures all cases in both directions: twice as many runs as of goodput.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    println!("\nfailover: 2 x 50 Mbit/s, 10 and 20 ms one way; for {} s", LASTS.as_secs());
    for group in GROUPS {
        for direction in DIRECTIONS {
            let mut seen: [Vec<Vec<Seen>>; 2] = [vec![], vec![]];
            for run in 1..=2 * bench.runs() {
                let text = text(group, direction, run);
                for (stack, seen) in Stack::BOTH.into_iter().zip(&mut seen) {
                    if let Some(outcome) = bench.emulate(FIGURE, &text, stack) {
                        seen.push(group.iter().map(|c| Seen::of(c, &outcome)).collect::<Result<_>>()?);
                    }
                }
            }
            for (at, case) in group.iter().enumerate() {
                let of = |runs: &[Vec<Seen>]| runs.iter().map(|r| r[at]).collect::<Vec<_>>();
                show(bench, case, direction, &of(&seen[0]), &of(&seen[1]));
            }
        }
    }
    Ok(())
}

/// What was seen of a case in one run.
#[derive(Clone, Copy)]
struct Seen {
    /// ms without a byte at the receiver, beyond what is inevitable.
    silence: f64,
    /// s until the rate of the other path is there.
    survivor: f64,
    /// s after the end until the rate of before is there.
    back: f64,
}

impl Seen {
    fn of(case: &Case, outcome: &Outcome) -> Result<Seen> {
        let inevitable = if case.all_gone { 1e3 * LASTS.as_secs_f64() } else { 0.0 };
        let recoveries = outcome.recoveries(case.name);
        let recovery = |at: usize| recoveries.get(at).copied().unwrap_or(f64::NAN);
        Ok(Seen {
            silence: (outcome.flow(case.name, "silence")? - inevitable).max(0.0),
            survivor: recovery(0),
            back: recovery(1),
        })
    }
}

fn text(group: &[Case], direction: &str, run: u16) -> ScenarioText {
    let begin = Duration::from_secs(2);
    let mut text = ScenarioText::new("failover", run, begin, AT + LASTS + AFTER - begin);
    for case in group {
        let way = format!("direction = \"{direction}\"");
        let mut fields = vec![way.as_str()];
        fields.extend(case.fields);
        text.flow(case.name, &PATHS, &fields);
    }
    for case in group {
        let flow = format!("flow = \"{}\"", case.name);
        for (at, events) in [(AT, case.begins), (AT + LASTS, case.ends)] {
            for event in events {
                let at = format!("at = \"{} ms\"", at.as_millis());
                text.table("event", &[&at, &event.replace("FLOW", case.name)]);
            }
        }
        // Each path has half of the rate where both are used; goals are 90 % of what there is then.
        let (survivor, back) = match (case.both_used, case.all_gone) {
            (true, true) => ("45 %", "45 %"),
            (true, false) => ("45 %", "90 %"),
            (false, _) => ("90 %", "90 %"),
        };
        let compare = format!("compare = [\"2 s\", \"{} ms\"]", AT.as_millis());
        for (after, share) in [(AT, survivor), (AT + LASTS, back)] {
            let after = format!("after = \"{} ms\"", after.as_millis());
            let share = format!("share = \"{share}\"");
            text.table("recovery", &[&flow, &after, &compare, &share, "window = \"200 ms\""]);
        }
    }
    text
}

#[cfg(test)]
pub(super) fn texts() -> Vec<ScenarioText> {
    GROUPS.iter().flat_map(|g| DIRECTIONS.map(|d| text(g, d, 1))).collect()
}

fn show(bench: &mut Bench<'_>, case: &Case, direction: &str, kernel: &[Seen], umptcp: &[Seen]) {
    let what = format!("{}, {direction}", case.what);
    let silence = |seen: &[Seen]| seen.iter().map(|s| s.silence).collect::<Vec<_>>();
    let most = match case.all_gone {
        // The first byte is to come within half a second.
        true => 500.0,
        false => (typical(&silence(kernel)) / 2.0).min(200.0),
    };
    let mut rows = vec![("silence", "ms", silence as fn(&[Seen]) -> Vec<f64>, most)];
    if !case.all_gone {
        rows.push(("rate of the other", "s", |seen| seen.iter().map(|s| s.survivor).collect(), 0.5));
    }
    rows.push(("rate after the return", "s", |seen| seen.iter().map(|s| s.back).collect(), 2.0));
    for (quantity, unit, of, most) in rows {
        for (stack, seen) in Stack::BOTH.into_iter().zip([kernel, umptcp]) {
            let goal = (stack == Stack::Umptcp).then_some(Goal::AtMost(most));
            let who = format!("{}, {quantity}", stack.name());
            bench.row(FIGURE, &Row { case: &what, who: &who, unit, values: &of(seen), goal });
        }
    }
}
