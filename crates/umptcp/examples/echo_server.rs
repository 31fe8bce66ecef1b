//! Sends back whatever it receives, over MPTCP if the client supports it.
//!
//! `echo_server PORT [NIC...]` listens on the addresses of the given NICs, or of all usable ones.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|p| p.parse().ok()).unwrap_or(7777u16);
    // Ctrl-C and the like do not leave the host changed.
    umptcp::clean_up_on_signals()?;
    let stack = umptcp::Stack::builder().nics(arguments).start()?;
    let listener = stack.listen(("0.0.0.0", port))?;
    println!("listening on port {port}");
    loop {
        let (stream, client) = listener.accept()?;
        std::thread::spawn(move || {
            if let Err(e) = echo(&stream) {
                eprintln!("{client}: {e}");
            }
        });
    }
}

#[cfg(target_os = "linux")]
fn echo(stream: &umptcp::MptcpStream) -> std::io::Result<()> {
    let client = stream.peer_addr()?;
    println!("{client}: {}", stream.protocol()?);
    let bytes = std::io::copy(&mut &*stream, &mut &*stream)?;
    println!("{client}: {bytes} bytes");
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
