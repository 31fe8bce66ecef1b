//! Trains: datagrams of one size that pass the kernel together (UDP_SEGMENT, UDP_GRO).
//!
//! A segment that the stack wants cut leaves as one train, each datagram with its own header. One that comes is
//! joined into one segment again, as far as its datagrams are parts of one: then only their sequence numbers
//! differ, and PSH and FIN of the last.

use crate::codec;

const FIN_PSH: u8 = 0x09;
const FLAGS: usize = 1;
const OPTIONS: std::ops::RangeFrom<usize> = 8..;

/// Flags with which segments are joined. Others, as those of handshakes and of ECN, pass one by one.
const JOINED: u8 = 0x10 | FIN_PSH;

/// How a group of datagrams becomes a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Group {
    /// Bytes of the train that it takes.
    pub(crate) bytes: usize,
    /// Payload of each but the last, if it has more than one datagram.
    pub(crate) each: Option<u16>,
    header: usize,
    size: usize,
}

/// The first datagrams of a train of bodies with `size` bytes each, the last with fewer perhaps, that are parts
/// of one segment: one at least.
pub(crate) fn first_group(train: &[u8], size: usize) -> Group {
    let single = Group { bytes: train.len().min(size), each: None, header: 0, size };
    let mut bodies = train.chunks(size.max(1));
    let Some(first) = bodies.next() else { return single };
    let Some(header) = codec::body_header_len(first).filter(|header| *header < first.len()) else {
        return single;
    };
    let Ok(each) = u16::try_from(size - header) else { return single };
    if first[FLAGS] != JOINED & !FIN_PSH {
        return single;
    }
    let sequence = |body: &[u8]| u32::from_be_bytes([4, 5, 6, 7].map(|at: usize| body[at]));
    let mut group = Group { bytes: size, each: Some(each), header, size };
    let mut expected = sequence(first);
    for body in bodies {
        expected = expected.wrapping_add(u32::from(each));
        let alike = body.len() > header
            && body[0] == first[0]
            && body[2..4] == first[2..4]
            && body[OPTIONS][..header - 8] == first[OPTIONS][..header - 8];
        if !alike || sequence(body) != expected || body[FLAGS] & !FIN_PSH != first[FLAGS] {
            break;
        }
        group.bytes += body.len();
        // Nothing follows what ends a write or the stream.
        if body[FLAGS] & FIN_PSH != 0 {
            break;
        }
    }
    if group.bytes == size { single } else { group }
}

/// Makes one body of a group's, which `bodies` begins with. Returns its length.
pub(crate) fn join(bodies: &mut [u8], group: Group) -> usize {
    let Group { bytes, each: Some(_), header, size } = group else { return group.bytes };
    let mut end = size;
    for at in (size..bytes).step_by(size) {
        let stop = (at + size).min(bytes);
        bodies[FLAGS] |= bodies[at + FLAGS];
        bodies.copy_within(at + header..stop, end);
        end += stop - at - header;
    }
    end
}

/// How many datagrams of this size one call can send: what IP allows in one packet, and Linux in one train.
pub(crate) fn most(size: usize) -> usize {
    const LONGEST: usize = 65_000;
    const UDP_MAX_SEGMENTS: usize = 64;
    (LONGEST / size.max(1)).clamp(1, UDP_MAX_SEGMENTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{BodyHeader, TCP_HEADER};

    /// The bodies of a segment with this payload, cut after each `size` bytes of it.
    fn train(flags: u8, payload: &[u8], size: usize) -> (Vec<u8>, Vec<u8>) {
        let mut tcp = vec![0; TCP_HEADER + 8];
        tcp[4..8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        tcp[12] = 0x70;
        tcp[13] = flags;
        tcp[20..].copy_from_slice(&[1, 1, 1, 1, 253, 4, 9, 9]);
        let (_, header) = BodyHeader::of_segment(&tcp).unwrap();
        let count = payload.len().div_ceil(size);
        let parts = payload.chunks(size).enumerate();
        let parts = parts
            .map(|(i, part)| [header.of_part((i * size) as u32, i + 1 == count).as_slice(), part].concat());
        (parts.collect::<Vec<_>>().concat(), [header.as_slice(), payload].concat())
    }

    fn payload(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 7 % 251) as u8).collect()
    }

    #[test]
    fn what_was_cut_is_whole_again() {
        for (flags, len) in [(0x10, 5000), (0x18, 5000), (0x11, 4000), (0x18, 1001), (0x10, 60_000)] {
            let (mut bodies, whole) = train(flags, &payload(len), 1000);
            let group = first_group(&bodies, 1020);
            assert_eq!((group.bytes, group.each), (bodies.len(), Some(1000)));
            let end = join(&mut bodies, group);
            assert_eq!(bodies[..end], whole);
        }
    }

    #[test]
    fn what_does_not_belong_together_stays_apart() {
        let (bodies, _) = train(0x18, &payload(5000), 1000);
        let second = |at: usize, byte: u8| {
            let mut changed = bodies.clone();
            changed[1020 + at] ^= byte;
            first_group(&changed, 1020)
        };
        for at in [0, 2, 3, 4, 7, 8, 11, 12, 19] {
            let group = second(at, 0x10);
            assert_eq!((group.bytes, group.each), (1020, None), "byte {at}");
        }
        for flag in [0x02, 0x04, 0x20, 0x40, 0x80] {
            assert_eq!(second(1, flag).bytes, 1020, "flag {flag:#x}");
        }
        assert_eq!(second(1, 0x08).bytes, 2040, "nothing follows PSH");
        assert_eq!(second(20, 0xff).bytes, bodies.len(), "payload may be anything");
        for flags in [0x12, 0x14, 0x50, 0x90] {
            let (bodies, _) = train(flags, &payload(2000), 1000);
            assert_eq!(first_group(&bodies, 1020).each, None, "{flags:#x}");
        }
        // Acknowledgements of one size.
        let acks = bodies[..20].repeat(5);
        let group = first_group(&acks, 20);
        assert_eq!((group.bytes, group.each), (20, None));
    }

    #[test]
    fn any_bytes_are_taken_without_harm() {
        let mut seed = 1_u32;
        let mut random = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 24) as u8
        };
        for _ in 0..20_000 {
            let len = usize::from(random()) * 2;
            let mut bytes: Vec<u8> = (0..len).map(|_| random() & random()).collect();
            let size = usize::from(random() % 64);
            let group = first_group(&bytes, size);
            assert!(group.bytes <= bytes.len());
            assert!(join(&mut bytes, group) <= group.bytes);
        }
        assert_eq!([0, 1, 1000, 65_000, 100_000].map(most), [64, 64, 64, 1, 1]);
    }
}
