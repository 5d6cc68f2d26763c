//! What keeps the store in order: room for what comes, files without a row, rows without a file, and bytes that rot.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Shared, Store, seconds};
use crate::store::layout::{Layout, rehash};

/// How often uses are written down and expired objects dropped.
const ROUND: Duration = Duration::from_secs(10);
/// Every object is hashed anew once in this time.
const SCRUB_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Objects looked up in the index at once.
const SLICE: u32 = 64;

impl Store {
    /// Runs until `stop`: first counts and sweeps, then keeps house.
    pub(crate) async fn upkeep(self, stop: CancellationToken) {
        let swept = self.blocking(|shared| shared.sweep());
        tokio::select! { () = swept => {}, () = stop.cancelled() => return }
        let scrub = self.clone().scrub_for_ever();
        let rounds = async {
            loop {
                tokio::time::sleep(ROUND).await;
                self.blocking(|shared| shared.round()).await;
            }
        };
        tokio::select! { () = scrub => {}, () = rounds => {}, () = stop.cancelled() => {} }
    }

    async fn blocking(&self, work: impl FnOnce(&Arc<Shared>) + Send + 'static) {
        let shared = self.0.clone();
        // A panic in here is logged by the runtime; the next round starts afresh.
        let _ = tokio::task::spawn_blocking(move || work(&shared)).await;
    }

    /// Hashes all objects, one after the other, so slowly that a round takes [`SCRUB_PERIOD`].
    async fn scrub_for_ever(self) {
        let mut last = None;
        loop {
            let shared = self.0.clone();
            let step = tokio::task::spawn_blocking(move || shared.scrub_after(last)).await;
            let Ok((next, bytes)) = step else { continue };
            last = next;
            let share = bytes as f64 / self.used().max(1) as f64;
            let pause = SCRUB_PERIOD.mul_f64(share.clamp(0.0, 1.0));
            tokio::time::sleep(pause.max(Duration::from_secs(1))).await;
        }
    }
}

impl Shared {
    /// Evicts what was used longest ago until `incoming` bytes fit, passing over what is being served.
    pub(super) fn make_room(&self, incoming: u64) {
        let max = self.limits.lock().max_size;
        if self.used.load(Ordering::Relaxed).saturating_add(incoming) <= max {
            return;
        }
        // One at a time: two would choose the same victims.
        let _one = self.evicting.lock();
        self.flush_touches();
        let mut limit = SLICE;
        loop {
            self.index.flush();
            let oldest = self.index.oldest(limit, None);
            let mut evicted = false;
            for (digest, _) in &oldest {
                if self.used.load(Ordering::Relaxed).saturating_add(incoming) <= max {
                    return;
                }
                if !self.pinned(digest) {
                    self.evict(digest);
                    evicted = true;
                }
            }
            if !evicted {
                if oldest.len() < limit as usize {
                    return;
                }
                limit = limit.saturating_mul(4);
            }
        }
    }

    fn evict(&self, digest: &entrepot_oci::Digest) {
        self.counts.evicted.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%digest, "evicted");
        self.discard(digest);
    }

    fn round(&self) {
        self.flush_touches();
        self.index.purge(seconds() as i64);
        self.make_room(0);
        let keep = self.limits.lock().keep;
        if let Some(keep) = keep {
            self.index.flush();
            let before = seconds().saturating_sub(keep.as_secs());
            for (digest, _) in self.index.oldest(SLICE, Some(before)) {
                if !self.pinned(&digest) {
                    self.evict(&digest);
                }
            }
        }
        self.probe();
    }

    /// While the disk is in trouble, tries now and then whether it works again, so that no pull has to find out.
    fn probe(&self) {
        if !self.troubled.load(Ordering::Relaxed) {
            return;
        }
        let tried = Layout::create(self.layout.root())
            .and_then(|layout| layout.temporary(Some(4096)))
            .and_then(|file| crate::store::layout::write_at(file.as_file(), &[0; 4096], 0));
        if tried.is_ok() && self.troubled.swap(false, Ordering::Relaxed) {
            tracing::info!("the store takes objects again");
        }
    }

    /// Makes index and files agree after a crash or a loss: rows without a file go, files without a row are hashed and
    /// adopted or removed.
    pub(super) fn sweep(&self) {
        for digest in self.layout.walk() {
            if self.index.object_cached(&digest).or_else(|| self.index.object(&digest)).is_some() {
                continue;
            }
            let Ok((file, stamp)) = self.layout.open(&digest) else { continue };
            // The row may have been written between the two looks.
            if self.index.object(&digest).is_none() {
                let adopted = self.adopt(digest, &file, stamp, None);
                tracing::info!(%digest, adopted, "found an object that the index did not name");
            }
        }
        let mut last = None;
        loop {
            let rows = self.index.after(last.as_ref(), 1000);
            let Some((end, _)) = rows.last() else { break };
            last = Some(*end);
            for (digest, _) in rows {
                if !self.layout.object(&digest).exists() {
                    self.discard(&digest);
                }
            }
        }
    }

    /// Hashes the object after `last`; the object and its bytes, or a new start.
    pub(super) fn scrub_after(&self, last: Option<entrepot_oci::Digest>) -> (Option<entrepot_oci::Digest>, u64) {
        let Some((digest, entry)) = self.index.after(last.as_ref(), 1).into_iter().next() else {
            return (None, 0);
        };
        let sound = self.layout.open(&digest).and_then(|(file, _)| {
            rehash(&file, &digest, |read| std::thread::sleep(Duration::from_secs_f64(read as f64 / SCRUB_RATE)))
        });
        match sound {
            Ok(true) => {}
            Ok(false) => self.quarantine(&digest, "its bytes have rotted"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.discard(&digest),
            Err(error) => self.quarantine(&digest, &error.to_string()),
        }
        (Some(digest), entry.stamp.size)
    }
}

/// Bytes a second while an object is scrubbed, so that the disk stays free for pulls.
const SCRUB_RATE: f64 = 32e6;
