//! What is remembered of a failure: that upstream said "not there", for a moment, and nothing else.

use std::time::{Duration, Instant};

use entrepot_testkit::script::{Image, Method, Reply, media};

use crate::common::{Bench, assert_refused, together};

const NEGATIVE_TTL: Duration = Duration::from_secs(1);

/// Tag, digest, blob: each with the tail of its path.
fn tails(image: &Image) -> [String; 3] {
    [
        "manifests/1".to_owned(),
        format!("manifests/{}", image.digest),
        format!("blobs/{}", image.layer_digests[0]),
    ]
}

fn setup() -> crate::common::Setup {
    Bench::setup().cache("negative_ttl", "1s")
}

/// T-CP4: what was not there is seen soon after it has appeared, and until then upstream is left in peace.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp4_what_appears_is_seen() {
    let mut cases = Vec::new();
    for tail in tails(&Image::small(1)) {
        for method in ["GET", "HEAD"] {
            cases.push(appears(method, tail.clone()));
        }
    }
    together(cases).await;
}

async fn appears(method: &'static str, tail: String) {
    let image = Image::small(1);
    let bench = setup().start();
    let path = format!("/v2/team/app/{tail}");
    let code = if tail.starts_with("blobs") { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" };
    bench.upstream.on(Method::Read, &path).reply(Reply::oci_error(404, code));
    let start = Instant::now();
    for _ in 0..6 {
        let missing = bench.request(method, &path).send().await;
        assert_eq!(missing.status, 404, "{missing:?}");
    }
    let asked = bench.upstream.count(Method::Read, &path);
    if start.elapsed() < NEGATIVE_TTL {
        assert_eq!(asked, 1, "{method} {tail}: {:?}", bench.upstream.summary());
    }
    bench.upstream.serve_image("team/app", "1", &image);
    let appeared = Instant::now();
    while bench.get(&path).send().await.status != 200 {
        assert!(
            appeared.elapsed() < NEGATIVE_TTL + Duration::from_secs(2),
            "{method} {tail}: not seen within the time that \"not found\" is believed"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// T-CP4: of one object, not of its neighbours.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp4_absence_is_of_one_object() {
    let bench = setup().cache("negative_ttl", "10s").start();
    let image = Image::small(2);
    let missing = Reply::oci_error(404, "MANIFEST_UNKNOWN");
    bench.upstream.on(Method::Read, "/v2/team/app/manifests/2").reply(missing.clone());
    bench.upstream.on(Method::Read, "/v2/team/other/manifests/1").reply(missing);
    bench.upstream.serve_image("team/app", "1", &image);
    for (path, status) in [
        ("/v2/team/app/manifests/2", 404),
        ("/v2/team/other/manifests/1", 404),
        ("/v2/team/app/manifests/1", 200),
    ] {
        assert_eq!(bench.get(path).send().await.status, status, "{path}");
    }
}

/// The failures that are no absence, each as often as upstream answers so to one request of ours.
fn troubles() -> Vec<(&'static str, Reply)> {
    vec![
        ("401", Reply::oci_error(401, "UNAUTHORIZED")),
        ("401 for a token", Reply::challenge("http://127.0.0.1:9/token", "s", "")),
        ("403", Reply::oci_error(403, "DENIED")),
        ("500", Reply::oci_error(500, "UNKNOWN")),
        ("502", Reply::status(502)),
        ("503", Reply::oci_error(503, "UNAVAILABLE")),
        ("504", Reply::status(504)),
        ("a timeout", Reply::ok("x").delay(Duration::from_secs(5))),
        ("a reset", Reply::reset()),
        ("a close", Reply::close_before_head()),
        ("404 that is a page", Reply::ok("<html>").header("content-type", "text/html")),
        ("a wrong manifest", Reply::ok("{}").header("content-type", media::MANIFEST)),
    ]
}

/// T-CP4: no failure but "not there" is remembered: the very next request asks, and succeeds.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp4_nothing_else_is_remembered() {
    let cases = troubles().into_iter().flat_map(|(name, reply)| {
        tails(&Image::small(3)).map(move |tail| recovers(name, reply.clone(), tail))
    });
    together(cases.collect()).await;
}

async fn recovers(name: &'static str, trouble: Reply, tail: String) {
    let bench = setup()
        .cache("negative_ttl", "1h")
        .source("timeouts", "{ connect: \"2s\", first_byte: \"1s\", stall: \"1s\" }")
        .start();
    let image = Image::small(3);
    let path = format!("/v2/team/app/{tail}");
    bench.upstream.on(Method::Read, &path).reply(trouble);
    let failed = bench.get(&path).send().await;
    assert!(matches!(failed.status, 200 | 401 | 403 | 502..=504), "{name}: {failed:?}");
    if failed.status == 200 {
        assert_refused(&failed);
    }
    succeeds_at_once(&bench, &image, &path, name).await;
}

async fn succeeds_at_once(bench: &Bench, image: &Image, path: &str, name: &str) {
    bench.upstream.serve_image("team/app", "1", image);
    let asked = bench.upstream.count(Method::Read, path);
    let answer = bench.get(path).send().await;
    assert_eq!(answer.status, 200, "{name}, {path}: {answer:?}");
    assert!(bench.upstream.count(Method::Read, path) > asked, "{name}, {path}: upstream was asked");
}

/// T-CP4: 429 is obeyed for as long as it says, and then forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp4_429_is_over_when_it_says() {
    let image = Image::small(4);
    for tail in tails(&image) {
        let bench = setup().cache("negative_ttl", "1h").start();
        let path = format!("/v2/team/app/{tail}");
        bench
            .upstream
            .on(Method::Read, &path)
            .reply(Reply::oci_error(429, "TOOMANYREQUESTS").header("retry-after", "1"));
        let limited = bench.get(&path).send().await;
        assert_eq!((limited.status, limited.header("retry-after")), (429, Some("1")), "{limited:?}");
        tokio::time::sleep(Duration::from_millis(1050)).await;
        succeeds_at_once(&bench, &image, &path, "429").await;
    }
}
