//! The daemon's configuration: a TOML file, read and checked as a whole before anything is done.

pub(crate) mod relay;
mod text;
mod values;

use crate::args::ListenAddress;
use crate::args::Publish;
use crate::failure::{Class, usage};
use crate::logging::Log;
use crate::proxy::Access;
use crate::registry::Registry;
use crate::transport::user_space::Settings;
use crate::warnings;
use anyhow::Context as _;
use ipnet::IpNet;
pub(crate) use relay::Relay;
use relay::{checked_relay, checked_via};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use text::{CaptureText, FileText, GatewayText, PathText, SocksText};
use toml::Spanned;
use umptcp_capture::Selection;
use umptcp_control::directory::group_name;
use umptcp_lab::{LabError, Source};
use umptcp_tun_driver::paths::{Mode, PathSpec};
pub(crate) use values::Service;
use values::Text;

/// The daemon's name when the file gives none.
pub(crate) const DEFAULT_NAME: &str = "umptcp";

/// How long connections may go on after the daemon has been told to end, when the file does not say.
const DRAIN: Duration = Duration::from_secs(5);

/// A configuration that was read and checked.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// The name by which `down` finds the daemon.
    pub(crate) name: String,
    /// The stack and its paths.
    pub(crate) settings: Settings,
    /// How long connections may go on after the daemon has been told to end.
    pub(crate) drain: Duration,
    /// What is accepted for services of this host.
    pub(crate) listens: Vec<Listen>,
    /// Which connections are captured: of this host's programs, and of the hosts that it is the gateway of.
    pub(crate) captures: Vec<Selection>,
    /// Which programs are captured that ask for it (`umptcp run`).
    pub(crate) run: Option<Run>,
    /// The proxy for programs that speak SOCKS or CONNECT of HTTP.
    pub(crate) socks: Option<Access>,
    /// The relay for clients elsewhere.
    pub(crate) relay: Option<Relay>,
    /// Ports of the relay that lead to services here.
    pub(crate) publish: Vec<Publish>,
    /// Where Prometheus asks.
    pub(crate) metrics: Option<SocketAddr>,
    /// What is logged, and how.
    pub(crate) log: Log,
}

/// Programs that may ask to be captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    /// Those of the members of this group, beside root's.
    pub(crate) group: Option<u32>,
}

