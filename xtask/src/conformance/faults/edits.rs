//! What is broken on purpose: a piece of a file, and what it is replaced by.

use crate::schemata::Edit;
use anyhow::{Context, Result, bail};
use proc_macro2::Span;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A function of a file.
struct Function {
    name: String,
    /// All of it, from its attributes to the closing brace.
    whole: Range<usize>,
    /// What stands between the braces, these included.
    body: Range<usize>,
    /// What it returns, as written; empty for nothing.
    returns: String,
    /// Conditions of `if` in it that can be inverted.
    conditions: Vec<Range<usize>>,
}

/// The functions of a file, those of tests left out. A file is cited many times, and read once.
fn functions(text: &str) -> Result<Arc<Vec<Function>>> {
    static KNOWN: Mutex<BTreeMap<String, Arc<Vec<Function>>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(functions) = known.get(text) {
        return Ok(Arc::clone(functions));
    }
    let functions = Arc::new(parse(text)?);
    known.insert(text.to_owned(), Arc::clone(&functions));
    Ok(functions)
}

fn parse(text: &str) -> Result<Vec<Function>> {
    #[derive(Default)]
    struct Finder {
        found: Vec<Function>,
    }
    impl Finder {
        fn take(&mut self, whole: Span, signature: &syn::Signature, body: &syn::Block) {
            let returns = match &signature.output {
                syn::ReturnType::Default => String::new(),
                syn::ReturnType::Type(_, what) => what.span().source_text().unwrap_or_default(),
            };
            let mut conditions = Conditions(Vec::new());
            conditions.visit_block(body);
            self.found.push(Function {
                name: signature.ident.to_string(),
                whole: whole.byte_range(),
                body: body.span().byte_range(),
                returns,
                conditions: conditions.0,
            });
        }
    }
    impl<'ast> Visit<'ast> for Finder {
        fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
            if !is_test(&item.attrs) {
                visit::visit_item_mod(self, item);
            }
        }
        fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
            self.take(item.span(), &item.sig, &item.block);
            visit::visit_item_fn(self, item);
        }
        fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
            self.take(item.span(), &item.sig, &item.block);
            visit::visit_impl_item_fn(self, item);
        }
    }
    let file = syn::parse_file(text).context("it is no Rust source")?;
    let mut finder = Finder::default();
    finder.visit_file(&file);
    Ok(finder.found)
}

/// The conditions of `if` in a block that bind nothing: those can be inverted.
struct Conditions(Vec<Range<usize>>);

