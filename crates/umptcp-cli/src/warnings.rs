//! Settings that contradict one another: what will not happen, although somebody may expect it.

use umptcp::{ConnectionConfig, PathInfo, Uses};
use umptcp_tun_driver::paths::PathSpec;

/// What connections there are, beside those of programs that say so themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Role {
    /// Some are begun here.
    pub(crate) connects: bool,
    /// Some come from elsewhere.
    pub(crate) serves: bool,
}

/// What is known of a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Path {
    name: String,
    backup: bool,
    metered: bool,
    uses: Uses,
    /// It is advertised with a port.
    port: bool,
    /// It has a weight or a cost that is not the usual one.
    weighed: bool,
    /// Most that it may carry in a month, and for each connection.
    caps: (Option<u64>, Option<u64>),
}

impl Path {
    /// One that is asked for.
    pub(crate) fn of_spec(spec: &PathSpec) -> Path {
        Path {
            name: spec.name(),
            backup: spec.backup,
            metered: spec.metered,
            uses: spec.uses,
            port: spec.port.is_some(),
            weighed: (spec.weight, spec.cost) != (1, 1),
            caps: (spec.caps.month, spec.caps.connection),
        }
    }

    /// One that there is. Of weights and caps nothing is known.
    pub(crate) fn of_info(path: &PathInfo) -> Path {
        Path {
            name: path.name.clone(),
            backup: path.backup,
            metered: path.metered,
            uses: path.uses,
            port: !path.signal_ports.is_empty(),
            weighed: false,
            caps: (None, None),
        }
    }

    /// Subflows are opened from it, at some time.
    fn opens(&self) -> bool {
        self.uses.subflow || self.uses.laminar
    }
}

/// What will not happen over these paths, each as text. Without any, every NIC is used, which contradicts nothing.
pub(crate) fn of(paths: &[Path], config: &ConnectionConfig, role: Role) -> Vec<String> {
    if !config.mptcp {
        let several = (paths.len() > 1)
            .then(|| "without MPTCP, each connection uses one path, and the others only stand by".to_owned());
        return several.into_iter().collect();
    }
    let mut all = Vec::new();
    limits(paths, config, role, &mut all);
    for path in paths {
        of_one(path, config, role, &mut all);
    }
    if !paths.is_empty() && paths.iter().all(|path| path.metered) {
        all.push("every path is metered: none is spared, because nothing else can be used".to_owned());
    } else if paths.len() > 1 && paths.iter().all(|path| path.backup || path.metered) {
        all.push("every path is a backup or metered: the backups are used as if they were none".to_owned());
    }
    if role.connects && paths.len() > 1 && !paths.iter().any(Path::opens) {
        all.push(
            "no path is for subflows: connections that are begun here use one path, unless their peers open more"
                .to_owned(),
        );
    }
    all
}

/// What the limits of a connection keep from happening.
fn limits(paths: &[Path], config: &ConnectionConfig, role: Role, all: &mut Vec<String>) {
    let beside = config.max_subflows.saturating_sub(1);
    if beside == 0 {
        all.push("with a limit of 0 subflows, new connections use one path".to_owned());
    } else if paths.len() > config.max_subflows {
        all.push(format!(
            "with a limit of {beside} subflows beside the first, a connection does not use all of the {} paths at once",
            paths.len()
        ));
    }
    if config.max_add_addr_accepted == 0 && role.connects {
        all.push("addresses that peers advertise are not used from now on: the limit is 0".to_owned());
    }
}

