//! Which clients may have which ports of the relay, for connections that come in there.

use crate::key::ClientName;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use thiserror::Error;

/// Ports that a client may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MayPublish {
    /// Who; `None`: everybody.
    pub client: Option<ClientName>,
    /// Which.
    pub ports: RangeInclusive<u16>,
}

impl MayPublish {
    /// Whether it lets a client have a port.
    pub fn lets(&self, client: Option<&ClientName>, port: u16) -> bool {
        self.ports.contains(&port) && (self.client.is_none() || self.client.as_ref() == client)
    }
}

/// It is no client with ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "expected a client's name (or * for everybody), '=', and a port or a range of them: laptop=8080, laptop=9000-9010"
)]
pub struct NotPorts;

impl FromStr for MayPublish {
    type Err = NotPorts;

    fn from_str(text: &str) -> Result<Self, NotPorts> {
        let (client, ports) = text.split_once('=').ok_or(NotPorts)?;
        let client = if client == "*" { None } else { Some(client.parse().map_err(|_| NotPorts)?) };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or(NotPorts);
        let ports = port(first)?..=port(last)?;
        if ports.is_empty() { Err(NotPorts) } else { Ok(MayPublish { client, ports }) }
    }
}

impl fmt::Display for MayPublish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.ports.start(), self.ports.end());
        f.write_str(self.client.as_ref().map_or("*", ClientName::as_str))?;
        if first == last { write!(f, "={first}") } else { write!(f, "={first}-{last}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_their_client() {
        let name = |text: &str| text.parse::<ClientName>().unwrap();
        let one: MayPublish = "laptop=8080".parse().unwrap();
        assert!(one.lets(Some(&name("laptop")), 8080));
        assert!(!one.lets(Some(&name("laptop")), 8081));
        assert!(!one.lets(Some(&name("phone")), 8080) && !one.lets(None, 8080));
        let all: MayPublish = "*=9000-9010".parse().unwrap();
        assert!(all.lets(None, 9000) && all.lets(Some(&name("phone")), 9010) && !all.lets(None, 9011));
        for text in ["laptop=8080", "*=9000-9010"] {
            assert_eq!(text.parse::<MayPublish>().unwrap().to_string(), text);
        }
        for text in ["", "laptop", "laptop=", "=80", "laptop=0", "laptop=9-8", "laptop=1-70000", "a b=80"] {
            assert_eq!(text.parse::<MayPublish>(), Err(NotPorts), "{text}");
        }
    }
}
