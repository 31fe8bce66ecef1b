//! `umptcp setup`, with a copy of /etc in place of the host's.

use super::by_daemon::{hello, open_to_all};
use crate::run::{LIMIT, both, network};
use crate::up::capture::by_mptcp;
use std::process::{Command, Stdio};
use umptcp_testbed::Netns;
use umptcp_testbed::command::Running;
use umptcp_testbed::limit::within;
use umptcp_testbed::program::{self, Folder};

/// What the host has (no udev, and a device that only root may open), and ways to try it: `$U` is the program, a copy that others may replace, wherever the one
/// that is tested is; `$P` where it is installed.
const PRELUDE: &str = "
mkdir -p bin cgroups evil built && chmod 777 built && cp $BUILT built/umptcp && U=$PWD/built/umptcp
cp -a /etc etc && mkdir -p etc/systemd/system etc/udev/rules.d
mount --bind etc /etc && mount --bind bin /usr/local/bin && mount -t tmpfs -o mode=755 none /run && mount -t cgroup2 none cgroups
mount -t tmpfs -o mode=755 none /dev/net && mknod -m 600 /dev/net/tun c 10 200
P=/usr/local/bin/umptcp
say() { echo \"@@ $1\"; shift; \"$@\" 2>&1; echo \"code $?\"; }
# Tools that change groups leave a backup and a lock.
digest() { (cd /etc && find . -type f ! -name '*-' ! -name .pwd.lock -exec sha256sum {} + | sort); }
# setpriv itself would start what the user may not.
user() { id=$1; groups=$2; shift 2; setpriv --reuid=$id --regid=$id $groups env \"$@\"; }
digest > before
";

/// Runs a script with [`PRELUDE`] in mounts of its own, and returns what its parts have said.
fn parts(ns: &Netns, folder: &Folder, script: &str) -> impl Fn(&str) -> String + use<> {
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &format!("{PRELUDE}{script}")]).current_dir(folder.path());
    command.env("BUILT", program::path()).env_remove("XDG_RUNTIME_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ns.run(|| command.spawn()).map(Running::new).expect("it starts").wait();
    let (said, _) = both(&output);
    move |name: &str| {
        let from = said.split(&format!("@@ {name}\n")).nth(1).unwrap_or_else(|| panic!("{name}: {said}"));
        from.split("@@ ").next().unwrap_or_default().to_owned()
    }
}

/// Members use paths of their own, and run programs by the daemon, with no privilege for these; strangers do
/// not, and whoever calls does not choose what gets the privilege.
#[test]
fn members_of_the_group_can_use_it_and_nothing_stays() {
    within(LIMIT, || {
        let net = network(2);
        let (_server, ask) = hello(&net);
        let folder = Folder::new("setup");
        open_to_all(&folder);
        std::fs::write(folder.path().join("ask"), format!("{ask}\ngrep CapPrm /proc/self/status\n"))
            .expect("a file");
        let script = format!(
            "
say refused user 65534 --clear-groups $U setup
say dry $U setup --dry-run
digest | cmp before - && echo unchanged
say setup $U setup
say state stat -c '%a %U:%G' $P /dev/net/tun
getcap $P; cat /etc/umptcp/umptcp.toml; grep ExecStart= /etc/systemd/system/umptcp.service; ls /etc/udev/rules.d
say again $P setup
member=--groups=$(getent group umptcp | cut -d: -f3)
printf '#!/bin/sh\\ntouch {folder}/stolen\\n' > evil/nft && chmod 755 evil/nft
say connect user 65534 $member PATH={folder}/evil:$PATH $P connect {server} 7
say demo user 65534 $member $P demo --seconds 1 --rates 20,20
say stranger user 65533 --clear-groups $P connect {server} 7
say doctor user 65534 $member $P doctor
$P up > log 2>&1 & daemon=$!
until grep -q 'ready: ' log; do sleep 0.05; done
say run user 65534 $member $P run --tier daemon -- sh ask
kill $daemon; wait $daemon
say would $P setup --undo --dry-run
say undo $P setup --undo
digest | diff before - && ls -A /usr/local/bin && stat -c %a /dev/net/tun && echo restored
say nothing $U setup --undo
",
            server = net.server.nics[0].v4,
            folder = folder.path().display(),
        );
        let part = parts(&net.client.ns, &folder, &script);
        let has = |name: &str, texts: &[&str]| {
            let said = part(name);
            texts.iter().for_each(|text| assert!(said.contains(text), "{name}: {text}: {said}"));
        };
        has("refused", &["sudo umptcp setup", "code 3"]);
        has(
            "dry",
            &[
                "would make the group umptcp",
                "would copy",
                "would write /etc/umptcp/umptcp.toml",
                "code 0\nunchanged",
            ],
        );
        has("setup", &["done: make the group umptcp", "usermod -aG umptcp", "CAP_NET_ADMIN", "code 0"]);
        has(
            "state",
            &[
                "750 root:umptcp\n666 root:root\n",
                "cap_net_admin=ep",
                "[run]\ngroup = \"umptcp\"",
                "ExecStart=/usr/local/bin/umptcp up",
                "60-umptcp.rules",
            ],
        );
        has("again", &["is there: ", "code 0"]);
        assert!(!part("again").contains("done: "), "{}", part("again"));
        has("connect", &["hello", "code 0"]);
        assert!(!folder.path().join("stolen").exists(), "another nft has got the privilege");
        has("demo", &["code 0"]);
        has("stranger", &["Permission denied", "code 12"]);
        has("doctor", &["CAP_NET_ADMIN: paths can be set up", "a path over it works"]);
        has("run", &["b'hello'\nCapPrm:\t0000000000000000\ncode 0"]);
        assert_eq!(by_mptcp(&net), 2);
        has("would", &["would undo: make the group umptcp", "code 0"]);
        has("undo", &["undone: make the group umptcp", "code 0\n600\nrestored"]);
        has("nothing", &["nothing was set up\ncode 0"]);
    });
}

#[test]
fn what_others_have_made_stays_theirs() {
    within(LIMIT, || {
        let net = network(1);
        let folder = Folder::new("setup");
        let script = "
mkdir -p /etc/umptcp && printf '[log]\\nlevel = \"warn\"' > /etc/umptcp/umptcp.toml
groupadd theirs && echo unit > /etc/systemd/system/umptcp.service && digest > before
say setup $U setup --group theirs --daemon-only
cat /etc/umptcp/umptcp.toml; $U check
say state stat -c '%a %U:%G' $P
getcap $P
say more $U setup --group theirs
stat -c '%a %U:%G' $P
say undo $U setup --undo
tail -c 15 /etc/umptcp/umptcp.toml; echo; digest | diff before - && ls -A /usr/local/bin && echo restored
cp $U $P
say another $U setup
rm $P; printf '[run]\\n' > /etc/umptcp/umptcp.toml
say own $U setup --group theirs --dry-run
echo nonsense > /etc/umptcp/umptcp.toml
say wrong $U setup --group theirs --dry-run
say name $U setup --group 'a b'
mount -o remount,ro,bind /etc
say readonly $U setup
getent group umptcp; ls -A /usr/local/bin
";
        let part = parts(&net.client.ns, &folder, script);
        let has = |name: &str, texts: &[&str]| {
            let said = part(name);
            texts.iter().for_each(|text| assert!(said.contains(text), "{name}: {text}: {said}"));
        };
        has(
            "setup",
            &[
                "add to /etc/umptcp/umptcp.toml: [run], group = \"theirs\"",
                "umptcp.service is there, and not as setup",
                "level = \"warn\"\n\n# Of `umptcp setup`",
                "the group theirs",
            ],
        );
        assert!(
            !part("setup").contains("make the group") && !part("setup").contains("rules"),
            "{}",
            part("setup")
        );
        assert!(
            part("state").starts_with("755 root:root\n") && !part("state").contains("cap_"),
            "{}",
            part("state")
        );
        has("more", &["capability cap_net_admin=ep", "60-umptcp.rules", "750 root:theirs"]);
        has("undo", &["code 0", "level = \"warn\"\nrestored"]);
        has("another", &["/usr/local/bin/umptcp is there already", "code 3"]);
        has("own", &["has a [run] of its own", "code 0"]);
        has("wrong", &["is not right", "code 0"]);
        has("name", &["cannot be the name of a group", "code 2"]);
        has("readonly", &["Read-only file system", "code 3"]);
        assert!(!part("readonly").contains("umptcp:x"), "{}", part("readonly"));
    });
}

/// As far as the host has programs that know.
#[test]
fn the_rule_and_the_profile_are_right() {
    let file = |name: &str| format!("{}/../packaging/{name}", env!("CARGO_MANIFEST_DIR"));
    let checks: [(&str, &[&str], &str); 2] = [
        ("udevadm", &["verify", "--no-style"], "60-umptcp.rules"),
        ("apparmor_parser", &["-Q", "-K"], "umptcp.apparmor"),
    ];
    for (program, arguments, name) in checks {
        assert!(std::fs::metadata(file(name)).is_ok_and(|m| m.len() > 0), "{name} is there");
        let output = Command::new(program).args(arguments).arg(file(name)).output();
        match output {
            Ok(output) if String::from_utf8_lossy(&output.stderr).contains("Unknown command verb") => {
                println!("{program} is too old to know");
            }
            Ok(output) => assert_eq!(both(&output).1, Some(0), "{program}: {}", both(&output).0),
            Err(_) => println!("{program} is not installed"),
        }
    }
}
