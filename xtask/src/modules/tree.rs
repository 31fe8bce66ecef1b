//! The modules of a crate, read from its files.

use anyhow::{Context, Result, bail};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use syn::{Attribute, Expr, ExprLit, Item, ItemMod, Lit, Meta, UseTree, ext::IdentExt};

/// The root module's number.
pub(super) const ROOT: usize = 0;

/// A crate's modules.
pub(super) struct Tree {
    pub(super) files: Vec<PathBuf>,
    pub(super) modules: Vec<Module>,
}

/// One module, in a file of its own or inside another's.
pub(super) struct Module {
    pub(super) parent: Option<usize>,
    pub(super) name: String,
    pub(super) file: usize,
    /// What stands in it, without modules and what is compiled for tests only.
    pub(super) items: Vec<Item>,
    pub(super) names: Names,
    /// Macros by `macro_rules!`, which are in scope in the modules below, too.
    pub(super) macros: BTreeSet<String>,
}

/// The names of a scope.
#[derive(Default)]
pub(super) struct Names {
    /// Several under one name: types, values and macros are told apart by where they stand.
    pub(super) named: BTreeMap<String, Vec<Definition>>,
    /// What `use path::*` imports from.
    pub(super) globs: Vec<Vec<String>>,
}

/// What a name stands for.
pub(super) enum Definition {
    /// An item that is defined here.
    Item,
    /// A module, by its number.
    Module(usize),
    /// Whatever this path stands for.
    Import(Vec<String>),
}

/// Reads a file; `None` when there is none.
type Load<'a> = &'a dyn Fn(&Path) -> Option<String>;

impl Tree {
    /// Reads the crate whose root is `source`.
    pub(super) fn load(source: &Path, load: Load<'_>) -> Result<Tree> {
        let mut reader = Reader { tree: Tree { files: Vec::new(), modules: Vec::new() }, load };
        let folder = source.parent().context("a file is in a folder")?;
        let text = load(source).with_context(|| format!("cannot read {}", source.display()))?;
        let root = reader.add_module(None, "crate", 0);
        reader.add_file(root, source, folder, &text)?;
        Ok(reader.tree)
    }

    /// The folder of the crate's root file.
    pub(super) fn source_folder(&self) -> &Path {
        self.files[0].parent().unwrap_or(Path::new(""))
    }

    /// Whether the module in file `outer` is around that in file `inner`.
    pub(super) fn is_around(&self, outer: usize, inner: usize) -> bool {
        let mut module = self.modules.iter().find(|m| m.file == inner);
        while let Some(parent) = module.and_then(|m| m.parent) {
            if self.modules[parent].file == outer {
                return true;
            }
            module = self.modules.get(parent);
        }
        false
    }

    /// The module directly below the root that a file belongs to; `None` for the root's file.
    pub(super) fn top_level_module(&self, file: usize) -> Option<String> {
        let mut module = self.modules.iter().find(|m| m.file == file)?;
        while let Some(parent) = module.parent {
            if parent == ROOT {
                return Some(module.name.clone());
            }
            module = &self.modules[parent];
        }
        None
    }
}

/// A tree that is being read.
struct Reader<'a> {
    tree: Tree,
    load: Load<'a>,
}

