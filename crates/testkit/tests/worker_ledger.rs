//! What the Worker does by itself, woken by the clock, in the runtime that runs it in production: room is made, the ledger
//! learns what the bucket holds, images are kept warm; and the numbers that it tells.

use std::time::Duration;

use entrepot_testkit::edge::Edge;
use entrepot_testkit::http::{self, Response};
use entrepot_testkit::need;
use entrepot_testkit::script::{Image, Pattern, Upstream, media, sha256};
use serde_json::Value;

/// Subrequests of one invocation at the most.
const SUBREQUESTS: u64 = 45;
/// `secret`
const BASIC: &str = "YW55OnNlY3JldA==";
const TOKENS: &str =
    r#"[{ name: "ci", sha256: "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }]"#;
const SECRET_PATH: &str = "p4th-canary-77aa01c2e9";

struct Bench {
    edge: Edge,
    upstream: Upstream,
}

impl Bench {
    fn new(cache: &str, rest: &str) -> Bench {
        let upstream = Upstream::start();
        let edge = Edge::builder(config(&upstream, cache, rest)).var("PATHS", secret_paths()).start();
        Bench { edge, upstream }
    }

    /// Pulls an image as `app:<tag>`: its manifest and its layers.
    async fn pull(&self, tag: &str, image: &Image) {
        let manifest = self.get(&format!("/v2/up.test/app/manifests/{tag}")).await;
        assert_eq!((manifest.status, &manifest.body), (200, &image.manifest));
        for (digest, layer) in image.layer_digests.iter().zip(&image.layers) {
            let blob = self.get(&format!("/v2/up.test/app/blobs/{digest}")).await;
            assert_eq!(
                (blob.status, blob.body.len() as u64),
                (200, layer.len().unwrap_or_default()),
                "{blob:?}"
            );
            self.wait_stored(digest, "the layer is stored");
        }
    }

    async fn get(&self, path: &str) -> Response {
        http::get(self.edge.url(path)).basic(BASIC).send().await
    }

    fn wait_stored(&self, digest: &str, what: &str) {
        self.edge.wait_until(Duration::from_secs(10), what, |edge| stored(edge, digest));
    }

    /// Runs the cron handler. What it says that it did.
    fn cron(&self) -> Value {
        let before = self.cron_lines().len();
        assert_eq!(self.edge.scheduled("*/5 * * * *"), "ok");
        self.edge.wait_until(Duration::from_secs(5), "the cron tells what it did", |_| {
            self.cron_lines().len() > before
        });
        let line = self.cron_lines().pop().expect("a line");
        let subrequests = line["subrequests"].as_u64().expect("a number");
        assert!(subrequests <= SUBREQUESTS, "{line}");
        line
    }

    fn cron_lines(&self) -> Vec<Value> {
        let log = self.edge.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["message"] == "cron").collect()
    }

    async fn metrics(&self) -> String {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.text()
    }

    /// The sum of all samples whose series contain these words.
    async fn counted(&self, words: &[&str]) -> u64 {
        let metrics = self.metrics().await;
        let lines = metrics.lines().filter(|line| !line.starts_with('#'));
        lines
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    fn kept(&self) -> u64 {
        self.edge.r2().values().sum()
    }
}

fn config(upstream: &Upstream, cache: &str, rest: &str) -> String {
    let url = upstream.url();
    format!(
        r#"
proxy:
  endpoint: "__ENDPOINT__"
  access: {{ tokens: {TOKENS}, networks: ["198.51.100.0/24"], secret_paths_env: "PATHS" }}
  cache: {{ {cache} }}
  sources:
    - {{ name: "up", type: "registry", url: "{url}", names: ["up.test"], insecure: true, allow_private: true }}
{rest}"#
    )
}

/// One client, `builder`, known by [`SECRET_PATH`].
fn secret_paths() -> String {
    format!("builder:{}\n", sha256(SECRET_PATH.as_bytes()).replace("sha256:", ""))
}

fn stored(edge: &Edge, digest: &str) -> bool {
    edge.r2_keys().contains(&format!("objects/{}", digest.replace(':', "/")))
}

