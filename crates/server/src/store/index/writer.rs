//! The thread that owns the writing connection.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use entrepot_engine::ports::Record;
use entrepot_oci::Digest;
use rusqlite::{Connection, params};

use super::database::{damaged, full, identity, open, set_aside};
use super::{Entry, Link, key_of};
use crate::store::layout::failpoint;

/// How long a write may wait for others to share its transaction.
const GATHER: Duration = Duration::from_millis(20);
const BATCH: usize = 1000;
/// Records that expire, at most, after each purge.
pub(super) const EXPIRING: i64 = 20_000;

pub(super) enum Write {
    Put {
        key: Box<str>,
        value: Option<Record>,
        expires: Option<i64>,
        ticket: u64,
    },
    Object {
        digest: Digest,
        entry: Option<Entry>,
        ticket: u64,
    },
    Touch(Vec<(Digest, u64)>),
    Purge {
        now: i64,
    },
    /// A reader of this opening found the database damaged.
    Damaged {
        opening: u64,
    },
    /// Answered when everything before it is committed, or lost.
    Flush(mpsc::Sender<()>),
}

pub(super) struct Writer {
    path: PathBuf,
    /// `None` while the disk does not give us one.
    connection: Option<Connection>,
    opened: Option<(u64, u64)>,
    link: Arc<Link>,
}

impl Writer {
    /// The disk's refusal is not an error here: it is tried again with each batch.
    pub(super) fn new(path: PathBuf, link: Arc<Link>) -> Writer {
        let mut writer = Writer { path, connection: None, opened: None, link };
        if let Err(error) = writer.connect() {
            tracing::error!(%error, path = %writer.path.display(), "the index cannot be opened; what is stored is found again once it can");
            writer.link.lost();
            writer.link.full.store(full(&error), Ordering::Relaxed);
        }
        writer
    }

    pub(super) fn run(mut self, queue: &mpsc::Receiver<Write>) {
        while let Ok(first) = queue.recv() {
            let mut batch = vec![first];
            let until = Instant::now() + GATHER;
            while batch.len() < BATCH && !matches!(batch.last(), Some(Write::Flush(_))) {
                match queue.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(write) => batch.push(write),
                    Err(_) => break,
                }
            }
            self.link.queued.fetch_sub(batch.len(), Ordering::Relaxed);
            match catch_unwind(AssertUnwindSafe(|| self.commit(&batch))) {
                Ok(Ok(())) => self.link.healthy.store(true, Ordering::Relaxed),
                Ok(Err(error)) => self.failed(&error),
                Err(_) => self.link.lost(),
            }
            if batch.iter().any(|write| self.is_of_this_opening(write)) {
                self.replace();
            }
            settle(&self.link, batch);
        }
    }

    fn is_of_this_opening(&self, write: &Write) -> bool {
        matches!(write, Write::Damaged { opening } if *opening == self.link.opening.load(Ordering::Relaxed))
    }

    fn commit(&mut self, batch: &[Write]) -> rusqlite::Result<()> {
        failpoint("index::write").map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        if self.connection.is_some() && identity(&self.path) != self.opened {
            // Removed or replaced under us: what is written there now nobody would find again.
            self.connection = None;
        }
        if self.connection.is_none() {
            self.connect()?;
            self.link.lose();
        }
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let transaction = connection.transaction()?;
        for write in batch {
            apply(&transaction, write)?;
        }
        transaction.commit()
    }

    fn connect(&mut self) -> rusqlite::Result<()> {
        self.link.forget_readers();
        self.connection = Some(open(&self.path)?);
        self.opened = identity(&self.path);
        Ok(())
    }

    /// A database that is damaged while in use is replaced by an empty one.
    fn failed(&mut self, error: &rusqlite::Error) {
        if self.link.healthy.load(Ordering::Relaxed) {
            tracing::error!(%error, path = %self.path.display(), "the index cannot be written; what is stored from now on is found again later");
        }
        self.link.lost();
        if full(error) {
            self.link.full.store(true, Ordering::Relaxed);
        }
        // An error of our own making (a failpoint) does not speak of the file.
        if self.connection.is_some() && matches!(error, rusqlite::Error::SqliteFailure(..)) && damaged(error)
        {
            self.replace();
        }
    }

    /// The next batch starts a new database.
    fn replace(&mut self) {
        self.connection = None;
        self.link.forget_readers();
        self.link.lose();
        let aside = set_aside(&self.path);
        tracing::error!(aside = %aside.display(), "the index is damaged; it is set aside and started anew");
    }
}

fn settle(link: &Link, batch: Vec<Write>) {
    let mut pending = link.pending.lock();
    for write in batch {
        match write {
            Write::Put { key, ticket, .. } => settled(&mut pending.records, &key, ticket),
            Write::Object { digest, ticket, .. } => settled(&mut pending.objects, &digest, ticket),
            Write::Flush(done) => {
                let _ = done.send(());
            }
            Write::Touch(_) | Write::Purge { .. } | Write::Damaged { .. } => {}
        }
    }
}

/// Forgets what was pending under `key`, unless a later write is.
fn settled<K: std::hash::Hash + Eq, V>(pending: &mut HashMap<K, (u64, V)>, key: &K, ticket: u64) {
    if pending.get(key).is_some_and(|(latest, _)| *latest == ticket) {
        pending.remove(key);
    }
}

fn apply(connection: &Connection, write: &Write) -> rusqlite::Result<()> {
    match write {
        Write::Put { key, value: Some(value), expires, .. } => connection
            .prepare_cached("INSERT OR REPLACE INTO records (key, value, expires) VALUES (?1, ?2, ?3)")?
            .execute(params![key, value.bytes().as_ref(), expires])?,
        Write::Put { key, value: None, .. } => {
            connection.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([key])?
        }
        Write::Object { digest, entry: Some(Entry { stamp, used }), .. } => connection
            .prepare_cached(
                "INSERT OR REPLACE INTO objects (digest, size, mtime, ctime, inode, used) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![key_of(digest), stamp.size as i64, stamp.mtime, stamp.ctime, stamp.inode, *used as i64])?,
        Write::Object { digest, entry: None, .. } => {
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
            // Records that expire are made for what clients ask, lists above all: those that expire first make way when
            // there are too many.
            connection
                .prepare_cached(
                    "DELETE FROM records WHERE expires <= ?1 OR key IN (
                         SELECT key FROM records WHERE expires IS NOT NULL ORDER BY expires DESC LIMIT -1 OFFSET ?2)",
                )?
                .execute(params![now, EXPIRING])?
        }
        Write::Damaged { .. } | Write::Flush(_) => 0,
    };
    Ok(())
}
