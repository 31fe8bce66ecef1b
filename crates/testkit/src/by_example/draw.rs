//! MPTCP options as boxes, 32 bits wide as in RFC 8684's figures, with the bits that a packet carries.

use std::fmt::Write;
use umptcp_stack_core::wire::mptcp::{DataAck, Dsn, Dss, MpCapable, MpJoin, MptcpOption, RemoveAddr};
use umptcp_stack_core::wire::tcp::MAX_OPTIONS;

/// Bits of a row.
const ROW: usize = 32;

/// How a field's value is written.
#[derive(Clone, Copy)]
enum Style {
    /// As a number.
    Decimal,
    /// As all its digits.
    Hex,
    /// An IPv4 address.
    Dotted,
}

/// A field of an option.
struct Field {
    name: &'static str,
    bits: usize,
    style: Style,
}

fn decimal(name: &'static str, bits: usize) -> Field {
    Field { name, bits, style: Style::Decimal }
}

fn hex(name: &'static str, bits: usize) -> Field {
    Field { name, bits, style: Style::Hex }
}

fn flags(names: &[&'static str], fields: &mut Vec<Field>) {
    fields.extend(names.iter().map(|name| decimal(name, 1)));
}

/// The name of an option's subtype.
pub(super) fn name(option: &MptcpOption) -> &'static str {
    match option {
        MptcpOption::Capable(_) => "MP_CAPABLE",
        MptcpOption::Join(_) => "MP_JOIN",
        MptcpOption::Dss(_) => "DSS",
        MptcpOption::AddAddr(_) => "ADD_ADDR",
        MptcpOption::RemoveAddr(_) => "REMOVE_ADDR",
        MptcpOption::Prio(_) => "MP_PRIO",
        MptcpOption::Fail(_) => "MP_FAIL",
        MptcpOption::FastClose(_) => "MP_FASTCLOSE",
        MptcpOption::Reset(_) => "MP_TCPRST",
    }
}

/// What follows kind, length and subtype (RFC 8684, figures 4 to 16).
fn fields(option: &MptcpOption) -> Vec<Field> {
    let mut f = vec![decimal("Kind", 8), decimal("Length", 8), decimal("Subtype", 4)];
    match option {
        MptcpOption::Capable(o) => {
            f.push(decimal("Version", 4));
            flags(&["A", "B", "C", "D", "E", "F", "G", "H"], &mut f);
            if !matches!(o, MpCapable::Syn { .. }) {
                f.push(hex("Option sender's key (64 bits)", 64));
            }
            if matches!(o, MpCapable::Ack { .. } | MpCapable::Data { .. }) {
                f.push(hex("Option receiver's key (64 bits)", 64));
            }
            if let MpCapable::Data { checksum, .. } = o {
                f.push(decimal("Data-level length", 16));
                f.extend(checksum.map(|_| hex("Checksum", 16)));
            }
        }
        MptcpOption::Join(MpJoin::Ack { .. }) => {
            f.push(decimal("(reserved)", 12));
            f.push(hex("Sender's HMAC, its leftmost 160 bits", 160));
        }
        MptcpOption::Join(o) => {
            flags(&["-", "-", "-", "B"], &mut f);
            f.push(decimal("Address ID", 8));
            match o {
                MpJoin::Syn { .. } => f.push(hex("Receiver's token", 32)),
                _ => f.push(hex("Sender's HMAC, its leftmost 64 bits", 64)),
            }
            f.push(hex("Sender's random number (nonce)", 32));
        }
        MptcpOption::Dss(Dss { ack, mapping, .. }) => {
            f.push(decimal("(reserved)", 7));
            flags(&["F", "m", "M", "a", "A"], &mut f);
            f.extend(ack.map(|ack| match ack {
                DataAck::Short(_) => hex("Data ACK (32 bits)", 32),
                DataAck::Long(_) => hex("Data ACK (64 bits)", 64),
            }));
            if let Some(m) = mapping {
                f.push(match m.dsn {
                    Dsn::Short(_) => hex("Data sequence number (32 bits)", 32),
                    Dsn::Long(_) => hex("Data sequence number (64 bits)", 64),
                });
                f.push(decimal("Subflow sequence number", 32));
                f.push(decimal("Data-level length", 16));
                f.extend(m.checksum.map(|_| hex("Checksum", 16)));
            }
        }
        MptcpOption::AddAddr(o) => {
            flags(&["-", "-", "-", "E"], &mut f);
            f.push(decimal("Address ID", 8));
            match o.address.is_ipv4() {
                true => f.push(Field { name: "Address", bits: 32, style: Style::Dotted }),
                false => f.push(hex("Address (128 bits)", 128)),
            }
            f.extend(o.port.map(|_| decimal("Port", 16)));
            f.extend(o.hmac.map(|_| hex("Sender's HMAC, its rightmost 64 bits", 64)));
        }
        MptcpOption::RemoveAddr(RemoveAddr { ids }) => {
            f.push(decimal("(res.)", 4));
            f.extend(ids.iter().map(|_| decimal("Address ID", 8)));
        }
        MptcpOption::Prio(o) => {
            flags(&["-", "-", "-", "B"], &mut f);
            f.extend(o.address_id.map(|_| decimal("Address ID", 8)));
        }
        MptcpOption::Fail(_) => {
            f.push(decimal("(reserved)", 12));
            f.push(hex("Data sequence number (64 bits)", 64));
        }
        MptcpOption::FastClose(_) => {
            f.push(decimal("(reserved)", 12));
            f.push(hex("Option receiver's key (64 bits)", 64));
        }
        MptcpOption::Reset(_) => {
            flags(&["U", "V", "W", "T"], &mut f);
            f.push(decimal("Reason", 8));
        }
    }
    f
}

