//! What was asked for a moment ago, still at hand: the bytes of small objects, and the files of large ones. A hit on them
//! waits for no thread.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use entrepot_oci::Digest;
use quick_cache::sync::Cache;

use super::layout::Stamp;
use super::{Pin, Shared, seconds};

/// Bytes of small objects that are kept in memory.
const HOT: u64 = 8 << 20;
/// Files that are kept open, each of which takes a descriptor.
const FILES: usize = 64;

/// See the module.
pub(super) struct Recent {
    small: Cache<Digest, Arc<Small>, Weight>,
    files: Cache<Digest, Arc<Opened>>,
}

/// The bytes of a manifest.
pub(super) struct Small {
    pub(super) bytes: Bytes,
    used: Used,
}

/// An object's file, as the index vouched for it.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: Arc<File>,
    pub(super) stamp: Stamp,
    used: Used,
}

/// Seconds since the epoch at which a use was last noted: of the uses within one second one note is enough.
#[derive(Debug, Default)]
struct Used(AtomicU64);

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<Digest, Arc<Small>> for Weight {
    fn weight(&self, _: &Digest, small: &Arc<Small>) -> u64 {
        small.bytes.len() as u64 + 128
    }
}

impl Default for Recent {
    fn default() -> Recent {
        Recent { small: Cache::with_weighter(4096, HOT, Weight), files: Cache::new(FILES) }
    }
}

impl Opened {
    pub(super) fn new(file: File, stamp: Stamp) -> Opened {
        Opened { file: Arc::new(file), stamp, used: Used::default() }
    }
}

impl Recent {
    pub(super) fn keep(&self, digest: Digest, bytes: Bytes) {
        self.small.insert(digest, Arc::new(Small { bytes, used: Used::default() }));
    }

    pub(super) fn keep_open(&self, digest: Digest, file: File, stamp: Stamp) -> Arc<Opened> {
        let opened = Arc::new(Opened::new(file, stamp));
        self.files.insert(digest, opened.clone());
        opened
    }

    /// Whatever is at hand of an object that goes, or is no longer trusted.
    pub(super) fn forget(&self, digest: &Digest) {
        self.small.remove(digest);
        self.files.remove(digest);
    }

    /// So that no file which was removed by others keeps its space.
    pub(super) fn close(&self) {
        self.files.clear();
    }
}

impl Shared {
    /// The bytes of a small object, if they are at hand.
    pub(super) fn small(&self, digest: Digest) -> Option<Bytes> {
        let small = self.recent.small.get(&digest)?;
        self.touch(digest, &small.used);
        Some(small.bytes.clone())
    }

    /// The file of an object, if it is open and still what the index vouched for: any change of it, its removal too, shows
    /// in its stamp, which the kernel tells without asking the disk. While the disk is slow, the file system may be
    /// another's that is not; then nobody waits for it here.
    pub(super) fn at_hand(self: &Arc<Shared>, digest: Digest) -> Option<(Arc<Opened>, Pin)> {
        let opened = self.recent.files.get(&digest)?;
        let pin = Pin::new(self, digest);
        if self.overdue.load(Ordering::Relaxed) > 0 {
            return None;
        }
        if Stamp::of(&opened.file.metadata().ok()?) != opened.stamp {
            self.recent.files.remove(&digest);
            return None;
        }
        self.touch(digest, &opened.used);
        Some((opened, pin))
    }

    fn touch(&self, digest: Digest, used: &Used) {
        let now = seconds();
        // Read first: what is written at each use is fetched anew by every other processor.
        if used.0.load(Ordering::Relaxed) != now && used.0.swap(now, Ordering::Relaxed) != now {
            self.touched.lock().insert(digest, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    use entrepot_engine::ports::{Blobs as _, Stored as _};

    use super::super::{Limits, Store};
    use super::*;

    const LIMITS: Limits = Limits { max_size: 10_000_000, keep: None };

    /// A store with one object, whose file is at hand.
    async fn held() -> (Store, Digest, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), LIMITS).unwrap();
        let digest = keep(&store, 1).await;
        assert!(store.stored(digest).await.is_some());
        assert!(store.0.at_hand(digest).is_some());
        (store, digest, dir)
    }

    /// What a file that is changed now would bear: the file system's clock moves in steps.
    fn changed_now() -> i64 {
        Stamp::of(&tempfile::tempfile().unwrap().metadata().unwrap()).ctime
    }

    async fn keep(store: &Store, seed: u8) -> Digest {
        let bytes = vec![seed; 10_000];
        let digest = Digest::sha256(&bytes);
        store.keep(digest, bytes.into()).await;
        digest
    }

    /// T-DF4: what happens to a file that is open shows as it does for one that is not.
    #[tokio::test]
    async fn t_df4_a_file_at_hand_is_given_up_when_anything_happens_to_it() {
        let harms: [fn(&Path); 4] = [
            |path| fs::File::options().write(true).open(path).unwrap().write_all_at(b"x", 7).unwrap(),
            |path| fs::File::options().append(true).open(path).unwrap().write_all(b"x").unwrap(),
            |path| fs::remove_file(path).unwrap(),
            |path| fs::rename(path, path.with_extension("away")).unwrap(),
        ];
        for harm in harms {
            let (store, digest, _dir) = held().await;
            let published = store.0.at_hand(digest).unwrap().0.stamp.ctime;
            while changed_now() == published {}
            harm(&store.0.layout.object(&digest));
            assert!(store.0.at_hand(digest).is_none());
            assert!(store.stored(digest).await.is_none());
        }
    }

    #[tokio::test]
    async fn what_the_store_gives_up_is_not_at_hand() {
        let (store, digest, _dir) = held().await;
        let Some((_, pin)) = store.0.at_hand(digest) else { panic!("not at hand") };
        assert!(store.0.pinned(&digest));
        drop(pin);
        assert!(!store.0.pinned(&digest), "a file that is only at hand may be evicted");
        assert!(store.0.discard(&digest));
        assert!(store.0.at_hand(digest).is_none() && store.0.small(digest).is_none());
        assert!(store.stored(digest).await.is_none());
    }

    #[tokio::test]
    async fn few_files_stay_open_and_none_for_long() {
        let (store, _, _dir) = held().await;
        let mut digests = Vec::new();
        for seed in 0..=99 {
            digests.push(keep(&store, seed).await);
        }
        for digest in &digests {
            assert_eq!(store.stored(*digest).await.unwrap().size(), 10_000);
        }
        let at_hand = digests.iter().filter(|digest| store.0.at_hand(**digest).is_some()).count();
        assert!((1..=FILES).contains(&at_hand), "{at_hand}");
        store.0.recent.close();
        assert!(digests.iter().all(|digest| store.0.at_hand(*digest).is_none()));
        assert!(store.stored(digests[0]).await.is_some());
    }

    #[tokio::test]
    async fn a_use_is_noted_once_a_second() {
        let (store, digest, _dir) = held().await;
        store.0.flush_touches();
        let used = Used::default();
        for _ in 0..100 {
            store.0.touch(digest, &used);
        }
        let noted = std::mem::take(&mut *store.0.touched.lock());
        assert!(seconds() - noted[&digest] <= 1, "{noted:?}");
        store.0.touch(digest, &Used(AtomicU64::new(seconds() + 1)));
        assert_eq!(store.0.touched.lock().len(), 1);
    }
}
