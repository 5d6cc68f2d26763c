use std::time::{Duration, Instant};

use entrepot_testkit::script::{Image, Method, Paths, Reply};

use crate::common::Bench;

/// T-CP4: what upstream does not have is not asked for again at once, and is there no later than `negative_ttl` after it
/// has appeared.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp4_absence_is_believed_for_its_time_and_no_longer() {
    let ttl = Duration::from_secs(3);
    let bench = Bench::setup().cache("negative_ttl", "3s").start();
    let image = Image::small(1);
    bench
        .upstream
        .on(Method::Any, Paths::from("/v2/team/app/*"))
        .reply(Reply::oci_error(404, "NAME_UNKNOWN"));
    let paths = [
        "/v2/team/app/manifests/latest".to_owned(),
        format!("/v2/team/app/manifests/{}", image.digest),
        format!("/v2/team/app/blobs/{}", image.layer_digests[0]),
    ];
    for path in &paths {
        let first = Instant::now();
        assert_eq!(bench.get(path).send().await.status, 404);
        let asked = bench.upstream.count(Method::Any, path);
        let again = bench.get(path).send().await;
        let head = bench.head(path).send().await;
        // A machine that took longer than the TTL for this says nothing.
        if first.elapsed() < ttl {
            assert_eq!((again.status, head.status), (404, 404));
            assert_eq!(bench.upstream.count(Method::Any, path), asked, "{path}: remembered");
        }
    }
    bench.upstream.clear_rules();
    bench.upstream.serve_image("team/app", "latest", &image);
    let appeared = Instant::now();
    for path in &paths {
        let answer = bench.eventually(path, "it has appeared", |answer| answer.status == 200).await;
        assert!(answer.clean_end);
    }
    assert!(appeared.elapsed() < ttl + Duration::from_secs(2), "visible after {:?}", appeared.elapsed());
}

/// T-CP4: for one repository, reference and registry only.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp4_absence_is_of_one_thing_only() {
    let other = entrepot_testkit::script::Upstream::start();
    let bench = Bench::setup().cache("negative_ttl", "1h").and_source("other", &other.url(), &[]).start();
    let image = Image::small(2);
    bench
        .upstream
        .on(Method::Any, Paths::from("/v2/team/app/*"))
        .reply(Reply::oci_error(404, "MANIFEST_UNKNOWN"));
    for upstream in [&bench.upstream, &other] {
        upstream.serve_image("team/good", "latest", &image);
    }
    other.serve_image("team/app", "latest", &image);
    let blob = format!("blobs/{}", image.layer_digests[0]);
    for tail in ["manifests/latest", &blob] {
        assert_eq!(bench.get(format!("/v2/team/app/{tail}")).send().await.status, 404);
        for repository in ["team/good", "other.test/team/app", "other.test/team/good"] {
            let answer = bench.get(format!("/v2/{repository}/{tail}")).send().await;
            assert_eq!(answer.status, 200, "{repository}/{tail}: {answer:?}");
        }
        assert_eq!(bench.get(format!("/v2/team/app/{tail}")).send().await.status, 404);
    }
    // A tag that is found under another name is not absent any more by that.
    bench.upstream.serve_manifest(
        "team/app",
        "two",
        &image.manifest,
        entrepot_testkit::script::media::MANIFEST,
    );
    assert_eq!(bench.get("/v2/team/app/manifests/two").send().await.status, 200);
    assert_eq!(bench.get("/v2/team/app/manifests/latest").send().await.status, 404);
}
