use crate::common::Bench;

/// T-HC9: what clients make up is never a label.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc9_metrics_do_not_grow_with_what_clients_invent() {
    let bench = Bench::setup_over(entrepot_testkit::script::Upstream::start().lenient()).start();
    let series = |bench: &Bench| bench.mirror.metrics().lines().filter(|line| !line.starts_with('#')).count();
    let ask = async |i: usize| {
        let repository = format!("invented/name-{i}");
        bench
            .get(format!("/v2/{repository}/manifests/tag-{i}"))
            .header("user-agent", format!("agent-{i}"))
            .send()
            .await;
        bench.head(format!("/v2/{repository}/tags/list?n={i}")).send().await;
        bench.get(format!("/v2/host-{i}.example/app/manifests/1")).send().await;
        bench.get(format!("/v2/{repository}/manifests/1?ns=host-{i}.example")).send().await;
        bench.request(&format!("METHOD{i}"), "/v2/").send().await;
        bench.get(format!("/invented/{i}")).host(&format!("host-{i}.example")).send().await;
    };
    ask(0).await;
    ask(1).await;
    let before = series(&bench);
    for i in 2..60 {
        ask(i).await;
    }
    assert_eq!(series(&bench), before, "{}", bench.mirror.metrics());
}
