//! The kernel's list of sockets.

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::{InetRequest, InetResponse};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use std::io;

/// Asks for sockets of the network namespace of the thread that has opened it.
#[derive(Debug)]
pub(crate) struct Diag {
    socket: Socket,
    /// Number of the last request.
    last: u32,
}

impl Diag {
    pub(crate) fn open() -> io::Result<Diag> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Diag { socket, last: 0 })
    }

    /// Tells `found` of every socket that fits.
    pub(crate) fn list(
        &mut self,
        request: InetRequest,
        mut found: impl FnMut(Box<InetResponse>),
    ) -> io::Result<()> {
        self.send(request, NLM_F_DUMP)?;
        loop {
            match self.next(&mut found)? {
                Answer::Goes => {}
                Answer::Over => return Ok(()),
            }
        }
    }

    /// The socket that the request names, if there is one.
    pub(crate) fn find(&mut self, request: InetRequest) -> io::Result<Option<Box<InetResponse>>> {
        self.send(request, 0)?;
        let mut socket = None;
        while socket.is_none() {
            match self.next(&mut |found| socket = Some(found)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(socket)
    }

    fn send(&mut self, request: InetRequest, flags: u16) -> io::Result<()> {
        self.last = self.last.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.last;
        let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
        message.finalize();
        let mut bytes = vec![0; message.header.length as usize];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    /// Takes one datagram of answers.
    fn next(&self, found: &mut impl FnMut(Box<InetResponse>)) -> io::Result<Answer> {
        let (datagram, _) = self.socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(io::Error::other)?;
            // What an earlier request has left, if it failed.
            if message.header.sequence_number == self.last {
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(Answer::Over),
                    NetlinkPayload::Error(e) if e.code.is_some() => return Err(e.to_io()),
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => found(response),
                    _ => {}
                }
            }
            // Messages are aligned to four bytes; a length of none would never end.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(Answer::Goes)
    }
}

/// Whether more answers come.
enum Answer {
    Goes,
    Over,
}
