//! Imports run one way: oci ← core ← engine ← {server, worker} ← cli. This is the check that says when they do not.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, output};

/// Which workspace crates a crate may use in what it ships. A crate that is not named here fails the check.
const MAY_USE: &[(&str, &[&str])] = &[
    ("entrepot-oci", &[]),
    ("entrepot-core", &["entrepot-oci"]),
    ("entrepot-engine", &["entrepot-oci", "entrepot-core"]),
    ("entrepot-server", &["entrepot-oci", "entrepot-core", "entrepot-engine"]),
    ("entrepot-worker", &["entrepot-oci", "entrepot-core", "entrepot-engine"]),
    ("entrepot", &["entrepot-oci", "entrepot-core", "entrepot-engine", "entrepot-server"]),
    ("entrepot-testkit", &["entrepot-oci", "entrepot-core", "entrepot-engine"]),
    ("entrepot-bench", &["entrepot-testkit"]),
    ("xtask", &["entrepot-oci", "entrepot-core"]),
];

/// What tests may use besides.
const TESTS_MAY_USE: &[&str] = &["entrepot-testkit"];

/// The layers without a runtime, a socket, a file, a clock or randomness.
pub(crate) const PURE: &[&str] = &["entrepot-oci", "entrepot-core", "entrepot-engine"];

/// What those may not reach, however indirectly.
const IMPURE: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "mio",
    "socket2",
    "reqwest",
    "hyper",
    "hyper-util",
    "rusqlite",
    "getrandom",
    "rand",
    "tempfile",
    "rustls",
];

pub(crate) fn check() -> Result<()> {
    let (crates, mut problems) = workspace_edges()?;
    problems.extend(impure_paths()?);
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    println!("layers: {crates} crates import one way only; {} reach nothing impure", PURE.join(", "));
    Ok(())
}

/// The directory that cargo builds in.
pub(crate) fn target_directory() -> Result<String> {
    let directory = &metadata()?["target_directory"];
    Ok(directory.as_str().context("cargo metadata names the target directory")?.to_owned())
}

/// The integration tests of a workspace crate, sorted.
pub(crate) fn test_targets(package: &str) -> Result<Vec<String>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let targets =
        packages.iter().find(|one| one["name"] == package).and_then(|one| one["targets"].as_array());
    let mut names: Vec<String> = targets
        .with_context(|| format!("cargo metadata lists the targets of {package}"))?
        .iter()
        .filter(|target| target["kind"][0] == "test")
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}

fn metadata() -> Result<Value> {
    let text = output(cargo(["metadata", "--format-version", "1", "--no-deps", "--locked"]))?;
    serde_json::from_str(&text).context("cargo metadata")
}

fn workspace_edges() -> Result<(usize, Vec<String>)> {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.iter().copied().collect();
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let mut problems = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(may_use) = allowed.get(name) else {
            problems.push(format!("{name} has no place among the layers: add it to xtask/src/layers.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"].as_str().unwrap_or_default();
            let of_ours = used == "entrepot" || used == "xtask" || used.starts_with("entrepot-");
            let for_tests = dependency["kind"] == "dev" && TESTS_MAY_USE.contains(&used);
            if of_ours && !may_use.contains(&used) && !for_tests {
                problems.push(format!("{name} -> {used}: imports run one way, see ARCHITECTURE.md"));
            }
        }
    }
    Ok((packages.len(), problems))
}

fn impure_paths() -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for name in PURE {
        let tree = |extra: &[&str]| {
            let fixed = ["tree", "--locked", "-p", *name, "-e", "normal,build", "--target", "all"];
            output(cargo(fixed.iter().chain(extra)))
        };
        let listing = tree(&["--prefix", "none"])?;
        // Each line is `name vVersion …`.
        let reached: BTreeSet<(&str, &str)> = listing
            .lines()
            .filter_map(|line| line.split_once(" v"))
            .map(|(found, rest)| (found, rest.split(' ').next().unwrap_or_default()))
            .filter(|(found, _)| IMPURE.contains(found))
            .collect();
        for (impure, version) in reached {
            let path = tree(&["--invert", &format!("{impure}@{version}")])?;
            problems
                .push(format!("{name} reaches {impure}, and may not. From there back to {name}:\n{path}"));
        }
    }
    Ok(problems)
}
