//! Who is measured: us, and what a user would take instead.

mod nginx;
mod ours;
mod registry;

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use entrepot_testkit::mirror::free_address;
use entrepot_testkit::real::{Process, find};
use serde::Serialize;

use crate::measure::Tree;

/// How long a server may take to listen.
const READY: Duration = Duration::from_secs(30);

/// In the order of the table's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// Us.
    Entrepot,
    /// nginx with `proxy_cache` and its lock.
    Nginx,
    /// nginx sending the same bytes as files, with sendfile: what most take for the physical limit.
    Static,
    /// docker-registry in proxy mode.
    DockerRegistry,
    /// No mirror: the upstream itself.
    Direct,
}

/// What a server is started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Where it fetches from.
    pub(crate) upstream: SocketAddr,
    /// Its own directory; what lies there from an earlier start is warm.
    pub(crate) dir: &'a Path,
    /// Bytes that it may store.
    pub(crate) max_size: u64,
    /// Whether it writes a line for each request.
    pub(crate) access_log: bool,
    /// Where we show our metrics, if anywhere.
    pub(crate) admin: Option<SocketAddr>,
}

/// A running peer. Ended when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    process: Option<Process>,
}

impl Peer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::Entrepot => "entrepot",
            Peer::Nginx => "nginx",
            Peer::Static => "static",
            Peer::DockerRegistry => "docker-registry",
            Peer::Direct => "direct",
        }
    }

    /// The program that this machine lacks for it, and how to get it.
    pub(crate) fn missing(self) -> Option<&'static str> {
        let (program, remedy) = match self {
            Peer::Entrepot | Peer::Direct => return None,
            Peer::Nginx | Peer::Static => ("nginx", "apt-get install nginx-light"),
            Peer::DockerRegistry => ("docker-registry", "apt-get install docker-registry"),
        };
        find(program).is_none().then_some(remedy)
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(self, place: &Place<'_>) -> Result<Server> {
        if self == Peer::Direct {
            return Ok(Server { peer: self, address: place.upstream, process: None });
        }
        let mut last = String::new();
        // Another program may take the port in between: then on another.
        for _ in 0..3 {
            let address = free_address();
            let mut process = self.launch(place, address)?;
            if process.ready(READY, || TcpStream::connect(address).is_ok()) {
                return Ok(Server { peer: self, address, process: Some(process) });
            }
            last = process.log();
        }
        bail!("{} does not start: {last}", self.name())
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn launch(self, place: &Place<'_>, address: SocketAddr) -> Result<Process> {
        Ok(Process::of(self.command(place, address)?, place.dir.join("log")))
    }

    /// What starts it, once its configuration is written. A static server serves what lies in `dir/root`.
    pub(crate) fn command(self, place: &Place<'_>, address: SocketAddr) -> Result<Command> {
        std::fs::create_dir_all(place.dir).with_context(|| place.dir.display().to_string())?;
        match self {
            Peer::Entrepot => ours::mirror(place, address),
            Peer::Nginx => nginx::caching(place, address),
            Peer::Static => nginx::files(place, address),
            Peer::DockerRegistry => registry::proxy(place, address),
            Peer::Direct => bail!("upstream itself is not started for a case"),
        }
    }
}

impl Server {
    /// Its processes; none of `direct`, whose are not the peer's.
    pub(crate) fn tree(&self) -> Option<Tree> {
        self.process.as_ref().map(|process| Tree { root: process.id() })
    }

    /// Processor time so far, in seconds; none of `direct`.
    pub(crate) fn cpu(&self) -> Option<f64> {
        self.tree().map(|tree| tree.cpu().as_secs_f64())
    }

    /// What it said last, for a message.
    pub(crate) fn log(&self) -> String {
        let log = self.process.as_ref().map(Process::log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// A program that the peer consists of; `missing` has been asked before.
fn program(name: &str) -> Result<Command> {
    Ok(Command::new(find(name).with_context(|| format!("{name} is not installed"))?))
}
