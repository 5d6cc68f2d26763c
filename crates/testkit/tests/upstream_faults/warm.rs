use std::time::Duration;

use entrepot_testkit::http::Response;
use entrepot_testkit::script::{Image, Method, Reply, sha256};

use super::faults::{self, Failing, Fault};
use crate::common::{Bench, assert_error, assert_only_our_headers};

/// What every warm test has pulled before upstream failed.
struct Warm {
    image: Image,
    manifest: String,
    by_digest: String,
    blob: String,
    tags: String,
    referrers: String,
}

impl Warm {
    async fn up(bench: &Bench, fault: &Fault, image: &Image) -> Option<Warm> {
        let Failing::Scripted(upstream, _) = &fault.upstream else {
            return None;
        };
        upstream.serve_image("team/app", "latest", image);
        let index = Image::index(std::slice::from_ref(image));
        upstream
            .on(Method::Get, "/v2/team/app/tags/list")
            .reply(Reply::json(200, &serde_json::json!({"name": "team/app", "tags": ["latest"]})));
        upstream
            .on(Method::Get, format!("/v2/team/app/referrers/{}", image.digest))
            .reply(Reply::ok(index).header("content-type", entrepot_testkit::script::media::INDEX));
        let repository = fault.repository();
        let warm = Warm {
            image: image.clone(),
            manifest: format!("{repository}/manifests/latest"),
            by_digest: format!("{repository}/manifests/{}", image.digest),
            blob: format!("{repository}/blobs/{}", image.layer_digests[0]),
            tags: format!("{repository}/tags/list"),
            referrers: format!("{repository}/referrers/{}", image.digest),
        };
        for path in [&warm.manifest, &warm.blob, &warm.tags, &warm.referrers] {
            let answer = bench.get(path).send().await;
            assert_eq!(answer.status, 200, "{}: {answer:?}", fault.name);
            assert_eq!(answer.header("warning"), None);
        }
        Some(warm)
    }

    /// What a digest names is for ever.
    async fn assert_digests_serve(&self, bench: &Bench, name: &str) {
        for (path, digest) in
            [(&self.by_digest, &self.image.digest), (&self.blob, &self.image.layer_digests[0])]
        {
            let answer = bench.get(path).send().await;
            assert_eq!((answer.status, &answer.digest), (200, digest), "{name}: {answer:?}");
            assert_eq!(answer.header("warning"), None, "{name}: a digest is never stale");
            assert_eq!(bench.head(path).send().await.status, 200, "{name}");
        }
    }
}

fn assert_stale(answer: &Response, digest: &str, name: &str) {
    assert_eq!((answer.status, answer.digest.as_str()), (200, digest), "{name}: {answer:?}");
    assert!(
        answer.header("warning").is_some_and(|warning| warning.starts_with("299 - \"")),
        "{name}: says that it is old: {answer:?}"
    );
    assert!(
        answer.header("age").and_then(|age| age.parse::<u64>().ok()).is_some(),
        "{name}: says how old: {answer:?}"
    );
    assert_eq!(answer.header("x-cache"), Some("STALE"), "{name}: {answer:?}");
    assert_only_our_headers(answer);
}

/// T-UF2
#[tokio::test(flavor = "multi_thread")]
async fn t_uf2_warm_content_outlives_every_fault() {
    let image = Image::small(1);
    let faults = faults::all();
    let setup = Bench::setup().cache("manifest_ttl", "0");
    let bench = faults::with_sources(setup, &faults, &[]).start();
    let mut warm = Vec::new();
    for fault in &faults {
        warm.push(Warm::up(&bench, fault, &image).await);
    }
    bench.wait_for_fills();
    let held = bench.mirror.store_hash();
    for (fault, warm) in faults.iter().zip(warm) {
        let Some(warm) = warm else { continue };
        fault.begin();
        let name = fault.name;
        for _ in 0..2 {
            let head = bench.head(&warm.manifest).send().await;
            assert_eq!(head.status, 200, "{name}: {head:?}");
            assert_eq!(head.header("docker-content-digest"), Some(image.digest.as_str()), "{name}");
            let answer = bench.get(&warm.manifest).send().await;
            assert_stale(&answer, &image.digest, name);
            assert!(
                answer.time_to_head < Duration::from_secs(5),
                "{name}: a client does not sit out upstream's time-outs: {answer:?}"
            );
        }
        warm.assert_digests_serve(&bench, name).await;
    }
    assert_eq!(bench.mirror.store_hash(), held, "nothing is deleted, nothing is added");
}

/// T-UF2: lists as well.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf2_warm_lists_outlive_every_fault() {
    let image = Image::small(2);
    let faults = faults::all();
    let setup = Bench::setup().cache("manifest_ttl", "0");
    let bench = faults::with_sources(setup, &faults, &[]).start();
    for fault in &faults {
        let Some(warm) = Warm::up(&bench, fault, &image).await else {
            continue;
        };
        fault.begin();
        for path in [&warm.tags, &warm.referrers] {
            let answer = bench.get(path).send().await;
            assert_eq!(answer.status, 200, "{}: {answer:?}", fault.name);
            assert!(
                answer.header("warning").is_some_and(|warning| warning.starts_with("299 - \"")),
                "{}: {answer:?}",
                fault.name
            );
        }
    }
}

