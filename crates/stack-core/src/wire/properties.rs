//! Round trips over any value and any bytes.
