//! The clients of the bench. They run in a process of their own: `entrepot-bench client <task>`, which says on its standard
//! output, as JSON, what it saw.

mod blob;
mod herd;
mod hold;
mod wire;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(crate) use blob::{Fetched, Flood, Part};
pub(crate) use herd::Herd;

/// What clients that stay say when they are where they stay.
const READY: &str = "ready\n";

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
    /// These paths one after the other, `rounds` times, by `clients` that share them; answers a [`Flood`].
    Round { address: SocketAddr, paths: Vec<String>, clients: usize, rounds: usize },
    /// An image, by so many clients at once; answers a [`Herd`].
    Herd { address: SocketAddr, repository: String, tag: String, clients: usize },
    /// One answer on each of so many connections, which stay, and are read slowly if `sip`; see [`held`].
    Hold { address: SocketAddr, path: String, connections: usize, sip: bool },
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
    let output = command(task)?.stdin(Stdio::null()).output().context("the client cannot be started")?;
    if !output.status.success() {
        bail!("the client failed ({}) at {task:?}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("what the client said")
}

/// Whether a server says that it is there.
pub(crate) fn answers(address: SocketAddr) -> bool {
    wire::Connection::open(address)
        .and_then(|mut it| it.get("/v2/", None))
        .is_ok_and(|head| head.status == 200)
}

/// Clients that stay until this is dropped.
#[derive(Debug)]
pub(crate) struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a task that stays, and waits until it is where it stays.
pub(crate) fn held(task: &Task) -> Result<Held> {
    let mut command = command(task)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut held = Held(command.spawn().context("the client cannot be started")?);
    let mut said = String::new();
    if let Some(output) = held.0.stdout.take() {
        BufReader::new(output).read_line(&mut said)?;
    }
    if said != READY {
        bail!("the client failed at {task:?}");
    }
    Ok(held)
}

/// The other side of [`ask`] and [`held`].
pub(crate) fn perform(task: &str) -> Result<()> {
    let answer = match serde_json::from_str(task).context("the task")? {
        Task::Fetch { address, path, sink } => serde_json::to_string(&blob::fetch(address, &path, sink)?)?,
        Task::Flood { address, path, clients, sink, spell, part } => {
            serde_json::to_string(&blob::flood(address, &path, clients, sink, spell, part)?)?
        }
        Task::Round { address, paths, clients, rounds } => {
            serde_json::to_string(&blob::round(address, &paths, clients, rounds)?)?
        }
        Task::Herd { address, repository, tag, clients } => {
            serde_json::to_string(&herd::pull(address, &repository, &tag, clients)?)?
        }
        Task::Hold { address, path, connections, sip } => {
            return hold::hold(address, &path, connections, sip, || print!("{READY}"));
        }
    };
    std::io::stdout().write_all(answer.as_bytes()).context("standard output")
}

fn command(task: &Task) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("the bench's own path")?);
    command.arg("client").arg(serde_json::to_string(task)?).stderr(Stdio::inherit());
    Ok(command)
}
