//! Plug-ins by name.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Makes one instance of a plug-in, for a new connection.
pub type Factory<T> = fn() -> Box<T>;

/// Named plug-ins of one kind: `T` is a trait object, such as `dyn CongestionController`.
///
/// A program starts with the built-in ones, which the crate that defines the trait lists, and adds its own:
///
/// ```
/// use umptcp_types::Registry;
///
/// trait Greeter {
///     fn greet(&self) -> &'static str;
/// }
/// struct Polite;
/// impl Greeter for Polite {
///     fn greet(&self) -> &'static str {
///         "Good morning"
///     }
/// }
///
/// let mut registry = Registry::<dyn Greeter>::empty();
/// registry.register("polite", || Box::new(Polite));
/// assert_eq!(registry.create("polite").unwrap().greet(), "Good morning");
/// assert!(registry.create("rude").is_none());
/// ```
pub struct Registry<T: ?Sized>(Vec<(&'static str, Factory<T>)>);

impl<T: ?Sized> Registry<T> {
    /// A registry without entries.
    pub const fn empty() -> Self {
        Registry(Vec::new())
    }

    /// Adds a plug-in at the end, replacing any that has the same name.
    pub fn register(&mut self, name: &'static str, factory: Factory<T>) {
        self.0.retain(|(n, _)| *n != name);
        self.0.push((name, factory));
    }

    /// A new instance of the plug-in `name`, or `None` if no plug-in has that name.
    pub fn create(&self, name: &str) -> Option<Box<T>> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, factory)| factory())
    }

    /// The names, in order of registration.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().map(|(n, _)| *n)
    }
}

// Not derived: that would require `T: Clone`.
impl<T: ?Sized> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Registry(self.0.clone())
    }
}

impl<T: ?Sized> fmt::Debug for Registry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Display;

    #[test]
    fn a_name_belongs_to_the_plug_in_registered_last() {
        let mut registry = Registry::<dyn Display>::empty();
        assert!(registry.create("one").is_none());
        registry.register("one", || Box::new(1));
        registry.register("two", || Box::new(2));
        let before = registry.clone();
        registry.register("one", || Box::new("uno"));
        let text = |r: &Registry<dyn Display>, name| alloc::format!("{}", r.create(name).unwrap());
        assert_eq!(text(&registry, "one"), "uno");
        assert_eq!(text(&registry, "two"), "2");
        assert_eq!(alloc::format!("{registry:?}"), r#"["two", "one"]"#);
        assert_eq!(text(&before, "one"), "1");
        assert_eq!(alloc::format!("{before:?}"), r#"["one", "two"]"#);
    }
}
