//! The options of a TCP header.

use super::super::WireError;
use super::super::cursor::{Reader, Writer};
use super::super::mptcp::{MptcpOption, MptcpPacket};
use smallvec::SmallVec;
use umptcp_types::SeqNumber;

/// Room for options in a TCP header, in bytes.
pub const MAX_OPTIONS: usize = 40;

/// Option kinds.
pub mod kind {
    /// End of option list (RFC 9293 §3.2).
    pub const END: u8 = 0;
    /// No-operation (RFC 9293 §3.2).
    pub const NOP: u8 = 1;
    /// Maximum segment size (RFC 9293 §3.2).
    pub const MSS: u8 = 2;
    /// Window scale (RFC 7323 §2).
    pub const WINDOW_SCALE: u8 = 3;
    /// SACK permitted (RFC 2018 §2).
    pub const SACK_PERMITTED: u8 = 4;
    /// SACK (RFC 2018 §3).
    pub const SACK: u8 = 5;
    /// Timestamps (RFC 7323 §3).
    pub const TIMESTAMPS: u8 = 8;
    /// Multipath TCP (RFC 8684 §3).
    pub const MPTCP: u8 = crate::wire::mptcp::KIND;
    /// Fast Open cookie (RFC 7413 §4.1).
    pub const FAST_OPEN: u8 = 34;
}

/// The largest shift count that has a meaning (RFC 7323 §2.3).
const MAX_WINDOW_SCALE: u8 = 14;

/// One option's bytes, undecoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawOption<'a> {
    /// Where it starts within the options.
    pub offset: usize,
    /// Its kind, see [`kind`].
    pub kind: u8,
    /// All of it, kind and length octets included.
    pub bytes: &'a [u8],
}

impl<'a> RawOption<'a> {
    /// What follows the length octet.
    pub fn data(&self) -> &'a [u8] {
        self.bytes.get(2..).unwrap_or(&[])
    }
}

/// Walks options without decoding them. No-operations are passed over; the end-of-list option ends the walk,
/// and so does, after one error, a length that leaves the list no way to continue.
/// [`for_forwarding`](Self::for_forwarding) differs in some of this.
#[derive(Clone, Debug)]
pub struct RawOptions<'a> {
    bytes: &'a [u8],
    at: usize,
    forwarding: bool,
}

impl<'a> RawOptions<'a> {
    /// Walks `bytes`, the options of a TCP header. Bytes beyond [`MAX_OPTIONS`] cannot be in one and are not
    /// looked at.
    pub fn new(bytes: &'a [u8]) -> Self {
        RawOptions { bytes: &bytes[..bytes.len().min(MAX_OPTIONS)], at: 0, forwarding: false }
    }

    /// Walks like a middlebox that writes the list anew and changes some options only: yields no-operations,
    /// too, and an option of length 0 or 1 as its first two bytes, so that malformed options and what follows
    /// them are kept.
    pub fn for_forwarding(self) -> Self {
        RawOptions { forwarding: true, ..self }
    }
}

impl<'a> Iterator for RawOptions<'a> {
    type Item = Result<RawOption<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            match *rest {
                [] | [kind::END, ..] => return None,
                [kind::NOP, ..] => {
                    let option = RawOption { offset: self.at, kind: kind::NOP, bytes: &rest[..1] };
                    self.at += 1;
                    if self.forwarding {
                        return Some(Ok(option));
                    }
                }
                [kind, length, ..]
                    if (length >= 2 || self.forwarding) && usize::from(length) <= rest.len() =>
                {
                    let option =
                        RawOption { offset: self.at, kind, bytes: &rest[..usize::from(length).max(2)] };
                    self.at += option.bytes.len();
                    return Some(Ok(option));
                }
                [_] | [_, ..] => {
                    let truncated = rest.get(1).is_none_or(|length| *length >= 2);
                    self.at = self.bytes.len();
                    return Some(Err(if truncated { WireError::Truncated } else { WireError::BadLength }));
                }
            }
        }
    }
}

/// The timestamps option (RFC 7323 §3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Timestamps {
    /// TSval: the sender's clock.
    pub value: u32,
    /// TSecr: the last TSval that the sender took over from its peer.
    pub echo: u32,
}

