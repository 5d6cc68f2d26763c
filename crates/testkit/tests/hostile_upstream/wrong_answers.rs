use entrepot_testkit::script::{Image, Method, Reply, Upstream, media};

use crate::common::{Bench, assert_refused};

fn portal() -> Upstream {
    let portal = Upstream::start_on([127, 0, 0, 2]);
    let page = Reply::ok("<html><form action=/pay>Welcome to the airport</form></html>")
        .header("content-type", "text/html");
    portal.on(Method::Read, "/login").reply(page);
    portal
}

/// The answers that are no answers to what was asked, by name.
fn wrong_answers(portal: &Upstream, image: &Image) -> Vec<(&'static str, Reply)> {
    let partial = Reply::status(206).header("content-type", media::MANIFEST);
    vec![
        ("a page", Reply::ok("<html>It works!</html>").header("content-type", "text/html; charset=utf-8")),
        ("an error said with 200", Reply::oci_error(404, "MANIFEST_UNKNOWN").with_status(200)),
        ("a captive portal", Reply::redirect(302, format!("{}/login", portal.url()))),
        ("nothing", Reply::status(200).header("content-type", media::MANIFEST)),
        ("204", Reply::status(204)),
        ("206 that nobody asked for", {
            let half = image.manifest[..image.manifest.len() / 2].to_vec();
            let range = format!("bytes 0-{}/{}", half.len() - 1, image.manifest.len());
            partial.header("content-range", range).body(half)
        }),
        ("304 that nobody asked for", Reply::status(304).header("etag", format!("\"{}\"", image.digest))),
    ]
}

/// T-HU3
#[tokio::test(flavor = "multi_thread")]
async fn t_hu3_what_is_no_manifest_is_502_and_not_cached() {
    let (portal, image) = (portal(), Image::small(3));
    for (name, wrong) in wrong_answers(&portal, &image) {
        for reference in ["1.0", image.digest.as_str()] {
            let bench = Bench::new();
            let path = format!("/v2/team/app/manifests/{reference}");
            bench.upstream.on(Method::Read, &path).reply(wrong.clone());
            let answer = bench.get(&path).send().await;
            assert_eq!(answer.status, 502, "{name}, {reference}: {answer:?}");
            assert!(!answer.error_code().is_empty());
            bench.assert_nothing_stored();

            bench.upstream.clear_rules();
            bench.upstream.serve_image("team/app", "1.0", &image);
            let good = bench.eventually(&path, name, |answer| answer.status == 200).await;
            assert_eq!(good.body, image.manifest, "{name}, {reference}");
        }
    }
}

/// T-HU3
#[tokio::test(flavor = "multi_thread")]
async fn t_hu3_what_is_no_blob_is_refused_and_not_cached() {
    let (portal, image) = (portal(), Image::small(4));
    let path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    for (name, wrong) in wrong_answers(&portal, &image) {
        let bench = Bench::new();
        bench.upstream.on(Method::Read, &path).reply(wrong.clone());
        let answer = bench.get(&path).send_or_broken().await;
        assert_refused(&answer);
        bench.assert_nothing_stored();

        bench.upstream.clear_rules();
        bench.upstream.serve_image("team/app", "1.0", &image);
        let good = bench.eventually(&path, name, |answer| answer.status == 200 && answer.clean_end).await;
        assert_eq!(good.digest, image.layer_digests[0], "{name}");
    }
}
