//! Any bytes as the options of a TCP header, and as a single MPTCP option.

use umptcp_stack_core::wire::mptcp::{MptcpOption, MptcpPacket};
use umptcp_stack_core::wire::tcp::{MAX_OPTIONS, RawOptions, TcpOptions};

/// The target: see the module.
///
/// # Panics
/// When something does not hold.
pub fn options(data: &[u8]) {
    header_options(data);
    one_option(data);
}

fn header_options(data: &[u8]) {
    let options = TcpOptions::parse(data);
    assert!(options.fits(), "what came in one header fits one");
    assert!(!options.to_string().contains('\n'));
    let mut buf = [0xee; MAX_OPTIONS];
    let len = options.emit(&mut buf);
    assert_eq!(len, options.len());
    assert!(len.is_multiple_of(4));
    assert!(buf[len..].iter().all(|b| *b == 0xee));
    let again = TcpOptions::parse(&buf[..len]);
    assert_eq!(again, TcpOptions { malformed: 0, ..options });

    let mut end = 0;
    for raw in RawOptions::new(data).flatten() {
        assert!(raw.offset >= end && raw.bytes.len() >= 2);
        assert_eq!(data[raw.offset..][..raw.bytes.len()], *raw.bytes);
        end = raw.offset + raw.bytes.len();
    }
}

fn one_option(data: &[u8]) {
    if let Ok(view) = MptcpPacket::new(data) {
        assert_eq!(view.body().len() + 3, data.len());
    }
    let Ok(option) = MptcpOption::parse(data) else { return };
    let mut buf = [0; MAX_OPTIONS];
    let len = option.emit(&mut buf);
    assert!(len <= data.len());
    assert_eq!(MptcpOption::parse(&buf[..len]), Ok(option));
}
