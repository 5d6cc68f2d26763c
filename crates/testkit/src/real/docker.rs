//! A Docker daemon of our own, with BuildKit.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::names::{self, Names};
use super::process::{Output, Process, TempDir, find, run, temp_dir};

const READY: Duration = Duration::from_secs(40);
/// A gigabyte is hashed, written and unpacked within this on two busy cores.
const PULL: Duration = Duration::from_secs(300);

/// What `docker pull` left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The digest the reference resolved to, as the daemon reports it.
    pub digest: String,
    /// The image's id: the digest of its configuration.
    pub id: String,
    /// Of the uncompressed layers.
    pub layers: Vec<String>,
}

/// What `docker build` left.
#[derive(Clone, Debug)]
pub struct Built {
    pub layers: Vec<String>,
    /// The progress as plain text; it names the digest each base was resolved to.
    pub progress: String,
}

/// `dockerd` on a socket of its own. Loopback addresses are insecure registries by Docker's own default.
#[derive(Debug)]
pub struct Dockerd {
    process: Process,
    dir: TempDir,
}

impl Dockerd {
    /// Starts it; `mirrors` are its `registry-mirrors` for Docker Hub.
    pub fn start(mirrors: &[&str]) -> Dockerd {
        Dockerd::launch(None, mirrors).unwrap_or_else(|log| panic!("dockerd does not start: {log}"))
    }

    /// As `start`, with overlayfs below, as users have it, and all that is its own in a new directory in `place`. Not every
    /// machine lets overlayfs be mounted: then `Err` is the daemon's log.
    pub fn on_overlayfs(place: &Path) -> Result<Dockerd, String> {
        let dir =
            tempfile::Builder::new().prefix("entrepot-").tempdir_in(place).map_err(|e| e.to_string())?;
        Dockerd::on("overlay2", dir, None, &[])
    }

    /// As `start`, with names that only it knows; BuildKit takes no plain HTTP from one of these unless told. `Err` is the log
    /// of a daemon that did not start.
    pub fn launch(names: Option<&Names>, mirrors: &[&str]) -> Result<Dockerd, String> {
        Dockerd::on("vfs", temp_dir(), names, mirrors)
    }

    fn on(driver: &str, dir: TempDir, names: Option<&Names>, mirrors: &[&str]) -> Result<Dockerd, String> {
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut config = serde_json::json!({ "registry-mirrors": mirrors });
        if names.is_some() {
            config["insecure-registries"] = mirrors.into();
        }
        std::fs::write(path("daemon.json"), config.to_string()).expect("the temporary directory is writable");
        let flags = [
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
            "--bridge=none".to_owned(),
            format!("--storage-driver={driver}"),
            format!("--config-file={}", path("daemon.json")),
            format!("--data-root={}", path("data")),
            format!("--exec-root={}", path("exec")),
            format!("--pidfile={}", path("pid")),
            format!("--host=unix://{}", path("docker.sock")),
        ];
        let mut command = names::command(names, "dockerd");
        command.args(flags);
        let process = Process::of(command, dir.path().join("log"));
        let mut dockerd = Dockerd { process, dir };
        let mut probe = dockerd.docker(&["info"]);
        let ready = dockerd.process.ready(READY, || run(&mut probe, READY).success);
        if ready { Ok(dockerd) } else { Err(dockerd.process.log()) }
    }

    /// `docker login`; `Err` is what Docker said.
    pub fn login(&self, host: &str, username: &str, password: &str) -> Result<(), String> {
        let args = ["login", "--username", username, "--password", password, host];
        self.run(&args).or_fail("docker login").map(drop)
    }

    /// Pulls, and says what it got; `Err` is what Docker said.
    pub fn pull(&self, reference: &str) -> Result<Pulled, String> {
        let said = self.run(&["pull", reference]).or_fail("docker pull")?;
        let digest = said.lines().find_map(|line| line.strip_prefix("Digest: "));
        let digest = digest.ok_or_else(|| format!("docker pull named no digest: {said}"))?.to_owned();
        let image = self.inspect(reference)?;
        Ok(Pulled { digest, id: text(&image["Id"]), layers: layers(&image) })
    }

    /// Removes the image, and with it its layers: the next pull fetches them again.
    pub fn remove(&self, reference: &str) {
        let done = self.run(&["image", "rm", "--force", reference]);
        assert!(done.success, "docker image rm: {}", done.text());
        let left = self.run(&["image", "ls", "--quiet", "--all"]).stdout;
        assert!(left.trim().is_empty(), "images are left after the removal: {left}");
    }

    /// `DOCKER_BUILDKIT=1 docker build` of this Dockerfile, with an empty context and no cache.
    pub fn build(&self, dockerfile: &str) -> Result<Built, String> {
        let context = temp_dir();
        let file = context.path().join("Dockerfile");
        std::fs::write(&file, dockerfile).expect("the temporary directory is writable");
        let place = context.path().display().to_string();
        let args = ["build", "--progress=plain", "--no-cache", "--pull", "--tag=built:1", &place];
        let mut command = self.docker(&args);
        command.env("DOCKER_BUILDKIT", "1");
        let done = run(&mut command, PULL);
        let progress = done.text();
        done.or_fail("docker build")?;
        Ok(Built { layers: layers(&self.inspect("built:1")?), progress })
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    fn inspect(&self, reference: &str) -> Result<Value, String> {
        let said = self.run(&["image", "inspect", reference]).or_fail("docker image inspect")?;
        let images: Value = serde_json::from_str(&said).map_err(|e| format!("docker image inspect: {e}"))?;
        Ok(images[0].clone())
    }

    fn run(&self, args: &[&str]) -> Output {
        run(&mut self.docker(args), PULL)
    }

    /// `docker` with these arguments, for those who time it; the rest is told by [`pull`](Dockerd::pull).
    pub fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cli());
        command
            .arg("--host")
            .arg(format!("unix://{}", self.dir.path().join("docker.sock").display()))
            .args(args);
        command.env("HOME", self.dir.path()).env("DOCKER_CONFIG", self.dir.path().join("cli"));
        command.env_remove("DOCKER_HOST").env_remove("DOCKER_CONTEXT").env("DOCKER_CLI_HINTS", "false");
        command
    }
}

/// Debian's own CLI first: it drives the daemon's BuildKit by itself, where later ones want a plug-in.
fn cli() -> PathBuf {
    let debian = PathBuf::from("/usr/bin/docker");
    if debian.is_file() { debian } else { find("docker").expect("docker is installed: ask `need!` first") }
}

fn layers(image: &Value) -> Vec<String> {
    image["RootFS"]["Layers"].as_array().map(|all| all.iter().map(text).collect()).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