fn of_one(path: &Path, config: &ConnectionConfig, role: Role, all: &mut Vec<String>) {
    let Path { name, backup, metered, uses, port, weighed, caps } = path;
    if *backup && *metered {
        all.push(format!("{name}: backup changes nothing, because metered paths come after all backups"));
    }
    let told = uses.signal || *port;
    if told && !uses.subflow && !uses.laminar && role.connects && !role.serves {
        all.push(format!(
            "{name}: nothing is opened from it, because it is for signal alone; it is used only if servers open \
             subflows to their clients, which few do"
        ));
    }
    if uses.laminar && !uses.subflow && config.max_add_addr_accepted == 0 {
        all.push(format!(
            "{name}: nothing is opened from it, because it is laminar, for addresses that peers advertise, and the limit \
             of those is 0"
        ));
    }
    if (uses.full_mesh || uses.laminar) && !role.connects && role.serves {
        all.push(format!("{name}: nothing is opened from it: fullmesh and laminar are for clients"));
    }
    if (uses.full_mesh || uses.laminar) && matches!(&config.path_policy[..], "ndiffports" | "fullmesh") {
        let words: Vec<&str> = uses.words().filter(|word| matches!(*word, "fullmesh" | "laminar")).collect();
        all.push(format!(
            "{name}: {} changes nothing with the path policy {}",
            words.join(" and "),
            config.path_policy
        ));
    }
    if *weighed && config.scheduler != "weighted" {
        all.push(format!(
            "{name}: weight and cost change nothing with the scheduler {}; they are for `weighted`",
            config.scheduler
        ));
    }
    if let (Some(month), Some(connection)) = caps
        && connection >= month
    {
        all.push(format!(
            "{name}: the cap for each connection is never reached, because that of the month is less"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Role = Role { connects: true, serves: false };
    const BOTH: Role = Role { connects: true, serves: true };

    fn warned(paths: &[&str], change: impl Fn(&mut ConnectionConfig), role: Role) -> String {
        let paths: Vec<Path> = paths.iter().map(|text| Path::of_spec(&text.parse().unwrap())).collect();
        let mut config = ConnectionConfig::default();
        change(&mut config);
        of(&paths, &config, role).join("\n")
    }

    /// What is usual says nothing.
    #[test]
    fn what_contradicts_nothing_is_not_warned_of() {
        for paths in [
            &[][..],
            &["eth0"],
            &["eth0", "wlan0"],
            &["eth0", "wlan0,backup", "wwan0,metered,cap=10GB/month,cap=1GB/connection"],
            &["eth0", "wlan0,signal,subflow"],
            &["eth0", "wlan0,laminar"],
            &["eth0,fullmesh", "wlan0"],
        ] {
            assert_eq!(warned(paths, |_| (), CLIENT), "", "{paths:?}");
        }
        assert_eq!(
            warned(&["eth0,signal", "eth1,signal,port=80"], |_| (), Role { connects: false, serves: true }),
            ""
        );
        assert_eq!(warned(&["eth0,weight=2", "eth1"], |c| c.scheduler = "weighted".into(), CLIENT), "");
    }

    #[test]
    fn what_will_not_happen_is_said_once() {
        let nothing: fn(&mut ConnectionConfig) = |_| ();
        let none: fn(&mut ConnectionConfig) = |c| c.max_subflows = 1;
        let one: fn(&mut ConnectionConfig) = |c| c.max_subflows = 2;
        let no_addresses: fn(&mut ConnectionConfig) = |c| c.max_add_addr_accepted = 0;
        let plain: fn(&mut ConnectionConfig) = |c| c.mptcp = false;
        let ports: fn(&mut ConnectionConfig) = |c| c.path_policy = "ndiffports".into();
        for (paths, change, role, part) in [
            (&["a", "b"][..], none, BOTH, "use one path"),
            (&[], none, BOTH, "use one path"),
            (&["a", "b", "c"], one, BOTH, "not use all of the 3 paths"),
            (&["a"], no_addresses, CLIENT, "the limit is 0"),
            (&["a", "b"], plain, CLIENT, "without MPTCP"),
            (&["a,backup", "b,backup"], nothing, CLIENT, "as if they were none"),
            (&["a,backup", "b,metered"], nothing, CLIENT, "as if they were none"),
            (&["a,metered"], nothing, CLIENT, "none is spared"),
            (&["a", "b,metered,backup"], nothing, CLIENT, "b: backup changes nothing"),
            (&["a", "b,signal"], nothing, CLIENT, "b: nothing is opened from it"),
            (&["a", "b,signal,port=80"], nothing, CLIENT, "b: nothing is opened from it"),
            (&["a,signal", "b,signal"], nothing, BOTH, "no path is for subflows"),
            (&["a,fullmesh"], nothing, Role { connects: false, serves: true }, "for clients"),
            (&["a,fullmesh"], ports, CLIENT, "a: fullmesh changes nothing"),
            (&["a,weight=2"], nothing, CLIENT, "a: weight and cost change nothing"),
            (&["a,cap=1GB/month,cap=2GB/connection"], nothing, CLIENT, "a: the cap for each connection"),
        ] {
            let said = warned(paths, change, role);
            assert!(said.contains(part) && said.lines().count() == 1, "{paths:?}: {said}");
        }
        let said = warned(&["a", "b,laminar"], no_addresses, CLIENT);
        assert!(said.contains("b: nothing is opened from it, because it is laminar"), "{said}");
    }
}
