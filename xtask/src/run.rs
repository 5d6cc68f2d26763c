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

/// Runs with the output shown and looked at: answers the lines that `SKIPPED ` begins, even from a run that fails.
pub(crate) fn run_noting_skips(command: Command) -> (Result<()>, Vec<String>) {
    eprintln!("$ {}", shown(&command));
    noting_skips(command, std::io::stdout(), std::io::stderr())
}

fn noting_skips(
    mut command: Command,
    stdout: impl Write + Send + 'static,
    stderr: impl Write + Send + 'static,
) -> (Result<()>, Vec<String>) {
    let skips = Arc::new(Mutex::new(Vec::new()));
    let outcome = (|| {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().with_context(|| shown(&command))?;
        let out = child.stdout.take().map(|pipe| relay(pipe, stdout, skips.clone()));
        let err = child.stderr.take().map(|pipe| relay(pipe, stderr, skips.clone()));
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
    let mut skips = std::mem::take(&mut *skips.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
    skips.sort();
    skips.dedup();
    (outcome, skips)
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
    skips: Arc<Mutex<Vec<String>>>,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut lines = BufReader::new(from);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            if let Some(skip) = String::from_utf8_lossy(&line).trim().strip_prefix("SKIPPED ") {
                skips.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(skip.to_owned());
            }
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
    fn skips_are_noted_from_both_streams_of_a_run_that_fails() {
        let script = "echo SKIPPED b: no tool; echo '  SKIPPED a: no tool' >&2; echo not SKIPPED c; exit 3";
        // Into the void: a run that looks at this test's own output must not find them.
        let (outcome, skips) = noting_skips(command("sh", ["-c", script]), std::io::sink(), std::io::sink());
        assert!(outcome.is_err());
        assert_eq!(skips, ["a: no tool", "b: no tool"]);
    }
}
