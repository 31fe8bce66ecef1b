//! What was seen, in words.

use super::{Join, Later, Syn, Way};
use umptcp_stack_core::wire::mptcp::ResetReason;

/// What something does, and which way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Text {
    pub(in super::super) what: String,
    pub(in super::super) way: Way,
}

impl Text {
    fn new(way: Way, what: impl Into<String>) -> Option<Text> {
        Some(Text { what: what.into(), way })
    }
}

impl Way {
    fn words(self) -> &'static str {
        match self {
            Way::ToServer => "on the way to the server (whether also on the way back cannot be told)",
            Way::FromServer => "on the way from the server",
            Way::Untold => "which way cannot be told",
        }
    }
}

/// What is wrong in the handshake. `speaks`: by another path, the server speaks MPTCP.
pub(in super::super) fn of_syn(syn: Syn, speaks: bool) -> Option<Text> {
    match syn {
        Syn::Passes | Syn::Unreached => None,
        Syn::Plain(Way::FromServer) if !speaks => Text::new(
            Way::FromServer,
            "the SYN/ACK has no MPTCP option, though the server knows MPTCP: it refuses a join that it does not know. Something on \
             every path takes the option out on the way from the server, or its program does without",
        ),
        Syn::Plain(Way::FromServer) => Text::new(
            Way::FromServer,
            "something on this path takes the MPTCP option out of the SYN/ACK, on the way from the server: it refuses a \
             join that it does not know, so it speaks MPTCP, and what is sent reaches it",
        ),
        Syn::Plain(Way::ToServer) if speaks => Text::new(
            Way::ToServer,
            format!(
                "something on this path takes the MPTCP option out of the SYN, {}: by another path the server speaks MPTCP",
                Way::ToServer.words()
            ),
        ),
        Syn::Plain(_) if speaks => Text::new(
            Way::Untold,
            "something on this path takes the MPTCP option out of the SYN or the SYN/ACK, which cannot be told: by another path \
             the server speaks MPTCP",
        ),
        Syn::Plain(_) => None,
        Syn::Changed => Text::new(
            Way::Untold,
            "something on this path changes the MPTCP option in the handshake: the SYN/ACK has one that no server may send \
             (RFC 8684 section 3.1); which way cannot be told",
        ),
        Syn::Dropped(way) => {
            let what = match way {
                Way::FromServer => "SYN/ACKs",
                _ => "SYNs",
            };
            Text::new(
                way,
                format!("something on this path drops {what} with the MPTCP option, {}", way.words()),
            )
        }
    }
}

/// What is wrong after the handshake.
pub(in super::super) fn of_later(later: Later) -> Option<Text> {
    match later {
        Later::Untried | Later::Passes | Later::Silence => None,
        Later::Stripped(way) => Text::new(
            way,
            format!("something on this path takes MPTCP options out after the handshake, {}", way.words()),
        ),
        Later::StrippedFromData(way) => Text::new(
            way,
            format!(
                "something on this path takes MPTCP options out after the handshake, of segments with data, {}",
                way.words()
            ),
        ),
        Later::Rewritten(Way::ToServer) => Text::new(Way::ToServer, REWRITTEN_UP),
        Later::Rewritten(way) => Text::new(way, REWRITTEN_DOWN),
        Later::Reset(reason) => Text::new(
            Way::Untold,
            format!(
                "the server, or something on this path, resets connections after the handshake{}; which cannot be told",
                because(reason)
            ),
        ),
    }
}

/// What is sent arrives otherwise.
pub(in super::super) const REWRITTEN_UP: &str = "something on this path rewrites what is sent, on the way to the server: to it, the checksum of the data is wrong";

/// What the server sends arrives otherwise.
pub(in super::super) const REWRITTEN_DOWN: &str = "something on this path rewrites what is sent, on the way from the server: the checksum of its data is wrong";

/// The reason of a reset.
fn because(reason: Option<u8>) -> String {
    let Some(reason) = reason else { return String::new() };
    let words = match ResetReason::from(reason) {
        ResetReason::Unspecified => "no reason",
        ResetReason::MptcpSpecific => "an error of MPTCP",
        ResetReason::LackOfResources => "lack of resources",
        ResetReason::Prohibited => "administratively prohibited",
        ResetReason::TooMuchOutstandingData => "too much outstanding data",
        ResetReason::UnacceptablePerformance => "unacceptable performance",
        ResetReason::MiddleboxInterference => "a middlebox interferes",
        ResetReason::Unknown(_) => "an unknown reason",
    };
    format!(" (it says: {words})")
}

/// What is wrong with joins by a path, and what mends it. `elsewhere`: by another path the server takes them.
pub(in super::super) fn of_join(join: Join, elsewhere: bool) -> Option<(Text, &'static str)> {
    const PATH: &str = "ask who runs that network to let TCP option 30 pass, of all subtypes";
    const LIMITS: &str =
        "on a Linux server: `ip mptcp limits set subflow 8`; on umptcp: `umptcp limits set subflows 8`";
    let text = match join {
        Join::Works | Join::Untried => return None,
        Join::Plain(Way::FromServer) => Text::new(
            Way::FromServer,
            "something on this path takes the option of joins out of the SYN/ACK, on the way from the server",
        ),
        Join::Plain(Way::ToServer) => Text::new(
            Way::ToServer,
            format!("something on this path takes the option out of joins, {}", Way::ToServer.words()),
        ),
        Join::Plain(Way::Untold) => Text::new(
            Way::Untold,
            "something on this path takes the option out of joins; which way cannot be told",
        ),
        Join::Dropped => Text::new(
            Way::Untold,
            "something on this path drops joins, or the answers to them; which way cannot be told",
        ),
        Join::ThirdRefused(_) if elsewhere => Text::new(
            Way::ToServer,
            "something on this path takes the option out of the third ACK of joins, on the way to the server, which refuses them for it",
        ),
        Join::ThirdUnanswered => Text::new(
            Way::Untold,
            "the third ACK of joins by this path is not answered; which way it, or the answer, is lost cannot be told",
        ),
        Join::Refused(_) if elsewhere => {
            let what = "joins by this path are refused, and by others they are not: a firewall, or a load balancer that \
                        leads them to another server";
            return Text::new(Way::Untold, what).map(|text| {
                (text, "have joins led to the server of their connection, or leave the path out")
            });
        }
        Join::Refused(reason) | Join::ThirdRefused(reason) => {
            let what = format!("the server refuses joins by any path{}: its limits", because(reason));
            return Text::new(Way::Untold, what).map(|text| (text, LIMITS));
        }
        Join::Wrong => Text::new(
            Way::Untold,
            "the answer to a join by this path does not fit its connection: something changes the option, or another server answers",
        ),
        Join::Forbidden => {
            let what = "the server accepts no joins to the address and port that it was reached at (the C flag of MP_CAPABLE)";
            return Text::new(Way::Untold, what).map(|text| {
                (text, "have it advertise another address: `ip mptcp endpoint add ADDRESS signal`")
            });
        }
    };
    text.map(|text| (text, PATH))
}
