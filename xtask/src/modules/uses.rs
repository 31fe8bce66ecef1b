//! Which items of other files a file names.

use super::graph::Graph;
use super::resolve::Found;
use super::tree::{Names, Tree, attributes, imports, only_in_tests};
use proc_macro2::{TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Field, ImplItem, Item, ItemMod, ItemUse, Macro, Meta, PatIdent, Path, Stmt,
    VisRestricted, Visibility,
};

/// The arrows between the files of a crate.
pub(super) fn graph(tree: &Tree) -> Graph {
    let mut graph = Graph::default();
    for (number, module) in tree.modules.iter().enumerate() {
        let mut uses = Uses { tree, module: number, blocks: Vec::new(), graph: &mut graph };
        module.items.iter().for_each(|item| uses.visit_item(item));
    }
    graph
}

struct Uses<'a> {
    tree: &'a Tree,
    module: usize,
    /// Scopes of the blocks around the place being visited.
    blocks: Vec<Names>,
    graph: &'a mut Graph,
}

impl Uses<'_> {
    fn note(&mut self, path: &[String]) {
        let from = self.tree.modules[self.module].file;
        for found in self.tree.resolve(self.module, &self.blocks, path) {
            if let Found::Item(to, name) = found {
                self.graph.add(from, to, &name);
            }
        }
    }

    /// The paths in what a macro is given. It need not be Rust; what looks like a path and leads somewhere is
    /// one.
    fn scan(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut colons, mut after_dot) = (0, false);
        for token in tokens {
            match &token {
                TokenTree::Ident(word) if colons == 2 && !path.is_empty() => {
                    path.push(word.unraw().to_string())
                }
                TokenTree::Ident(word) => {
                    self.note_scanned(&path);
                    path = if after_dot { Vec::new() } else { vec![word.unraw().to_string()] };
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => {
                    self.note_scanned(&std::mem::take(&mut path));
                    self.scan(group.stream());
                }
                _ => self.note_scanned(&std::mem::take(&mut path)),
            }
            after_dot = matches!(&token, TokenTree::Punct(mark) if mark.as_char() == '.');
            colons = 0;
        }
        self.note_scanned(&path);
    }

    /// A lone word in lower case is rather a variable or a field.
    fn note_scanned(&mut self, path: &[String]) {
        if path.len() > 1 || path.first().is_some_and(|word| word.starts_with(char::is_uppercase)) {
            self.note(path);
        }
    }
}

impl<'ast> Visit<'ast> for Uses<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_in_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs[..],
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !only_in_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &'ast Field) {
        if !only_in_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    /// Modules are visited on their own; those in blocks are not looked into.
    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        // A re-export is no use; where this file uses the name itself, that is seen there.
        if matches!(item.vis, Visibility::Inherited) && item.leading_colon.is_none() {
            for import in imports(&item.tree) {
                self.note(&import.path);
            }
        }
    }

    fn visit_block(&mut self, block: &'ast Block) {
        let mut names = Names::default();
        for statement in &block.stmts {
            if let Stmt::Item(item) = statement {
                names.add(item);
            }
        }
        self.blocks.push(names);
        visit::visit_block(self, block);
        self.blocks.pop();
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let words: Vec<String> = path.segments.iter().map(|s| s.ident.unraw().to_string()).collect();
            self.note(&words);
        }
        visit::visit_path(self, path);
    }

    /// A lone name in a pattern is a constant where it is not a new variable.
    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        self.note_scanned(&[pattern.ident.unraw().to_string()]);
        visit::visit_pat_ident(self, pattern);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        if let Some(name) = call.path.get_ident()
            && let Some(file) = self.tree.textual_macro(self.module, &name.to_string())
        {
            self.graph.add(self.tree.modules[self.module].file, file, &name.to_string());
        } else {
            self.visit_path(&call.path);
        }
        self.scan(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta
            && !["cfg", "derive", "doc"].iter().any(|name| list.path.is_ident(name))
        {
            self.scan(list.tokens.clone());
        }
    }

    /// `pub(in path)` uses nothing.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}
