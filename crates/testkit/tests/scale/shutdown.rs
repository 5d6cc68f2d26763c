use std::time::{Duration, Instant};

use entrepot_testkit::http::Stream;
use entrepot_testkit::script::{Body, Method, Pattern, Reply};

use crate::common::Bench;

const SLOW: u64 = 40;

/// SIGTERM while forty clients read slower than they ever will be done, and upstream has stalled in the middle of a
/// download: it ends within ten seconds, orderly, and what it holds is whole afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_it_within_ten_seconds_under_load() {
    let mut bench = Bench::new();
    let body = Body::from(Pattern::new(1, 30_000_000));
    let digest = bench.upstream.serve_blob("team/app", body.clone());
    let path = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(bench.get(&path).discard().send().await.digest, digest);
    let mut slow: Vec<Stream> = Vec::new();
    for _ in 0..SLOW {
        slow.push(bench.get(&path).open().await);
    }
    let stalling = Body::from(Pattern::new(2, 30_000_000));
    let stalling_digest = stalling.sha256();
    let stalling_path = format!("/v2/team/app/blobs/{stalling_digest}");
    bench.upstream.on(Method::Any, &stalling_path).reply(Reply::ok(stalling).drip(50_000));
    slow.push(bench.get(&stalling_path).open().await);

    let since = Instant::now();
    bench.mirror.sigterm();
    let status = bench.mirror.wait_exit(Duration::from_secs(10));
    println!("SIGTERM under load: {status:?} after {:?}", since.elapsed());
    assert!(status.is_some_and(|status| status.success()), "{status:?}; log:\n{}", bench.mirror.log());
    drop(slow);

    bench.mirror.restart();
    let again = bench.get(&path).discard().send().await;
    assert_eq!((again.clean_end, &again.digest), (true, &digest));
    assert_eq!(bench.upstream.count(Method::Any, &path), 1, "it is still stored");
}
