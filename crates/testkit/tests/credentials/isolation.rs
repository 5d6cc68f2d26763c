use std::time::Duration;

use entrepot_testkit::http::Response;
use entrepot_testkit::script::{Body, Image, Method, Paths, Reply, sha256};

use crate::common::Bench;

/// What an answer tells, with the digest that was asked for made unrecognisable.
fn told(answer: &Response, digest: &str) -> (u16, Vec<(String, String)>, String) {
    let mut headers = answer.head.headers.clone();
    headers.retain(|(name, _)| name != "date");
    (
        answer.status,
        headers,
        answer.text().replace(digest, "DIGEST").replace(&digest.replace(':', "-"), "TAG"),
    )
}

/// T-AZ1: that a digest is held for another repository shows in no way: not in status, headers or body, cold, or after
/// it has been asked for, or while the other repository's fill is under way.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_what_another_repository_holds_looks_like_nothing() {
    // Upstream's own word for what is not there, with and without a body, and in words of its own.
    for (name, absent) in [
        ("blob", Reply::oci_error(404, "BLOB_UNKNOWN")),
        ("manifest", Reply::oci_error(404, "MANIFEST_UNKNOWN")),
        ("name", Reply::oci_error(404, "NAME_UNKNOWN")),
        ("bare", Reply::status(404)),
        ("denied", Reply::oci_error(403, "DENIED")),
        ("unauthorized", Reply::oci_error(401, "UNAUTHORIZED")),
    ] {
        let bench = Bench::new();
        let image = Image::small(1);
        bench.upstream.serve_image("team/secret", "latest", &image);
        bench.upstream.on(Method::Any, Paths::from("/v2/team/other/*")).reply(absent);
        let unknown = sha256(b"nobody has this");
        for path in [
            "/v2/team/secret/manifests/latest".to_owned(),
            format!("/v2/team/secret/blobs/{}", image.layer_digests[0]),
        ] {
            assert_eq!(bench.get(path).send().await.status, 200);
        }
        for round in ["cold", "asked for before"] {
            for (held, kind) in [(&image.layer_digests[0], "blobs"), (&image.digest, "manifests")] {
                for how in ["GET", "HEAD", "range"] {
                    let ask = |digest: &str| {
                        let path = format!("/v2/team/other/{kind}/{digest}");
                        match how {
                            "GET" => bench.get(path),
                            "HEAD" => bench.head(path),
                            _ => bench.get(path).range("bytes=0-0"),
                        }
                    };
                    // Each pair of digests anew, or the first way of asking would answer for the others.
                    let one = ask(held).send().await;
                    let two = ask(&unknown).send().await;
                    assert!(matches!(one.status, 401 | 403 | 404), "{name}: {one:?}");
                    assert_eq!(told(&one, held), told(&two, &unknown), "{name}: {kind} by {how}, {round}");
                }
            }
            let (one, two) = (
                bench.get(format!("/v2/team/other/referrers/{}", image.digest)).send().await,
                bench.get(format!("/v2/team/other/referrers/{unknown}")).send().await,
            );
            assert_eq!(told(&one, &image.digest), told(&two, &unknown), "{name}: referrers, {round}");
        }
    }
}

/// T-AZ1: nor in each way of asking first.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_whichever_way_is_asked_first() {
    for absent in [
        Reply::oci_error(404, "NAME_UNKNOWN"),
        Reply::oci_error(404, "BLOB_UNKNOWN"),
        Reply::oci_error(403, "DENIED"),
    ] {
        let bench = Bench::new();
        bench.upstream.on(Method::Any, Paths::from("/v2/team/other/*")).reply(absent);
        for (n, how) in ["GET", "HEAD", "range"].iter().enumerate() {
            let body = Body::from(format!("held {n}").repeat(1000));
            let held = bench.upstream.serve_blob("team/secret", body);
            let warm = bench.get(format!("/v2/team/secret/blobs/{held}")).send().await;
            assert_eq!(warm.status, 200);
            let unknown = sha256(format!("unknown {n}").as_bytes());
            let ask = |digest: &str| {
                let path = format!("/v2/team/other/blobs/{digest}");
                match *how {
                    "GET" => bench.get(path),
                    "HEAD" => bench.head(path),
                    _ => bench.get(path).range("bytes=0-0"),
                }
            };
            let (one, two) = (ask(&held).send().await, ask(&unknown).send().await);
            assert_eq!(told(&one, &held), told(&two, &unknown), "by {how}");
        }
    }
}

/// T-AZ1: the time an answer takes is of one class. Every digest is asked for once, alternating between those that are
/// held for another repository and those that nobody has; upstream takes ten milliseconds for each.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_timing_tells_nothing() {
    let bench = Bench::new();
    bench
        .upstream
        .on(Method::Any, Paths::from("/v2/team/other/*"))
        .reply(Reply::oci_error(404, "BLOB_UNKNOWN").delay(Duration::from_millis(10)));
    let (mut held, mut unknown) = (Vec::new(), Vec::new());
    for n in 0..60 {
        let digest = bench.upstream.serve_blob("team/secret", format!("held {n}").repeat(100));
        let warm = bench.get(format!("/v2/team/secret/blobs/{digest}")).send().await;
        assert_eq!(warm.status, 200);
        for (times, digest) in
            [(&mut held, digest), (&mut unknown, sha256(format!("unknown {n}").as_bytes()))]
        {
            let answer = bench.get(format!("/v2/team/other/blobs/{digest}")).send().await;
            assert_eq!(answer.status, 404);
            times.push(answer.total.as_secs_f64());
        }
    }
    held.sort_by(f64::total_cmp);
    unknown.sort_by(f64::total_cmp);
    let ratio = held[held.len() / 2] / unknown[unknown.len() / 2];
    assert!((0.7..1.4).contains(&ratio), "medians differ by {ratio}");
}

/// T-AZ1, T-AZ2: what a repository has shown it goes on showing; what it has not is not opened by warming another, nor by
/// content that names the digest.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_naming_a_digest_does_not_open_it() {
    let bench = Bench::new();
    let secret = Image::small(7);
    bench.upstream.serve_image("team/secret", "latest", &secret);
    let blob = format!("/v2/team/secret/blobs/{}", secret.layer_digests[0]);
    assert_eq!(bench.get(&blob).send().await.status, 200);
    // A manifest and an index in the stranger's own repository that name the secret's layer and manifest.
    bench.upstream.serve_manifest(
        "team/other",
        "thief",
        &secret.manifest,
        entrepot_testkit::script::media::MANIFEST,
    );
    bench.upstream.serve_manifest(
        "team/other",
        "index",
        &Image::index(&[secret.clone(), Image::small(8)]),
        entrepot_testkit::script::media::INDEX,
    );
    for tag in ["thief", "index"] {
        let answer = bench.get(format!("/v2/team/other/manifests/{tag}")).send().await;
        assert_eq!(answer.status, 200);
    }
    bench.upstream.on(Method::Any, "/v2/team/other/blobs/*").reply(Reply::oci_error(404, "BLOB_UNKNOWN"));
    let stolen = format!("/v2/team/other/blobs/{}", secret.layer_digests[0]);
    for call in [bench.get(&stolen), bench.head(&stolen), bench.get(&stolen).range("bytes=0-9")] {
        assert_eq!(call.send().await.status, 404);
    }
}