/// `bits` bits of `bytes` from bit `at` on, at most 64.
fn bits(bytes: &[u8], at: usize, bits: usize) -> u64 {
    (at..at + bits).fold(0, |v, i| v << 1 | u64::from(bytes[i / 8] >> (7 - i % 8) & 1))
}

/// A field's value in lines of what fits a row.
fn value(field: &Field, bytes: &[u8], at: usize) -> Vec<String> {
    match field.style {
        Style::Decimal => vec![bits(bytes, at, field.bits).to_string()],
        Style::Dotted => {
            vec![std::net::Ipv4Addr::from(bits(bytes, at, 32) as u32).to_string()]
        }
        Style::Hex => {
            let digits: String =
                (0..field.bits / 4).map(|i| format!("{:x}", bits(bytes, at + 4 * i, 4))).collect();
            // A row has 63 characters: as many whole words as fit.
            let lines = digits.as_bytes().chunks(if field.bits > 64 { 40 } else { 16 });
            lines
                .enumerate()
                .map(|(i, l)| format!("{}{}", if i == 0 { "0x" } else { "" }, String::from_utf8_lossy(l)))
                .collect()
        }
    }
}

/// A border below fields that end after these bits, and above those that end after `next`.
fn border(ends: &[usize], next: &[usize]) -> String {
    let width = ends.iter().chain(next).copied().max().unwrap_or(0);
    let mut line = String::from("+");
    for bit in 1..=width {
        line.push('-');
        line.push(if ends.contains(&bit) || next.contains(&bit) { '+' } else { '-' });
    }
    line
}

