//! Putting changes into a file, each as a further body of its function.

use super::{Edit, Fit};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use syn::spanned::Spanned;
use syn::visit::Visit;

/// Where in a library's root module that begins which chooses among bodies.
pub(super) const CHOOSER: &str = "\n// What is in force.\n";

/// The environment variable with the number of the change that is in force.
pub(super) const CHOSEN: &str = "UMPTCP_CHANGE";

/// The environment variable with the file to which a test writes the functions that it enters.
pub(super) const LOG: &str = "UMPTCP_ENTERED";

/// A file with changes in it.
pub(super) struct Woven {
    pub(super) text: String,
    /// Where each change's body is.
    bodies: Vec<(Range<usize>, usize)>,
    pub(super) fits: Vec<(usize, Fit)>,
}

impl Woven {
    pub(super) fn unchanged(text: String) -> Woven {
        Woven { text, bodies: Vec::new(), fits: Vec::new() }
    }

    /// The change whose body has something of `range` in it.
    pub(super) fn edit_at(&self, range: &Range<usize>) -> Option<usize> {
        let holds = |body: &Range<usize>| body.start <= range.start && range.end <= body.end;
        self.bodies.iter().find(|(body, _)| holds(body)).map(|(_, number)| *number)
    }

    /// With the module that chooses, for so many functions. It belongs into a library's root module.
    pub(super) fn with_chooser(mut self, functions: usize) -> Woven {
        let code = format!(
            r#"#[doc(hidden)]
mod schemata {{
    extern crate std;
    use core::sync::atomic::{{AtomicBool, Ordering}};
    use self::std::io::Write as _;

    static CHOSEN: self::std::sync::OnceLock<(u32, Option<self::std::string::String>)> = self::std::sync::OnceLock::new();
    static ENTERED: [AtomicBool; {functions}] = [const {{ AtomicBool::new(false) }}; {functions}];

    pub(crate) fn chosen(function: usize) -> u32 {{
        let (chosen, log) = CHOSEN.get_or_init(|| {{
            let number = self::std::env::var("{CHOSEN}").ok().and_then(|n| n.parse().ok());
            (number.unwrap_or(u32::MAX), self::std::env::var("{LOG}").ok())
        }});
        if let Some(log) = log && !ENTERED[function].swap(true, Ordering::Relaxed) {{
            let mut file = self::std::fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
            file.write_all(self::std::format!("{{function}}\n").as_bytes()).unwrap();
        }}
        *chosen
    }}
}}
"#
        );
        self.text.push_str(CHOOSER);
        self.text.push_str(&code);
        self
    }
}

/// A function that is in no other.
struct Function {
    /// What stands between the braces, these included.
    body: Range<usize>,
    /// Its body can be chosen when the program runs.
    can_choose: bool,
}

#[derive(Default)]
struct Functions(Vec<Function>);

impl Functions {
    fn take(&mut self, signature: &syn::Signature, body: &syn::Block) {
        struct Impl(bool);
        impl<'ast> Visit<'ast> for Impl {
            fn visit_type_impl_trait(&mut self, _: &'ast syn::TypeImplTrait) {
                self.0 = true;
            }
        }
        let mut returns = Impl(false);
        returns.visit_return_type(&signature.output);
        let can_choose = signature.constness.is_none() && !returns.0;
        self.0.push(Function { body: body.span().byte_range(), can_choose });
    }
}

// None of these goes further inwards: a function in a function is changed with it.
impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.take(&item.sig, &item.block);
    }
    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.take(&item.sig, &item.block);
    }
    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.take(&item.sig, body);
        }
    }
}

/// `text` with `edits`, each under its number. `functions` counts those that have further bodies.
pub(super) fn weave(text: &str, edits: &[(usize, &Edit)], functions: &mut usize) -> Result<Woven> {
    let mut found = Functions::default();
    found.visit_file(&syn::parse_file(text).context("it is no Rust source")?);
    let mut woven = Woven::unchanged(String::with_capacity(text.len()));
    let mut of_function: BTreeMap<usize, Vec<(usize, &Edit)>> = BTreeMap::new();
    for (number, edit) in edits {
        let within = |f: &Function| f.body.start <= edit.range.start && edit.range.end <= f.body.end;
        match found.0.iter().position(within) {
            Some(at) if found.0[at].can_choose => of_function.entry(at).or_default().push((*number, edit)),
            _ => woven.fits.push((*number, Fit::Alone)),
        }
    }
    let mut done = 0;
    for (at, edits) in of_function {
        let body = &found.0[at].body;
        woven.text.push_str(&text[done..body.start]);
        woven.text.push_str(&format!("{{ match crate::schemata::chosen({functions}) {{\n"));
        for (number, edit) in edits {
            woven.text.push_str(&format!("{number}u32 => "));
            let start = woven.text.len();
            // Its own braces around, or a replacement of all that is no block would be none.
            woven.text.push('{');
            woven.text.push_str(&text[body.start..edit.range.start]);
            woven.text.push_str(&edit.to);
            woven.text.push_str(&text[edit.range.end..body.end]);
            woven.text.push('}');
            woven.bodies.push((start..woven.text.len(), number));
            woven.text.push('\n');
            woven.fits.push((number, Fit::Woven(*functions)));
        }
        woven.text.push_str("_ => ");
        woven.text.push_str(&text[body.clone()]);
        woven.text.push_str("\n} }");
        done = body.end;
        *functions += 1;
    }
    woven.text.push_str(&text[done..]);
    Ok(woven)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(text: &str, from: &str, to: &str) -> Edit {
        let start = text.find(from).unwrap();
        let range = start..start + from.len();
        let (from, to) = (from.to_owned(), to.to_owned());
        Edit { file: "x.rs".into(), range, from, to, what: String::new() }
    }

    #[test]
    fn each_change_is_a_body_of_its_function() {
        let text = "fn f(a: u8) -> u8 { fn g() {} a + 1 }\nconst fn c() -> u8 { 7 }\nfn i() -> impl Sized { 8 }\nconst D: u8 = 9;\n";
        let edits = [
            edit(text, "a + 1", "a - 1"),
            edit(text, "{ fn g() {} a + 1 }", "0"),
            edit(text, "7", "6"),
            edit(text, "8", "6"),
            edit(text, "9", "6"),
        ];
        let numbered: Vec<(usize, &Edit)> = edits.iter().enumerate().map(|(n, e)| (n + 10, e)).collect();
        let mut functions = 3;
        let woven = weave(text, &numbered, &mut functions).unwrap();
        assert_eq!(functions, 4);
        assert!(woven.text.starts_with(
            "fn f(a: u8) -> u8 { match crate::schemata::chosen(3) {\n10u32 => {{ fn g() {} a - 1 }}\n11u32 => {0}\n_ => { fn g() {} a + 1 }\n} }\nconst fn c() -> u8 { 7 }"
        ));
        let fits: BTreeMap<usize, Fit> = woven.fits.iter().copied().collect();
        assert_eq!((fits[&10], fits[&11]), (Fit::Woven(3), Fit::Woven(3)));
        assert_eq!([fits[&12], fits[&13], fits[&14]], [Fit::Alone; 3]);
        // An error in a body is that change's.
        let at = woven.text.find("a - 1").unwrap();
        assert_eq!(woven.edit_at(&(at..at + 5)), Some(10));
        let at = woven.text.find("a + 1").unwrap();
        assert_eq!(woven.edit_at(&(at..at + 5)), None);
        syn::parse_file(&woven.with_chooser(4).text).unwrap();
    }
}
