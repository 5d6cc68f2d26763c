//! The filling job's hands: takes bytes from upstream, hashes and writes them, and publishes the verified object.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::integrity;
use entrepot_core::upstream::Fault;
use entrepot_engine::ports::{Filled, Ticket};
use entrepot_oci::Digest;
use parking_lot::Mutex;
use tempfile::NamedTempFile;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::task::TaskTracker;

use super::Shared;
use super::arriving::{Arriving, BATCH};
use super::disk::PATIENCE;
use super::fill::Fill;
use super::layout::{RESERVED, reserve, write_at};
use super::space::{NoPlace, Room, is_full};
use crate::client::Incoming;

/// See [`Ticket`]. Dropped without `seal` or `fail`, it fails the followers, so that a panic frees the slot.
#[derive(Debug)]
pub(crate) struct FillTicket {
    shared: Arc<Shared>,
    fill: Arc<Fill>,
    size: Option<u64>,
    temporary: Mutex<Option<(NamedTempFile, Room)>>,
    writes: TaskTracker,
    done: bool,
}

/// A batch on its way to the disk.
struct Writing {
    batch: Bytes,
    start: u64,
    /// `None`: there is no file.
    written: Option<JoinHandle<io::Result<()>>>,
}

impl FillTicket {
    pub(super) fn new(shared: Arc<Shared>, fill: Arc<Fill>) -> FillTicket {
        let (temporary, writes) = (Mutex::default(), TaskTracker::new());
        FillTicket { shared, fill, size: None, temporary, writes, done: false }
    }

    /// Reads `body` to its end; one batch is written while the next is gathered. `Err`: how it ended before that.
    async fn pump(
        &self,
        mut body: Arriving,
        wanted: Range<u64>,
        patience: Duration,
    ) -> Result<Filled, Filled> {
        let (mut at, mut writing) = (wanted.start, None);
        let end = wanted.end.min(self.size.unwrap_or_else(|| self.shared.max_size()));
        let ended = loop {
            let batch = match body.batch().await {
                Ok(Some(batch)) => batch,
                Ok(None) => break Ok(()),
                Err(fault) => break Err(fault),
            };
            self.settle(writing.take(), &mut body, patience).await?;
            let start = at;
            at = at.saturating_add(batch.len() as u64);
            if at > end {
                return Err(Filled::TooLong);
            }
            writing = Some(self.write(batch, start));
            // Without a file the followers get their bytes when the batch is settled.
            if self.fill.is_in_order() {
                self.settle(writing.take(), &mut body, patience).await?;
            }
        };
        self.settle(writing, &mut body, patience).await?;
        Ok(match ended {
            _ if at == wanted.end || self.size == Some(at) => Filled::Whole,
            Ok(()) if self.size.is_none() => Filled::Whole,
            Ok(()) => Filled::Broken { received: at, fault: Fault::Reset },
            Err(fault) => Filled::Broken { received: at, fault },
        })
    }

    /// Writes a batch on a thread that may block; followers see it as soon as it is written. It is hashed there as well if
    /// it comes next, while it is at hand; what others have brought before their turn is read back, by yet another thread.
    fn write(&self, batch: Bytes, start: u64) -> Writing {
        let written = self.fill.file().map(|file| {
            let (fill, batch) = (self.fill.clone(), batch.clone());
            self.writes.spawn_blocking(move || {
                write_at(&file, &batch, start)?;
                if fill.wrote(start, start + batch.len() as u64) {
                    fill.hashing.follow(start, &batch);
                }
                if fill.hashing.lags(fill.arrived()) {
                    // An error shows again when the object is sealed.
                    spawn_blocking(move || fill.hash_up());
                }
                Ok(())
            })
        });
        Writing { batch, start, written }
    }

    /// Takes a batch's result over. `Err`: it could not be stored, and is not to go on in memory.
    async fn settle(
        &self,
        writing: Option<Writing>,
        body: &mut Arriving,
        patience: Duration,
    ) -> Result<(), Filled> {
        let Some(Writing { batch, start, written }) = writing else {
            return Ok(());
        };
        let end = start + batch.len() as u64;
        if let Some(written) = written {
            let error = match self.shared.in_time(written).await {
                Some(Ok(Ok(()))) => {
                    if let Some((_, room)) = &mut *self.temporary.lock() {
                        room.grow_to(end);
                    }
                    body.recycle(batch);
                    return Ok(());
                }
                Some(Ok(Err(error))) => error,
                Some(Err(panic)) => io::Error::other(panic),
                None => io::ErrorKind::TimedOut.into(),
            };
            self.leave_disk(&error);
        }
        match self.fill.arrived() {
            arrived if arrived >= end => Ok(()),
            arrived if arrived == start => self.offer(batch, start, patience).await,
            _ => Err(Filled::InOrder),
        }
    }