/// Connections to a port that go to a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Listen {
    /// Where they come in.
    pub(crate) at: ListenAddress,
    /// Where they go.
    pub(crate) to: Service,
    /// Whether the service is told the client's address, by the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// A usage error that names the file, the line, and what is expected there.
    pub(crate) fn load(file: &Path, registry: &Registry) -> anyhow::Result<Config> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file)
            .with_context(|| Class::Usage.failure(format!("cannot read the configuration {name}")))?;
        Config::parse(&Source { file: &name, text: &text }, registry)
            .map_err(|error| usage(error.to_string()))
    }

    /// A relay over these paths, and nothing else. Several may run.
    pub(crate) fn of_relay(relay: Relay, paths: Vec<PathSpec>) -> Config {
        Config {
            name: format!("relay-{}", std::process::id()),
            settings: Settings { paths, ..Settings::default() },
            drain: DRAIN,
            listens: Vec::new(),
            captures: Vec::new(),
            run: None,
            socks: None,
            relay: Some(relay),
            publish: Vec::new(),
            metrics: None,
            log: Log::default(),
        }
    }

    fn parse(source: &Source<'_>, registry: &Registry) -> Result<Config, LabError> {
        let text: FileText = toml::from_str(source.text).map_err(|error| source.parser(&error))?;
        let FileText { name, stack, paths, listens, captures, run, gateway, socks, relay, via, metrics, log } =
            text;
        let name = match name {
            Some(name) => checked_name(source, &name)?,
            None => DEFAULT_NAME.to_owned(),
        };
        let known = |kind: &str, name: &Option<Spanned<String>>, names: Vec<&str>| match name {
            Some(n) if !names.contains(&n.get_ref().as_str()) => {
                let message = format!("unknown {kind} {:?}; known: {}", n.get_ref(), names.join(", "));
                Err(source.at(n.span(), message))
            }
            name => Ok(name.as_ref().map(|n| n.get_ref().clone())),
        };
        let settings = Settings {
            congestion: known(
                "congestion control",
                &stack.congestion,
                registry.congestion.names().collect(),
            )?,
            scheduler: known("scheduler", &stack.scheduler, registry.schedulers.names().collect())?,
            path_policy: known("path policy", &stack.path_policy, registry.path_policies.names().collect())?,
            checksum: stack.checksum,
            no_mptcp: stack.mptcp == Some(false),
            buffer: stack.buffer.map(|buffer| buffer.0),
            subflows: stack.subflows,
            add_addr_accepted: stack.add_addr_accepted,
            pcap: stack.pcap,
            paths: checked_paths(source, &paths)?,
            via: via.as_ref().map(|via| checked_via(source, via)).transpose()?,
            ..Settings::default()
        };
        let mut taken: Vec<ListenAddress> = Vec::new();
        let listens = listens.into_iter().map(|l| {
            let at = l.at.get_ref().0;
            if taken.iter().any(|other| other.overlaps(at)) {
                let message = format!("port {} is listened on twice", at.port);
                return Err(source.at(l.at.span(), message));
            }
            taken.push(at);
            Ok(Listen { at, to: l.to.0, proxy_protocol: l.proxy_protocol })
        });
        let captures = captures
            .iter()
            .map(|c| checked_capture(source, c))
            .chain(gateway.map(|g| checked_gateway(source, g, &settings.paths)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Config {
            name,
            settings,
            drain: stack.drain.map_or(DRAIN, |drain| drain.0),
            listens: listens.collect::<Result<_, _>>()?,
            captures,
            run: run.map(|run| Run { group: run.group.map(|group| group.0.0) }),
            socks: socks.map(|socks| checked_socks(source, socks)).transpose()?,
            relay: relay.map(|relay| checked_relay(source, relay)).transpose()?,
            publish: via.into_iter().flat_map(|via| via.publish).map(|text| text.0).collect(),
            metrics: metrics.map(|metrics| metrics.at.0),
            log: Log { level: log.level.unwrap_or_default(), format: log.format },
        })
    }

    /// What it has, and a daemon with the configuration `now` cannot become.
    pub(crate) fn beyond(&self, now: &Config) -> Vec<&'static str> {
        let group = |config: &Config| config.run.and_then(|run| run.group);
        let fixed = [
            (self.name != now.name, "the name"),
            (group(self) != group(now), "the group of [run]"),
            (self.log.format != now.log.format, "the format of [log]"),
        ];
        let mut all = self.settings.beyond(&now.settings);
        all.extend(fixed.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what));
        all
    }

    /// Becomes another, but for what a running daemon cannot become.
    pub(crate) fn take_over(&mut self, other: Config) {
        let run = other.run.map(|_| Run { group: self.run.and_then(|run| run.group) });
        let Config { name, settings, log, .. } = std::mem::replace(self, other);
        (self.name, self.run) = (name, run);
        self.log.format = log.format;
        let Settings { via, pcap, .. } = settings;
        (self.settings.via, self.settings.pcap) = (via, pcap);
    }

    /// What is in it that a reload does not change.
    pub(crate) fn fixed(&self) -> Vec<&'static str> {
        let nothing = Config {
            name: DEFAULT_NAME.to_owned(),
            run: None,
            log: Log { format: None, ..self.log },
            settings: Settings { pcap: None, via: None, ..self.settings.clone() },
            ..self.clone()
        };
        self.beyond(&nothing)
    }

    /// What it says that comes to nothing.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let connects = !self.captures.is_empty() || self.run.is_some() || self.socks.is_some();
        let serves = !self.listens.is_empty() || self.relay.is_some();
        let paths = self.settings.paths.iter().map(warnings::Path::of_spec).collect::<Vec<_>>();
        warnings::of(&paths, &self.settings.connection(), warnings::Role { connects, serves })
    }

    /// One line on what is in it.
    pub(crate) fn describe(&self) -> String {
        let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        let paths = match self.settings.paths.len() {
            0 => "every usable NIC".to_owned(),
            n => count(n, "path"),
        };
        let mut all = vec![paths, count(self.listens.len(), "listener")];
        let (captures, gateways): (Vec<_>, Vec<_>) = self.captures.iter().partition(|c| c.from.is_empty());
        all.extend((!captures.is_empty()).then(|| count(captures.len(), "capture")));
        all.extend(gateways.iter().map(|gateway| format!("gateway for {}", gateway.from.join(", "))));
        all.extend(self.run.map(|run| match run.group {
            Some(group) => format!("programs of root and the group {}", group_name(group)),
            None => "programs of root".to_owned(),
        }));
        all.extend(self.socks.as_ref().map(|socks| format!("SOCKS at {}", socks.at)));
        all.extend(self.relay.as_ref().map(Relay::describe));
        all.extend(self.settings.via.as_ref().map(|via| format!("via {}", via.relay()[0])));
        all.extend(self.metrics.map(|at| format!("metrics at {at}")));
        all.join(", ")
    }
}

