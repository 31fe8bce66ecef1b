//! Segments as traces show them.

use super::{TcpFlags, TcpOptions, TcpRepr};
use core::fmt;
use core::net::{IpAddr, SocketAddr};

impl fmt::Display for TcpFlags {
    /// As tcpdump writes them: `S.` is SYN and ACK; `none` when no flag is set.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (self.fin, "F"),
            (self.syn, "S"),
            (self.rst, "R"),
            (self.psh, "P"),
            (self.ack, "."),
            (self.urg, "U"),
            (self.ece, "E"),
            (self.cwr, "W"),
        ];
        if self.bits() == 0 {
            return f.write_str("none");
        }
        letters.iter().filter(|(set, _)| *set).try_for_each(|(_, letter)| f.write_str(letter))
    }
}

impl fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

impl fmt::Display for TcpOptions {
    /// A list separated by commas, without brackets; empty when there is nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut item = |f: &mut fmt::Formatter<'_>, args: fmt::Arguments<'_>| {
            if !first {
                f.write_str(", ")?;
            }
            first = false;
            f.write_fmt(args)
        };
        if let Some(mss) = self.mss {
            item(f, format_args!("mss {mss}"))?;
        }
        if self.sack_permitted {
            item(f, format_args!("sackOK"))?;
        }
        if let Some(t) = self.timestamps {
            item(f, format_args!("TS val {} ecr {}", t.value, t.echo))?;
        }
        if let Some(shift) = self.window_scale {
            item(f, format_args!("wscale {shift}"))?;
        }
        if let Some(cookie) = &self.fast_open {
            item(f, format_args!("tfo"))?;
            cookie
                .iter()
                .enumerate()
                .try_for_each(|(i, b)| write!(f, "{}{b:02x}", if i == 0 { " " } else { "" }))?;
        }
        for (start, end) in &self.sack {
            item(f, format_args!("sack {}:{}", start.0, end.0))?;
        }
        for option in &self.mptcp {
            item(f, format_args!("{option}"))?;
        }
        if self.malformed > 0 {
            item(f, format_args!("{} malformed", self.malformed))?;
        }
        Ok(())
    }
}

/// A segment as one line of a trace; made by [`TcpRepr::summary`].
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    pub(super) repr: &'a TcpRepr,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    pub(super) payload_len: usize,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { repr, src, dst, payload_len } = self;
        let src = SocketAddr::new(*src, repr.src_port);
        let dst = SocketAddr::new(*dst, repr.dst_port);
        write!(f, "{src} > {dst} [{}] seq {}", repr.flags, repr.seq.0)?;
        if repr.flags.ack {
            write!(f, " ack {}", repr.ack.0)?;
        }
        write!(f, " win {}", repr.window)?;
        if repr.flags.urg {
            write!(f, " urg {}", repr.urgent)?;
        }
        write!(f, " len {payload_len}")?;
        if !repr.options.is_empty() || repr.options.malformed > 0 {
            write!(f, " <{}>", repr.options)?;
        }
        Ok(())
    }
}
