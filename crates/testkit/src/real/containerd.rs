//! A containerd of our own, driven by `ctr`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use super::names::{self, Names};
use super::process::{Process, TempDir, find, run, temp_dir, until};

const READY: Duration = Duration::from_secs(20);
const PULL: Duration = Duration::from_secs(300);

/// `containerd` on a socket of its own, with a directory of `hosts.toml` files.
#[derive(Debug)]
pub struct Containerd {
    process: Process,
    dir: TempDir,
    names: Option<Names>,
}

impl Containerd {
    pub fn start() -> Containerd {
        Containerd::launch(None)
    }

    /// As `start`, with names that `ctr`, which asks the registries, knows alone.
    pub fn knowing(names: Names) -> Containerd {
        Containerd::launch(Some(names))
    }

    fn launch(names: Option<Names>) -> Containerd {
        let dir = temp_dir();
        let at = dir.path().display();
        let config = format!(
            "version = 2\nroot = \"{at}/root\"\nstate = \"{at}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\n  address = \"{at}/sock\"\n[ttrpc]\n  address = \"{at}/sock.ttrpc\"\n"
        );
        let file = dir.path().join("config.toml");
        std::fs::write(&file, config).expect("the temporary directory is writable");
        let program = find("containerd").expect("containerd is installed: ask `need!` first");
        let process =
            Process::start(program, &["--config", &file.display().to_string()], dir.path().join("log"));
        let mut containerd = Containerd { process, dir, names };
        let mut probe = containerd.ctr(&["version"]);
        let ready = containerd.process.ready(READY, || run(&mut probe, READY).success);
        assert!(ready, "containerd does not start: {}", containerd.process.log());
        containerd
    }

    /// Sends what is pulled from `host` to `mirror` alone. Asked at another host than the reference's own, containerd
    /// adds `?ns=<host>`.
    pub fn mirror(&self, host: &str, mirror: &str) {
        self.mirror_with(host, mirror, None);
    }

    /// As `mirror`, and says `Authorization` there.
    pub fn mirror_with(&self, host: &str, mirror: &str, authorization: Option<&str>) {
        let dir = self.hosts().join(host);
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let mut text = format!(
            "server = \"{mirror}\"\n\n[host.\"{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  skip_verify = true\n"
        );
        if let Some(value) = authorization {
            text.push_str(&format!("  [host.\"{mirror}\".header]\n    authorization = \"{value}\"\n"));
        }
        std::fs::write(dir.join("hosts.toml"), text).expect("the temporary directory is writable");
    }

    /// Pulls (all platforms, or this machine's) and unpacks. The digest the reference resolved to, and every digest that
    /// the content store holds then.
    pub fn pull(&self, reference: &str, all_platforms: bool) -> Result<(String, BTreeSet<String>), String> {
        self.pull_as(None, reference, all_platforms)
    }

    /// As `pull`, by a user (`name:password`).
    pub fn pull_as(
        &self,
        user: Option<&str>,
        reference: &str,
        all_platforms: bool,
    ) -> Result<(String, BTreeSet<String>), String> {
        let hosts = self.hosts().display().to_string();
        std::fs::create_dir_all(self.hosts()).expect("the temporary directory is writable");
        let mut args = vec!["images", "pull", "--snapshotter", "native", "--hosts-dir", &hosts];
        if all_platforms {
            args.push("--all-platforms");
        }
        if let Some(user) = user {
            args.extend(["--user", user]);
        }
        args.push(reference);
        run(&mut self.ctr(&args), PULL).or_fail("ctr images pull")?;
        let listed = run(&mut self.ctr(&["images", "ls"]), READY).or_fail("ctr images ls")?;
        let line = listed.lines().find(|line| line.split_whitespace().next() == Some(reference));
        let digest = line.and_then(|line| line.split_whitespace().nth(2));
        let digest = digest.ok_or_else(|| format!("ctr does not list {reference}: {listed}"))?.to_owned();
        Ok((digest, self.content()))
    }

    /// Removes the image and all content that only it needed, and waits until that is gone.
    pub fn remove(&self, reference: &str) {
        let done = run(&mut self.ctr(&["images", "rm", "--sync", reference]), PULL);
        assert!(done.success, "ctr images rm: {}", done.text());
        assert!(
            until(READY, || self.content().is_empty()),
            "content is left after the removal: {:?}",
            self.content()
        );
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    fn content(&self) -> BTreeSet<String> {
        let listed = run(&mut self.ctr(&["content", "ls", "--quiet"]), READY);
        listed.stdout.lines().map(str::to_owned).collect()
    }

    fn hosts(&self) -> std::path::PathBuf {
        self.dir.path().join("hosts")
    }

    fn ctr(&self, args: &[&str]) -> Command {
        let mut command = names::command(self.names.as_ref(), "ctr");
        command.arg("--address").arg(self.dir.path().join("sock")).args(["--namespace", "test"]).args(args);
        command
    }
}