/// The name is part of a file's.
fn checked_name(source: &Source<'_>, name: &Spanned<String>) -> Result<String, LabError> {
    let text = name.get_ref();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 64 || text.starts_with('.') || !text.chars().all(fits) {
        let message = format!(
            "{text:?} is no name for a daemon; expected at most 64 letters, digits, '-', '_' and '.', not a '.' first"
        );
        return Err(source.at(name.span(), message));
    }
    Ok(text.clone())
}

/// Everything of this host is captured only when that is said.
fn checked_capture(source: &Source<'_>, text: &Spanned<CaptureText>) -> Result<Selection, LabError> {
    let CaptureText { all, cgroup, user, to, except, ports } = text.get_ref();
    let some = cgroup.is_some() || user.is_some() || !to.is_empty() || !ports.is_empty();
    if *all == some {
        let message = if some {
            "all = true captures everything; expected it without cgroup, user, to and ports"
        } else {
            "nothing says what is captured; expected one of cgroup, user, to, ports, or all = true"
        };
        return Err(source.at(text.span(), message));
    }
    Ok(Selection {
        cgroup: cgroup.as_ref().map(|c| c.0.0.clone()),
        user: user.as_ref().map(|u| u.0.0),
        from: Vec::new(),
        to: nets(to),
        except: nets(except),
        ports: ports.clone(),
    })
}

fn checked_gateway(
    source: &Source<'_>,
    text: GatewayText,
    paths: &[PathSpec],
) -> Result<Selection, LabError> {
    let GatewayText { lan, to, except, ports } = text;
    if lan.get_ref().is_empty() {
        let message =
            "a gateway serves hosts; expected the devices that they are reached by: lan = [\"eth1\"]";
        return Err(source.at(lan.span(), message));
    }
    if paths.is_empty() {
        let message = "every usable NIC has a path, also those of lan; expected a [[path]] for each NIC that leads outside";
        return Err(source.at(lan.span(), message));
    }
    for device in lan.get_ref() {
        if paths.iter().any(|path| path.device == *device) {
            let message = format!("{device:?} has a path, which leads outside; expected it here or there");
            return Err(source.at(lan.span(), message));
        }
        // By the rules for a path's.
        if device.contains([',', '"', '*', '\\', '$']) || crate::args::parse_path(device).is_err() {
            let message = format!("{device:?} is not the name of a network device");
            return Err(source.at(lan.span(), message));
        }
    }
    let (to, except) = (nets(&to), nets(&except));
    Ok(Selection { from: lan.into_inner(), to, except, ports, ..Selection::default() })
}

fn nets(all: &[Text<IpNet>]) -> Vec<IpNet> {
    all.iter().map(|net| net.0).collect()
}

