//! The relay: clients ask for a connection to a server (RFC 8803), by MPTCP or TCP, and are bridged to it.

mod counts;
mod dial;
mod names;
mod publish;

pub(super) use counts::{Counts, Figures as Relayed};

use super::config::Relay;
use super::opening::Openings;
use crate::failure::Class;
use crate::serving::bridge::{Bridge, Way};
use crate::serving::tasks::{Task, Tasks};
use crate::transport::user_space::UserSpace;
use anyhow::Context as _;
use bytes::Bytes;
use dial::dial_any;
use names::Resolving;
use publish::{Publications, Waiting, announcement};
use std::io;
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use umptcp::tokio::{MptcpListener as Listener, MptcpStream};
use umptcp::{KeepAlive, MptcpListener};
use umptcp_convert::message::LONGEST;
use umptcp_convert::{Connect, ConnectName, ConvertError, Message, Tlv};
use umptcp_relay::request::{Request, nanoseconds};
use umptcp_relay::{Admitted, Challenge, ClientName, Destinations, Gate, Refusal, Share, Used};

/// A client that has vanished with an idle connection, or a server, is found after some eight minutes: nothing else would
/// ever give back what the connection takes.
const IDLE: Duration = Duration::from_secs(300);
const PROBES: Duration = Duration::from_secs(30);
const PROBE_COUNT: u32 = 6;

/// A connection that waits for a visitor must be found dead before: what is left of a client that has lost power would
/// stand in the way of its visitors.
const WAITING: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 3);

/// How long a client may take to acknowledge that a visitor has come, before the visitor gets another connection.
const HEARD: Duration = Duration::from_secs(3);

/// How often to look whether it has: twice as long each time, up to the second.
const LOOK: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(32)];

/// Clients that may be asking at once, or reading why they are refused. For one more, the oldest is given up.
const MOST_ASKING: usize = 4_096;

/// Connections that wait to be taken by the relay.
const BACKLOG: usize = 4_096;

/// Connections whose request came with the SYN and whose handshake is not complete.
const FAST_OPEN_QUEUE: usize = 1_024;

/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a client that is refused may take to read why, and to reset the connection.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Most of what is sent by a client that is refused that is still read: else its own reset would come first.
const LAST_BYTES: usize = 1 << 20;

/// How long a visitor and the service may both say nothing at first. Whoever knows the port could else take all that the
/// client's visitors may have.
const FIRST_BYTE: Duration = Duration::from_secs(60);

/// How long to wait when accepting fails.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Options of TCP that mean nothing in a Connect TLV (RFC 8803 §7.1 to §7.3).
const MEANINGLESS: [u8; 3] = [2, 3, 5];

/// A relay that runs. Dropping it closes it; its connections go on.
pub(super) struct Relaying {
    shared: Arc<Shared>,
    _task: Task,
}

/// What the relay and its connections share.
struct Shared {
    relay: Mutex<Relay>,
    gate: Mutex<Entrance>,
    /// How often the keys may have changed.
    reloads: AtomicU64,
    counts: Arc<Counts>,
    published: Arc<Publications>,
    resolving: Resolving,
}

impl Shared {
    fn new(relay: &Relay, counts: Arc<Counts>) -> Shared {
        Shared {
            relay: Mutex::new(relay.clone()),
            gate: Mutex::new(Entrance::new(relay)),
            reloads: AtomicU64::new(0),
            counts,
            published: Arc::default(),
            resolving: Resolving::default(),
        }
    }

    fn becomes(&self, relay: &Relay) -> bool {
        let mut now = lock(&self.relay);
        if now.at != relay.at {
            return false;
        }
        let mut entrance = lock(&self.gate);
        // Under the lock: whoever is let in knows by which keys.
        self.reloads.fetch_add(1, Ordering::Relaxed);
        match (&now.clients, &relay.clients) {
            (Some(_), Some(clients)) => {
                entrance.gate().become_as(clients.iter().cloned(), nanoseconds(SystemTime::now()));
            }
            _ => *entrance = Entrance::new(relay),
        }
        // What waits in the name of a client must be that client's.
        let same = |client: Option<&ClientName>| is_same(client, &now, relay);
        self.published.keep(&relay.publish, same);
        *now = relay.clone();
        true
    }

