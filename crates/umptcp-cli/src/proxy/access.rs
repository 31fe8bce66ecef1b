//! Where the proxy listens, and for whom.

use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// Where it listens, and who may use it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Access {
    /// Where it listens.
    pub(crate) at: SocketAddr,
    /// Who may use it; empty: programs of this host.
    pub(crate) allow: Vec<IpNet>,
}

impl Access {
    /// Whether a client with this address may use it.
    pub(crate) fn allows(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        if self.allow.is_empty() {
            client.is_loopback()
        } else {
            self.allow.iter().any(|net| net.contains(&client))
        }
    }

    /// A proxy that everybody can use is a danger to others: it must be said who may.
    ///
    /// # Errors
    /// That others can reach it, and nothing says which of them may.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.allow.is_empty() && !self.at.ip().is_loopback() {
            return Err(format!("others than this host can reach {}", self.at));
        }
        Ok(())
    }
}
