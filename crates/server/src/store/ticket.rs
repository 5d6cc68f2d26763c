//! The filling job's hands: takes bytes from upstream, hashes and writes them, and publishes the verified object.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::upstream::Fault;
use entrepot_engine::ports::{Filled, Ticket};
use entrepot_oci::Hasher;
use futures_util::FutureExt;
use tempfile::NamedTempFile;
use tokio::task::{JoinHandle, spawn_blocking};

use super::fill::Fill;
use super::layout::write_at;
use super::Shared;
use crate::client::Incoming;

/// Bytes gathered for one write; two such batches exist for each fill.
const BATCH: usize = 512 * 1024;
/// Bytes a second, averaged over a stall time-out, below which a body counts as stalled.
const SLOWEST: u64 = 4 * 1024;

/// See [`Ticket`]. Dropped without `seal` or `fail`, it fails the followers, so that a panic frees the slot.
#[derive(Debug)]
pub(crate) struct FillTicket {
    shared: Arc<Shared>,
    fill: Arc<Fill>,
    size: Option<u64>,
    temporary: Option<NamedTempFile>,
    file: Option<Arc<File>>,
    hasher: Hasher,
    received: u64,
    done: bool,
}

/// What a write gives back: the chunks, in case the disk did not take them, and the hash so far.
type Written = (Vec<Bytes>, Hasher, io::Result<()>);

impl FillTicket {
    pub(super) fn new(shared: Arc<Shared>, fill: Arc<Fill>) -> FillTicket {
        let hasher = Hasher::new(fill.digest.algorithm());
        FillTicket { shared, fill, size: None, temporary: None, file: None, hasher, received: 0, done: false }
    }

    /// Reads `body` to its end; one batch is written while the next is gathered.
    async fn pump(&mut self, mut body: Gather, patience: Duration) -> Filled {
        let mut writing = None;
        let ended = loop {
            let batch = match body.batch().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break Ok(()),
                Err(fault) => break Err(fault),
            };
            if !self.settle(writing.take(), patience).await {
                return Filled::Abandoned;
            }
            if self.received.saturating_add(length(&batch)) > self.size.unwrap_or_else(|| self.shared.max_size()) {
                return Filled::TooLong;
            }
            writing = Some(self.write(batch));
            // Without a file the followers get their bytes when the batch is settled.
            if self.file.is_none() && !self.settle(writing.take(), patience).await {
                return Filled::Abandoned;
            }
        };
        if !self.settle(writing, patience).await {
            return Filled::Abandoned;
        }
        let received = self.received;
        match (ended, self.size) {
            (_, Some(size)) if received == size => Filled::Whole,
            (Ok(()), None) => Filled::Whole,
            (Ok(()), Some(_)) => Filled::Broken { received, fault: Fault::Reset },
            (Err(fault), _) => Filled::Broken { received, fault },
        }
    }

    /// Hashes and writes a batch on a thread that may block; followers see it as soon as it is written.
    fn write(&mut self, chunks: Vec<Bytes>) -> JoinHandle<Written> {
        let file = self.file.clone();
        let fill = self.fill.clone();
        let mut hasher = self.hasher.clone();
        let start = self.received;
        spawn_blocking(move || {
            for chunk in &chunks {
                hasher.update(chunk);
            }
            let Some(file) = file else { return (chunks, hasher, Ok(())) };
            let mut at = start;
            for chunk in &chunks {
                if let Err(error) = write_at(&file, chunk, at) {
                    return (chunks, hasher, Err(error));
                }
                at += chunk.len() as u64;
            }
            fill.wrote(at - start);
            (chunks, hasher, Ok(()))
        })
    }

    /// Takes a batch's result over. `false`: it could not be stored, and nobody wants it.
    async fn settle(&mut self, writing: Option<JoinHandle<Written>>, patience: Duration) -> bool {
        let Some(writing) = writing else { return true };
        let Ok((chunks, hasher, written)) = writing.await else { return false };
        self.hasher = hasher;
        self.received += length(&chunks);
        match written {
            Ok(()) if self.file.is_some() => return true,
            Ok(()) => {}
            Err(error) => {
                self.shared.trouble(&error);
                self.fill.leave_disk();
                self.file = None;
                self.temporary = None;
            }
        }
        for chunk in chunks {
            if !self.fill.offer(chunk, patience).await {
                return false;
            }
        }
        true
    }
}

impl Ticket for FillTicket {
    type Upstream = Incoming;

