//! Sends back whatever it receives, over MPTCP if the client supports it.
//!
//! `echo_server PORT [NIC...]` listens on the addresses of the given NICs, or of all usable ones.

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let port = arguments.next().and_then(|p| p.parse().ok()).unwrap_or(7777u16);
    let stack = umptcp::Stack::builder().nics(arguments).start()?;
    let listener = stack.listen(("0.0.0.0", port))?;
    println!("listening on port {port}");
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            if let Err(e) = echo(&stream) {
                eprintln!("{}: {e}", stream.peer_addr());
            }
        });
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn echo(stream: &umptcp::MptcpStream) -> std::io::Result<()> {
    println!("{}: {}", stream.peer_addr(), stream.protocol()?);
    let bytes = std::io::copy(&mut &*stream, &mut &*stream)?;
    println!("{}: {bytes} bytes", stream.peer_addr());
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {}
