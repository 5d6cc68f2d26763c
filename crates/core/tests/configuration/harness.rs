//! What must hold for every text that is given as a configuration. Driven by arbitrary bytes (`fuzz/`) and by what those
//! found.

#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use entrepot_core::config::edge::Place;
use entrepot_core::config::{self, SecretRef};

/// A configuration is a value, or all its problems; what is in force can be shown, and what the edge gets reads back.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(bundle) = config::edge::bundle(text, "config.yml", Place::Platform) {
        let again = config::edge::check(&bundle.value, "bundle", Place::Platform);
        assert!(again.is_ok(), "what the edge gets is refused there: {again:?}");
    }
    match config::parse(text, "config.yml", &mut answer) {
        Ok(loaded) => {
            assert!(!loaded.config.listen.is_empty());
            assert!(loaded.config.default_source.is_none_or(|at| at < loaded.config.sources.len()));
            let shown = config::show(&loaded.config);
            assert!(!shown.contains(SECRET), "a secret is shown: {shown}");
        }
        Err(problems) => {
            // A CR alone ends a line, too, in YAML.
            let lines = u32::try_from(text.split(['\n', '\r']).count()).unwrap() + 1;
            assert!(!problems.0.is_empty());
            for problem in &problems.0 {
                assert!(problem.line <= lines, "a problem in line {} of {lines}: {problem}", problem.line);
                assert!(!problem.to_string().contains(SECRET));
            }
        }
    }
}

const SECRET: &str = "hunter2-b6cd4a";

/// Files can be read, variables cannot.
fn answer(secret: &SecretRef) -> Result<String, String> {
    match secret {
        SecretRef::File(_) => Ok(SECRET.to_owned()),
        SecretRef::Env(name) => Err(format!("no variable `{name}`")),
    }
}
