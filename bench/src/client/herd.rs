//! Many clients that pull the same image at once, as dockerd would: the manifest, the configuration, then the layers, three
//! at a time, on connections that are kept. One thread serves them all, so that they leave the processors to the server; the
//! kernel drops what they are sent.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;

use super::wire::{Head, drop_bytes, parse, request};

/// Layers that a client fetches at one time.
const AT_ONCE: usize = 3;
/// How long a client waits for the next bytes.
const SILENCE: Duration = Duration::from_secs(300);

/// What became of a herd. Times are in seconds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Herd {
    /// How long each client took.
    pub(crate) clients: Vec<f64>,
    /// Of each client: from its start to the first byte of a layer.
    pub(crate) first_layers: Vec<f64>,
    /// Of each blob: how long each client waited for its first byte, from when it asked.
    pub(crate) first_bytes: BTreeMap<String, Vec<f64>>,
    pub(crate) bytes: u64,
    /// Why clients gave up.
    pub(crate) failures: Vec<String>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Clone, Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
}

/// What all clients write into.
type Seen = Arc<Mutex<Herd>>;

pub(super) fn pull(address: SocketAddr, repository: &str, tag: &str, clients: usize) -> Result<Herd> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let seen = Seen::default();
    runtime.block_on(async {
        let one = |_| tokio::spawn(client(address, repository.to_owned(), tag.to_owned(), seen.clone()));
        let all: Vec<_> = (0..clients).map(one).collect();
        for client in all {
            if let Err(error) = client.await.context("a client panicked")? {
                note(&seen, |herd| herd.failures.push(format!("{error:#}")));
            }
        }
        anyhow::Ok(())
    })?;
    let mut herd = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    Ok(std::mem::take(&mut herd))
}

async fn client(address: SocketAddr, repository: String, tag: String, seen: Seen) -> Result<()> {
    let start = Instant::now();
    let mut connection = Connection::open(address).await?;
    let manifest = connection.small(&format!("/v2/{repository}/manifests/{tag}")).await?;
    let manifest: Manifest = serde_json::from_slice(&manifest).context("the manifest")?;
    connection.blob(&repository, &manifest.config, &seen).await?;
    let turn = Arc::new(Mutex::new(VecDeque::from(manifest.layers)));
    let mut lines =
        vec![tokio::spawn(layers(connection, repository.clone(), turn.clone(), start, seen.clone()))];
    for _ in 1..AT_ONCE {
        let (repository, turn, seen) = (repository.clone(), turn.clone(), seen.clone());
        lines.push(tokio::spawn(async move {
            layers(Connection::open(address).await?, repository, turn, start, seen).await
        }));
    }
    let mut first = f64::INFINITY;
    for line in lines {
        first = first.min(line.await.context("a client panicked")??);
    }
    let took = start.elapsed().as_secs_f64();
    note(&seen, |herd| {
        herd.clients.push(took);
        herd.first_layers.push(first);
    });
    Ok(())
}

/// Fetches layers while there are any. When the first byte of the first one was there, since the client's start.
async fn layers(
    mut connection: Connection,
    repository: String,
    turn: Arc<Mutex<VecDeque<Descriptor>>>,
    start: Instant,
    seen: Seen,
) -> Result<f64> {
    let mut first = f64::INFINITY;
    loop {
        let next = turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop_front();
        let Some(layer) = next else { return Ok(first) };
        let asked = start.elapsed().as_secs_f64();
        let waited = connection.blob(&repository, &layer, &seen).await?;
        first = first.min(asked + waited);
    }
}

fn note(seen: &Seen, write: impl FnOnce(&mut Herd)) {
    write(&mut seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
}

struct Connection {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Connection> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, ahead: Vec::new() })
    }

    /// A body that is kept.
    async fn small(&mut self, path: &str) -> Result<Vec<u8>> {
        let head = self.get(path).await?;
        let length = usize::try_from(head.length)?;
        while self.ahead.len() < length {
            self.more(path).await?;
        }
        Ok(self.ahead.drain(..length).collect())
    }

    /// A body that is dropped, but for its length. The seconds until its first byte.
    async fn blob(&mut self, repository: &str, blob: &Descriptor, seen: &Seen) -> Result<f64> {
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        let asked = Instant::now();
        let head = self.get(&path).await?;
        if head.length != blob.size {
            bail!("{path}: {} bytes instead of {}", head.length, blob.size);
        }
        if self.ahead.is_empty() {
            within(self.stream.readable(), &path).await?;
        }
        let waited = asked.elapsed().as_secs_f64();
        let mut left = head.length - self.ahead.len() as u64;
        self.ahead.clear();
        while left > 0 {
            within(self.stream.readable(), &path).await?;
            let most = usize::try_from(left).unwrap_or(usize::MAX);
            let fd = self.stream.as_raw_fd();
            match self.stream.try_io(Interest::READABLE, || drop_bytes(fd, most)) {
                Ok(0) => bail!("{path}: closed {left} bytes before the end"),
                Ok(n) => left -= n as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context(path),
            }
        }
        note(seen, |herd| {
            herd.bytes += head.length;
            herd.first_bytes.entry(blob.digest.clone()).or_default().push(waited);
        });
        Ok(waited)
    }

    async fn get(&mut self, path: &str) -> Result<Head> {
        self.stream.write_all(request(path, "").as_bytes()).await?;
        loop {
            if let Some((head, used)) = parse(&self.ahead)? {
                self.ahead.drain(..used);
                if head.status != 200 {
                    bail!("{path}: {}", head.status);
                }
                return Ok(head);
            }
            self.more(path).await?;
        }
    }

    async fn more(&mut self, path: &str) -> Result<()> {
        // Little: what comes with the head has been copied.
        let mut piece = [0; 1024];
        let n = within(self.stream.read(&mut piece), path).await?;
        if n == 0 {
            bail!("{path}: closed before the answer was whole");
        }
        self.ahead.extend_from_slice(&piece[..n]);
        Ok(())
    }
}

async fn within<T>(what: impl Future<Output = io::Result<T>>, path: &str) -> Result<T> {
    let done = tokio::time::timeout(SILENCE, what).await;
    done.map_err(|_| anyhow::anyhow!("{path}: silent for {SILENCE:?}"))?.with_context(|| path.to_owned())
}