    /// A client that was let in after so many reloads waits at a port. `None`: there has been one since, and its key may
    /// not count any more.
    fn wait(&self, port: u16, client: Option<&ClientName>, reloads: u64) -> Option<Waiting> {
        // No reload comes in between.
        let relay = lock(&self.relay);
        let same = self.reloads.load(Ordering::Relaxed) == reloads;
        same.then(|| self.published.wait(port, client, &relay.publish))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The gate, and since when it is there.
struct Entrance {
    gate: Gate,
    since: Instant,
}

impl Entrance {
    fn new(relay: &Relay) -> Entrance {
        let gate = match &relay.clients {
            Some(clients) => Gate::new(clients.iter().cloned(), nanoseconds(SystemTime::now())),
            None => Gate::open(),
        };
        Entrance { gate, since: Instant::now() }
    }

    /// The gate, which knows how old it is.
    fn gate(&mut self) -> &mut Gate {
        self.gate.is_so_old(self.since.elapsed());
        &mut self.gate
    }
}

/// Whether a client that the relay knows is known to another state of it, with the same key.
fn is_same(client: Option<&ClientName>, before: &Relay, after: &Relay) -> bool {
    let of = |relay: &Relay| {
        let clients = relay.clients.as_ref()?;
        clients.iter().find(|known| Some(&known.client) == client).cloned()
    };
    before.clients.is_some() == after.clients.is_some() && of(before) == of(after)
}

impl Relaying {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the port is in use, or no path has the address.
    pub(super) fn start(
        stack: &UserSpace,
        relay: &Relay,
        counts: Arc<Counts>,
        tasks: &Tasks,
    ) -> anyhow::Result<Relaying> {
        let at = relay.at;
        let ip = at.address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
        let listener = stack
            .with_stack(|stack| {
                let listener = MptcpListener::builder(stack).backlog(BACKLOG).fast_open(FAST_OPEN_QUEUE);
                let listener = listener.nodelay(true).keep_alive(Some(IDLE)).keep_alive_interval(PROBES);
                listener.keep_alive_count(PROBE_COUNT).listen(SocketAddr::new(ip, at.port))
            })?
            .with_context(|| Class::Host.failure(format!("cannot listen on {at} for the relay")))?;
        if relay.clients.is_none() {
            tracing::warn!(%at, "the relay serves everybody who can reach it");
        }
        let shared = Arc::new(Shared::new(relay, counts));
        let (of_task, tracker) = (shared.clone(), tasks.clone());
        let run = async move {
            let error = accept_all(listener.into(), &of_task, &tracker).await;
            tracker.fail(format!("the relay cannot listen on {at} any more: {error}"));
        };
        Ok(Relaying { shared, _task: tasks.spawn_service(run) })
    }

    /// From now on it is as this says; connections that there are go on, but for those that wait for visitors of
    /// clients who may not any more, or have another key. False: it listens elsewhere.
    pub(super) fn becomes(&self, relay: &Relay) -> bool {
        self.shared.becomes(relay)
    }
}

impl Drop for Relaying {
    fn drop(&mut self) {
        self.shared.published.keep(&[], |_| false);
    }
}

/// Runs until the stack has ended.
async fn accept_all(listener: Listener, shared: &Arc<Shared>, tasks: &Tasks) -> io::Error {
    let openings = Openings::default();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return error,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                sleep(EXHAUSTED).await;
                continue;
            }
        };
        let (shared, asking) = (shared.clone(), openings.begin(MOST_ASKING));
        tasks.spawn(async move {
            let asked = asking.run(async { Ok(ask(stream, from, &shared).await) }).await;
            if let Ok(Some(asked)) = asked {
                asked.serve(from, &shared).await;
            }
        });
    }
}

/// A client that has been let in, and what it wants.
struct Asked {
    stream: MptcpStream,
    client: Option<ClientName>,
    /// How many reloads there had been when it was let in.
    reloads: u64,
    wants: Wants,
    used: Used,
    /// What came after the request: the server's.
    rest: Bytes,
}

/// What a client wants.
#[derive(Clone, Debug)]
enum Wants {
    /// A connection to a server.
    Server(Connect),
    /// The same, by name.
    Name(ConnectName),
    /// One that comes in at a port.
    Visitor(u16),
}

