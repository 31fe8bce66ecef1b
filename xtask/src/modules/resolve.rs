//! From a path to the file that defines what it names.

use super::tree::{Definition, Names, ROOT, Tree};

/// What a path, or the beginning of one, leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Module(usize),
    /// An item, by its name, in a file.
    Item(usize, String),
    /// Something outside the crate, or a local variable.
    Foreign,
}

/// The names that were being looked up, so that imports in a circle come to an end.
type Trail = Vec<(usize, String)>;

impl Tree {
    /// What `path` leads to in `module`; `blocks` are the scopes of the blocks around it, the innermost last.
    pub(super) fn resolve(&self, module: usize, blocks: &[Names], path: &[String]) -> Vec<Found> {
        let Some((first, rest)) = path.split_first() else { return vec![Found::Module(module)] };
        for (depth, names) in blocks.iter().enumerate().rev() {
            // An import in a block sees the blocks around it, not itself.
            let around = &blocks[..depth];
            let mut found = Vec::new();
            for definition in names.named.get(first).into_iter().flatten() {
                match definition {
                    Definition::Import(import) => found.extend(self.resolve(module, around, import)),
                    Definition::Item | Definition::Module(_) => found.push(Found::Foreign),
                }
            }
            if found.is_empty() {
                for glob in &names.globs {
                    for target in self.resolve(module, around, glob) {
                        if let Found::Module(target) = target {
                            found.extend(self.lookup(target, first, &mut Vec::new()));
                        }
                    }
                }
            }
            if !found.is_empty() {
                return self.descend(found, rest, &mut Vec::new());
            }
        }
        self.resolve_in(module, path, &mut Vec::new())
    }

    fn resolve_in(&self, module: usize, path: &[String], trail: &mut Trail) -> Vec<Found> {
        let Some((first, rest)) = path.split_first() else { return vec![Found::Module(module)] };
        let start = match self.keyword(module, first) {
            Some(found) => vec![found],
            None => self.lookup(module, first, trail),
        };
        let start = if start.is_empty() { vec![Found::Foreign] } else { start };
        self.descend(start, rest, trail)
    }

    /// What a keyword at the beginning of a path stands for in a module.
    fn keyword(&self, module: usize, word: &str) -> Option<Found> {
        match word {
            "crate" => Some(Found::Module(ROOT)),
            "self" => Some(Found::Module(module)),
            "super" => Some(self.modules[module].parent.map_or(Found::Foreign, Found::Module)),
            "Self" => Some(Found::Foreign),
            _ => None,
        }
    }

    fn descend(&self, mut found: Vec<Found>, rest: &[String], trail: &mut Trail) -> Vec<Found> {
        for segment in rest {
            // A function may have the name of a module; what has a path below it is the module.
            if found.iter().any(|f| matches!(f, Found::Module(_))) {
                found.retain(|f| matches!(f, Found::Module(_)));
            }
            found = found.into_iter().flat_map(|found| self.step(found, segment, trail)).collect();
        }
        found
    }

    fn step(&self, from: Found, segment: &str, trail: &mut Trail) -> Vec<Found> {
        // Variants and associated items belong to their type.
        let Found::Module(module) = from else { return vec![from] };
        if let Some(found) = self.keyword(module, segment) {
            return vec![found];
        }
        let inside = self.lookup(module, segment, trail);
        if !inside.is_empty() {
            return inside;
        }
        // It is there, or the crate would not compile: made by a macro, or from a glob of another crate.
        let globs = &self.modules[module].names.globs;
        if globs.iter().any(|glob| self.resolve_in(module, glob, trail).contains(&Found::Foreign)) {
            return vec![Found::Foreign];
        }
        vec![Found::Item(self.modules[module].file, segment.to_owned())]
    }

    /// What a module has under a name.
    fn lookup(&self, module: usize, name: &str, trail: &mut Trail) -> Vec<Found> {
        let here = (module, name.to_owned());
        if trail.contains(&here) {
            return vec![Found::Foreign];
        }
        trail.push(here);
        let names = &self.modules[module].names;
        let mut found = Vec::new();
        for definition in names.named.get(name).into_iter().flatten() {
            match definition {
                Definition::Item => found.push(Found::Item(self.modules[module].file, name.to_owned())),
                Definition::Module(child) => found.push(Found::Module(*child)),
                Definition::Import(path) => found.extend(self.resolve_in(module, path, trail)),
            }
        }
        if found.is_empty() {
            for glob in &names.globs {
                for target in self.resolve_in(module, glob, trail) {
                    if let Found::Module(target) = target {
                        found.extend(self.lookup(target, name, trail));
                    }
                }
            }
        }
        trail.pop();
        found
    }

    /// The file of a macro that is in scope by where it stands: in the module or in one around it.
    pub(super) fn textual_macro(&self, module: usize, name: &str) -> Option<usize> {
        let mut next = Some(module);
        while let Some(module) = next.map(|number| &self.modules[number]) {
            if module.macros.contains(name) {
                return Some(module.file);
            }
            next = module.parent;
        }
        None
    }
}
