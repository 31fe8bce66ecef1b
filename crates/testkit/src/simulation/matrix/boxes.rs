//! The boxes of the matrix.

use super::harness::{Boxes, MIDDLE, Whose};
use umptcp_netsim::Duration;
use umptcp_netsim::middlebox::{
    AcknowledgingProxy, Aim, Duplicate, DuplicateOptions, InjectReset, JoinSegments, Middlebox, Nat, OneWay,
    Options, RandomiseSequence, Reorder, RewritePayload, Since, SplitSegments, StripMptcp, StripWhere,
};
use umptcp_stack_core::wire::mptcp::subtype;

/// The box `b` on the packets of `whose`.
fn on(whose: Whose, b: impl Middlebox + Clone + 'static) -> Boxes {
    let one_way = |direction| Box::new(OneWay { direction, inner: b.clone() }) as Box<dyn Middlebox>;
    match whose {
        Whose::All => vec![Box::new(b)],
        _ => whose.directions().into_iter().map(one_way).collect(),
    }
}

/// A box that must see both directions, per direction it acts on.
fn each<M: Middlebox + 'static>(whose: Whose, b: impl Fn(umptcp_netsim::Direction) -> M) -> Boxes {
    whose.directions().into_iter().map(|d| Box::new(b(d)) as Box<dyn Middlebox>).collect()
}

pub(super) fn strip(which: StripWhere) -> impl Fn(Whose) -> Boxes {
    move |whose| on(whose, StripMptcp::new(which))
}

pub(super) fn strip_subtype(number: u8) -> impl Fn(Whose) -> Boxes {
    move |whose| on(whose, StripMptcp { which: StripWhere::AfterSyn, ..StripMptcp::subtype(number) })
}

pub(super) fn strip_join(whose: Whose) -> Boxes {
    on(whose, StripMptcp::subtype(subtype::MP_JOIN))
}

pub(super) fn strip_later(whose: Whose) -> Boxes {
    let inner = StripMptcp::new(StripWhere::Everything);
    let since = |direction| {
        Box::new(OneWay { direction, inner: Since { at: MIDDLE, inner: inner.clone() } })
            as Box<dyn Middlebox>
    };
    whose.directions().into_iter().map(since).collect()
}

pub(super) fn nat(_: Whose) -> Boxes {
    vec![Box::new(Nat::new())]
}

pub(super) fn nat_rebinding(_: Whose) -> Boxes {
    vec![Box::new(Nat::new().rebinding(MIDDLE))]
}

pub(super) fn randomise(_: Whose) -> Boxes {
    vec![Box::new(RandomiseSequence::new(99))]
}

pub(super) fn split(options: Options) -> impl Fn(Whose) -> Boxes {
    move |whose| on(whose, SplitSegments::new(500, options))
}

pub(super) fn join(options: Options) -> impl Fn(Whose) -> Boxes {
    // The stack's segments have 1,428 bytes and less, 1,408 with IPv6; with 1,460 only small ones are joined,
    // so they are cut first.
    move |whose| {
        let mut boxes = on(whose, SplitSegments::new(600, Options::Copied));
        boxes.extend(each(whose, |direction| OneWay {
            direction,
            inner: JoinSegments::new(1_300, Duration::from_millis(2), options),
        }));
        boxes
    }
}

pub(super) fn rewrite(remove: u32, insert: &'static [u8]) -> impl Fn(Whose) -> Boxes {
    move |whose| each(whose, |direction| RewritePayload::new(direction, 50_000, remove, insert))
}

pub(super) fn proxy(swallow_from: u32) -> impl Fn(Whose) -> Boxes {
    move |whose| each(whose, |direction| AcknowledgingProxy::new(direction, swallow_from))
}

pub(super) fn duplicate_options(whose: Whose) -> Boxes {
    on(whose, DuplicateOptions::default())
}

pub(super) fn reset(aim: Aim) -> impl Fn(Whose) -> Boxes {
    move |whose| each(whose, |direction| InjectReset::new(direction, aim, 30))
}

pub(super) fn reorder(whose: Whose) -> Boxes {
    each(whose, |direction| OneWay { direction, inner: Reorder::new(7, Duration::from_millis(6)) })
}

pub(super) fn duplicate(whose: Whose) -> Boxes {
    on(whose, Duplicate::new(5))
}

/// For a conversation with longer pauses.
pub(super) fn nat_expiring(_: Whose) -> Boxes {
    vec![Box::new(Nat::new().expiring(Duration::from_secs(20)))]
}
