//! The application's observer, kept apart from the stack.

use std::panic::{AssertUnwindSafe, catch_unwind};
use umptcp_stack_core::observe::{Observation, Observer};

/// Passes everything on until the application's observer panics. It runs on the thread of the stack, which
/// its panic would end, with every connection.
pub(crate) struct Guarded(Option<Box<dyn Observer>>);

impl Guarded {
    pub(crate) fn new(observer: Box<dyn Observer>) -> Self {
        Guarded(Some(observer))
    }
}

impl Observer for Guarded {
    fn observe(&mut self, observation: &Observation) {
        let Some(observer) = &mut self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| observer.observe(observation))).is_err() {
            tracing::error!("the observer panicked: it is told nothing more");
            // Whatever state it is in, dropping it may panic, too.
            let observer = self.0.take();
            let _ = catch_unwind(AssertUnwindSafe(|| drop(observer)));
        }
    }
}
