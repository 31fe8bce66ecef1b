//! What is published at a relay, as the command line and files have it.

use super::values::HostPort;
use std::str::FromStr;

/// A port of the relay, and the service to which it leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Publish {
    /// The relay's.
    pub(crate) port: u16,
    /// Where the service is.
    pub(crate) host: String,
    /// The service's port.
    pub(crate) service: u16,
    /// Whether the service is told who comes, by the PROXY protocol.
    pub(crate) proxy_protocol: bool,
}

impl Publish {
    pub(crate) const EXPECTED: &'static str = "a port of the relay and a service: 8080, \"8080=127.0.0.1:80\" or \"8080=127.0.0.1:80,proxy-protocol\"";
}

impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let failed = || format!("{text:?}: expected {}", Publish::EXPECTED);
        let (both, proxy_protocol) = match text.strip_suffix(",proxy-protocol") {
            Some(both) => (both, true),
            None => (text, false),
        };
        let (port, to) = both.split_once('=').map_or((both, None), |(port, to)| (port, Some(to)));
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(failed)?;
        let (host, service) = match to {
            None => ("127.0.0.1".to_owned(), port),
            Some(to) => {
                let to: HostPort = to.parse().map_err(|_| failed())?;
                let (host, service) = to.with(None, None).map_err(|_| failed())?;
                (host.to_owned(), service)
            }
        };
        if service == 0 {
            return Err(failed());
        }
        Ok(Publish { port, host, service, proxy_protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read() {
        let of = |text: &str| {
            text.parse::<Publish>()
                .map(|p| format!("{} {}:{} {}", p.port, p.host, p.service, p.proxy_protocol))
        };
        for (text, publish) in [
            ("8080", "8080 127.0.0.1:8080 false"),
            ("8080,proxy-protocol", "8080 127.0.0.1:8080 true"),
            ("8080=web:80", "8080 web:80 false"),
            ("8080=[::1]:80,proxy-protocol", "8080 ::1:80 true"),
        ] {
            assert_eq!(of(text).unwrap(), publish);
        }
        for text in ["", "0", "web:80", "8080=", "8080=web", "8080=web:0", "8080=web:80,proxy", "70000"] {
            assert!(of(text).unwrap_err().contains("expected a port"), "{text}");
        }
    }
}