/// Draws an option.
pub(super) fn option(option: &MptcpOption) -> String {
    let mut buffer = [0; MAX_OPTIONS];
    let len = option.emit(&mut buffer);
    let bytes = &buffer[..len];
    let fields = fields(option);
    assert_eq!(fields.iter().map(|f| f.bits).sum::<usize>(), 8 * len, "the fields of {option}");

    // Rows of fields: as many as fit 32 bits; a longer field has rows of its own.
    let mut rows: Vec<Vec<(&Field, usize)>> = Vec::new();
    let (mut at, mut room) = (0, 0);
    for field in &fields {
        if field.bits > room {
            rows.push(Vec::new());
            room = ROW.max(field.bits);
        }
        room = if field.bits > ROW { 0 } else { room - field.bits };
        if let Some(row) = rows.last_mut() {
            row.push((field, at));
        }
        at += field.bits;
    }

    let mut text = String::from(
        " 0                   1                   2                   3\n \
         0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1\n",
    );
    let mut above: Vec<usize> = Vec::new();
    for row in &rows {
        let mut end = 0;
        let ends: Vec<usize> = row
            .iter()
            .map(|(f, _)| {
                end += f.bits.min(ROW);
                end
            })
            .collect();
        let _ = writeln!(text, "{}", border(&above, &ends));
        let values: Vec<Vec<String>> = row.iter().map(|(f, at)| value(f, bytes, *at)).collect();
        let height = values.iter().map(Vec::len).max().unwrap_or(1);
        for line in 0..=height {
            text.push('|');
            for ((field, _), value) in row.iter().zip(&values) {
                let width = 2 * field.bits.min(ROW) - 1;
                let shown = match line {
                    0 => field.name,
                    n => value.get(n - 1).map_or("", String::as_str),
                };
                let _ = write!(text, "{shown:^width$}|");
            }
            text.push('\n');
        }
        above = ends;
    }
    let _ = writeln!(text, "{}", border(&above, &[]));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use umptcp_stack_core::types::AddressId;
    use umptcp_stack_core::wire::mptcp::{AddAddr, CapableFlags, DssMapping, MpPrio, MpTcpRst, VERSION};

    #[test]
    fn a_box_has_the_bits_of_the_option() {
        let drawn = option(&MptcpOption::Capable(MpCapable::SynAck {
            version: VERSION,
            flags: CapableFlags::sha256(true, false),
            key: 0x0123_4567_89ab_cdef,
        }));
        let expected = " 0                   1                   2                   3
 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
+---------------+---------------+-------+-------+-+-+-+-+-+-+-+-+
|     Kind      |    Length     |Subtype|Version|A|B|C|D|E|F|G|H|
|      30       |      12       |   0   |   1   |1|0|0|0|0|0|0|1|
+---------------+---------------+-------+-------+-+-+-+-+-+-+-+-+
|                 Option sender's key (64 bits)                 |
|                      0x0123456789abcdef                       |
+---------------------------------------------------------------+
";
        assert_eq!(drawn, expected);
    }

    #[test]
    fn a_row_may_end_early() {
        let drawn = option(&MptcpOption::Prio(MpPrio { backup: true, address_id: None }));
        assert!(drawn.ends_with(
            "+---------------+---------------+-------+-+-+-+-+\n\
             |     Kind      |    Length     |Subtype|-|-|-|B|\n\
             |      30       |       3       |   5   |0|0|0|1|\n\
             +---------------+---------------+-------+-+-+-+-+\n"
        ));
    }

    /// Every form: the fields add up to the option's length, and no line is wider than the row.
    #[test]
    fn every_form_is_drawn() {
        let mut options = vec![
            MptcpOption::Join(MpJoin::Ack { hmac: [0xab; 20] }),
            MptcpOption::Reset(MpTcpRst { transient: true, reason: 3 }),
            MptcpOption::RemoveAddr(RemoveAddr { ids: (1..=6).map(AddressId).collect() }),
        ];
        for ack in [None, Some(DataAck::Short(7)), Some(DataAck::Long(7))] {
            for dsn in [None, Some(Dsn::Short(9)), Some(Dsn::Long(9))] {
                for checksum in [None, Some(0xbeef)] {
                    let mapping = dsn.map(|dsn| DssMapping { dsn, ssn: 1, len: 100, checksum });
                    options.push(MptcpOption::Dss(Dss { data_fin: false, ack, mapping }));
                }
            }
        }
        for address in ["10.2.1.1", "fd00::1"] {
            for port in [None, Some(8080)] {
                for hmac in [None, Some(1)] {
                    let address = address.parse().unwrap();
                    options.push(MptcpOption::AddAddr(AddAddr {
                        address_id: AddressId(2),
                        address,
                        port,
                        hmac,
                    }));
                }
            }
        }
        for o in &options {
            let drawn = option(o);
            assert!(drawn.lines().all(|l| l.chars().count() <= 2 * ROW + 1), "{drawn}");
        }
    }
}
