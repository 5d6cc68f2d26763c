//! `cargo xtask test`: everything that must hold, in the order in which a failure is cheapest to learn of.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::layers::{self, PURE};
use crate::machine::{self, WASM};
use crate::report::{Done, Report};
use crate::run::{Noted, cargo, run, run_noting, succeeds};
use crate::{sources, worker};

/// Of the binary that the integration tests run.
const BINARY_FEATURES: &[&str] = &["failpoints"];

/// Test files of the testkit whose names begin so need real registries and clients.
const REAL: &[&str] = &["clients", "real", "conformance", "worker_clients"];

/// The test file of the testkit that counts the instructions of a hit.
const GUARD: &str = "instructions";

/// Test files of the testkit whose names begin so need the Worker.
const WORKER: &str = "worker";

/// As many tests of a file as may fail beside others and be run once more by themselves.
const UNSTEADY: usize = 2;

/// The groups of acceptance tests that say what must not happen even once: a race that shows in one run of ten is what they
/// are there to find. What they fail on, they fail on.
const FINAL: &[&str] = &["t_az", "t_bi", "t_cc", "t_cp", "t_cr", "t_cs", "t_hu", "t_op", "t_ss", "t_uf4"];

pub(crate) fn run_all(quick: bool) -> Result<()> {
    let mut report = Report::default();
    if !quick {
        report.step("packages of real clients", machine::packages);
    }
    report.step("wasm target", machine::wasm_target);
    report.step("format", || passes(cargo(["fmt", "--all", "--check"])));
    report.step("layers", || layers::check().map(|()| Done::Passed));
    report.step("sources", || sources::check().map(|()| Done::Passed));
    report.step("generated files", || crate::r#gen::check().map(|()| Done::Passed));
    report.step("clippy", || {
        passes(cargo(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]))
    });
    report.step("wasm build", || {
        let packages = PURE.iter().flat_map(|name| ["-p", *name]);
        passes(cargo(["check", "--locked", "--target", WASM].into_iter().chain(packages)))
    });
    report.step("clippy of the Worker for wasm", || {
        // Of it alone: what is large or small to the layers below differs by target.
        let arguments = ["clippy", "--locked", "--target", WASM, "-p", worker::PACKAGE, "--no-deps"];
        passes(cargo(arguments.into_iter().chain(["--", "-D", "warnings"])))
    });
    report.step("licences and advisories", deny);
    report.step("unit and property tests", || {
        tests(cargo(["test", "--locked", "--workspace", "--exclude", "entrepot-testkit", "--no-fail-fast"]))
    });
    report.step("tests of the testkit", || {
        tests(cargo(["test", "--locked", "-p", "entrepot-testkit", "--lib"]))
    });
    integration(&mut report, |name| !quick || !REAL.iter().any(|start| name.starts_with(start)))?;
    report.finish()
}

/// The tests of the Worker alone, some of which run the binary, too.
pub(crate) fn run_worker() -> Result<()> {
    let mut report = Report::default();
    integration(&mut report, |name| name.starts_with(WORKER))?;
    report.finish()
}

/// The instructions of a hit alone. `bless`: writes the baseline anew.
pub(crate) fn run_guard(bless: bool) -> Result<()> {
    let binary = build_binary()?;
    let mut command = cargo(test_arguments(GUARD, "2"));
    command.env("ENTREPOT_BIN", binary);
    if bless {
        command.env("ENTREPOT_BLESS", "1");
    }
    run(command)
}

/// The tests that run the binary or the Worker, one file at a time: they measure memory and time, and there may be few
/// processors.
fn integration(report: &mut Report, chosen: impl Fn(&str) -> bool) -> Result<()> {
    let mut binary = None;
    let built = report.step("binary", || {
        binary = Some(build_binary()?);
        Ok(Done::Passed)
    });
    let bundle = build_worker(report);
    for name in integration_tests()?.into_iter().filter(|name| chosen(name)) {
        report.step(&format!("test {name}"), || {
            if !built {
                bail!("not run: there is no binary")
            }
            integration_test(&name, binary.as_deref(), &bundle)
        });
    }
    Ok(())
}

