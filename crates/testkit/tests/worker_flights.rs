//! What many clients ask for at once, the edge does once, where that costs nobody more than it saves.

use std::time::Duration;

use entrepot_testkit::edge::Edge;
use entrepot_testkit::http::{self, Response};
use entrepot_testkit::need;
use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, Upstream, media};

const CLIENTS: usize = 50;

fn edge(upstream: &Upstream) -> Edge {
    Edge::start(format!(
        "proxy:\n  endpoint: __ENDPOINT__\n  access: {{ anonymous: true }}\n  sources:\n    - {{ name: up, type: registry, url: \"{}\", insecure: true, allow_private: true }}\n",
        upstream.url()
    ))
}

async fn all_at_once(url: &str) -> Vec<Response> {
    let calls: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let call = http::get(url).limit(Duration::from_secs(60));
            tokio::spawn(async move { call.send().await })
        })
        .collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.expect("a client"));
    }
    answers
}

/// T-CC1: fifty cold pulls of a tag cost one of the registry's pulls, however slow it is.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc1_fifty_cold_manifests_are_one_request() {
    need!("t_cc1_fifty_cold_manifests_are_one_request", "node");
    let upstream = Upstream::start();
    let image = Image::small(1);
    let (manifest, digest) = (image.manifest.clone(), image.digest.clone());
    upstream.on(Method::Read, "/v2/team/app/manifests/v1").reply_with(move |_| {
        let reply = Reply::status(200).body(manifest.clone()).header("docker-content-digest", &digest);
        reply.header("content-type", media::MANIFEST).delay(Duration::from_millis(500))
    });
    let edge = edge(&upstream);
    let answers = all_at_once(&edge.url("/v2/team/app/manifests/v1")).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.digest == image.digest));
    assert_eq!(upstream.count(Method::Any, "/v2/team/app/manifests/v1"), 1);
}

/// Fifty cold pulls of a blob pass through, each for itself, and the store is filled once: a request of a Worker cannot
/// follow what another receives, and to hold forty-nine back until the store has all of it would cost them more time than
/// it saves the registry work, which does not count blobs.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_cold_blobs_are_stored_once() {
    need!("fifty_cold_blobs_are_stored_once", "node");
    let upstream = Upstream::start();
    let body = Body::from(Pattern::new(1, 3_000_000));
    let digest = upstream.serve_blob("team/app", body);
    let edge = edge(&upstream);
    let path = format!("/v2/team/app/blobs/{digest}");
    let answers = all_at_once(&edge.url(&path)).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.clean_end && answer.digest == digest));
    let hex = digest.trim_start_matches("sha256:").to_owned();
    edge.wait_until(Duration::from_secs(20), "the blob is stored", |edge| {
        edge.r2_keys().iter().any(|key| key.ends_with(&hex))
    });
    let asked = upstream.count(Method::Any, path.as_str());
    println!("{CLIENTS} cold clients: {asked} requests for the blob");
    assert!(asked <= CLIENTS + 1, "{asked} requests for {CLIENTS} clients and the store");
    assert_eq!(http::get(edge.url(&path)).send().await.header("x-cache"), Some("HIT"));
    assert_eq!(upstream.count(Method::Any, path.as_str()), asked, "warm, nothing is asked");
}