/// Three images with a layer of 40 kB each.
fn three(upstream: &Upstream) -> [Image; 3] {
    let images = [1, 2, 3].map(Image::small);
    for (image, tag) in images.iter().zip(["a", "b", "c"]) {
        upstream.serve_image("app", tag, image);
    }
    images
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_used_longest_ago_makes_room() {
    need!("what_was_used_longest_ago_makes_room", "node");
    let bench = Bench::new("max_size: \"100KB\"", "");
    let [a, b, c] = three(&bench.upstream);
    for (tag, image) in [("a", &a), ("b", &b), ("c", &c)] {
        bench.pull(tag, image).await;
    }
    let used = bench.get(&format!("/v2/up.test/app/blobs/{}", a.layer_digests[0])).await;
    assert_eq!(used.header("x-cache"), Some("HIT"));
    assert!(bench.kept() > 100_000);
    let line = bench.cron();
    assert!(bench.kept() <= 100_000, "{line}");
    assert!(stored(&bench.edge, &a.layer_digests[0]), "it was used last: {line}");
    assert!(stored(&bench.edge, &c.layer_digests[0]), "{line}");
    assert!(!stored(&bench.edge, &b.layer_digests[0]), "it was used longest ago: {line}");
    assert!(line["freed_bytes"].as_u64() >= b.layers[0].len(), "{line}");
    let metrics = bench.metrics().await;
    assert!(metrics.contains(&format!("entrepot_stored_bytes {}\n", bench.kept())), "{metrics}");
    assert!(metrics.contains(&format!("entrepot_evicted_objects_total {}\n", line["evicted"])), "{metrics}");
    assert_eq!(bench.cron()["evicted"], 0, "nothing more has to go");
    // What is gone is fetched anew.
    bench.edge.purge_cache();
    bench.pull("b", &b).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_used_any_more_goes() {
    need!("what_is_not_used_any_more_goes", "node");
    let mut bench = Bench::new("blob_ttl: \"1h\"", "");
    let [a, ..] = three(&bench.upstream);
    bench.pull("a", &a).await;
    assert_eq!(bench.cron()["evicted"], 0);
    bench.edge.write_config(&config(&bench.upstream, "blob_ttl: \"1ms\"", ""));
    bench.edge.restart();
    bench.cron();
    assert!(bench.edge.r2().is_empty(), "{:?}", bench.edge.r2());
    assert!(bench.metrics().await.contains("entrepot_stored_objects 0\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn hits_are_told_in_batches() {
    need!("hits_are_told_in_batches", "node");
    let bench = Bench::new("max_size: \"1GB\"", "");
    let [a, ..] = three(&bench.upstream);
    bench.pull("a", &a).await;
    let notes = bench.counted(&["ledger_notes"]).await;
    let hits = bench.counted(&["requests_total", "verdict=\"hit\""]).await;
    for _ in 0..20 {
        for path in [format!("blobs/{}", a.layer_digests[0]), "manifests/a".to_owned()] {
            let hit = bench.get(&format!("/v2/up.test/app/{path}")).await;
            assert_eq!(hit.header("x-cache"), Some("HIT"));
        }
    }
    assert_eq!(bench.counted(&["requests_total", "verdict=\"hit\""]).await, hits + 40);
    // Each look at the metrics tells the rest, so the one that counts the first batch is two.
    let told = bench.counted(&["ledger_notes"]).await - notes;
    assert!(told <= 4, "{told} batches for 40 hits");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_ledger_learns_from_the_bucket() {
    need!("a_lost_ledger_learns_from_the_bucket", "node");
    let mut bench = Bench::new("max_size: \"1GB\"", "");
    let [a, b, c] = three(&bench.upstream);
    for (tag, image) in [("a", &a), ("b", &b), ("c", &c)] {
        bench.pull(tag, image).await;
    }
    bench.cron();
    bench.edge.lose("Ledger");
    bench.edge.write_config(&config(&bench.upstream, "max_size: \"50KB\"", ""));
    bench.edge.restart();
    assert!(bench.metrics().await.contains("entrepot_stored_objects 0\n"));
    let line = bench.cron();
    assert_eq!(line["learnt"], bench.edge.r2().len(), "{line}");
    assert!(bench.metrics().await.contains(&format!("entrepot_stored_bytes {}\n", bench.kept())));
    bench.cron();
    assert!(bench.kept() <= 50_000);
    assert!(stored(&bench.edge, &c.layer_digests[0]), "it was stored last");
    // What left the bucket otherwise is forgotten.
    bench.edge.r2_delete(&format!("objects/{}", c.layer_digests[0].replace(':', "/")));
    let line = bench.cron();
    assert_eq!((&line["forgotten"], &line["learnt"]), (&1.into(), &0.into()), "{line}");
    assert!(bench.metrics().await.contains(&format!("entrepot_stored_bytes {}\n", bench.kept())));
    // What the bucket has not verified may be on its way.
    bench.edge.r2_put(&format!("objects/sha256/{}", "0".repeat(64)), b"put together from parts");
    assert_eq!(bench.cron()["learnt"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_image_costs_upstream_nothing() {
    need!("a_warm_image_costs_upstream_nothing", "node");
    let warm = r#"
  edge: { warm: [{ images: ["up.test/app:latest"], platforms: ["linux/amd64", "linux/s390x"] }] }
"#;
    let bench = Bench::new("max_size: \"1GB\"", warm);
    let image =
        |seed: u64| Image::of((0..4).map(|layer| Pattern::new(10 * seed + layer, 20_000).into()).collect());
    // In an index: amd64, arm64 and s390x.
    let images = [1, 2, 3].map(image);
    for image in &images {
        bench.upstream.serve_image("app", "", image);
    }
    let index = Image::index(&images);
    bench.upstream.serve_manifest("app", "latest", &index, media::INDEX);
    let wanted = [&images[0], &images[2]];
    let mut runs = 0;
    let mut fills = 0;
    loop {
        let line = bench.cron();
        assert_eq!(line["failures"], serde_json::json!([]), "{line}");
        fills += line["fills"].as_u64().expect("a number");
        if line["warm_steps"] == 0 {
            break;
        }
        runs += 1;
        assert!(runs < 30, "{line}");
    }
    assert!(runs > 1, "more than one invocation may do");
    assert_eq!(fills, 10, "two images of four layers and a configuration");
    for digest in wanted.iter().flat_map(|image| image.layer_digests.iter().chain([&image.config_digest])) {
        bench.wait_stored(digest, "a layer is warm");
    }
    for digest in &images[1].layer_digests {
        assert!(!stored(&bench.edge, digest), "nobody wants arm64");
    }
    bench.edge.purge_cache();
    bench.upstream.clear_requests();
    let latest = bench.get("/v2/up.test/app/manifests/latest").await;
    assert_eq!((latest.status, latest.body), (200, index));
    for image in wanted {
        let manifest = bench.get(&format!("/v2/up.test/app/manifests/{}", image.digest)).await;
        assert_eq!(manifest.header("x-cache"), Some("HIT"));
        for digest in image.layer_digests.iter().chain([&image.config_digest]) {
            let blob = bench.get(&format!("/v2/up.test/app/blobs/{digest}")).await;
            assert_eq!((blob.status, blob.header("x-cache")), (200, Some("HIT")), "{blob:?}");
        }
    }
    assert_eq!(bench.upstream.summary(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_for_known_clients() {
    need!("metrics_are_for_known_clients", "node");
    let bench = Bench::new("max_size: \"1GB\"", "");
    let edge = &bench.edge;
    let elsewhere = http::get(edge.url("/elsewhere")).send().await;
    assert_eq!(elsewhere.status, 404);
    let wrong = "YW55Ondyb25n";
    for stranger in [http::get(edge.url("/metrics")), http::get(edge.url("/metrics")).basic(wrong)] {
        let answer = stranger.send().await;
        assert_eq!((answer.status, answer.body), (404, elsewhere.body.clone()), "as for any other path");
    }
    let token = http::get(edge.url("/token")).basic(BASIC).send().await.json();
    let token = token["token"].as_str().expect("a token");
    let known = [
        http::get(edge.url("/metrics")).basic(BASIC),
        http::get(edge.url("/metrics")).bearer(token),
        http::get(edge.url("/metrics")).header("cf-connecting-ip", "198.51.100.7"),
        http::get(edge.url(&format!("/{SECRET_PATH}/metrics"))),
    ];
    for call in known {
        let answer = call.send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert!(answer.text().contains("# TYPE entrepot_stored_bytes gauge\n"), "{answer:?}");
    }
    let head = http::head(edge.url("/metrics")).basic(BASIC).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}
