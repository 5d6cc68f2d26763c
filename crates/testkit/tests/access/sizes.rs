//! Manifests that are wrong about the sizes of what they name.

use entrepot_testkit::http::Response;
use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, media};

use crate::common::{Bench, assert_error, assert_refused, together};

const TAG: &str = "/v2/team/app/manifests/1";
const SIZE: u64 = 50_000;

/// A manifest that gives `size` for its only layer, which has `SIZE` bytes.
fn image(size: &str) -> (Image, String) {
    let mut image = Image::of(vec![Pattern::new(7, SIZE).into()]);
    let text = String::from_utf8_lossy(&image.manifest).into_owned();
    let wrong = text.replace(&format!("\"size\":{SIZE}"), &format!("\"size\":{size}"));
    image.manifest = wrong.into_bytes();
    image.digest = entrepot_testkit::script::sha256(&image.manifest);
    let layer = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    (image, layer)
}

/// T-BI6: sizes that are none.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi6_sizes_that_are_none() {
    let bench = Bench::new();
    for size in [
        "-1",
        "-50000",
        "9223372036854775808",
        "18446744073709551616",
        "1e30",
        "5e4",
        "50000.0",
        "50000.5",
        "\"50000\"",
        "null",
        "true",
        "[50000]",
    ] {
        let (image, _) = image(size);
        bench.upstream.serve_manifest("team/app", "1", &image.manifest, media::MANIFEST);
        assert_error(&bench.get(TAG).send().await, 502, "MANIFEST_INVALID");
    }
    bench.assert_nothing_stored();
}

fn no_layer_is_stored(bench: &Bench, image: &Image) {
    let (_, hex) = image.layer_digests[0].split_once(':').expect("a digest");
    let files = bench.mirror.stored_files();
    assert!(
        !files.iter().any(|path| path.to_string_lossy().contains(hex)),
        "nothing of the layer: {files:?}"
    );
}

/// T-BI6: a size that is not the blob's.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi6_a_size_that_is_not_the_blobs() {
    for size in ["0", "1", "49999", "50001", "9223372036854775807"] {
        for framing in ["length", "chunked"] {
            let bench = Bench::new();
            let (image, layer) = image(size);
            bench.upstream.serve_image("team/app", "1", &image);
            if framing == "chunked" {
                let body: Body = image.layers[0].clone();
                bench.upstream.on(Method::Get, &layer).reply(Reply::ok(body).chunked());
            }
            assert_eq!(bench.get(TAG).send().await.status, 200, "a size may be any number");
            for round in 1..=2 {
                let answer = bench.get(&layer).send_or_broken().await;
                refused(&answer, &image, &format!("{size}, {framing}"));
                if framing == "length" {
                    assert_error(&answer, 502, "SIZE_INVALID");
                }
                assert!(
                    bench.upstream.count(Method::Get, &layer) >= round,
                    "{size}: upstream is asked each time"
                );
            }
            bench.mirror.store_hash();
            no_layer_is_stored(&bench, &image);
            if framing == "length" {
                let head = bench.head(&layer).send().await;
                assert_eq!(head.status, 502, "HEAD and GET agree: {head:?}");
            }
        }
    }
}

#[track_caller]
fn refused(answer: &Response, image: &Image, what: &str) {
    let whole = answer.clean_end && answer.digest == image.layer_digests[0];
    assert!(!whole, "{what}: not served whole: {answer:?}");
    assert_refused(answer);
}

/// T-BI6: a blob that is longer or shorter than its true description.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi6_a_blob_that_is_longer_or_shorter() {
    let mut cases = Vec::new();
    for length in [0, 1, SIZE - 1, SIZE + 1, SIZE * 3] {
        for framing in ["length", "chunked", "until close"] {
            cases.push(of_another_length(length, framing));
        }
    }
    together(cases).await;
}

async fn of_another_length(length: u64, framing: &'static str) {
    let bench = Bench::new();
    let (image, layer) = image(&SIZE.to_string());
    bench.upstream.serve_image("team/app", "1", &image);
    let body = Body::from(Pattern::new(7, length));
    let reply = Reply::ok(body).header("content-type", "application/octet-stream");
    let reply = match framing {
        "chunked" => reply.chunked(),
        "until close" => reply.until_close(),
        _ => reply,
    };
    bench.upstream.on(Method::Get, &layer).reply(reply);
    assert_eq!(bench.get(TAG).send().await.status, 200);
    for _ in 0..2 {
        let answer = bench.get(&layer).send_or_broken().await;
        refused(&answer, &image, &format!("{length}, {framing}"));
    }
    bench.mirror.store_hash();
    no_layer_is_stored(&bench, &image);
    bench.upstream.serve_image("team/app", "1", &image);
    let mended = bench
        .eventually(&layer, "upstream has mended it", |answer| answer.status == 200 && answer.clean_end)
        .await;
    assert_eq!(mended.digest, image.layer_digests[0]);
}
