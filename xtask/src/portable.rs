//! `cargo xtask portable`: the program without calls that only Linux has.
//!
//! The standard libraries of other systems are not to be had everywhere, so the build for them is made on Linux, by
//! `--cfg umptcp_portable`, and held to three things: none of its crates is for Linux alone, no source that is
//! compiled for it names what only Linux has, and it works. The last is shown by the unit tests of the crates that
//! differ, and by a proxy in network namespaces.

use crate::{test, tools};
use anyhow::{Context, Result, bail, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates that are for Linux, or whose calls are those of Unix; as beginnings of names.
const CRATES: [&str; 10] = [
    "netlink-",
    "rtnetlink",
    "nix",
    "tun-rs",
    "io-uring",
    "sd-notify",
    "umptcp-capture",
    "tokio-uring",
    "timerfd",
    "epoll",
];

/// Words of Rust that stand for what only Linux has, or only Unix.
const WORDS: [&str; 19] = [
    "libc",
    "nix",
    "rustix",
    "rtnetlink",
    "tun_rs",
    "fd",
    "epoll",
    "Epoll",
    "EventFd",
    "TimerFd",
    "bind_device",
    "set_mark",
    "set_mtu_discover",
    "recvmmsg",
    "sendmmsg",
    "UdpGsoSegments",
    "UdpGroSegment",
    "prctl",
    "unshare",
];

/// Attributes whose items are not in the build, or on Unix only.
const LEFT_OUT: [&str; 4] = [
    "cfg(all(target_os=\"linux\",not(umptcp_portable)))",
    "cfg(all(unix,not(umptcp_portable)))",
    "cfg(unix)",
    "cfg(test)",
];

/// Options of `cargo xtask portable`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Leave out the tests in network namespaces, which take privileges.
    #[arg(long)]
    no_e2e: bool,
}

/// Builds, checks and tests it.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tools::target_directory()?.join("portable");
    let program = build(&folder)?;
    let crates = crates()?;
    let files = sources(&folder.join("debug/umptcp.d"))?;
    let mut bad = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        let tokens: TokenStream = text.parse().map_err(|e| anyhow::anyhow!("{}: {e}", file.display()))?;
        words(tokens, &mut |word, line| bad.push(format!("{}:{line}: {word}", file.display())));
    }
    ensure!(bad.is_empty(), "the portable build has what other systems lack:\n{}", bad.join("\n"));
    let mut tests = cargo(&folder);
    tests.args(["test", "--quiet", "--lib"]);
    tests.args(["-p", "umptcp-tun-driver", "-p", "umptcp-udp-driver", "-p", "umptcp"]);
    tools::run(&mut tests, "the unit tests of the portable build")?;
    if !options.no_e2e {
        test::portable(program)?;
    }
    println!("portable: {} crates and {} source files have nothing of Linux alone", crates, files.len());
    Ok(())
}

/// cargo, for the portable build.
fn cargo(folder: &Path) -> Command {
    let mut cargo = tools::cargo();
    cargo.env("RUSTFLAGS", "--cfg umptcp_portable").env("CARGO_TARGET_DIR", folder);
    // It is built for this alone, and runs for seconds.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "0");
    cargo
}

/// Builds the program.
fn build(folder: &Path) -> Result<PathBuf> {
    let mut build = cargo(folder);
    build.args(["build", "--quiet", "-p", "umptcp-cli", "--bin", "umptcp"]);
    tools::run(&mut build, "the portable build")?;
    Ok(folder.join("debug/umptcp"))
}

/// Checks the crates of the build, and counts them.
fn crates() -> Result<usize> {
    let mut tree = tools::cargo();
    tree.env("RUSTFLAGS", "--cfg umptcp_portable");
    tree.args(["tree", "-p", "umptcp-cli", "-e", "normal", "--prefix", "none", "--format", "{p}"]);
    let output = tree.output().context("cannot start cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8(output.stdout).context("cargo tree writes UTF-8")?;
    let all: BTreeSet<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    ensure!(all.contains("umptcp-udp-driver") && all.contains("mio"), "cargo tree lists the build's crates");
    let bad: Vec<&&str> = all.iter().filter(|name| is_linux_alone(name)).collect();
    ensure!(bad.is_empty(), "the portable build has crates for Linux alone: {bad:?}");
    Ok(all.len())
}

fn is_linux_alone(name: &str) -> bool {
    CRATES.iter().any(|other| name == *other || other.ends_with('-') && name.starts_with(other))
}

/// The source files that the program was built from, as cargo lists them for `make`.
fn sources(list: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = fs::read_to_string(list).with_context(|| format!("{}", list.display()))?;
    let (_, files) = text.split_once(": ").context("cargo lists what the program depends on")?;
    let space = "\u{0}";
    let files = files.replace("\\ ", space);
    let files = files.split_whitespace().map(|file| PathBuf::from(file.replace(space, " ")));
    let found: BTreeSet<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "rs")).collect();
    let own = Path::new("udp-driver/src/portable/device.rs");
    ensure!(found.iter().any(|file| file.ends_with(own)), "cargo does not list the portable device");
    Ok(found)
}

