use std::time::{Duration, Instant};

use entrepot_testkit::script::{Body, Image, Method, Paths, Pattern, Reply, media, sha256};
use serde_json::json;

use crate::common::{Bench, assert_error, assert_refused};

/// What sockets and buffers on the way may hold beyond what was read.
const IN_FLIGHT: u64 = 12 << 20;

/// The largest manifest: 4 MiB, rounded up for what clients accept.
const MANIFEST_CAP: u64 = 5 << 20;

/// T-HU4
#[tokio::test(flavor = "multi_thread")]
async fn t_hu4_manifests_without_measure_are_cut_at_the_cap() {
    let sixty_megabytes = Body::from(Pattern::new(1, 60 << 20));
    let typed = |reply: Reply| reply.header("content-type", media::MANIFEST);
    for (name, reply) in [
        ("endless", typed(Reply::status(200).endless())),
        ("60 MB", typed(Reply::ok(sixty_megabytes.clone()))),
        ("60 MB in chunks", typed(Reply::ok(sixty_megabytes.clone()).chunked())),
        ("60 MB that claims to be 100 bytes", typed(Reply::ok(sixty_megabytes.clone()).declared_length(100))),
        ("100 bytes that claim to be 60 MB", typed(Reply::ok(vec![b' '; 100]).declared_length(60 << 20))),
        (
            "a length of 2^64",
            typed(Reply::ok("{}").without("x")).header("content-length", "18446744073709551616"),
        ),
    ] {
        let bench = Bench::new();
        bench.upstream.on(Method::Head, "/v2/team/app/manifests/1").reply(typed(Reply::ok("{}")));
        bench.upstream.on(Method::Get, "/v2/team/app/manifests/1").reply(reply);
        let before = bench.mirror.rss_anon_kb();
        let answer = bench.get("/v2/team/app/manifests/1").send().await;
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        assert!(!answer.error_code().is_empty());
        let fetches = bench.upstream.count(Method::Get, "/v2/team/app/manifests/1") as u64;
        let sent = bench.upstream.bytes_sent("/v2/team/app/manifests/1");
        assert!(sent <= fetches * (MANIFEST_CAP + IN_FLIGHT), "{name}: {sent} bytes in {fetches} answers");
        let grown = bench.mirror.rss_anon_kb().saturating_sub(before);
        assert!(grown < 32 * 1024, "{name}: {grown} kB more");
        bench.assert_nothing_stored();
    }
}

/// T-HU4: the manifest says how long the blob is, so an endless one is known to be wrong at its size + 1.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu4_an_endless_blob_ends_at_its_size() {
    let bench = Bench::new();
    let image = Image::small(5);
    bench.upstream.serve_image("team/app", "1", &image);
    let path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    bench.upstream.on(Method::Get, &path).reply(Reply::status(200).endless());
    assert_eq!(bench.get("/v2/team/app/manifests/1").send().await.status, 200);
    let kept = bench.mirror.stored_files();
    assert_refused(&bench.get(&path).send_or_broken().await);
    let fetches = bench.upstream.count(Method::Get, &path) as u64;
    assert!(bench.upstream.bytes_sent(path.as_str()) <= fetches * IN_FLIGHT);
    bench.mirror.wait_until(Duration::from_secs(5), "only the manifest is stored", |mirror| {
        mirror.stored_files() == kept
    });
}

/// T-HU4: lengths that are too long, too short, or never come to an end.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu4_blobs_whose_framing_lies() {
    let body = Body::from(Pattern::new(6, 200_000));
    let digest = body.sha256();
    let path = format!("/v2/team/app/blobs/{digest}");
    let base = || Reply::ok(body.clone()).header("docker-content-digest", &digest);
    for (name, reply, may_be_whole) in [
        ("longer than it is", base().declared_length(200_001), true),
        ("much longer than it is", base().declared_length(1 << 40), true),
        ("shorter than it is", base().declared_length(199_999), false),
        ("zero", base().declared_length(0), false),
        ("chunks without end", base().chunked_without_end(), true),
        ("chunks cut inside", base().chunked().truncate_after(100_000), false),
    ] {
        let bench = Bench::new();
        bench.upstream.on(Method::Get, &path).reply(reply);
        bench.upstream.on(Method::Head, &path).reply(base());
        let answer = bench.get(&path).send_or_broken().await;
        // Bytes that hash to the digest are the blob, however they were framed; anything else may not look complete.
        let whole = answer.status == 200 && answer.clean_end && answer.digest == digest;
        if whole {
            assert!(may_be_whole, "{name}: {answer:?}");
        } else {
            assert_refused(&answer);
            bench.assert_nothing_stored();
        }
    }
}

