use super::*;
use std::collections::BTreeMap;

/// What is wrong with a crate that consists of these files.
fn check(folder: &str, files: &[(&str, &str)]) -> Vec<String> {
    let files: BTreeMap<PathBuf, &str> =
        files.iter().map(|(path, text)| (Path::new(folder).join(path), *text)).collect();
    let load = |path: &Path| files.get(path).map(|text| (*text).to_owned());
    let tree = Tree::load(&Path::new(folder).join("lib.rs"), &load).unwrap();
    faults(&tree, &uses::graph(&tree), Path::new(folder))
}

fn in_order(files: &[(&str, &str)]) {
    assert_eq!(check("src", files), Vec::<String>::new());
}

fn circle(files: &[(&str, &str)], arrows: &[&str]) {
    let names = arrows.iter().flat_map(|arrow| arrow.split(": ").take(1)).flat_map(|pair| pair.split(" -> "));
    let count = names.collect::<std::collections::BTreeSet<_>>().len();
    let expected = format!("a circle of {count} files:\n  {}", arrows.join("\n  "));
    assert_eq!(check("src", files), [expected]);
}

#[test]
fn modules_one_way_are_in_order() {
    in_order(&[
        ("lib.rs", "mod a; mod b; pub use a::A;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        ("b.rs", "pub struct B;"),
    ]);
}

#[test]
fn imports_make_a_circle() {
    circle(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use super::b::{self, B}; pub struct A; fn f() { b::help() }"),
            ("b.rs", "use crate::a; pub struct B(a::A); pub fn help() {}"),
        ],
        &["a.rs -> b.rs: B, help", "b.rs -> a.rs: A"],
    );
}

#[test]
fn inline_paths_make_a_circle() {
    circle(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub enum A { One } fn f() -> crate::b::B { crate::b::B::new() }"),
            ("b.rs", "pub struct B; impl B { pub fn new() -> B { match super::a::A::One { _ => B } } }"),
        ],
        &["a.rs -> b.rs: B", "b.rs -> a.rs: A"],
    );
}

#[test]
fn re_exports_lead_to_the_file_that_defines() {
    let files = [
        ("lib.rs", "pub mod a; pub mod b; pub use a::inner::Deep as Renamed; pub use b::*;"),
        ("a/mod.rs", "pub mod inner; pub use inner::Deep; pub use crate::b::B;"),
        ("a/inner.rs", "pub struct Deep; type T = crate::B;"),
        ("b.rs", "pub struct B; use crate::Renamed;"),
    ];
    // Nothing leads to lib.rs or a/mod.rs, which only pass names on.
    circle(&files, &["a/inner.rs -> b.rs: B", "b.rs -> a/inner.rs: Deep"]);
}

#[test]
fn a_parent_that_declares_its_child_is_no_circle() {
    in_order(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod child; pub(crate) use child::Child; pub struct A;"),
        ("a/child.rs", "use super::A; pub(crate) struct Child(A);"),
    ]);
}

#[test]
fn a_parent_that_uses_what_it_re_exports_is_in_a_circle() {
    circle(
        &[
            ("lib.rs", "mod a;"),
            ("a.rs", "mod child; pub(crate) use child::Child; pub struct A(Vec<Child>);"),
            ("a/child.rs", "pub(crate) struct Child(Box<super::A>);"),
        ],
        &["a.rs -> a/child.rs: Child", "a/child.rs -> a.rs: A"],
    );
}

#[test]
fn tests_do_not_count() {
    in_order(&[
        ("lib.rs", "mod a; mod b; #[cfg(test)] mod missing;"),
        ("a.rs", "use crate::b::B; pub struct A(B);"),
        (
            "b.rs",
            "pub struct B;
             #[cfg(test)] use crate::a::A;
             impl B { #[cfg(all(test, unix))] fn f(a: crate::a::A) {} }
             #[cfg(test)] mod tests { use crate::a::A; }",
        ),
    ]);
}

#[test]
fn code_for_all_builds_but_tests_counts() {
    circle(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; #[cfg(not(test))] use crate::a::A;"),
        ],
        &["a.rs -> b.rs: B", "b.rs -> a.rs: A"],
    );
}

