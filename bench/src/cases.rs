//! What is measured.

mod blob;
mod cold;
mod evict;
mod growth;
mod herd;
mod idle;
mod manifest;
mod pull;
mod start;
mod wan;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::client::{self, Fetched, Sink, Task};
use crate::options::{Options, Scale};
use crate::peers::{Peer, Place, Server};
use crate::sheet::Sheet;
use crate::upstream::{Stored, TAG, Upstream};

/// A file system in memory.
const MEMORY: &str = "/dev/shm";

/// One case.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What it is, for the reader of the table.
    pub(crate) about: &'static str,
    /// Who is measured beside us unless `--peer` says otherwise.
    pub(crate) peers: &'static [Peer],
    /// How often, unless `--runs` says otherwise.
    pub(crate) runs: u32,
    /// Programs besides the peers.
    pub(crate) needs: &'static [&'static str],
    pub(crate) measure: fn(&Bench<'_>, &mut Sheet) -> Result<()>,
}

/// In the order of the table.
pub(crate) const CASES: &[Case] = &[
    pull::COLD,
    pull::WARM,
    cold::LAYER,
    cold::FAST,
    manifest::BY_TAG,
    manifest::BY_DIGEST,
    manifest::UNLIKE,
    blob::WARM,
    blob::RANGES,
    herd::FIFTY,
    herd::FIVE_HUNDRED,
    idle::IDLE,
    evict::EVICT,
    start::START,
    growth::GROWTH,
];

/// What a case has at hand.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) scale: Scale,
    pub(crate) upstream: &'a Upstream,
    /// Ours first.
    pub(crate) peers: Vec<Peer>,
    pub(crate) runs: u32,
    /// The case's own directory; it goes with the case.
    pub(crate) dir: &'a TempDir,
    /// What is kept for the next run.
    pub(crate) kept: &'a Path,
}

impl Bench<'_> {
    /// Where a peer keeps its things.
    pub(crate) fn dir_of(&self, peer: Peer) -> PathBuf {
        self.dir.path().join(peer.name())
    }

    /// Starts a peer in its own directory, before `upstream`.
    pub(crate) fn start(&self, peer: Peer, upstream: SocketAddr) -> Result<Server> {
        self.start_in(peer, upstream, &self.dir_of(peer))
    }

    /// Starts a peer in a directory of the caller's.
    pub(crate) fn start_in(&self, peer: Peer, upstream: SocketAddr, dir: &Path) -> Result<Server> {
        let access_log = self.options.access_log;
        peer.start(&Place { upstream, dir, max_size: 100 << 30, access_log, admin: None })
    }

    /// The peers, beginning with another one in each run: who comes first has it warmer, or colder.
    pub(crate) fn turn(&self, run: u32) -> Vec<Peer> {
        let mut peers = self.peers.clone();
        let first = run as usize % peers.len().max(1);
        peers.rotate_left(first);
        peers
    }

    pub(crate) fn say(&self, text: impl std::fmt::Display) {
        eprintln!("  {text}");
    }
}

/// Fetches, and fails unless the bytes are what the digest says. Apart from all timing: who only counts bytes does not notice
/// wrong ones.
fn fetch_and_compare(server: &Server, path: &str, digest: &str) -> Result<()> {
    let task = Task::Fetch { address: server.address, path: path.to_owned(), sink: Sink::Hashed };
    let fetched: Fetched = client::ask(&task)?;
    if fetched.digest != digest {
        bail!(
            "{} sent other bytes than {digest}: {} of them with {}\n{}",
            server.peer.name(),
            fetched.bytes,
            fetched.digest,
            server.log()
        );
    }
    Ok(())
}

/// A directory in memory, so that what is measured is not the disk.
fn in_memory() -> Result<TempDir> {
    let place = Path::new(MEMORY);
    tempfile::Builder::new()
        .prefix("entrepot-bench-")
        .tempdir_in(place)
        .with_context(|| place.display().to_string())
}

/// Upstream's own files, under the names by which a static server is asked for them.
fn lay_out(bench: &Bench<'_>, stored: &Stored) -> Result<()> {
    let root = bench.dir_of(Peer::Static).join("root/v2").join(stored.repository);
    let (blobs, manifests) = (root.join("blobs"), root.join("manifests"));
    std::fs::create_dir_all(&blobs)?;
    std::fs::create_dir_all(&manifests)?;
    for blob in &stored.image.blobs {
        std::os::unix::fs::symlink(bench.upstream.file_of(&blob.digest), blobs.join(&blob.digest))?;
    }
    for document in &stored.image.documents {
        std::fs::write(manifests.join(&document.digest), &document.bytes)?;
        std::fs::write(manifests.join(TAG), &document.bytes)?;
    }
    Ok(())
}