/// The options of a TCP header that the stack knows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpOptions {
    /// Maximum segment size, in bytes.
    pub mss: Option<u16>,
    /// Window shift count, 0 to 14. A larger one received counts as 14 (RFC 7323 §2.3).
    pub window_scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<Timestamps>,
    /// SACK blocks: first sequence number of each, and the one after its last. At most 4.
    pub sack: SmallVec<[(SeqNumber, SeqNumber); 4]>,
    /// MPTCP options, in order.
    pub mptcp: SmallVec<[MptcpOption; 2]>,
    /// Fast Open cookie of 4 to 16 bytes, an even number (RFC 7413 §4.1.1); empty to ask for one.
    pub fast_open: Option<SmallVec<[u8; 16]>>,
    /// Options that were dropped because their length is wrong for their kind or the list breaks off in them.
    /// Received headers only: nothing is emitted for it.
    pub malformed: u8,
}

impl TcpOptions {
    /// Decodes `bytes`, the options of a TCP header; bytes beyond [`MAX_OPTIONS`] are ignored. Unknown kinds
    /// and MPTCP subtypes are skipped, an option of the wrong length is counted and skipped, a list that
    /// breaks off is counted and read that far. Of an option that occurs twice the last one counts; MPTCP
    /// options and SACK blocks add up.
    pub fn parse(bytes: &[u8]) -> TcpOptions {
        let mut options = TcpOptions::default();
        for raw in RawOptions::new(bytes) {
            if raw.and_then(|raw| options.take(&raw)).is_err() {
                // 40 bytes hold at most 20 options.
                options.malformed += 1;
            }
        }
        options
    }

