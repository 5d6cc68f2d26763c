use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use entrepot_testkit::http;
use entrepot_testkit::script::{Body, Image, Method, Pattern};

use crate::common::Bench;
use crate::shelf;

/// Of the mirror's `max_size`: the content is larger, so that it evicts all the time.
const CAPACITY: u64 = 24 << 20;
const CLIENTS: u64 = 6;

/// T-CS1: whatever instant the process is killed at, what is visible afterwards is right. `ENTREPOT_CRASH_ROUNDS` tells how
/// often; a run is repeated with `ENTREPOT_CRASH_SEED`.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs1_killed_at_any_instant() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rounds = number("ENTREPOT_CRASH_ROUNDS").unwrap_or(200);
    let seed = number("ENTREPOT_CRASH_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{rounds} rounds, ENTREPOT_CRASH_SEED={seed}");
    let mut random = Random(seed);

    let mut bench =
        Bench::setup().cache("max_size", CAPACITY.to_string()).cache("manifest_ttl", "1s").start();
    let content = Arc::new(Content::served(&bench));
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (url, content, stop, random) =
                    (bench.mirror.url(), content.clone(), stop.clone(), Random(random.next()));
                tokio::spawn(load(url, content, stop, random))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(random.below(700))).await;
        bench.mirror.kill9();
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        }

        // Before the mirror has had a chance to tidy up.
        shelf::assert_sound(bench.mirror.cache_dir());
        bench.mirror.restart();
        tidy(&bench, round);
        let (path, digest) = &content.pulls[random.below(content.pulls.len() as u64) as usize];
        let answer = bench.get(path).send().await;
        assert_eq!(
            (answer.status, answer.clean_end, &answer.digest),
            (200, true, digest),
            "round {round}: {answer:?}"
        );
    }
}

/// Waits until index and files agree, nothing is left over, and what is counted is what is there.
fn tidy(bench: &Bench, round: u64) {
    let start = Instant::now();
    loop {
        let cache = bench.mirror.cache_dir();
        let (files, rows, fills) = (shelf::files(cache), shelf::rows(cache), shelf::fills(cache));
        let counted = bench.mirror.metric("entrepot_stored_bytes", &[]);
        if rows.as_ref() == Some(&files) && fills == 0 && counted == files.values().sum::<u64>() as f64 {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "round {round}: orphans: {fills} files under tmp/, {counted} bytes counted, files {files:?}, rows {rows:?}; log:\n{}",
            bench.mirror.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What clients pull.
struct Content {
    /// Path and digest.
    pulls: Vec<(String, String)>,
}

impl Content {
    fn served(bench: &Bench) -> Content {
        let mut pulls = Vec::new();
        for seed in 0..12 {
            let image = Image::of(vec![
                Pattern::new(100 + seed, 20_000 + seed * 70_001).into(),
                Pattern::new(200 + seed, 1 + seed * 400_009).into(),
            ]);
            let tag = format!("t{seed}");
            bench.upstream.serve_image("team/app", &tag, &image);
            for reference in [&tag, &image.digest] {
                pulls.push((format!("/v2/team/app/manifests/{reference}"), image.digest.clone()));
            }
            for digest in image.layer_digests.iter().chain([&image.config_digest]) {
                pulls.push((format!("/v2/team/app/blobs/{digest}"), digest.clone()));
            }
        }
        // One without a length, and one so large that it is cut at a random place most of the time.
        let body = Body::from(Pattern::new(1, 3_000_003));
        let digest = body.sha256();
        let path = format!("/v2/team/app/blobs/{digest}");
        bench.upstream.serve_blob_as("team/app", &digest, body.clone());
        let served = digest.clone();
        bench.upstream.on(Method::Get, &path).reply_with(move |request| {
            entrepot_testkit::script::Reply::blob(request, &served, body.clone()).chunked()
        });
        pulls.push((path, digest));
        let digest = bench.upstream.serve_blob("team/app", Pattern::new(2, 16 << 20));
        pulls.push((format!("/v2/team/app/blobs/{digest}"), digest));
        Content { pulls }
    }
}

/// Pulls this and that until told to stop or the mirror is gone. A whole answer must be a right one.
async fn load(url: String, content: Arc<Content>, stop: Arc<AtomicBool>, mut random: Random) {
    let mut seen = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let (path, digest) = &content.pulls[random.below(content.pulls.len() as u64) as usize];
        let target = format!("{url}{path}");
        match random.below(8) {
            0 => drop(http::head(target).try_send().await),
            1 => {
                let first = random.below(1000);
                drop(http::get(target).range(&format!("bytes={first}-")).discard().try_send().await);
            }
            2 => {
                // A client that leaves.
                let leaving = http::get(target).discard().try_send();
                let _ = tokio::time::timeout(Duration::from_millis(random.below(40)), leaving).await;
            }
            _ => {
                let Ok(answer) = http::get(target).discard().try_send().await else {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                *seen.entry(answer.status).or_insert(0) += 1;
                if answer.status == 200 && answer.clean_end {
                    assert_eq!(&answer.digest, digest, "wrong bytes for {path}");
                }
            }
        }
    }
    assert!(seen.keys().all(|status| *status == 200), "answers under load: {seen:?}");
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
