//! The ledger's tables. Every call is one turn of the Durable Object: nothing comes between its statements.

use std::collections::BTreeMap;

use entrepot_core::evict::{self, Candidate, Room, SLICE};
use entrepot_core::time::Wall;
use entrepot_oci::Digest;
use serde::{Deserialize, Serialize};
use worker::{SqlCursor, SqlStorage, SqlStorageValue};

use super::{Listed, Look, Slice, Victim};
use crate::notes::Notes;

/// Series at the most. Their labels are from closed lists and the configuration, but configurations change.
const MAX_SERIES: i64 = 1000;

/// The rest of `totals` follows from the other tables, by their triggers.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS objects (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_use ON objects (used, digest);
CREATE TABLE IF NOT EXISTS counters (series TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS totals (id INTEGER PRIMARY KEY, objects INTEGER NOT NULL, bytes INTEGER NOT NULL, series INTEGER NOT NULL);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0, 0);
CREATE TRIGGER IF NOT EXISTS object_added AFTER INSERT ON objects BEGIN
  UPDATE totals SET objects = objects + 1, bytes = bytes + new.size;
END;
CREATE TRIGGER IF NOT EXISTS object_removed AFTER DELETE ON objects BEGIN
  UPDATE totals SET objects = objects - 1, bytes = bytes - old.size;
END;
CREATE TRIGGER IF NOT EXISTS object_resized AFTER UPDATE OF size ON objects WHEN new.size != old.size BEGIN
  UPDATE totals SET bytes = bytes - old.size + new.size;
END;
CREATE TRIGGER IF NOT EXISTS series_added AFTER INSERT ON counters BEGIN
  UPDATE totals SET series = series + 1;
END;";

/// The names of cursors.
const BUCKET: &str = "bucket";
const WARM: &str = "warm";

/// See the module.
pub(super) struct Book(SqlStorage);

/// What the bucket is known to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
}

#[derive(Deserialize)]
struct Row {
    digest: String,
    size: u64,
    used: u64,
}

#[derive(Deserialize)]
struct Counter {
    series: String,
    value: u64,
}

#[derive(Deserialize)]
struct Cursor {
    value: String,
}

impl Book {
    /// Errors: the storage cannot be used.
    pub(super) fn open(sql: SqlStorage) -> worker::Result<Book> {
        sql.exec(TABLES, None)?;
        Ok(Book(sql))
    }

    /// What was used and stored was so now, at the latest.
    pub(super) fn note(&self, notes: &Notes, now: Wall) -> worker::Result<()> {
        if !notes.used.is_empty() {
            self.run(
                "UPDATE objects SET used = max(used, ?) WHERE digest IN (SELECT value FROM json_each(?))",
                vec![millis(now), json(&notes.used)?],
            )?;
        }
        if !notes.filled.is_empty() {
            self.run(
                "INSERT INTO objects (digest, size, used) SELECT value ->> 0, value ->> 1, ? FROM json_each(?) WHERE true
                 ON CONFLICT (digest) DO UPDATE SET size = excluded.size, used = max(used, excluded.used)",
                vec![millis(now), json(&notes.filled)?],
            )?;
        }
        if !notes.counts.is_empty() {
            let counts = json(&notes.counts)?;
            self.run(
                "UPDATE counters SET value = counters.value + told.value FROM json_each(?) AS told WHERE series = told.key",
                vec![counts.clone()],
            )?;
            self.run(
                "INSERT INTO counters (series, value) SELECT key, value FROM json_each(?)
                 WHERE key NOT IN (SELECT series FROM counters) LIMIT max(0, ? - (SELECT series FROM totals))",
                vec![counts, MAX_SERIES.into()],
            )?;
        }
        Ok(())
    }

