//! What lies in a mirror's cache directory, looked at from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::script::{Body, Method, Pattern, sha256};

use crate::common::{Bench, Setup};

/// The file of an object.
pub(crate) fn file(mirror: &Mirror, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
    mirror.cache_dir().join("blobs/sha256").join(&hex[..2]).join(hex)
}

/// All object files, by digest, with their sizes.
pub(crate) fn files(cache: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(cache.join("blobs/sha256")).into_iter().flatten().flatten() {
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            // One that is removed meanwhile is no longer there.
            let Ok(meta) = file.metadata() else { continue };
            found.insert(format!("sha256:{}", file.file_name().to_string_lossy()), meta.len());
        }
    }
    found
}

/// All rows of the index, by digest, with their sizes. `None` while it cannot be read.
pub(crate) fn rows(cache: &Path) -> Option<BTreeMap<String, u64>> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let index = rusqlite::Connection::open_with_flags(cache.join("index.db"), flags).ok()?;
    let mut all = index.prepare("SELECT digest, size FROM objects").ok()?;
    let rows = all.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()))).ok()?;
    rows.collect::<Result<_, _>>().ok()
}

/// Asserts that every object file hashes to its name.
#[track_caller]
pub(crate) fn assert_sound(cache: &Path) {
    for digest in files(cache).keys() {
        let hex = digest.strip_prefix("sha256:").expect("a SHA-256 digest");
        let Ok(bytes) = fs::read(cache.join("blobs/sha256").join(&hex[..2]).join(hex)) else {
            continue;
        };
        assert_eq!(&sha256(&bytes), digest, "a stored object does not hash to its name");
    }
}

/// Files under `tmp/`.
pub(crate) fn fills(cache: &Path) -> usize {
    fs::read_dir(cache.join("tmp")).map_or(0, Iterator::count)
}

/// A blob that the upstream serves.
pub(crate) struct Blob {
    pub(crate) digest: String,
    pub(crate) path: String,
    pub(crate) body: Body,
}

impl Blob {
    pub(crate) fn served(bench: &Bench, seed: u64, size: u64) -> Blob {
        let body = Body::from(Pattern::new(seed, size));
        let digest = bench.upstream.serve_blob("team/app", body.clone());
        Blob { path: format!("/v2/team/app/blobs/{digest}"), digest, body }
    }

    /// Pulls it, and asserts that the bytes are right.
    pub(crate) async fn pull(&self, bench: &Bench) {
        let answer = bench.get(&self.path).discard().send().await;
        assert_eq!(
            (answer.status, answer.clean_end, &answer.digest),
            (200, true, &self.digest),
            "{answer:?}"
        );
    }

    /// Pulls it until it is stored.
    pub(crate) async fn store(&self, bench: &Bench) {
        let start = Instant::now();
        loop {
            self.pull(bench).await;
            for _ in 0..50 {
                if self.is_stored(&bench.mirror) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "never stored; log:\n{}", bench.mirror.log());
        }
    }

    /// Whether it is there and in the index, and nothing is being filled.
    fn is_stored(&self, mirror: &Mirror) -> bool {
        let size = self.body.len();
        fs::metadata(file(mirror, &self.digest)).ok().map(|meta| meta.len()) == size
            && rows(mirror.cache_dir()).is_some_and(|rows| rows.get(&self.digest).copied() == size)
            && mirror.metric("entrepot_filling", &[]) == 0.0
    }

    /// GETs of it that upstream saw.
    pub(crate) fn fetches(&self, bench: &Bench) -> usize {
        bench.upstream.count(Method::Get, &self.path)
    }
}

/// A mirror with these failpoints. Panics with the remedy if the binary has none.
pub(crate) fn failing(setup: Setup, points: &str) -> Bench {
    let bench = setup.env("FAILPOINTS", points).start();
    assert_failpoints(&bench.mirror);
    bench
}

pub(crate) fn assert_failpoints(mirror: &Mirror) {
    assert!(
        mirror.log().contains("built with failpoints"),
        "this binary has no failpoints: run `cargo build -p entrepot --features failpoints`, or name one in ENTREPOT_BIN"
    );
}

pub(crate) fn ready(mirror: &Mirror) -> u16 {
    mirror.admin_get("/readyz").0
}