    fn take(&mut self, raw: &RawOption<'_>) -> Result<(), WireError> {
        let data = raw.data();
        let mut r = Reader(data);
        let exactly = |n: usize| if data.len() == n { Ok(()) } else { Err(WireError::BadLength) };
        match raw.kind {
            kind::MSS => {
                exactly(2)?;
                self.mss = Some(r.u16()?);
            }
            kind::WINDOW_SCALE => {
                exactly(1)?;
                self.window_scale = Some(r.u8()?.min(MAX_WINDOW_SCALE));
            }
            kind::SACK_PERMITTED => {
                exactly(0)?;
                self.sack_permitted = true;
            }
            kind::TIMESTAMPS => {
                exactly(8)?;
                self.timestamps = Some(Timestamps { value: r.u32()?, echo: r.u32()? });
            }
            kind::SACK => {
                let (blocks, rest) = data.as_chunks::<8>();
                if blocks.is_empty() || !rest.is_empty() {
                    return Err(WireError::BadLength);
                }
                for block in blocks {
                    let mut r = Reader(block);
                    self.sack.push((SeqNumber(r.u32()?), SeqNumber(r.u32()?)));
                }
            }
            kind::FAST_OPEN => {
                // RFC 7413 §4.1.1.
                if !matches!(data.len(), 0 | 4 | 6 | 8 | 10 | 12 | 14 | 16) {
                    return Err(WireError::BadLength);
                }
                self.fast_open = Some(SmallVec::from_slice(data));
            }
            kind::MPTCP => {
                let known = MptcpPacket::new(raw.bytes)?.is_known();
                if known {
                    self.mptcp.push(MptcpOption::parse(raw.bytes)?);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Length in bytes as emitted, padding included: a multiple of 4. Above [`MAX_OPTIONS`] when they do not
    /// [`fit`](Self::fits).
    pub fn len(&self) -> usize {
        self.layout().0
    }

    /// The length, and whether each row is aligned.
    fn layout(&self) -> (usize, bool) {
        let aligned = self.length(true);
        if aligned <= MAX_OPTIONS { (aligned, true) } else { (self.length(false).next_multiple_of(4), false) }
    }

    /// There is nothing to emit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them fit one TCP header.
    pub fn fits(&self) -> bool {
        self.len() <= MAX_OPTIONS
    }

    /// Room for one more MPTCP option beside these, in bytes.
    pub fn room(&self) -> usize {
        // The packed layout is what a header falls back on when padding leaves no room.
        MAX_OPTIONS.saturating_sub(self.length(false))
    }

    /// Drops the last SACK blocks until all options fit, as RFC 8684 appendix A advises when a DATA_ACK needs
    /// the room.
    pub fn shed_sack(&mut self) {
        while !self.fits() && self.sack.pop().is_some() {}
    }

    /// There is an MPTCP option other than DSS. An ACK that carries one is not a duplicate ACK that signals
    /// congestion (RFC 8684 §3.4.1).
    pub fn has_signal(&self) -> bool {
        self.mptcp.iter().any(|o| !matches!(o, MptcpOption::Dss(_)))
    }

    fn length(&self, aligned: bool) -> usize {
        let padded = |len: usize| if aligned { len.next_multiple_of(4) } else { len };
        let mut len = if self.mss.is_some() { 4 } else { 0 };
        len += match (self.sack_permitted, self.timestamps) {
            (false, None) => 0,
            (true, None) => padded(2),
            (false, Some(_)) => padded(10),
            (true, Some(_)) => 12,
        };
        len += if self.window_scale.is_some() { padded(3) } else { 0 };
        len += self.fast_open.as_ref().map_or(0, |cookie| padded(2 + cookie.len()));
        len += if self.sack.is_empty() { 0 } else { padded(2 + 8 * self.sack.len()) };
        len + self.mptcp.iter().map(|o| padded(o.len())).sum::<usize>()
    }

    /// Writes the options to the start of `buf` and returns their length, [`len`](Self::len).
    ///
    /// The layout is the common one: MSS, SACK permitted and timestamps in one row of 12 bytes, window scale,
    /// Fast Open, SACK, MPTCP, each row aligned to 4 bytes by no-operations before it; end-of-list octets
    /// fill the header up. When only that padding makes them exceed the room, they are packed instead.
    ///
    /// Options that do not [`fit`](Self::fits) are left out, SACK blocks first, then MPTCP options, last ones
    /// first; then the length is [`MAX_OPTIONS`].
    ///
    /// # Panics
    /// When `buf` is shorter than the length.
    pub fn emit(&self, buf: &mut [u8]) -> usize {
        let (len, aligned) = self.layout();
        if len > MAX_OPTIONS {
            self.emit_cut(&mut buf[..MAX_OPTIONS]);
            return MAX_OPTIONS;
        }
        let mut w = Writer::new(&mut buf[..len]);
        let pad = |w: &mut Writer<'_>, n: usize| {
            if aligned {
                w.put(&[kind::NOP; 3][..n]);
            }
        };
        if let Some(mss) = self.mss {
            w.put(&[kind::MSS, 4]);
            w.u16(mss);
        }
        if self.sack_permitted {
            if self.timestamps.is_none() {
                pad(&mut w, 2);
            }
            w.put(&[kind::SACK_PERMITTED, 2]);
        }
        if let Some(t) = self.timestamps {
            if !self.sack_permitted {
                pad(&mut w, 2);
            }
            w.put(&[kind::TIMESTAMPS, 10]);
            w.u32(t.value);
            w.u32(t.echo);
        }
        if let Some(shift) = self.window_scale {
            pad(&mut w, 1);
            w.put(&[kind::WINDOW_SCALE, 3, shift]);
        }
        if let Some(cookie) = &self.fast_open {
            let len = 2 + cookie.len();
            pad(&mut w, len.next_multiple_of(4) - len);
            w.put(&[kind::FAST_OPEN, len as u8]);
            w.put(cookie);
        }
        if !self.sack.is_empty() {
            pad(&mut w, 2);
            w.put(&[kind::SACK, (2 + 8 * self.sack.len()) as u8]);
            for (start, end) in &self.sack {
                w.u32(start.0);
                w.u32(end.0);
            }
        }
        for option in &self.mptcp {
            let written = w.written();
            pad(&mut w, written.next_multiple_of(4) - written);
            let n = option.emit(w.unwritten());
            w.advance(n);
        }
        // RFC 9293 §3.1: after the end of the list the header is padded with zeros.
        w.unwritten().fill(kind::END);
        len
    }

    /// Emits what fits into `buf`, which has [`MAX_OPTIONS`] bytes.
    #[cold]
    fn emit_cut(&self, buf: &mut [u8]) {
        let mut cut = self.clone();
        cut.shed_sack();
        while !cut.fits() && cut.mptcp.pop().is_some() {}
        if !cut.fits() {
            // Only an illegal cookie can be the cause: the others take 19 bytes.
            cut.fast_open = None;
        }
        let written = cut.emit(buf);
        buf[written..].fill(kind::END);
    }
}