    /// Forgets what was removed, and names what has to go next. What was used since it was to go stays, until it is seen to
    /// be gone.
    pub(super) fn slice(&self, asked: &Slice, now: Wall) -> worker::Result<Vec<Victim>> {
        if !asked.removed.is_empty() {
            self.run(
                "DELETE FROM objects WHERE (digest, used) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
                vec![json(&asked.removed)?],
            )?;
        }
        let room = Room { max_size: asked.max_size, blob_ttl: asked.blob_ttl, now };
        let rows = self.run(
            "SELECT digest, size, used FROM objects ORDER BY used, digest LIMIT ?",
            vec![(SLICE as i64).into()],
        )?;
        let candidates = rows.next::<Row>().filter_map(|row| {
            let Row { digest, size, used } = row.ok()?;
            Some(Candidate { digest: digest.parse().ok()?, size, used: Wall(used), busy: false })
        });
        let chosen = evict::slice(&room, self.totals()?.bytes, candidates);
        Ok(chosen
            .into_iter()
            .map(|candidate| Victim(candidate.digest, candidate.used, candidate.size))
            .collect())
    }

    pub(super) fn look(&self, now: Wall) -> worker::Result<Look> {
        Ok(Look {
            since: now,
            after: self.cursor(BUCKET)?.unwrap_or_default(),
            warm: self.cursor(WARM)?.unwrap_or_default(),
        })
    }

    /// Learns what the bucket holds between two keys. What it does not hold there is forgotten, unless it was told of since
    /// the bucket was asked. How many objects were learnt, and how many forgotten.
    pub(super) fn listed(&self, listed: &Listed, now: Wall) -> worker::Result<(u64, u64)> {
        let before = self.totals()?.objects;
        let counted: Vec<_> = listed
            .found
            .iter()
            .filter(|found| evict::counts(found.verified, found.stored, now))
            .map(|found| (found.digest, found.size, found.stored.min(now)))
            .collect();
        self.run(
            "INSERT INTO objects (digest, size, used) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) WHERE true
             ON CONFLICT (digest) DO UPDATE SET size = excluded.size WHERE size != excluded.size",
            vec![json(&counted)?],
        )?;
        let between = self.totals()?.objects;
        let there: Vec<Digest> = listed.found.iter().map(|found| found.digest).collect();
        self.run(
            "DELETE FROM objects WHERE digest > ? AND (? IS NULL OR digest <= ?) AND used < ?
             AND digest NOT IN (SELECT value FROM json_each(?))",
            vec![
                listed.after.as_str().into(),
                listed.until.clone().into(),
                listed.until.clone().into(),
                millis(listed.since),
                json(&there)?,
            ],
        )?;
        self.point(BUCKET, listed.until.as_deref().unwrap_or_default())?;
        let after = self.totals()?.objects;
        Ok((between.saturating_sub(before), between.saturating_sub(after)))
    }

    pub(super) fn warmed(&self, progress: &str) -> worker::Result<()> {
        self.point(WARM, progress)
    }

    pub(super) fn totals(&self) -> worker::Result<Totals> {
        self.run("SELECT objects, bytes FROM totals", vec![])?.one()
    }

    pub(super) fn counters(&self) -> worker::Result<BTreeMap<String, u64>> {
        let rows: Vec<Counter> = self.run("SELECT series, value FROM counters", vec![])?.to_array()?;
        Ok(rows.into_iter().map(|row| (row.series, row.value)).collect())
    }

    fn cursor(&self, name: &str) -> worker::Result<Option<String>> {
        let rows = self.run("SELECT value FROM cursors WHERE name = ?", vec![name.into()])?;
        let rows: Vec<Cursor> = rows.to_array()?;
        Ok(rows.into_iter().next().map(|row| row.value))
    }

    fn point(&self, name: &str, value: &str) -> worker::Result<()> {
        let sql = "INSERT INTO cursors (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        self.run(sql, vec![name.into(), value.into()]).map(drop)
    }

    fn run(&self, sql: &str, values: Vec<SqlStorageValue>) -> worker::Result<SqlCursor> {
        self.0.exec(sql, values)
    }
}

fn millis(at: Wall) -> SqlStorageValue {
    SqlStorageValue::Integer(at.0 as i64)
}

fn json(value: &impl Serialize) -> worker::Result<SqlStorageValue> {
    Ok(serde_json::to_string(value)?.into())
}
