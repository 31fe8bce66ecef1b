//! The sections about relays: `[relay]`, which makes this host one, and `[via]`, which uses one.

use super::nets;
use super::values::{Bytes, Text};
use crate::args::Publish;
use crate::args::{HostPort, ListenAddress};
use crate::transport::via;
use ipnet::IpNet;
use serde::Deserialize;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use toml::Spanned;
use umptcp::Via;
use umptcp_lab::{LabError, Source};
use umptcp_relay::{Credential, Destinations, Limits, MayPublish, is_open_to_all};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RelayText {
    at: Option<Text<ListenAddress>>,
    keys: Option<Spanned<PathBuf>>,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    allow: Vec<Text<IpNet>>,
    #[serde(default)]
    deny: Vec<Text<IpNet>>,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    publish: Vec<Text<MayPublish>>,
    #[serde(default)]
    limits: LimitsText,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LimitsText {
    connections: Option<u32>,
    rate: Option<u32>,
    bytes_per_day: Option<Text<Bytes>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct ViaText {
    relay: Spanned<Text<HostPort>>,
    key: Option<PathBuf>,
    #[serde(default)]
    except: Vec<Text<IpNet>>,
    #[serde(default)]
    resolve: bool,
    #[serde(default)]
    pub(super) publish: Vec<Text<Publish>>,
}

/// A relay.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) at: ListenAddress,
    /// Who may use it; `None`: everybody.
    pub(crate) clients: Option<Vec<Credential>>,
    /// Where connections may go.
    pub(crate) destinations: Destinations,
    /// Who may have which ports, for connections that come in there.
    pub(crate) publish: Vec<MayPublish>,
    /// What each client may use.
    pub(crate) limits: Limits,
}

impl Relay {
    /// One line on it.
    pub(crate) fn describe(&self) -> String {
        let who = match &self.clients {
            Some(clients) if clients.len() == 1 => "1 client".to_owned(),
            Some(clients) => format!("{} clients", clients.len()),
            None => "everybody".to_owned(),
        };
        format!("relay at {} for {who}", self.at)
    }
}

/// The clients in a file of keys.
///
/// # Errors
/// What is wrong with it, with its line.
pub(crate) fn read_keys(file: &Path) -> Result<Vec<Credential>, String> {
    let name = file.display();
    let read = || -> std::io::Result<(String, bool)> {
        let mut open = std::fs::File::open(file)?;
        let mut text = String::new();
        open.read_to_string(&mut text)?;
        Ok((text, is_open_to_all(&open)?))
    };
    let (text, open) = read().map_err(|error| format!("cannot read {name}: {error}"))?;
    if open {
        tracing::warn!("everybody on this host may read the keys in {name}: chmod 640 {name}");
    }
    let all = Credential::read_all(&text).map_err(|error| format!("{name}: {error}"))?;
    if all.is_empty() {
        return Err(format!("{name} has no client; `umptcp relay key NAME >> {name}` adds one"));
    }
    Ok(all)
}

/// A relay that serves everybody is a danger to others: it must be said.
pub(super) fn checked_relay(source: &Source<'_>, text: Spanned<RelayText>) -> Result<Relay, LabError> {
    let span = text.span();
    let RelayText { at, keys, open, allow, deny, ports, publish, limits } = text.into_inner();
    let clients = match keys {
        Some(file) if !open => {
            Some(read_keys(file.get_ref()).map_err(|error| source.at(file.span(), error))?)
        }
        None if open => None,
        _ => {
            let message = "expected keys = \"FILE\", whose clients may use it, or open = true for everybody";
            return Err(source.at(span, message));
        }
    };
    let defaults = Limits::default();
    Ok(Relay {
        at: at.map_or(ListenAddress { address: None, port: umptcp_relay::PORT }, |at| at.0),
        clients,
        destinations: Destinations { allow: nets(&allow), deny: nets(&deny), ports },
        publish: publish.into_iter().map(|text| text.0).collect(),
        limits: Limits {
            connections: limits.connections.unwrap_or(defaults.connections),
            rate: limits.rate.unwrap_or(defaults.rate),
            bytes: limits.bytes_per_day.map(|bytes| bytes.0.0),
        },
    })
}

pub(super) fn checked_via(source: &Source<'_>, text: &ViaText) -> Result<Via, LabError> {
    let failed = |error: String| source.at(text.relay.span(), error);
    let at = text.relay.get_ref().0.with(None, Some(umptcp_relay::PORT)).map_err(failed)?;
    let via = via::new(at, text.key.as_deref(), &nets(&text.except));
    via.map(|via| via.resolve(text.resolve)).map_err(|error| failed(format!("{error:#}")))
}