impl<'ast> Visit<'ast> for Conditions {
    fn visit_expr_if(&mut self, expression: &'ast syn::ExprIf) {
        struct Binds(bool);
        impl<'ast> Visit<'ast> for Binds {
            fn visit_expr_let(&mut self, _: &'ast syn::ExprLet) {
                self.0 = true;
            }
            // What a closure or a block in the condition binds is its own.
            fn visit_expr_closure(&mut self, _: &'ast syn::ExprClosure) {}
            fn visit_block(&mut self, _: &'ast syn::Block) {}
        }
        let mut binds = Binds(false);
        binds.visit_expr(&expression.cond);
        if !binds.0 {
            self.0.push(expression.cond.span().byte_range());
        }
        visit::visit_expr_if(self, expression);
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|a| {
        let is_cfg = a.path().is_ident("cfg");
        is_cfg && a.parse_args::<syn::Path>().is_ok_and(|what| what.is_ident("test"))
    })
}

/// What a function that returns `what` may return in its place.
fn values(what: &str) -> &'static [&'static str] {
    match what {
        "" => &["{}"],
        "bool" => &["{ false }", "{ true }"],
        _ if what.starts_with("Option<") => &["{ None }"],
        _ if what.starts_with("Result<()") => &["{ Ok(()) }"],
        _ if what.starts_with("impl ") || what.starts_with('&') => &[],
        _ => &["{ Default::default() }"],
    }
}

/// The ways in which a function can be broken without knowing it.
#[derive(Default)]
pub(super) struct Generated {
    /// Its body does nothing, or says always the same.
    pub(super) emptied: Vec<Edit>,
    /// One of its conditions is turned round.
    pub(super) inverted: Vec<Edit>,
}

/// Every way in which the function `name` of a file can be broken without knowing it: its body emptied, its
/// conditions inverted. Nothing for what is no function.
pub(super) fn generated(file: &str, text: &str, name: &str) -> Result<Generated> {
    let mut edits = Generated::default();
    for function in functions(text)?.iter().filter(|f| f.name == name) {
        for value in values(&function.returns) {
            let what = match *value {
                "{}" => format!("{name} does nothing"),
                value => format!("{name} is {value}"),
            };
            edits.emptied.push(Edit {
                file: file.to_owned(),
                range: function.body.clone(),
                from: text[function.body.clone()].to_owned(),
                to: (*value).to_owned(),
                what,
            });
        }
        for range in function.conditions.iter().cloned() {
            let condition = &text[range.clone()];
            let short = condition.split_whitespace().collect::<Vec<_>>().join(" ");
            edits.inverted.push(Edit {
                file: file.to_owned(),
                to: format!("!({condition})"),
                what: format!("{name}: not ({short})"),
                from: condition.to_owned(),
                range,
            });
        }
    }
    Ok(edits)
}

/// The change that a requirement names: `from` within `name`, where it must stand once, becomes `to`.
///
/// # Errors
/// When `from` does not stand there, or more than once.
pub(super) fn named(file: &str, text: &str, name: &str, from: &str, to: &str) -> Result<Edit> {
    let mut places = Vec::new();
    let functions = functions(text)?;
    let mut within: Vec<Range<usize>> =
        functions.iter().filter(|f| f.name == name).map(|f| f.whole.clone()).collect();
    if within.is_empty() {
        // A constant, a field: the whole file.
        within.push(0..text.len());
    }
    for range in within {
        let found = text[range.clone()].match_indices(from).map(|(at, _)| range.start + at);
        places.extend(found);
    }
    match places[..] {
        [start] => Ok(Edit {
            file: file.to_owned(),
            range: start..start + from.len(),
            from: from.to_owned(),
            to: to.to_owned(),
            what: format!("{name}: `{from}` becomes `{to}`"),
        }),
        [] => bail!("{name} in {file} has no `{from}`"),
        _ => bail!("{name} in {file} has `{from}` {} times", places.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "const A: u8 = 1;\nimpl X {\n    /// Says.\n    fn f(&self) -> bool {\n        if self.a && b(|x| x) { return true; }\n        if let Some(_) = c { g() }\n        self.a\n    }\n    fn g() { if x { y() } else if z { w() } }\n    fn n() -> u32 { 1 }\n}\n#[cfg(test)]\nmod tests { fn f() {} }\n";

    fn broken(name: &str) -> Vec<String> {
        let Generated { emptied, inverted } = generated("x.rs", TEXT, name).unwrap();
        emptied.iter().chain(&inverted).map(|e| e.apply(TEXT).unwrap()).collect()
    }

    #[test]
    fn a_function_is_emptied_and_its_conditions_inverted() {
        let f = broken("f");
        assert_eq!(f.len(), 3, "{f:#?}");
        assert!(f[0].contains("-> bool { false }\n    fn g()"));
        assert!(f[1].contains("-> bool { true }\n"));
        assert!(f[2].contains("if !(self.a && b(|x| x)) { return true; }"));
        let g = broken("g");
        assert_eq!(g.len(), 3);
        assert!(g[0].contains("fn g() {}"));
        assert!(g[2].contains("else if !(z) {"));
        assert!(broken("n")[0].contains("fn n() -> u32 { Default::default() }"));
        assert_eq!(broken("A").len(), 0);
    }

    #[test]
    fn what_a_requirement_names_must_stand_there_once() {
        let apply = |name, from, to| named("x.rs", TEXT, name, from, to)?.apply(TEXT);
        assert!(apply("g", "y()", "v()").unwrap().contains("if x { v() }"));
        assert!(apply("A", "u8 = 1", "u8 = 2").unwrap().contains("const A: u8 = 2;"));
        assert!(apply("f", "y()", "v()").is_err(), "it stands in another function");
        assert!(apply("f", "self.a", "true").is_err(), "it stands there twice");
        let edit = named("x.rs", TEXT, "g", "y()", "v()").unwrap();
        assert!(edit.apply(&TEXT[1..]).is_err(), "the file has changed");
    }
}
