//! What the book's library guide shows of the asynchronous API.

use std::io;
use umptcp::Stack;

// ANCHOR: tokio
use umptcp::tokio::{MptcpListener, MptcpStream};

/// Connects each client to `to`, and passes on what either sends.
pub(super) async fn forward(stack: &Stack, port: u16, to: &str) -> io::Result<()> {
    let listener = MptcpListener::bind(stack, ("0.0.0.0", port)).await?;
    loop {
        let (mut client, from) = listener.accept().await?;
        let mut server = match MptcpStream::connect(stack, to).await {
            Ok(server) => server,
            Err(error) => {
                eprintln!("{from}: {error}");
                continue;
            }
        };
        tokio::spawn(async move {
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut server).await {
                eprintln!("{from}: {error}");
            }
        });
    }
}
// ANCHOR_END: tokio
