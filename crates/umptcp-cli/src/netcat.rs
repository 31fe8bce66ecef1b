//! `listen` and `connect`: standard input and output over one connection.

use crate::args::{ConnectArgs, ListenArgs};
use crate::console::say;
use crate::failure::usage;
use crate::registry::Registry;
use crate::session::Session;
use crate::transport::{self, Stream, Transport};
use anyhow::Context as _;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc;

const BUFFER: usize = 256 << 10;

pub(crate) fn listen(args: &ListenArgs, registry: &Registry, verbose: bool) -> anyhow::Result<()> {
    let session = Session::start()?;
    let transport = Transport::open(&args.stack, registry, &session)?;
    let listener = transport.listen(args.address)?;
    // Nobody else knows a port that was chosen here.
    if verbose || args.address.port == 0 {
        say(&format!("listening on {}{}", listener.local_address()?, over(&transport)));
    }
    let stream = listener.accept().context("cannot accept a connection")?;
    // Only one connection: refuse further clients instead of letting them wait.
    drop(listener);
    relay(stream, verbose)?;
    transport.close()
}

pub(crate) fn connect(args: &ConnectArgs, registry: &Registry, verbose: bool) -> anyhow::Result<()> {
    let (host, port) = args.host.with(args.port, None).map_err(usage)?;
    let there = args.via.via_resolve && host.parse::<IpAddr>().is_err();
    let remotes = if there { Vec::new() } else { transport::resolve(host, port, &args.target)? };
    let session = Session::start()?;
    let transport = Transport::open_via(&args.stack, &args.via, registry, &session)?;
    if verbose {
        say(&format!("connecting to {}{}", args.host, over(&transport)));
    }
    let stream = if there {
        transport.connect_name(host, port, args.target.timeout)?
    } else {
        transport.connect(&remotes, args.target.timeout)?
    };
    relay(stream, verbose)?;
    transport.close()
}

/// The paths that the connection may use, to follow a statement.
fn over(transport: &Transport) -> String {
    match transport.paths() {
        paths if paths.is_empty() => String::new(),
        paths => format!(" over {}", paths.join(", ")),
    }
}

/// Copies in both directions until both have ended or one has failed.
fn relay(stream: Stream, verbose: bool) -> anyhow::Result<()> {
    let stream = Arc::new(stream);
    if verbose {
        let facts = stream.facts()?;
        say(&format!("connected: {} to {}, {}", facts.local, facts.remote, facts.description));
    }
    let (done, results) = mpsc::channel();
    let up = {
        let (stream, done) = (Arc::clone(&stream), done.clone());
        move || {
            let result = copy(io::stdin(), "reading standard input", &*stream, "sending")
                .and_then(|n| stream.shutdown_write().context("closing the sending direction").map(|()| n));
            let _ = done.send(("sent", result));
        }
    };
    let down = {
        let stream = Arc::clone(&stream);
        move || {
            let result = copy(&*stream, "receiving", io::stdout(), "writing standard output");
            let _ = done.send(("received", result));
        }
    };
    // Detached: a thread that waits for standard input cannot be woken when the connection fails.
    std::thread::Builder::new().name("up".to_owned()).spawn(up).context("cannot start a thread")?;
    std::thread::Builder::new().name("down".to_owned()).spawn(down).context("cannot start a thread")?;

    let mut counts = Vec::new();
    for (what, result) in results.iter().take(2) {
        counts.push((what, result?));
    }
    if verbose {
        let facts = stream.facts().ok();
        for (what, bytes) in counts {
            say(&format!("{what} {bytes} bytes"));
        }
        for s in stream.subflows() {
            say(&s.describe());
        }
        if let Some(facts) = facts {
            say(&facts.description);
        }
    }
    Ok(())
}

fn copy(
    mut from: impl Read,
    reading: &'static str,
    mut to: impl Write,
    writing: &'static str,
) -> anyhow::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e).context(reading),
        };
        to.write_all(&buffer[..n]).and_then(|()| to.flush()).context(writing)?;
        total += n as u64;
    }
}
