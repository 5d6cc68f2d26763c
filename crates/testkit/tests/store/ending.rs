use std::time::{Duration, Instant};

use entrepot_testkit::http;
use entrepot_testkit::script::{Body, Gate, Method, Pattern, Reply};

use crate::common::Bench;
use crate::shelf;

const SIZE: u64 = 8_000_000;
/// The slowest end that is allowed.
const END: Duration = Duration::from_secs(10);

/// A blob that upstream sends half of, until the gate opens.
fn gated(bench: &Bench, seed: u64, gate: &Gate) -> (String, String) {
    let body = Body::from(Pattern::new(seed, SIZE));
    let digest = body.sha256();
    let path = format!("/v2/team/app/blobs/{digest}");
    let (served, gate) = (digest.clone(), gate.clone());
    bench
        .upstream
        .on(Method::Read, &path)
        .reply_with(move |request| Reply::blob(request, &served, body.clone()).hold_at(SIZE / 2, &gate));
    (bench.url(&path), digest)
}

fn refused(address: std::net::SocketAddr) -> bool {
    std::net::TcpStream::connect(address).is_err()
}

/// T-CS5: what is under way ends well, nothing new begins, and the fill is stored.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs5_sigterm_lets_pulls_finish() {
    let mut bench = Bench::new();
    let gate = Gate::new();
    let mut pulls = Vec::new();
    for seed in 0..4 {
        let (url, digest) = gated(&bench, seed, &gate);
        for _ in 0..4 {
            pulls.push((http::get(&url).open().await, digest.clone()));
        }
    }
    // An idle connection does not keep the process.
    let idle = tokio::net::TcpStream::connect(bench.mirror.address()).await.expect("a connection");
    let start = Instant::now();
    bench.mirror.sigterm();
    bench.mirror.wait_until(END, "new connections are refused", |mirror| refused(mirror.address()));
    assert_eq!(shelf::ready(&bench.mirror), 503, "/readyz tells while it drains");
    assert!(bench.mirror.runs(), "it waits for the pulls");
    gate.open();
    let reads: Vec<_> = pulls
        .into_iter()
        .map(|(stream, digest)| tokio::spawn(async move { (stream.finish().await, digest) }))
        .collect();
    for read in reads {
        let (answer, digest) = read.await.expect("a read");
        assert_eq!((answer.clean_end, answer.digest), (true, digest));
    }
    let status = bench.mirror.wait_exit(END).expect("it ends");
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < END, "{:?}", start.elapsed());
    drop(idle);
    assert_eq!(shelf::files(bench.mirror.cache_dir()).len(), 4, "what was fetched is stored");
    assert_eq!(shelf::rows(bench.mirror.cache_dir()), Some(shelf::files(bench.mirror.cache_dir())));
    assert_eq!(shelf::fills(bench.mirror.cache_dir()), 0);
}

/// T-CS5: what never ends is cut off, visibly.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs5_sigterm_does_not_wait_for_ever() {
    let mut bench = Bench::new();
    let gate = Gate::new();
    let (url, _) = gated(&bench, 1, &gate);
    let pull = http::get(&url).open().await;
    let start = Instant::now();
    bench.mirror.sigterm();
    let status = bench.mirror.wait_exit(END).expect("it ends");
    assert!(status.success(), "{status}");
    assert!(start.elapsed() > Duration::from_secs(4), "it gave the pull some time: {:?}", start.elapsed());
    let answer = pull.finish().await;
    assert!(!answer.clean_end);
    bench.mirror.restart();
    assert_eq!(shelf::fills(bench.mirror.cache_dir()), 0);
    gate.open();
}

/// T-CS5
#[tokio::test(flavor = "multi_thread")]
async fn t_cs5_a_second_sigterm_ends_it() {
    let mut bench = Bench::new();
    let gate = Gate::new();
    let (url, _) = gated(&bench, 1, &gate);
    let _pull = http::get(&url).open().await;
    bench.mirror.sigterm();
    bench.mirror.wait_until(END, "it drains", |mirror| mirror.log().contains("draining"));
    let start = Instant::now();
    bench.mirror.sigterm();
    assert!(bench.mirror.wait_exit(END).is_some(), "it ends");
    assert!(start.elapsed() < Duration::from_secs(4), "at once: {:?}", start.elapsed());
    gate.open();
}
