//! skopeo, which copies images whole and changes nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::image::hex;
use super::names::{self, Names};
use super::process::{run, temp_dir};

const COPY: Duration = Duration::from_secs(300);

/// The program; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Skopeo;

impl Skopeo {
    /// `skopeo copy --all --preserve-digests docker://<reference>` into a directory: each file's name there, with the
    /// digest of what it holds.
    pub fn copy(reference: &str) -> Result<BTreeMap<String, String>, String> {
        Skopeo::copy_as(None, None, reference)
    }

    /// As `copy`, by a user (`name:password`), and with names that only it knows.
    pub fn copy_as(
        names: Option<&Names>,
        user: Option<&str>,
        reference: &str,
    ) -> Result<BTreeMap<String, String>, String> {
        let dir = temp_dir();
        let target = format!("dir:{}", dir.path().join("copy").display());
        let source = format!("docker://{reference}");
        let mut args = vec!["copy", "--all", "--preserve-digests", "--src-tls-verify=false"];
        if let Some(user) = user {
            args.extend(["--src-creds", user]);
        }
        args.extend([source.as_str(), &target]);
        run(Skopeo::command(names, dir.path()).args(args), COPY).or_fail("skopeo copy")?;
        let mut files = BTreeMap::new();
        for file in std::fs::read_dir(dir.path().join("copy")).map_err(|e| e.to_string())? {
            let file = file.map_err(|e| e.to_string())?;
            files.insert(
                file.file_name().to_string_lossy().into_owned(),
                hash(&file.path()).map_err(|e| e.to_string())?,
            );
        }
        Ok(files)
    }

    /// The program, with `home` for what it writes beside the copy.
    pub fn command(names: Option<&Names>, home: &Path) -> Command {
        let policy = home.join("policy.json");
        std::fs::write(&policy, "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}")
            .expect("the temporary directory is writable");
        let mut command = names::command(names, "skopeo");
        command.arg("--policy").arg(policy).env("HOME", home).env("XDG_RUNTIME_DIR", home);
        command
    }
}

fn hash(file: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(file)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("sha256:{}", hex(&hash.finalize()))),
            n => hash.update(&buffer[..n]),
        }
    }
}
