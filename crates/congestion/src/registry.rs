//! Algorithms by name, extensible by other crates.

use crate::{Algorithm, Balia, CongestionController, Controller, Cubic, Lia, Olia, Reno, WVegas};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Makes the controller of a new connection.
pub type Factory = fn() -> Box<dyn CongestionController>;

/// The algorithm a connection uses unless told otherwise.
pub const DEFAULT_NAME: &str = Lia::NAME;

/// The algorithms a program offers, by name. A crate that brings its own adds it with [`Registry::register`].
#[derive(Clone)]
pub struct Registry(Vec<(&'static str, Factory)>);

impl Registry {
    /// A registry without entries.
    pub const fn empty() -> Self {
        Registry(Vec::new())
    }

    /// Adds an algorithm written against [`Algorithm`], under its own name.
    pub fn register_algorithm<A: Algorithm>(&mut self) {
        self.register(A::NAME, || Box::new(Controller::<A>::default()));
    }

    /// Adds an algorithm, or replaces the one of that name.
    pub fn register(&mut self, name: &'static str, factory: Factory) {
        self.0.retain(|(n, _)| *n != name);
        self.0.push((name, factory));
    }

    /// A new controller of the algorithm `name`, or `None` when there is none of that name.
    pub fn create(&self, name: &str) -> Option<Box<dyn CongestionController>> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, f)| f())
    }

    /// The names, in order of registration.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|(n, _)| *n)
    }
}

impl Default for Registry {
    /// Every algorithm of this crate, the default first. `uncoupled` is Reno under the name that papers on coupling
    /// compare with; `cubic` is as uncoupled.
    fn default() -> Self {
        let mut registry = Registry::empty();
        registry.register_algorithm::<Lia>();
        registry.register_algorithm::<Reno>();
        registry.register_algorithm::<Cubic>();
        registry.register_algorithm::<Olia>();
        registry.register_algorithm::<Balia>();
        registry.register_algorithm::<WVegas>();
        registry.register("uncoupled", || Box::new(Controller::<Reno>::named("uncoupled")));
        registry
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}
