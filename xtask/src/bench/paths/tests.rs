use super::scenario::PathText;
use super::*;
use umptcp_lab::{Experiment, Registries};

#[test]
fn goals_are_met_by_values_only() {
    assert!(Goal::AtLeast(2.0).is_met(2.0) && !Goal::AtLeast(2.0).is_met(1.9));
    assert!(Goal::AtMost(2.0).is_met(2.0) && !Goal::AtMost(2.0).is_met(2.1));
    for goal in [Goal::AtLeast(2.0), Goal::AtMost(2.0)] {
        assert!(!goal.is_met(f64::NAN));
    }
    assert!(!Goal::AtMost(f64::NAN).is_met(1.0) && !Goal::AtLeast(f64::NAN).is_met(1.0));
    // Most runs recovered, or most did not.
    assert_eq!(typical(&[1.0, f64::NAN, 2.0]), 2.0);
    assert_eq!(typical(&[1.0, f64::NAN, f64::NAN]), f64::INFINITY);
    assert!(typical(&[]).is_nan() && !Goal::AtMost(2.0).is_met(f64::INFINITY));
    assert_eq!(
        [shown(f64::NAN), shown(f64::INFINITY), shown(1.234), shown(56.78)],
        ["-", "never", "1.23", "56.8"]
    );
}

#[test]
fn what_is_written_is_a_scenario() {
    let mut text = ScenarioText::new("test", 7, Duration::from_secs(1), Duration::from_millis(2500));
    let paths =
        [PathText { loss: 1, queue: Some(2000), ..PathText::new("a", 10, 10) }, PathText::new("b", 2, 300)];
    text.flow("flow", &paths, &["direction = \"down\"", "backup = [2]"]);
    text.table("event", &["at = \"1 s\"", "link = \"flow-a\"\nstate = \"silent\""]);
    text.table("recovery", &["flow = \"flow\"", "after = \"1 s\"", "compare = [\"0 s\", \"1 s\"]"]);
    let parse = |text: &str| Experiment::parse("t", text, None, &[], &Registries::default());
    let experiment = parse(text.as_str()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(experiment.links(), ["flow-a", "flow-b"]);
    for text in failover::texts() {
        parse(text.as_str()).unwrap_or_else(|e| panic!("{e}"));
    }
}