/// T-HU4
#[tokio::test(flavor = "multi_thread")]
async fn t_hu4_a_page_of_a_million_tags() {
    let bench = Bench::new();
    let tags: Vec<String> = (0..1_000_000).map(|i| format!("v{i:07}")).collect();
    let page = json!({"name": "team/app", "tags": tags});
    bench.upstream.on(Method::Get, "/v2/team/app/tags/list").reply(Reply::json(200, &page));
    let before = bench.mirror.rss_anon_kb();
    for query in ["", "?n=10", "?n=1000000"] {
        let answer = bench.get(format!("/v2/team/app/tags/list{query}")).send().await;
        match answer.status {
            200 => {
                assert!(answer.json()["tags"].as_array().is_some_and(|tags| tags.len() <= 1000), "{query}")
            }
            status => assert_eq!(status, 502, "{query}: {answer:?}"),
        }
    }
    let grown = bench.mirror.rss_anon_kb().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} kB more");
}

/// T-HU4
#[tokio::test(flavor = "multi_thread")]
async fn t_hu4_links_that_never_end() {
    let bench = Bench::new();
    let digest = sha256(b"subject");
    let page = |at: usize| {
        let entry = json!({"mediaType": media::MANIFEST, "digest": sha256(&at.to_le_bytes()), "size": 7});
        json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": [entry]})
    };
    let next = |path: &str, at: usize| format!("<{path}?n=1&last={}>; rel=\"next\"", at + 1);
    let referrers = format!("/v2/team/app/referrers/{digest}");
    let link_path = referrers.clone();
    bench.upstream.on(Method::Get, &referrers).reply_with(move |request| {
        let at = request.query_param("last").and_then(|text| text.parse().ok()).unwrap_or(0);
        Reply::json(200, &page(at))
            .without("content-type")
            .header("content-type", media::INDEX)
            .header("link", next(&link_path, at))
    });
    let looping = sha256(b"looping");
    let loop_path = format!("/v2/team/app/referrers/{looping}");
    let itself = format!("<{loop_path}>; rel=\"next\"");
    bench.upstream.on(Method::Get, &loop_path).reply(
        Reply::json(200, &page(0))
            .without("content-type")
            .header("content-type", media::INDEX)
            .header("link", itself),
    );
    let tags = "/v2/team/app/tags/list";
    bench.upstream.on(Method::Get, tags).reply_with(move |request| {
        let at = request.query_param("last").and_then(|text| text.parse().ok()).unwrap_or(0);
        Reply::json(200, &json!({"name": "team/app", "tags": [at.to_string()]}))
            .header("link", next(tags, at))
    });
    for path in [referrers.as_str(), &loop_path, tags] {
        let start = Instant::now();
        let answer = bench.get(path).send().await;
        assert!(matches!(answer.status, 200 | 502), "{answer:?}");
        assert!(start.elapsed() < Duration::from_secs(10), "{path} took {:?}", start.elapsed());
        assert!(
            bench.upstream.count(Method::Get, path) <= 64,
            "{path}: {}",
            bench.upstream.count(Method::Get, path)
        );
        if let Some(link) = answer.header("link") {
            assert!(link.contains("/v2/team/app/") && !link.contains(&bench.upstream.host()), "{link}");
            assert_ne!(path, loop_path, "a page that follows itself is no page");
        }
    }
}

/// T-HU4: the token endpoint is upstream too.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu4_an_endless_token() {
    let bench = Bench::new();
    let realm = format!("{}/token", bench.upstream.url());
    bench.upstream.on(Method::Read, "/v2/*").reply(Reply::challenge(
        &realm,
        "svc",
        "repository:team/app:pull",
    ));
    bench
        .upstream
        .on(Method::Get, "/token")
        .reply(Reply::status(200).header("content-type", "application/json").endless());
    let answer = bench.get("/v2/team/app/manifests/1").send().await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let sent = bench.upstream.bytes_sent(Paths::containing("/token"));
    let fetches = bench.upstream.count(Method::Get, "/token") as u64;
    assert!(sent <= fetches * IN_FLIGHT, "{sent} bytes in {fetches} answers");
}

/// T-HU4: a tags answer that is not what it should be is an error with a code.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu4_an_upstream_without_the_repository_says_so() {
    let bench = Bench::new();
    bench.upstream.on(Method::Get, "/v2/team/none/tags/list").reply(Reply::oci_error(404, "NAME_UNKNOWN"));
    assert_error(&bench.get("/v2/team/none/tags/list").send().await, 404, "NAME_UNKNOWN");
}
