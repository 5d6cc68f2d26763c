//! What keeps the store in order: files without a row, rows without a file, bytes that rot, and a disk that comes back.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use entrepot_engine::ports::Record;
use entrepot_oci::Digest;
use tokio_util::sync::CancellationToken;

use super::layout::{Layout, rehash, write_at};
use super::space::is_full;
use super::{Shared, Store, seconds};

/// How often uses are written down and expired objects dropped.
const ROUND: Duration = Duration::from_secs(10);
/// How often a disk in trouble is tried.
const TRY: Duration = Duration::from_secs(2);
/// Every object is hashed anew once in this time.
const SCRUB_PERIOD: Duration = Duration::from_secs(7 * 24 * 3600);
/// Between two objects at least, and when there is none.
const SCRUB_PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(60));
/// Bytes a second while an object is scrubbed, so that the disk stays free for pulls.
const SCRUB_RATE: f64 = 32e6;
/// The record of the object scrubbed last.
const SCRUBBED: &str = "scrubbed";
/// Bytes given up for an index that has no space to grow.
const FOR_INDEX: u64 = 1 << 20;
/// Bytes written to see whether the disk takes them.
const PROBE: u64 = 4096;

impl Store {
    /// Runs until `stop`.
    pub(crate) async fn upkeep(self, stop: CancellationToken) {
        let sweeps = async {
            loop {
                self.blocking(|shared| shared.sweep()).await;
                while !(self.0.index.healthy() && self.0.index.take_lossy()) {
                    tokio::time::sleep(TRY).await;
                }
                tracing::info!("the index was interrupted; it is compared with the stored objects");
            }
        };
        let rounds = async {
            loop {
                tokio::time::sleep(ROUND).await;
                self.blocking(|shared| shared.round()).await;
            }
        };
        let tries = async {
            loop {
                tokio::time::sleep(TRY).await;
                self.blocking(|shared| shared.probe()).await;
            }
        };
        let never = tokio::select! {
            never = sweeps => never,
            never = rounds => never,
            never = tries => never,
            never = self.scrub_for_ever() => never,
            () = stop.cancelled() => return,
        };
        match never {}
    }

    /// A panic in there is logged by the runtime; the next round starts afresh.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> T + Send + 'static,
    ) -> Option<T> {
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || work(&shared)).await.ok()
    }

    /// Hashes all objects, one after the other, so slowly that a round takes [`SCRUB_PERIOD`]. Goes on after a restart.
    async fn scrub_for_ever(&self) -> Infallible {
        let last = self.blocking(|shared| shared.index.load(SCRUBBED, seconds() as i64)).await.flatten();
        let mut last = last.and_then(|last| std::str::from_utf8(last.bytes()).ok()?.parse().ok());
        loop {
            let (next, bytes) =
                self.blocking(move |shared| shared.scrub_after(last)).await.unwrap_or_default();
            let share = bytes as f64 / self.used().max(1) as f64;
            let pause = SCRUB_PERIOD.mul_f64(share.clamp(0.0, 1.0));
            tokio::time::sleep(pause.max(if next.is_some() { SCRUB_PAUSE.0 } else { SCRUB_PAUSE.1 })).await;
            last = next;
        }
    }
}

impl Shared {
    fn round(&self) {
        self.recent.close();
        self.flush_touches();
        self.index.purge(seconds() as i64);
        self.make_room(0);
        let keep = self.limits.lock().keep;
        self.evict_outlived(keep);
    }

    /// While the disk or the index is in trouble, tries whether it works again, so that no pull has to find out.
    pub(super) fn probe(&self) {
        if !self.index.healthy() {
            if self.index.take_full() {
                self.relieve(FOR_INDEX);
            }
            // Any write shows whether it works again.
            self.index.purge(seconds() as i64);
        }
        if !self.troubled.load(Ordering::Relaxed) {
            return;
        }
        match self.try_disk() {
            Ok(()) => {
                if self.troubled.swap(false, Ordering::Relaxed) {
                    tracing::info!("the store takes objects again");
                }
            }
            Err(error) if is_full(&error) => self.relieve(PROBE),
            Err(error) => tracing::debug!(%error, "the store still cannot be used"),
        }
    }

    /// The folder may have gone, and another may have come in its place.
    fn try_disk(&self) -> std::io::Result<()> {
        let layout = Layout::create(self.layout.root())?;
        {
            let mut lock = self.lock.lock();
            if !layout.holds(&lock) {
                *lock = layout.lock()?;
            }
        }
        let file = layout.temporary(Some(PROBE))?;
        write_at(file.as_file(), &[0; PROBE as usize], 0)
    }

    /// Makes index and files agree after a crash or a loss: rows without a file go, files without a row are hashed and
    /// adopted or removed. Then counts what is there.
    pub(super) fn sweep(&self) {
        self.index.flush();
        let (mut found, mut adopted) = (0u64, 0u64);
        for digest in self.layout.walk() {
            if self.index.row(&digest).is_some() {
                continue;
            }
            let Ok((file, stamp)) = self.layout.open(&digest) else {
                continue;
            };
            // The row may have been written between the two looks.
            if self.index.row(&digest).is_none() {
                found += 1;
                adopted += u64::from(self.adopt(digest, &file, stamp));
            }
        }
        if found > 0 {
            tracing::info!(
                found,
                adopted,
                "objects that the index did not name were hashed, and adopted where sound"
            );
        }
        let mut last = None;
        loop {
            let rows = self.index.after(last.as_ref(), 1000);
            let Some((end, _)) = rows.last() else { break };
            last = Some(*end);
            for (digest, _) in rows {
                let _books = self.books.lock();
                if self.layout.is_gone(&digest) {
                    self.strike(&digest);
                }
            }
        }
        self.recount();
    }

    /// Hashes the object after `last`; the object and its bytes, or a new start.
    pub(super) fn scrub_after(&self, last: Option<Digest>) -> (Option<Digest>, u64) {
        let Some((digest, entry)) = self.index.after(last.as_ref(), 1).into_iter().next() else {
            return (None, 0);
        };
        let Ok((file, stamp)) = self.layout.open(&digest) else {
            return (Some(digest), 0);
        };
        let paced = |read| std::thread::sleep(Duration::from_secs_f64(read as f64 / SCRUB_RATE));
        match rehash(&file, &digest, paced) {
            Ok(true) => {}
            Ok(false) => self.quarantine(&digest, stamp, "its bytes have rotted"),
            Err(error) => self.quarantine(&digest, stamp, &error.to_string()),
        }
        self.index.put(SCRUBBED, Some(Record::new(digest.to_string())), None);
        (Some(digest), entry.stamp.size)
    }
}
