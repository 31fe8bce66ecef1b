//! The shipped scenarios: every combination of parameters with its first seed.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use umptcp_lab::{Experiment, Registries, RunOptions};
use umptcp_testkit::simulation::cases::Case;

/// Virtual time of a run: in all scenarios everything has begun by then. The scenarios' own times take
/// minutes.
const DURATION: Duration = Duration::from_secs(60);

/// A case per combination of parameters.
pub(super) fn cases(folder: &Path) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for file in files(folder)? {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let registries = Registries::default();
        let experiment =
            Arc::new(Experiment::parse(&file.to_string_lossy(), &text, Some(folder), &[], &registries)?);
        for (point, parameters) in experiment.point_names().into_iter().enumerate() {
            let name = format!("scenarios/{} {parameters}", experiment.name());
            cases.push(case(name.trim().to_string(), experiment.clone(), point));
        }
    }
    Ok(cases)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in list {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn case(name: String, experiment: Arc<Experiment>, point: usize) -> Case {
    Case::new(name, move |recording| {
        let options =
            RunOptions { duration: Some(DURATION), warm_up: Some(Duration::ZERO), ..RunOptions::default() };
        let registries = Registries::default();
        recording.part("", &mut |digest| {
            let probe = Box::new(digest.clone());
            experiment.probe(point, &options, &registries, probe).map_err(|e| e.to_string())
        });
    })
}