impl Reader<'_> {
    /// Reads the file of a module; those of the modules below it are in `folder`.
    fn add_file(&mut self, module: usize, path: &Path, folder: &Path, text: &str) -> Result<()> {
        let parsed = syn::parse_file(text).with_context(|| format!("cannot parse {}", path.display()))?;
        self.tree.modules[module].file = self.tree.files.len();
        self.tree.files.push(path.to_owned());
        self.fill(module, parsed.items, folder)
    }

    fn add_module(&mut self, parent: Option<usize>, name: &str, file: usize) -> usize {
        self.tree.modules.push(Module {
            parent,
            name: name.to_owned(),
            file,
            items: Vec::new(),
            names: Names::default(),
            macros: BTreeSet::new(),
        });
        self.tree.modules.len() - 1
    }

    fn fill(&mut self, module: usize, items: Vec<Item>, folder: &Path) -> Result<()> {
        for item in items.into_iter().filter(|item| !only_in_tests(attributes(item))) {
            if let Item::Mod(child) = item {
                self.add_child(module, child, folder)?;
                continue;
            }
            let module = &mut self.tree.modules[module];
            module.names.add(&item);
            if let Item::Macro(item) = &item {
                module.macros.extend(item.ident.as_ref().map(|name| name.unraw().to_string()));
            }
            module.items.push(item);
        }
        Ok(())
    }

    fn add_child(&mut self, parent: usize, child: ItemMod, folder: &Path) -> Result<()> {
        let name = child.ident.unraw().to_string();
        let file = self.tree.modules[parent].file;
        let module = self.add_module(Some(parent), &name, file);
        let below = folder.join(&name);
        let siblings = &mut self.tree.modules[parent].names.named;
        siblings.entry(name.clone()).or_default().push(Definition::Module(module));
        if let Some((_, items)) = child.content {
            return self.fill(module, items, &below);
        }
        let (candidates, below) = match path_attribute(&child.attrs) {
            Some(named) => {
                let path = self.tree.files[file].parent().unwrap_or(folder).join(named);
                let below = path.parent().unwrap_or(folder).to_owned();
                (vec![path], below)
            }
            None => (vec![folder.join(format!("{name}.rs")), below.join("mod.rs")], below),
        };
        let Some((path, text)) = candidates.iter().find_map(|path| Some((path, (self.load)(path)?))) else {
            bail!("the file of the module {name} is missing: {candidates:?}");
        };
        self.add_file(module, path, &below, &text)
    }
}

impl Names {
    /// Adds what an item other than a module defines or imports.
    pub(super) fn add(&mut self, item: &Item) {
        if let Item::Use(import) = item {
            // `use ::name`: another crate's.
            if import.leading_colon.is_none() {
                for import in imports(&import.tree) {
                    match import {
                        Import { path, name: Some(name) } => {
                            self.named.entry(name).or_default().push(Definition::Import(path));
                        }
                        Import { path, name: None } => self.globs.push(path),
                    }
                }
            }
            return;
        }
        let name = match item {
            Item::Const(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Fn(item) => Some(&item.sig.ident),
            Item::Macro(item) => item.ident.as_ref(),
            Item::Static(item) => Some(&item.ident),
            Item::Struct(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::TraitAlias(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            Item::Union(item) => Some(&item.ident),
            _ => None,
        };
        if let Some(name) = name {
            self.named.entry(name.unraw().to_string()).or_default().push(Definition::Item);
        }
    }
}

/// One leaf of a `use` declaration: the path, and the name it gets here, or none for `path::*`.
pub(super) struct Import {
    pub(super) path: Vec<String>,
    pub(super) name: Option<String>,
}

/// All leaves of a `use` declaration.
pub(super) fn imports(tree: &UseTree) -> Vec<Import> {
    fn walk(tree: &UseTree, prefix: &mut Vec<String>, into: &mut Vec<Import>) {
        let mut leaf = |last: String, alias: Option<String>| {
            let mut path = prefix.clone();
            // `use a::{self}` imports `a` itself.
            if last != "self" || path.is_empty() {
                path.push(last);
            }
            let name = alias.or_else(|| path.last().cloned());
            into.push(Import { path, name });
        };
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.unraw().to_string());
                walk(&path.tree, prefix, into);
                prefix.pop();
            }
            UseTree::Name(name) => leaf(name.ident.unraw().to_string(), None),
            UseTree::Rename(name) => {
                leaf(name.ident.unraw().to_string(), Some(name.rename.unraw().to_string()))
            }
            UseTree::Glob(_) => into.push(Import { path: prefix.clone(), name: None }),
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, prefix, into)),
        }
    }
    let mut into = Vec::new();
    walk(tree, &mut Vec::new(), &mut into);
    into
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether attributes leave something out of every build but that of tests.
pub(super) fn only_in_tests(attributes: &[Attribute]) -> bool {
    fn needs_test(tokens: TokenStream) -> bool {
        let mut tokens = tokens.into_iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "test" => return true,
                // What is inside is not needed.
                TokenTree::Ident(word) if word == "not" || word == "any" => drop(tokens.next()),
                TokenTree::Group(group) if needs_test(group.stream()) => return true,
                _ => {}
            }
        }
        false
    }
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => needs_test(list.tokens.clone()),
        Meta::Path(path) => path.is_ident("test"),
        _ => false,
    })
}

/// The value of `#[path = "…"]`.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    })
}