impl Wants {
    /// Out of what it is taken.
    fn share(&self) -> Share {
        match self {
            Wants::Server(_) | Wants::Name(_) => Share::Own,
            Wants::Visitor(_) => Share::Visitors,
        }
    }
}

impl std::fmt::Display for Wants {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wants::Server(connect) => connect.peer.fmt(f),
            Wants::Name(name) => write!(f, "{}:{}", name.host, name.port),
            Wants::Visitor(port) => write!(f, "published port {port}"),
        }
    }
}

/// Hears what a client asks. `None`: it has been answered.
async fn ask(stream: MptcpStream, from: SocketAddr, shared: &Shared) -> Option<Asked> {
    let read = timeout(PATIENCE, read(&stream, shared)).await;
    let (admitted, reloads, rest) = match read {
        Ok(Ok(Ok(read))) => read,
        Ok(Ok(Err((refusal, message)))) => {
            shared.counts.refused();
            shared.counts.audit(|left_out| {
                let client = refusal.proven().map(ClientName::as_str);
                tracing::warn!(%from, client, why = %refusal, left_out, "refused");
            });
            let says_nothing = matches!(refusal, Refusal::Message(umptcp_convert::DecodeError::NotConvert));
            if says_nothing {
                // It speaks something else, and whoever it is learns nothing.
                stream.abort();
            } else {
                refuse(stream, refusal.answer(&message)).await;
            }
            return None;
        }
        // It has gone, or says nothing.
        Ok(Err(_)) | Err(_) => {
            shared.counts.silent();
            stream.abort();
            return None;
        }
    };
    let Admitted { client, request } = admitted;
    let wants = match request {
        Request::Connect(connect) => Wants::Server(connect),
        Request::ConnectName(name) => Wants::Name(name),
        Request::Publish(port) => Wants::Visitor(port),
        Request::Info => {
            // None that a client could ask for.
            let answer = Message::new([Tlv::SupportedTcpExtensions(Vec::new())]);
            tell(stream, &answer).await;
            return None;
        }
    };
    let name = client.as_ref().map(ClientName::as_str);
    let (destinations, limits) = {
        let relay = lock(&shared.relay);
        (relay.destinations.clone(), relay.limits)
    };
    let refused = match &wants {
        Wants::Server(connect) => forbidden(connect, &destinations),
        // It is known later.
        Wants::Name(_) | Wants::Visitor(_) => None,
    };
    let used = match refused {
        Some(refused) => Err(refused),
        None => shared
            .counts
            .allowance
            .begin(client.as_ref(), wants.share(), limits, Instant::now())
            .map_err(|why| (why.to_string(), ConvertError::ResourceExceeded { delay: 0 })),
    };
    match used {
        Ok(used) => Some(Asked { stream, client, reloads, wants, used, rest }),
        Err((why, answer)) => {
            shared.counts.refused();
            shared.counts.audit(
                |left_out| tracing::warn!(%from, client = name, to = %wants, why, left_out, "refused"),
            );
            refuse(stream, answer).await;
            None
        }
    }
}

/// Why a server is not to be reached, and what the client is told.
fn forbidden(connect: &Connect, destinations: &Destinations) -> Option<(String, ConvertError)> {
    let kinds = connect.options.iter().map(|option| option.kind);
    let kinds: Vec<u8> = kinds.filter(|kind| !MEANINGLESS.contains(kind)).collect();
    if !kinds.is_empty() {
        let why = format!("options of TCP: {kinds:?}");
        return Some((why, ConvertError::UnsupportedTcpOption { kinds }));
    }
    let why = destinations.check(connect.peer, is_of_this_host).err()?;
    Some((why.to_string(), ConvertError::NotAuthorized))
}

/// Who has been let in, after how many reloads, and what came with the request.
type Heard = Result<(Admitted, u64, Bytes), (Refusal, Vec<u8>)>;

