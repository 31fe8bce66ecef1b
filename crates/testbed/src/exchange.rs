//! Verified transfers: seeded random data in both directions at the same time.

use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// A stream of `length` random bytes that `seed` determines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Seeded {
    /// Which bytes.
    pub seed: u64,
    /// How many.
    pub length: u64,
}

impl Seeded {
    /// The bytes, in order.
    pub fn generator(self) -> Generator {
        Generator { state: self.seed, left: self.length }
    }

    /// All bytes at once.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; (self.length as usize).next_multiple_of(8)];
        let n = self.generator().fill(&mut bytes);
        bytes.truncate(n);
        bytes
    }

    /// SHA-256 of all bytes, computed once per stream.
    pub fn digest(self) -> [u8; 32] {
        static KNOWN: Mutex<Option<HashMap<Seeded, [u8; 32]>>> = Mutex::new(None);
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        *known.get_or_insert_default().entry(self).or_insert_with(|| {
            let mut hash = Sha256::new();
            let mut buffer = vec![0; 1 << 16];
            let mut generator = self.generator();
            loop {
                match generator.fill(&mut buffer) {
                    0 => break hash.finalize().into(),
                    n => hash.update(&buffer[..n]),
                }
            }
        })
    }
}

/// Yields the bytes of a [`Seeded`] stream (SplitMix64, eight bytes a step).
#[derive(Clone, Debug)]
pub struct Generator {
    state: u64,
    left: u64,
}

impl Generator {
    /// Writes the next bytes to `buffer`, whose length must be a multiple of 8, and returns their number; 0
    /// at the end.
    pub fn fill(&mut self, buffer: &mut [u8]) -> usize {
        debug_assert_eq!(buffer.len() % 8, 0);
        for word in buffer.chunks_exact_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        let n = self.left.min(buffer.len() as u64);
        self.left -= n;
        n as usize
    }
}

/// One end of a connection, whatever stack it belongs to.
pub trait Conversation: Send + Sync {
    /// Reads, like [`Read::read`]; 0 at the end of the stream.
    ///
    /// # Errors
    /// What the connection reports.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes, like [`Write::write`].
    ///
    /// # Errors
    /// What the connection reports.
    fn send(&self, data: &[u8]) -> io::Result<usize>;

    /// Closes the sending direction.
    ///
    /// # Errors
    /// What the connection reports.
    fn finish(&self) -> io::Result<()>;

    /// Whether the connection is MPTCP; `None` if this end cannot tell.
    fn is_mptcp(&self) -> Option<bool>;
}

/// [`Read`] and [`Write`] over a [`Conversation`].
struct Io<'a>(&'a dyn Conversation);

impl Read for Io<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.receive(buffer)
    }
}

impl Write for Io<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.send(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Result of an exchange at one end, with a description of the failure.
pub type Verdict = Result<(), String>;

/// Sends `out` and closes that direction, while receiving to the end of the stream, which must be exactly
/// `expected`.
///
/// # Errors
/// The first failure: a connection error, or bytes that differ, are missing or too many.
pub fn exchange(connection: &dyn Conversation, out: Seeded, expected: Seeded) -> Verdict {
    both(|| send_all(connection, out), || receive_all(connection, expected))
}

/// Sends and receives at the same time.
fn both(send: impl FnOnce() -> Verdict + Send, receive: impl FnOnce() -> Verdict) -> Verdict {
    thread::scope(|scope| {
        let sending = scope.spawn(send);
        let receiving = receive();
        let sending = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (sending, receiving) {
            (Ok(()), Ok(())) => Ok(()),
            (sent, received) => {
                let say = |r: Verdict| r.err().unwrap_or_else(|| "fine".to_owned());
                Err(format!("sending: {}; receiving: {}", say(sent), say(received)))
            }
        }
    })
}

/// Sends all of `out` and closes the sending direction.
///
/// # Errors
/// What the connection reports.
pub fn send_all(connection: &dyn Conversation, out: Seeded) -> Verdict {
    let mut buffer = vec![0; 1 << 16];
    let mut generator = out.generator();
    let mut done = 0_u64;
    loop {
        match generator.fill(&mut buffer) {
            0 => break,
            n => Io(connection)
                .write_all(&buffer[..n])
                .map_err(|e| format!("{e} after {done} bytes or more"))?,
        }
        done = out.length - generator.left;
    }
    connection.finish().map_err(|e| format!("{e} when finishing"))
}

/// Sends `bytes` with as few calls as possible, and closes the sending direction.
///
/// # Errors
/// What the connection reports.
pub fn send_bytes(connection: &dyn Conversation, bytes: &[u8]) -> Verdict {
    Io(connection).write_all(bytes).map_err(|e| format!("{e} when sending"))?;
    connection.finish().map_err(|e| format!("{e} when finishing"))
}

/// Receives to the end of the stream, which must be exactly `expected`.
///
/// # Errors
/// The first failure: a connection error, or bytes that differ, are missing or too many.
pub fn receive_all(connection: &dyn Conversation, expected: Seeded) -> Verdict {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut length = 0_u64;
    let mut watch = Watch::new(expected);
    loop {
        match Io(connection).read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hash.update(&buffer[..n]);
                watch.see(&buffer[..n]);
                length += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("{e} after {length} of {} bytes{watch}", expected.length)),
        }
    }
    if length != expected.length {
        return Err(format!("the stream ended after {length} of {} bytes{watch}", expected.length));
    }
    let digest: [u8; 32] = hash.finalize().into();
    if digest == expected.digest() { Ok(()) } else { Err(format!("SHA-256 differs{watch}")) }
}

