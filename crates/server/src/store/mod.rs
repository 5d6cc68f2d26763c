//! The store on a local disk: content-addressed files, an index beside them, and the fills under way.

mod arriving;
mod body;
mod disk;
mod fill;
mod hashing;
mod index;
mod layout;
mod recent;
mod space;
#[cfg(test)]
mod tests;
mod through;
mod ticket;
mod upkeep;
mod window;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use entrepot_core::failure::Failure;
use entrepot_engine::ports::{Blobs, Claim, Follower, Meta, Record, Stored};
use entrepot_oci::Digest;
use entrepot_oci::range::ByteSpan;
use parking_lot::Mutex;
use tempfile::NamedTempFile;
use tokio::sync::Semaphore;

pub(crate) use body::{Body, BodyBroken, Pieces};
pub(crate) use ticket::FillTicket;
pub(crate) use window::{Data, Lane, stands_for_window};

use crate::client::Incoming;
use body::Chunks;
use fill::{Fill, Place};
use index::{Entry, Index};
use layout::{Layout, Stamp, rehash};
use recent::{Opened, Recent};
use space::{NoPlace, Room, Space};

/// Files hashed anew at one time, because the index does not vouch for them.
const ADOPTING: usize = 2;

/// What the store may take up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of objects.
    pub(crate) max_size: u64,
    /// How long after its last use an object may stay; `None`: until space is needed.
    pub(crate) keep: Option<Duration>,
}

/// See the module. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Store(Arc<Shared>);

pub(crate) struct Shared {
    layout: Layout,
    index: Index,
    pub(crate) fills: Fills,
    chunks: Chunks,
    pins: Mutex<HashMap<Digest, usize>>,
    evicting: Mutex<()>,
    /// Held while an object's file and row change together.
    books: Mutex<()>,
    adopting: Semaphore,
    /// Uses not yet in the index.
    touched: Mutex<HashMap<Digest, u64>>,
    recent: Recent,
    space: Mutex<Space>,
    limits: Mutex<Limits>,
    troubled: AtomicBool,
    /// Operations that the disk has not done in time.
    overdue: AtomicUsize,
    counts: Counts,
    lock: Mutex<File>,
}

/// What the store counts, for the metrics.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) evicted: AtomicU64,
    pub(crate) quarantined: AtomicU64,
    pub(crate) troubles: AtomicU64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("layout", &self.layout).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store in `dir`, making it where it is missing. Blocks, briefly: nothing here scales with what is stored.
    /// [`Store::upkeep`] does the rest in the background.
    pub(crate) fn open(dir: &Path, limits: Limits) -> io::Result<Store> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        let layout = Layout::create(dir).map_err(named)?;
        let lock = layout.lock().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!(
                    "{}: in use by another process, or not lockable: {error}; give each its own `cache.dir`",
                    dir.display()
                ),
            )
        })?;
        layout.sweep_tmp().map_err(named)?;
        let index = Index::open(&layout.index())?;
        let used = index.total().unwrap_or(0);
        Ok(Store(Arc::new(Shared {
            layout,
            index,
            fills: Fills::default(),
            chunks: Chunks::default(),
            pins: Mutex::default(),
            evicting: Mutex::default(),
            books: Mutex::default(),
            adopting: Semaphore::new(ADOPTING),
            touched: Mutex::default(),
            recent: Recent::default(),
            space: Mutex::new(Space { used, reserved: 0 }),
            limits: Mutex::new(limits),
            troubled: AtomicBool::new(false),
            overdue: AtomicUsize::new(0),
            counts: Counts::default(),
            lock: Mutex::new(lock),
        })))
    }

    /// 32 bytes that stay the same over restarts: the key of our own tokens.
    pub(crate) fn signing_key(&self) -> io::Result<[u8; 32]> {
        let path = self.0.layout.root().join("key");
        if let Ok(key) = std::fs::read(&path).map(<[u8; 32]>::try_from)
            && let Ok(key) = key
        {
            return Ok(key);
        }
        let mut key = [0; 32];
        // The kernel's: the TLS library's own generator takes tens of milliseconds to start with, the first time.
        getrandom::fill(&mut key)?;
        // Made readable by nobody else (0600) by the library.
        let mut file = NamedTempFile::new_in(self.0.layout.root())?;
        file.write_all(&key)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        Ok(key)
    }

    pub(crate) fn set_limits(&self, limits: Limits) {
        *self.0.limits.lock() = limits;
    }

    /// Whether the disk takes what it is given; false from the first failure to the next success.
    pub(crate) fn healthy(&self) -> bool {
        let troubled = self.0.troubled.load(Ordering::Relaxed) || self.0.overdue.load(Ordering::Relaxed) > 0;
        !troubled && self.0.index.healthy()
    }

    /// Bytes of objects.
    pub(crate) fn used(&self) -> u64 {
        self.0.space.lock().used
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(crate) fn fills(&self) -> usize {
        self.0.fills.under_way.lock().len()
    }

    /// Writes what is only in memory. Blocks.
    pub(crate) fn flush(&self) {
        self.0.flush_touches();
        self.0.index.flush();
    }
}

