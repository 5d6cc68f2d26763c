//! Small records. All those of one repository lie in the storage of one Durable Object, where the work on that repository
//! is done as well, so that they are as consistent as in one place; the cache in front remembers them for a moment.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_engine::ports::{Meta, Record};
use serde::{Deserialize, Serialize};
use worker::{SqlStorage, SqlStorageValue};

use crate::front::{self, Front};
use crate::isolate;
use crate::repository::Stubs;
use crate::spawn::Spawn;

/// How long a record may be out of date in the cache in front. What it decides has a time of its own inside.
const FRONT: Duration = Duration::from_secs(60);

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct Records {
    pub(crate) front: Front,
    pub(crate) stubs: Stubs,
    pub(crate) spawn: Spawn,
    /// Where this runs in a repository's own Durable Object.
    pub(crate) own: Option<Own>,
}

/// The storage of one repository.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) repository: Rc<str>,
    pub(crate) table: Rc<Table>,
}

/// How a record is written to another's storage: this line, and the value behind it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) key: String,
    pub(crate) keep_ms: Option<u64>,
}

/// The repository that a record belongs to: all that its key holds between the kind and the rest.
pub(crate) fn repository(key: &str) -> &str {
    let rest = key.split_once('|').map_or(key, |(_, rest)| rest);
    let ends = rest.match_indices('|').nth(2).map_or(rest.len(), |(at, _)| at);
    &rest[..ends]
}

impl Records {
    fn own(&self, key: &str) -> Option<&Table> {
        let own = self.own.as_ref()?;
        (*own.repository == *repository(key)).then_some(&*own.table)
    }
}

impl Records {
    /// Has the cache in front forget a record.
    pub(crate) async fn forget(&self, key: &str) {
        self.front.remove(&self.front.record(key)).await;
    }
}

impl Meta for Records {
    async fn get(&self, key: &str) -> Option<Record> {
        if let Some(table) = self.own(key) {
            return table.get(key).map(Record::new);
        }
        let place = self.front.record(key);
        if let Some(response) = self.front.get(&place).await
            && let Ok(bytes) = worker::Response::from(response).bytes().await
        {
            return Some(Record::new(bytes));
        }
        let value = self.stubs.repository(repository(key)).ask("get", key.as_bytes()).await.ok()??;
        let (front, kept) = (self.front.clone(), value.clone());
        self.spawn.run(async move {
            front.put(&place, front::Body::Bytes(&kept), kept.len() as u64, FRONT).await;
        });
        Some(Record::new(value))
    }

    async fn put(&self, key: String, value: Bytes, keep: Option<Duration>) {
        let keep_ms = keep.map(|keep| keep.as_millis() as u64);
        if let Some(table) = self.own(&key) {
            return table.put(&key, &value, keep_ms);
        }
        let owner = self.stubs.repository(repository(&key));
        let forgotten = key.clone();
        let mut sent = serde_json::to_vec(&Put { key, keep_ms }).unwrap_or_default();
        sent.push(b'\n');
        sent.extend_from_slice(&value);
        if let Err(error) = owner.ask("put", &sent).await {
            worker::console_error!("a record cannot be written: {error}");
        }
        self.forget(&forgotten).await;
    }

    async fn remove(&self, key: &str) {
        if let Some(table) = self.own(key) {
            return table.remove(key);
        }
        let removed = self.stubs.repository(repository(key)).ask("remove", key.as_bytes()).await;
        if let Err(error) = removed {
            worker::console_error!("a record cannot be removed: {error}");
        }
        self.forget(key).await;
    }
}

/// Records in the storage of a Durable Object.
pub(crate) struct Table(SqlStorage);

#[derive(Deserialize)]
struct Row {
    #[serde(with = "serde_bytes")]
    value: Vec<u8>,
}

#[derive(Deserialize)]
struct Count {
    count: u32,
}

impl Table {
    pub(crate) fn open(sql: SqlStorage) -> worker::Result<Table> {
        sql.exec(
            "CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER) WITHOUT ROWID",
            None,
        )?;
        Ok(Table(sql))
    }

    pub(crate) fn get(&self, key: &str) -> Option<Bytes> {
        let found = self.0.exec(
            "SELECT value FROM records WHERE key = ? AND (expires IS NULL OR expires > ?)",
            vec![key.into(), now()],
        );
        let rows: Vec<Row> = said(found.and_then(|rows| rows.to_array()))?;
        rows.into_iter().next().map(|row| row.value.into())
    }

    pub(crate) fn put(&self, key: &str, value: &[u8], keep_ms: Option<u64>) {
        let expires = keep_ms.map(|keep| SqlStorageValue::Integer(millis() + keep as i64));
        said(self.0.exec(
            "INSERT INTO records (key, value, expires) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires",
            vec![key.into(), value.to_vec().into(), expires.into()],
        ));
    }

    pub(crate) fn remove(&self, key: &str) {
        said(self.0.exec("DELETE FROM records WHERE key = ?", vec![key.into()]));
    }

    /// Drops what has expired. How many records are left that will expire, and how many in all.
    pub(crate) fn purge(&self) -> Option<(u32, u32)> {
        said(self.0.exec("DELETE FROM records WHERE expires <= ?", vec![now()]))?;
        let count = |condition: &str| {
            let sql = format!("SELECT count(*) AS count FROM records {condition}");
            said(self.0.exec(&sql, None).and_then(|rows| rows.one::<Count>())).map(|row| row.count)
        };
        Some((count("WHERE expires IS NOT NULL")?, count("")?))
    }
}

fn millis() -> i64 {
    isolate::now().wall.0 as i64
}

fn now() -> SqlStorageValue {
    SqlStorageValue::Integer(millis())
}

/// A record that cannot be read or written is none; the log says why.
fn said<T>(outcome: worker::Result<T>) -> Option<T> {
    outcome.inspect_err(|error| worker::console_error!("the records' table: {error}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_belongs_to_its_repository() {
        let cases = [
            ("tag|https://up.example.com|up|team/app|known latest", "https://up.example.com|up|team/app"),
            ("public|https://up.example.com|up|team/app|", "https://up.example.com|up|team/app"),
            ("absent|https://up.example.com|a%7Cb|app|x|y|z", "https://up.example.com|a%7Cb|app"),
        ];
        for (key, owner) in cases {
            assert_eq!(repository(key), owner);
        }
    }
}
