//! The examples of the book's library guide, as a program.
//!
//! `guide server PORT` answers requests; `guide client ADDRESS:PORT` sends one and prints the state of the
//! connection.

#[cfg(target_os = "linux")]
mod guide;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("server"), Some(port)) => guide::server(port.parse().map_err(std::io::Error::other)?),
        (Some("client"), Some(address)) => guide::client(&address),
        _ => {
            eprintln!("usage: guide server PORT | guide client ADDRESS:PORT");
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
