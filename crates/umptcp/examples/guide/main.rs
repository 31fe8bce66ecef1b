//! The examples of the book's library guide, as a program.
//!
//! `guide server PORT` answers requests; `guide client ADDRESS:PORT` sends one and prints the state of the
//! connection; `guide relay PORT ADDRESS:PORT` passes connections on, and `guide forward PORT ADDRESS:PORT`
//! does so with tokio. `guide watch ADDRESS:PORT ADDRESS:PORT` reports what two servers send.

#[cfg(target_os = "linux")]
mod asynchronous;
#[cfg(target_os = "linux")]
mod guide;

#[cfg(target_os = "linux")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let number = |text: String| text.parse().map_err(std::io::Error::other);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("server"), Some(port)) => guide::server(number(port)?),
        (Some("client"), Some(address)) => guide::client(&address),
        (Some("relay"), Some(port)) => guide::relay(number(port)?, &arguments.next().unwrap_or_default()),
        (Some("watch"), Some(one)) => guide::watch(&one, &arguments.next().unwrap_or_default()),
        (Some("forward"), Some(port)) => {
            let stack = umptcp::Stack::builder().all_nics().start()?;
            let to = arguments.next().unwrap_or_default();
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(asynchronous::forward(&stack, number(port)?, &to))
        }
        _ => {
            eprintln!(
                "usage: guide server PORT | guide client ADDRESS:PORT | guide relay|forward PORT ADDRESS:PORT | guide watch ADDRESS:PORT ADDRESS:PORT"
            );
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {}
