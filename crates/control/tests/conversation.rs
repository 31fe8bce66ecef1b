//! A client and a server.
#![cfg(all(unix, not(umptcp_portable)))]

mod common;

use common::{Folder, Numbers, options, serve};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use umptcp_control::call::{AddPath, CaptureCaller, ListConnections, ListCounters, SetAlgorithms};
use umptcp_control::directory::{State, choose_in, find_in, remove_dead_in};
use umptcp_control::{Client, Code, ControlError, Kind, Server};

#[test]
fn calls_are_answered_in_turn_and_failures_come_as_they_are() {
    let folder = Folder::new();
    let server = serve(&folder, "one", Numbers::default());
    let mut client = Client::connect(server.socket()).expect("it answers");
    let greeting = client.greeting();
    assert_eq!((greeting.name.as_str(), greeting.pid, greeting.kind), ("one", std::process::id(), Kind::Run));
    for n in 1..4 {
        assert_eq!(client.call(&ListCounters {}).expect("counters").counters["MPTcpExtCalls"], n);
    }
    let path = client.call(&AddPath { path: "wlan0,backup".to_owned() }).expect("a path");
    assert_eq!(path.name, "wlan0,backup");
    for (result, code) in [
        (client.call(&AddPath { path: "eth0".to_owned() }).map(|_| ()), Code::Exists),
        (client.call(&ListConnections {}).map(|_| ()), Code::NotSupported),
    ] {
        assert!(matches!(&result, Err(ControlError::Refused(f)) if f.code == code), "{result:?}");
    }
    assert_eq!(client.call(&SetAlgorithms::default()).expect("changed").connections, 3);
    drop(server);
    assert!(matches!(client.call(&ListCounters {}), Err(ControlError::Ended)));
}

#[test]
fn events_are_told_in_order_and_end_with_the_instance() {
    let folder = Folder::new();
    let server = serve(&folder, "events", Numbers { events: 1000, ..Numbers::default() });
    let client = Client::connect(server.socket()).expect("it answers");
    let mut events = client.monitor().expect("it tells");
    let times: Vec<u64> = events.by_ref().take(1000).map(|event| event.expect("an event").time_us).collect();
    assert_eq!(times, (1..=1000).collect::<Vec<_>>());
    let ended = std::thread::spawn(move || events.next());
    drop(server);
    let last = ended.join().expect("a thread");
    assert!(matches!(&last, Some(Err(ControlError::Refused(f))) if f.code == Code::Ending), "{last:?}");
}

#[test]
fn a_name_is_taken_once_and_its_socket_is_for_its_owner() {
    let folder = Folder::new();
    let server = serve(&folder, "mine", Numbers::default());
    let again = Server::start_with("mine", Kind::Up, Arc::new(Numbers::default()), options(&folder));
    assert!(matches!(again, Err(ControlError::NameTaken { .. })), "{again:?}");
    let metadata = std::fs::metadata(server.socket()).expect("the socket is there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    let directory = std::fs::metadata(folder.path()).expect("the directory is there");
    assert_eq!(directory.permissions().mode() & 0o777, 0o755);
    assert_eq!(metadata.uid(), directory.uid());
    for name in ["", "../x", ".hidden", "a/b", "two words", &"n".repeat(65)] {
        let bad = Server::start_with(name, Kind::Run, Arc::new(Numbers::default()), options(&folder));
        assert!(matches!(bad, Err(ControlError::BadName { .. })), "{name:?}: {bad:?}");
    }
    let socket = server.socket().to_owned();
    drop(server);
    assert!(!socket.exists());
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().collect();
    assert!(left.iter().all(|f| f.file_name() == "control.lock"), "{left:?}");
}

#[test]
fn the_dead_are_told_from_the_living_and_removed() {
    let folder = Folder::new();
    let dead = folder.path().join("dead.sock");
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    std::fs::write(folder.path().join("file.sock"), "no socket").expect("a file");
    let none = choose_in(&folder.directory(), None);
    assert!(matches!(none, Err(ControlError::NoInstance { .. })), "{none:?}");
    let a = serve(&folder, "a", Numbers::default());
    assert_eq!(choose_in(&folder.directory(), None).expect("the only one").name, "a");
    let b = serve(&folder, "b", Numbers::default());
    drop(std::os::unix::net::UnixListener::bind(&dead).expect("a socket"));
    let states: Vec<_> = find_in(&folder.directory()).into_iter().map(|f| (f.name, f.state)).collect();
    let expected = [("a", State::Live), ("b", State::Live), ("dead", State::Dead)];
    assert_eq!(states, expected.map(|(name, state)| (name.to_owned(), state)));
    let text = |name| choose_in(&folder.directory(), name).map(|_| ()).unwrap_err().to_string();
    assert!(text(None).contains("a, b") && text(None).contains("--instance"), "{}", text(None));
    assert!(text(Some("c")).contains("there is a, b"), "{}", text(Some("c")));
    assert!(text(Some("dead")).contains("clean-up"), "{}", text(Some("dead")));
    let removed = remove_dead_in(&folder.directory());
    assert!(removed.len() == 1 && removed[0].contains("dead"), "{removed:?}");
    assert!(!dead.exists() && a.socket().exists() && b.socket().exists());
    // A name whose owner has died is free, and whoever starts removes what others have left.
    let other = folder.path().join("other.sock");
    for path in [&dead, &other] {
        drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
    }
    let reborn = serve(&folder, "dead", Numbers::default());
    Client::connect(reborn.socket()).expect("it answers");
    assert!(!other.exists() && a.socket().exists() && b.socket().exists());
}

#[test]
fn a_directory_that_others_may_write_to_is_not_trusted() {
    let folder = Folder::new();
    let _server = serve(&folder, "x", Numbers::default());
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    assert_eq!(find_in(&folder.directory()), []);
}

/// Whoever asks to be captured is who the kernel says.
#[cfg(all(target_os = "linux", not(umptcp_portable)))]
#[test]
fn the_kernel_says_who_asks() {
    let folder = Folder::new();
    let server = serve(&folder, "x", Numbers::default());
    let mut client = Client::connect(server.socket()).expect("it answers");
    let captured = client.call(&CaptureCaller { network: None }).expect("captured");
    let user = format!("{:?}", Some(nix::unistd::geteuid().as_raw()));
    assert_eq!((captured.run, captured.paths), (u64::from(std::process::id()), vec![user]));
}

#[test]
fn the_socket_of_a_group_has_its_mode_and_its_owner_steers() {
    let folder = Folder::new();
    let group = std::fs::metadata(folder.path()).expect("the directory is there").gid();
    let options = options(&folder).group(Some(group));
    let server = Server::start_with("x", Kind::Up, Arc::new(Numbers::default()), options).expect("it serves");
    let metadata = std::fs::metadata(server.socket()).expect("the socket is there");
    assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, group));
    assert_eq!(find_in(&folder.directory())[0].group, Some(group));
    let mut client = Client::connect(server.socket()).expect("it answers");
    assert_eq!(client.call(&SetAlgorithms::default()).expect("changed").connections, 3);
}
