//! The halves of a stream.

use super::stream::MptcpStream;
use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The reading half of a stream, from [`MptcpStream::split`].
#[derive(Debug)]
pub struct ReadHalf<'a>(&'a MptcpStream);

/// The writing half of a stream, from [`MptcpStream::split`]. Dropping it does not end its direction;
/// `shutdown` does.
#[derive(Debug)]
pub struct WriteHalf<'a>(&'a MptcpStream);

/// The reading half of a stream, from [`MptcpStream::into_split`].
#[derive(Debug)]
pub struct OwnedReadHalf(Arc<MptcpStream>);

/// The writing half of a stream, from [`MptcpStream::into_split`]. Dropping it ends its direction: the peer
/// reads the end of the stream.
#[derive(Debug)]
pub struct OwnedWriteHalf {
    stream: Arc<MptcpStream>,
    ends: bool,
}

impl MptcpStream {
    /// Splits it into two halves that borrow it, for one task.
    pub fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        (ReadHalf(self), WriteHalf(self))
    }

    /// Splits it into two halves that may go to different tasks.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        let stream = Arc::new(self);
        (OwnedReadHalf(stream.clone()), OwnedWriteHalf { stream, ends: true })
    }
}

impl OwnedWriteHalf {
    /// Drops it without ending its direction.
    pub fn forget(mut self) {
        self.ends = false;
    }

    /// Puts the halves of one stream together again.
    ///
    /// # Errors
    /// When they are of different streams; the error returns them.
    pub fn reunite(self, other: OwnedReadHalf) -> Result<MptcpStream, ReuniteError> {
        other.reunite(self)
    }
}

impl OwnedReadHalf {
    /// Puts the halves of one stream together again.
    ///
    /// # Errors
    /// When they are of different streams; the error returns them.
    pub fn reunite(self, other: OwnedWriteHalf) -> Result<MptcpStream, ReuniteError> {
        if !Arc::ptr_eq(&self.0, &other.stream) {
            return Err(ReuniteError(self, other));
        }
        let blocking = self.0.get_ref().clone();
        other.forget();
        Ok(blocking.into())
    }
}

impl Drop for OwnedWriteHalf {
    fn drop(&mut self) {
        if self.ends {
            // If the connection has ended, so has the direction.
            let _ = self.stream.end_writing();
        }
    }
}

impl AsRef<MptcpStream> for ReadHalf<'_> {
    fn as_ref(&self) -> &MptcpStream {
        self.0
    }
}

impl AsRef<MptcpStream> for WriteHalf<'_> {
    fn as_ref(&self) -> &MptcpStream {
        self.0
    }
}

impl AsRef<MptcpStream> for OwnedReadHalf {
    fn as_ref(&self) -> &MptcpStream {
        &self.0
    }
}

impl AsRef<MptcpStream> for OwnedWriteHalf {
    fn as_ref(&self) -> &MptcpStream {
        &self.stream
    }
}

/// Two halves that are not of one stream.
#[derive(Debug)]
pub struct ReuniteError(
    /// The reading half.
    pub OwnedReadHalf,
    /// The writing half.
    pub OwnedWriteHalf,
);

impl fmt::Display for ReuniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the halves are not of one stream")
    }
}

impl Error for ReuniteError {}

macro_rules! reading_half {
    ($half:ty) => {
        impl AsyncRead for $half {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                AsRef::<MptcpStream>::as_ref(&*self).poll_read_by(cx, buf)
            }
        }
    };
}

macro_rules! writing_half {
    ($half:ty) => {
        impl AsyncWrite for $half {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                AsRef::<MptcpStream>::as_ref(&*self).poll_write_by(cx, &[IoSlice::new(buf)])
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                AsRef::<MptcpStream>::as_ref(&*self).poll_write_by(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            /// Does nothing: data is sent as soon as the windows allow.
            fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }

            /// Ends the direction, after what was written.
            fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(AsRef::<MptcpStream>::as_ref(&*self).end_writing())
            }
        }
    };
}

reading_half!(ReadHalf<'_>);
reading_half!(OwnedReadHalf);
writing_half!(WriteHalf<'_>);
writing_half!(OwnedWriteHalf);