fn checked_socks(source: &Source<'_>, text: SocksText) -> Result<Access, LabError> {
    let access = Access { at: text.at.get_ref().0, allow: text.allow.into_iter().map(|net| net.0).collect() };
    access.check().map_err(|reason| {
        let message = format!(
            "{reason}; expected allow = [\"192.168.0.0/16\"] or the like, or an address such as 127.0.0.1"
        );
        source.at(text.at.span(), message)
    })?;
    Ok(access)
}

fn checked_paths(source: &Source<'_>, paths: &[Spanned<PathText>]) -> Result<Vec<PathSpec>, LabError> {
    let (mut devices, mut ids) = (HashSet::new(), HashSet::new());
    let mut one = |path: &Spanned<PathText>| {
        let text = path.get_ref();
        let spec = spec(text).map_err(|reason| source.at(path.span(), format!("this path: {reason}")))?;
        if !devices.insert(spec.name()) {
            return Err(
                source.at(text.device.span(), format!("the device {:?} has a path already", spec.device))
            );
        }
        for id in [spec.ids.ipv4, spec.ids.ipv6].into_iter().flatten() {
            if !ids.insert(id) {
                let message = format!("the id {} is that of another path's address already", id.0);
                return Err(source.at(path.span(), message));
            }
        }
        Ok(spec)
    };
    paths.iter().map(&mut one).collect()
}

