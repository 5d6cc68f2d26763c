//! One object on its way in: a job writes, any number of clients follow.
//!
//! The bytes go to a temporary file, in pieces perhaps, and followers read the part that is there without a gap. When the disk cannot take them, the fill
//! goes on through a small window in memory, at the pace of its slowest follower; late comers then go elsewhere.
//! The object's last bytes are held back until its digest matches.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::failure::{Failure, Reason};
use entrepot_oci::Digest;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::hashing::Hashing;

/// Bytes held back from followers until the digest matches.
pub(crate) const HELD_BACK: u64 = 64 * 1024;
/// Bytes in memory when the disk cannot take them; more than [`HELD_BACK`], or nothing would ever be released.
const WINDOW: u64 = 1 << 20;

/// What followers and the filling job share.
pub(crate) struct Fill {
    pub(crate) digest: Digest,
    /// Where it comes from.
    by: Box<str>,
    pub(super) hashing: Hashing,
    inner: Mutex<Inner>,
    progress: watch::Sender<Progress>,
    /// A follower has moved on or gone: the window may have room.
    moved: Notify,
}

#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Known once upstream has answered with a length, else at the end.
    pub(crate) size: Option<u64>,
    /// Bytes from the start that have arrived, without a gap.
    pub(crate) arrived: u64,
    pub(crate) phase: Phase,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Running,
    /// All bytes are there and the digest matches.
    Verified,
    Failed(Failure),
}

#[derive(Default)]
struct Inner {
    file: Option<Arc<File>>,
    /// Bytes in the file, from the start and without a gap.
    written: u64,
    /// What is in the file beyond that: first byte, and one past the last.
    ahead: BTreeMap<u64, u64>,
    window: Option<Window>,
    next: u64,
    /// The next byte each follower needs.
    followers: BTreeMap<u64, u64>,
}

#[derive(Default)]
struct Window {
    start: u64,
    chunks: VecDeque<Bytes>,
    bytes: u64,
}

/// Where a piece of the object is to be read.
pub(crate) enum Piece {
    /// In the file; so many bytes are there.
    File(Arc<File>, u64),
    Memory(Bytes),
    /// Neither: the follower was too slow for the window.
    Lost,
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fill")
            .field("digest", &self.digest)
            .field("progress", &*self.progress.borrow())
            .finish()
    }
}

impl Fill {
    pub(crate) fn new(digest: Digest, by: &str) -> Arc<Fill> {
        let progress = watch::Sender::new(Progress { size: None, arrived: 0, phase: Phase::Running });
        let hashing = Hashing::new(digest.algorithm());
        let (inner, moved) = (Mutex::default(), Notify::new());
        Arc::new(Fill { digest, by: by.into(), hashing, inner, progress, moved })
    }

    /// Joins the followers; `None` when the beginning is no longer to be had.
    pub(crate) fn follow(self: &Arc<Fill>) -> Option<Place> {
        let mut inner = self.inner.lock();
        if !self.joinable_as(&inner) {
            return None;
        }
        let id = inner.next;
        inner.next += 1;
        inner.followers.insert(id, 0);
        Some(Place { fill: self.clone(), id, progress: self.progress.subscribe() })
    }

    /// Whether a client that comes now can still have everything.
    pub(crate) fn joinable(&self) -> bool {
        self.joinable_as(&self.inner.lock())
    }

    fn joinable_as(&self, inner: &Inner) -> bool {
        inner.window.is_none() || self.progress.borrow().arrived == 0
    }

    // The filling job's side.

    /// Upstream answered. Without a file, everything goes through the window.
    pub(crate) fn begin(&self, size: Option<u64>, file: Option<Arc<File>>) {
        {
            let mut inner = self.inner.lock();
            if file.is_none() {
                inner.window = Some(Window::default());
            }
            inner.file = file;
        }
        self.progress.send_modify(|progress| progress.size = size);
    }

