//! What the store remembers: records under a key, and one row for each object.
//!
//! SQLite in WAL mode. One thread writes, in batches; readers have connections of their own. What was just put is
//! answered from memory until it is committed, what is hot from a cache of bounded size, so that memory does not grow
//! with the store. Everything here can be lost: objects are then found again by the sweep, and tags are asked anew.

mod database;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use entrepot_engine::ports::Record;
use entrepot_oci::Digest;
use parking_lot::{Condvar, Mutex};
use rusqlite::{Connection, OptionalExtension, params};

use super::layout::Stamp;
use writer::{Write, Writer};

/// Bytes of records kept in memory.
const HOT: u64 = 4 << 20;
/// Writes that may wait for the disk; what comes on top is lost.
const QUEUE: usize = 50_000;
/// Connections for reading, at most. Who finds none free waits: that is shorter than opening another, whose descriptor SQLite
/// would keep for as long as any other is in use.
const READERS: usize = 4;

/// One object's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) stamp: Stamp,
    /// Seconds since the epoch.
    pub(crate) used: u64,
}

pub(crate) struct Index {
    path: PathBuf,
    writes: mpsc::Sender<Write>,
    link: Arc<Link>,
    hot: quick_cache::sync::Cache<Box<str>, Option<Record>, Weight>,
    objects: quick_cache::sync::Cache<Digest, Entry>,
}

/// What the index and its writer share.
struct Link {
    pending: Mutex<Pending>,
    queued: AtomicUsize,
    healthy: AtomicBool,
    /// The disk had no space for the last write that failed.
    full: AtomicBool,
    /// Rows may be missing, or name what is gone.
    lossy: AtomicBool,
    readers: Mutex<Readers>,
    returned: Condvar,
    /// Which opening of the database the readers belong to.
    opening: AtomicU64,
}

/// The connections for reading, each with the opening of the database that it belongs to.
#[derive(Default)]
struct Readers {
    idle: Vec<(u64, Connection)>,
    lent: usize,
}

/// The right to one connection for reading; given back on drop, with the connection if there is one to keep.
struct Lent<'a> {
    link: &'a Link,
    connection: Option<(u64, Connection)>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut readers = self.link.readers.lock();
        readers.lent -= 1;
        readers.idle.extend(self.connection.take());
        drop(readers);
        self.link.returned.notify_one();
    }
}

