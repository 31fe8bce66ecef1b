use super::*;
use alloc::vec;
use alloc::vec::Vec;

fn local(path: u32, last: u8) -> LocalAddress {
    LocalAddress::new(PathId(path), IpAddr::from([10, 0, path as u8, last]))
}

fn remote(id: u8, last: u8) -> RemoteAddress {
    RemoteAddress::new(AddressId(id), SocketAddr::from(([192, 0, 2, last], 80)))
}

fn client<'a>(local: &'a [LocalAddress], remote: &'a [RemoteAddress]) -> View<'a> {
    let mut view = View::new(local, remote);
    (view.client, view.opens, view.max_subflows) = (true, true, 8);
    view
}

fn working(local: &LocalAddress, remote: &RemoteAddress) -> SubflowEnds {
    let mut ends = SubflowEnds::new(local.path, local.address, remote.address);
    ends.works = true;
    ends
}

fn open(local: usize, remote: usize) -> Command {
    Command::Open { local, remote, backup: false }
}

/// Carries out what a policy wants until it wants nothing more; which pairs there are then.
fn settled(policy: &mut dyn PathPolicy, view: &View<'_>) -> Vec<(usize, usize)> {
    let mut subflows = view.subflows.to_vec();
    for _ in 0..4 {
        let commands = policy.decide(&View { subflows: &subflows, ..view.clone() });
        for command in commands {
            match command {
                Command::Open { local, remote, backup } => {
                    let mut ends = working(&view.local[local], &view.remote[remote]);
                    ends.backup = backup;
                    subflows.push(ends);
                }
                Command::SetBackup { subflow, backup } => subflows[subflow].backup = backup,
                Command::Advertise { .. } => {}
            }
        }
    }
    let pair = |s: &SubflowEnds| {
        let local = view.local.iter().position(|l| l.address == s.local).unwrap();
        (local, view.remote.iter().position(|r| r.address == s.remote).unwrap())
    };
    subflows.iter().map(pair).collect()
}

#[test]
fn every_policy_has_its_name_and_opens_nothing_where_it_may_not() {
    let (locals, remotes) = ([local(0, 1), local(1, 1)], [remote(0, 1), remote(3, 3)]);
    let subflows = [working(&locals[0], &remotes[0])];
    assert_eq!(built_in().names().next(), Some(DEFAULT_NAME));
    for name in built_in().names() {
        let mut policy = built_in().create(name).unwrap();
        assert_eq!(policy.name(), name);
        let mut view = client(&locals, &remotes);
        view.subflows = &subflows;
        view.max_subflows = 1;
        assert_eq!(policy.decide(&view), [], "{name}: the limit");
        (view.max_subflows, view.opens) = (8, false);
        assert_eq!(policy.decide(&view), [], "{name}: a server");
        view.advertise = true;
        assert_eq!(policy.decide(&view), [Command::Advertise { local: 1 }], "{name}");
        let everything: Vec<_> =
            locals.iter().flat_map(|l| remotes.iter().map(|r| (l.address, r.address))).collect();
        let mut view = client(&locals, &remotes);
        (view.subflows, view.failed) = (&subflows, &everything);
        assert_eq!(policy.decide(&view), [], "{name}: what has failed");
    }
}

#[test]
fn client_opens_one_subflow_per_path_and_per_advertised_address() {
    let locals = [local(0, 1), local(1, 1)];
    let remotes = [remote(0, 1), remote(1, 2)];
    let first = working(&locals[0], &remotes[0]);
    let mut view = client(&locals, &remotes[..1]);
    let subflows = [first];
    view.subflows = &subflows;
    assert_eq!(Aggregate.decide(&view), vec![open(1, 0)]);
    view.remote = &remotes;
    assert_eq!(Aggregate.decide(&view), vec![open(1, 0), open(0, 1)]);
    view.max_subflows = 1;
    assert_eq!(Aggregate.decide(&view), vec![]);
    view.max_subflows = 8;
    let failed = [(locals[1].address, remotes[0].address)];
    view.failed = &failed;
    view.remote = &remotes[..1];
    assert_eq!(Aggregate.decide(&view), vec![]);
}

#[test]
fn another_is_opened_beside_one_that_does_not_answer() {
    let locals = [local(0, 1)];
    let remotes = [remote(0, 1), remote(1, 2)];
    let mut view = client(&locals, &remotes[..1]);
    let mut ends = [SubflowEnds::new(PathId(0), locals[0].address, remotes[0].address)];
    ends[0].stale = true;
    view.subflows = &ends;
    assert_eq!(Aggregate.decide(&view), vec![open(0, 0)]);
    let failed = [(locals[0].address, remotes[0].address)];
    view.failed = &failed;
    assert_eq!(Aggregate.decide(&view), vec![]);
    view.failed = &[];
    // To another address, if there is one.
    view.remote = &remotes;
    assert_eq!(Aggregate.decide(&view), vec![open(0, 1)]);
    let both = [ends[0], SubflowEnds::new(PathId(0), locals[0].address, remotes[1].address)];
    view.subflows = &both;
    assert_eq!(Aggregate.decide(&view), vec![]);
}

#[test]
fn server_only_advertises() {
    let locals = [local(0, 1), local(1, 1)];
    let remotes = [remote(0, 1)];
    let subflows = [working(&locals[0], &remotes[0])];
    let mut view = View::new(&locals, &remotes);
    (view.subflows, view.max_subflows, view.advertise) = (&subflows, 8, true);
    assert_eq!(Aggregate.decide(&view), vec![Command::Advertise { local: 1 }]);
    let advertised = [(locals[1].address, None)];
    view.advertised = &advertised;
    assert_eq!(Aggregate.decide(&view), vec![]);
    (view.opens, view.advertise) = (true, false);
    assert_eq!(Aggregate.decide(&view), vec![open(1, 0)]);
}

