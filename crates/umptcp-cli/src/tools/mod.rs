//! Tools that speak to a running instance.

mod endpoint;
mod monitor;
mod nstat;
mod ss;
mod steer;
mod top;
mod words;

use crate::args::tools::InstanceArgs;
use crate::console::print;
use crate::failure::Class;
use anyhow::Context as _;
use serde::Serialize;
use umptcp_control::{Client, Code, ControlError, directory};

pub(crate) use endpoint::{endpoint, limits};
pub(crate) use monitor::monitor;
pub(crate) use nstat::nstat;
pub(crate) use ss::ss;
pub(crate) use steer::{path, set, subflow};
pub(crate) use top::top;

/// Connects to the instance that is meant.
fn connect(args: &InstanceArgs) -> anyhow::Result<Client> {
    let connected =
        directory::choose(args.instance.as_deref()).and_then(|found| Client::connect(&found.socket));
    connected.map_err(failed)
}

/// An error with its class.
fn failed(error: ControlError) -> anyhow::Error {
    let class = match &error {
        ControlError::Several { .. } | ControlError::BadName { .. } => Class::Usage,
        ControlError::Refused(failure) => match failure.code {
            Code::BadParameters => Class::Usage,
            Code::Denied => Class::Host,
            _ => Class::Other,
        },
        ControlError::Ended => Class::Connection,
        _ => Class::Host,
    };
    class.failure(error.to_string()).into()
}

/// Prints what is for programs.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&serde_json::to_string(value).context("cannot write JSON")?)
}

/// Prints lines, if there are any.
fn print_lines(lines: &[String]) -> anyhow::Result<()> {
    if lines.is_empty() { Ok(()) } else { print(&lines.join("\n")) }
}
