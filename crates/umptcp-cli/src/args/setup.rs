//! Arguments of `setup`.

use clap::Args;

/// Let the members of a group use umptcp without being root; or take that back.
///
/// Makes the group, installs this program (as /usr/local/bin/umptcp, unless it is below /usr or /opt already),
/// tells the daemon of the group, and adds its unit for systemd. Members of the group run programs by the daemon
/// (`umptcp run`). Without --daemon-only they may also change this host's network (CAP_NET_ADMIN), which listen,
/// connect and bench take; then the program is for root and the members only. Calling it again does what is
/// missing. What it has done is in /etc/umptcp/setup.json.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  umptcp setup --dry-run                      what it would do
  sudo umptcp setup
  sudo usermod -aG umptcp alice               alice may, from the next login on
  sudo umptcp setup --undo")]
pub(crate) struct SetupArgs {
    /// The group; made if there is none of that name.
    #[arg(long, value_name = "NAME", default_value = "umptcp")]
    pub(crate) group: String,
    /// Members run programs by the daemon, and get no privilege: the program's file has no capability.
    #[arg(long, conflicts_with = "undo")]
    pub(crate) daemon_only: bool,
    /// Take back everything that setup has done.
    #[arg(long)]
    pub(crate) undo: bool,
    /// Change nothing; say what would be done.
    #[arg(long)]
    pub(crate) dry_run: bool,
}