    /// Has the followers take a batch from memory.
    async fn offer(&self, batch: Bytes, start: u64, patience: Duration) -> Result<(), Filled> {
        let (fill, bytes) = (self.fill.clone(), batch.clone());
        let hashed = spawn_blocking(move || {
            // What pieces have left behind comes first.
            fill.hash_up().ok().and_then(|()| fill.hashing.beyond(start, &bytes))
        });
        let Some(Ok(Some(hasher))) = self.shared.in_time(hashed).await else {
            return Err(Filled::Abandoned);
        };
        // Whoever is given up while it waits here has neither hashed nor offered anything.
        if !self.fill.room(patience).await {
            return Err(Filled::Abandoned);
        }
        self.fill.hashing.set(hasher, start + batch.len() as u64);
        self.fill.offer(batch);
        Ok(())
    }

    fn leave_disk(&self, error: &io::Error) {
        self.fill.leave_disk();
        if self.temporary.lock().take().is_none() {
            return;
        }
        self.shared.trouble(error);
        if is_full(error) {
            // Too late for this object; there shall be space for the next.
            let (shared, bytes) = (self.shared.clone(), self.size.unwrap_or(BATCH as u64));
            spawn_blocking(move || shared.relieve(bytes));
        }
    }
}

impl Ticket for FillTicket {
    type Upstream = Incoming;

    fn takes_pieces(&self) -> bool {
        !self.fill.is_in_order()
    }

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
        let mut file = None;
        match made.await {
            Some(Ok((opened, temporary))) => {
                if let Some(size) = size.filter(|size| *size > RESERVED) {
                    let rest = opened.clone();
                    // Where there turns out to be no space, the writes will tell.
                    spawn_blocking(move || reserve(&rest, RESERVED..size));
                }
                file = Some(opened);
                *self.temporary.lock() = Some(temporary);
            }
            Some(Err(NoPlace::Disk(error))) => self.shared.trouble(&error),
            Some(Err(NoPlace::Full)) => {
                tracing::warn!(digest = %self.fill.digest, "not stored: the store is full of objects in use")
            }
            None => {}
        }
        self.fill.begin(size, file);
    }

    async fn fill(&self, wanted: Range<u64>, offset: u64, body: Incoming, stall: Duration) -> Filled {
        let Some(skip) = wanted.start.checked_sub(offset) else {
            return Filled::Broken { received: wanted.start, fault: Fault::BadFraming };
        };
        let most = if self.size.is_none_or(|size| wanted.end == size) { BATCH } else { BATCH / 4 };
        let body = Arriving::new(body, skip, stall, most);
        self.pump(body, wanted, stall * 2).await.unwrap_or_else(|ended| ended)
    }

    async fn in_order(&self) -> u64 {
        self.writes.close();
        // What is hashed must be what was written last.
        if tokio::time::timeout(PATIENCE, self.writes.wait()).await.is_err() {
            self.leave_disk(&io::ErrorKind::TimedOut.into());
        }
        self.writes.reopen();
        self.fill.forget_ahead();
        self.fill.arrived()
    }

    async fn seal(mut self) -> Result<u64, Failure> {
        let (digest, received) = (self.fill.digest, self.fill.arrived());
        let Some(found) = self.hashed(received).await else {
            let public = format!("the disk lost what was written of {digest}; try again");
            let failure = Failure::new(Reason::StoreFailed, public);
            self.end(Err(failure.clone()));
            return Err(failure);
        };
        if found != digest {
            let failure = integrity::other_blob(&digest, &found, received);
            self.end(Err(failure.clone()));
            return Err(failure);
        }
        self.fill.verified();
        let temporary = self.temporary.lock().take();
        if let Some((temporary, room)) = temporary {
            let shared = self.shared.clone();
            let published = spawn_blocking(move || shared.publish(temporary, room, &digest)).await;
            if let Err(error) = published.map_err(io::Error::other).flatten() {
                self.shared.trouble(&error);
            }
        }
        self.end(Ok(()));
        Ok(received)
    }

    fn fail(mut self, failure: Failure) {
        self.end(Err(failure));
    }
}

impl FillTicket {
    /// The digest of all bytes, once it has come up to them. `None`: they cannot be read back.
    async fn hashed(&self, received: u64) -> Option<Digest> {
        if let Some(digest) = self.fill.hashing.digest(received) {
            return Some(digest);
        }
        let fill = self.fill.clone();
        if let Err(error) = spawn_blocking(move || fill.hash_up()).await.map_err(io::Error::other).flatten() {
            self.shared.trouble(&error);
        }
        self.fill.hashing.digest(received)
    }

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
