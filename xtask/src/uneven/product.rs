//! Every scheduler with every algorithm, over the uneven pairs of `bench --only paths-uneven`, in virtual time.

use anyhow::Result;
use std::time::Duration;
use umptcp_testkit::simulation::uneven::{Case, Shape};

/// The better path. Queues hold one bandwidth-delay product.
const BETTER: Shape = Shape::new(50_000_000, 10, 20);

/// What it is paired with: a name, the path, and whether a path loses packets, so that the sum is not asked for.
fn pairs() -> [(&'static str, Shape, bool); 4] {
    [
        ("10 Mbit/s, 100 ms", Shape::new(10_000_000, 100, 200), false),
        ("2 Mbit/s, 300 ms", Shape::new(2_000_000, 300, 600), false),
        ("50 Mbit/s, 10 ms, 1 % lost", Shape { loss: 0.01, ..BETTER }, true),
        ("10 Mbit/s, 10 ms, 2 s of queue", Shape::new(10_000_000, 10, 2_000), false),
    ]
}

/// What is asked of goodput: parts of the better path alone, and of the sum where no path loses.
const OF_BETTER: f64 = 0.97;
const OF_SUM: f64 = 0.9;

/// Prints a table for each pair: a row for each scheduler, a column for each algorithm; and how many cells miss what is
/// asked.
pub(super) fn run(schedulers: &[&str], algorithms: &[&str], seconds: u64) -> Result<()> {
    let (mut missed, mut of) = (0, 0);
    for (name, other, lossy) in pairs() {
        let case = |scheduler: &str, congestion: &str| Case {
            scheduler: scheduler.to_owned(),
            congestion: congestion.to_owned(),
            duration: Duration::from_secs(seconds),
            ..Case::new([BETTER, other], 0).automatic()
        };
        let cells: Vec<(&str, &str)> =
            schedulers.iter().flat_map(|s| algorithms.iter().map(move |a| (*s, *a))).collect();
        let cases: Vec<Case> = cells.iter().map(|(s, a)| case(s, a)).collect();
        let found = super::compare_all(&cases)?;
        let [better, second] = found[0].alone;
        println!(
            "{{50 Mbit/s, 10 ms}} with {{{name}}}, buffers that tune themselves, {seconds} s: parts of the better path alone \
             ({:.1} Mbit/s); the sum is {:.2}",
            better.max(second),
            (better + second) / better.max(second)
        );
        print!("{:>14}", "");
        algorithms.iter().for_each(|name| print!(" {name:>8}"));
        println!();
        for (scheduler, row) in schedulers.iter().zip(found.chunks(algorithms.len())) {
            print!("{scheduler:>14}");
            for cell in row {
                let ratio = cell.ratio();
                let sum = cell.both / (cell.alone[0] + cell.alone[1]);
                // A copy of everything on each path is no sum.
                let adds = !lossy && *scheduler != "redundant";
                let is_met = ratio >= OF_BETTER && (!adds || sum >= OF_SUM);
                (missed, of) = (missed + usize::from(!is_met), of + 1);
                print!(" {:>7.2}{}", ratio, if is_met { ' ' } else { '!' });
            }
            println!();
        }
        println!();
    }
    println!(
        "{missed} of {of} are under {OF_BETTER} of the better path alone, or, where no path loses and the scheduler is not \
         redundant, under {OF_SUM} of the sum (!)"
    );
    Ok(())
}