/// The same rules as for `--path`, by the same code.
fn spec(text: &PathText) -> Result<PathSpec, String> {
    let mut words = text.device.get_ref().clone();
    if words.contains(',') {
        return Err(format!("{words:?} is not the name of a network device"));
    }
    for address in &text.addresses {
        words += &format!(",address={}", address.0);
    }
    if let Some(mode) = &text.mode {
        words += &format!(",mode={}", mode.0);
    }
    if let Some(address) = &text.advertise {
        words += &format!(",advertise={}", address.0);
    }
    if let Some(weight) = text.weight {
        words += &format!(",weight={weight}");
    }
    if let Some(cost) = text.cost {
        words += &format!(",cost={cost}");
    }
    for cap in &text.cap {
        if cap.contains(',') {
            return Err(format!("{cap:?} is not a cap such as \"10 GB/month\""));
        }
        words += &format!(",cap={cap}");
    }
    let flags = [
        (text.metered, "metered"),
        (text.backup, "backup"),
        (text.signal, "signal"),
        (text.subflow, "subflow"),
        (text.fullmesh, "fullmesh"),
        (text.laminar, "laminar"),
    ];
    for (_, flag) in flags.iter().filter(|(is_set, _)| *is_set) {
        words += &format!(",{flag}");
    }
    let numbers = [("port", text.port), ("id", text.id.map(u16::from)), ("id6", text.id6.map(u16::from))];
    for (key, number) in numbers {
        if let Some(number) = number {
            words += &format!(",{key}={number}");
        }
    }
    let missing = text.mode.as_ref().is_some_and(|mode| mode.0 == Mode::Routed) && text.addresses.is_empty();
    if missing {
        return Err("mode = \"routed\" requires addresses = [\"...\"]".into());
    }
    crate::args::parse_path(&words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp::BufferSize;

    fn parse(text: &str) -> Result<Config, String> {
        let source = Source { file: "u.toml", text };
        Config::parse(&source, &Registry::standard()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_every_nic_and_nothing_else() {
        let config = parse("").unwrap();
        assert_eq!(config.name, DEFAULT_NAME);
        assert!(config.settings.paths.is_empty() && config.listens.is_empty());
        assert_eq!(config.describe(), "every usable NIC, 0 listeners");
    }

    #[test]
    fn everything_is_read() {
        let config = parse(
            "name = \"web\"\n\
             [stack]\ncongestion = \"olia\"\nscheduler = \"round-robin\"\nchecksum = true\nmptcp = false\nbuffer = \"auto 32 MiB\"\ndrain = \"500 ms\"\n\
             [[path]]\ndevice = \"eth0\"\nadvertise = \"192.0.2.1\"\nbackup = true\nweight = 3\nmetered = true\ncap = [\"1.5 GB/month\", \"50 MB/connection\"]\nsignal = true\nlaminar = true\nport = 8443\nid = 7\n\
             [[path]]\ndevice = \"eth1\"\nmode = \"routed\"\naddresses = [\"10.0.0.1\", \"2001:db8::1\"]\n\
             [[listen]]\nat = 443\nto = \"127.0.0.1:8443\"\nproxy-protocol = true\n\
             [[listen]]\nat = \"[2001:db8::1]:80\"\nto = 80\n\
             [[capture]]\ncgroup = \"system.slice/a.service/\"\nuser = \"root\"\nports = [80, 443]\n\
             [[capture]]\nall = true\nexcept = [\"10.0.0.0/8\"]\n\
             [gateway]\nlan = [\"lan0\", \"lan1\"]\nexcept = [\"192.0.2.1\"]\n\
             [socks]\nat = \"[::]:1080\"\nallow = [\"10.0.0.0/8\", \"192.0.2.1\"]\n\
             [metrics]\nat = \"127.0.0.1:9100\"\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n",
        )
        .unwrap();
        let paths: Vec<String> = config.settings.paths.iter().map(ToString::to_string).collect();
        assert_eq!(
            paths,
            [
                "eth0,advertise=192.0.2.1,backup,metered,weight=3,cap=1500MB/month,cap=50MB/connection,signal,laminar,port=8443,id=7",
                "eth1,address=10.0.0.1,address=2001:db8::1,mode=routed"
            ]
        );
        let listens: Vec<String> =
            config.listens.iter().map(|l| format!("{} {} {}", l.at, l.to, l.proxy_protocol)).collect();
        assert_eq!(listens, ["*:443 127.0.0.1:8443 true", "[2001:db8::1]:80 127.0.0.1:80 false"]);
        let Settings { congestion, scheduler, checksum, no_mptcp, .. } = &config.settings;
        assert_eq!((congestion.as_deref(), scheduler.as_deref()), (Some("olia"), Some("round-robin")));
        assert!(*checksum && *no_mptcp);
        assert_eq!(config.settings.buffer, Some(BufferSize::Auto { limit: 32 << 20 }));
        assert_eq!((config.name.as_str(), config.drain), ("web", Duration::from_millis(500)));
        let about = "2 paths, 2 listeners, 2 captures, gateway for lan0, lan1, SOCKS at [::]:1080, metrics at 127.0.0.1:9100";
        assert_eq!(config.describe(), about);
        let captures = [
            Selection {
                cgroup: Some("/system.slice/a.service".into()),
                user: Some(0),
                ports: vec![80, 443],
                ..Selection::default()
            },
            Selection { except: vec!["10.0.0.0/8".parse().unwrap()], ..Selection::default() },
            Selection {
                from: vec!["lan0".into(), "lan1".into()],
                except: vec!["192.0.2.1/32".parse().unwrap()],
                ..Selection::default()
            },
        ];
        assert_eq!(config.captures, captures);
        let socks = config.socks.unwrap();
        for (client, allowed) in [
            ("10.9.9.9", true),
            ("::ffff:10.1.1.1", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::1", false),
        ] {
            assert_eq!(socks.allows(client.parse().unwrap()), allowed, "{client}");
        }
    }

    #[test]
    fn errors_name_the_line_and_what_was_expected() {
        for (text, line, hints) in [
            ("\n[stak]\n", 2, ["unknown field `stak`", "did you mean `stack`?"]),
            ("[stack]\nchecksums = true", 2, ["unknown field", "did you mean `checksum`?"]),
            ("[stack]\n\nchecksum = 1", 3, ["expected a boolean", "in: checksum = 1"]),
            ("[stack]\ndrain = \"soon\"", 2, ["soon", "expected a time"]),
            ("[stack]\nbuffer = \"automatic\"", 2, ["automatic", "expected \"auto\""]),
            ("[stack]\nbuffer = \"1 KiB\"", 2, ["1 KiB", "4 KiB to 1 GiB"]),
            ("[stack]\ncongestion = \"bbr\"", 2, ["unknown congestion control", "lia"]),
            ("[stack]\nscheduler = \"x\"", 2, ["unknown scheduler", "min-rtt"]),
            ("[stack]\npath-policy = \"x\"", 2, ["unknown path policy", "handover"]),
            ("[[path]]\ndevice = \"eth0\"\ncap = [\"1 GB/day\"]", 1, ["1 GB/day", "cap=10GB/month"]),
            ("[[path]]\nmode = \"nat\"", 1, ["missing field", "device"]),
            (
                "[[path]]\ndevice = \"eth0\"\nmode = \"bridge\"",
                3,
                ["bridge", "\"nat\", \"routed\", \"udp\" or \"auto\""],
            ),
            ("[[path]]\ndevice = \"eth0\"\nmode = \"routed\"", 1, ["this path", "requires addresses"]),
            ("[[path]]\ndevice = \"e,backup\"", 1, ["this path", "not the name"]),
            ("[[path]]\ndevice = \"e\"\naddresses = [\"127.0.0.1\"]", 1, ["this path", "loopback"]),
            ("[[path]]\ndevice = \"e\"\nweight = 0", 1, ["weight", "at least 1"]),
            ("[[path]]\ndevice = \"e\"\n[[path]]\ndevice = \"e\"", 4, ["already", "\"e\""]),
            ("[[listen]]\nat = 70000\nto = 1", 2, ["70000", "expected a port"]),
            ("[[listen]]\nat = 0\nto = 1", 2, ["integer `0`", "expected a port"]),
            ("[[listen]]\nat = 1\nto = \"localhost\"", 3, ["localhost", "HOST:PORT"]),
            ("[[listen]]\nat = 1", 1, ["missing field", "to"]),
            ("[[listen]]\nat = 1\nto = 1\n[[listen]]\nat = 1\nto = 2", 5, ["port 1", "twice"]),
            ("[[listen]]\nat = 1\nto = 1\n[[listen]]\nat = \"10.0.0.1:1\"\nto = 2", 5, ["port 1", "twice"]),
            ("[[capture]]\nexcept = [\"10.0.0.0/8\"]", 1, ["nothing says what", "all = true"]),
            ("[[capture]]\nall = true\nuser = 0", 1, ["all = true", "without"]),
            ("[[capture]]\nuser = \"no such user\"", 2, ["no such user", "expected a user of this host"]),
            ("[[capture]]\ncgroup = \"a/../b\"", 2, ["a/../b", "expected the path of a cgroup"]),
            ("[[capture]]\nports = [0, 70000]", 2, ["70000", "u16"]),
            ("[run]\ngroup = \"no such group\"", 2, ["no such group", "expected a group of this host"]),
            ("[run]\ngroups = [\"root\"]", 2, ["unknown field", "group"]),
            ("[gateway]\nports = [80]", 1, ["missing field", "lan"]),
            ("[gateway]\nlan = []", 2, ["expected the devices", "eth1"]),
            ("[gateway]\nlan = [\"e1\"]", 2, ["every usable NIC", "expected a [[path]]"]),
            ("[[path]]\ndevice = \"e0\"\n[gateway]\nlan = [\"a b\"]", 4, ["a b", "not the name"]),
            (
                "[[path]]\ndevice = \"e0\"\n[gateway]\nlan = [\"e0\"]",
                4,
                ["\"e0\" has a path", "here or there"],
            ),
            ("[socks]\nat = \"1080\"", 2, ["1080", "expected ADDRESS:PORT"]),
            ("[socks]\nat = \"0.0.0.0:1080\"", 2, ["others than this host", "expected allow"]),
            (
                "[socks]\nat = \"0.0.0.0:1080\"\nallow = [\"10/8\"]",
                3,
                ["10/8", "expected an address or a network"],
            ),
            ("[metrics]\nport = 9100", 2, ["unknown field", "expected `at`"]),
            (
                "[[path]]\ndevice = \"a\"\nid = 3\n[[path]]\ndevice = \"b\"\nid6 = 3",
                4,
                ["the id 3", "already"],
            ),
            ("[[path]]\ndevice = \"a\"\nport = 80", 1, ["takes signal", "a port"]),
            ("[log]\nlevel = \"loud\"", 2, ["loud", "info"]),
            ("name = \"../x\"", 1, ["../x", "expected"]),
            ("name = ", 1, ["", ""]),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("u.toml:{line}: ")), "{text}: {error}");
            assert!(hints.iter().all(|hint| error.contains(hint)), "{text}: {error}");
        }
    }

    #[test]
    fn the_example_is_right() {
        let text = include_str!("../../../../../packaging/umptcp.toml");
        let config = parse(text).unwrap();
        assert!(!config.listens.is_empty());
        // What is commented out is right, too.
        let all: String =
            text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
        assert_ne!(text, all);
        parse(&all).unwrap();
    }

    /// A file of keys that is gone when this is dropped.
    struct Keys(std::path::PathBuf);

    impl Keys {
        fn new(name: &str, text: &str) -> Keys {
            let file = std::env::temp_dir().join(format!("umptcp-{name}-{}", std::process::id()));
            std::fs::write(&file, text).unwrap();
            Keys(file)
        }
    }

    impl Drop for Keys {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn the_example_of_a_relay_is_right() {
        let keys = Keys::new("example-keys", &format!("laptop {}\n", "01".repeat(32)));
        let text = include_str!("../../../../../packaging/relay.toml");
        let text = text.replace("/etc/umptcp/relay.keys", &keys.0.display().to_string());
        let config = parse(&text).unwrap();
        assert_eq!(config.describe(), "1 path, 0 listeners, relay at *:8803 for 1 client");
        let relay = config.relay.unwrap();
        assert_eq!(relay.limits, umptcp_relay::Limits::default(), "the example shows the defaults");
        // What is commented out is right, too; a NIC has one path of each mode.
        let all: String =
            text.lines().map(|line| format!("{}\n", line.strip_prefix("#: ").unwrap_or(line))).collect();
        assert_ne!(text, all);
        let relay = parse(&all).unwrap().relay.unwrap();
        assert_eq!(relay.limits.bytes, Some(500_000_000_000));
        assert_eq!((relay.destinations.allow.len(), relay.destinations.ports.len()), (1, 2));
    }

    #[test]
    fn a_relay_without_keys_must_be_meant() {
        let keys = Keys::new("bad-keys", "laptop 12\n");
        let bad = format!("[relay]\nat = 1\nkeys = \"{}\"\n", keys.0.display());
        for (text, line, hint) in [
            ("\n[relay]\nat = 9000\n".to_owned(), 2, "open = true"),
            ("[relay]\nopen = true\nkeys = \"/none\"\n".to_owned(), 1, "open = true"),
            ("[relay]\nkeys = \"/none/keys\"\n".to_owned(), 2, "cannot read /none/keys"),
            (bad, 3, "line 1: this is no key"),
            ("[relay]\nopen = true\nallow = [\"10.0.0.0/40\"]\n".to_owned(), 3, "a network"),
            ("[relay]\nopen = true\n[relay.limits]\nbytes-per-day = \"much\"\n".to_owned(), 4, "500 GB"),
            ("[via]\nrelay = \"[::1\"\n".to_owned(), 2, "a name or an address"),
            ("[via]\nrelay = \"192.0.2.1\"\nkey = \"/none/key\"\n".to_owned(), 2, "/none/key"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.starts_with(&format!("u.toml:{line}: ")), "{text}: {error}");
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert!(parse("[relay]\nopen = true\n").unwrap().relay.unwrap().clients.is_none());
        let via = parse("[via]\nrelay = \"192.0.2.1\"\nexcept = [\"10.0.0.0/8\"]\n").unwrap().settings.via;
        assert_eq!(via.unwrap().relay()[0].to_string(), "192.0.2.1:8803");
    }
}
