//! `cargo xtask no-std`: the protocol's crates need no standard library.
//!
//! The crates are `umptcp-stack-core` and those of the workspace that it depends on. They are built, without
//! default features, for every target without a standard library whose `core` is installed (`rustup target
//! add x86_64-unknown-none`); and always for the host in a crate that defines a panic handler of its own,
//! which the compiler refuses (E0152) as soon as any crate below it uses `std`, whose panic handler would be
//! the second.
//!
//! The build for the host alone shows that no crate uses `std`. It does not show that all of them support a
//! target that lacks what the host has, such as 64-bit atomics.

use crate::tools;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const TOP: &str = "umptcp-stack-core";

/// Builds the crates.
pub(crate) fn run() -> Result<()> {
    let crates = crates(&tools::metadata()?)?;
    let folder = tools::target_directory()?.join("no-std");
    write_probe(&folder, &crates)?;
    let mut targets = vec![None];
    targets.extend(bare_targets()?.into_iter().map(Some));
    for target in &targets {
        let mut build = tools::cargo();
        build.args(["build", "--quiet", "--manifest-path"]).arg(folder.join("Cargo.toml"));
        if let Some(target) = target {
            build.args(["--target", target]);
        }
        let target = target.as_deref().unwrap_or("the host");
        tools::run(&mut build, &format!("building the no_std crates for {target}"))?;
    }
    let names: Vec<_> = crates.iter().map(|(name, _)| name.as_str()).collect();
    let bare: Vec<_> = targets.iter().flatten().map(String::as_str).collect();
    let bare = if bare.is_empty() { "none is installed".to_owned() } else { bare.join(", ") };
    println!("no-std: {} need no standard library (targets without one: {bare})", names.join(", "));
    Ok(())
}

/// Names and folders of [`TOP`] and of the crates of the workspace below it.
fn crates(metadata: &Value) -> Result<BTreeSet<(String, String)>> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut waiting = vec![TOP];
    let mut found = BTreeSet::new();
    while let Some(name) = waiting.pop() {
        let package = packages.iter().find(|p| p["name"] == name);
        let package = package.with_context(|| format!("there is no crate {name} in the workspace"))?;
        let manifest = package["manifest_path"].as_str().context("a package has a manifest")?;
        let folder = manifest.trim_end_matches("/Cargo.toml");
        if !found.insert((name.to_owned(), folder.to_owned())) {
            continue;
        }
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        // Those in the workspace have a path, those for tests a kind ("dev").
        let ours = dependencies.filter(|d| d["path"].is_string() && d["kind"].is_null());
        waiting.extend(ours.filter_map(|d| d["name"].as_str()));
    }
    Ok(found)
}

/// A crate that depends on all of `crates` and has a panic handler.
fn write_probe(folder: &Path, crates: &BTreeSet<(String, String)>) -> Result<()> {
    let mut manifest = String::from(
        "[package]\nname = \"no-std\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[profile.dev]\nopt-level = 1\n\n[dependencies]\n",
    );
    let mut source = String::from(
        "//! Made by `cargo xtask no-std`.\n#![no_std]\n\n#[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! {\n    loop {}\n}\n\n",
    );
    for (name, path) in crates {
        manifest += &format!("{name} = {{ path = {path:?}, default-features = false }}\n");
        source += &format!("use {} as _;\n", name.replace('-', "_"));
    }
    fs::create_dir_all(folder.join("src")).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |name: &str, text: &[u8]| {
        fs::write(folder.join(name), text)
            .with_context(|| format!("cannot write {name} in {}", folder.display()))
    };
    write("Cargo.toml", manifest.as_bytes())?;
    write("src/lib.rs", source.as_bytes())?;
    // The same versions as in the workspace; cargo leaves out what is not needed.
    write("Cargo.lock", &fs::read(tools::root()?.join("Cargo.lock")).context("cannot read Cargo.lock")?)
}

/// Installed targets that have no operating system.
fn bare_targets() -> Result<Vec<String>> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("cannot start rustc")?;
    ensure!(output.status.success(), "rustc --print sysroot failed ({})", output.status);
    let sysroot = String::from_utf8(output.stdout).context("the sysroot is UTF-8")?;
    let folder = Path::new(sysroot.trim()).join("lib/rustlib");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.contains("-none") && folder.join(name).join("lib").is_dir()).collect())
}
