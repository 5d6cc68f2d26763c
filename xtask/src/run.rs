//! Running other programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};

/// The cargo that runs us, or one of another toolchain if the arguments begin with `+`.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    command("cargo", arguments)
}

pub(crate) fn command<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs with the output shown; an error unless it succeeds.
pub(crate) fn run(mut command: Command) -> Result<()> {
    eprintln!("$ {}", shown(&command));
    let status = command.status().with_context(|| shown(&command))?;
    if !status.success() {
        bail!("`{}`: {status}", shown(&command));
    }
    Ok(())
}

/// What the output of tests says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Noted {
    /// What stands behind `SKIPPED `, once each.
    pub(crate) skips: Vec<String>,
    /// The names of the tests that failed.
    pub(crate) failed: Vec<String>,
}

impl Noted {
    fn line(&mut self, line: &str) {
        let failed = |line: &str| Some(line.strip_prefix("test ")?.strip_suffix(" ... FAILED")?.to_owned());
        if let Some(skip) = line.strip_prefix("SKIPPED ") {
            self.skips.push(skip.to_owned());
        } else if let Some(name) = failed(line) {
            self.failed.push(name);
        }
    }
}

/// Runs with the output shown and looked at, that of a run that fails, too.
pub(crate) fn run_noting(command: Command) -> (Result<()>, Noted) {
    eprintln!("$ {}", shown(&command));
    noting(command, std::io::stdout(), std::io::stderr())
}

fn noting(
    mut command: Command,
    stdout: impl Write + Send + 'static,
    stderr: impl Write + Send + 'static,
) -> (Result<()>, Noted) {
    let noted = Arc::new(Mutex::new(Noted::default()));
    let outcome = (|| {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| shown(&command))?;
        let out = child.stdout.take().map(|pipe| relay(pipe, stdout, noted.clone()));
        let err = child.stderr.take().map(|pipe| relay(pipe, stderr, noted.clone()));
        let status = child.wait()?;
        for reader in [out, err].into_iter().flatten() {
            // A reader only ends early if our own output is closed, and then nobody is left to tell.
            let _ = reader.join();
        }
        if !status.success() {
            bail!("`{}`: {status}", shown(&command));
        }
        Ok(())
    })();
    let mut noted = std::mem::take(&mut *noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    noted.skips.sort();
    noted.skips.dedup();
    (outcome, noted)
}

/// Standard output as text; an error unless it succeeds.
pub(crate) fn output(mut command: Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| shown(&command))?;
    if !output.status.success() {
        bail!("`{}`: {}", shown(&command), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| shown(&command))
}

/// Whether it can be run and succeeds; its output is not shown.
pub(crate) fn succeeds(mut command: Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn relay(
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    noted: Arc<Mutex<Noted>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line);
            noted.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).line(text.trim());
            if to.write_all(&line).is_err() {
                return;
            }
            line.clear();
        }
    })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_and_failures_are_noted_from_both_streams_of_a_run_that_fails() {
        let script = "echo SKIPPED b: no tool; echo '  SKIPPED a: no tool' >&2; echo not SKIPPED c; \
                      echo test one::two ... FAILED; echo test one::three ... ok; exit 3";
        // Into the void: a run that looks at this test's own output must not find them.
        let (outcome, noted) = noting(command("sh", ["-c", script]), std::io::sink(), std::io::sink());
        assert!(outcome.is_err());
        assert_eq!(noted.skips, ["a: no tool", "b: no tool"]);
        assert_eq!(noted.failed, ["one::two"]);
    }
}
