//! `cargo xtask fuzz`: each target in `fuzz/fuzz_targets`, for a while.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::layers;
use crate::run::{cargo, run, succeeds};

/// The version of cargo-fuzz that is installed where there is none.
const CARGO_FUZZ: &str = "0.13.2";

/// Runs each target for so many seconds, and goes on after a finding.
pub(crate) fn targets_for(seconds: u64) -> Result<()> {
    if !succeeds(cargo(["fuzz", "--version"])) {
        run(cargo(["install", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]))?;
    }
    let mut failed = Vec::new();
    for target in targets()? {
        println!("\n==== fuzz {target}, {seconds} s ====");
        let limit = format!("-max_total_time={seconds}");
        // New inputs go to the first directory; the kept corpus is only read.
        let found = format!("{}/fuzz-corpus/{target}", layers::target_directory()?);
        std::fs::create_dir_all(&found).with_context(|| found.clone())?;
        let kept = format!("fuzz/corpus/{target}");
        let flags = [
            "+nightly",
            "fuzz",
            "run",
            &target,
            &found,
            &kept,
            "--",
            &limit,
            "-timeout=1",
            "-rss_limit_mb=512",
        ];
        if let Err(error) = run(cargo(flags)) {
            failed.push(format!("{error:#}"));
        }
    }
    if !failed.is_empty() {
        bail!("fuzzing found something:\n{}", failed.join("\n"));
    }
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let directory = Path::new("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if let (Some(stem), Some("rs")) = (path.file_stem(), path.extension().and_then(|end| end.to_str())) {
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}
