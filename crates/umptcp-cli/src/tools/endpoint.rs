//! `endpoint` and `limits`, in the words and formats of `ip mptcp`.

use super::words::{Words, unknown};
use super::{connect, failed, print_json, print_lines};
use crate::args::tools::{EndpointAction, EndpointArgs, LimitsAction, LimitsArgs};
use crate::console::{print, say};
use crate::failure::{Class, usage};
use std::net::IpAddr;
use umptcp::Uses;
use umptcp_control::Client;
use umptcp_control::call::{
    AddEndpoint, ChangeEndpoint, DeleteEndpoint, FlushEndpoints, GetLimits, ListEndpoints, ListWarnings,
    SetLimits,
};
use umptcp_control::state::{Endpoint, Limits};
use umptcp_tun_driver::paths::check_uses;

pub(crate) fn endpoint(args: &EndpointArgs) -> anyhow::Result<()> {
    let json = args.instance.json;
    match &args.action {
        EndpointAction::Add { address, words } => {
            let call = added(*address, words)?;
            let mut client = connect(&args.instance)?;
            let endpoint = client.call(&call).map_err(failed)?;
            warn(&mut client);
            if json { print_json(&endpoint) } else { Ok(()) }
        }
        EndpointAction::Delete { words } => {
            let (which, rest) = Which::read(words)?;
            // `ip mptcp endpoint delete id 0 ADDRESS` names the initial subflow's, which has no number here.
            let which = match (which, rest) {
                (which, []) => which,
                (Which::Id(0), [address]) => Which::read(std::slice::from_ref(address))?.0,
                (_, [word, ..]) => return Err(unknown(word, "id N")),
            };
            let mut client = connect(&args.instance)?;
            let id = which.find(&mut client)?.id;
            client.call(&DeleteEndpoint { id }).map_err(failed)?;
            Ok(())
        }
        EndpointAction::Change { words } => {
            let (which, rest) = Which::read(words)?;
            let mut call = changed(rest)?;
            let mut client = connect(&args.instance)?;
            call.id = which.find(&mut client)?.id;
            let endpoint = client.call(&call).map_err(failed)?;
            warn(&mut client);
            if json { print_json(&endpoint) } else { Ok(()) }
        }
        EndpointAction::Show { words } => {
            let which = if words.is_empty() { None } else { Some(Which::read(words)?.0) };
            let mut client = connect(&args.instance)?;
            let endpoints = match which {
                Some(which) => vec![which.find(&mut client)?],
                None => client.call(&ListEndpoints {}).map_err(failed)?.endpoints,
            };
            if json {
                return print_json(&endpoints);
            }
            print_lines(&endpoints.iter().map(line).collect::<Vec<_>>())
        }
        EndpointAction::Flush => {
            connect(&args.instance)?.call(&FlushEndpoints {}).map_err(failed)?;
            Ok(())
        }
    }
}

pub(crate) fn limits(args: &LimitsArgs) -> anyhow::Result<()> {
    match &args.action {
        LimitsAction::Show => {
            let limits = connect(&args.instance)?.call(&GetLimits {}).map_err(failed)?;
            if args.instance.json { print_json(&limits) } else { print(&limits_line(&limits)) }
        }
        LimitsAction::Set { words } => {
            let call = set(words)?;
            let mut client = connect(&args.instance)?;
            let limits = client.call(&call).map_err(failed)?;
            warn(&mut client);
            if args.instance.json { print_json(&limits) } else { Ok(()) }
        }
    }
}

fn limits_line(limits: &Limits) -> String {
    // The space at the end is that of `ip`.
    format!("add_addr_accepted {} subflows {} ", limits.add_addr_accepted, limits.subflows)
}

/// Says what will not happen, where somebody may expect it. An older instance does not know.
fn warn(client: &mut Client) {
    let said = client.call(&ListWarnings {}).map(|reply| reply.warnings).unwrap_or_default();
    said.iter().for_each(|warning| say(&format!("warning: {warning}")));
}

fn set(words: &[String]) -> anyhow::Result<SetLimits> {
    let (mut call, mut words) = (SetLimits::default(), Words::new(words));
    while let Some(word) = words.next() {
        match word {
            "subflows" | "subflow" => call.subflows = Some(words.value(word)?),
            "add_addr_accepted" => call.add_addr_accepted = Some(words.value(word)?),
            _ => return Err(unknown(word, "subflows N, add_addr_accepted N")),
        }
    }
    Ok(call)
}

fn changed(words: &[String]) -> anyhow::Result<ChangeEndpoint> {
    let mut call = ChangeEndpoint::default();
    if words.is_empty() {
        return Err(usage("change what? Say backup, nobackup, fullmesh or nofullmesh"));
    }
    for word in words {
        match word.as_str() {
            "backup" => call.backup = Some(true),
            "nobackup" => call.backup = Some(false),
            "fullmesh" => call.fullmesh = Some(true),
            "nofullmesh" => call.fullmesh = Some(false),
            _ => return Err(unknown(word, "backup, nobackup, fullmesh, nofullmesh")),
        }
    }
    Ok(call)
}

fn added(address: IpAddr, words: &[String]) -> anyhow::Result<AddEndpoint> {
    let mut call = AddEndpoint { address: Some(address), ..AddEndpoint::default() };
    let mut words = Words::new(words);
    while let Some(word) = words.next() {
        match word {
            "dev" => call.dev = Some(words.value(word)?),
            "backup" => call.backup = true,
            "signal" => call.signal = true,
            "subflow" => call.subflow = true,
            "fullmesh" => call.fullmesh = true,
            "laminar" => call.laminar = true,
            "id" => call.id = Some(words.number(word, u8::MAX)?),
            "port" => call.port = Some(words.number(word, u16::MAX)?),
            _ => {
                return Err(unknown(
                    word,
                    "dev NIC, id N, port N, signal, subflow, backup, fullmesh, laminar",
                ));
            }
        }
    }
    let uses = Uses::of_words(call.signal, call.subflow, call.fullmesh, call.laminar);
    check_uses(uses, call.port).map_err(usage)?;
    Ok(call)
}