    async fn begin(&mut self, size: Option<u64>) {
        self.size = size;
        if size.is_some_and(|size| size > self.shared.max_size()) {
            // It would push everything else out and still not fit.
            self.fill.begin(size, None);
            return;
        }
        let shared = self.shared.clone();
        let made = spawn_blocking(move || shared.temporary(size)).await.map_err(io::Error::other).flatten();
        match made.and_then(|temporary| Ok((Arc::new(temporary.reopen()?), temporary))) {
            Ok((file, temporary)) => {
                self.file = Some(file);
                self.temporary = Some(temporary);
            }
            Err(error) => self.shared.trouble(&error),
        }
        self.fill.begin(size, self.file.clone());
    }

    async fn fill(&mut self, offset: u64, body: Incoming, stall: Duration) -> Filled {
        let Some(skip) = self.received.checked_sub(offset) else {
            return Filled::Broken { received: self.received, fault: Fault::BadFraming };
        };
        self.pump(Gather { body, skip, pace: Pace::new(stall), ended: None }, stall * 2).await
    }

    async fn seal(mut self) -> Result<u64, Failure> {
        let digest = self.fill.digest;
        let found = self.hasher.clone().finish();
        if found != digest {
            let failure = Failure::new(
                Reason::DigestMismatch,
                format!("upstream sent {} bytes that hash to {found} where {digest} was asked for; nothing was kept", self.received),
            );
            self.end(Err(failure.clone()));
            return Err(failure);
        }
        self.fill.verified();
        if let Some(temporary) = self.temporary.take() {
            let shared = self.shared.clone();
            let published = spawn_blocking(move || shared.publish(temporary, &digest)).await;
            if let Err(error) = published.map_err(io::Error::other).flatten() {
                self.shared.trouble(&error);
            }
        }
        self.end(Ok(()));
        Ok(self.received)
    }

    fn fail(mut self, failure: Failure) {
        self.end(Err(failure));
    }
}

impl FillTicket {
    /// Gives the slot up first, so that whoever hears of a failure can try again.
    fn end(&mut self, ended: Result<(), Failure>) {
        self.done = true;
        self.shared.fills.end(&self.fill);
        if let Err(failure) = ended {
            self.fill.failed(failure);
        }
    }
}

impl Drop for FillTicket {
    fn drop(&mut self) {
        if !self.done {
            self.end(Err(Failure::new(Reason::Internal, "the download ended unexpectedly; try again")));
        }
    }
}

fn length(chunks: &[Bytes]) -> u64 {
    chunks.iter().map(|chunk| chunk.len() as u64).sum()
}

/// Gathers what has arrived into batches, without waiting for a batch to fill up.
struct Gather {
    body: Incoming,
    /// Bytes that are held already.
    skip: u64,
    pace: Pace,
    ended: Option<Result<(), Fault>>,
}

impl Gather {
    /// At least one byte; `None` at the end.
    async fn batch(&mut self) -> Result<Option<Vec<Bytes>>, Fault> {
        let mut chunks = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH && self.ended.is_none() {
            let next = if chunks.is_empty() {
                self.pace.wait(self.body.next()).await
            } else {
                match self.body.next().now_or_never() {
                    Some(next) => next,
                    None => break,
                }
            };
            match next {
                None => self.ended = Some(Ok(())),
                Some(Err(fault)) => self.ended = Some(Err(fault)),
                Some(Ok(chunk)) => {
                    self.pace.took(chunk.len());
                    let skipped = self.skip.min(chunk.len() as u64);
                    self.skip -= skipped;
                    let chunk = chunk.slice(skipped as usize..);
                    bytes += chunk.len();
                    if !chunk.is_empty() {
                        chunks.push(chunk);
                    }
                }
            }
        }
        match (chunks.is_empty(), self.ended) {
            (false, _) => Ok(Some(chunks)),
            (true, Some(Err(fault))) => Err(fault),
            (true, _) => Ok(None),
        }
    }
}

/// Tells a slow body from a stalled one: in each stall time-out spent waiting, some bytes must come. Time in which the
/// disk or the clients are waited for does not count.
struct Pace {
    stall: Duration,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(stall: Duration) -> Pace {
        Pace { stall, waited: Duration::ZERO, bytes: 0 }
    }

    async fn wait(&mut self, next: impl Future<Output = Option<Result<Bytes, Fault>>>) -> Option<Result<Bytes, Fault>> {
        let since = Instant::now();
        let left = self.stall.saturating_sub(self.waited);
        let next = tokio::time::timeout(left, next).await.unwrap_or(Some(Err(Fault::Stalled)));
        self.waited += since.elapsed();
        next
    }

    fn took(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= SLOWEST.saturating_mul(self.stall.as_secs().max(1)) {
            self.waited = Duration::ZERO;
            self.bytes = 0;
        }
    }
}
