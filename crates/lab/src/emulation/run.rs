//! One run: connections, what happens to them, and snapshots.

use super::end::{Clock, End, Fault};
use super::{Ground, Happening, happenings};
use crate::measure::{LinkState, Recording, RouteState, Snapshot};
use crate::setup::{FlowSetup, Setup};
use crate::traffic::{self, Ends, Logged};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use umptcp_netsim::application::Application;
use umptcp_netsim::random::{Purpose, Random, derive};
use umptcp_netsim::stream::ByteStream;
use umptcp_stack_core::stack::SubflowInfo;
use umptcp_types::{Instant, SubflowId};

/// How often whoever waits looks whether all is over.
const LOOK: Duration = Duration::from_millis(50);

/// A connection of the run.
struct Member {
    group: usize,
    pair: usize,
    down: bool,
    start: Instant,
    log: Logged,
    /// Client and server, once they are connected.
    ends: OnceLock<[End; 2]>,
}

impl Member {
    fn sender(&self) -> Option<&End> {
        self.ends.get().map(|ends| &ends[usize::from(self.down)])
    }

    fn receiver(&self) -> Option<&End> {
        self.ends.get().map(|ends| &ends[usize::from(!self.down)])
    }
}

/// The applications of the client and of the server.
type Applications = [Box<dyn Application>; 2];