/// Reads the request, and what came with it.
async fn read(stream: &MptcpStream, shared: &Shared) -> io::Result<Heard> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut challenge = None;
    loop {
        let more = stream.recv_bytes().await?;
        if more.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&more);
        let now = nanoseconds(SystemTime::now());
        let (admitted, reloads) = {
            let mut entrance = lock(&shared.gate);
            let admitted = entrance.gate().admit_after(&bytes, challenge, now);
            (admitted, shared.reloads.load(Ordering::Relaxed))
        };
        // Only with somebody's key, or where nobody needs one.
        if matches!(admitted, Ok(Some(_)) | Err(Refusal::Unsure(_))) && takes_early_answer(&bytes) {
            stream.get_ref().answer_early();
        }
        match admitted {
            Ok(None) => {}
            // Where data follow the request, there is no place for another one.
            Err(Refusal::Unsure(_)) if challenge.is_none() && is_all(&bytes) => {
                let new = Challenge::generate().map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
                let answer = Message::new([Tlv::Cookie(new.to_bytes())]);
                stream.send_bytes(encoded(&answer)).await?;
                challenge = Some(new);
                bytes.clear();
            }
            Ok(Some((admitted, length))) => {
                return Ok(Ok((admitted, reloads, Bytes::from(bytes).slice(length..))));
            }
            Err(refusal) => {
                bytes.truncate(LONGEST);
                return Ok(Err((refusal, bytes)));
            }
        }
    }
}

/// Whether a request is all that a client has sent.
fn is_all(bytes: &[u8]) -> bool {
    matches!(Message::decode(bytes), Ok(Some((_, length))) if length == bytes.len())
}

/// Whether a client takes an answer before its key of MPTCP has come.
fn takes_early_answer(bytes: &[u8]) -> bool {
    matches!(Message::decode(bytes), Ok(Some((message, _))) if message.tlvs.contains(&Tlv::EarlyAnswer))
}

async fn refuse(stream: MptcpStream, why: ConvertError) {
    tell(stream, &Message::new([Tlv::Error(why)])).await;
}

/// Says the last thing on a connection, which the client then ends.
async fn tell(stream: MptcpStream, message: &Message) {
    let said = async {
        stream.send_bytes(encoded(message)).await?;
        stream.get_ref().shutdown(Shutdown::Write)?;
        let mut left = LAST_BYTES;
        loop {
            let bytes = stream.recv_bytes().await?.len();
            left = left.saturating_sub(bytes);
            if bytes == 0 || left == 0 {
                return io::Result::Ok(());
            }
        }
    };
    // It need not wait for that.
    let _ = timeout(LAST_WORDS, said).await;
}

fn encoded(message: &Message) -> Bytes {
    // What a relay says is within the bounds of a message.
    Bytes::from(message.encode().unwrap_or_default())
}

/// Whether an address is one of this host: only such can be bound. Without descriptors, say, nobody knows.
fn is_of_this_host(ip: IpAddr) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, Unsupported};
    let elsewhere = |error: io::Error| matches!(error.kind(), AddrNotAvailable | Unsupported);
    !UdpSocket::bind((ip, 0)).is_err_and(elsewhere)
}

impl Asked {
    async fn serve(self, from: SocketAddr, shared: &Shared) {
        match &self.wants {
            Wants::Visitor(port) => {
                let port = *port;
                self.serve_visitor(port, from, shared).await;
            }
            Wants::Server(_) | Wants::Name(_) => self.serve_server(from, shared).await,
        }
    }

    /// The client wants a connection to a server.
    async fn serve_server(self, from: SocketAddr, shared: &Shared) {
        let Asked { stream, client, wants, used, rest, .. } = self;
        let began = Instant::now();
        let name = client.as_ref().map(ClientName::as_str);
        let dialled = tokio::select! {
            dialled = reach(&wants, client.as_ref(), shared) => dialled,
            // Nobody waits for it any more.
            () = stream.failed() => {
                tracing::info!(%from, client = name, to = %wants, "the client has given up");
                return;
            }
        };
        let (server, to) = match dialled {
            Ok(reached) => reached,
            Err(Unreached::Forbidden(why, answer)) => {
                shared.counts.refused();
                shared.counts.audit(
                    |left_out| tracing::warn!(%from, client = name, to = %wants, why, left_out, "refused"),
                );
                return refuse(stream, answer).await;
            }
            Err(Unreached::Failed(error, answer)) => {
                shared.counts.failed();
                tracing::info!(%from, client = name, to = %wants, %error, "not reached");
                return refuse(stream, answer).await;
            }
        };
        let asked_for = matches!(wants, Wants::Name(_)).then(|| tracing::field::display(&wants));
        shared.counts.made();
        let moved = Moved::default();
        let count = |way, bytes| moved.count(&used, way, bytes);
        let ended = bridge(stream, server, answer_to(&wants, to), rest, &count).await;
        let (up, down) = moved.both();
        let seconds = began.elapsed().as_secs_f64();
        let error = ended.err();
        let error = error.as_ref().map(tracing::field::display);
        tracing::info!(%from, client = name, %to, name = asked_for, up, down, seconds, error, "relayed");
    }

