use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::common::Bench;
use crate::shelf::{self, Blob};

const CAPACITY: u64 = 16_000_000;
const LARGEST: u64 = 2_000_000;

/// T-DF6: three times as much as fits, pulled by 64 at once. What is stored, and what all files take together, stays
/// within the capacity and one object.
#[tokio::test(flavor = "multi_thread")]
async fn t_df6_64_writers_and_three_times_the_capacity() {
    let bench = Bench::setup().cache("max_size", CAPACITY.to_string()).start();
    let blobs: Vec<Blob> = (0..32).map(|seed| Blob::served(&bench, seed, LARGEST - seed * 31_250)).collect();
    assert!(blobs.iter().filter_map(|blob| blob.body.len()).sum::<u64>() >= 3 * CAPACITY);
    let blobs =
        Arc::new(blobs.into_iter().map(|blob| (bench.url(&blob.path), blob.digest)).collect::<Vec<_>>());
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::task::spawn_blocking({
        let (cache, done) = (bench.mirror.cache_dir().to_owned(), done.clone());
        move || watch(&cache, &done)
    });
    let writers: Vec<_> = (0..64)
        .map(|writer| {
            let blobs = blobs.clone();
            tokio::spawn(async move {
                for step in 0..8 {
                    let (url, digest) = &blobs[(writer * 7 + step * 11) % blobs.len()];
                    let answer = entrepot_testkit::http::get(url)
                        .discard()
                        .limit(Duration::from_secs(120))
                        .send()
                        .await;
                    assert_eq!(
                        (answer.status, answer.clean_end, &answer.digest),
                        (200, true, digest),
                        "{answer:?}"
                    );
                }
            })
        })
        .collect();
    for writer in writers {
        while !writer.is_finished() {
            let stored = bench.mirror.metric("entrepot_stored_bytes", &[]);
            assert!(stored <= (CAPACITY + LARGEST) as f64, "{stored} bytes stored");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        writer.await.expect("a writer");
    }
    done.store(true, Ordering::Relaxed);
    let most = watching.await.expect("the watch");
    assert!(most <= CAPACITY + LARGEST, "{most} bytes in files");
    assert!(most > CAPACITY / 2, "the capacity is used: {most}");

    bench.mirror.wait_until(Duration::from_secs(20), "everything is counted, and fits", |mirror| {
        let files: u64 = shelf::files(mirror.cache_dir()).values().sum();
        let stored = mirror.metric("entrepot_stored_bytes", &[]);
        files <= CAPACITY && stored == files as f64 && shelf::fills(mirror.cache_dir()) == 0
    });
    shelf::assert_sound(bench.mirror.cache_dir());
}

/// The most that files under `tmp/` and `blobs/` took, as three looks in a row saw it: one look is no snapshot.
fn watch(cache: &Path, done: &AtomicBool) -> u64 {
    let (mut most, mut last) = (0, [0; 3]);
    while !done.load(Ordering::Relaxed) {
        last = [last[1], last[2], look(cache)];
        most = last.iter().copied().min().unwrap_or(0).max(most);
        std::thread::sleep(Duration::from_millis(2));
    }
    most
}

fn look(cache: &Path) -> u64 {
    let mut files = BTreeMap::new();
    let folders =
        fs::read_dir(cache.join("blobs/sha256")).into_iter().flatten().flatten().map(|folder| folder.path());
    for folder in std::iter::once(cache.join("tmp")).chain(folders) {
        for file in fs::read_dir(folder).into_iter().flatten().flatten() {
            if let Ok(meta) = file.metadata() {
                files.insert(meta.ino(), meta.len());
            }
        }
    }
    files.values().sum()
}

/// T-DF6: what is being served stays, though it is the oldest; afterwards it goes.
#[tokio::test(flavor = "multi_thread")]
async fn t_df6_what_is_served_is_not_evicted() {
    let bench = Bench::setup().cache("max_size", "40000000").start();
    let served = Blob::served(&bench, 100, 25_000_000);
    served.store(&bench).await;
    let file = shelf::file(&bench.mirror, &served.digest);
    let stream = bench.get(&served.path).open().await;
    let others: Vec<Blob> = (0..12).map(|seed| Blob::served(&bench, seed, 4_000_000)).collect();
    for blob in &others {
        blob.store(&bench).await;
        assert!(file.exists(), "evicted while it is served");
    }
    assert!(bench.mirror.metric("entrepot_evicted_objects", &[]) >= 8.0);
    let answer = stream.finish().await;
    assert_eq!((answer.clean_end, answer.digest), (true, served.digest.clone()));
    // Everything since has been used later than it.
    for seed in 50..60 {
        if !file.exists() {
            return;
        }
        Blob::served(&bench, seed, 4_000_000).store(&bench).await;
    }
    panic!("it never goes");
}

/// T-DF6: what was used longest ago goes first, and a use counts.
#[tokio::test(flavor = "multi_thread")]
async fn t_df6_least_recently_used_goes_first() {
    let bench = Bench::setup().cache("max_size", "5000000").start();
    let blobs: Vec<Blob> = (0..5).map(|seed| Blob::served(&bench, seed, 1_000_000)).collect();
    for blob in &blobs {
        blob.store(&bench).await;
        // Uses are told apart by the second.
        tokio::time::sleep(Duration::from_millis(1050)).await;
    }
    blobs[0].pull(&bench).await;
    assert_eq!(blobs[0].fetches(&bench), 1);
    Blob::served(&bench, 10, 1_500_000).store(&bench).await;
    let left = shelf::files(bench.mirror.cache_dir());
    let kept: Vec<bool> = blobs.iter().map(|blob| left.contains_key(&blob.digest)).collect();
    assert_eq!(kept, [true, false, false, true, true]);
}
