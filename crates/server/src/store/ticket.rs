//! The filling job's hands: takes bytes from upstream, hashes and writes them, and publishes the verified object.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::integrity;
use entrepot_core::upstream::Fault;
use entrepot_engine::ports::{Filled, Ticket};
use entrepot_oci::Hasher;
use futures_util::FutureExt;
use tempfile::NamedTempFile;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Shared;
use super::fill::Fill;
use super::layout::write_at;
use super::space::{NoPlace, Room, is_full};
use crate::client::Incoming;

/// Bytes gathered for one write at most; two such batches exist for each fill.
const BATCH: usize = 256 * 1024;
/// Bytes a second, averaged over a stall time-out, below which a body counts as stalled.
const SLOWEST: u64 = 4 * 1024;

/// See [`Ticket`]. Dropped without `seal` or `fail`, it fails the followers, so that a panic frees the slot.
#[derive(Debug)]
pub(crate) struct FillTicket {
    shared: Arc<Shared>,
    fill: Arc<Fill>,
    size: Option<u64>,
    temporary: Option<(NamedTempFile, Room)>,
    file: Option<Arc<File>>,
    hasher: Hasher,
    received: u64,
    done: bool,
}

/// A batch on its way to the disk.
struct Writing {
    batch: Bytes,
    hashed: oneshot::Receiver<Hasher>,
    written: JoinHandle<io::Result<()>>,
}

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
            if self.received.saturating_add(batch.len() as u64)
                > self.size.unwrap_or_else(|| self.shared.max_size())
            {
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
    fn write(&mut self, batch: Bytes) -> Writing {
        let (file, fill, bytes) = (self.file.clone(), self.fill.clone(), batch.clone());
        let mut hasher = self.hasher.clone();
        let start = self.received;
        let (tell, hashed) = oneshot::channel();
        let written = spawn_blocking(move || {
            hasher.update(&bytes);
            // Nobody listens when the job has been dropped.
            let _ = tell.send(hasher);
            let Some(file) = file else { return Ok(()) };
            write_at(&file, &bytes, start)?;
            fill.wrote(bytes.len() as u64);
            Ok(())
        });
        Writing { batch, hashed, written }
    }

    /// Takes a batch's result over. `false`: it could not be stored, and nobody wants it.
    async fn settle(&mut self, writing: Option<Writing>, patience: Duration) -> bool {
        let Some(Writing { batch, hashed, written }) = writing else {
            return true;
        };
        let Ok(hasher) = hashed.await else { return false };
        self.hasher = hasher;
        let received = self.received + batch.len() as u64;
        self.received = received;
        if self.file.is_some() {
            let error = match self.shared.in_time(written).await {
                Some(Ok(Ok(()))) => {
                    if let Some((_, room)) = &mut self.temporary {
                        room.grow_to(received);
                    }
                    return true;
                }
                Some(Ok(Err(error))) => error,
                Some(Err(panic)) => io::Error::other(panic),
                None => io::ErrorKind::TimedOut.into(),
            };
            self.leave_disk(&error);
            if self.fill.leave_disk() >= received {
                return true;
            }
        }
        self.fill.offer(batch, patience).await
    }

    fn leave_disk(&mut self, error: &io::Error) {
        self.shared.trouble(error);
        self.file = None;
        self.temporary = None;
        if is_full(error) {
            // Too late for this object; there shall be space for the next.
            let (shared, bytes) = (self.shared.clone(), self.size.unwrap_or(BATCH as u64));
            spawn_blocking(move || shared.relieve(bytes));
        }
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
        let made = self.shared.on_disk(move |shared| {
            let (temporary, room) = shared.temporary(size)?;
            Ok((Arc::new(temporary.reopen()?), (temporary, room)))
        });
        match made.await {
            Some(Ok((file, temporary))) => {
                self.file = Some(file);
                self.temporary = Some(temporary);
            }
            Some(Err(NoPlace::Disk(error))) => self.shared.trouble(&error),
            Some(Err(NoPlace::Full)) => {
                tracing::warn!(digest = %self.fill.digest, "not stored: the store is full of objects in use")
            }
            None => {}
        }
        self.fill.begin(size, self.file.clone());
    }

    async fn fill(&mut self, offset: u64, body: Incoming, stall: Duration) -> Filled {
        let Some(skip) = self.received.checked_sub(offset) else {
            return Filled::Broken { received: self.received, fault: Fault::BadFraming };
        };
        self.pump(Gather { body, skip, pace: Pace::new(stall), rest: Bytes::new(), ended: None }, stall * 2)
            .await
    }

    async fn seal(mut self) -> Result<u64, Failure> {
        let digest = self.fill.digest;
        let found = self.hasher.clone().finish();
        if found != digest {
            let failure = integrity::other_blob(&digest, &found, self.received);
            self.end(Err(failure.clone()));
            return Err(failure);
        }
        self.fill.verified();
        if let Some((temporary, room)) = self.temporary.take() {
            let shared = self.shared.clone();
            let published = spawn_blocking(move || shared.publish(temporary, room, &digest)).await;
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

/// Gathers what has arrived into batches, without waiting for a batch to fill up. The bytes are copied: each piece that
/// arrives would keep a whole read buffer of the connection alive.
struct Gather {
    body: Incoming,
    /// Bytes that are held already.
    skip: u64,
    pace: Pace,
    /// What the last batch had no room for.
    rest: Bytes,
    ended: Option<Result<(), Fault>>,
}

impl Gather {
    /// At least one byte; `None` at the end.
    async fn batch(&mut self) -> Result<Option<Bytes>, Fault> {
        let mut batch = Vec::new();
        self.move_rest(&mut batch);
        while batch.len() < BATCH && self.ended.is_none() {
            let next = if batch.is_empty() {
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
                    self.rest = chunk.slice(skipped as usize..);
                    self.move_rest(&mut batch);
                }
            }
        }
        match (batch.is_empty(), self.ended) {
            (false, _) => Ok(Some(batch.into())),
            (true, Some(Err(fault))) => Err(fault),
            (true, _) => Ok(None),
        }
    }

    /// Moves as much of the rest into the batch as it has room for.
    fn move_rest(&mut self, batch: &mut Vec<u8>) {
        let moved = self.rest.split_to(self.rest.len().min(BATCH - batch.len()));
        if !batch.is_empty() && batch.capacity() - batch.len() < moved.len() {
            batch.reserve_exact(BATCH - batch.len());
        }
        batch.extend_from_slice(&moved);
        if self.rest.is_empty() {
            // An empty slice keeps its buffer alive as well.
            self.rest = Bytes::new();
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

    async fn wait(
        &mut self,
        next: impl Future<Output = Option<Result<Bytes, Fault>>>,
    ) -> Option<Result<Bytes, Fault>> {
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
