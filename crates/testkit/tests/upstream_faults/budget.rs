use entrepot_testkit::script::{Image, Method, Reply, Upstream, media};

use crate::common::{Bench, assert_error};

/// A manifest that says how many pulls are left of a hundred.
fn manifest(image: &Image, remaining: &str) -> Reply {
    Reply::manifest(&image.manifest, media::MANIFEST)
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", format!("{remaining};w=21600"))
        .header("docker-ratelimit-source", "192.0.2.1")
}

/// T-RL7: with a tenth of the pulls left, what is held is served without asking; what is not held is still fetched.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_a_low_budget_is_not_spent_on_what_is_held() {
    let bench = Bench::setup().cache("manifest_ttl", "0").start();
    let (held, cold) = (Image::small(1), Image::small(2));
    let tag = "/v2/team/app/manifests/held";
    bench.upstream.on(Method::Get, tag).reply(manifest(&held, "11"));
    bench.upstream.on(Method::Head, tag).reply(manifest(&held, "11"));
    assert_eq!(bench.get(tag).send().await.status, 200);
    let fresh = bench.get(tag).send().await;
    assert_eq!(fresh.header("warning"), None, "eleven of a hundred are enough: {fresh:?}");
    assert!(bench.upstream.count(Method::Head, tag) >= 1);

    bench.upstream.on(Method::Get, "/v2/team/app/manifests/cold").reply(manifest(&cold, "10"));
    assert_eq!(bench.get("/v2/team/app/manifests/cold").send().await.status, 200);
    let asked = bench.upstream.requests().len();
    for _ in 0..5 {
        let answer = bench.get(tag).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &held.digest), "{answer:?}");
        assert!(
            answer.header("warning").is_some_and(|text| text.starts_with("299 - \"upstream limits")),
            "{answer:?}"
        );
    }
    assert_eq!(
        bench.upstream.requests().len(),
        asked,
        "neither GET nor HEAD is sent: {:?}",
        bench.upstream.summary()
    );
}

/// T-RL7: with none left, no request is sent that would be refused; blobs and other registries are none of it.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_an_empty_budget_sends_nothing() {
    let other = Upstream::start();
    let bench = Bench::setup().and_source("other", &other.url(), &[]).start();
    let (last, image) = (Image::small(3), Image::small(4));
    bench.upstream.serve_image("team/app", "", &last);
    other.serve_image("team/app", "latest", &image);
    let tag = "/v2/team/app/manifests/last";
    bench.upstream.on(Method::Read, tag).reply(manifest(&last, "0"));
    assert_eq!(bench.get(tag).send().await.status, 200);
    for n in 0..5 {
        for reference in [format!("cold{n}"), entrepot_testkit::script::sha256(&[n])] {
            let answer = bench.get(format!("/v2/team/app/manifests/{reference}")).send().await;
            assert_error(&answer, 429, "TOOMANYREQUESTS");
            let wait: u64 = answer
                .header("retry-after")
                .and_then(|text| text.parse().ok())
                .unwrap_or_else(|| panic!("when to come back: {answer:?}"));
            assert!((1..=21_600).contains(&wait), "{answer:?}");
        }
    }
    let gets = bench
        .upstream
        .requests()
        .iter()
        .filter(|request| request.path.contains("/manifests/") && request.method == "GET")
        .count();
    assert_eq!(gets, 1, "{:?}", bench.upstream.summary());
    assert_eq!(bench.get(tag).send().await.digest, last.digest, "what is held is served");
    let blob = format!("/v2/team/app/blobs/{}", last.layer_digests[0]);
    assert_eq!(bench.get(blob).send().await.status, 200, "blobs are no pulls");
    let answer = bench.get("/v2/other.test/team/app/manifests/latest").send().await;
    assert_eq!(answer.digest, image.digest, "another registry has its own budget");
}

/// T-RL7: a refusal that says nothing of a budget empties it all the same, by the words of its body.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_a_pull_limit_is_not_knocked_at_again() {
    let bench = Bench::new();
    let hub = serde_json::json!({"errors": [{"code": "TOOMANYREQUESTS",
        "message": "You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]});
    bench.upstream.on(Method::Get, "/v2/team/app/manifests/*").reply(Reply::json(429, &hub));
    for n in 0..6 {
        let answer = bench.get(format!("/v2/team/app/manifests/{n}")).send().await;
        assert_error(&answer, 429, "TOOMANYREQUESTS");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(bench.upstream.requests().len(), 1, "{:?}", bench.upstream.summary());
    // Blobs go on.
    let digest = bench.upstream.serve_blob("team/app", "a blob");
    let answer = bench.get(format!("/v2/team/app/blobs/{digest}")).send().await;
    assert_eq!((answer.status, answer.digest), (200, digest));
}
