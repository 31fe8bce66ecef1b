//! What `setup` has done, so that it can be undone.

use super::step::Step;
use crate::failure::Class;
use anyhow::Context as _;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Where the daemon's configuration is, too.
const FOLDER: &str = "/etc/umptcp";

const FILE: &str = "/etc/umptcp/setup.json";

/// Steps that were begun, the first first.
pub(super) struct Manifest(Vec<Step>);

impl Manifest {
    /// Reads it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn load() -> anyhow::Result<Manifest> {
        let text = match fs::read_to_string(FILE) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                return Ok(Manifest(Vec::new()));
            }
            Err(error) => return Err(error).context(Class::Host.failure(format!("cannot read {FILE}"))),
        };
        let steps = serde_json::from_str(&text);
        Ok(Manifest(
            steps.context(Class::Host.failure(format!("{FILE} is not what `umptcp setup` has written")))?,
        ))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn steps(&self) -> impl DoubleEndedIterator<Item = &Step> {
        self.0.iter()
    }

    pub(super) fn last(&self) -> Option<&Step> {
        self.0.last()
    }

    /// What was done to the same thing before.
    pub(super) fn of(&self, step: &Step) -> Option<&Step> {
        self.0.iter().find(|other| other.is_of_the_same_as(step))
    }

    /// Notes that a step is about to be done. It takes the place of one that did something else to the same
    /// thing, and knows what there was before that.
    pub(super) fn note(&mut self, step: Step) -> anyhow::Result<()> {
        match self.0.iter_mut().find(|other| other.is_of_the_same_as(&step)) {
            Some(other) => *other = step.instead_of(other),
            None => self.0.push(step),
        }
        self.store()
    }

    /// The last step has been undone.
    pub(super) fn strike_last(&mut self) -> anyhow::Result<()> {
        self.0.pop();
        self.store()
    }

    fn store(&self) -> anyhow::Result<()> {
        let store = || -> io::Result<()> {
            if self.0.is_empty() {
                fs::remove_file(FILE)?;
                // Somebody may have put something there.
                let _ = fs::remove_dir(FOLDER);
                return Ok(());
            }
            fs::create_dir_all(Path::new(FOLDER))?;
            let text = serde_json::to_string_pretty(&self.0).map_err(io::Error::other)?;
            let new = format!("{FILE}.new");
            let mut options = fs::OpenOptions::new();
            let mut file = options.create(true).write(true).truncate(true).mode(0o644).open(&new)?;
            io::Write::write_all(&mut file, text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, FILE)
        };
        store().with_context(|| Class::Host.failure(format!("cannot write {FILE}")))
    }
}