fn integration_test(name: &str, binary: Option<&Path>, bundle: &Bundle) -> Result<Done> {
    match bundle {
        Bundle::Impossible(why) if name.starts_with(WORKER) => {
            return Ok(Done::PassedBut(vec![format!("test {name}: {why}")]));
        }
        Bundle::Failed if name.starts_with(WORKER) => bail!("not run: there is no Worker"),
        Bundle::Built(_) | Bundle::Impossible(_) | Bundle::Failed => {}
    }
    let command = |threads, more: &[&str]| {
        let mut command = cargo(test_arguments(name, threads).into_iter().chain(more.iter().copied()));
        if let Some(binary) = binary {
            command.env("ENTREPOT_BIN", binary);
        }
        if let Bundle::Built(directory) = bundle {
            command.env("ENTREPOT_WORKER", directory);
        }
        command
    };
    let (outcome, noted) = run_noting(command("2", &[]));
    if outcome.is_ok() || !may_be_unsteady(&noted.failed) {
        return judged(outcome, noted);
    }
    // Most of the others wait for something, and a busy machine may have kept them waiting.
    println!("---- test {name}: once more, and alone: {}", noted.failed.join(", "));
    let names: Vec<&str> = ["--exact"].into_iter().chain(noted.failed.iter().map(String::as_str)).collect();
    let (again, alone) = run_noting(command("1", &names));
    again.map(|()| Done::Unsteady { tests: noted.failed, skips: [noted.skips, alone.skips].concat() })
}

/// Whether tests that failed may be run once more.
fn may_be_unsteady(failed: &[String]) -> bool {
    (1..=UNSTEADY).contains(&failed.len())
        && !failed.iter().any(|name| FINAL.iter().any(|group| name.contains(group)))
}

fn test_arguments<'a>(name: &'a str, threads: &'a str) -> Vec<&'a str> {
    let mut arguments = vec!["test", "--locked", "-p", "entrepot-testkit", "--test", name];
    arguments.extend(["--", "--test-threads", threads, "--show-output"]);
    if name == GUARD {
        // It is ignored elsewhere: what it counts depends on how the binary was built.
        arguments.push("--include-ignored");
    }
    arguments
}

/// The Worker, for the tests that run it.
enum Bundle {
    Built(PathBuf),
    /// What this machine lacks.
    Impossible(String),
    Failed,
}

fn build_worker(report: &mut Report) -> Bundle {
    let mut bundle = Bundle::Failed;
    report.step("worker build", || {
        if let Some(missing) = machine::missing_node() {
            bundle = Bundle::Impossible(missing.clone());
            return Ok(Done::PassedBut(vec![format!("worker build: {missing}")]));
        }
        bundle = Bundle::Built(worker::build()?);
        Ok(Done::Passed)
    });
    bundle
}

fn build_binary() -> Result<PathBuf> {
    let features = BINARY_FEATURES.join(",");
    run(cargo(["build", "--locked", "--release", "-p", "entrepot", "--features", &features]))?;
    Ok(Path::new(&layers::target_directory()?).join("release/entrepot"))
}

fn integration_tests() -> Result<Vec<String>> {
    let mut names = layers::test_targets("entrepot-testkit")?;
    // Those with real clients are the slowest: they come last.
    names.sort_by_key(|name| (REAL.iter().any(|start| name.starts_with(start)), name.clone()));
    Ok(names)
}

fn deny() -> Result<Done> {
    if !succeeds(cargo(["deny", "--version"])) {
        return Ok(Done::Optional("cargo-deny is not installed".into()));
    }
    passes(cargo(["deny", "--locked", "check"]))
}

fn passes(command: Command) -> Result<Done> {
    run(command).map(|()| Done::Passed)
}

fn tests(command: Command) -> Result<Done> {
    let (outcome, noted) = run_noting(command);
    judged(outcome, noted)
}

fn judged(outcome: Result<()>, noted: Noted) -> Result<Done> {
    outcome.map(|()| if noted.skips.is_empty() { Done::Passed } else { Done::PassedBut(noted.skips) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_happen_even_once_is_not_tried_twice() {
        let may =
            |names: &[&str]| may_be_unsteady(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert!(may(&["reload::a_file"]) && may(&["a::t_uf2_a_tag", "b::t_ol1_goodput"]));
        assert!(!may(&[]) && !may(&["a", "b", "c"]));
        assert!(!may(&["crash::t_cs1_killed", "reload::a_file"]) && !may(&["methods::t_hc10_t_az9_nothing"]));
        assert!(!may(&["integrity::t_hu1_other_bytes"]) && !may(&["broken::t_uf4_resumed_bytes"]));
    }
}