    /// The file, as long as it takes what arrives.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        let inner = self.inner.lock();
        inner.file.clone().filter(|_| inner.window.is_none())
    }

    /// Whether everything must come in order, for want of a file.
    pub(crate) fn is_in_order(&self) -> bool {
        self.inner.lock().window.is_some()
    }

    /// Bytes from the start that have arrived, without a gap.
    pub(crate) fn arrived(&self) -> u64 {
        self.progress.borrow().arrived
    }

    /// The bytes from `start` to `end` are in the file. `false`: too late, the disk has been left, and they go another way.
    pub(crate) fn wrote(&self, start: u64, end: u64) -> bool {
        let mut inner = self.inner.lock();
        if inner.window.is_some() {
            return false;
        }
        inner.put(start, end);
        let before = inner.written;
        while let Some((&start, &end)) = inner.ahead.first_key_value()
            && start <= inner.written
        {
            inner.ahead.pop_first();
            inner.written = inner.written.max(end);
        }
        if inner.written > before {
            self.progress.send_modify(|progress| progress.arrived = inner.written);
        }
        true
    }

    /// Forgets what came before its turn: its bytes come again, and whoever brings them has the last word.
    pub(crate) fn forget_ahead(&self) {
        self.inner.lock().ahead.clear();
    }

    /// Reads and hashes what is in the file and not hashed yet. Blocks.
    pub(crate) fn hash_up(&self) -> std::io::Result<()> {
        let (file, written) = {
            let inner = self.inner.lock();
            (inner.file.clone(), inner.written)
        };
        match file {
            Some(file) => self.hashing.read_up(&file, || self.inner.lock().written),
            None if written == 0 => Ok(()),
            None => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    /// The file takes no more: go on through the window. How many bytes the file has.
    pub(crate) fn leave_disk(&self) -> u64 {
        let mut inner = self.inner.lock();
        if inner.window.is_none() {
            inner.window = Some(Window { start: inner.written, ..Window::default() });
        }
        inner.written
    }

    /// Waits while the window is full for the slowest follower, `patience` at the longest; who is slower than that is left
    /// behind. `false` when nobody is left.
    pub(crate) async fn room(&self, patience: Duration) -> bool {
        loop {
            let moved = self.moved.notified();
            {
                let mut inner = self.inner.lock();
                if inner.followers.is_empty() {
                    return false;
                }
                if inner.make_room() {
                    return true;
                }
            }
            if tokio::time::timeout(patience, moved).await.is_err() {
                self.inner.lock().leave_slowest_behind();
            }
        }
    }

    /// Offers a batch through the window.
    pub(crate) fn offer(&self, batch: Bytes) {
        let bytes = batch.len() as u64;
        if let Some(window) = &mut self.inner.lock().window {
            window.bytes += bytes;
            window.chunks.push_back(batch);
        }
        self.progress.send_modify(|progress| progress.arrived += bytes);
    }

    /// The digest matches: everything that arrived is released, and the size is what arrived.
    pub(crate) fn verified(&self) {
        self.progress.send_modify(|progress| {
            progress.size = Some(progress.arrived);
            progress.phase = Phase::Verified;
        });
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.progress.send_modify(|progress| {
            if matches!(progress.phase, Phase::Running) {
                progress.phase = Phase::Failed(failure);
            }
        });
    }
}

impl Inner {
    fn put(&mut self, start: u64, end: u64) {
        match self.ahead.range_mut(..start).next_back() {
            Some((_, before)) if *before == start => *before = end,
            _ => drop(self.ahead.insert(start, end)),
        }
    }

    /// Drops from the window what every follower has; whether there is room now.
    fn make_room(&mut self) -> bool {
        let needed = self.followers.values().copied().min().unwrap_or(u64::MAX);
        let Some(window) = &mut self.window else {
            return true;
        };
        while let Some(first) = window.chunks.front() {
            let end = window.start + first.len() as u64;
            if end > needed {
                break;
            }
            window.bytes -= first.len() as u64;
            window.start = end;
            window.chunks.pop_front();
        }
        window.bytes < WINDOW
    }

    fn leave_slowest_behind(&mut self) {
        if let Some(slowest) = self.followers.values().copied().min() {
            self.followers.retain(|_, at| *at != slowest);
        }
    }
}

impl Window {
    fn at(&self, offset: u64, max: usize) -> Option<Bytes> {
        let mut start = self.start;
        for chunk in &self.chunks {
            let end = start + chunk.len() as u64;
            if (start..end).contains(&offset) {
                let from = (offset - start) as usize;
                return Some(chunk.slice(from..chunk.len().min(from.saturating_add(max))));
            }
            start = end;
        }
        None
    }
}

/// A follower's place; given up when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    fill: Arc<Fill>,
    id: u64,
    progress: watch::Receiver<Progress>,
}

impl Place {
    pub(crate) fn filled_by(&self, by: &str) -> bool {
        *self.fill.by == *by
    }

    /// The size, once known. Of an object that would be held back whole, not before its digest matches: then a wrong
    /// one is still a clear answer, and not a broken connection.
    pub(crate) async fn head(&mut self) -> Result<u64, Failure> {
        let known = self
            .progress
            .wait_for(|progress| match progress.phase {
                Phase::Running => progress.size.is_some_and(|size| size > HELD_BACK),
                Phase::Verified | Phase::Failed(_) => true,
            })
            .await
            .map(|progress| progress.clone());
        match known {
            Ok(Progress { phase: Phase::Failed(failure), .. }) => Err(failure),
            Ok(Progress { size: Some(size), .. }) => Ok(size),
            _ => Err(Failure::new(Reason::Internal, "the download ended unexpectedly; try again")),
        }
    }

    /// The next byte needed is `at`.
    pub(crate) fn move_to(&self, at: u64) {
        if let Some(mine) = self.fill.inner.lock().followers.get_mut(&self.id) {
            *mine = at;
        }
        self.fill.moved.notify_one();
    }

    /// Where the bytes from `at` on are, waiting until at least one is released; `max` at the most.
    pub(crate) async fn piece(&mut self, at: u64, max: usize) -> Result<Piece, Failure> {
        let released = loop {
            let progress = self.progress.borrow_and_update().clone();
            let released = match progress.phase {
                Phase::Failed(failure) => return Err(failure),
                Phase::Verified => progress.arrived,
                Phase::Running => match progress.size {
                    Some(size) => progress.arrived.min(size.saturating_sub(HELD_BACK)),
                    None => 0,
                },
            };
            if released > at {
                break released;
            }
            if self.progress.changed().await.is_err() {
                return Err(Failure::new(Reason::Internal, "the download ended unexpectedly; try again"));
            }
        };
        let max = max.min(usize::try_from(released - at).unwrap_or(usize::MAX));
        let inner = self.fill.inner.lock();
        if let Some(file) = inner.file.as_ref().filter(|_| at < inner.written) {
            return Ok(Piece::File(file.clone(), (max as u64).min(inner.written - at)));
        }
        let piece = inner.window.as_ref().and_then(|window| window.at(at, max));
        Ok(piece.map_or(Piece::Lost, Piece::Memory))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.fill.inner.lock().followers.remove(&self.id);
        self.fill.moved.notify_one();
    }
}
