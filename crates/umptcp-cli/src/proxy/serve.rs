//! The proxy's clients: SOCKS 5 and CONNECT of HTTP at one port, told apart by their first byte.

use super::access::Access;
use super::dial::{Dialer, Target};
use super::{http, socks};
use crate::serving::bridge::{Bridge, write_all};
use crate::serving::served::Served;
use crate::serving::tasks::Tasks;
use crate::transport::user_space::UserSpace;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use umptcp::tokio::MptcpStream;

/// How long a client may take to say where it wants to go.
const REQUEST: Duration = Duration::from_secs(10);

/// How long a client that was refused may take to read so.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A proxy that runs. Dropping it closes it; its connections go on.
pub(crate) struct Proxy {
    access: Arc<Mutex<Access>>,
    served: Served,
}

impl Proxy {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the address is in use, or not of this host.
    pub(crate) fn start(stack: &UserSpace, access: &Access, tasks: &Tasks) -> anyhow::Result<Proxy> {
        let dialer = Dialer::new(stack)?;
        let at = access.at;
        let access = Arc::new(Mutex::new(access.clone()));
        let known = access.clone();
        let served = Served::start(at, "the proxy", tasks, move |inside, client| {
            let allowed = lock(&known).allows(client.ip());
            let dialer = dialer.clone();
            async move {
                if !allowed {
                    return tracing::warn!(%client, "this client may not use the proxy");
                }
                match serve(inside, dialer).await {
                    Ok(()) => tracing::debug!(%client, "the connection has ended"),
                    Err(error) => tracing::debug!(%client, %error, "the connection has ended"),
                }
            }
        })?;
        Ok(Proxy { access, served })
    }

    /// Who may use it changes, if that is all that is different.
    pub(crate) fn becomes(&self, access: &Access) -> bool {
        let mut known = lock(&self.access);
        let same = known.at == access.at;
        if same {
            known.clone_from(access);
        }
        same
    }

    /// Where it listens, with the port that the system has chosen.
    pub(super) fn at(&self) -> SocketAddr {
        self.served.local()
    }
}

fn lock(access: &Mutex<Access>) -> std::sync::MutexGuard<'_, Access> {
    access.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client has asked for.
enum Asked {
    /// Open a connection. It may have sent the first bytes of it already.
    Connect(Language, Target, Vec<u8>),
    /// Something else, to which this is the answer.
    Refuse(Vec<u8>, String),
}

/// What a client speaks.
#[derive(Clone, Copy)]
enum Language {
    Socks,
    Http,
}

impl Language {
    /// What a client is told whose connection stands; `bound` is this host's end of it.
    fn connected(self, bound: SocketAddr) -> Vec<u8> {
        match self {
            Language::Socks => socks::answer(socks::Reply::Succeeded, Some(bound)),
            Language::Http => http::answer(http::Status::Connected),
        }
    }

    /// What it is told when it could not be opened.
    fn failed(self, error: &io::Error) -> Vec<u8> {
        match self {
            Language::Socks => socks::answer(socks::Reply::of(error), None),
            Language::Http => http::answer(http::Status::of(error)),
        }
    }
}

/// Reads what a client wants.
async fn read(inside: &mut TcpStream) -> io::Result<Asked> {
    let mut first = [0];
    if inside.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // Methods of HTTP begin with a letter, versions of SOCKS are small numbers.
    if first[0].is_ascii_alphabetic() {
        let (asked, early) = http::request(inside).await?;
        return Ok(match asked {
            Ok(target) => Asked::Connect(Language::Http, target, early),
            Err(status) => Asked::Refuse(http::answer(status), format!("{status:?}")),
        });
    }
    Ok(match socks::request(inside).await? {
        Ok(target) => Asked::Connect(Language::Socks, target, Vec::new()),
        Err(reply) => Asked::Refuse(socks::answer(reply, None), format!("{reply:?}")),
    })
}

/// One client, to the end.
async fn serve(mut inside: TcpStream, dialer: Dialer) -> io::Result<()> {
    inside.set_nodelay(true)?;
    let (language, target, early) = match timeout(REQUEST, read(&mut inside)).await?? {
        Asked::Connect(language, target, early) => (language, target, early),
        Asked::Refuse(answer, why) => {
            refuse(inside, &answer).await?;
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
    };
    let connected = tokio::select! {
        connected = dialer.dial(target) => connected,
        error = gave_up(&inside) => return Err(error),
    };
    match connected {
        Ok(outside) => join(outside, inside, language, early).await,
        Err(error) => {
            refuse(inside, &language.failed(&error)).await?;
            Err(error)
        }
    }
}

/// Carries what client and server say, to the end.
async fn join(outside: MptcpStream, inside: TcpStream, language: Language, early: Vec<u8>) -> io::Result<()> {
    let bound = outside.local_addr()?;
    let bridge = Bridge::new(outside, inside);
    let bound = bridge.public_address().await.unwrap_or(bound);
    bridge.greet(&language.connected(bound)).await?;
    bridge.begin_outside(early).await?;
    bridge.run().await
}

/// Tells a client that nothing becomes of it. What it has sent beside its request is read: closing a socket
/// with something unread resets the connection, and the client might never see the answer.
async fn refuse(mut inside: TcpStream, answer: &[u8]) -> io::Result<()> {
    write_all(&inside, answer).await?;
    socket2::SockRef::from(&inside).shutdown(Shutdown::Write)?;
    let mut unread = [0; 4096];
    let read = async { while inside.read(&mut unread).await.is_ok_and(|n| n > 0) {} };
    // It has read the answer, or has had the time to.
    let _ = timeout(LAST_WORDS, read).await;
    Ok(())
}

/// Waits until the client does not want its connection any more.
async fn gave_up(inside: &TcpStream) -> io::Error {
    match inside.peek(&mut [0]).await {
        Ok(0) => io::ErrorKind::ConnectionAborted.into(),
        Err(error) => error,
        // It has sent something already: that it ends shows later.
        Ok(_) => std::future::pending().await,
    }
}
