use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use entrepot_testkit::http::{self, parallel};
use entrepot_testkit::script::{Image, Method, Reply, media, sha256};

use crate::common::Bench;

const CLIENTS: usize = 100;
const TURNS: usize = 10;

/// T-CC5: a tag that flips while a hundred clients pull it as clients do, HEAD by tag and GET by that digest.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc5_a_tag_flips_under_a_hundred_clients() {
    let bench = Bench::setup().cache("manifest_ttl", "20ms").start();
    let (old, new) = (Image::small(1), Image::small(2));
    let flipped = Arc::new(AtomicBool::new(false));
    for image in [&old, &new] {
        bench.upstream.serve_manifest("team/app", "", &image.manifest, media::MANIFEST);
    }
    let manifests = [old.manifest.clone(), new.manifest.clone()];
    let state = flipped.clone();
    bench.upstream.on(Method::Read, "/v2/team/app/manifests/latest").reply_with(move |_| {
        Reply::manifest(&manifests[usize::from(state.load(Ordering::Relaxed))], media::MANIFEST)
    });
    // To and fro, at every moment of a pull, and new in the end.
    let flipping = tokio::spawn({
        let flipped = flipped.clone();
        async move {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_millis(13)).await;
                flipped.fetch_xor(true, Ordering::Relaxed);
            }
            flipped.store(true, Ordering::Relaxed);
        }
    });
    let base = bench.url("/v2/team/app/manifests/");
    let known = [old.digest.clone(), new.digest.clone()];
    parallel(CLIENTS, move |_| pulls(base.clone(), known.clone())).await;
    flipping.await.expect("the tag flips");
    let last = bench
        .eventually("/v2/team/app/manifests/latest", "the tag follows upstream", |answer| {
            answer.header("docker-content-digest") == Some(new.digest.as_str())
        })
        .await;
    assert_eq!(last.body, new.manifest);
}

async fn pulls(base: String, known: [String; 2]) {
    for _ in 0..TURNS {
        let tag = format!("{base}latest");
        let head = http::head(&tag).send().await;
        assert_eq!(head.status, 200, "{head:?}");
        let digest = head.header("docker-content-digest").expect("a digest").to_owned();
        assert!(known.contains(&digest), "{head:?}");
        let pinned = http::get(format!("{base}{digest}")).send().await;
        assert_eq!((pinned.status, &sha256(&pinned.body)), (200, &digest), "{pinned:?}");
        let whole = http::get(&tag).send().await;
        assert_eq!(
            (whole.status, whole.header("docker-content-digest")),
            (200, Some(sha256(&whole.body).as_str())),
            "{whole:?}"
        );
        assert_eq!(whole.header("content-length"), Some(whole.body.len().to_string().as_str()));
        assert!(known.contains(&whole.digest));
    }
}
