//! What the tests need of the machine, installed where that is possible.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::report::Done;
use crate::run::{command, output, run, succeeds};

/// Real registries and clients, by their Debian packages.
const PACKAGES: &[&str] = &[
    "docker.io",
    "containerd",
    "podman",
    "skopeo",
    "umoci",
    "docker-registry",
    "runc",
    "crun",
    "ca-certificates",
    "openssl",
    "strace",
    "valgrind",
];

pub(crate) const WASM: &str = "wasm32-unknown-unknown";

/// Installs the packages that are missing. Where that is impossible the tests that need them skip, loudly.
pub(crate) fn packages() -> Result<Done> {
    let missing: Vec<&str> = PACKAGES.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        println!("installed: {}", PACKAGES.join(" "));
        return Ok(Done::Passed);
    }
    if !succeeds(command("apt-get", ["--version"])) {
        return Ok(Done::PassedBut(vec![format!(
            "packages: {} are missing and there is no apt-get",
            missing.join(" ")
        )]));
    }
    if output(command("id", ["-u"]))?.trim() != "0" {
        return Ok(Done::PassedBut(vec![format!(
            "packages: run as root once: apt-get install {}",
            missing.join(" ")
        )]));
    }
    apt(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    Ok(Done::Passed)
}

/// The standard library for WebAssembly, which the Worker is compiled against.
pub(crate) fn wasm_target() -> Result<Done> {
    if wasm_installed()? {
        println!("installed: {WASM}");
        return Ok(Done::Passed);
    }
    run(command("rustup", ["target", "add", WASM]))?;
    if !wasm_installed()? {
        bail!("rustup says it added {WASM}, but rustc has no standard library for it");
    }
    Ok(Done::Passed)
}

/// What is missing to run JavaScript, if anything is.
pub(crate) fn missing_node() -> Option<String> {
    let missing: Vec<&str> =
        ["node", "npm"].into_iter().filter(|program| !succeeds(command(program, ["--version"]))).collect();
    (!missing.is_empty()).then(|| format!("{} not found", missing.join(" and ")))
}

/// Installs what `package-lock.json` in this directory names, unless that has been done.
pub(crate) fn npm_packages(directory: &Path) -> Result<()> {
    let lock = fs::read(directory.join("package-lock.json"))
        .with_context(|| format!("package-lock.json in {}", directory.display()))?;
    let installed = directory.join("node_modules/.installed-lock.json");
    if fs::read(&installed).is_ok_and(|done| done == lock) {
        return Ok(());
    }
    // No package of ours needs a script of its own, and none may run one here.
    let mut npm = command("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    npm.current_dir(directory);
    run(npm)?;
    fs::write(&installed, lock).with_context(|| installed.display().to_string())
}

/// Asks rustc and not rustup: a toolchain may have been completed by other means.
fn wasm_installed() -> Result<bool> {
    let libraries = output(command("rustc", ["--print", "target-libdir", "--target", WASM]))?;
    let Ok(entries) = std::fs::read_dir(libraries.trim()) else {
        return Ok(false);
    };
    Ok(entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-")))
}

fn installed(package: &str) -> bool {
    output(command("dpkg-query", ["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut apt = command("apt-get", ["-q", "-o", "Dpkg::Use-Pty=0"]);
    apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    run(apt)
}
