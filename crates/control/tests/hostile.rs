//! Clients that do not do as they should.
#![cfg(all(unix, not(umptcp_portable)))]

mod common;

use common::{Folder, Numbers, options, serve};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};
use umptcp_control::call::ListCounters;
use umptcp_control::message::MAX_REQUEST;
use umptcp_control::{Client, Code, ControlError, Kind, Server};

/// A connection without the client of the crate, after the greeting.
fn raw(server: &Server) -> BufReader<UnixStream> {
    let stream = UnixStream::connect(server.socket()).expect("it answers");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
    let mut stream = BufReader::new(stream);
    assert_eq!(read(&mut stream)["protocol"], "umptcp-control");
    stream
}

fn read(from: &mut BufReader<UnixStream>) -> Value {
    let mut line = String::new();
    from.read_line(&mut line).expect("a line");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
}

fn write(to: &BufReader<UnixStream>, what: impl AsRef<[u8]>) {
    to.get_ref().write_all(what.as_ref()).expect("it takes it");
}

fn assert_works(server: &Server) {
    let mut client = Client::connect(server.socket()).expect("it answers");
    client.call(&ListCounters {}).expect("counters");
}

/// A process that was stopped still has its socket, and the kernel takes connections for it.
#[test]
fn an_instance_that_says_nothing_is_named_and_not_waited_for_for_long() {
    let folder = Folder::new();
    let socket = folder.path().join("stopped.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    let error = Client::connect(&socket).expect_err("nobody greets");
    let this = std::process::id();
    assert!(
        matches!(error, ControlError::Silent { process: Some(process), .. } if process == this),
        "{error}"
    );
    assert!(error.to_string().contains(&format!("process {this} does not answer")), "{error}");
}

#[test]
fn what_is_no_request_is_answered_and_the_connection_goes_on() {
    let folder = Folder::new();
    let server = serve(&folder, "x", Numbers::default());
    let mut stream = raw(&server);
    for (line, id, code) in [
        ("garbage", Value::Null, "bad-request"),
        ("", Value::Null, "bad-request"),
        ("[1,2]", Value::Null, "bad-request"),
        ("\u{0}\u{1}", Value::Null, "bad-request"),
        (r#"{"method":"counters"}"#, Value::Null, "bad-request"),
        (r#"{"id":7}"#, json!(7), "bad-request"),
        (r#"{"id":-1,"method":"counters"}"#, Value::Null, "bad-request"),
        (r#"{"id":8,"method":"dance"}"#, json!(8), "unknown-method"),
        (r#"{"id":9,"method":"path-add"}"#, json!(9), "bad-parameters"),
        (r#"{"id":9,"method":"path-add","params":{"path":1}}"#, json!(9), "bad-parameters"),
        (r#"{"id":9,"method":"path-add","params":"eth1"}"#, json!(9), "bad-parameters"),
    ] {
        write(&stream, format!("{line}\n"));
        let reply = read(&mut stream);
        assert_eq!((&reply["id"], &reply["error"]["code"]), (&id, &json!(code)), "{line:?}: {reply}");
        assert!(reply["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{reply}");
    }
    // Deep nesting must not exhaust the stack.
    write(&stream, "[".repeat(MAX_REQUEST - 1) + "\n");
    assert_eq!(read(&mut stream)["error"]["code"], "bad-request");
    // What a newer client adds is ignored.
    write(&stream, "{\"id\":10,\"method\":\"counters\",\"params\":{\"new\":1},\"newer\":[]}\n");
    assert_eq!(read(&mut stream)["result"]["counters"]["MPTcpExtCalls"], 1);
}

#[test]
fn a_line_without_end_ends_the_connection_and_takes_no_memory() {
    let folder = Folder::new();
    let server = serve(&folder, "x", Numbers::default());
    let mut stream = raw(&server);
    let mut sent = 0;
    let block = [b'x'; 1 << 16];
    // It stops taking them at some time; until then not all are held.
    while sent < 64 << 20 && stream.get_ref().write_all(&block).is_ok() {
        sent += block.len();
    }
    assert!(sent < 4 << 20, "{sent} bytes were taken");
    let mut line = String::new();
    // The reset that follows may overtake the message.
    if stream.read_line(&mut line).is_ok() && !line.is_empty() {
        assert!(line.contains("too-long"), "{line}");
    }
    assert_works(&server);
}

#[test]
fn who_leaves_in_the_middle_leaves_nothing_behind() {
    let folder = Folder::new();
    let server =
        Server::start_with("x", Kind::Run, Arc::new(Numbers::default()), options(&folder).max_clients(4))
            .expect("it serves");
    for _ in 0..40 {
        for part in
            ["", "{\"id\":1,", "{\"id\":1,\"method\":\"counters\"}\n", "{\"id\":1,\"method\":\"monitor\"}\n"]
        {
            // Those before may not have been let go of yet.
            let stream = until_admitted(&server);
            write(&stream, part);
        }
    }
    let end = Instant::now() + Duration::from_secs(20);
    while Client::connect(server.socket()).is_err() {
        assert!(Instant::now() < end, "places stay taken");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn until_admitted(server: &Server) -> BufReader<UnixStream> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let mut stream = BufReader::new(UnixStream::connect(server.socket()).expect("it answers"));
        if read(&mut stream)["error"].is_null() {
            return stream;
        }
        assert!(Instant::now() < end, "places stay taken");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn of_two_hundred_clients_as_many_are_served_as_there_are_places() {
    let folder = Folder::new();
    let server =
        Server::start_with("x", Kind::Run, Arc::new(Numbers::default()), options(&folder).max_clients(16))
            .expect("it serves");
    let results: Vec<Result<Client, ControlError>> =
        (0..200).map(|_| Client::connect(server.socket())).collect();
    let (served, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), refused.len()), (16, 184));
    for refusal in refused {
        let refusal = refusal.map(|_| ()).expect_err("it was refused");
        assert!(matches!(&refusal, ControlError::Refused(f) if f.code == Code::TooManyClients), "{refusal}");
    }
    for client in served {
        client.expect("it was served").call(&ListCounters {}).expect("counters");
    }
    drop(until_admitted(&server));
}

#[test]
fn who_does_not_read_events_is_told_so_and_let_go_of() {
    let folder = Folder::new();
    let instance = Numbers { events: 1 << 20, padding: 1000, ..Numbers::default() };
    let slow = options(&folder).slow(Duration::from_secs(2)).max_clients(1);
    let server = Server::start_with("x", Kind::Run, Arc::new(instance), slow).expect("it serves");
    let mut stream = raw(&server);
    write(&stream, "{\"id\":5,\"method\":\"monitor\"}\n");
    // Until the server has given up on events and waits with its message.
    std::thread::sleep(Duration::from_secs(3));
    let mut all = String::new();
    stream.read_to_string(&mut all).expect("whole lines");
    let last = all.lines().last().expect("a line");
    let last: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{last}"));
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(5), &json!("too-slow")), "{last}");
    drop(until_admitted(&server));
}

#[test]
fn who_never_reads_is_let_go_of() {
    let folder = Folder::new();
    let instance = Numbers { events: 1 << 20, padding: 1000, ..Numbers::default() };
    let slow = options(&folder).slow(Duration::from_millis(100)).max_clients(1);
    let server = Server::start_with("x", Kind::Run, Arc::new(instance), slow).expect("it serves");
    let stream = raw(&server);
    write(&stream, "{\"id\":5,\"method\":\"monitor\"}\n");
    drop(until_admitted(&server));
}

#[test]
fn a_panic_ends_one_client() {
    let folder = Folder::new();
    let server = serve(&folder, "x", Numbers::default());
    let mut stream = raw(&server);
    write(&stream, "{\"id\":1,\"method\":\"set\",\"params\":{\"scheduler\":\"panic\"}}\n");
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    assert_works(&server);
}

#[test]
fn who_monitors_asks_for_nothing_else() {
    let folder = Folder::new();
    let server = serve(&folder, "x", Numbers::default());
    let mut stream = raw(&server);
    write(&stream, "{\"id\":5,\"method\":\"monitor\"}\n");
    assert_eq!(read(&mut stream)["result"], json!({}));
    write(&stream, "{\"id\":6,\"method\":\"counters\"}\n");
    assert_eq!(read(&mut stream)["error"]["code"], "bad-request");
}
