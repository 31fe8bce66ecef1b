//! From a scenario's text to what can be run: every name must exist, and every number make sense.

use crate::error::{LabError, Source};
use crate::registries::Registries;
use crate::scenario::{
    AqmText, EventText, FlowText, LinkText, LossText, RecoveryText, ReferenceText, ReverseText, Scenario,
    Seeds, SourceText,
};
use crate::setup::{
    Change, EventSetup, FlowSetup, Leg, LinkChange, LinkSetup, LinkState, RecoverySetup, ReferenceSetup,
    RouteChange, Setup,
};
use crate::traffic::SourceSetup;
use crate::units;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toml::Spanned;
use umptcp_netsim::RateTrace;
use umptcp_netsim::{Aqm, CoDel, Red};
use umptcp_netsim::{Link, Loss, Queue, Reorder};
use umptcp_stack_core::config::BufferSize;

/// Connections of one scenario: as many have addresses (see `build`).
const MOST_FLOWS: u64 = 4096;
/// Subflows of one connection.
const MOST_ROUTES: usize = 32;
const DEFAULT_SEEDS: u32 = 5;
const DEFAULT_SAMPLE: Duration = Duration::from_millis(100);
const DEFAULT_BUFFER: BufferSize = BufferSize::Fixed(4 << 20);
/// Bytes of a message.
const DEFAULT_MESSAGE: u64 = 1000;
/// Bytes of a request, as of HTTP with its usual headers.
const DEFAULT_REQUEST: u64 = 400;
/// Connections of a page, as browsers open for HTTP/1.1.
const DEFAULT_CONNECTIONS: u32 = 6;
const MOST_PAGE_CONNECTIONS: u32 = 32;
/// Playing time of a segment of a video, and of what is fetched ahead.
const DEFAULT_SEGMENT: Duration = Duration::from_secs(4);
const DEFAULT_AHEAD: Duration = Duration::from_secs(20);
/// Of times that applications repeat, so that a run ends.
const SHORTEST: Duration = Duration::from_millis(1);
const SHORTEST_INTERVAL: Duration = Duration::from_micros(1);

type Checked<T> = Result<T, LabError>;

/// Quantities of a group of flows that published values may be given for.
pub(crate) const FLOW_QUANTITIES: &[&str] = &[
    "goodput",
    "throughput",
    "total",
    "completion",
    "fairness",
    "retransmitted",
    "timeouts",
    "silence",
    "out-of-order",
    "out-of-order-max",
    "delay-p50",
    "delay-p95",
    "delay-p99",
    "delay-max",
    "missing",
    "page-mean",
    "page-max",
    "stalls",
    "stalled",
];

/// Checks scenarios; `folder` is where the files are that they name.
#[derive(Clone, Copy)]
pub(crate) struct Validator<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) folder: Option<&'a Path>,
    pub(crate) registries: &'a Registries,
    /// The values of the parameters.
    pub(crate) parameters: &'a [(String, String)],
}