/// Tells of each of [`WORDS`], but for those in items that are [left out](LEFT_OUT).
fn words(tokens: TokenStream, tell: &mut impl FnMut(&str, usize)) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                let Some(TokenTree::Group(attribute)) =
                    tokens.next_if(|next| matches!(next, TokenTree::Group(_)))
                else {
                    continue;
                };
                let text: String = attribute.stream().to_string().split_whitespace().collect();
                if LEFT_OUT.contains(&text.as_str()) {
                    skip_item(&mut tokens);
                }
            }
            TokenTree::Group(group) => words(group.stream(), tell),
            TokenTree::Ident(word) if WORDS.iter().any(|other| word == other) => {
                tell(&word.to_string(), word.span().start().line);
            }
            _ => {}
        }
    }
}

/// Takes an item, statement, field or arm, with the attributes before it.
fn skip_item(tokens: &mut std::iter::Peekable<impl Iterator<Item = TokenTree>>) {
    let (mut angles, mut before) = (0u32, ' ');
    while let Some(token) = tokens.next() {
        let mut now = ' ';
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                tokens
                    .next_if(|next| matches!(next, TokenTree::Punct(p) if matches!(p.as_char(), ';' | ',')));
                return;
            }
            TokenTree::Punct(punct) => {
                now = punct.as_char();
                match now {
                    ';' => return,
                    ',' if angles == 0 => return,
                    '<' => angles += 1,
                    // Not that of an arrow.
                    '>' if !matches!(before, '-' | '=') => angles = angles.saturating_sub(1),
                    _ => {}
                }
            }
            _ => {}
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        words(source.parse().unwrap(), &mut |word, line| found.push((word.to_owned(), line)));
        found
    }

    #[test]
    fn what_only_linux_has_is_found_where_it_is_compiled() {
        let native = "#[cfg(all(target_os = \"linux\", not(umptcp_portable)))]";
        for source in [
            "use std::net::UdpSocket; // libc\n",
            &*format!("{native}\nuse nix::sys::{{epoll, socket}};\nfn f() {{}}"),
            &*format!("{native}\nfn f(a: A<B, libc::C>) -> Result<(A, libc::B), C> {{ libc::f() }}\n"),
            &*format!("struct S {{ {native} fd: BTreeMap<libc::A, libc::B>, b: u8 }}"),
            &*format!("fn f() {{ {native} let a = libc::f(); g() }}"),
            &*format!("{native} #[doc = \"x\"] mod epoll;"),
            "#[cfg(test)] mod tests { use libc::c_int; }",
        ] {
            assert!(found(source).is_empty(), "{source}: {:?}", found(source));
        }
        for (source, word, line) in [
            ("use std::os::fd::AsFd;", "fd", 1),
            ("fn f() {\n    libc::getpid();\n}", "libc", 2),
            (&*format!("{native} fn f() {{}}\nfn g() {{ nix::g() }}"), "nix", 2),
            (&*format!("struct S {{ {native} a: u8, b: libc::B }}"), "libc", 1),
            ("#[cfg(any(not(target_os = \"linux\"), umptcp_portable))] fn f() { libc::f() }", "libc", 1),
        ] {
            assert_eq!(found(source), [(word.to_owned(), line)], "{source}");
        }
    }

    #[test]
    fn crates_for_linux_alone_are_known_by_their_names() {
        for name in ["nix", "netlink-sys", "rtnetlink", "umptcp-capture", "tun-rs"] {
            assert!(is_linux_alone(name), "{name}");
        }
        for name in ["mio", "umptcp", "umptcp-tun-driver", "socket2", "unix-thing"] {
            assert!(!is_linux_alone(name), "{name}");
        }
    }
}