#[test]
fn macros_are_looked_into() {
    circle(
        &[
            ("lib.rs", "#[macro_use] mod m; mod a; mod b;"),
            ("m.rs", "macro_rules! make { ($($x:tt)*) => {} }"),
            ("a.rs", "make! { pub struct Made; } fn f() { assert_eq!(crate::b::LIMIT, 1); }"),
            // `Made` is found though only the macro knows it; `x.b` is a field.
            ("b.rs", "pub const LIMIT: u8 = 1; fn f(x: X) { format!(\"{}\", x.b); let _: crate::a::Made; }"),
        ],
        &["a.rs -> b.rs: LIMIT", "b.rs -> a.rs: Made"],
    );
}

#[test]
fn a_macro_is_in_scope_below() {
    circle(
        &[
            ("lib.rs", "macro_rules! short { () => {} } mod a; fn f() { a::help() }"),
            ("a.rs", "pub fn help() { short!() }"),
        ],
        &["a.rs -> lib.rs: short", "lib.rs -> a.rs: help"],
    );
}

#[test]
fn imports_inside_a_function_hold_there() {
    circle(
        &[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub struct A; pub fn f() { use crate::b as other; { other::help() } }"),
            ("b.rs", "pub fn help() { use crate::a::*; let _ = A; }"),
        ],
        &["a.rs -> b.rs: help", "b.rs -> a.rs: A"],
    );
}

#[test]
fn modules_inside_a_file_belong_to_it() {
    circle(
        &[
            ("lib.rs", "mod a { pub mod deep; pub mod inline { pub struct I(crate::a::deep::D); } }"),
            ("a/deep.rs", "pub struct D(super::inline::I);"),
        ],
        &["a/deep.rs -> lib.rs: I", "lib.rs -> a/deep.rs: D"],
    );
}

#[test]
fn other_crates_do_not_count() {
    in_order(&[
        ("lib.rs", "mod a; mod b; pub use bytes::Bytes; pub use outside::prelude::*;"),
        ("a.rs", "use crate::{Bytes, FromOutside}; use ::b::B; pub struct A(Bytes);"),
        ("b.rs", "use super::a::A; fn f(a: A) { b::x() }"),
    ]);
}

#[test]
fn path_attributes_are_followed() {
    circle(
        &[
            ("lib.rs", "#[path = \"elsewhere.rs\"] mod a; pub struct Root(a::A);"),
            ("elsewhere.rs", "pub struct A(crate::Root);"),
        ],
        &["elsewhere.rs -> lib.rs: Root", "lib.rs -> elsewhere.rs: A"],
    );
}

#[test]
fn layers_use_only_those_below() {
    let core = "crates/stack-core/src";
    let files = [
        ("lib.rs", "mod wire; mod tcp; mod mptcp; mod stack; mod config;"),
        ("wire.rs", "pub struct Header;"),
        ("tcp.rs", "use crate::{wire::Header, config::Config}; use crate::mptcp::mapping::Mapping;"),
        ("mptcp/mod.rs", "pub mod mapping;"),
        ("mptcp/mapping.rs", "pub struct Mapping(crate::wire::Header);"),
        ("config.rs", "pub struct Config(crate::stack::Limit);"),
        ("stack.rs", "pub struct Limit; use crate::mptcp::mapping::Mapping;"),
    ];
    assert_eq!(
        check(core, &files),
        [
            "`tcp` must not use `mptcp`: tcp.rs -> mptcp/mapping.rs (Mapping)",
            "`tcp` must not use `stack`: tcp.rs -> config.rs -> stack.rs (Limit)",
        ]
    );
    // The table is about that crate alone.
    in_order(&files);
}
