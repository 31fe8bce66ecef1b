//! `nstat`.

use super::{connect, failed, print_json, print_lines};
use crate::args::tools::NstatArgs;
use serde_json::json;
use std::collections::BTreeMap;
use umptcp_control::call::ListCounters;

pub(crate) fn nstat(args: &NstatArgs) -> anyhow::Result<()> {
    let mut counters = connect(&args.instance)?.call(&ListCounters {}).map_err(failed)?.counters;
    counters.retain(|name, value| {
        (args.zeros || *value != 0)
            && (args.patterns.is_empty()
                || args.patterns.iter().any(|p| matches(p.as_bytes(), name.as_bytes())))
    });
    if args.instance.json {
        return print_json(&json!({ "kernel": counters }));
    }
    print_lines(&lines(&counters))
}

/// As `nstat` prints them. It has a rate only while its daemon runs.
fn lines(counters: &BTreeMap<String, u64>) -> Vec<String> {
    let line = |(name, value): (&String, &u64)| format!("{name:<32}{value:<16}{:6.1}", 0.0);
    std::iter::once("#kernel".to_owned()).chain(counters.iter().map(line)).collect()
}

/// Whether a name is as a pattern says, in which `*` stands for anything and `?` for one letter.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|at| matches(rest, &name[at..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([p, rest @ ..], [n, name @ ..]) => p == n && matches(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_like_nstat() {
        let counters = [("MPTcpExtMPCapableSYNTX".to_owned(), 12)].into();
        let expected = "MPTcpExtMPCapableSYNTX          12                 0.0";
        assert_eq!(lines(&counters), ["#kernel", expected]);
    }

    #[test]
    fn patterns() {
        for (pattern, name, fits) in [
            ("MPTcpExt*", "MPTcpExtMPJoinSynTx", true),
            ("*Join*", "MPTcpExtMPJoinSynTx", true),
            ("MPTcpExtMPJoinSynT?", "MPTcpExtMPJoinSynTx", true),
            ("MPTcpExt", "MPTcpExtMPJoinSynTx", false),
            ("*Rx", "MPTcpExtMPJoinSynTx", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), fits, "{pattern} {name}");
        }
    }
}
