//! What the Worker costs: bytes that pass through it, and the processor time of a hit. Beside it, in the same runtime, a
//! script of a few lines that does only what must be done: the ratio is what is claimed, for machines differ.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use entrepot_testkit::edge::{self, Edge};
use entrepot_testkit::http;
use entrepot_testkit::limits::RssWatch;
use entrepot_testkit::need;
use entrepot_testkit::script::{Body, Image, Pattern, Upstream};
use tempfile::TempDir;

const SIZE: u64 = 2_000_000_000;
/// At the least, and at the most where something else took the machine's time.
const ROUNDS: std::ops::RangeInclusive<usize> = 3..=8;
/// Of the throughput of a bare fetch.
const SHARE: f64 = 0.8;
const HITS: u32 = 400;

/// What every bundle that the runner starts must export.
const CLASSES: &str = r#"
import { DurableObject } from "cloudflare:workers";
export class Flights extends DurableObject {}
export class Ledger extends DurableObject {}
"#;

/// Only passes on.
const PASSES: &str = r#"
export default { fetch: (request, env) => fetch(env.UPSTREAM + new URL(request.url).pathname) };
"#;

/// Asks the platform for what a hit must ask it for, and decides nothing.
const ASKS: &str = r#"
const key = (name) => "http://127.0.0.1/.peer/" + name;
const put = (name, body) =>
  caches.default.put(key(name), new Response(body, { headers: { "cache-control": "public, max-age=3600" } }));
export default {
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    if (pathname === "/fill") {
      await put("one", "x".repeat(200));
      await put("two", "x".repeat(40));
      await put("object", new Uint8Array(Number(env.SIZE)));
      return new Response("filled");
    }
    await env.REQUESTS.limit({ key: "one" });
    if (pathname === "/manifest") await env.PULLS.limit({ key: "one" });
    for (const name of ["one", "two"]) await (await caches.default.match(key(name))).arrayBuffer();
    const object = await caches.default.match(key("object"));
    const body = pathname === "/manifest" ? await object.arrayBuffer() : object.body;
    console.log(JSON.stringify({ message: "request", path: pathname, filler: "x".repeat(300) }));
    return new Response(body, { headers: { "content-type": "application/octet-stream" } });
  },
};
"#;

/// Counts the bytes that are copied into the module's memory, and says so with every line of the log.
const COUNTS: &str = r#"
let copied = 0;
const set = Uint8Array.prototype.set;
Uint8Array.prototype.set = function (from, at) {
  copied += from.byteLength ?? from.length ?? 0;
  return set.call(this, from, at);
};
const log = console.log;
console.log = (...words) => log(...words, `copied=${copied}`);
"#;

fn script(text: &str) -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("index.js"), format!("{CLASSES}{text}")).expect("the script");
    directory
}

/// The Worker as it is deployed, with a counter before it.
fn counting() -> TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let bundle = edge::bundle();
    let copy = |name: &str| fs::read(Path::new(&bundle).join(name)).expect("the bundle");
    fs::write(directory.path().join("index_bg.wasm"), copy("index_bg.wasm")).expect("the module");
    let text = String::from_utf8(copy("index.js")).expect("the script is text");
    fs::write(directory.path().join("index.js"), format!("{COUNTS}{text}")).expect("the script");
    directory
}

fn config(upstream: &Upstream, mirror: bool) -> String {
    format!(
        "proxy:\n  endpoint: __ENDPOINT__\n  access: {{ anonymous: true }}\n  sources:\n    - {{ name: up, type: registry, url: \"{}\", insecure: true, allow_private: true, mirror: {mirror} }}\n",
        upstream.url()
    )
}

