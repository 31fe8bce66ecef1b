//! How the proxy reaches what its clients ask for: the one place where it does.

use crate::transport::user_space::UserSpace;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::lookup_host;
use umptcp::tokio::MptcpStream;
use umptcp::{Error, StreamBuilder};
use umptcp_convert::ConvertError;
use umptcp_relay::AnswerError;

/// How long a server may take to answer, as long as a kernel's connect.
const DIAL: Duration = Duration::from_secs(130);

/// Where a client wants to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Target {
    Address(SocketAddr),
    Name(String, u16),
}

/// Opens connections for the proxy's clients.
#[derive(Clone)]
pub(super) struct Dialer {
    builder: StreamBuilder,
    /// The relay looks names up.
    resolves: bool,
}

impl Dialer {
    /// Over the paths of this stack.
    pub(super) fn new(stack: &UserSpace) -> anyhow::Result<Dialer> {
        let builder = stack.with_stack(umptcp::MptcpStream::builder)?.connect_timeout(DIAL);
        let resolves = builder.relay().is_some_and(umptcp::Via::resolves);
        Ok(Dialer { builder, resolves })
    }

    /// A connection to the first address that answers. Names are looked up by the relay if it is to, and else here.
    pub(super) async fn dial(self, target: Target) -> io::Result<MptcpStream> {
        let addresses: Vec<SocketAddr> = match target {
            Target::Address(address) => vec![address],
            // That there is no such name is all that a client can be told.
            Target::Name(name, port) if self.resolves => {
                return MptcpStream::connect_name(self.builder, &name, port).await.map_err(no_such_name);
            }
            Target::Name(name, port) => {
                let found = lookup_host((name.as_str(), port)).await;
                found.map_err(|error| io::Error::new(io::ErrorKind::HostUnreachable, error))?.collect()
            }
        };
        MptcpStream::connect_with(self.builder, &addresses[..]).await
    }
}

/// That there is no such name is all that a client can be told, whoever has looked.
fn no_such_name(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::Relay { source: AnswerError::Refused(ConvertError::NoSuchName), .. }) => {
            io::Error::new(io::ErrorKind::HostUnreachable, error)
        }
        _ => error,
    }
}
