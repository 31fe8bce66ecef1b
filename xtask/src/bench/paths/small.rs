//! Small and middling transfers over a slow and a fast path, from the connection's start to the last byte.

use super::scenario::{PathText, ScenarioText};
use super::{Bench, DIRECTIONS, Goal, Row, Stack, typical};
use anyhow::Result;
use std::time::Duration;

const FIGURE: &str = "paths-small";

const SLOW: PathText = PathText::new("slow", 1, 50);
const FAST: PathText = PathText::new("fast", 10, 10);

const SIZES: [&str; 5] = ["16 KiB", "64 KiB", "256 KiB", "1 MiB", "2 MiB"];

/// What a transfer goes over, the path of the first subflow first.
const WAYS: [(&str, &[PathText]); 3] =
    [("alone", &[FAST]), ("fast-first", &[FAST, SLOW]), ("slow-first", &[SLOW, FAST])];

/// A transfer of the largest size takes 2 s on the fast path alone. One that is not done by then counts as one
/// that never is.
const LENGTH: Duration = Duration::from_secs(12);

/// Measures all sizes in both directions. Beside the fast path alone, with the same stack: at most a round
/// trip of it more with the fast path first, and two round trips of each with the slow one first.
pub(super) fn measure(bench: &mut Bench<'_>) -> Result<()> {
    println!("\ntransfers over 10 Mbit/s, 10 ms with 1 Mbit/s, 50 ms: time to the last byte");
    for direction in DIRECTIONS {
        // By stack, size and way.
        let mut times = vec![vec![vec![Vec::new(); WAYS.len()]; SIZES.len()]; 2];
        for run in 1..=bench.runs() {
            for (stack, times) in Stack::BOTH.into_iter().zip(&mut times) {
                once(bench, direction, run, stack, times)?;
            }
        }
        for (at, size) in SIZES.iter().enumerate() {
            for (stack, times) in Stack::BOTH.into_iter().zip(&times) {
                let alone = typical(&times[at][0]);
                let round_trips =
                    [Duration::ZERO, FAST.round_trip(), 2 * (FAST.round_trip() + SLOW.round_trip())];
                for ((way, _), (values, more)) in WAYS.iter().zip(times[at].iter().zip(round_trips)) {
                    let most = Goal::AtMost(alone + more.as_secs_f64());
                    let goal = (stack == Stack::Umptcp && *way != "alone").then_some(most);
                    let (case, who) = (
                        format!("{size}, {direction}"),
                        format!("{}, {}", stack.name(), way.replace('-', " ")),
                    );
                    bench.row(FIGURE, &Row { case: &case, who: &who, unit: "s", values, goal });
                }
            }
        }
    }
    Ok(())
}

fn once(
    bench: &mut Bench<'_>,
    direction: &str,
    run: u16,
    stack: Stack,
    times: &mut [Vec<Vec<f64>>],
) -> Result<()> {
    let mut text = ScenarioText::new("small", run, Duration::ZERO, LENGTH);
    let way = format!("direction = \"{direction}\"");
    let name = |size: &str, way: &str| format!("{}-{way}", size.replace(' ', ""));
    for size in SIZES {
        for (what, paths) in WAYS {
            let size_text = format!("size = \"{size}\"");
            let mut fields = vec![way.as_str(), &size_text];
            if paths.len() == 1 {
                fields.push("protocol = \"tcp\"");
            }
            if paths.len() == 1 || stack == Stack::Kernel {
                fields.push("congestion = \"cubic\"");
            }
            text.flow(&name(size, what), paths, &fields);
        }
    }
    let Some(outcome) = bench.emulate(FIGURE, &text, stack) else { return Ok(()) };
    for (size, times) in SIZES.iter().zip(times) {
        for ((what, _), values) in WAYS.iter().zip(times) {
            values.push(outcome.flow(&name(size, what), "completion")?);
        }
    }
    Ok(())
}
