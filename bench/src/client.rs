//! The clients of the bench. They run in a process of their own: `entrepot-bench client <task>`, which says on its standard
//! output, as JSON, what it saw.

mod blob;
mod wire;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use blob::{Fetched, Flood, Part};

/// What a client process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Task {
    /// One GET, hashed; answers a [`Fetched`].
    Fetch { address: SocketAddr, path: String, sink: Sink },
    /// The same path again and again over `clients` connections for so long; answers a [`Flood`].
    Flood {
        address: SocketAddr,
        path: String,
        clients: usize,
        sink: Sink,
        spell: Duration,
        /// Random parts instead of the whole.
        part: Option<Part>,
    },
}

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Sink {
    /// The kernel drops them: what is measured is the server.
    Dropped,
    /// They are copied to the client, as a real one does at least.
    Copied,
    /// They are copied and hashed.
    Hashed,
}

/// Runs the task in a process of its own.
pub(crate) fn ask<T: DeserializeOwned>(task: &Task) -> Result<T> {
    let program = std::env::current_exe().context("the bench's own path")?;
    let mut command = Command::new(program);
    command.arg("client").arg(serde_json::to_string(task)?).stdin(Stdio::null());
    let output = command.stderr(Stdio::inherit()).output().context("the client cannot be started")?;
    if !output.status.success() {
        bail!("the client failed ({}) at {task:?}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("what the client said")
}

/// The other side of [`ask`].
pub(crate) fn perform(task: &str) -> Result<()> {
    let answer = match serde_json::from_str(task).context("the task")? {
        Task::Fetch { address, path, sink } => serde_json::to_string(&blob::fetch(address, &path, sink)?)?,
        Task::Flood { address, path, clients, sink, spell, part } => {
            serde_json::to_string(&blob::flood(address, &path, clients, sink, spell, part)?)?
        }
    };
    std::io::stdout().write_all(answer.as_bytes()).context("standard output")
}