/// Written, but not yet to be read in the database.
#[derive(Default)]
struct Pending {
    tickets: u64,
    records: HashMap<Box<str>, (u64, Option<Record>)>,
    objects: HashMap<Digest, (u64, Option<Entry>)>,
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<Box<str>, Option<Record>> for Weight {
    fn weight(&self, key: &Box<str>, value: &Option<Record>) -> u64 {
        // What it means takes about as much as how it is written.
        (key.len() + value.as_ref().map_or(0, |value| 2 * value.bytes().len() + 128) + 64) as u64
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Link {
    /// The last write failed.
    fn lost(&self) {
        self.healthy.store(false, Ordering::Relaxed);
        self.lose();
    }

    fn lose(&self) {
        self.lossy.store(true, Ordering::Relaxed);
    }

    fn forget_readers(&self) {
        self.opening.fetch_add(1, Ordering::Relaxed);
        self.readers.lock().idle.clear();
    }

    /// Waits for a free connection, or for the room to open one.
    fn lend(&self) -> Lent<'_> {
        let mut readers = self.readers.lock();
        self.returned.wait_while(&mut readers, |readers| readers.lent >= READERS);
        readers.lent += 1;
        Lent { link: self, connection: readers.idle.pop() }
    }
}

impl Index {
    /// Opens or makes the index. A file that SQLite cannot read, or of another version, is set aside under a name that
    /// says so, and the sweep finds the objects again. A disk that refuses is tried again with every write.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn open(path: &Path) -> io::Result<Index> {
        let link = Arc::new(Link {
            pending: Mutex::default(),
            queued: AtomicUsize::new(0),
            healthy: AtomicBool::new(true),
            full: AtomicBool::new(false),
            lossy: AtomicBool::new(false),
            readers: Mutex::default(),
            returned: Condvar::new(),
            opening: AtomicU64::new(0),
        });
        let (writes, queue) = mpsc::channel();
        let writer = Writer::new(path.to_owned(), link.clone());
        std::thread::Builder::new().name("index-writer".into()).spawn(move || writer.run(&queue))?;
        Ok(Index {
            path: path.to_owned(),
            writes,
            link,
            hot: quick_cache::sync::Cache::with_weighter(20_000, HOT, Weight),
            objects: quick_cache::sync::Cache::new(20_000),
        })
    }

    /// Whether the last write succeeded.
    pub(crate) fn healthy(&self) -> bool {
        self.link.healthy.load(Ordering::Relaxed)
    }

    /// Whether the disk was full since this was last asked.
    pub(crate) fn take_full(&self) -> bool {
        self.link.full.swap(false, Ordering::Relaxed)
    }

    /// Whether writes were lost or the database was replaced since this was last asked.
    pub(crate) fn take_lossy(&self) -> bool {
        self.link.lossy.swap(false, Ordering::Relaxed)
    }

    /// The record, if memory knows: `Some(None)` says that there is none.
    pub(crate) fn cached(&self, key: &str) -> Option<Option<Record>> {
        if let Some(known) = self.hot.get(key) {
            return Some(known);
        }
        self.link.pending.lock().records.get(key).map(|(_, value)| value.clone())
    }

    /// The record, from the database. Blocks.
    pub(crate) fn load(&self, key: &str, now: i64) -> Option<Record> {
        let before = self.link.pending.lock().tickets;
        let value = self.read(|connection| {
            connection
                .prepare_cached(
                    "SELECT value FROM records WHERE key = ?1 AND (expires IS NULL OR expires > ?2)",
                )?
                .query_row(params![key, now], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        });
        let readable = value.is_some();
        let value = value.flatten().map(Record::new);
        let pending = self.link.pending.lock();
        if let Some((_, pending)) = pending.records.get(key) {
            return pending.clone();
        }
        // A write that came and went meanwhile may have been of this record: then what was read is old already.
        if readable && pending.tickets == before {
            self.hot.insert(key.into(), value.clone());
        }
        value
    }

    /// `None` removes the record.
    pub(crate) fn put(&self, key: &str, value: Option<Record>, expires: Option<i64>) {
        let mut pending = self.link.pending.lock();
        pending.tickets += 1;
        let ticket = pending.tickets;
        self.hot.insert(key.into(), value.clone());
        // Sent under the lock, so that the last to be put is the last to be written.
        if self.send(Write::Put { key: key.into(), value: value.clone(), expires, ticket }) {
            pending.records.insert(key.into(), (ticket, value));
        }
    }

    /// The object's row. May block.
    pub(crate) fn object(&self, digest: &Digest) -> Option<Entry> {
        self.objects.get(digest).or_else(|| self.row(digest))
    }

    /// As [`Index::object`], without the cache: what the database holds or is about to. Blocks.
    pub(crate) fn row(&self, digest: &Digest) -> Option<Entry> {
        let before = self.link.pending.lock().tickets;
        let entry = self
            .read(|connection| {
                connection
                    .prepare_cached("SELECT size, mtime, ctime, inode, used FROM objects WHERE digest = ?1")?
                    .query_row([key_of(digest)], |row| entry_at(row, 0))
                    .optional()
            })
            .flatten();
        let pending = self.link.pending.lock();
        if let Some((_, pending)) = pending.objects.get(digest) {
            return *pending;
        }
        if let Some(entry) = entry.filter(|_| pending.tickets == before) {
            self.objects.insert(*digest, entry);
        }
        entry
    }

    /// `None` removes the row.
    pub(crate) fn set_object(&self, digest: Digest, entry: Option<Entry>) {
        let mut pending = self.link.pending.lock();
        pending.tickets += 1;
        let ticket = pending.tickets;
        match entry {
            Some(entry) => self.objects.insert(digest, entry),
            None => drop(self.objects.remove(&digest)),
        }
        if self.send(Write::Object { digest, entry, ticket }) {
            pending.objects.insert(digest, (ticket, entry));
        }
    }

    pub(crate) fn touch(&self, used: Vec<(Digest, u64)>) {
        if !used.is_empty() {
            self.send(Write::Touch(used));
        }
    }

    /// Drops expired records.
    pub(crate) fn purge(&self, now: i64) {
        self.send(Write::Purge { now });
    }

    /// Waits until everything put so far is committed, five seconds at the most. Blocks.
    pub(crate) fn flush(&self) {
        let (done, wait) = mpsc::channel();
        self.link.queued.fetch_add(1, Ordering::Relaxed);
        let _ = self.writes.send(Write::Flush(done));
        let _ = wait.recv_timeout(Duration::from_secs(5));
    }

    /// Bytes of all committed objects. Scans all rows.
    pub(crate) fn total(&self) -> Option<u64> {
        self.read(|connection| {
            connection.query_row("SELECT coalesce(sum(size), 0) FROM objects", [], |row| row.get::<_, i64>(0))
        })
        .map(|total| total.max(0) as u64)
    }

    /// Up to `limit` objects after `after` in the order of eviction: the one used longest ago first, then by digest.
    pub(crate) fn oldest(&self, after: Option<(u64, Digest)>, limit: u32) -> Vec<(Digest, Entry)> {
        let (used, digest) =
            after.map_or((-1, String::new()), |(used, digest)| (used as i64, key_of(&digest)));
        self.rows(
            "SELECT digest, size, mtime, ctime, inode, used FROM objects WHERE (used, digest) > (?1, ?2) ORDER BY used, digest LIMIT ?3",
            params![used, digest, limit],
        )
    }

    /// Objects in the order of their digests, after `after`: for the scrubber.
    pub(crate) fn after(&self, after: Option<&Digest>, limit: u32) -> Vec<(Digest, Entry)> {
        self.rows(
            "SELECT digest, size, mtime, ctime, inode, used FROM objects WHERE digest > ?1 ORDER BY digest LIMIT ?2",
            params![after.map(key_of).unwrap_or_default(), limit],
        )
    }

    fn rows(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Vec<(Digest, Entry)> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows =
                statement.query_map(values, |row| Ok((row.get::<_, String>(0)?, entry_at(row, 1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(digest, entry)| Some((digest.parse().ok()?, entry)))
        .collect()
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let mut lent = self.link.lend();
        let opening = self.link.opening.load(Ordering::Relaxed);
        // Taken out for the time of the query, so that one which panics or fails is not used again.
        let connection = match lent.connection.take().filter(|(of, _)| *of == opening) {
            Some((_, connection)) => connection,
            None => {
                let opened = database::reader(&self.path);
                opened
                    .map_err(|error| tracing::warn!(%error, "the index cannot be opened for reading"))
                    .ok()?
            }
        };
        match query(&connection) {
            Ok(found) => {
                lent.connection = Some((opening, connection));
                Some(found)
            }
            Err(error) => {
                tracing::warn!(%error, "the index cannot be read");
                if database::damaged(&error) {
                    self.send(Write::Damaged { opening });
                }
                None
            }
        }
    }

    /// False when too much waits already.
    fn send(&self, write: Write) -> bool {
        if self.link.queued.load(Ordering::Relaxed) >= QUEUE {
            self.link.lost();
            return false;
        }
        self.link.queued.fetch_add(1, Ordering::Relaxed);
        self.writes.send(write).is_ok()
    }
}

fn key_of(digest: &Digest) -> String {
    digest.to_string()
}

fn entry_at(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Entry> {
    let number = |at: usize| row.get::<_, i64>(first + at);
    let stamp =
        Stamp { size: number(0)?.max(0) as u64, mtime: number(1)?, ctime: number(2)?, inode: number(3)? };
    Ok(Entry { stamp, used: number(4)?.max(0) as u64 })
}
