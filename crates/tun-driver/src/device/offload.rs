//! What a TUN device is asked for.

/// Whether a device splits and coalesces segments and fills in checksums.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Offload {
    /// If the kernel supports it.
    #[default]
    Auto,
    /// Single packets with complete checksums in both directions.
    Off,
}
