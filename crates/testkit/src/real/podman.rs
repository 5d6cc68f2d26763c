//! Podman with storage and configuration of its own. It has no daemon.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::names::{self, Names};
use super::process::{Output, TempDir, run, temp_dir};

const PULL: Duration = Duration::from_secs(300);

/// Podman's state in a temporary directory.
#[derive(Debug)]
pub struct Podman {
    dir: TempDir,
    names: Option<Names>,
}

impl Podman {
    /// Without mirrors; registries on loopback are taken as they are, without TLS.
    pub fn new() -> Podman {
        Podman::set_up(None)
    }

    /// As `new`, with names that only it knows.
    pub fn knowing(names: Names) -> Podman {
        Podman::set_up(Some(names))
    }

    fn set_up(names: Option<Names>) -> Podman {
        let podman = Podman { dir: temp_dir(), names };
        podman.write("policy.json", "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}");
        podman.write("registries.conf", "short-name-mode = \"disabled\"\n");
        podman
    }

    /// Asks `mirror` (`host:port` or `host:port/path`, plain http) first for what is pulled from `host`.
    pub fn mirror(&self, host: &str, mirror: &str) {
        let text = format!(
            "short-name-mode = \"disabled\"\n\n[[registry]]\nprefix = \"{host}\"\nlocation = \"{host}\"\n\n[[registry.mirror]]\nlocation = \"{mirror}\"\ninsecure = true\n"
        );
        self.write("registries.conf", &text);
    }

    /// `podman login`; `Err` is what podman said.
    pub fn login(&self, host: &str, username: &str, password: &str) -> Result<(), String> {
        let args = ["login", "--tls-verify=false", "--username", username, "--password", password, host];
        self.run(&args).or_fail("podman login").map(drop)
    }

    /// Pulls. The image's digests (of its manifest, and of the index it was chosen from) and its id.
    pub fn pull(&self, reference: &str) -> Result<(BTreeSet<String>, String), String> {
        self.run(&["pull", "--quiet", "--tls-verify=false", reference]).or_fail("podman pull")?;
        let said = self.run(&["image", "inspect", reference]).or_fail("podman image inspect")?;
        let images: Value = serde_json::from_str(&said).map_err(|e| format!("podman image inspect: {e}"))?;
        let names = images[0]["RepoDigests"].as_array().cloned().unwrap_or_default();
        let digests =
            names.iter().filter_map(|name| Some(name.as_str()?.split_once('@')?.1.to_owned())).collect();
        Ok((digests, images[0]["Id"].as_str().unwrap_or_default().to_owned()))
    }

    pub fn remove(&self, reference: &str) {
        let done = self.run(&["image", "rm", "--force", reference]);
        assert!(done.success, "podman image rm: {}", done.text());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).expect("the temporary directory is writable");
    }

    fn run(&self, args: &[&str]) -> Output {
        let place = |name: &str| self.dir.path().join(name);
        let mut command = names::command(self.names.as_ref(), "podman");
        command
            .arg("--root")
            .arg(place("root"))
            .arg("--runroot")
            .arg(place("run"))
            .arg("--tmpdir")
            .arg(place("tmp"));
        command
            .args(["--storage-driver=vfs", "--events-backend=none", "--cgroup-manager=cgroupfs"])
            .args(args);
        command.env("CONTAINERS_REGISTRIES_CONF", place("registries.conf"));
        command.env("HOME", self.dir.path()).env("XDG_RUNTIME_DIR", self.dir.path());
        // podman looks for its policy in the user's configuration before the system's.
        let policy = place(".config/containers");
        std::fs::create_dir_all(&policy)
            .and_then(|()| std::fs::copy(place("policy.json"), policy.join("policy.json")))
            .expect("the temporary directory is writable");
        run(&mut command, PULL)
    }
}

impl Default for Podman {
    fn default() -> Podman {
        Podman::new()
    }
}
