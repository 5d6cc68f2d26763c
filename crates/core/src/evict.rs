//! What to drop when the store is full, and what has outlived its use.

use std::time::Duration;

use entrepot_oci::digest::Digest;

use crate::time::Wall;

/// A stored object that might go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub digest: Digest,
    /// Bytes on the store.
    pub size: u64,
    pub used: Wall,
    /// Being served now: never evicted.
    pub busy: bool,
}

/// Bytes to free so that `incoming` more bytes fit. A store never holds more than `max_size` plus what is arriving.
pub fn goal(max_size: u64, used: u64, incoming: u64) -> u64 {
    used.saturating_add(incoming).saturating_sub(max_size).min(used)
}

/// The objects to remove, in order, until `goal` bytes are free. `candidates` come least recently used first, as an index
/// gives them; busy ones are passed over, and no more of them are asked for than it takes. The answer frees less than
/// `goal` only when there is nothing more to take.
pub fn plan(goal: u64, candidates: impl IntoIterator<Item = Candidate>) -> Vec<Candidate> {
    let mut candidates = candidates.into_iter();
    let mut freed = 0u64;
    let mut chosen = Vec::new();
    while freed < goal {
        let Some(candidate) = candidates.next() else { break };
        if !candidate.busy {
            freed = freed.saturating_add(candidate.size);
            chosen.push(candidate);
        }
    }
    chosen
}

/// Whether an object last used at `used` has outlived `blob_ttl` (`None`: it stays until space is needed).
pub fn outlived(used: Wall, blob_ttl: Option<Duration>, now: Wall) -> bool {
    blob_ttl.is_some_and(|ttl| now.since(used) > ttl)
}

/// Objects that a store removes in one go, where others keep its order for it.
pub const SLICE: usize = 500;
/// Objects of a store that are looked at in one go, to see whether its order knows them.
pub const PAGE: usize = 500;
/// How long an object that the store itself has not verified may still be on its way there.
const ON_ITS_WAY: Duration = Duration::from_secs(3600);

/// What makes room in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes.
    pub max_size: u64,
    pub blob_ttl: Option<Duration>,
    pub now: Wall,
}

/// The next [`SLICE`] objects at most that have to go from a store of `used` bytes: what has outlived its use, and what was
/// used longest ago until the rest fits. `candidates` as for [`plan`]. An empty answer: nothing has to.
pub fn slice(room: &Room, used: u64, candidates: impl IntoIterator<Item = Candidate>) -> Vec<Candidate> {
    let mut goal = goal(room.max_size, used, 0);
    let goes = |candidate: &Candidate| {
        let goes = goal > 0 || outlived(candidate.used, room.blob_ttl, room.now);
        goal = goal.saturating_sub(candidate.size);
        goes
    };
    candidates.into_iter().filter(|candidate| !candidate.busy).take(SLICE).take_while(goes).collect()
}

/// Whether an object that is found in a store, and that nobody told of, counts from now on. `verified`: the store has
/// compared its digest. What it has not may be being verified, and belongs to whoever does that until it is told of, or
/// until nobody can be at it any more.
pub fn counts(verified: bool, stored: Wall, now: Wall) -> bool {
    verified || now.since(stored) > ON_ITS_WAY
}

#[cfg(test)]
mod tests;
