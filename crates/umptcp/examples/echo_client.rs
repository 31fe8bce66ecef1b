//! Sends a million bytes to an echo server over all NICs with a route to it, and checks that they come back.
//!
//! `echo_client ADDRESS:PORT [NIC...]` uses the given NICs, or all usable ones.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    use std::io::{Read, Write};

    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "192.0.2.1:7777".into());
    let stack = umptcp::Stack::builder().nics(arguments).start()?;
    let stream = stack.connect(server)?;
    println!("connected to {}: {}", stream.peer_addr()?, stream.protocol()?);

    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let mut received = Vec::new();
    std::thread::scope(|threads| {
        let sender = threads.spawn(|| {
            (&stream).write_all(&sent)?;
            stream.shutdown(std::net::Shutdown::Write)
        });
        (&stream).read_to_end(&mut received)?;
        sender.join().expect("the sender does not panic")
    })?;
    for subflow in stream.subflows()? {
        println!("{} to {}: {} bytes sent", subflow.local, subflow.remote, subflow.bytes_sent);
    }
    println!("{}, {}", if received == sent { "intact" } else { "CORRUPTED" }, stream.protocol()?);
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
