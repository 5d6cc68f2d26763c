//! `cargo xtask gen`: the reference page, the sample and the JSON schema of the configuration, written from the one table
//! that the parser reads by.

mod page;
mod sample;
mod schema;

use std::path::Path;

use anyhow::{Context, Result, bail};

/// What a generated file says of itself.
const NOTE: &str = "Written by `cargo xtask gen` from crates/core/src/config/schema.rs; change it there.";

/// Every generated file and its text.
fn files() -> Result<[(&'static str, String); 3]> {
    Ok([
        ("docs/configuration.md", page::text()),
        ("docs/config.sample.yml", sample::text()),
        ("docs/config.schema.json", schema::text()?),
    ])
}

/// Writes the files that differ.
pub(crate) fn write() -> Result<()> {
    for (path, text) in files()? {
        if std::fs::read_to_string(path).ok().as_deref() == Some(&text) {
            continue;
        }
        let directory = Path::new(path).parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
        std::fs::write(path, text).with_context(|| path.to_owned())?;
        println!("gen: wrote {path}");
    }
    Ok(())
}

/// Fails, naming each file that differs from what the table says, and the first line where it does.
pub(crate) fn check() -> Result<()> {
    let mut stale = Vec::new();
    for (path, text) in files()? {
        let found = std::fs::read_to_string(path).unwrap_or_default();
        if found != text {
            stale.push(format!("{path}:{} differs from the schema", first_difference(&found, &text)));
        }
    }
    if !stale.is_empty() {
        bail!("{}\nrun `cargo xtask gen` and commit what it writes", stale.join("\n"));
    }
    println!("gen: the generated files are up to date");
    Ok(())
}

/// From 1.
fn first_difference(found: &str, wanted: &str) -> usize {
    let same = found.lines().zip(wanted.lines()).take_while(|(found, wanted)| found == wanted).count();
    same + 1
}

#[cfg(test)]
mod tests {
    use entrepot_core::config::{self, Auth, SecretRef};

    use super::*;

    #[test]
    fn the_sample_is_a_configuration() {
        let mut secrets = |_: &SecretRef| Ok("secret".to_owned());
        let loaded = match config::parse(&sample::text(), "config.sample.yml", &mut secrets) {
            Ok(loaded) => loaded,
            Err(problems) => panic!("{problems}"),
        };
        assert_eq!(loaded.warnings, []);
        let hub = &loaded.config.sources[0];
        assert!(matches!(&hub.auth, Some(Auth::Static { username, .. }) if username == "u"));
        assert_eq!(hub.hosts[0], "docker.example.com");
        assert_eq!(loaded.config.cache.rules.len(), 1);
    }

    #[test]
    fn every_example_that_is_set_aside_would_be_accepted_too() {
        let aside: Vec<String> = sample::text()
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("# ").map(|line| line.trim().to_owned()))
            .filter(|line| line.split_once(": ").is_some_and(|(key, _)| !key.contains(' ')))
            .collect();
        for key in ["cert", "key", "tokens_file", "tokens_env", "password", "password_env", "helper"] {
            assert!(
                aside.iter().any(|line| line.trim().starts_with(&format!("{key}: \""))),
                "{key}: {aside:?}"
            );
        }
        let auth = |line: &str| {
            format!(
                "proxy:\n  sources:\n    - name: a\n      url: https://a.example.com\n      auth: {{ username: u, {line} }}\n"
            )
        };
        for key in ["password", "password_env", "helper"] {
            let line =
                aside.iter().find(|line| line.starts_with(&format!("{key}: "))).cloned().unwrap_or_default();
            let text = if key == "helper" { auth(&line).replace("username: u, ", "") } else { auth(&line) };
            let outcome = config::parse(&text, "c", &mut |_| Ok("s".to_owned()));
            assert!(outcome.is_ok(), "{text}{outcome:?}");
        }
    }

    #[test]
    fn a_difference_has_a_line() {
        assert_eq!(first_difference("", "a\n"), 1);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), 2);
        assert_eq!(first_difference("a\n", "a\nb\n"), 2);
    }
}
