use std::time::Duration;

use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, media, sha256};

use crate::common::{Bench, assert_refused, at_home_only};

/// T-HU1
#[tokio::test(flavor = "multi_thread")]
async fn t_hu1_a_manifest_by_digest_with_other_bytes() {
    let bench = Bench::new();
    let (asked, other) = (Image::small(1), Image::small(2));
    let path = format!("/v2/team/app/manifests/{}", asked.digest);
    let lie = Reply::manifest(&other.manifest, media::MANIFEST)
        .without("docker-content-digest")
        .header("docker-content-digest", &asked.digest);
    bench.upstream.on(Method::Read, &path).reply(lie);
    let before = bench.mirror.store_hash();

    let answer = bench.get(&path).send().await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(!answer.error_code().is_empty());
    assert_eq!(bench.mirror.store_hash(), before);
    let asked_upstream = bench.upstream.count(Method::Get, &path);
    let counted = bench.counted("digest_mismatch");
    assert!(
        counted >= 1.0 && counted <= asked_upstream as f64,
        "{counted} mismatches in {asked_upstream} answers"
    );

    bench.upstream.serve_manifest("team/app", "", &asked.manifest, media::MANIFEST);
    let good = bench.get(&path).send().await;
    assert_eq!((good.status, good.body), (200, asked.manifest));
    assert!(
        bench.upstream.count(Method::Get, &path) > asked_upstream,
        "the next request goes upstream again"
    );
}

/// T-HU1
#[tokio::test(flavor = "multi_thread")]
async fn t_hu1_a_blob_with_other_bytes() {
    let bench = Bench::new();
    let (asked, other) = (Body::from(Pattern::new(1, 300_000)), Body::from(Pattern::new(2, 300_000)));
    let digest = asked.sha256();
    let path = format!("/v2/team/app/blobs/{digest}");
    bench.upstream.serve_blob_as("team/app", &digest, other);

    assert_refused(&bench.get(&path).send_or_broken().await);
    bench.assert_nothing_stored();
    assert!(bench.counted("digest_mismatch") >= 1.0);
    let asked_upstream = bench.upstream.count(Method::Get, &path);

    bench.upstream.serve_blob_as("team/app", &digest, asked);
    let good = bench.get(&path).send().await;
    assert_eq!((good.status, good.clean_end, good.digest), (200, true, digest));
    assert!(
        bench.upstream.count(Method::Get, &path) > asked_upstream,
        "the next request goes upstream again"
    );
}

/// T-HU2
#[tokio::test(flavor = "multi_thread")]
async fn t_hu2_one_flipped_byte_anywhere() {
    for size in [1, 64 * 1024, 9_000_000] {
        for flip in [0, size / 2, size - 1] {
            let bench = Bench::new();
            let body = Body::from(Pattern::new(size + flip, size));
            let digest = body.sha256();
            let path = format!("/v2/team/app/blobs/{digest}");
            let served = digest.clone();
            bench
                .upstream
                .on(Method::Read, &path)
                .reply_with(move |request| Reply::blob(request, &served, body.clone()).flip(flip));
            assert_refused(&bench.get(&path).send_or_broken().await);
            // A range that avoids the damage must not look like proof of the whole, and nobody else gets it either.
            assert_refused(&bench.get(&path).range("bytes=0-").send_or_broken().await);
            bench.assert_nothing_stored();
        }
    }
}

/// T-HU2: a blob that should be empty, and is not.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu2_a_byte_in_the_empty_blob() {
    let bench = Bench::new();
    let digest = sha256(b"");
    bench.upstream.serve_blob_as("team/app", &digest, "x");
    assert_refused(&bench.get(format!("/v2/team/app/blobs/{digest}")).send_or_broken().await);
    bench.assert_nothing_stored();
}

/// T-HU2: the last byte of five GiB.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu2_the_last_byte_of_five_gib() {
    if at_home_only("t_hu2_the_last_byte_of_five_gib") {
        return;
    }
    const SIZE: u64 = 5 << 30;
    let bench = Bench::setup().cache("max_size", "20GiB").start();
    let body = Body::from(Pattern::new(5, SIZE));
    let digest = tokio::task::spawn_blocking({
        let body = body.clone();
        move || body.sha256()
    })
    .await
    .expect("hashing");
    let path = format!("/v2/team/app/blobs/{digest}");
    bench
        .upstream
        .on(Method::Read, &path)
        .reply_with(move |request| Reply::blob(request, &digest, body.clone()).flip(SIZE - 1));
    let answer = bench.get(&path).discard().limit(Duration::from_secs(300)).send().await;
    assert_eq!((answer.status, answer.clean_end), (200, false), "{answer:?}");
    assert!(answer.length < SIZE, "the tail is held back");
    assert!(bench.mirror.rss_anon_kb() < 64 * 1024, "{} kB", bench.mirror.rss_anon_kb());
    bench.assert_nothing_stored();
}

/// T-HU9
#[tokio::test(flavor = "multi_thread")]
async fn t_hu9_urls_and_subjects_are_never_fetched() {
    let bench = Bench::new();
    // A strict upstream: any request that reaches it fails the test.
    let evil = entrepot_testkit::script::Upstream::start_on([127, 0, 0, 3]);
    let layer = Body::from(Pattern::new(9, 50_000));
    let missing = sha256(b"a foreign layer that only the evil host has");
    let denied = sha256(b"a manifest that upstream denies");
    let config = b"{}".to_vec();
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media::MANIFEST,
        "artifactType": "application/vnd.\u{202e}junk; q=1\"",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(&config), "size": config.len()},
        "layers": [
            {"mediaType": media::LAYER, "digest": layer.sha256(), "size": layer.len(), "urls": [format!("{}/layer", evil.url())]},
            {"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": missing, "size": 44,
             "urls": [format!("{}/foreign", evil.url()), "file:///etc/passwd", "ftp://127.0.0.3/x"]},
        ],
        "subject": {"mediaType": media::MANIFEST, "digest": denied, "size": 31, "urls": [format!("{}/subject", evil.url())]},
    })
    .to_string()
    .into_bytes();
    bench.upstream.serve_manifest("team/app", "1", &manifest, media::MANIFEST);
    bench.upstream.serve_blob("team/app", layer.clone());
    let denied_path = format!("/v2/team/app/manifests/{denied}");
    bench.upstream.on(Method::Read, &denied_path).reply(Reply::oci_error(403, "DENIED"));
    let missing_path = format!("/v2/team/app/blobs/{missing}");
    bench.upstream.on(Method::Read, &missing_path).reply(Reply::oci_error(404, "BLOB_UNKNOWN"));

    // What `artifactType` says is between the one who wrote it and the one who reads it.
    let answer = bench.get("/v2/team/app/manifests/1").send().await;
    assert!(answer.status == 200 && answer.body == manifest, "{answer:?}");
    assert_eq!(bench.upstream.count(Method::Any, &denied_path), 0, "a subject is not ours to fetch");
    let good = bench.get(format!("/v2/team/app/blobs/{}", layer.sha256())).send().await;
    assert_eq!((good.status, good.digest), (200, layer.sha256()));
    assert_eq!(bench.get(&missing_path).send().await.status, 404);
    assert!(evil.requests().is_empty() && evil.connections() == 0, "{:?}", evil.summary());
}
