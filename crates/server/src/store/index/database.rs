//! The database file: opening it, judging it, and putting it out of the way.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ffi;
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Of the schema below. A file with another one is set aside, and the index starts empty.
const VERSION: i64 = 1;

/// Opens or makes the database. One that cannot be used is set aside under a name that says so; only the disk's own
/// refusal is an error.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let error = match connect(path) {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    let strange = fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file());
    if !damaged(&error) && !strange {
        return Err(error);
    }
    let aside = set_aside(path);
    tracing::warn!(%error, path = %path.display(), aside = %aside.display(), "the index cannot be read; it is set aside and rebuilt from the stored objects");
    connect(path)
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
            ffi::Error::new(ffi::SQLITE_MISMATCH),
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
    // Tables of the right names may have other columns.
    connection.prepare("SELECT key, value, expires FROM records")?;
    connection.prepare("SELECT digest, size, mtime, ctime, inode, used FROM objects")?;
    connection.pragma_update(None, "user_version", VERSION)?;
    Ok(connection)
}

pub(super) fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "cache_size", -512)?;
    Ok(connection)
}

/// Whether the database is at fault, and not the disk (full, read-only, gone) or the process (out of descriptors), which
/// may recover with the database as it is.
pub(super) fn damaged(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(error, _) = error else {
        return true;
    };
    match error.code {
        ErrorCode::SystemIoFailure => {
            matches!(error.extended_code, ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ)
        }
        ErrorCode::DiskFull
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::OutOfMemory
        | ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OperationInterrupted
        | ErrorCode::OperationAborted => false,
        _ => true,
    }
}

/// Whether there was no space for a write, or for the memory that a journal's readers share.
pub(super) fn full(error: &rusqlite::Error) -> bool {
    let rusqlite::Error::SqliteFailure(error, _) = error else {
        return false;
    };
    error.code == ErrorCode::DiskFull || error.extended_code == ffi::SQLITE_IOERR_SHMSIZE
}

/// Moves the database and its journals out of the way; the last one set aside is kept.
pub(super) fn set_aside(path: &Path) -> PathBuf {
    let aside = path.with_extension("db.aside");
    for suffix in ["", "-wal", "-shm"] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        remove(&with(&aside));
        if fs::rename(with(path), with(&aside)).is_err() {
            remove(&with(path));
        }
    }
    aside
}

/// Whatever it is.
fn remove(path: &Path) {
    if fs::remove_file(path).is_err() {
        let _ = fs::remove_dir_all(path);
    }
}

/// Tells one file from another that comes to bear its name.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}
