use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use entrepot_testkit::script::Image;

use crate::common::Bench;
use crate::shelf::{self, Blob};

type Harm = (&'static str, fn(&Path));

/// What may have become of `index.db` between two starts.
const HARMS: &[Harm] = &[
    ("untouched", |_| ()),
    ("gone", |index| remove(index)),
    ("gone, its journal left", |index| fs::remove_file(index).expect("removing")),
    ("empty", |index| fs::write(index, b"").expect("writing")),
    ("garbage", |index| fs::write(index, [0xa5; 100_000]).expect("writing")),
    ("half", |index| resize(index, 1, 2)),
    ("a header only", |index| resize(index, 1, 1000)),
    ("another page size", |index| scribble(index, 16, &[0x02, 0x01])),
    ("the schema overwritten", |index| scribble(index, 100, &[0xff; 400])),
    ("the second page overwritten", |index| scribble(index, 4096, &[0xee; 4096])),
    ("every page overwritten in its middle", |index| {
        let pages = fs::metadata(index).expect("the index").len() / 4096;
        (0..pages).for_each(|page| scribble(index, page * 4096 + 2000, &[0x5a; 300]));
    }),
    ("the last page overwritten", |index| {
        let len = fs::metadata(index).expect("the index").len();
        scribble(index, len - 4096, &[0x99; 4096]);
    }),
    ("a journal of garbage", |index| fs::write(beside(index, "-wal"), [0x37; 50_000]).expect("writing")),
    ("shared memory of garbage", |index| fs::write(beside(index, "-shm"), [0x37; 32_768]).expect("writing")),
    ("an older version", |index| set_version(index, -1)),
    ("a newer version", |index| set_version(index, 99)),
    ("other tables", |index| {
        remove(index);
        let other = rusqlite::Connection::open(index).expect("a database");
        other
            .execute_batch(
                "CREATE TABLE objects (name TEXT); CREATE TABLE records (a, b); PRAGMA user_version = 1",
            )
            .expect("tables");
    }),
    ("a folder", |index| {
        remove(index);
        fs::create_dir(index).and_then(|()| fs::write(index.join("inside"), b"x")).expect("a folder");
    }),
    ("a folder again", |index| {
        remove(index);
        fs::create_dir(index).and_then(|()| fs::write(index.join("inside"), b"x")).expect("a folder");
    }),
    ("a link to nowhere", |index| {
        remove(index);
        std::os::unix::fs::symlink("/nonexistent/index.db", index).expect("a link");
    }),
];

/// T-CS4: the mirror starts whatever became of the index, and finds its objects again.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs4_any_index_at_the_start() {
    let mut bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "v1", &image);
    let blobs: Vec<Blob> = (0..40).map(|seed| Blob::served(&bench, seed, 3_000 + seed)).collect();
    assert_eq!(bench.get("/v2/team/app/manifests/v1").send().await.body, image.manifest);
    for blob in &blobs {
        blob.pull(&bench).await;
    }
    agreed(&bench, 41);
    for (what, harm) in HARMS {
        for gently in [true, false] {
            println!("{what}, {}", if gently { "after SIGTERM" } else { "after SIGKILL" });
            if gently {
                bench.mirror.sigterm();
                assert!(bench.mirror.wait_exit(Duration::from_secs(10)).is_some());
            } else {
                bench.mirror.kill9();
            }
            harm(&bench.mirror.cache_dir().join("index.db"));
            let start = Instant::now();
            bench.mirror.restart();
            assert!(start.elapsed() < Duration::from_secs(10));
            for blob in blobs.iter().step_by(13) {
                blob.pull(&bench).await;
            }
            assert_eq!(bench.get("/v2/team/app/manifests/v1").send().await.body, image.manifest);
            agreed(&bench, 41);
            assert_eq!(shelf::ready(&bench.mirror), 200);
        }
    }
    let fetched: usize = blobs.iter().map(|blob| blob.fetches(&bench)).sum();
    assert_eq!(fetched, blobs.len(), "no blob was fetched again");
}

/// T-CS4: the index is harmed while it is in use.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs4_an_index_harmed_in_use() {
    let harms: [Harm; 4] = [
        ("gone", |index| remove(index)),
        ("replaced", |index| {
            fs::write(index.with_extension("other"), [0xa5; 50_000]).expect("writing");
            fs::rename(index.with_extension("other"), index).expect("renaming");
        }),
        ("overwritten in place", |index| {
            let len = fs::metadata(index).expect("the index").len();
            scribble(index, 0, &vec![0xa5; len as usize]);
        }),
        ("moved away for a folder", |index| {
            fs::rename(index, index.with_extension("moved"))
                .and_then(|()| fs::create_dir(index))
                .expect("a folder");
        }),
    ];
    for (what, harm) in harms {
        println!("{what}");
        let mut bench = Bench::new();
        let blobs: Vec<Blob> = (0..10).map(|seed| Blob::served(&bench, seed, 50_000)).collect();
        for blob in &blobs[..5] {
            blob.store(&bench).await;
        }
        // Into the database itself, out of its journal.
        bench.mirror.restart();
        harm(&bench.mirror.cache_dir().join("index.db"));
        for blob in &blobs {
            blob.pull(&bench).await;
        }
        agreed(&bench, 10);
        bench.mirror.wait_until(Duration::from_secs(15), "/readyz is well again", |mirror| {
            shelf::ready(mirror) == 200
        });
        bench.mirror.kill9();
        bench.mirror.restart();
        agreed(&bench, 10);
    }
}

/// Waits until the index names exactly the files, of which there are so many.
fn agreed(bench: &Bench, objects: usize) {
    bench.mirror.wait_until(Duration::from_secs(40), "index and files agree", |mirror| {
        let files = shelf::files(mirror.cache_dir());
        let counted = mirror.metric("entrepot_stored_bytes", &[]);
        files.len() == objects
            && shelf::rows(mirror.cache_dir()).as_ref() == Some(&files)
            && counted == files.values().sum::<u64>() as f64
    });
}

fn beside(index: &Path, suffix: &str) -> std::path::PathBuf {
    format!("{}{suffix}", index.display()).into()
}

fn remove(index: &Path) {
    for suffix in ["", "-wal", "-shm"] {
        let path = beside(index, suffix);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("removing");
        } else {
            let _ = fs::remove_file(path);
        }
    }
}

fn resize(index: &Path, part: u64, of: u64) {
    let file = fs::File::options().write(true).open(index).expect("the index");
    let len = file.metadata().expect("its length").len();
    file.set_len(len * part / of).expect("resizing");
}

fn scribble(index: &Path, at: u64, bytes: &[u8]) {
    let file = fs::File::options().write(true).open(index).expect("the index");
    file.write_all_at(bytes, at).expect("overwriting");
}

fn set_version(index: &Path, version: i64) {
    let index = rusqlite::Connection::open(index).expect("the index");
    index.pragma_update(None, "user_version", version).expect("setting the version");
}