/// A stream whose sender goes on while something else happens to the connection, however long that takes.
#[derive(Debug)]
pub struct Ongoing<'a> {
    seed: u64,
    least: u64,
    more: &'a AtomicBool,
    /// How many bytes have been sent, once the sender has finished.
    sent: AtomicU64,
}

impl<'a> Ongoing<'a> {
    /// Bytes that `seed` determines: `least`, and then more for as long as `more` is set.
    pub fn new(seed: u64, least: u64, more: &'a AtomicBool) -> Self {
        Ongoing { seed, least, more, sent: AtomicU64::new(0) }
    }

    fn endless(&self) -> Seeded {
        Seeded { seed: self.seed, length: u64::MAX }
    }

    /// Sends it and closes the sending direction.
    fn send(&self, connection: &dyn Conversation) -> Verdict {
        let mut buffer = vec![0; 1 << 16];
        let mut generator = self.endless().generator();
        let mut done = 0;
        while done < self.least || self.more.load(Ordering::Relaxed) {
            let n = generator.fill(&mut buffer);
            Io(connection).write_all(&buffer[..n]).map_err(|e| format!("{e} after {done} bytes or more"))?;
            done += n as u64;
        }
        // Before the FIN: whoever sees the end of the stream knows the number.
        self.sent.store(done, Ordering::SeqCst);
        connection.finish().map_err(|e| format!("{e} when finishing"))
    }

    /// Receives to the end of the stream, which must be exactly what has been sent.
    fn receive(&self, connection: &dyn Conversation) -> Verdict {
        let mut buffer = vec![0; 1 << 16];
        let mut watch = Watch::new(self.endless());
        loop {
            match Io(connection).read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => watch.see(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("{e} after {} bytes{watch}", watch.seen)),
            }
        }
        let sent = self.sent.load(Ordering::SeqCst);
        if watch.seen != sent || watch.wrong.is_some() {
            return Err(format!("{} of {sent} bytes arrived{watch}", watch.seen));
        }
        Ok(())
    }
}

/// As [`exchange`], with streams that go on for as long as they are told to.
///
/// # Errors
/// The first failure: a connection error, or bytes that differ, are missing or too many.
pub fn exchange_ongoing(connection: &dyn Conversation, out: &Ongoing<'_>, expected: &Ongoing<'_>) -> Verdict {
    both(|| out.send(connection), || expected.receive(connection))
}

/// Finds where a received stream differs from the data sent, for better messages than a digest mismatch.
struct Watch {
    expected: Seeded,
    generator: Generator,
    /// Expected bytes from `generator`; those before `used` have been compared.
    ready: Vec<u8>,
    used: usize,
    seen: u64,
    /// Position of the first wrong byte, and the data received from there on.
    wrong: Option<(u64, Vec<u8>)>,
    /// Number of wrong bytes, and position of the last one.
    count: u64,
    last: u64,
}

impl Watch {
    /// Enough bytes to recognise where in the stream they belong.
    const SAMPLE: usize = 64;

    fn new(expected: Seeded) -> Self {
        let (generator, ready) = (expected.generator(), Vec::new());
        Watch { expected, generator, ready, used: 0, seen: 0, wrong: None, count: 0, last: 0 }
    }

