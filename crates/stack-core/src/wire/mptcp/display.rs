//! MPTCP options as traces show them.

use super::*;
use core::fmt;

impl fmt::Display for MptcpOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MptcpOption::Capable(o) => o.fmt(f),
            MptcpOption::Join(o) => o.fmt(f),
            MptcpOption::Dss(o) => o.fmt(f),
            MptcpOption::AddAddr(o) => o.fmt(f),
            MptcpOption::RemoveAddr(o) => o.fmt(f),
            MptcpOption::Prio(o) => o.fmt(f),
            MptcpOption::Fail(o) => write!(f, "MP_FAIL dsn={:#018x}", o.dsn),
            MptcpOption::FastClose(o) => write!(f, "MP_FASTCLOSE key={:#018x}", o.receiver_key),
            MptcpOption::Reset(o) => o.fmt(f),
        }
    }
}

impl fmt::Display for MpCapable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MP_CAPABLE v{}", self.version())?;
        match *self {
            MpCapable::Syn { .. } => {}
            MpCapable::SynAck { key, .. } => write!(f, " key={key:#018x}")?,
            MpCapable::Ack { sender_key, receiver_key, .. } => {
                write!(f, " keys={sender_key:#018x},{receiver_key:#018x}")?;
            }
            MpCapable::Data { sender_key, receiver_key, len, checksum, .. } => {
                write!(f, " keys={sender_key:#018x},{receiver_key:#018x} len={len}")?;
                if let Some(c) = checksum {
                    write!(f, " csum={c:#06x}")?;
                }
            }
        }
        let flags = self.flags();
        if flags.checksum_required {
            f.write_str(" checksum")?;
        }
        if flags.extensibility {
            f.write_str(" extended")?;
        }
        if flags.no_join_initial {
            f.write_str(" nojoin")?;
        }
        if flags.algorithms != CapableFlags::HMAC_SHA256 {
            write!(f, " algorithms={:#x}", flags.algorithms)?;
        }
        Ok(())
    }
}

impl fmt::Display for MpJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backup = |b: bool| if b { " backup" } else { "" };
        match self {
            MpJoin::Syn { backup: b, address_id, token, nonce } => {
                write!(f, "MP_JOIN id={address_id} token={token:#010x} nonce={nonce:#010x}{}", backup(*b))
            }
            MpJoin::SynAck { backup: b, address_id, hmac, nonce } => {
                write!(f, "MP_JOIN id={address_id} hmac={hmac:#018x} nonce={nonce:#010x}{}", backup(*b))
            }
            MpJoin::Ack { hmac } => {
                f.write_str("MP_JOIN hmac=0x")?;
                hmac.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }
    }
}

impl fmt::Display for Dss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DSS")?;
        if self.data_fin {
            f.write_str(" FIN")?;
        }
        match self.ack {
            None => {}
            // The number of digits shows the width.
            Some(DataAck::Short(v)) => write!(f, " ack={v:#010x}")?,
            Some(DataAck::Long(v)) => write!(f, " ack={v:#018x}")?,
        }
        if let Some(m) = self.mapping {
            match m.dsn {
                Dsn::Short(v) => write!(f, " dsn={v:#010x}")?,
                Dsn::Long(v) => write!(f, " dsn={v:#018x}")?,
            }
            write!(f, " ssn={} ", m.ssn)?;
            match m.len {
                0 => f.write_str("infinite")?,
                len => write!(f, "len={len}")?,
            }
            if let Some(c) = m.checksum {
                write!(f, " csum={c:#06x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for AddAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ADD_ADDR id={} {}", self.address_id, self.address)?;
        if let Some(port) = self.port {
            write!(f, " port {port}")?;
        }
        match self.hmac {
            Some(hmac) => write!(f, " hmac={hmac:#018x}"),
            None => f.write_str(" echo"),
        }
    }
}

impl fmt::Display for RemoveAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("REMOVE_ADDR id=")?;
        for (i, id) in self.ids.iter().enumerate() {
            write!(f, "{}{id}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for MpPrio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MP_PRIO {}", if self.backup { "backup" } else { "regular" })?;
        match self.address_id {
            Some(id) => write!(f, " id={id}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for MpTcpRst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.transient { " transient" } else { "" };
        write!(f, "MP_TCPRST {}{kind}", ResetReason::from(self.reason))
    }
}

impl fmt::Display for ResetReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ResetReason::Unspecified => "unspecified error",
            ResetReason::MptcpSpecific => "MPTCP-specific error",
            ResetReason::LackOfResources => "lack of resources",
            ResetReason::Prohibited => "administratively prohibited",
            ResetReason::TooMuchOutstandingData => "too much outstanding data",
            ResetReason::UnacceptablePerformance => "unacceptable performance",
            ResetReason::MiddleboxInterference => "middlebox interference",
            ResetReason::Unknown(code) => return write!(f, "reason {code}"),
        })
    }
}
