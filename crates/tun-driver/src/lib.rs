//! tun-driver
