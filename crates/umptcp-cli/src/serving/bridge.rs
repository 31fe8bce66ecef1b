//! A connection of the stack and one of the kernel, joined: what comes in on one goes out on the other, with
//! the ends of streams and resets.

use bytes::{Bytes, BytesMut};
use socket2::SockRef;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::TcpStream;
use umptcp::tokio::MptcpStream;

/// Bytes read from the kernel at once.
const READ: usize = 64 << 10;

/// What is smaller is copied, so that it does not hold a whole buffer until it is acknowledged.
const SMALL: usize = 4 << 10;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// From the stack to the kernel.
    Inwards,
    /// From the kernel to the stack.
    Outwards,
}

/// Both ends. Unless they have ended in order, dropping them resets both: a stream that is cut short must not
/// look like one that is complete.
pub(crate) struct Bridge {
    outside: Option<MptcpStream>,
    inside: Option<TcpStream>,
}

impl Bridge {
    pub(crate) fn new(outside: MptcpStream, inside: TcpStream) -> Bridge {
        Bridge { outside: Some(outside), inside: Some(inside) }
    }

    /// This host's address as the peer outside knows it.
    pub(crate) async fn public_address(&self) -> Option<SocketAddr> {
        let stream = self.outside.as_ref()?.get_ref().clone();
        // Whoever knows may be busy with a path.
        tokio::task::spawn_blocking(move || stream.public_addr()).await.ok()?.ok()
    }

    /// Says this to the side of the stack before anything else.
    pub(crate) async fn answer(&self, words: Bytes) -> io::Result<()> {
        match &self.outside {
            Some(outside) => outside.send_bytes(words).await,
            None => Ok(()),
        }
    }

    /// Says this to the side of the kernel before anything else.
    pub(crate) async fn greet(&self, words: &[u8]) -> io::Result<()> {
        match &self.inside {
            Some(inside) => write_all(inside, words).await,
            None => Ok(()),
        }
    }

    /// Says this to the side of the stack before anything else.
    pub(crate) async fn begin_outside(&self, words: Vec<u8>) -> io::Result<()> {
        match &self.outside {
            Some(outside) if !words.is_empty() => outside.send_bytes(words.into()).await,
            _ => Ok(()),
        }
    }

    /// Carries bytes both ways until both streams have ended.
    ///
    /// # Errors
    /// That of either, after which both have been reset.
    pub(crate) async fn run(self) -> io::Result<()> {
        self.run_counted(&|_, _| Ok(())).await
    }

    /// The same. `count` hears of each piece before it is passed on.
    ///
    /// # Errors
    /// That of either, or of `count`, after which both have been reset.
    pub(crate) async fn run_counted(
        mut self,
        count: &impl Fn(Way, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        if let (Some(outside), Some(inside)) = (&self.outside, &self.inside) {
            carry(outside, inside, count).await?;
        }
        // In order: nothing is left to reset.
        (self.outside, self.inside) = (None, None);
        Ok(())
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(outside) = self.outside.take() {
            outside.abort();
        }
        if let Some(inside) = self.inside.take() {
            // Closing it resets it then. It may have ended already.
            let _ = SockRef::from(&inside).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn carry(
    outside: &MptcpStream,
    inside: &TcpStream,
    count: &impl Fn(Way, usize) -> io::Result<()>,
) -> io::Result<()> {
    let mut inwards = pin!(inwards(outside, inside, count));
    let mut outwards = pin!(outwards(outside, inside, count));
    let (mut in_ended, mut out_ended) = (false, false);
    while !(in_ended && out_ended) {
        tokio::select! {
            result = &mut inwards, if !in_ended => {
                result?;
                in_ended = true;
            }
            result = &mut outwards, if !out_ended => {
                result?;
                out_ended = true;
            }
            // Where nobody reads any more, a reset may still come.
            () = outside.failed(), if in_ended => return Err(io::ErrorKind::ConnectionReset.into()),
            failed = inside.ready(Interest::ERROR), if out_ended => {
                failed?;
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }
    Ok(())
}

/// From the stack to the kernel.
async fn inwards(
    outside: &MptcpStream,
    inside: &TcpStream,
    count: &impl Fn(Way, usize) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        let data = outside.recv_bytes().await?;
        if data.is_empty() {
            return SockRef::from(inside).shutdown(Shutdown::Write);
        }
        count(Way::Inwards, data.len())?;
        tokio::select! {
            // Mostly there is room.
            biased;
            written = write_all(inside, &data) => written?,
            // A server that does not read must not keep it from hearing that nobody is there any more.
            () = outside.failed() => return Err(io::ErrorKind::ConnectionReset.into()),
        }
    }
}

/// Writes all of it.
pub(crate) async fn write_all(to: &TcpStream, mut data: &[u8]) -> io::Result<()> {
    while !data.is_empty() {
        to.writable().await?;
        match to.try_write(data) {
            Ok(n) => data = &data[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// From the kernel to the stack.
async fn outwards(
    outside: &MptcpStream,
    inside: &TcpStream,
    count: &impl Fn(Way, usize) -> io::Result<()>,
) -> io::Result<()> {
    loop {
        inside.readable().await?;
        let mut buffer = BytesMut::with_capacity(READ);
        match inside.try_read_buf(&mut buffer) {
            Ok(0) => return outside.get_ref().shutdown(Shutdown::Write),
            Ok(n) => {
                count(Way::Outwards, n)?;
                let small = n < SMALL;
                let data = if small { Bytes::copy_from_slice(&buffer) } else { buffer.freeze() };
                tokio::select! {
                    biased;
                    sent = outside.send_bytes(data) => sent?,
                    // The same, the other way.
                    failed = inside.ready(Interest::ERROR) => {
                        failed?;
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