    fn see(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.used == self.ready.len() {
                self.ready.resize(1 << 16, 0);
                let n = self.generator.fill(&mut self.ready);
                self.ready.truncate(n);
                self.used = 0;
                if n == 0 {
                    // More data than was sent: the length check reports it.
                    return;
                }
            }
            let n = data.len().min(self.ready.len() - self.used);
            if data[..n] != self.ready[self.used..][..n] {
                self.note(&data[..n]);
            }
            self.used += n;
            self.seen += n as u64;
            data = &data[n..];
        }
    }

    fn note(&mut self, data: &[u8]) {
        let expected = &self.ready[self.used..];
        for at in data.iter().zip(expected).enumerate().filter(|(_, (a, b))| a != b).map(|(at, _)| at) {
            self.count += 1;
            self.last = self.seen + at as u64;
            let came = || data[at..].iter().copied().take(Self::SAMPLE).collect();
            self.wrong.get_or_insert_with(|| (self.last, came()));
        }
    }

    /// The position of `sample` in the expected stream.
    fn origin(&self, sample: &[u8]) -> Option<usize> {
        // A retransmission of old data, or data too early by no more than some windows.
        let length = self.expected.length.min(self.seen + (64 << 20));
        Seeded { length, ..self.expected }.bytes().windows(sample.len()).position(|w| w == sample)
    }
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((at, sample)) = &self.wrong else { return Ok(()) };
        write!(f, "; {} bytes from {at} to {} are wrong; received instead: ", self.count, self.last)?;
        match self.origin(sample) {
            Some(origin) => write!(f, "the data from {origin}"),
            None => write!(f, "data that is nowhere in the stream: {sample:02x?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_bytes_and_their_number() {
        let stream = Seeded { seed: 7, length: 1001 };
        let collect = |mut g: Generator| {
            let (mut all, mut buffer) = (Vec::new(), [0; 64]);
            loop {
                match g.fill(&mut buffer) {
                    0 => return all,
                    n => all.extend_from_slice(&buffer[..n]),
                }
            }
        };
        let bytes = collect(stream.generator());
        assert_eq!(bytes.len(), 1001);
        assert_eq!(bytes, collect(stream.generator()));
        assert_ne!(bytes, collect(Seeded { seed: 8, length: 1001 }.generator()));
        assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), stream.digest());
    }

    /// A connection that plays back fixed bytes and discards what is sent.
    struct Tape(Mutex<io::Cursor<Vec<u8>>>);

    impl Conversation for Tape {
        fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.lock().unwrap().read(buffer)
        }

        fn send(&self, data: &[u8]) -> io::Result<usize> {
            Ok(data.len())
        }

        fn finish(&self) -> io::Result<()> {
            Ok(())
        }

        fn is_mptcp(&self) -> Option<bool> {
            None
        }
    }

    #[test]
    fn damage_and_loss_are_noticed() {
        let stream = Seeded { seed: 1, length: 4096 };
        let mut bytes = stream.bytes();
        let play =
            |bytes: &[u8]| exchange(&Tape(Mutex::new(io::Cursor::new(bytes.to_vec()))), stream, stream);
        assert_eq!(play(&bytes), Ok(()));
        assert!(play(&bytes[1..]).unwrap_err().contains("4095 of 4096"));
        bytes.copy_within(4000..4064, 77);
        let message = play(&bytes).unwrap_err();
        assert!(message.contains("SHA-256 differs"), "{message}");
        assert!(
            message.contains("from 77 to 140 are wrong; received instead: the data from 4000"),
            "{message}"
        );
        bytes[77..141].fill(0xaa);
        let message = play(&bytes).unwrap_err();
        assert!(message.contains("nowhere in the stream: [aa, aa"), "{message}");
    }

    #[test]
    fn an_ongoing_stream_ends_when_it_is_told_to_and_damage_is_noticed() {
        let more = AtomicBool::new(false);
        let stream = || Ongoing::new(1, 100_000, &more);
        let sent = Seeded { seed: 1, length: 131_072 }.bytes();
        let play = |bytes: &[u8]| {
            let ongoing = stream();
            exchange_ongoing(&Tape(Mutex::new(io::Cursor::new(bytes.to_vec()))), &ongoing, &ongoing)
        };
        // It is sent in pieces of 64 KiB.
        let ongoing = stream();
        assert_eq!(ongoing.send(&Tape(Mutex::new(io::Cursor::new(Vec::new())))), Ok(()));
        assert_eq!(ongoing.sent.load(Ordering::SeqCst), 131_072);
        assert_eq!(ongoing.receive(&Tape(Mutex::new(io::Cursor::new(sent.clone())))), Ok(()));
        let short = ongoing.receive(&Tape(Mutex::new(io::Cursor::new(sent[..sent.len() - 1].to_vec()))));
        assert!(short.unwrap_err().contains("131071 of 131072"));
        let mut wrong = sent.clone();
        wrong[70_000] ^= 1;
        let message = ongoing.receive(&Tape(Mutex::new(io::Cursor::new(wrong)))).unwrap_err();
        assert!(message.contains("1 bytes from 70000 to 70000 are wrong"), "{message}");
        assert!(play(&sent[8..]).unwrap_err().contains("wrong"));
    }
}
