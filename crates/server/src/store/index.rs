//! What the store remembers: records under a key, and one row for each object.
//!
//! SQLite in WAL mode. One thread writes, in batches; readers have connections of their own. What was just put is
//! answered from memory until it is committed, what is hot from a cache of bounded size, so that memory does not grow
//! with the store. Everything here can be lost: objects are then found again by the sweep, and tags are asked anew.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use entrepot_oci::Digest;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use super::layout::{Stamp, failpoint};

/// Of the schema below. A file with another one is set aside, and the index starts empty.
const VERSION: i64 = 1;
/// Bytes of records kept in memory.
const HOT: u64 = 4 << 20;
/// How long a write may wait for others to share its transaction.
const GATHER: Duration = Duration::from_millis(20);
const BATCH: usize = 1000;

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
    readers: Mutex<Vec<Connection>>,
    pending: Arc<Pending>,
    hot: quick_cache::sync::Cache<Box<str>, Option<Bytes>, Weight>,
    objects: quick_cache::sync::Cache<Digest, Entry>,
    healthy: Arc<AtomicBool>,
}

enum Write {
    Put { key: Box<str>, value: Option<Bytes>, expires: Option<i64>, ticket: u64 },
    Object { digest: Digest, entry: Entry },
    Forget(Digest),
    Touch(Vec<(Digest, u64)>),
    Purge { now: i64 },
    /// Answered when everything before it is committed, or lost.
    Flush(mpsc::Sender<()>),
}

#[derive(Default)]
struct Pending {
    tickets: AtomicU64,
    records: Mutex<HashMap<Box<str>, (u64, Option<Bytes>)>>,
}

#[derive(Clone)]
struct Weight;

