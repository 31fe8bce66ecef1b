//! "RFC 8684 by example": the exchanges that the book prints go as their texts say.

use umptcp_testkit::by_example::EXAMPLES;

/// Runs the example of that name, whose script has assertions of its own, and fits its text to the packets.
#[track_caller]
fn check(name: &str) {
    let example = EXAMPLES.iter().find(|e| e.name == name).expect("an example of that name");
    let page = example.page().unwrap_or_else(|e| panic!("{e}"));
    // The same seed gives the same packets.
    assert_eq!(example.page().as_ref(), Ok(&page));
}

macro_rules! examples {
    ($($test:ident: $name:literal,)*) => {
        $(#[test] fn $test() { check($name); })*

        #[test]
        fn every_example_runs() {
            assert_eq!(EXAMPLES.iter().map(|e| e.name).collect::<Vec<_>>(), [$($name),*]);
        }
    };
}

examples! {
    handshake: "handshake",
    join: "join",
    dss: "dss",
    reinjection: "reinjection",
    data_fin: "data-fin",
    add_addr: "add-addr",
    remove_addr: "remove-addr",
    mp_prio: "mp-prio",
    fallback: "fallback",
    fast_close: "fast-close",
}
