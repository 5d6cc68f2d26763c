use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, media, sha256, sha512};
use serde_json::json;

use crate::common::{Bench, assert_error};

const HEX: &str = "4a4fee6b1bd2ba2b4a3b5d7fcd6b5a3f5b5f3f2ab71cb5d6d1f0a3a1c1c1f0ff";

/// Digests that are none, in ASCII.
fn bad_digests() -> Vec<String> {
    vec![
        format!("sha256:{}", &HEX[1..]),
        format!("sha256:{HEX}0"),
        format!("sha256:{HEX}{HEX}"),
        "sha256:".into(),
        format!("sha256:{}", HEX.to_uppercase()),
        format!("SHA256:{HEX}"),
        format!("sha256:{}g", &HEX[1..]),
        format!("sha256:{}-", &HEX[1..]),
        format!("sha1:{}", &HEX[..40]),
        format!("md5:{}", &HEX[..32]),
        format!("blake3:{HEX}"),
        format!("sha257:{HEX}"),
        format!("sha512:{HEX}"),
        format!("sha256+b64:{HEX}"),
        format!("sha256:sha256:{HEX}"),
        format!(":{HEX}"),
        format!("sha256:0x{}", &HEX[2..]),
        format!("sha256:{}", "a".repeat(10_000)),
        format!("{}:{HEX}", "a".repeat(10_000)),
    ]
}

/// T-BI3
#[tokio::test(flavor = "multi_thread")]
async fn t_bi3_bad_digests_in_the_path() {
    let bench = Bench::new();
    for digest in bad_digests() {
        for route in ["blobs", "manifests", "referrers"] {
            let answer = bench.get(format!("/v2/team/app/{route}/{digest}")).send().await;
            assert_error(&answer, 400, "DIGEST_INVALID");
            assert_eq!(
                bench.head(format!("/v2/team/app/{route}/{digest}")).send().await.status,
                400,
                "{route} {digest:.90}"
            );
        }
    }
    // Without a colon it is no digest at all; on the manifests path it would be a tag, and a good one.
    for route in ["blobs", "referrers"] {
        for digest in [format!("sha256-{HEX}"), HEX.to_owned(), "latest".to_owned()] {
            assert_error(
                &bench.get(format!("/v2/team/app/{route}/{digest}")).send().await,
                400,
                "DIGEST_INVALID",
            );
        }
    }
    // Digits that are none in ASCII, escaped and bare.
    for digit in ["%D9%A1", "\u{661}", "%EF%BC%91"] {
        let answer = bench.get(format!("/v2/team/app/blobs/sha256:{digit}{}", &HEX[1..])).send().await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert!(bench.upstream.requests().is_empty(), "{:?}", bench.upstream.summary());
}

/// T-BI3
#[tokio::test(flavor = "multi_thread")]
async fn t_bi3_bad_digests_in_descriptors() {
    let bench = Bench::new();
    let good = json!({"mediaType": media::LAYER, "digest": sha256(b"layer"), "size": 5});
    let config = json!({"mediaType": media::CONFIG, "digest": sha256(b"{}"), "size": 2});
    let mut bad = bad_digests();
    bad.extend([
        format!("sha256-{HEX}"),
        format!("sha256:\u{661}{}", &HEX[1..]),
        format!(" sha256:{HEX}"),
        String::new(),
    ]);
    let mut tag = 0;
    for digest in bad {
        let broken = json!({"mediaType": media::LAYER, "digest": digest, "size": 5});
        let manifest = |config: &_, layers: &_, subject: Option<&_>| {
            let mut text =
                json!({"schemaVersion": 2, "mediaType": media::MANIFEST, "config": config, "layers": layers});
            if let Some(subject) = subject {
                text["subject"] = serde_json::Value::clone(subject);
            }
            text
        };
        for (document, media_type) in [
            (manifest(&broken, &json!([good]), None), media::MANIFEST),
            (manifest(&config, &json!([good, broken]), None), media::MANIFEST),
            (manifest(&config, &json!([good]), Some(&broken)), media::MANIFEST),
            (
                json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": [good, broken]}),
                media::INDEX,
            ),
        ] {
            tag += 1;
            let bytes = document.to_string().into_bytes();
            bench.upstream.serve_manifest("team/app", &format!("t{tag}"), &bytes, media_type);
            let answer = bench.get(format!("/v2/team/app/manifests/t{tag}")).send().await;
            assert_eq!(answer.status, 502, "{digest:.90}: {answer:?}");
            assert_eq!(answer.error_code(), "MANIFEST_INVALID", "{digest:.90}");
        }
    }
    bench.assert_nothing_stored();
}

/// T-BI3: SHA-512 works from end to end, or is refused everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi3_sha512_is_all_or_nothing() {
    let bench = Bench::new();
    let layer = Body::from(Pattern::new(512, 70_000));
    let bytes = layer.slice(0..70_000);
    let digest = sha512(&bytes);
    bench.upstream.serve_blob_as("team/app", &digest, layer);
    let config = Image::small(1).config;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media::MANIFEST,
        "config": {"mediaType": media::CONFIG, "digest": sha512(&config), "size": config.len()},
        "layers": [{"mediaType": media::LAYER, "digest": digest, "size": 70_000}],
    })
    .to_string()
    .into_bytes();
    let manifest_digest = sha512(&manifest);
    for reference in ["1", manifest_digest.as_str()] {
        let reply =
            Reply::manifest(&manifest, media::MANIFEST).without("docker-content-digest").without("etag");
        let reply = reply.header("docker-content-digest", &manifest_digest);
        bench.upstream.on(Method::Read, format!("/v2/team/app/manifests/{reference}")).reply(reply);
    }
    let blob = bench.get(format!("/v2/team/app/blobs/{digest}")).send().await;
    let by_digest = bench.get(format!("/v2/team/app/manifests/{manifest_digest}")).send().await;
    assert_eq!(
        blob.status, by_digest.status,
        "the same verdict for blobs and manifests: {blob:?} {by_digest:?}"
    );
    if blob.status == 400 {
        assert_error(&blob, 400, "DIGEST_INVALID");
        return;
    }
    assert_eq!((blob.status, blob.clean_end, blob.body == bytes), (200, true, true), "{blob:?}");
    assert_eq!((by_digest.status, by_digest.body == manifest), (200, true), "{by_digest:?}");
    assert_eq!(by_digest.header("docker-content-digest"), Some(manifest_digest.as_str()));
    let by_tag = bench.get("/v2/team/app/manifests/1").send().await;
    assert_eq!((by_tag.status, by_tag.body == manifest), (200, true), "{by_tag:?}");
    // Warm, and never believed without a look: another blob under a SHA-512 digest is refused.
    let warm = bench.get(format!("/v2/team/app/blobs/{digest}")).send().await;
    assert_eq!((warm.status, warm.body == bytes), (200, true));
    let wrong = sha512(b"something else");
    bench.upstream.serve_blob_as("team/app", &wrong, "not that");
    crate::common::assert_refused(&bench.get(format!("/v2/team/app/blobs/{wrong}")).send_or_broken().await);
}