/// T-UF2: a host that has gone altogether.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf2_warm_content_outlives_a_host_that_has_gone() {
    let bench = Bench::setup().cache("manifest_ttl", "0").start();
    let image = Image::small(3);
    bench.upstream.serve_image("team/app", "latest", &image);
    let (tag, blob) =
        ("/v2/team/app/manifests/latest", format!("/v2/team/app/blobs/{}", image.layer_digests[0]));
    assert_eq!(bench.get(tag).send().await.status, 200);
    assert_eq!(bench.get(&blob).send().await.status, 200);
    bench.wait_for_fills();
    bench.upstream.stop();
    assert_stale(&bench.get(tag).send().await, &image.digest, "stopped");
    assert_eq!(bench.get(&blob).send().await.digest, image.layer_digests[0]);
}

/// T-UF2: within `max_stale`, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf2_a_tag_that_is_too_old_fails_and_its_digest_does_not() {
    let bench = Bench::setup().cache("manifest_ttl", "1s").cache("max_stale", "1s").start();
    let image = Image::small(4);
    bench.upstream.serve_image("team/app", "latest", &image);
    let tag = "/v2/team/app/manifests/latest";
    assert_eq!(bench.get(tag).send().await.status, 200);
    bench.upstream.on(Method::Any, "/*").reply(Reply::oci_error(403, "DENIED"));
    let refused = bench.eventually(tag, "a tag grows too old", |answer| answer.status != 200).await;
    assert_error(&refused, 403, "DENIED");
    let by_digest = bench.get(format!("/v2/team/app/manifests/{}", image.digest)).send().await;
    assert_eq!((by_digest.status, by_digest.digest.as_str()), (200, image.digest.as_str()), "{by_digest:?}");
}

/// T-UF2: what rests on our credentials is denied once they are refused; what anyone may have is not.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf2_refusals_deny_what_rests_on_credentials() {
    for status in [401, 403] {
        let bench = Bench::setup()
            .cache("manifest_ttl", "0")
            .source("auth", "{ username: \"u\", password: \"canary-p\" }")
            .source("public", "[\"open/*\"]")
            .proxy("access", "{ networks: [\"127.0.0.0/8\"] }")
            .start();
        let image = Image::small(5);
        for repository in ["team/app", "open/app"] {
            bench.upstream.serve_image(repository, "latest", &image);
            let answer = bench.get(format!("/v2/{repository}/manifests/latest")).send().await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        let held = bench.mirror.store_hash();
        bench.upstream.on(Method::Any, "/*").reply(Reply::oci_error(status, "DENIED"));
        for _ in 0..3 {
            let answer = bench.get("/v2/team/app/manifests/latest").send().await;
            assert!(matches!(answer.status, 401 | 403), "{status}: {answer:?}");
            assert_ne!(answer.digest, image.digest);
            let answer = bench.get("/v2/open/app/manifests/latest").send().await;
            assert_stale(&answer, &image.digest, "public content");
        }
        // An outage on top of the refusal opens nothing.
        bench.upstream.stop();
        let answer = bench.get("/v2/team/app/manifests/latest").send().await;
        assert!(answer.status >= 400, "{status}: {answer:?}");
        assert_eq!(bench.mirror.store_hash(), held, "{status}: nothing is deleted");
    }
}

/// T-UF2
#[tokio::test(flavor = "multi_thread")]
async fn t_uf2_a_tag_that_is_gone_is_kept_or_follows() {
    for on_gone in ["keep", "follow"] {
        let bench = Bench::setup()
            .cache("manifest_ttl", "0")
            .cache("negative_ttl", "1s")
            .source("on_gone", on_gone)
            .start();
        let image = Image::small(6);
        bench.upstream.serve_image("team/app", "latest", &image);
        let tag = "/v2/team/app/manifests/latest";
        assert_eq!(bench.get(tag).send().await.status, 200);
        let held = bench.mirror.store_hash();
        bench.upstream.on(Method::Any, tag).reply(Reply::oci_error(404, "MANIFEST_UNKNOWN"));
        for _ in 0..2 {
            let answer = bench.get(tag).send().await;
            if on_gone == "keep" {
                assert_stale(&answer, &image.digest, on_gone);
            } else {
                assert_error(&answer, 404, "MANIFEST_UNKNOWN");
            }
        }
        let by_digest = bench.get(format!("/v2/team/app/manifests/{}", image.digest)).send().await;
        assert_eq!((by_digest.status, &by_digest.digest), (200, &image.digest));
        assert_eq!(bench.mirror.store_hash(), held, "{on_gone}: the manifest stays");
    }
}

/// T-UF2: what was never pulled is not invented, however warm its neighbours are.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf2_a_cold_tag_of_a_warm_repository_fails() {
    let bench = Bench::new();
    let image = Image::small(7);
    bench.upstream.serve_image("team/app", "latest", &image);
    assert_eq!(bench.get("/v2/team/app/manifests/latest").send().await.status, 200);
    bench.upstream.stop();
    let answer = bench.get("/v2/team/app/manifests/other").send().await;
    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
    let missing = sha256(b"never pulled");
    let answer = bench.get(format!("/v2/team/app/blobs/{missing}")).send().await;
    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
}
