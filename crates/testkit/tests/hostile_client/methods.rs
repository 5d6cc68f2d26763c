use entrepot_testkit::script::Image;

use crate::common::Bench;

/// T-HC10, and T-AZ9, which is the same demand.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc10_t_az9_nothing_can_be_changed() {
    let bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let blob = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    assert_eq!(bench.get("/v2/team/app/manifests/1").send().await.status, 200);
    assert_eq!(bench.get(&blob).send().await.status, 200);
    let (store, asked) = (bench.mirror.store_hash(), bench.upstream.requests().len());

    let routes = [
        "/v2/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/team/app/manifests/1".to_owned(),
        "/v2/team/app/manifests/new".to_owned(),
        format!("/v2/team/app/manifests/{}", image.digest),
        blob.clone(),
        "/v2/team/app/blobs/uploads/".to_owned(),
        "/v2/team/app/blobs/uploads/123e4567-e89b-12d3-a456-426614174000".to_owned(),
        format!("/v2/team/app/blobs/uploads/?mount={}&from=other/app", image.layer_digests[0]),
        "/v2/team/app/tags/list".to_owned(),
        format!("/v2/team/app/referrers/{}", image.digest),
        "/v2/up.test/team/app/manifests/1".to_owned(),
        "/up.test/v2/team/app/manifests/1".to_owned(),
    ];
    for route in &routes {
        for method in ["PUT", "POST", "PATCH", "DELETE"] {
            for override_header in
                [None, Some("x-http-method-override"), Some("x-http-method"), Some("x-method-override")]
            {
                for body in ["", "{\"schemaVersion\":2}"] {
                    let mut call = bench.request(method, route).body(body);
                    if let Some(name) = override_header {
                        call = call.header(name, "GET");
                    }
                    let answer = call.send().await;
                    assert_eq!(answer.status, 405, "{method} {route}: {answer:?}");
                    assert_eq!(answer.error_code(), "UNSUPPORTED", "{method} {route}");
                }
            }
        }
    }
    // What asks to be another method stays what it is.
    for route in ["/v2/team/app/manifests/1", blob.as_str()] {
        for method in ["DELETE", "PUT"] {
            let by_header = bench.get(route).header("x-http-method-override", method).send().await;
            let mark = if route.contains('?') { '&' } else { '?' };
            let by_query = bench.get(format!("{route}{mark}_method={method}")).send().await;
            assert_eq!((by_header.status, by_query.status), (200, 200), "{route}");
            assert_eq!(bench.get(route).send().await.status, 200);
        }
    }
    assert_eq!(bench.mirror.store_hash(), store, "nothing stored has changed");
    assert_eq!(
        bench.upstream.requests().len(),
        asked,
        "nothing went upstream: {:?}",
        bench.upstream.summary()
    );
}