/// Which endpoint is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Which {
    Id(u32),
    Address(IpAddr),
}

impl Which {
    /// What the first words name, and the rest of them.
    fn read(words: &[String]) -> anyhow::Result<(Which, &[String])> {
        match words {
            [id, number, rest @ ..] if id == "id" => {
                let number = number.parse().map_err(|e| usage(format!("id {number}: {e}")))?;
                Ok((Which::Id(number), rest))
            }
            [address, rest @ ..] => match address.parse() {
                Ok(address) => Ok((Which::Address(address), rest)),
                Err(_) => Err(unknown(address, "id N, or an address")),
            },
            [] => Err(usage("which endpoint? Say id N, or its address")),
        }
    }

    fn find(self, client: &mut Client) -> anyhow::Result<Endpoint> {
        let all = client.call(&ListEndpoints {}).map_err(failed)?.endpoints;
        let (found, what) = match self {
            Which::Id(id) => (all.into_iter().find(|e| e.id == id), format!("id {id}")),
            Which::Address(a) => (all.into_iter().find(|e| e.address == a), format!("the address {a}")),
        };
        found.ok_or_else(|| Class::Other.failure(format!("there is no endpoint with {what}")).into())
    }
}

/// An endpoint as `ip mptcp endpoint show` prints it, with a space at the end.
fn line(e: &Endpoint) -> String {
    let mut s = format!("{} id {} ", e.address, e.id);
    let words = [
        (e.signal, "signal "),
        (e.subflow, "subflow "),
        (e.backup, "backup "),
        (e.fullmesh, "fullmesh "),
        (e.laminar, "laminar "),
    ];
    for (holds, word) in words {
        if holds {
            s.push_str(word);
        }
    }
    if let Some(port) = e.port {
        s.push_str(&format!("port {port} "));
    }
    s + &format!("dev {} ", e.dev)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn looks_like_ip_mptcp() {
        let address = [192, 168, 140, 232].into();
        let mut e = Endpoint {
            address,
            id: 3,
            signal: false,
            subflow: true,
            backup: true,
            fullmesh: false,
            laminar: false,
            port: None,
            dev: "c1".into(),
        };
        assert_eq!(line(&e), "192.168.140.232 id 3 subflow backup dev c1 ");
        let expected = r#"[{"address":"192.168.140.232","id":3,"subflow":true,"backup":true,"dev":"c1"}]"#;
        assert_eq!(serde_json::to_string(&[&e]).unwrap(), expected);
        (e.signal, e.backup) = (true, false);
        assert_eq!(line(&e), "192.168.140.232 id 3 signal subflow dev c1 ");
        (e.signal, e.fullmesh) = (false, true);
        assert_eq!(line(&e), "192.168.140.232 id 3 subflow fullmesh dev c1 ");
        (e.signal, e.subflow, e.fullmesh, e.port) = (true, false, false, Some(8443));
        assert_eq!(line(&e), "192.168.140.232 id 3 signal port 8443 dev c1 ");
        assert_eq!(
            limits_line(&Limits { add_addr_accepted: 4, subflows: 4 }),
            "add_addr_accepted 4 subflows 4 "
        );
    }

    #[test]
    fn words_of_ip_are_taken_and_what_cannot_be_is_an_error() {
        let a: IpAddr = [10, 0, 0, 1].into();
        let call = added(a, &words("dev eth1 subflow backup")).unwrap();
        let expected = AddEndpoint { address: Some(a), dev: Some("eth1".into()), ..AddEndpoint::default() };
        assert_eq!(call, AddEndpoint { backup: true, subflow: true, ..expected });
        let call = added(a, &words("laminar fullmesh")).unwrap();
        assert!(!call.signal && call.laminar && call.fullmesh && !call.subflow);
        let call = added(a, &words("id 255 signal port 8443")).unwrap();
        assert_eq!((call.id, call.port, call.signal), (Some(255), Some(8443), true));
        let call = changed(&words("nobackup fullmesh")).unwrap();
        assert_eq!((call.backup, call.fullmesh), (Some(false), Some(true)));
        assert!(changed(&[]).is_err() && changed(&words("signal")).is_err());
        for (text, part) in [
            ("dev", "needs a value"),
            ("id 0", "1 to 255"),
            ("id 256", "1 to 255"),
            ("id x", "1 to 255"),
            ("signal port 0", "1 to 65535"),
            ("signal port 65536", "1 to 65535"),
            ("port 80", "takes signal"),
            ("signal subflow port 80", "neither subflow"),
            ("signal fullmesh", "exclude each other"),
            ("implicit", "unknown word"),
        ] {
            assert!(added(a, &words(text)).unwrap_err().to_string().contains(part), "{text}");
        }
        let call = set(&words("subflow 4 add_addr_accepted 2")).unwrap();
        assert_eq!((call.subflows, call.add_addr_accepted), (Some(4), Some(2)));
        for bad in ["subflows", "subflows x", "subflows -1", "endpoints 3"] {
            assert!(set(&words(bad)).is_err(), "{bad}");
        }
        assert_eq!(Which::read(&words("id 3 backup")).unwrap().0, Which::Id(3));
        assert_eq!(Which::read(&words("10.0.0.1 backup")).unwrap().0, Which::Address(a));
        for bad in ["", "id", "id x", "eth0"] {
            assert!(Which::read(&words(bad)).is_err(), "{bad}");
        }
    }
}