impl Validator<'_> {
    pub(crate) fn check(&self, text: &Scenario) -> Checked<Setup> {
        let duration = text.duration.get_ref().0;
        if duration.is_zero() {
            return Err(self.source.at(text.duration.span(), "duration must be more than nothing"));
        }
        let sample = text.sample.as_ref().map_or(DEFAULT_SAMPLE, |s| s.get_ref().0);
        if sample < Duration::from_millis(1) {
            let span = text.sample.as_ref().map_or(0..0, Spanned::span);
            return Err(self.source.at(span, "sample must be 1 ms or more"));
        }
        if text.links.is_empty() {
            return Err(self.source.whole("there is no [[link]]"));
        }
        if text.flows.is_empty() {
            return Err(self.source.whole("there is no [[flow]]"));
        }
        self.unique("link", text.links.iter().map(|l| &l.name))?;
        self.unique("flow", text.flows.iter().map(|f| &f.name))?;
        let links = text.links.iter().map(|l| self.link(l)).collect::<Checked<Vec<_>>>()?;
        let flows = text.flows.iter().map(|f| self.flow(f, &links)).collect::<Checked<Vec<_>>>()?;
        if flows.iter().map(|f| u64::from(f.count) * u64::from(f.source.connections())).sum::<u64>()
            > MOST_FLOWS
        {
            return Err(self.source.whole(format!("there are more than {MOST_FLOWS} connections")));
        }
        let events = text.events.iter().map(|e| self.event(e, &links, &flows)).collect::<Checked<_>>()?;
        let references = text.references.iter().filter_map(|r| self.reference(r, &flows).transpose());
        let references = references.collect::<Checked<_>>()?;
        let recoveries = text.recoveries.iter().map(|r| self.recovery(r, &flows)).collect::<Checked<_>>()?;
        Ok(Setup {
            warm_up: text.warm_up.map_or(Duration::ZERO, |t| t.0),
            duration,
            seeds: self.seeds(text.seeds.as_ref())?,
            sample,
            links,
            flows,
            events,
            references,
            recoveries,
        })
    }

    fn seeds(&self, text: Option<&Spanned<Seeds>>) -> Checked<Vec<u64>> {
        let Some(text) = text else { return Ok((1..=u64::from(DEFAULT_SEEDS)).collect()) };
        let list = match text.get_ref() {
            Seeds::Count(n) => (1..=u64::from(*n)).collect(),
            Seeds::List(list) => list.clone(),
        };
        let mut sorted = list.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if list.is_empty() || sorted.len() != list.len() || list.len() > 10_000 {
            return Err(self
                .source
                .at(text.span(), "seeds must be between 1 and 10000, or a list of different numbers"));
        }
        Ok(list)
    }

    fn unique<'t>(&self, kind: &str, names: impl Iterator<Item = &'t Spanned<String>>) -> Checked<()> {
        let mut seen: Vec<&str> = Vec::new();
        for name in names {
            let text = name.get_ref().as_str();
            // Names stand in CSV columns, file names and routes.
            let odd = text.is_empty() || !text.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
            if odd || text.starts_with('-') {
                let message =
                    format!("{kind}: the name {text:?} may have letters, digits, '-', '_' and '.' only");
                return Err(self.source.at(name.span(), message));
            }
            if seen.contains(&text) {
                return Err(self.source.at(name.span(), format!("there are two {kind}s named {text:?}")));
            }
            seen.push(text);
        }
        Ok(())
    }

    fn link(&self, text: &LinkText) -> Checked<LinkSetup> {
        let name = text.name.get_ref().clone();
        let both = ReverseText {
            rate: text.rate.clone(),
            trace: text.trace.clone(),
            delay: text.delay,
            jitter: text.jitter,
            queue: text.queue.clone(),
            aqm: text.aqm.clone(),
            ecn: text.ecn,
            loss: text.loss.clone(),
            reorder: text.reorder.clone(),
            duplicate: text.duplicate,
            mtu: text.mtu,
            overhead: text.overhead,
        };
        let forward = self.direction(&name, Link::default(), &both)?;
        let reverse = match &text.reverse {
            None => forward.clone(),
            Some(other) => {
                // A curve that is scaled with the rate is scaled with that of its own direction.
                let other = ReverseText { aqm: other.aqm.clone().or(both.aqm.clone()), ..other.clone() };
                self.direction(&name, forward.clone(), &other)?
            }
        };
        Ok(LinkSetup { name, forward, reverse })
    }

    /// `base` with what `text` says.
    fn direction(&self, name: &str, base: Link, text: &ReverseText) -> Checked<Link> {
        let mut link = base;
        if let (Some(trace), Some(_)) = (&text.trace, &text.rate) {
            return Err(self.source.at(trace.span(), format!("link {name:?} has both a rate and a trace")));
        }
        if let Some(rate) = &text.rate {
            (link.rate, link.trace) = (Some(rate.get_ref().0), None);
        }
        if let Some(file) = &text.trace {
            (link.rate, link.trace) = (None, Some(Arc::new(self.trace(name, file)?)));
        }
        link.delay = text.delay.map_or(link.delay, |t| t.0);
        link.jitter = text.jitter.map_or(link.jitter, |t| t.0);
        if let Some(queue) = &text.queue {
            link.queue = queue_limit(queue.get_ref())
                .map_err(|e| self.source.at(queue.span(), format!("link {name:?}: queue: {e}")))?;
        }
        if let Some(aqm) = &text.aqm {
            link.aqm = self.aqm(name, aqm, &link)?;
        }
        link.ecn = text.ecn.unwrap_or(link.ecn);
        if let Some(loss) = &text.loss {
            link.loss = self.loss(name, loss)?;
        }
        if let Some(reorder) = &text.reorder {
            link.reorder = Reorder { probability: reorder.probability.0, extra_delay: reorder.delay.0 };
        }
        link.duplicate = text.duplicate.map_or(link.duplicate, |p| p.0);
        link.mtu = text.mtu.unwrap_or(link.mtu);
        // RFC 791: every link carries 68 bytes; TCP with MPTCP's options needs more than that.
        if link.mtu < 256 {
            return Err(self.source.whole(format!("link {name:?}: mtu {} is less than 256", link.mtu)));
        }
        link.overhead = text.overhead.unwrap_or(link.overhead);
        Ok(link)
    }

    fn trace(&self, link: &str, file: &Spanned<String>) -> Checked<RateTrace> {
        let wrong = |e: String| {
            self.source.at(file.span(), format!("link {link:?}: trace {:?}: {e}", file.get_ref()))
        };
        let path = match self.folder {
            Some(folder) => folder.join(file.get_ref()),
            None => Path::new(file.get_ref()).to_path_buf(),
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        RateTrace::parse(&text).map_err(wrong)
    }

    fn aqm(&self, link: &str, aqm: &Spanned<AqmText>, so_far: &Link) -> Checked<Aqm> {
        let wrong = |e: &str| self.source.at(aqm.span(), format!("link {link:?}: aqm: {e}"));
        match aqm.get_ref() {
            AqmText::TailDrop => Ok(Aqm::TailDrop),
            AqmText::Codel { target, interval } => {
                let default = CoDel::default();
                let codel = CoDel {
                    target: target.map_or(default.target, |t| t.0),
                    interval: interval.map_or(default.interval, |t| t.0),
                };
                if codel.interval.is_zero() {
                    return Err(wrong("the interval must be more than nothing"));
                }
                Ok(Aqm::CoDel(codel))
            }
            AqmText::Red { curve, per, weight } => {
                let rising = curve.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
                let sane = curve.iter().all(|(n, p)| *n >= 0.0 && (0.0..=1.0).contains(p));
                if curve.is_empty() || !rising || !sane {
                    return Err(wrong(
                        "curve is a list of [packets, probability] with packets rising and probabilities from 0 to 1",
                    ));
                }
                let weight = weight.unwrap_or(1.0);
                if !(weight > 0.0 && weight <= 1.0) {
                    return Err(wrong("weight is more than 0 and at most 1"));
                }
                let scale = match (per, so_far.mean_rate()) {
                    (None, _) => 1.0,
                    (Some(per), Some(rate)) => rate as f64 / per.0 as f64,
                    (Some(_), None) => return Err(wrong("per needs a link with a rate")),
                };
                Ok(Aqm::Red(Red::scaled(curve, scale, weight)))
            }
        }
    }

    fn loss(&self, link: &str, loss: &Spanned<LossText>) -> Checked<Loss> {
        Ok(match loss.get_ref() {
            LossText::Random(p) if p.0 == 0.0 => Loss::None,
            LossText::Random(p) => Loss::Random(p.0),
            LossText::Bursts(b) if b.burst >= 1.0 && b.mean.0 < 0.99 => Loss::bursts(b.mean.0, b.burst),
            LossText::Bursts(_) => {
                let message = format!("link {link:?}: loss: burst is at least 1 packet, mean less than 99 %");
                return Err(self.source.at(loss.span(), message));
            }
            LossText::Chain(c) => Loss::Bursts {
                to_bad: c.to_bad.0,
                to_good: c.to_good.0,
                loss_good: c.loss_good.0,
                loss_bad: c.loss_bad.0,
            },
        })
    }

    fn flow(&self, text: &FlowText, links: &[LinkSetup]) -> Checked<FlowSetup> {
        let name = text.name.get_ref().clone();
        let word = |field: &Option<Spanned<String>>, what: &str, known: &[&str], default: &str| {
            let found = self.known(field, &format!("flow {name:?}: {what}"), known)?;
            Ok::<String, LabError>(found.unwrap_or_else(|| default.to_string()))
        };
        let algorithms: Vec<&str> = self.registries.congestion.names().collect();
        let schedulers: Vec<&str> = self.registries.schedulers.names().collect();
        let protocol = word(&text.protocol, "protocol", &["mptcp", "tcp"], "mptcp")?;
        let mptcp = protocol == "mptcp";
        let default_algorithm = if mptcp { umptcp_congestion::DEFAULT_NAME } else { "reno" };
        let congestion = word(&text.congestion, "congestion", &algorithms, default_algorithm)?;
        let scheduler = word(&text.scheduler, "scheduler", &schedulers, umptcp_scheduler::DEFAULT_NAME)?;
        let policies: Vec<&str> = self.registries.path_policies.names().collect();
        let path_policy =
            word(&text.path_policy, "path-policy", &policies, umptcp_path_manager::DEFAULT_NAME)?;
        let down = word(&text.direction, "direction", &["up", "down"], "up")? == "down";
        let routes =
            text.routes.iter().map(|r| self.route(&text.name, r, links)).collect::<Checked<Vec<_>>>()?;
        let mut backup = vec![false; routes.len()];
        for number in &text.backup {
            let wrong = |e: String| self.source.at(number.span(), format!("flow {name:?}: backup: {e}"));
            backup[route_index(number.get_ref().0, routes.len()).map_err(wrong)?] = true;
        }
        let count = text.count.as_ref().map_or(1, |c| c.get_ref().0);
        let fault = match routes.len() {
            0 => Some("routes is empty".to_string()),
            n if n > 1 && !mptcp => Some("plain TCP has one route".to_string()),
            n if n > MOST_ROUTES => Some(format!("there are more than {MOST_ROUTES} routes")),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(self.source.at(text.name.span(), format!("flow {name:?}: {fault}")));
        }
        let start = text.start.map_or(Duration::ZERO, |t| t.0);
        if text.stop.is_some_and(|stop| stop.0 <= start) {
            return Err(self.source.at(text.name.span(), format!("flow {name:?} stops before it starts")));
        }
        let buffer = |b: Option<units::Buffer>| b.map_or(DEFAULT_BUFFER, |b| b.0);
        Ok(FlowSetup {
            count,
            mptcp,
            congestion,
            scheduler,
            path_policy,
            routes,
            backup,
            down,
            start,
            spread: text.spread.map_or(Duration::ZERO, |t| t.0),
            stop: text.stop.map(|t| t.0),
            source: self.source(text)?,
            send_buffer: buffer(text.send_buffer),
            receive_buffer: buffer(text.receive_buffer),
            buffers_given: (text.send_buffer.is_some(), text.receive_buffer.is_some()),
            checksum: text.checksum.unwrap_or(false),
            ecn: text.ecn.unwrap_or(false),
            name,
        })
    }

    fn source(&self, text: &FlowText) -> Checked<SourceSetup> {
        let Some(source) = &text.source else {
            return Ok(SourceSetup::Bulk { size: text.size.map(|b| b.0) });
        };
        let wrong =
            |e: &str| self.source.at(source.span(), format!("flow {:?}: source: {e}", text.name.get_ref()));
        if text.size.is_some() {
            return Err(wrong("a flow has a size or a source, not both"));
        }
        let size = |b: Option<units::Bytes>, default: u64| b.map_or(default, |b| b.0);
        let request = |b: Option<units::Bytes>| size(b, DEFAULT_REQUEST);
        let messages = |rate: units::Rate, message: Option<units::Bytes>| {
            let message = size(message, DEFAULT_MESSAGE);
            (message, Duration::from_secs_f64(message as f64 * 8.0 / rate.0 as f64))
        };
        let setup = match source.get_ref() {
            SourceText::Constant { rate, message } => {
                let (message, interval) = messages(*rate, *message);
                SourceSetup::Constant { message, interval }
            }
            SourceText::OnOff { rate, message, on, off, random } => {
                let (message, interval) = messages(*rate, *message);
                if on.0 < SHORTEST || off.0 < SHORTEST {
                    return Err(wrong("on and off must be 1 ms or more"));
                }
                let random = random.unwrap_or(false);
                SourceSetup::OnOff { message, interval, on: on.0, off: off.0, random }
            }
            SourceText::Requests { count, request: asked, response, pause } => SourceSetup::Requests {
                count: count.map(|n| u64::from(n.0)),
                request: request(*asked),
                response: response.0,
                pause: pause.map_or(Duration::ZERO, |t| t.0),
            },
            SourceText::Page { connections, objects, size, request: asked, every } => SourceSetup::Page {
                connections: connections.map_or(DEFAULT_CONNECTIONS, |n| n.0),
                objects: u64::from(objects.0),
                request: request(*asked),
                size: size.0,
                every: every.map(|t| t.0),
            },
            SourceText::Video { rate, segment, buffer, request: asked } => {
                let length = segment.map_or(DEFAULT_SEGMENT, |t| t.0);
                let bytes = rate.0 as f64 * length.as_secs_f64() / 8.0;
                SourceSetup::Video {
                    request: request(*asked),
                    segment: bytes.round() as u64,
                    length,
                    ahead: buffer.map_or(DEFAULT_AHEAD, |t| t.0),
                }
            }
        };
        match setup {
            SourceSetup::Constant { message, interval } | SourceSetup::OnOff { message, interval, .. }
                if message == 0 || interval < SHORTEST_INTERVAL =>
            {
                Err(wrong("message must be at least 1 B, and messages at least 1 us apart"))
            }
            SourceSetup::Requests { request, response, .. } if request == 0 || response == 0 => {
                Err(wrong("request and response must be at least 1 B"))
            }
            SourceSetup::Page { connections, objects, request, size, every }
                if !(1..=MOST_PAGE_CONNECTIONS).contains(&connections)
                    || objects == 0
                    || request == 0
                    || size == 0
                    || every.is_some_and(|every| every < SHORTEST) =>
            {
                Err(wrong(
                    "connections must be between 1 and 32, objects, size and request at least 1, every 1 ms or more",
                ))
            }
            SourceSetup::Video { request, segment, length, .. }
                if request == 0 || segment == 0 || length < SHORTEST =>
            {
                Err(wrong("a segment must be 1 ms or more with at least 1 B, request at least 1 B"))
            }
            setup => Ok(setup),
        }
    }

    fn route(
        &self,
        flow: &Spanned<String>,
        route: &[Spanned<String>],
        links: &[LinkSetup],
    ) -> Checked<Vec<Leg>> {
        let mut legs: Vec<Leg> = Vec::new();
        for text in route {
            let (backward, name) = match text.get_ref().strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, text.get_ref().as_str()),
            };
            let wrong =
                |e: String| self.source.at(text.span(), format!("flow {:?}: routes: {e}", flow.get_ref()));
            let link = self.find(name, links.iter().map(|l| l.name.as_str())).map_err(wrong)?;
            if legs.iter().any(|l| l.link == link) {
                return Err(wrong(format!("link {name:?} occurs twice in one route")));
            }
            legs.push(Leg { link, backward });
        }
        if legs.is_empty() {
            let message = format!("flow {:?}: routes: a route without a link", flow.get_ref());
            return Err(self.source.at(flow.span(), message));
        }
        Ok(legs)
    }

    fn find<'n>(
        &self,
        name: &str,
        mut names: impl Iterator<Item = &'n str> + Clone,
    ) -> Result<usize, String> {
        names.clone().position(|n| n == name).ok_or_else(|| {
            let known = names.by_ref().collect::<Vec<_>>().join(", ");
            format!("{name:?} does not exist; there are: {known}")
        })
    }

    fn event(&self, text: &EventText, links: &[LinkSetup], flows: &[FlowSetup]) -> Checked<EventSetup> {
        let of_link = text.cut.is_some()
            || text.state.is_some()
            || text.rate.is_some()
            || text.delay.is_some()
            || text.loss.is_some();
        let of_flow = text.congestion.is_some() || text.scheduler.is_some();
        let of_route = text.address.is_some() || text.backup.is_some();
        let what = match (&text.link, &text.flow) {
            (Some(name), None) if of_link && !of_flow && !of_route && text.route.is_none() => {
                self.link_event(text, name, links)?
            }
            (None, Some(name)) if (of_flow || of_route) && !of_link => {
                let wrong = |e: String| self.source.at(name.span(), format!("event: flow {e}"));
                let group =
                    self.find(name.get_ref(), flows.iter().map(|f| f.name.as_str())).map_err(wrong)?;
                self.flow_event(text, group, &flows[group])?
            }
            _ => {
                let message = "event: it needs a link and one of state, cut, rate, delay, loss; or a flow and congestion or scheduler; or a flow, a route and address or backup";
                return Err(self.source.at(text.at.span(), message));
            }
        };
        Ok(EventSetup { at: text.at.get_ref().0, what })
    }

    fn link_event(&self, text: &EventText, name: &Spanned<String>, links: &[LinkSetup]) -> Checked<Change> {
        let wrong = |e: String| self.source.at(name.span(), format!("event: link {e}"));
        let link = self.find(name.get_ref(), links.iter().map(|l| l.name.as_str())).map_err(wrong)?;
        let state = self.known(&text.state, "event: state", &["up", "down", "silent"])?;
        let state = match (state.as_deref(), text.cut) {
            (Some(_), Some(_)) => {
                return Err(self.source.at(name.span(), "event: it has both state and cut"));
            }
            (Some("down"), None) => Some(LinkState::Down),
            (Some("silent"), None) | (None, Some(true)) => Some(LinkState::Silent),
            (Some(_), None) | (None, Some(false)) => Some(LinkState::Up),
            (None, None) => None,
        };
        Ok(Change::Link(LinkChange {
            link,
            state,
            rate: text.rate.map(|r| r.0),
            delay: text.delay.map(|t| t.0),
            loss: text.loss.map(|p| p.0),
        }))
    }

    fn flow_event(&self, text: &EventText, group: usize, flow: &FlowSetup) -> Checked<Change> {
        let algorithms: Vec<&str> = self.registries.congestion.names().collect();
        let schedulers: Vec<&str> = self.registries.schedulers.names().collect();
        let congestion = self.known(&text.congestion, "event: congestion", &algorithms)?;
        let scheduler = self.known(&text.scheduler, "event: scheduler", &schedulers)?;
        let address = self.known(&text.address, "event: address", &["removed", "added"])?;
        let what = match (address.as_deref(), text.backup) {
            (None, None) => {
                if let Some(route) = &text.route {
                    return Err(self.source.at(route.span(), "event: a route needs address or backup"));
                }
                return Ok(Change::Flow { group, congestion, scheduler });
            }
            (None, Some(backup)) => RouteChange::Backup(backup),
            (Some("removed"), None) => RouteChange::Removed,
            (Some(_), None) => RouteChange::Added,
            (Some(_), Some(_)) => {
                return Err(self.source.at(text.at.span(), "event: it has both address and backup"));
            }
        };
        if congestion.is_some() || scheduler.is_some() {
            let message = "event: address and backup stand in an event of their own";
            return Err(self.source.at(text.at.span(), message));
        }
        let Some(number) = &text.route else {
            let message = "event: address and backup need a route, the number of one of the flow's routes";
            return Err(self.source.at(text.at.span(), message));
        };
        let wrong = |e: String| self.source.at(number.span(), format!("event: {e}"));
        let route = route_index(number.get_ref().0, flow.routes.len()).map_err(wrong)?;
        Ok(Change::Route { group, route, what })
    }

    /// A word, if there is one, that must be one of `known`.
    fn known(&self, text: &Option<Spanned<String>>, what: &str, known: &[&str]) -> Checked<Option<String>> {
        match text {
            Some(value) if !known.contains(&value.get_ref().as_str()) => {
                let (got, known) = (value.get_ref(), known.join(", "));
                Err(self.source.at(value.span(), format!("{what} {got:?} is none of: {known}")))
            }
            value => Ok(value.as_ref().map(|v| v.get_ref().clone())),
        }
    }

    fn reference(&self, text: &ReferenceText, flows: &[FlowSetup]) -> Checked<Option<ReferenceSetup>> {
        for name in [Some(&text.flow), text.per.as_ref()].into_iter().flatten().chain(&text.with) {
            let wrong = |e: String| self.source.at(name.span(), format!("reference: flow {e}"));
            self.find(name.get_ref(), flows.iter().map(|f| f.name.as_str())).map_err(wrong)?;
        }
        let quantity = text.quantity.as_ref().map_or("goodput", |q| q.get_ref().as_str());
        if let Some(q) = text.quantity.as_ref().filter(|q| !FLOW_QUANTITIES.contains(&q.get_ref().as_str())) {
            let message =
                format!("reference: quantity {quantity:?} is none of: {}", FLOW_QUANTITIES.join(", "));
            return Err(self.source.at(q.span(), message));
        }
        for (name, value) in &text.when {
            match self.parameters.iter().find(|(n, _)| n == name) {
                None => {
                    let message = format!("reference: when: there is no parameter {name:?}");
                    return Err(self.source.at(text.flow.span(), message));
                }
                Some((_, actual)) if *actual != value.to_string() => return Ok(None),
                Some(_) => {}
            }
        }
        if text.published.is_none() && text.at_least.is_none() {
            return Err(self.source.at(text.flow.span(), "reference: it needs published or at-least"));
        }
        Ok(Some(ReferenceSetup {
            flows: std::iter::once(&text.flow).chain(&text.with).map(|f| f.get_ref().clone()).collect(),
            per: text.per.as_ref().map(|p| p.get_ref().clone()),
            quantity: quantity.to_string(),
            published: text.published.map(|r| r.0),
            predicted: text.predicted.map(|r| r.0),
            at_least: text.at_least.map(|r| r.0),
            tolerance: text.tolerance.map_or(0.15, |p| p.0),
            source: text.source.clone().unwrap_or_default(),
        }))
    }

    fn recovery(&self, text: &RecoveryText, flows: &[FlowSetup]) -> Checked<RecoverySetup> {
        let wrong = |e: String| self.source.at(text.flow.span(), format!("recovery: flow {e}"));
        let flow = self.find(text.flow.get_ref(), flows.iter().map(|f| f.name.as_str())).map_err(wrong)?;
        if text.compare.0.0 >= text.compare.1.0 {
            return Err(self
                .source
                .at(text.flow.span(), "recovery: compare is [from, to] with from before to"));
        }
        Ok(RecoverySetup {
            flow,
            after: text.after.0,
            compare: (text.compare.0.0, text.compare.1.0),
            share: text.share.map_or(0.9, |p| p.0),
            window: text.window.map_or(Duration::from_secs(1), |t| t.0),
        })
    }
}

/// The index of the route that people call `number`.
fn route_index(number: u32, routes: usize) -> Result<usize, String> {
    let index = (number as usize).checked_sub(1).filter(|i| *i < routes);
    index.ok_or_else(|| format!("route {number} does not exist; the flow has {routes}, counted from 1"))
}

/// `"100 packets"`, `"64 KiB"`, `"50 ms"` or `"unlimited"`.
fn queue_limit(text: &str) -> Result<Queue, String> {
    if text.trim() == "unlimited" {
        return Ok(Queue::Unlimited);
    }
    if let Some(number) = text.trim().strip_suffix("packets").or_else(|| text.trim().strip_suffix("packet")) {
        let packets =
            number.trim().parse().map_err(|_| format!("{text:?} is not a whole number of packets"))?;
        return Ok(Queue::Packets(packets));
    }
    if let Ok(bytes) = units::bytes(text) {
        return Ok(Queue::Bytes(bytes));
    }
    match units::time(text) {
        Ok(time) => Ok(Queue::Time(time)),
        Err(_) => {
            Err(format!("{text:?} is not such as \"100 packets\", \"64 KiB\", \"50 ms\" or \"unlimited\""))
        }
    }
}
