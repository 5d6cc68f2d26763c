use std::io::Write as _;

use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, media, sha256};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::common::{Bench, assert_refused};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("compressing in memory");
    encoder.finish().expect("compressing in memory")
}

/// A thousand MiB of zeros as a thousand members of one file, and that again in a few kilobytes.
fn bomb() -> Vec<u8> {
    gzip(&gzip(&vec![0; 1 << 20]).repeat(1000))
}

/// T-HU5
#[tokio::test(flavor = "multi_thread")]
async fn t_hu5_we_ask_for_identity() {
    let bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let greedy = "zstd;q=1.0, gzip;q=0.8, br, deflate;q=0.5";
    let manifest = bench.get("/v2/team/app/manifests/1").header("accept-encoding", greedy).send().await;
    let layer = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    let blob = bench.get(&layer).header("accept-encoding", greedy).send().await;
    for answer in [&manifest, &blob] {
        assert_eq!((answer.status, answer.header("content-encoding")), (200, None), "{answer:?}");
        assert!(
            answer.header("cache-control").is_some_and(|value| value.contains("no-transform")),
            "{answer:?}"
        );
    }
    assert_eq!((manifest.digest, blob.digest), (image.digest, image.layer_digests[0].clone()));
    for request in bench.upstream.requests() {
        assert_eq!(request.header("accept-encoding"), Some("identity"), "{request:?}");
    }
}

/// T-HU5: whatever is encoded is refused, or decoded within bounds; what is kept is identity.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu5_encoded_answers() {
    let image = Image::small(2);
    let layer = image.layers[0].slice(0..image.layers[0].len().unwrap_or(0));
    type Encode = fn(&[u8]) -> Vec<u8>;
    let cases: [(&str, &str, Encode); 8] = [
        ("honest", "gzip", gzip),
        ("by its old name", "x-gzip", gzip),
        ("twice", "gzip, gzip", |bytes| gzip(&gzip(bytes))),
        ("twice, admitting to one", "gzip", |bytes| gzip(&gzip(bytes))),
        ("not at all", "gzip", <[u8]>::to_vec),
        ("as zstd, which it is not", "zstd", gzip),
        ("as br, which it is not", "br", gzip),
        ("a bomb", "gzip, gzip", |_| bomb()),
    ];
    for (name, encoding, encode) in cases {
        let bench = Bench::new();
        let before = bench.mirror.rss_anon_kb();
        let manifest_path = "/v2/team/app/manifests/1";
        let blob_path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
        let manifest = Reply::ok(encode(&image.manifest))
            .header("content-type", media::MANIFEST)
            .header("docker-content-digest", &image.digest)
            .encoding(encoding);
        bench.upstream.on(Method::Read, manifest_path).reply(manifest);
        bench.upstream.on(Method::Read, &blob_path).reply(Reply::ok(encode(&layer)).encoding(encoding));

        let answer = bench.get(manifest_path).send().await;
        if answer.status == 200 {
            assert_eq!(
                (answer.header("content-encoding"), &answer.digest),
                (None, &image.digest),
                "{name}: {answer:?}"
            );
        } else {
            assert_eq!(answer.status, 502, "{name}: {answer:?}");
        }
        for range in [None, Some("bytes=100-199")] {
            let call = range.into_iter().fold(bench.get(&blob_path), |call, range| call.range(range));
            let answer = call.send_or_broken().await;
            if answer.clean_end && answer.status < 300 {
                let wanted = if range.is_some() { &layer[100..200] } else { &layer[..] };
                assert_eq!(answer.header("content-encoding"), None, "{name}: {answer:?}");
                assert!(answer.body == wanted, "{name}, {range:?}: {answer:?}");
            } else {
                assert_refused(&answer);
            }
        }
        let grown = bench.mirror.rss_anon_kb().saturating_sub(before);
        assert!(grown < 32 * 1024, "{name}: {grown} kB more");

        bench.upstream.clear_rules();
        bench.upstream.serve_image("team/app", "1", &image);
        let good =
            bench.eventually(&blob_path, name, |answer| answer.status == 200 && answer.clean_end).await;
        assert_eq!(
            (good.header("content-encoding"), &good.digest),
            (None, &image.layer_digests[0]),
            "{name}"
        );
    }
}

/// T-HU5: an encoding that only the answer to a range has, in the middle of a resumed blob.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu5_an_encoded_rest() {
    let bench = Bench::new();
    let body = Body::from(Pattern::new(3, 400_000));
    let digest = body.sha256();
    let path = format!("/v2/team/app/blobs/{digest}");
    let (served, rest) = (digest.clone(), body.clone());
    bench.upstream.on(Method::Get, &path).reply_with(move |request| match request.range() {
        Some((first, _)) => {
            let encoded = gzip(&rest.slice(first..400_000));
            Reply::status(206)
                .header("content-range", format!("bytes {first}-399999/400000"))
                .header("etag", format!("\"{}\"", sha256(b"x")))
                .encoding("gzip")
                .body(encoded)
        }
        None => Reply::blob(request, &served, rest.clone()).truncate_after(150_000),
    });
    let answer = bench.get(&path).send_or_broken().await;
    if answer.clean_end && answer.status == 200 {
        assert_eq!(answer.digest, digest);
    } else {
        assert_refused(&answer);
        bench.assert_nothing_stored();
    }
}