impl Meta for Store {
    async fn get(&self, key: &str) -> Option<Record> {
        if let Some(known) = self.0.index.cached(key) {
            return known;
        }
        let key = key.to_owned();
        self.0.on_disk(move |shared| shared.index.load(&key, seconds() as i64)).await.flatten()
    }

    async fn put(&self, key: String, value: Bytes, keep: Option<Duration>) {
        let expires = keep.map(|keep| seconds().saturating_add(keep.as_secs().max(1)) as i64);
        self.0.index.put(&key, Some(Record::new(value)), expires);
    }

    async fn remove(&self, key: &str) {
        self.0.index.put(key, None, None);
    }
}

impl Blobs for Store {
    type Upstream = Incoming;
    type Body = Body;
    type Stored = Object;
    type Follower = Following;
    type Ticket = FillTicket;

    async fn claim(&self, digest: Digest, by: &str) -> Claim<Object, Following, FillTicket> {
        loop {
            let ended = self.0.fills.ended.load(Ordering::Acquire);
            if let Some(place) = self.0.fills.join(&digest) {
                let ours = place.filled_by(by);
                return Claim::Filling { follower: self.follower(place), ours };
            }
            if let Some(object) = self.stored(digest).await {
                return Claim::Stored(object);
            }
            // A fill that ended since may have stored it.
            if let Some((fill, place)) = self.0.fills.start(digest, by, ended) {
                return Claim::Yours(FillTicket::new(self.0.clone(), fill), self.follower(place));
            }
        }
    }

    fn is_followed(&self) -> bool {
        true
    }

    async fn stored(&self, digest: Digest) -> Option<Object> {
        let (opened, pin) = self.opened(digest).await?;
        Some(Object { file: opened.file.clone(), stamp: opened.stamp, pin, share: self.0.chunks.share() })
    }

    async fn keep(&self, digest: Digest, bytes: Bytes) {
        self.0.recent.keep(digest, bytes.clone());
        let kept = self.0.on_disk(move |shared| shared.keep(digest, &bytes)).await;
        if let Some(Err(NoPlace::Disk(error))) = kept {
            self.0.trouble(&error);
        }
    }

    async fn read(&self, digest: Digest, max: usize) -> Option<Bytes> {
        if let Some(bytes) = self.0.small(digest) {
            return Some(bytes);
        }
        let (opened, pin) = self.opened(digest).await?;
        let size = usize::try_from(opened.stamp.size).ok().filter(|&size| size <= max)?;
        let read = self.0.on_disk(move |_| {
            let mut bytes = vec![0; size];
            match layout::read_at(&opened.file, &mut bytes, 0) {
                Ok(read) if read == size => Some(Bytes::from(bytes)),
                _ => {
                    pin.shared.quarantine(&digest, opened.stamp, "it cannot be read");
                    None
                }
            }
        });
        let bytes = read.await.flatten()?;
        self.0.recent.keep(digest, bytes.clone());
        Some(bytes)
    }

    fn through(&self, digest: Digest, whole: Option<u64>, stall: Duration, body: Incoming) -> Body {
        through::body(digest, whole, stall, body)
    }
}

impl Store {
    fn follower(&self, place: Place) -> Following {
        Following { place, share: self.0.chunks.share() }
    }