    /// The client wants whoever comes in at a port.
    async fn serve_visitor(self, port: u16, from: SocketAddr, shared: &Shared) {
        let Asked { stream, client, reloads, used, .. } = self;
        let name = client.as_ref().map(ClientName::as_str);
        let waiting = match shared.wait(port, client.as_ref(), reloads) {
            Some(Ok(waiting)) => waiting,
            // It is to ask again.
            None => return stream.abort(),
            Some(Err((why, answer))) => {
                shared.counts.refused();
                shared
                    .counts
                    .audit(|left_out| tracing::warn!(%from, client = name, port, why, left_out, "refused"));
                return refuse(stream, answer).await;
            }
        };
        let Ok(sent) = begin_waiting(&stream).await else { return stream.abort() };
        let visitor = tokio::select! {
            visitor = waiting => visitor,
            // It has nothing to say before somebody comes: it goes, or has gone.
            _ = stream.recv_bytes() => return stream.abort(),
        };
        // The port has been closed.
        let Ok(visitor) = visitor else { return stream.abort() };
        let (visitor_from, began) = (visitor.from, Instant::now());
        let Some(announced) = announcement(visitor_from) else { return stream.abort() };
        if !is_heard(&stream, Bytes::from(announced), sent).await {
            tracing::debug!(%from, client = name, port, visitor = %visitor_from, "a waiting client has gone");
            shared.published.come_again(port, visitor);
            return stream.abort();
        }
        let (Ok(inside), Ok(())) = (
            visitor.into_stream(),
            stream.get_ref().set_keep_alive(Some(alive((IDLE, PROBES, PROBE_COUNT)))),
        ) else {
            return stream.abort();
        };
        shared.counts.made();
        let moved = Moved::default();
        let count = |way, bytes| moved.count(&used, way, bytes);
        let ended = tokio::select! {
            ended = bridge(stream, inside, Bytes::new(), Bytes::new(), &count) => ended,
            // Both are reset.
            () = moved.is_silent_for(FIRST_BYTE) => Err(io::ErrorKind::TimedOut.into()),
        };
        let (up, down) = moved.both();
        let seconds = began.elapsed().as_secs_f64();
        let error = ended.err();
        let error = error.as_ref().map(tracing::field::display);
        let visitor = visitor_from;
        tracing::info!(%from, client = name, port, %visitor, up, down, seconds, error, "relayed inwards");
    }
}

fn alive((idle, interval, count): (Duration, Duration, u32)) -> KeepAlive {
    let mut alive = KeepAlive::default();
    (alive.idle, alive.interval, alive.count) = (idle, interval, count);
    alive
}

/// Tells a client that it waits now. How many bytes it has been sent.
async fn begin_waiting(stream: &MptcpStream) -> io::Result<u64> {
    stream.get_ref().set_keep_alive(Some(alive(WAITING)))?;
    let (before, answer) = (stream.info().await?, encoded(&Message::default()));
    let sent = before.bytes_acked + before.send_queue + answer.len() as u64;
    stream.send_bytes(answer).await?;
    Ok(sent)
}

/// Tells a client that waits that somebody has come. False: it is not there any more.
async fn is_heard(stream: &MptcpStream, announced: Bytes, sent: u64) -> bool {
    let sent = sent + announced.len() as u64;
    let heard = async {
        stream.send_bytes(announced).await?;
        let [mut wait, most] = LOOK;
        loop {
            let info = stream.info().await?;
            if info.error.is_some() {
                return Err(io::Error::from(io::ErrorKind::ConnectionReset));
            }
            if info.bytes_acked >= sent {
                return Ok(());
            }
            sleep(wait).await;
            wait = most.min(wait * 2);
        }
    };
    matches!(timeout(HEARD, heard).await, Ok(Ok(())))
}

