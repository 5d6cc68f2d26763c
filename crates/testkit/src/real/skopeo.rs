//! skopeo, which copies images whole and changes nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::image::hex;
use super::process::{find, run, temp_dir};

const COPY: Duration = Duration::from_secs(300);

/// The program; it keeps no state.
#[derive(Clone, Copy, Debug)]
pub struct Skopeo;

impl Skopeo {
    /// `skopeo copy --all --preserve-digests docker://<reference>` into a directory: each file's name there, with the
    /// digest of what it holds.
    pub fn copy(reference: &str) -> Result<BTreeMap<String, String>, String> {
        let dir = temp_dir();
        let target = format!("dir:{}", dir.path().join("copy").display());
        let args = [
            "copy",
            "--all",
            "--preserve-digests",
            "--src-tls-verify=false",
            &format!("docker://{reference}"),
            &target,
        ];
        run(Skopeo::command(dir.path()).args(args), COPY).or_fail("skopeo copy")?;
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

    fn command(home: &Path) -> Command {
        let policy = home.join("policy.json");
        std::fs::write(&policy, "{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}")
            .expect("the temporary directory is writable");
        let mut command = Command::new(find("skopeo").expect("skopeo is installed: ask `need!` first"));
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
