use std::sync::Arc;
use std::time::{Duration, Instant};

use entrepot_testkit::http::{self, parallel};
use entrepot_testkit::limits::{RssWatch, raise_open_files};
use entrepot_testkit::script::{Body, Image, Method, Pattern, Upstream};
use entrepot_testkit::wan::Wan;
use tokio::sync::Semaphore;

use crate::MEMORY;
use crate::common::{Bench, Setup};

const CLIENTS: usize = 50;
const LAYERS: u64 = 8;
const IMAGE: u64 = 150_000_000;
/// Layers that one client has on the way at one time, as Docker does.
const AT_ONCE: usize = 3;
/// Over which a layer comes from upstream, at most, each with pieces of its own.
const CONNECTIONS: usize = 8;
/// Rounds at most: whether fifty clients have their first byte as soon as one has is measured in time, on a machine that
/// may have other things to do. Bytes and memory must be right in every one.
const ROUNDS: usize = 3;

/// Fifty clients at once, cold, one image of 150 MB from behind a long link: upstream sends each byte once, the mirror
/// stays small, and the median client has its first byte of a layer nearly as soon as a client alone.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_cold_clients_behind_a_wan() {
    raise_open_files();
    let layers = (0..LAYERS).map(|i| Body::from(Pattern::new(i, IMAGE / LAYERS)));
    let image = Arc::new(Image::of(layers.collect()));
    for round in 1..=ROUNDS {
        let alone = pull_all(&image, 1).await;
        let together = pull_all(&image, CLIENTS).await;
        let ratio = together.as_secs_f64() / alone.as_secs_f64();
        println!(
            "round {round}: first byte of a layer after {alone:?} alone, {together:?} (median) for {CLIENTS}: {ratio:.2}"
        );
        if ratio <= 1.5 {
            return;
        }
    }
    panic!("the median client waits more than 1.5 times as long for its first byte as a client alone");
}

/// The median time to the first byte of a layer.
async fn pull_all(image: &Arc<Image>, clients: usize) -> Duration {
    let upstream = Upstream::start();
    upstream.serve_image("team/app", "1", image);
    let wan = Wan::start(upstream.address());
    let bench = behind(&wan, upstream);
    let watch = RssWatch::start(bench.mirror.pid());
    let start = Instant::now();
    let (base, pulled) = (bench.mirror.url(), image.clone());
    let mut first_bytes = parallel(clients, move |_| pull(base.clone(), pulled.clone())).await;
    let took = start.elapsed();
    first_bytes.sort();

    for (body, digest) in image.layers.iter().zip(&image.layer_digests) {
        let path = format!("/v2/team/app/blobs/{digest}");
        assert_eq!(bench.upstream.bytes_sent(&path), body.len().expect("a length"), "each byte once");
        let connections = bench.upstream.count(Method::Any, &path);
        assert!((1..=CONNECTIONS).contains(&connections), "{:?}", bench.upstream.summary());
    }
    let crossed = wan.bytes_down();
    assert!(crossed < IMAGE + IMAGE / 100, "{crossed} bytes crossed the link");
    println!("{clients} clients: {took:.1?}, RssAnon at most {} kB", watch.peak_kb());
    assert!(watch.peak_kb() < MEMORY, "{} kB", watch.peak_kb());
    first_bytes[clients / 2]
}

fn behind(wan: &Wan, upstream: Upstream) -> Bench {
    let setup: Setup = Bench::setup_over(upstream);
    setup
        .source("url", wan.url())
        .source("timeouts", "{ connect: \"5s\", first_byte: \"10s\", stall: \"15s\" }")
        .start()
}

/// Pulls as a client does: the manifest, then configuration and layers, a few at a time; compares every byte. The time
/// from its start to the first byte of a layer.
async fn pull(base: String, image: Arc<Image>) -> Duration {
    let start = Instant::now();
    let manifest = http::get(format!("{base}/v2/team/app/manifests/1")).send().await;
    assert_eq!((manifest.status, &manifest.body), (200, &image.manifest));
    let config = http::get(format!("{base}/v2/team/app/blobs/{}", image.config_digest));
    let config = tokio::spawn(config.send());
    let turn = Arc::new(Semaphore::new(AT_ONCE));
    let layers: Vec<_> = (0..image.layers.len())
        .map(|at| {
            let (turn, image) = (turn.clone(), image.clone());
            let url = format!("{base}/v2/team/app/blobs/{}", image.layer_digests[at]);
            tokio::spawn(async move {
                let _turn = turn.acquire_owned().await.expect("a semaphore that is not closed");
                layer(&url, &image.layers[at], start).await
            })
        })
        .collect();
    let mut first = Duration::MAX;
    for layer in layers {
        first = first.min(layer.await.expect("a client that does not panic"));
    }
    assert_eq!(config.await.expect("a client that does not panic").body, image.config);
    first
}

async fn layer(url: &str, body: &Body, start: Instant) -> Duration {
    let mut stream = http::get(url).limit(Duration::from_secs(300)).open().await;
    assert_eq!(stream.head.status, 200, "{:?}", stream.head);
    let (mut at, mut first) = (0, None);
    while let Some(bytes) = stream.chunk().await {
        first.get_or_insert_with(|| start.elapsed());
        let end = at + bytes.len() as u64;
        assert!(bytes == body.slice(at..end), "the bytes from {at} to {end} differ");
        at = end;
    }
    assert_eq!((stream.ended(), Some(at)), (Some(true), body.len()));
    first.expect("a layer has bytes")
}
