//! Host names that exist for one client only.

use std::fmt::Write as _;
use std::process::Command;

use super::process::{TempDir, find, temp_dir};

/// Names of `127.0.0.1` that the programs started through this know, and nobody else does: they see another `/etc/hosts`.
/// Needs root, and `unshare`.
#[derive(Debug)]
pub struct Names {
    dir: TempDir,
}

impl Names {
    pub fn new(names: &[&str]) -> Names {
        let dir = temp_dir();
        let mut text = "127.0.0.1 localhost\n".to_owned();
        for name in names {
            let _ = writeln!(text, "127.0.0.1 {name}");
        }
        std::fs::write(dir.path().join("hosts"), text).expect("the temporary directory is writable");
        Names { dir }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(find("unshare").expect("unshare is installed: ask `need!` first"));
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(self.dir.path().join("hosts"));
        command
    }
}

/// A command that runs the program of this name, for which these names exist, if there are any.
pub(crate) fn command(names: Option<&Names>, program: &str) -> Command {
    let program = find(program).unwrap_or_else(|| panic!("{program} is not installed: ask `need!` first"));
    match names {
        Some(names) => {
            let mut command = names.command();
            command.arg(program);
            command
        }
        None => Command::new(program),
    }
}
