//! Where a stack is.

use umptcp::Stack;

/// Where the stack is, as long as it runs.
pub(crate) trait StackSource: Send + Sync {
    /// Calls `f` with it; not at all when it has been stopped.
    fn with(&self, f: &mut dyn FnMut(&Stack));
}
