//! What the book's library guide shows.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

// ANCHOR: stack
use umptcp::{PathSpec, Stack};

fn start() -> io::Result<Stack> {
    Stack::builder()
        .all_nics() // every usable one
        .linger(Duration::from_secs(10))
        .start()
}

fn start_with_backup() -> io::Result<Stack> {
    let wifi: PathSpec = "wlan0".into();
    let cellular: PathSpec = "wwan0,backup".parse().map_err(io::Error::other)?;
    Stack::builder().nics([wifi, cellular]).start()
}
// ANCHOR_END: stack

// ANCHOR: signals
fn start_with_clean_up() -> io::Result<Stack> {
    umptcp::clean_up_on_signals()?; // before the first stack
    start()
}
// ANCHOR_END: signals

// ANCHOR: connect
use umptcp::MptcpStream;

fn connect(stack: &Stack, address: &str) -> io::Result<MptcpStream> {
    MptcpStream::builder(stack)
        .connect_timeout(Duration::from_secs(5))
        .congestion("olia")
        .keep_alive(Some(Duration::from_secs(60)))
        .connect(address)
}
// ANCHOR_END: connect

// ANCHOR: request
fn request(mut stream: &MptcpStream) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?; // we send no more
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
// ANCHOR_END: request

// ANCHOR: listen
use umptcp::MptcpListener;

pub(super) fn server(port: u16) -> io::Result<()> {
    let stack = start_with_clean_up()?;
    let listener = MptcpListener::builder(&stack).backlog(64).listen(("0.0.0.0", port))?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, client) = listener.accept()?;
        std::thread::spawn(move || {
            if let Err(error) = answer(&stream) {
                eprintln!("{client}: {error}");
            }
        });
    }
}
// ANCHOR_END: listen

// ANCHOR: bytes
fn answer(stream: &MptcpStream) -> io::Result<()> {
    loop {
        let piece = stream.recv_bytes()?; // not copied
        if piece.is_empty() {
            return stream.shutdown(Shutdown::Write); // end of the stream
        }
        stream.send_bytes(piece)?;
    }
}
// ANCHOR_END: bytes

// ANCHOR: status
use umptcp::Protocol;

fn report(stack: &Stack, stream: &MptcpStream) -> io::Result<()> {
    match stream.protocol()? {
        Protocol::Mptcp { .. } => println!("MPTCP"),
        Protocol::Tcp { reason } => println!("plain TCP: {reason}"),
        Protocol::Negotiating => println!("not decided yet"),
    }
    for subflow in stream.subflows()? {
        println!("{} to {}: {:?}", subflow.local, subflow.remote, subflow.srtt);
    }
    for (name, value) in stack.counters()?.iter_nonzero() {
        println!("{name} {value}");
    }
    Ok(())
}
// ANCHOR_END: status

// ANCHOR: events
use umptcp::MonitorEvent;

fn log_subflows(stack: &Stack) -> io::Result<()> {
    let events = stack.events()?; // from now on
    std::thread::spawn(move || {
        for event in events {
            match event.what {
                MonitorEvent::SubflowEstablished { connection, subflow } => {
                    println!("{}: {} to {}", connection.id, subflow.local, subflow.remote);
                }
                MonitorEvent::SubflowClosed { connection, subflow, error, .. } => {
                    println!("{}: {} has ended: {error:?}", connection.id, subflow.id);
                }
                _ => {}
            }
        } // until the stack is stopped
    });
    Ok(())
}
// ANCHOR_END: events

// ANCHOR: errors
use umptcp::{ConnectError, Error};

fn explain(error: &io::Error) -> String {
    let cause = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match cause {
        Some(Error::NoRoute { nics, .. }) => format!("none of {nics:?} has a route"),
        Some(Error::Connect { source: ConnectError::NoPath(address), .. }) => {
            format!("no path for the address family of {address}")
        }
        _ => format!("{}: {error}", error.kind()),
    }
}
// ANCHOR_END: errors

// ANCHOR: readiness
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

/// Reports what either of two streams receives, in one thread, until one ends.
fn watch_both(streams: [&MptcpStream; 2]) -> io::Result<()> {
    let readiness = [streams[0].readiness()?, streams[1].readiness()?];
    for stream in streams {
        stream.set_nonblocking(true)?;
    }
    let mut buf = [0; 4096];
    loop {
        let mut waiting = readiness.each_ref().map(|r| PollFd::new(r.as_fd(), PollFlags::POLLIN));
        poll(&mut waiting, PollTimeout::NONE)?;
        for mut stream in streams {
            match stream.read(&mut buf) {
                Ok(0) => return Ok(()), // the end of the stream
                Ok(n) => println!("{n} bytes from {}", stream.peer_addr()?),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }
}
// ANCHOR_END: readiness

// ANCHOR: splice
pub(super) fn relay(port: u16, to: &str) -> io::Result<()> {
    let stack = start_with_clean_up()?;
    let listener = stack.listen(("0.0.0.0", port))?;
    loop {
        let (client, from) = listener.accept()?;
        match stack.connect(to).and_then(|server| umptcp::splice(client, server)) {
            Ok(_goes_on_by_itself) => {}
            Err(error) => eprintln!("{from}: {error}"),
        }
    }
}
// ANCHOR_END: splice

pub(super) fn watch(one: &str, other: &str) -> io::Result<()> {
    let stack = start_with_clean_up()?;
    watch_both([&connect(&stack, one)?, &connect(&stack, other)?])
}

pub(super) fn client(address: &str) -> io::Result<()> {
    let stack = start_with_backup().or_else(|_| start())?;
    log_subflows(&stack)?;
    let stream = match connect(&stack, address) {
        Ok(stream) => stream,
        Err(error) => {
            eprintln!("{}", explain(&error));
            return Err(error);
        }
    };
    println!("{} bytes came back", request(&stream)?.len());
    report(&stack, &stream)
}