/// A port is told beside the address that a subflow uses, and an address that is for nothing else is not told.
#[test]
fn a_port_is_told_beside_the_address() {
    let mut locals = [local(0, 1), local(0, 1)];
    locals[0].uses = Uses::NONE;
    locals[1].uses = Uses { signal: true, ..Uses::NONE };
    locals[1].port = Some(8443);
    let remotes = [remote(0, 1)];
    let subflows = [working(&locals[0], &remotes[0])];
    let mut view = client(&locals, &remotes);
    (view.subflows, view.advertise) = (&subflows, true);
    assert_eq!(Aggregate.decide(&view), [Command::Advertise { local: 1 }]);
    let advertised = [(locals[1].address, None)];
    view.advertised = &advertised;
    assert_eq!(Aggregate.decide(&view), [Command::Advertise { local: 1 }]);
    let advertised = [(locals[1].address, Some(8443))];
    view.advertised = &advertised;
    assert_eq!(Aggregate.decide(&view), []);
    view.subflows = &[];
    assert_eq!(Aggregate.decide(&view), [], "no subflow is opened from either");
}

/// As `ip mptcp endpoint` has it.
#[test]
fn addresses_are_used_for_what_they_are_for() {
    let mut locals = [local(0, 1), local(1, 1), local(2, 1)];
    let remotes = [remote(0, 1), remote(5, 5), remote(6, 6)];
    let subflows = [working(&locals[0], &remotes[0])];
    // Only told to the peer.
    locals[1].uses = Uses { signal: true, subflow: false, ..Uses::default() };
    let mut view = client(&locals, &remotes[..1]);
    view.subflows = &subflows;
    assert_eq!(Aggregate.decide(&view), [Command::Advertise { local: 1 }, open(2, 0)]);
    // A full mesh from one.
    locals[1].uses = Uses { full_mesh: true, ..Uses::default() };
    let mut view = client(&locals, &remotes);
    view.subflows = &subflows;
    let pairs = settled(&mut Aggregate, &view);
    assert_eq!(pairs, [(0, 0), (1, 0), (2, 0), (1, 1), (1, 2)]);
    // Advertised addresses from one only, which is for nothing else.
    locals[1].uses = Uses { subflow: false, laminar: true, ..Uses::default() };
    let mut view = client(&locals, &remotes);
    view.subflows = &subflows;
    assert_eq!(settled(&mut Aggregate, &view), [(0, 0), (2, 0), (1, 1), (1, 2)]);
}

#[test]
fn a_full_mesh_has_every_pair_and_each_path_first() {
    let locals = [local(0, 1), local(1, 1)];
    let remotes = [remote(0, 1), remote(1, 2)];
    let subflows = [working(&locals[0], &remotes[0])];
    let mut view = client(&locals, &remotes);
    view.subflows = &subflows;
    assert_eq!(settled(&mut FullMesh, &view), [(0, 0), (1, 0), (0, 1), (1, 1)]);
    view.max_subflows = 2;
    assert_eq!(settled(&mut FullMesh, &view), [(0, 0), (1, 0)]);
}

#[test]
fn several_ports_are_on_the_path_of_the_first() {
    let locals = [local(0, 1), local(1, 1)];
    let remotes = [remote(0, 1)];
    let subflows = [working(&locals[1], &remotes[0])];
    let mut view = client(&locals, &remotes);
    view.subflows = &subflows;
    assert_eq!(settled(&mut NDiffPorts::default(), &view), [(1, 0), (1, 0)]);
    assert_eq!(settled(&mut NDiffPorts::new(4), &view), [(1, 0); 4]);
    // It has gone, or does not answer: another.
    view.subflows = &[];
    assert_eq!(settled(&mut NDiffPorts::default(), &view), [(0, 0), (0, 0)]);
    let mut silent = subflows;
    silent[0].stale = true;
    view.subflows = &silent;
    let failed = [(locals[1].address, remotes[0].address)];
    view.failed = &failed;
    assert_eq!(NDiffPorts::default().decide(&view), [open(0, 0), open(0, 0)]);
}

#[test]
fn only_the_first_path_that_works_is_no_backup() {
    let mut locals = [local(0, 1), local(1, 1), local(2, 1)];
    locals[0].backup = true;
    let remotes = [remote(0, 1)];
    // The connection began over the last: the second is preferred, the first was configured as a backup.
    let mut subflows = vec![working(&locals[2], &remotes[0])];
    let mut view = client(&locals, &remotes);
    let commands = Handover.decide(&View { subflows: &subflows, ..view.clone() });
    assert_eq!(commands, [Command::Open { local: 0, remote: 0, backup: true }, open(1, 0)]);
    subflows.push(working(&locals[1], &remotes[0]));
    let mut last = working(&locals[0], &remotes[0]);
    last.backup = true;
    subflows.push(last);
    let commands = Handover.decide(&View { subflows: &subflows, ..view.clone() });
    assert_eq!(commands, [Command::SetBackup { subflow: 0, backup: true }]);
    // It goes.
    subflows[0].backup = true;
    subflows.remove(1);
    let rest = [locals[0], locals[2]];
    view.local = &rest;
    let commands = Handover.decide(&View { subflows: &subflows, ..view.clone() });
    assert_eq!(commands, [Command::SetBackup { subflow: 0, backup: false }]);
    // A server's say the same, and open nothing.
    view.opens = false;
    assert_eq!(Handover.decide(&View { subflows: &subflows, ..view.clone() }), commands);
}
