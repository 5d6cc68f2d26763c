//! What to drop when the store is full, and how uses are remembered without a write for each.

use std::collections::BTreeMap;
use std::time::Duration;

use entrepot_oci::digest::Digest;

use crate::time::Wall;

/// A use younger than this is not written again: LRU at this resolution costs one write per object and period.
pub const TOUCH_RESOLUTION: Duration = Duration::from_secs(10 * 60);

/// How many unwritten uses [`Touches`] holds before it asks to be flushed.
pub const MAX_TOUCHES: usize = 4096;

/// Eviction frees down to this share of `max_size`, so that it does not run again with the next object.
const LOW_WATER_PERCENT: u64 = 95;

/// A stored object that might go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub digest: Digest,
    /// Bytes on the store.
    pub size: u64,
    pub used: Wall,
    /// Being served or filled now: never evicted.
    pub busy: bool,
}

/// Bytes to free so that `incoming` more bytes fit: zero while they fit already, else down to the low-water mark. A store
/// never holds more than `max_size` plus what is arriving.
pub fn goal(max_size: u64, used: u64, incoming: u64) -> u64 {
    let wanted = used.saturating_add(incoming);
    if wanted <= max_size {
        return 0;
    }
    let low = max_size / 100 * LOW_WATER_PERCENT;
    wanted.saturating_sub(low).min(used)
}

/// The objects to remove, in order, until `goal` bytes are free. `candidates` come least recently used first, as an index
/// gives them; busy ones are passed over. The answer frees less than `goal` only when there is nothing more to take.
pub fn plan(goal: u64, candidates: impl IntoIterator<Item = Candidate>) -> Vec<Candidate> {
    let mut freed = 0u64;
    let mut chosen = Vec::new();
    for candidate in candidates {
        if freed >= goal {
            break;
        }
        if !candidate.busy {
            freed = freed.saturating_add(candidate.size);
            chosen.push(candidate);
        }
    }
    chosen
}

/// The same for a store that can only list: sorted by last use, then digest, so that the plan is the same for the same
/// store whatever the order of the listing.
pub fn plan_listed(goal: u64, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_unstable_by_key(|candidate| (candidate.used, candidate.digest));
    plan(goal, candidates)
}

/// Whether an object last used at `used` has outlived `blob_ttl` (`None`: it stays until space is needed).
pub fn outlived(used: Wall, blob_ttl: Option<Duration>, now: Wall) -> bool {
    blob_ttl.is_some_and(|ttl| now.since(used) > ttl)
}

/// Uses not yet written to the index. The newest per object wins.
#[derive(Clone, Debug, Default)]
pub struct Touches {
    pending: BTreeMap<Digest, Wall>,
}

impl Touches {
    /// Notes a use at `now` of an object whose written last use is `written`. True: enough have gathered, flush now.
    pub fn touch(&mut self, digest: Digest, written: Wall, now: Wall) -> bool {
        if now.since(written) >= TOUCH_RESOLUTION {
            self.pending.insert(digest, now);
        }
        self.pending.len() >= MAX_TOUCHES
    }

    /// What the index does not know yet about one object.
    pub fn used(&self, digest: &Digest) -> Option<Wall> {
        self.pending.get(digest).copied()
    }

    /// Everything pending, for one transaction.
    pub fn drain(&mut self) -> BTreeMap<Digest, Wall> {
        std::mem::take(&mut self.pending)
    }
}

#[cfg(test)]
mod tests;
