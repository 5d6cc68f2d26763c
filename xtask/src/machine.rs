//! What the tests need of the machine, installed where that is possible.

use anyhow::{Result, bail};

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
