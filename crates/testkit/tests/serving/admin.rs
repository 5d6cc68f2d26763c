//! `/healthz`, `/readyz` and `/metrics`, on their own address only.

use std::time::Duration;

use entrepot_testkit::script::Image;

use super::common::Bench;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_paths_are_on_the_operators_address_only() {
    let bench = Bench::new();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(bench.mirror.admin_get(path).0, 200, "{path}");
        assert_eq!(bench.get(path).send().await.status, 404, "{path} on the public address");
    }
    assert_eq!(bench.mirror.admin_get("/v2/").0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_open_metrics_and_count_requests() {
    let bench = Bench::new();
    assert_eq!(bench.get("/v2/").send().await.status, 200);
    let (_, text) = bench.mirror.admin_get("/metrics");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(
        text.contains("entrepot_requests_total{method=\"GET\",route=\"ping\",source=\"none\",status=\"2xx\""),
        "{text}"
    );
}

/// What is given again, because it was asked in the same words, is counted and logged like everything else.
#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_requests_in_the_same_words_is_counted_and_logged() {
    const TIMES: usize = 100;
    let bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "latest", &image);
    let path = "/v2/team/app/manifests/latest";
    let first = bench.get(path).send().await;
    for _ in 0..TIMES {
        let answer = bench.get(path).send().await;
        assert_eq!((answer.status, answer.header("x-cache")), (200, Some("HIT")));
        assert_eq!((&answer.body, answer.header("etag")), (&first.body, first.header("etag")));
    }
    let hits = format!("verdict=\"hit\",reason=\"none\"}} {TIMES}");
    let counted = |text: &str| {
        text.lines().any(|line| line.starts_with("entrepot_requests_total") && line.ends_with(&hits))
    };
    let (_, text) = bench.mirror.admin_get("/metrics");
    assert!(counted(&text), "{text}");
    bench.mirror.wait_until(SOON, "each has its line", |mirror| {
        mirror.log().lines().filter(|line| line.contains("\"verdict\":\"hit\"")).count() == TIMES
    });
}
