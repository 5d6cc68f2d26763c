//! What the sources of the pure layers may not say, and how long a file should be.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const PURE: &[&str] = &["crates/oci/src", "crates/core/src"];

/// No async, clock, file or environment below the engine: those are arguments there.
const FORBIDDEN: &[&str] = &[
    "async fn",
    "async move",
    ".await",
    "SystemTime::now",
    "Instant::now",
    "std::fs",
    "std::env",
    "std::net::Tcp",
];

/// A file longer than this probably holds more than one thing.
const LONG: usize = 600;

pub(crate) fn check() -> Result<()> {
    let mut problems = Vec::new();
    for directory in PURE {
        for path in rust_files(Path::new(directory))? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            problems
                .extend(forbidden(&text).map(|(line, word)| format!("{}:{line}: `{word}`", path.display())));
        }
    }
    for directory in ["bench", "crates", "xtask"] {
        for path in rust_files(Path::new(directory))? {
            let lines =
                fs::read_to_string(&path).with_context(|| path.display().to_string())?.lines().count();
            if lines > LONG {
                println!("warning: {} has {lines} lines; it may hold more than one thing", path.display());
            }
        }
    }
    if !problems.is_empty() {
        bail!(
            "the pure layers take time, randomness, files and environment as arguments:\n{}",
            problems.join("\n")
        );
    }
    println!("sources: nothing impure in {}", PURE.join(", "));
    Ok(())
}

fn forbidden(text: &str) -> impl Iterator<Item = (usize, &'static str)> + '_ {
    text.lines().enumerate().flat_map(|(index, line)| {
        let code = line.split("//").next().unwrap_or_default();
        FORBIDDEN.iter().filter(move |word| code.contains(**word)).map(move |word| (index + 1, *word))
    })
}

fn rust_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_may_name_what_code_may_not_use() {
        let text = "// std::fs is not for us\nlet a = 1; // .await\nlet b = std::env::args();\n";
        assert_eq!(forbidden(text).collect::<Vec<_>>(), [(3, "std::env")]);
    }
}
