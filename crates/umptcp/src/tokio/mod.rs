//! Streams and listeners for [tokio](https://docs.rs/tokio) (feature `tokio`).
//!
//! They are used like those of `tokio::net`, on runtimes of one thread and of several. The stack's worker
//! wakes the tasks itself: there is no thread and no file descriptor per stream, and nothing polls.
//!
//! A future may be dropped at any time. A [`connect`](MptcpStream::connect) that is dropped aborts the
//! attempt, an [`accept`](MptcpListener::accept) that is dropped loses no connection, a read that is dropped
//! loses no data, and a write that is dropped has written nothing. As with tokio's own streams, that does not
//! hold for what is made of several reads or writes, such as `read_exact` and `write_all`.
//!
//! Starting a stack, and dropping or [stopping](crate::Stack::stop) it, blocks: in a task, let
//! `tokio::task::spawn_blocking` do it.
//!
//! ```
//! # #[cfg(target_os = "linux")]
//! # mod pipe { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/pipe.rs")); }
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use umptcp::tokio::{MptcpListener, MptcpStream};
//!
//! # #[cfg(target_os = "linux")]
//! # fn main() -> std::io::Result<()> {
//! # let (here, there) = pipe::two_stacks(2, |s| s);
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! // `here` and `there` are stacks, mostly of different hosts.
//! let listener = MptcpListener::bind(&there, "10.0.0.2:80").await?;
//! let server = tokio::spawn(async move {
//!     let (mut stream, _client) = listener.accept().await?;
//!     let mut request = [0; 5];
//!     stream.read_exact(&mut request).await?;
//!     stream.write_all(&request).await?;
//!     stream.shutdown().await
//! });
//!
//! let mut stream = MptcpStream::connect(&here, "10.0.0.2:80").await?;
//! stream.write_all(b"hello").await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//! assert!(stream.protocol().await?.is_mptcp());
//! server.await?
//! # })
//! # }
//! # #[cfg(not(target_os = "linux"))]
//! # fn main() {}
//! ```

mod events;
mod halves;
mod listener;
mod ready;
mod stream;
mod taking;
mod tasks;

pub use events::Events;
pub use halves::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use listener::{HoldingListener, MptcpListener, accept};
pub use stream::MptcpStream;