    /// The object's file, if it is there and can be trusted. One that the index does not vouch for is hashed first, for as
    /// long as that takes.
    async fn opened(&self, digest: Digest) -> Option<(Arc<Opened>, Pin)> {
        if let Some(found) = self.0.at_hand(digest) {
            return Some(found);
        }
        if let Found::Sound(opened, pin) = self.0.on_disk(move |shared| shared.open(digest)).await?? {
            return Some((opened, pin));
        }
        // Who waited here for another's hashing finds it done.
        let _turn = self.0.adopting.acquire().await.ok()?;
        match self.0.on_disk(move |shared| shared.open(digest)).await?? {
            Found::Sound(opened, pin) => Some((opened, pin)),
            Found::Unknown(file, stamp, pin) => {
                let adopted = tokio::task::spawn_blocking(move || {
                    let sound = pin.shared.adopt(digest, &file, stamp);
                    sound.then(|| (Arc::new(Opened::new(file, stamp)), pin))
                });
                adopted.await.ok()?
            }
        }
    }
}

/// An object that is being served.
#[derive(Debug)]
pub(crate) struct Object {
    file: Arc<File>,
    stamp: Stamp,
    pin: Pin,
    share: body::Share,
}

impl Stored for Object {
    type Body = Body;

    fn size(&self) -> u64 {
        self.stamp.size
    }

    fn body(self, span: ByteSpan) -> Body {
        let Object { file, stamp, pin, share } = self;
        let broken = move |error: &io::Error| {
            pin.shared.quarantine(&pin.digest, stamp, &error.to_string());
        };
        body::from_file(file, span, share, Arc::new(broken))
    }
}

/// A client that follows a fill.
#[derive(Debug)]
pub(crate) struct Following {
    place: Place,
    share: body::Share,
}

impl Follower for Following {
    type Body = Body;

    async fn head(&mut self) -> Result<u64, Failure> {
        self.place.head().await
    }

    fn body(self, span: ByteSpan) -> Body {
        body::following(self.place, span, self.share)
    }
}

/// The fills under way, one for each digest.
#[derive(Debug, Default)]
pub(crate) struct Fills {
    under_way: Mutex<HashMap<Digest, Arc<Fill>>>,
    /// How many have ended.
    ended: AtomicU64,
}

impl Fills {
    fn join(&self, digest: &Digest) -> Option<Place> {
        let fill = self.under_way.lock().get(digest).cloned()?;
        fill.follow()
    }

    /// `None` when a fill has ended since `ended` was read, or somebody else was first.
    fn start(&self, digest: Digest, by: &str, ended: u64) -> Option<(Arc<Fill>, Place)> {
        let mut under_way = self.under_way.lock();
        if self.ended.load(Ordering::Acquire) != ended {
            return None;
        }
        // A fill that cannot be joined any more is left to its followers; it does not store anything.
        if under_way.get(&digest).is_some_and(|fill| fill.joinable()) {
            return None;
        }
        let fill = Fill::new(digest, by);
        let place = fill.follow()?;
        under_way.insert(digest, fill.clone());
        Some((fill, place))
    }

    pub(crate) fn end(&self, fill: &Arc<Fill>) {
        let mut under_way = self.under_way.lock();
        if under_way.get(&fill.digest).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            under_way.remove(&fill.digest);
        }
        self.ended.fetch_add(1, Ordering::Release);
    }
}