impl quick_cache::Weighter<Box<str>, Option<Bytes>> for Weight {
    fn weight(&self, key: &Box<str>, value: &Option<Bytes>) -> u64 {
        (key.len() + value.as_ref().map_or(0, Bytes::len) + 64) as u64
    }
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Index {
    /// Opens or makes the index. A file that SQLite cannot read, or of another version, is set aside under a name that
    /// says so, and the sweep finds the objects again.
    pub(crate) fn open(path: &Path) -> rusqlite::Result<Index> {
        let connection = match connect(path) {
            Ok(connection) => connection,
            Err(error) => {
                let aside = set_aside(path);
                tracing::warn!(%error, path = %path.display(), aside = %aside.display(), "the index cannot be read; it is set aside and rebuilt from the stored objects");
                connect(path)?
            }
        };
        let pending = Arc::new(Pending::default());
        let healthy = Arc::new(AtomicBool::new(true));
        let (writes, queue) = mpsc::channel();
        let writer = Writer { connection, path: path.to_owned(), pending: pending.clone(), healthy: healthy.clone() };
        std::thread::Builder::new()
            .name("index-writer".into())
            .spawn(move || writer.run(&queue))
            .map_err(|_| rusqlite::Error::InvalidQuery)?;
        Ok(Index {
            path: path.to_owned(),
            writes,
            readers: Mutex::default(),
            pending,
            hot: quick_cache::sync::Cache::with_weighter(20_000, HOT, Weight),
            objects: quick_cache::sync::Cache::new(20_000),
            healthy,
        })
    }

    /// Whether the last write succeeded.
    pub(crate) fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// The record, if memory knows: `Some(None)` says that there is none.
    pub(crate) fn cached(&self, key: &str) -> Option<Option<Bytes>> {
        if let Some(known) = self.hot.get(key) {
            return Some(known);
        }
        self.pending.records.lock().get(key).map(|(_, value)| value.clone())
    }

    /// The record, from the database. Blocks.
    pub(crate) fn load(&self, key: &str, now: i64) -> Option<Bytes> {
        let value = self.read(|connection| {
            connection
                .prepare_cached("SELECT value FROM records WHERE key = ?1 AND (expires IS NULL OR expires > ?2)")?
                .query_row(params![key, now], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        });
        let value = value.flatten().map(Bytes::from);
        if let Some((_, pending)) = self.pending.records.lock().get(key) {
            return pending.clone();
        }
        self.hot.insert(key.into(), value.clone());
        value
    }

    /// `None` removes the record.
    pub(crate) fn put(&self, key: &str, value: Option<Bytes>, expires: Option<i64>) {
        let ticket = self.pending.tickets.fetch_add(1, Ordering::Relaxed);
        self.pending.records.lock().insert(key.into(), (ticket, value.clone()));
        self.hot.insert(key.into(), value.clone());
        self.send(Write::Put { key: key.into(), value, expires, ticket });
    }

    pub(crate) fn object_cached(&self, digest: &Digest) -> Option<Entry> {
        self.objects.get(digest)
    }

    /// Blocks.
    pub(crate) fn object(&self, digest: &Digest) -> Option<Entry> {
        let entry = self
            .read(|connection| {
                connection
                    .prepare_cached("SELECT size, mtime, ctime, inode, used FROM objects WHERE digest = ?1")?
                    .query_row([key_of(digest)], |row| entry_at(row, 0))
                    .optional()
            })
            .flatten()?;
        self.objects.insert(*digest, entry);
        Some(entry)
    }

    pub(crate) fn insert(&self, digest: Digest, entry: Entry) {
        self.objects.insert(digest, entry);
        self.send(Write::Object { digest, entry });
    }

    pub(crate) fn forget(&self, digest: &Digest) {
        self.objects.remove(digest);
        self.send(Write::Forget(*digest));
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

    /// Waits until everything put so far is committed. Blocks.
    pub(crate) fn flush(&self) {
        let (done, wait) = mpsc::channel();
        self.send(Write::Flush(done));
        let _ = wait.recv_timeout(Duration::from_secs(5));
    }

    /// Bytes of all objects. Scans all rows; for the start only.
    pub(crate) fn total(&self) -> Option<u64> {
        self.read(|connection| connection.query_row("SELECT coalesce(sum(size), 0) FROM objects", [], |row| row.get::<_, i64>(0)))
            .map(|total| total.max(0) as u64)
    }

    /// The `limit` objects that were used longest ago, oldest first; those used before `before` only, if given.
    pub(crate) fn oldest(&self, limit: u32, before: Option<u64>) -> Vec<(Digest, Entry)> {
        self.rows(
            "SELECT digest, size, mtime, ctime, inode, used FROM objects WHERE used < ?1 ORDER BY used, digest LIMIT ?2",
            params![before.map_or(i64::MAX, |before| before as i64), limit],
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
            let rows = statement.query_map(values, |row| Ok((row.get::<_, String>(0)?, entry_at(row, 1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(digest, entry)| Some((digest.parse().ok()?, entry)))
        .collect()
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Option<T> {
        let idle = self.readers.lock().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => reader(&self.path).map_err(|error| tracing::warn!(%error, "the index cannot be opened for reading")).ok()?,
        };
        match query(&connection) {
            Ok(found) => {
                self.readers.lock().push(connection);
                Some(found)
            }
            Err(error) => {
                tracing::warn!(%error, "the index cannot be read");
                None
            }
        }
    }

    fn send(&self, write: Write) {
        // The writer lives as long as the index; were it gone, the write would be lost like any other.
        let _ = self.writes.send(write);
    }
}

/// The thread that owns the writing connection.
struct Writer {
    connection: Connection,
    path: PathBuf,
    pending: Arc<Pending>,
    healthy: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Write>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH && !matches!(batch.last(), Some(Write::Flush(_))) {
                match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(write) => batch.push(write),
                    Err(_) => break,
                }
            }
            let committed = self.commit(&batch);
            let was = self.healthy.swap(committed.is_ok(), Ordering::Relaxed);
            if let Err(error) = committed {
                if was {
                    tracing::error!(%error, path = %self.path.display(), "the index cannot be written; what is stored from now on is found again at the next start");
                }
                self.recover(&error);
            }
            self.settle(batch);
        }
    }

    fn commit(&mut self, batch: &[Write]) -> rusqlite::Result<()> {
        failpoint("index::write").map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let transaction = self.connection.transaction()?;
        for write in batch {
            apply(&transaction, write)?;
        }
        transaction.commit()
    }

    /// A database that is damaged while in use is replaced by an empty one.
    fn recover(&mut self, error: &rusqlite::Error) {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        if !matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) {
            return;
        }
        let aside = set_aside(&self.path);
        tracing::error!(aside = %aside.display(), "the index is damaged; it is set aside and started anew");
        match connect(&self.path) {
            Ok(connection) => self.connection = connection,
            Err(error) => tracing::error!(%error, "no new index can be made"),
        }
    }

    fn settle(&self, batch: Vec<Write>) {
        let mut records = self.pending.records.lock();
        for write in batch {
            match write {
                Write::Put { key, ticket, .. } if records.get(&key).is_some_and(|(latest, _)| *latest == ticket) => {
                    records.remove(&key);
                }
                Write::Flush(done) => {
                    let _ = done.send(());
                }
                _ => {}
            }
        }
    }
}

fn apply(connection: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Put { key, value: Some(value), expires, .. } => connection
            .prepare_cached("INSERT OR REPLACE INTO records (key, value, expires) VALUES (?1, ?2, ?3)")?
            .execute(params![key, value.as_ref(), expires])?,
        Write::Put { key, value: None, .. } => {
            connection.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([key])?
        }
        Write::Object { digest, entry: Entry { stamp, used } } => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO objects (digest, size, mtime, ctime, inode, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![key_of(digest), stamp.size as i64, stamp.mtime, stamp.ctime, stamp.inode, *used as i64])?,
        Write::Forget(digest) => {
            connection.prepare_cached("DELETE FROM objects WHERE digest = ?1")?.execute([key_of(digest)])?
        }
        Write::Touch(all) => {
            let mut statement = connection.prepare_cached("UPDATE objects SET used = max(used, ?2) WHERE digest = ?1")?;
            for (digest, used) in all {
                statement.execute(params![key_of(digest), *used as i64])?;
            }
            all.len()
        }
        Write::Purge { now } => {
            connection.prepare_cached("DELETE FROM records WHERE expires <= ?1")?.execute([now])?
        }
        Write::Flush(_) => 0,
    };
    Ok(())
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // The last commits may be lost with the power: objects are then found again by the sweep.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -2048)?;
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version != 0 && version != VERSION {
        return Err(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_MISMATCH),
            Some(format!("the index has version {version}, this program knows {VERSION}")),
        ));
    }
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS records_expires ON records (expires) WHERE expires IS NOT NULL;
         CREATE TABLE IF NOT EXISTS objects (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime INTEGER NOT NULL,
             ctime INTEGER NOT NULL, inode INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS objects_used ON objects (used, digest);",
    )?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    use rusqlite::OpenFlags;
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

/// Moves the database and its journals out of the way; the last one set aside is kept.
fn set_aside(path: &Path) -> PathBuf {
    let aside = path.with_extension("db.aside");
    for suffix in ["", "-wal", "-shm"] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        if std::fs::rename(with(path), with(&aside)).is_err() {
            let _ = std::fs::remove_file(with(path));
        }
    }
    aside
}

fn key_of(digest: &Digest) -> String {
    digest.to_string()
}

fn entry_at(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Entry> {
    let number = |at: usize| row.get::<_, i64>(first + at);
    let stamp = Stamp { size: number(0)?.max(0) as u64, mtime: number(1)?, ctime: number(2)?, inode: number(3)? };
    Ok(Entry { stamp, used: number(4)?.max(0) as u64 })
}
