//! `/healthz`, `/readyz` and `/metrics`, on their own address only.

use super::common::Bench;

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
