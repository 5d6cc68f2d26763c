//! Docker credential helpers: programs that print a user name and a password for a registry.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use entrepot_core::config::Secret;
use entrepot_core::upstream::Identity;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use url::Url;

/// How long an answer is used before the helper is asked again; cloud registries' passwords live for hours.
const FRESH: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(20);

/// Remembers what helpers answered.
#[derive(Debug, Default)]
pub(crate) struct Helpers {
    answered: Mutex<HashMap<(String, String), (Instant, Identity)>>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HelperError {
    #[error("it cannot be run: {0}; is it on the PATH?")]
    Run(#[from] std::io::Error),
    #[error("it did not answer within {} s", PATIENCE.as_secs())]
    Slow,
    #[error("it ended with {0}; run it by hand as `get` with the registry's URL on its standard input")]
    Refused(std::process::ExitStatus),
    #[error("its answer is not the JSON with `Username` and `Secret` that the protocol asks for")]
    Answer,
}

impl Helpers {
    /// Asks `docker-credential-<name> get` for `registry`. An old answer serves on while the helper fails.
    pub(crate) async fn ask(&self, name: &str, registry: &Url) -> Result<Identity, HelperError> {
        let key = (name.to_owned(), registry.to_string());
        let known = self.answered.lock().get(&key).cloned();
        if let Some((at, identity)) = &known
            && at.elapsed() < FRESH
        {
            return Ok(identity.clone());
        }
        match tokio::time::timeout(PATIENCE, run(name, registry)).await.unwrap_or(Err(HelperError::Slow)) {
            Ok(identity) => {
                self.answered.lock().insert(key, (Instant::now(), identity.clone()));
                Ok(identity)
            }
            Err(error) => match known {
                Some((_, identity)) => {
                    tracing::warn!(helper = name, %error, "the credential helper failed; its last answer is used");
                    Ok(identity)
                }
                None => Err(error),
            },
        }
    }
}

async fn run(name: &str, registry: &Url) -> Result<Identity, HelperError> {
    let mut child = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // A helper that does not read has its answer judged all the same.
        let _ = input.write_all(registry.as_str().as_bytes()).await;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        return Err(HelperError::Refused(output.status));
    }
    let answer: Value = serde_json::from_slice(&output.stdout).map_err(|_| HelperError::Answer)?;
    match (answer["Username"].as_str(), answer["Secret"].as_str()) {
        (Some(username), Some(secret)) => {
            Ok(Identity::Basic { username: username.to_owned(), password: Secret::new(secret) })
        }
        _ => Err(HelperError::Answer),
    }
}
