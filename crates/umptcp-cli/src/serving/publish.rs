//! Ports of a relay that lead to services here: connections to the relay wait for visitors, each for one, and are
//! made again when the relay has gone.

use super::bridge::Bridge;
use super::proxy_protocol;
use super::service::{self, Origin};
use super::tasks::{Task, Tasks};
use crate::args::Publish;
use crate::transport::user_space::UserSpace;
use anyhow::Context as _;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use umptcp::StreamBuilder;
use umptcp::tokio::MptcpStream;
use umptcp_convert::Message;

/// Connections that wait at each port: so many visitors are let in without waiting for the next.
const WAITING: usize = 4;

/// How long to wait after a failure: twice as long each time, up to the second.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(30)];

/// A connection that has stood so long shows that all is well.
const STEADY: Duration = Duration::from_secs(10);

/// How long connecting to the relay may take.
const CONNECT: Duration = Duration::from_secs(30);

/// What waits must notice that the relay has gone, and keep translators on the way awake.
const IDLE: Duration = Duration::from_secs(60);
const PROBES: Duration = Duration::from_secs(10);
const PROBE_COUNT: u32 = 3;

/// A published port. Dropping it gives the port back; its connections go on.
pub(crate) struct Publishing {
    about: Arc<About>,
    _tasks: Vec<Task>,
}

struct About {
    publish: Publish,
    /// From where its service is dialled.
    from: Origin,
    builder: StreamBuilder,
    stands: Stands,
    tasks: Tasks,
}

impl Publishing {
    /// Begins to wait. The service is dialled `from` there.
    ///
    /// # Errors
    /// When the stack has ended.
    pub(crate) fn start(
        stack: &UserSpace,
        publish: &Publish,
        from: Origin,
        tasks: &Tasks,
    ) -> anyhow::Result<Publishing> {
        let builder = stack.with_stack(umptcp::MptcpStream::builder).context("cannot publish a port")?;
        let builder = builder.connect_timeout(CONNECT).nodelay(true).keep_alive(Some(IDLE));
        let builder = builder.keep_alive_interval(PROBES).keep_alive_count(PROBE_COUNT);
        let (publish, stands) = (publish.clone(), Stands::default());
        let about = Arc::new(About { publish, from, builder, stands, tasks: tasks.clone() });
        let one = |_| tasks.spawn_service(wait(about.clone()));
        Ok(Publishing { _tasks: (0..WAITING).map(one).collect(), about })
    }

    /// What it does.
    pub(crate) fn publish(&self) -> &Publish {
        &self.about.publish
    }
}

/// How many connections wait, and what has been said of it.
#[derive(Default)]
struct Stands(Mutex<(usize, Option<bool>)>);

/// One that waits, until this is dropped.
struct Standing<'a>(&'a Stands);

impl Stands {
    fn state(&self) -> MutexGuard<'_, (usize, Option<bool>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more waits. True: it is to be said that the port leads here.
    fn one_more(&self) -> (Standing<'_>, bool) {
        let mut state = self.state();
        state.0 += 1;
        (Standing(self), state.1.replace(true) != Some(true))
    }

    /// One has failed. True: it is to be said that the port does not lead here, as it was the last.
    fn falls(&self) -> bool {
        let mut state = self.state();
        state.0 == 0 && state.1.replace(false) != Some(false)
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.0.state().0 -= 1;
    }
}

/// Keeps one connection waiting.
async fn wait(about: Arc<About>) {
    let mut back_off = BackOff::default();
    loop {
        let began = Instant::now();
        match once(&about).await {
            // Somebody has come: the next may come at once.
            Ok(()) => back_off = BackOff::default(),
            Err(error) => {
                if began.elapsed() >= STEADY {
                    back_off = BackOff::default();
                }
                if about.stands.falls() {
                    let port = about.publish.port;
                    tracing::warn!(port, %error, "the port of the relay does not lead here");
                }
                sleep(back_off.next()).await;
            }
        }
    }
}

/// Waits for one visitor, whom a task of his own serves.
async fn once(about: &Arc<About>) -> io::Result<()> {
    let port = about.publish.port;
    let stream = MptcpStream::publish(about.builder.clone(), port).await?;
    let (_stands, is_news) = about.stands.one_more();
    if is_news {
        let to = format!("{}:{}", about.publish.host, about.publish.service);
        tracing::info!(port, to, "the port of the relay leads here");
    }
    let mut bytes = Vec::new();
    let (visitor, rest) = loop {
        let more = stream.recv_bytes().await?;
        if more.is_empty() {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        bytes.extend_from_slice(&more);
        match Message::decode(&bytes) {
            Ok(None) => {}
            Ok(Some((message, length))) => {
                let visitor = message.peer().ok_or(io::ErrorKind::InvalidData)?;
                break (visitor, Bytes::from(bytes).slice(length..));
            }
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    };
    let of_task = about.clone();
    about.tasks.spawn(async move {
        match serve(&of_task, stream, visitor, rest).await {
            Ok(()) => tracing::debug!(port, %visitor, "the connection has ended"),
            Err(error) => tracing::debug!(port, %visitor, %error, "the connection has ended"),
        }
    });
    Ok(())
}

/// A visitor, to the end.
async fn serve(about: &About, stream: MptcpStream, visitor: SocketAddr, rest: Bytes) -> io::Result<()> {
    let publish = &about.publish;
    let relay = stream.get_ref().info().map(|info| info.remote.ip());
    let inside = match service::dial(&about.from, &publish.host, publish.service).await {
        Ok(inside) => inside,
        Err(error) => {
            tracing::warn!(port = publish.port, %error, "the service of a published port does not answer");
            stream.abort();
            return Err(error);
        }
    };
    let bridge = Bridge::new(stream, inside);
    if publish.proxy_protocol {
        let at = SocketAddr::new(relay?, publish.port);
        bridge.greet(&proxy_protocol::header(visitor, at)).await?;
    }
    bridge.greet(&rest).await?;
    bridge.run().await
}

/// How long to wait after failures one after another.
#[derive(Default)]
struct BackOff(u32);

impl BackOff {
    fn next(&mut self) -> Duration {
        let [first, most] = BACK_OFF;
        let wait = first * 2_u32.pow(self.0.min(10));
        self.0 += 1;
        wait.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_when_the_first_stands_and_when_the_last_has_failed() {
        let stands = Stands::default();
        assert!(stands.falls());
        assert!(!stands.falls(), "it has been said");
        let (first, is_news) = stands.one_more();
        assert!(is_news);
        let (second, is_news) = stands.one_more();
        assert!(!is_news);
        drop(first);
        assert!(!stands.falls(), "another stands");
        drop(second);
        // It has got a visitor, and the next comes.
        let (third, is_news) = stands.one_more();
        assert!(!is_news);
        drop(third);
        assert!(stands.falls());
    }

    #[test]
    fn it_waits_longer_each_time_and_no_more_than_half_a_minute() {
        let mut back_off = BackOff::default();
        let waits: Vec<u128> = (0..9).map(|_| back_off.next().as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        (0..100).for_each(|_| assert!(back_off.next() <= BACK_OFF[1]));
    }
}
