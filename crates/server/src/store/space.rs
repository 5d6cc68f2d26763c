//! The bytes that the store may take: what is held, what is reserved for fills under way, and who goes when it is full.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use entrepot_core::evict::{self, Candidate};
use entrepot_core::time::Wall;
use entrepot_oci::Digest;
use tempfile::NamedTempFile;

use super::index::Entry;
use super::{Shared, seconds};

/// Objects looked up in the index at once.
const SLICE: u32 = 64;

/// Bytes.
#[derive(Debug, Default)]
pub(super) struct Space {
    /// Of objects: the sum of the index' rows.
    pub(super) used: u64,
    /// For fills under way.
    pub(super) reserved: u64,
}

/// Space for one object on its way in; given back when dropped.
#[derive(Debug)]
pub(super) struct Room {
    shared: Arc<Shared>,
    pub(super) bytes: u64,
}

/// Why an object cannot be stored.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPlace {
    /// Everything that is held is being served or filled.
    #[error("the store is full of objects in use")]
    Full,
    #[error(transparent)]
    Disk(#[from] io::Error),
}

impl Room {
    /// More came than was reserved.
    pub(super) fn grow_to(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.bytes);
        self.bytes += more;
        self.shared.space.lock().reserved += more;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shared.space.lock().reserved -= self.bytes;
    }
}

impl Shared {
    /// A temporary file for `size` bytes, if known, and the room for it. A full disk is relieved of the oldest objects.
    pub(super) fn temporary(self: &Arc<Shared>, size: Option<u64>) -> Result<(NamedTempFile, Room), NoPlace> {
        let room = self.reserve(size.unwrap_or(0)).ok_or(NoPlace::Full)?;
        let file = match self.layout.temporary(size) {
            Err(error) if is_full(&error) => {
                self.relieve(size.unwrap_or(0));
                self.layout.temporary(size)?
            }
            other => other?,
        };
        Ok((file, room))
    }

    /// Room for `bytes` more, made by eviction if need be. Held and reserved bytes together never exceed `max_size` by more
    /// than the last object that was let in.
    pub(super) fn reserve(self: &Arc<Shared>, bytes: u64) -> Option<Room> {
        self.make_room(bytes);
        let mut space = self.space.lock();
        if space.used.saturating_add(space.reserved) > self.max_size() {
            return None;
        }
        space.reserved += bytes;
        Some(Room { shared: self.clone(), bytes })
    }

    /// Evicts what was used longest ago until `incoming` bytes fit, passing over what is being served.
    pub(super) fn make_room(&self, incoming: u64) {
        let goal = || {
            let space = self.space.lock();
            evict::goal(self.max_size(), space.used.saturating_add(space.reserved), incoming)
        };
        if goal() == 0 {
            return;
        }
        // One at a time: two would choose the same victims.
        let _one = self.evicting.lock();
        self.evict(evict::plan(goal(), self.candidates()));
    }

    /// The disk is full before the store is: gives up what was used longest ago, `bytes` at least, where it has so much.
    pub(super) fn relieve(&self, bytes: u64) {
        if self.space.lock().used < bytes {
            return;
        }
        let _one = self.evicting.lock();
        self.evict(evict::plan(bytes.max(1), self.candidates()));
    }

    /// Evicts what has outlived its use.
    pub(super) fn evict_outlived(&self, blob_ttl: Option<Duration>) {
        if blob_ttl.is_none() {
            return;
        }
        let now = Wall(seconds().saturating_mul(1000));
        let _one = self.evicting.lock();
        let outlived =
            self.candidates().take_while(|candidate| evict::outlived(candidate.used, blob_ttl, now));
        self.evict(evict::plan(u64::MAX, outlived));
    }

    /// All objects, the one used longest ago first, read from the index as they are asked for.
    fn candidates(&self) -> impl Iterator<Item = Candidate> {
        self.flush_touches();
        self.index.flush();
        let mut last = None;
        std::iter::from_fn(move || {
            let slice = self.index.oldest(last, SLICE);
            let (digest, entry) = slice.last()?;
            last = Some((entry.used, *digest));
            Some(slice)
        })
        .flatten()
        .map(|(digest, entry)| Candidate {
            digest,
            size: entry.stamp.size,
            used: Wall(entry.used.saturating_mul(1000)),
            busy: self.pinned(&digest),
        })
    }

    /// Ends at the first that the disk does not let go.
    fn evict(&self, victims: Vec<Candidate>) {
        for victim in victims {
            // It may have come into use since.
            if self.pinned(&victim.digest) {
                continue;
            }
            if !self.discard(&victim.digest) {
                return;
            }
            self.counts.evicted.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(digest = %victim.digest, "evicted");
        }
    }

    /// Names a file in the index and counts it. The caller holds the books. `room` was reserved for it.
    pub(super) fn enter(&self, digest: Digest, entry: Entry, room: Option<Room>) {
        let before = self.index.object(&digest).map_or(0, |known| known.stamp.size);
        self.index.set_object(digest, Some(entry));
        let reserved = room.map_or(0, |mut room| std::mem::take(&mut room.bytes));
        let mut space = self.space.lock();
        space.used = space.used.saturating_add(entry.stamp.size).saturating_sub(before);
        space.reserved -= reserved;
    }

    /// The opposite. The caller holds the books.
    pub(super) fn strike(&self, digest: &Digest) {
        let Some(known) = self.index.object(digest) else {
            return;
        };
        self.index.set_object(*digest, None);
        let mut space = self.space.lock();
        space.used = space.used.saturating_sub(known.stamp.size);
    }

    /// Counts anew, from the index.
    pub(super) fn recount(&self) {
        let _books = self.books.lock();
        self.index.flush();
        if let Some(total) = self.index.total() {
            self.space.lock().used = total;
        }
    }
}

/// No space, no inodes, or no quota left.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
