use std::time::{Duration, Instant};

use entrepot_testkit::http::Response;
use entrepot_testkit::limits::{RssWatch, bytes_read};
use entrepot_testkit::script::{Body, Method, Pattern};

use crate::MEMORY;
use crate::common::Bench;

const SIZE: u64 = 2_000_000_000;
/// Bytes a second that the scrubber may read beside the requests, rounded up.
const SCRUBBING: f64 = 40e6;

/// A layer of 2 GB, cold: memory stays small throughout. Warm: it is read as it is sent, and never for its digest, neither
/// by the process that stored it nor by the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_two_gigabytes() {
    let mut bench = Bench::setup().cache("max_size", "10GiB").start();
    let body = Body::from(Pattern::new(1, SIZE));
    let digest = tokio::task::spawn_blocking({
        let body = body.clone();
        move || body.sha256()
    })
    .await
    .expect("hashing");
    let path = format!("/v2/team/app/blobs/{digest}");
    bench.upstream.serve_blob_as("team/app", &digest, body.clone());

    let watch = RssWatch::start(bench.mirror.pid());
    let cpu = bench.mirror.cpu_time();
    let cold = whole(&bench, &path).await;
    assert_eq!((cold.status, cold.clean_end, &cold.digest), (200, true, &digest));
    println!(
        "2 GB cold: {:.1?}, processor {:.1?}, RssAnon at most {} kB",
        cold.total,
        bench.mirror.cpu_time() - cpu,
        watch.peak_kb()
    );
    assert!(watch.peak_kb() < MEMORY, "{} kB", watch.peak_kb());
    assert_eq!(bench.upstream.bytes_sent(&path), SIZE);
    bench.mirror.wait_until(Duration::from_secs(60), "the layer is stored", |mirror| {
        mirror.stored_files().iter().any(|file| file.starts_with("blobs"))
    });

    warm(&bench, &path, &body, "the same process").await;
    bench.mirror.restart();
    warm(&bench, &path, &body, "another process").await;
    assert_eq!(bench.upstream.count(Method::Any, &path), 1, "warm, nothing is asked upstream");
}

async fn whole(bench: &Bench, path: &str) -> Response {
    bench.get(path).discard().limit(Duration::from_secs(300)).send().await
}

/// What a process reads, files and sockets together, is in the kernel's count: whoever hashed 2 GB before an answer would
/// have read them.
async fn warm(bench: &Bench, path: &str, body: &Body, who: &str) {
    let pid = bench.mirror.pid();
    let watch = RssWatch::start(pid);
    let (before, since) = (bytes_read(pid), Instant::now());
    for i in 0..100 {
        let first = i * (SIZE / 100) + 7 * i;
        let answer = bench.get(path).range(&format!("bytes={first}-{first}")).send().await;
        assert_eq!((answer.status, answer.body), (206, body.slice(first..first + 1)));
    }
    let read = bytes_read(pid) - before;
    println!("{who}: a hundred bytes here and there: {read} bytes read in {:.1?}", since.elapsed());
    let most = 4e6 + SCRUBBING * since.elapsed().as_secs_f64();
    assert!((read as f64) < most, "{read} bytes read for a hundred");

    let (before, cpu) = (bytes_read(pid), bench.mirror.cpu_time());
    let all = whole(bench, path).await;
    assert_eq!((all.status, all.clean_end, all.length), (200, true, SIZE));
    let read = bytes_read(pid) - before;
    println!(
        "{who}: 2 GB warm: {:.1?}, processor {:.1?}, {read} bytes read, RssAnon at most {} kB",
        all.total,
        bench.mirror.cpu_time() - cpu,
        watch.peak_kb()
    );
    let most = SIZE as f64 * 1.01 + SCRUBBING * all.total.as_secs_f64();
    assert!((read as f64) < most, "{read} bytes read for {SIZE}");
    assert!(watch.peak_kb() < MEMORY, "{} kB", watch.peak_kb());
}
