use std::time::{Duration, Instant};

use entrepot_testkit::http::{self, parallel};
use entrepot_testkit::script::{Body, Image, Pattern, Upstream};
use entrepot_testkit::wan::Wan;

use crate::common::Bench;

const CLIENTS: usize = 50;
const LAYER: u64 = 64 << 20;

/// T-CC1: over a long line a large layer comes by several connections, each byte of it once, whoever else asks.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc1_fifty_clients_and_a_large_layer_over_a_long_line() {
    let upstream = Upstream::start();
    let image = Image::of(vec![Body::from(Pattern::new(1, LAYER))]);
    upstream.serve_image("team/app", "1", &image);
    let wan = Wan::start(upstream.address());
    let bench = Bench::setup_over(upstream).source("url", wan.url()).start();
    let manifest = bench.get("/v2/team/app/manifests/1").send().await;
    assert_eq!(manifest.status, 200, "{manifest:?}");
    let path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    let url = bench.url(&path);
    let start = Instant::now();
    let answers = parallel(CLIENTS, move |_| {
        let call = http::get(url.clone()).limit(Duration::from_secs(120));
        async move { call.send().await }
    })
    .await;
    let took = start.elapsed();
    for answer in &answers {
        assert_eq!((answer.status, &answer.digest, answer.clean_end), (200, &image.layer_digests[0], true));
    }
    let mut firsts: Vec<_> = answers.iter().map(|answer| answer.time_to_head).collect();
    firsts.sort();
    println!(
        "T-CC1: {CLIENTS} clients: {took:?}, heads {:?}, {} connections",
        firsts[CLIENTS / 2],
        wan.connections()
    );
    assert_eq!(bench.upstream.bytes_sent(path.as_str()), LAYER, "each byte once");
    let beyond = wan.bytes_down() - LAYER;
    assert!(beyond < LAYER / 100, "{beyond} bytes more than the image");
    let together = bench.upstream.peak(&path);
    assert!((5..=8).contains(&together), "{together} connections at once");
}
