//! One combination of parameters.

use crate::setup::Setup;

/// One combination of parameters.
#[derive(Clone, Debug)]
pub(crate) struct Point {
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) setup: Setup,
}

impl Point {
    /// `name=value` with commas between.
    pub(crate) fn name(&self) -> String {
        self.parameters.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(",")
    }
}