/// Bytes of a connection, each way.
#[derive(Default)]
struct Moved([AtomicU64; 2]);

impl Moved {
    fn count(&self, used: &Used, way: Way, bytes: usize) -> io::Result<()> {
        let [up, down] = &self.0;
        let sum = if way == Way::Inwards { up } else { down };
        sum.fetch_add(bytes as u64, Ordering::Relaxed);
        used.count(bytes).map_err(|why| io::Error::new(io::ErrorKind::QuotaExceeded, why))
    }

    /// Comes to an end if nothing has been said after such a time.
    async fn is_silent_for(&self, time: Duration) {
        sleep(time).await;
        if self.both() != (0, 0) {
            std::future::pending().await
        }
    }

    /// What has come from the client, and what has gone to it.
    fn both(&self) -> (u64, u64) {
        let [up, down] = self.0.each_ref().map(|sum| sum.load(Ordering::Relaxed));
        (up, down)
    }
}

/// Why there is no connection to a server, and what the client is told.
enum Unreached {
    Forbidden(String, ConvertError),
    Failed(io::Error, ConvertError),
}

/// A connection to a server.
async fn reach(
    wants: &Wants,
    client: Option<&ClientName>,
    shared: &Shared,
) -> Result<(TcpStream, SocketAddr), Unreached> {
    let all = match wants {
        Wants::Server(connect) => vec![connect.peer],
        Wants::Visitor(_) => Vec::new(),
        Wants::Name(name) => {
            let destinations = lock(&shared.relay).destinations.clone();
            let resolved = shared.resolving.resolve(client, name, &destinations).await;
            resolved.map_err(|(why, answer)| match answer {
                ConvertError::NotAuthorized => Unreached::Forbidden(why, answer),
                answer => Unreached::Failed(io::Error::other(why), answer),
            })?
        }
    };
    dial_any(&all).await.map_err(|(error, answer)| Unreached::Failed(error, answer))
}

/// What the client is told of a server that is reached.
fn answer_to(wants: &Wants, to: SocketAddr) -> Bytes {
    let tlv = match wants {
        // RFC 8803 §6.2.6: the TLV is there if options were asked for. The kernel does not tell what the server's
        // SYN/ACK had.
        Wants::Server(connect) => (!connect.options.is_empty()).then(|| Tlv::ExtendedTcpHeader(Vec::new())),
        // It does not know the address.
        Wants::Name(_) => Some(Tlv::Connect(Connect::new(to))),
        Wants::Visitor(_) => None,
    };
    encoded(&Message::new(tlv.into_iter().collect::<Vec<_>>()))
}

/// Tells the client, and carries what both say.
async fn bridge(
    stream: MptcpStream,
    server: TcpStream,
    answer: Bytes,
    rest: Bytes,
    count: &impl Fn(Way, usize) -> io::Result<()>,
) -> io::Result<()> {
    let bridge = Bridge::new(stream, server);
    bridge.answer(answer).await?;
    if !rest.is_empty() {
        count(Way::Inwards, rest.len())?;
        bridge.greet(&rest).await?;
    }
    bridge.run_counted(count).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ListenAddress;
    use umptcp_relay::{Credential, Key, Limits};

    #[test]
    fn who_was_let_in_by_a_key_of_before_a_reload_gets_no_port() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let who: ClientName = "a".parse().unwrap();
            let with = |key| Relay {
                at: ListenAddress { address: None, port: 1 },
                clients: Some(vec![Credential { client: who.clone(), key: Key::from([key; 32]) }]),
                destinations: Destinations::default(),
                publish: vec![format!("a={port}").parse().unwrap()],
                limits: Limits::default(),
            };
            let shared = Shared::new(&with(1), Arc::default());
            let waits = |reloads| shared.wait(port, Some(&who), reloads).map(|waiting| waiting.is_ok());
            assert_eq!(waits(0), Some(true));
            assert!(shared.becomes(&with(2)));
            // The request was let in before, and its task comes to it now.
            assert_eq!(waits(0), None);
            assert!(lock(&shared.gate).gate().admit(&[], 0).is_ok_and(|admitted| admitted.is_none()));
            // The port is free when its task has gone.
            while waits(1) != Some(true) {
                tokio::task::yield_now().await;
            }
        });
    }
}
