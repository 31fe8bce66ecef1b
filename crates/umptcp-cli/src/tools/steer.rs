//! `path`, `subflow` and `set`.

use super::{connect, failed, print_json, print_lines};
use crate::args::tools::{
    InstanceArgs, PathAction, PathToolArgs, SetArgs, SetWhat, SubflowAction, SubflowArgs,
};
use crate::console::print;
use crate::failure::{Class, usage};
use serde::Serialize;
use umptcp_control::Client;
use umptcp_control::call::{
    AddPath, Call, CloseSubflow, ListConnections, ListPaths, OpenSubflow, RemovePath, SetAlgorithms,
};
use umptcp_control::state::Path;

pub(crate) fn path(args: &PathToolArgs) -> anyhow::Result<()> {
    let json = args.instance.json;
    match &args.action {
        PathAction::Add { path } => {
            let path = connect(&args.instance)?.call(&AddPath { path: path.clone() }).map_err(failed)?;
            if json { print_json(&path) } else { print(&path_line(&path)) }
        }
        PathAction::Remove { path } => done(&args.instance, &RemovePath { path: path.clone() }),
        PathAction::Show => {
            let list = connect(&args.instance)?.call(&ListPaths {}).map_err(failed)?;
            if json {
                return print_json(&list);
            }
            let shown = list.paths.iter().filter(|p| !p.captured);
            print_lines(&shown.map(path_line).collect::<Vec<_>>())
        }
    }
}

fn path_line(path: &Path) -> String {
    let addresses: Vec<String> = path.addresses.iter().map(ToString::to_string).collect();
    let backup = if path.backup { " backup" } else { "" };
    format!(
        "{} {}{backup} bytes_sent:{} bytes_received:{}",
        path.name,
        addresses.join(" "),
        path.bytes_sent,
        path.bytes_received
    )
}

pub(crate) fn subflow(args: &SubflowArgs) -> anyhow::Result<()> {
    let (SubflowAction::Add { connection, .. } | SubflowAction::Close { connection, .. }) = &args.action;
    let which = Connection::read(connection)?;
    let mut client = connect(&args.instance)?;
    let connection = which.find(&mut client)?;
    let done = match &args.action {
        SubflowAction::Add { path, to, .. } => {
            client.call(&OpenSubflow { connection, path: path.clone(), remote: *to })
        }
        SubflowAction::Close { subflow, .. } => client.call(&CloseSubflow { connection, subflow: *subflow }),
    };
    let done = done.map_err(failed)?;
    if args.instance.json { print_json(&done) } else { Ok(()) }
}

pub(crate) fn set(args: &SetArgs) -> anyhow::Result<()> {
    let mut call = SetAlgorithms { only_new: args.only_new, ..SetAlgorithms::default() };
    match &args.what {
        SetWhat::Scheduler { name } => call.scheduler = Some(name.clone()),
        SetWhat::Congestion { name } => call.congestion = Some(name.clone()),
        SetWhat::PathPolicy { name } => call.path_policy = Some(name.clone()),
        SetWhat::Enabled { on } => call.enabled = Some(*on),
    }
    let changed = connect(&args.instance)?.call(&call).map_err(failed)?;
    if args.instance.json {
        return print_json(&changed);
    }
    if let SetWhat::Enabled { on } = args.what {
        return print(if on { "new connections ask for MPTCP" } else { "new connections are plain TCP" });
    }
    match (args.only_new, changed.connections) {
        (true, _) => print("new connections will use it"),
        (false, 1) => print("1 connection uses it now, and new ones will"),
        (false, n) => print(&format!("{n} connections use it now, and new ones will")),
    }
}

/// Makes a call that has nothing to tell.
fn done<C: Call<Reply: Serialize>>(instance: &InstanceArgs, call: &C) -> anyhow::Result<()> {
    let reply = connect(instance)?.call(call).map_err(failed)?;
    if instance.json { print_json(&reply) } else { Ok(()) }
}

/// Which connection is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Connection {
    Number(u64),
    Token(u32),
}

impl Connection {
    fn read(text: &str) -> anyhow::Result<Connection> {
        let bad = || usage(format!("{text:?} is no connection: use its number in `umptcp ss`, or token:HEX"));
        match text.strip_prefix("token:") {
            Some(hex) => u32::from_str_radix(hex, 16).map(Connection::Token).map_err(|_| bad()),
            None => text.parse().map(Connection::Number).map_err(|_| bad()),
        }
    }

    fn find(self, client: &mut Client) -> anyhow::Result<u64> {
        let token = match self {
            Connection::Number(number) => return Ok(number),
            Connection::Token(token) => token,
        };
        let all = client.call(&ListConnections {}).map_err(failed)?.connections;
        let found = all.iter().find(|c| c.token == Some(token)).map(|c| c.id);
        found.ok_or_else(|| Class::Other.failure(format!("no connection has the token {token:08x}")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_named_by_number_or_token() {
        assert_eq!(Connection::read("7").unwrap(), Connection::Number(7));
        assert_eq!(Connection::read("token:d62e3d83").unwrap(), Connection::Token(0xd62e_3d83));
        for bad in ["", "-1", "token:", "token:xyz", "d62e3d83"] {
            assert!(Connection::read(bad).is_err(), "{bad}");
        }
    }
}
