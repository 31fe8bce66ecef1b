//! The relay that the command line names.

use crate::args::ViaArgs;
use crate::failure::{Class, usage};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use umptcp::Via;

/// Where this client's key is when no file is given.
const FILES: [&str; 1] = ["/etc/umptcp/relay.key"];

/// The relay, with this client's key.
///
/// # Errors
/// When its name has no address, or the key cannot be used.
pub(crate) fn of(args: &ViaArgs) -> anyhow::Result<Option<Via>> {
    let Some(relay) = &args.via else { return Ok(None) };
    let at = relay.with(None, Some(umptcp_relay::PORT)).map_err(usage)?;
    let key = args.via_key.clone().or_else(|| key_files().into_iter().find(|file| file.exists()));
    Ok(Some(new(at, key.as_deref(), &args.via_except)?.resolve(args.via_resolve)))
}

/// `--via-resolve` would do nothing.
///
/// # Errors
/// When it is given.
pub(crate) fn refuse_resolve(args: &ViaArgs, what: &str, why: &str) -> anyhow::Result<()> {
    if args.via_resolve {
        return Err(usage(format!("--via-resolve does nothing for `umptcp {what}`: {why}")));
    }
    Ok(())
}

/// A relay of this name and port.
///
/// # Errors
/// As for [`of`].
pub(crate) fn new(
    (host, port): (&str, u16),
    key: Option<&Path>,
    except: &[ipnet::IpNet],
) -> anyhow::Result<Via> {
    let via = Via::new((host, port))
        .with_context(|| Class::Name.failure(format!("cannot resolve the relay {host:?}")))?
        .except(except.iter().copied());
    match key {
        Some(file) => via.key_file(file).with_context(|| {
            Class::Usage.failure(format!("cannot use the key of the relay in {}", file.display()))
        }),
        None => Ok(via),
    }
}

fn key_files() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let config = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(home?).join(".config")));
    config.map(|dir| dir.join("umptcp/relay.key")).into_iter().chain(FILES.map(PathBuf::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_would_resolve_nothing_is_refused() {
        let resolve = ViaArgs { via_resolve: true, ..ViaArgs::default() };
        let error = refuse_resolve(&resolve, "run", "why").unwrap_err().to_string();
        assert!(error.contains("--via-resolve") && error.contains("run"), "{error}");
        assert!(refuse_resolve(&ViaArgs::default(), "run", "why").is_ok());
    }
}
