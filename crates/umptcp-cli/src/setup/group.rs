//! Groups of this host.

use crate::failure::Class;
use anyhow::Context as _;
use nix::unistd::Group;
use std::io::ErrorKind;
use std::process::Command;

/// What makes a group, and what removes it, on different systems: shadow's, Debian's, busybox's.
const TOOLS: [(&[&str], &[&str]); 3] = [
    (&["groupadd", "--system"], &["groupdel"]),
    (&["addgroup", "--system"], &["delgroup"]),
    (&["addgroup", "-S"], &["delgroup"]),
];

/// Where they are, also where PATH does not name it.
const FOLDERS: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether a group may have that name.
pub(super) fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    (1..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(fits)
}

/// Its number, if there is such a group.
pub(super) fn number(name: &str) -> Option<u32> {
    Some(Group::from_name(name).ok()??.gid.as_raw())
}

/// Makes a group.
pub(super) fn make(name: &str) -> anyhow::Result<()> {
    run(TOOLS.map(|(make, _)| make), name).with_context(|| format!("cannot make the group {name}"))
}

/// Removes a group, if it is there.
pub(super) fn remove(name: &str) -> anyhow::Result<()> {
    if number(name).is_none() {
        return Ok(());
    }
    run(TOOLS.map(|(_, remove)| remove), name).with_context(|| format!("cannot remove the group {name}"))
}

/// Runs the first of the tools that is installed and takes its options.
fn run(tools: [&[&str]; 3], name: &str) -> anyhow::Result<()> {
    let mut said = Vec::new();
    for words in tools {
        let mut command = Command::new(words[0]);
        let output = command.args(&words[1..]).arg(name).env("LC_ALL", "C").env("PATH", FOLDERS).output();
        match output {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                said.push(format!("{}: {}", words[0], String::from_utf8_lossy(&output.stderr).trim()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => said.push(format!("{}: {error}", words[0])),
        }
    }
    said.dedup();
    let why = if said.is_empty() {
        format!("neither {} nor {} is installed", tools[0][0], tools[1][0])
    } else {
        said.join("; ")
    };
    Err(Class::Host.failure(why).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_groups() {
        for name in ["umptcp", "_x", "a-b_1"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "-x", "1a", "A", "a b", "a\"b", &"n".repeat(33)] {
            assert!(!is_name(name), "{name}");
        }
        assert_eq!(number("root"), Some(0));
        assert_eq!(number("no such group"), None);
    }

    #[test]
    fn a_tool_that_is_missing_is_named() {
        let error = run([&["no-such-tool"], &["nor-this"], &["nor-this"]], "x").unwrap_err();
        assert_eq!(error.to_string(), "neither no-such-tool nor nor-this is installed");
        let error = run([&["false"], &["no-such-tool"], &["no-such-tool"]], "x").unwrap_err();
        assert!(error.to_string().starts_with("false:"), "{error}");
    }
}
