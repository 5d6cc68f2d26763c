use std::fs;
use std::time::{Duration, Instant};

use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::script::sha256;

use crate::common::Bench;

const OBJECTS: usize = 100_000;
/// Ten times what it should take, for machines with other things to do.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// With 100,000 objects stored, `/v2/` is answered at once: after an orderly end, after kill -9, and even without an index.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_hundred_thousand_objects_starts_at_once() {
    let mut bench = Bench::setup().env("ENTREPOT_LOG", "info").start();
    bench.mirror.kill9();
    let index = bench.mirror.cache_dir().join("index.db");
    fill(&bench.mirror);
    fs::remove_file(&index).expect("an index to lose");
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(bench.mirror.cache_dir().join(format!("index.db{suffix}")));
    }
    // The sweep finds the objects and names them in the index again.
    let without_index = started(&mut bench.mirror);
    bench.mirror.wait_until(Duration::from_secs(300), "every object is in the index", |mirror| {
        mirror.metric("entrepot_stored_bytes", &[]) >= stored_bytes()
    });
    bench.mirror.sigterm();
    assert!(bench.mirror.wait_exit(Duration::from_secs(10)).is_some(), "it ends");
    let orderly = started(&mut bench.mirror);
    bench.mirror.kill9();
    let after_kill = started(&mut bench.mirror);
    println!(
        "{OBJECTS} objects: /v2/ after {without_index:?} without an index, {orderly:?} after an orderly end, {after_kill:?} after kill -9"
    );
    for took in [without_index, orderly, after_kill] {
        assert!(took < ANSWERS_WITHIN, "{took:?}");
    }
    assert!(bench.mirror.metric("entrepot_stored_bytes", &[]) >= stored_bytes(), "the objects are counted");
}

/// From the start of the process to the answer to `/v2/`.
fn started(mirror: &mut Mirror) -> Duration {
    let start = Instant::now();
    mirror.restart();
    start.elapsed()
}

fn content(i: usize) -> String {
    format!("object {i:06}")
}

fn stored_bytes() -> f64 {
    (OBJECTS * content(0).len()) as f64
}

/// Puts the objects where the store keeps them.
fn fill(mirror: &Mirror) {
    let blobs = mirror.cache_dir().join("blobs/sha256");
    for byte in 0..=255 {
        fs::create_dir_all(blobs.join(format!("{byte:02x}"))).expect("a folder");
    }
    for i in 0..OBJECTS {
        let text = content(i);
        let digest = sha256(text.as_bytes());
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        fs::write(blobs.join(&hex[..2]).join(hex), text).expect("an object");
    }
}
