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

#[cfg(test)]
mod tests;