/// A layer of 2 GB passes through as fast as through a script that does nothing else, no byte of it enters the module, and
/// memory stays what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_of_two_gigabytes_passes_through() {
    need!("a_layer_of_two_gigabytes_passes_through", "node");
    let upstream = Upstream::start();
    let body = Body::from(Pattern::new(1, SIZE));
    let digest = tokio::task::spawn_blocking({
        let body = body.clone();
        move || body.sha256()
    })
    .await
    .expect("hashing");
    upstream.serve_blob_as("team/app", &digest, body);
    let path = format!("/v2/team/app/blobs/{digest}");

    let (bundle, peer) = (counting(), script(PASSES));
    let ours = Edge::builder(config(&upstream, false)).bundle(bundle.path()).start();
    let theirs = Edge::builder("").raw().var("UPSTREAM", upstream.url()).bundle(peer.path()).start();
    let mut best = [Duration::MAX; 2];
    let mut memory = [0; 2];
    let ratio = |best: &[Duration; 2]| best[1].as_secs_f64() / best[0].as_secs_f64();
    for round in 1..=*ROUNDS.end() {
        for (at, edge) in [&ours, &theirs].into_iter().enumerate() {
            let watch = RssWatch::start(edge.pid());
            let before = edge.rss_anon_kb();
            let answer = http::get(edge.url(&path)).discard().limit(Duration::from_secs(300)).send().await;
            assert_eq!((answer.status, answer.clean_end, &answer.digest), (200, true, &digest));
            // The first round warms the runtime up.
            if round > 1 {
                memory[at] = memory[at].max(watch.peak_kb().saturating_sub(before));
            }
            best[at] = best[at].min(answer.total);
        }
        if round >= *ROUNDS.start() && ratio(&best) > SHARE {
            break;
        }
    }
    let ratio = ratio(&best);
    let copied = copied(&ours);
    println!(
        "2 GB through the Worker: {:.2?}, through a bare fetch: {:.2?}, throughput {ratio:.2} of it; memory grew by {} and {} kB; {copied} bytes copied into the module",
        best[0], best[1], memory[0], memory[1],
    );
    assert!(copied < 1_000_000, "{copied} bytes entered the module");
    assert!(memory[0] < memory[1] + 64 * 1024, "{} kB, and {} kB of a bare fetch", memory[0], memory[1]);
    assert!(ratio > SHARE, "{ratio:.2} of the throughput of a bare fetch");
}

fn copied(edge: &Edge) -> u64 {
    let log = edge.log();
    let last = log.lines().rev().find_map(|line| line.rsplit_once("copied="));
    last.and_then(|(_, bytes)| bytes.trim().parse().ok())
        .unwrap_or_else(|| panic!("no count in the log:\n{log}"))
}

/// Beyond what the platform takes for the same calls, a manifest's hit costs less than 2 ms of processor time, and a
/// blob's less than 1 ms.
#[tokio::test(flavor = "multi_thread")]
async fn a_hit_costs_little() {
    need!("a_hit_costs_little", "node");
    let upstream = Upstream::start();
    let image = Image::small(1);
    upstream.serve_image("team/app", "v1", &image);
    let ours = Edge::start(config(&upstream, true));
    let peer = script(ASKS);
    let theirs = Edge::builder("").raw().var("SIZE", "1000").bundle(peer.path()).start();
    assert_eq!(http::get(theirs.url("/fill")).send().await.status, 200);

    let manifest = ours.url("/v2/team/app/manifests/v1");
    let blob = ours.url(&format!("/v2/team/app/blobs/{}", image.config_digest));
    for url in [&manifest, &blob] {
        assert_eq!(http::get(url.clone()).send().await.status, 200);
    }
    let start = Instant::now();
    while http::get(blob.clone()).send().await.header("x-cache") != Some("HIT") {
        assert!(start.elapsed() < Duration::from_secs(20), "the blob is stored");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let cases = [
        ("manifest", &manifest, theirs.url("/manifest"), Duration::from_millis(2)),
        ("blob", &blob, theirs.url("/blob"), Duration::from_millis(1)),
    ];
    for (what, url, peer, bound) in cases {
        let mut least = [Duration::MAX; 2];
        for round in 1..=*ROUNDS.end() {
            least[0] = least[0].min(per_hit(&ours, url).await);
            least[1] = least[1].min(per_hit(&theirs, &peer).await);
            if round >= *ROUNDS.start() && least[0].saturating_sub(least[1]) < bound {
                break;
            }
        }
        let own = least[0].saturating_sub(least[1]);
        println!(
            "a {what}'s hit: {:.2?}, of which the same calls of a bare script {:.2?}: {own:.2?}",
            least[0], least[1]
        );
        // What is claimed is printed; a busy machine may take longer.
        assert!(own < 10 * bound, "{what}: {own:.2?}");
    }
}

async fn per_hit(edge: &Edge, url: &str) -> Duration {
    let before = edge.cpu_time();
    for _ in 0..HITS {
        assert_eq!(http::get(url).send().await.status, 200);
    }
    (edge.cpu_time() - before) / HITS
}