/// Runs `setup` on `ground`. The connections that ended with an error are named. `None`: `stop` said so.
pub(super) fn run(
    setup: &Setup,
    seed: u64,
    ground: &dyn Ground,
    stop: &dyn Fn() -> bool,
) -> Result<Option<(Recording, Vec<String>)>, String> {
    let (members, applications, groups) = members(setup, seed);
    let happenings = happenings(setup, &groups)?;
    let clock = Clock(std::time::Instant::now());
    let over = AtomicBool::new(false);
    let failed = Mutex::new(None);
    let fail = |text: String| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
        over.store(true, Ordering::Relaxed);
    };
    let mut snapshots = Vec::new();
    std::thread::scope(|scope| {
        for (number, (member, applications)) in members.iter().zip(applications).enumerate() {
            let (over, fail) = (&over, &fail);
            scope.spawn(move || {
                if !wait_until(clock, member.start, over) {
                    return;
                }
                let streams = [0, 1].map(|d| ByteStream::new(seed, number as u64 * 2 + d));
                match connect(member, ground, clock, applications, streams) {
                    Ok(ends) => serve(ends, over),
                    Err(e) => fail(e),
                }
            });
        }
        let (over, fail) = (&over, &fail);
        // An address takes a second to come back; what happens elsewhere does not wait for it.
        for lane in lanes(&happenings).into_values() {
            scope.spawn(move || {
                for (at, what) in lane {
                    if !wait_until(clock, Instant::ZERO + *at, over) {
                        return;
                    }
                    if let Err(e) = ground.happen(what) {
                        return fail(format!("{}: {e}", name(what)));
                    }
                }
            });
        }
        let mut known = vec![HashMap::new(); members.len()];
        let mut next = Instant::ZERO;
        loop {
            match snapshot(setup, &members, &mut known, ground, clock) {
                Some(snapshot) => snapshots.push(snapshot),
                None => fail("the emulated network has failed".to_string()),
            }
            let regular = next + setup.sample;
            let goal = if next < setup.begin() { setup.begin() } else { setup.end() };
            if next >= setup.end() || stop() {
                break;
            }
            next = regular.min(goal);
            if !wait_until(clock, next, over) {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    if let Some(text) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(text);
    }
    if stop() {
        return Ok(None);
    }
    let ended = faults(setup, &members)?;
    let completion = |m: &Member| {
        let size = setup.flows[m.group].source.size()?;
        let receiver = m.receiver().filter(|end| end.received() >= size)?;
        Some((receiver.last_received_at()? - m.start).as_secs_f64())
    };
    let recording = Recording {
        snapshots,
        groups: members.iter().map(|m| m.group).collect(),
        completions: members.iter().map(completion).collect(),
        logs: members.iter().map(|m| m.log.get().clone()).collect(),
    };
    Ok(Some((recording, ended)))
}

/// The connections with their applications, and the group of each pair of hosts.
fn members(setup: &Setup, seed: u64) -> (Vec<Member>, Vec<Applications>, Vec<usize>) {
    let (mut members, mut applications, mut groups) = (Vec::new(), Vec::new(), Vec::new());
    for (group, (flow, starts)) in setup.flows.iter().zip(setup.starts(seed)).enumerate() {
        let FlowSetup { down, source, stop, .. } = flow;
        for start in starts {
            let pair = groups.len();
            groups.push(group);
            let stop = stop.map(|s| Instant::ZERO + s);
            let random = Random::new(derive(seed, Purpose::Scenario, 1 + pair as u64));
            for Ends { sender, receiver, log } in traffic::ends(source, setup.begin(), stop, random) {
                members.push(Member { group, pair, down: *down, start, log, ends: OnceLock::new() });
                applications.push(if *down { [receiver, sender] } else { [sender, receiver] });
            }
        }
    }
    (members, applications, groups)
}

/// Waits until that time. False: all is over before.
fn wait_until(clock: Clock, at: Instant, over: &AtomicBool) -> bool {
    loop {
        if over.load(Ordering::Relaxed) {
            return false;
        }
        let left = at - clock.now();
        if left.is_zero() {
            return true;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

fn connect<'m>(
    member: &'m Member,
    ground: &dyn Ground,
    clock: Clock,
    [at_client, at_server]: Applications,
    [up, down]: [ByteStream; 2],
) -> Result<&'m [End; 2], String> {
    let [client, server] = ground.connect(member.pair)?;
    let client = End::new(client, clock, at_client, (up, down));
    let server = End::new(server, clock, at_server, (down, up));
    Ok(member.ends.get_or_init(|| [client, server]))
}

/// Lets both ends read and write until they are done or all is over.
fn serve(ends: &[End; 2], over: &AtomicBool) {
    std::thread::scope(|scope| {
        for end in ends {
            scope.spawn(|| end.read(over));
            scope.spawn(|| end.write(over));
        }
    });
}

/// What happens to the links, and to the hosts of each pair: each in its order.
fn lanes(happenings: &[(Duration, Happening)]) -> BTreeMap<Option<usize>, Vec<&(Duration, Happening)>> {
    let mut lanes = BTreeMap::<_, Vec<_>>::new();
    for happening in happenings {
        let lane = match happening.1 {
            Happening::Link(_) => None,
            Happening::AddressRemoved { pair, .. }
            | Happening::AddressAdded { pair, .. }
            | Happening::Backup { pair, .. } => Some(pair),
        };
        lanes.entry(lane).or_default().push(happening);
    }
    lanes
}

fn name(what: &Happening) -> &'static str {
    match what {
        Happening::Link(_) => "an event of a link",
        Happening::AddressRemoved { .. } => "removing an address",
        Happening::AddressAdded { .. } => "adding an address",
        Happening::Backup { .. } => "changing a backup",
    }
}

fn snapshot(
    setup: &Setup,
    members: &[Member],
    known: &mut [HashMap<SubflowId, (usize, SubflowInfo, bool)>],
    ground: &dyn Ground,
    clock: Clock,
) -> Option<Snapshot> {
    let links = ground.links()?;
    let received = members.iter().map(|m| m.receiver().map_or(0, End::received)).collect();
    let out_of_order = members.iter().map(|m| m.receiver().and_then(|end| end.wire().out_of_order()));
    let out_of_order = out_of_order.collect();
    let routes = members.iter().zip(known).map(|(m, known)| routes(setup, m, known)).collect();
    let link = |(stats, queued)| LinkState { stats, queued };
    let links = links.into_iter().map(|both| both.map(link)).collect();
    Some(Snapshot { at: clock.now(), received, out_of_order, routes, links })
}

/// What the sender's stack says of each route's subflows, those that are gone included.
fn routes(
    setup: &Setup,
    member: &Member,
    known: &mut HashMap<SubflowId, (usize, SubflowInfo, bool)>,
) -> Vec<RouteState> {
    let mut states = vec![RouteState::default(); setup.flows[member.group].routes.len()];
    let now = match member.sender().map(|end| end.wire().subflows()) {
        // Not connected yet.
        None => Vec::new(),
        Some(Some(now)) => now,
        Some(None) => return vec![RouteState::unknown(); states.len()],
    };
    for (_, _, alive) in known.values_mut() {
        *alive = false;
    }
    for (route, info) in now {
        known.insert(info.id, (route, info, true));
    }
    let mut all: Vec<_> = known.values().collect();
    all.sort_by_key(|(_, info, _)| info.id);
    for (route, info, alive) in all {
        if let Some(state) = states.get_mut(*route) {
            state.add(info, *alive);
        }
    }
    states
}

/// The connections that ended with an error.
fn faults(setup: &Setup, members: &[Member]) -> Result<Vec<String>, String> {
    let mut ended = Vec::new();
    for member in members {
        let name = &setup.flows[member.group].name;
        for end in member.ends.get().into_iter().flatten() {
            match end.fault() {
                Some(Fault::Corrupt(what)) => return Err(format!("flow {name}: {what}")),
                Some(Fault::Ended(why)) => ended.push(format!("a connection of {name} ended: {why}")),
                None => {}
            }
        }
    }
    Ok(ended)
}

#[cfg(test)]
mod tests;
