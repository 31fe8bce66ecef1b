//! Identifiers. The parts of the stack refer to one another by id instead of by reference.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

id! {
    /// One connection of a stack (MPTCP, or plain TCP after fallback). Never reused within a stack.
    ConnectionId(u64), "c"
}
id! {
    /// One subflow within its connection. 0 is the initial subflow; never reused within a connection.
    SubflowId(u32), "sf"
}
id! {
    /// One local device that sends and receives packets. Never reused within a stack.
    PathId(u32), "p"
}
id! {
    /// One listening endpoint of a stack. Never reused within a stack.
    ListenerId(u32), "l"
}
id! {
    /// An RFC 8684 Address ID (§3.2, §3.4). 0 is the address of the initial subflow.
    AddressId(u8), "a"
}