impl Shared {
    /// The object's file, if there is one. Blocks.
    fn open(self: &Arc<Shared>, digest: Digest) -> Option<Found> {
        let pin = Pin::new(self, digest);
        let (file, stamp) = match self.layout.open(&digest) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                self.trouble(&error);
                return None;
            }
        };
        self.touched.lock().insert(digest, seconds());
        if self.index.object(&digest).is_some_and(|known| known.stamp == stamp) {
            Some(Found::Sound(self.recent.keep_open(digest, file, stamp), pin))
        } else {
            Some(Found::Unknown(file, stamp, pin))
        }
    }

    /// A file that the index does not know, or knows otherwise: it is ours if its bytes hash to its name. Takes as long as
    /// reading it does.
    fn adopt(&self, digest: Digest, file: &File, stamp: Stamp) -> bool {
        match rehash(file, &digest, |_| {}) {
            Ok(true) => {
                let _books = self.books.lock();
                // It may have been evicted or replaced meanwhile: then it is served, but not entered.
                if self.layout.open(&digest).is_ok_and(|(_, there)| there == stamp) {
                    let used = self.index.object(&digest).map_or_else(seconds, |known| known.used);
                    self.enter(digest, Entry { stamp, used }, None);
                }
                true
            }
            Ok(false) => {
                self.quarantine(&digest, stamp, "its bytes have changed");
                false
            }
            Err(error) => {
                self.quarantine(&digest, stamp, &error.to_string());
                false
            }
        }
    }

    /// Takes a file out of the store because it cannot be trusted. The next request fetches the object anew. What has been
    /// stored in its place meanwhile stays.
    fn quarantine(&self, digest: &Digest, damaged: Stamp, why: &str) {
        let _books = self.books.lock();
        if self.layout.stamp(digest).is_none_or(|there| there.inode != damaged.inode) {
            return;
        }
        tracing::error!(%digest, why, "a stored object is damaged; it is removed and will be fetched again");
        self.counts.quarantined.fetch_add(1, Ordering::Relaxed);
        if !self.remove(digest) {
            // What cannot be removed is at least not vouched for.
            self.strike(digest);
        }
    }

    /// Removes an object, file and row. False when the disk does not let go of it.
    fn discard(&self, digest: &Digest) -> bool {
        let _books = self.books.lock();
        self.remove(digest)
    }

    /// As [`Shared::discard`], for who holds the books.
    fn remove(&self, digest: &Digest) -> bool {
        self.recent.forget(digest);
        if let Err(error) = self.layout.remove(digest) {
            self.trouble(&error);
            return false;
        }
        self.strike(digest);
        true
    }

    /// Bytes of objects that the store may hold.
    pub(crate) fn max_size(&self) -> u64 {
        self.limits.lock().max_size
    }

    /// Stores a small object, unless it is there.
    fn keep(self: &Arc<Shared>, digest: Digest, bytes: &[u8]) -> Result<(), NoPlace> {
        if matches!(self.open(digest), Some(Found::Sound(..))) {
            return Ok(());
        }
        let (file, room) = self.temporary(Some(bytes.len() as u64))?;
        layout::write_at(file.as_file(), bytes, 0)?;
        Ok(self.publish(file, room, &digest)?)
    }

    /// Makes a verified temporary file the object.
    fn publish(self: &Arc<Shared>, file: NamedTempFile, room: Room, digest: &Digest) -> io::Result<()> {
        let pin = Pin::new(self, *digest);
        self.layout.sync(&file, digest)?;
        {
            let _books = self.books.lock();
            let stamp = self.layout.publish(file, digest)?;
            self.enter(*digest, Entry { stamp, used: seconds() }, Some(room));
        }
        if let Err(error) = self.layout.sync_name(digest) {
            self.discard(digest);
            return Err(error);
        }
        self.make_room(0);
        drop(pin);
        if self.troubled.swap(false, Ordering::Relaxed) {
            tracing::info!("the store takes objects again");
        }
        Ok(())
    }

    /// The disk failed us: said once, until it works again.
    fn trouble(&self, error: &io::Error) {
        self.counts.troubles.fetch_add(1, Ordering::Relaxed);
        if !self.troubled.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, dir = %self.layout.root().display(), "the store cannot be used; pulls go straight through until it can");
        }
    }

    fn flush_touches(&self) {
        let touched = std::mem::take(&mut *self.touched.lock());
        self.index.touch(touched.into_iter().collect());
    }

    fn pinned(&self, digest: &Digest) -> bool {
        self.pins.lock().contains_key(digest)
    }
}

/// An object's file.
enum Found {
    /// As the index knows it.
    Sound(Arc<Opened>, Pin),
    /// The index does not know it, or knows it otherwise.
    Unknown(File, Stamp, Pin),
}

/// Keeps an object from being evicted while it is served.
#[derive(Debug)]
pub(crate) struct Pin {
    shared: Arc<Shared>,
    digest: Digest,
}

impl Pin {
    fn new(shared: &Arc<Shared>, digest: Digest) -> Pin {
        *shared.pins.lock().entry(digest).or_default() += 1;
        Pin { shared: shared.clone(), digest }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.shared.pins.lock();
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
