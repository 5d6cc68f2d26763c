use std::collections::BTreeSet;
use std::time::Duration;

use entrepot_testkit::script::{Image, Method, Reply, media};

use crate::common::{Bench, assert_error};

const TAG: &str = "/v2/team/app/manifests/latest";
const ALL_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

fn claims(image: &Image, claimed: &str) -> Reply {
    Reply::manifest(&image.manifest, media::MANIFEST)
        .without("docker-content-digest")
        .without("etag")
        .header("docker-content-digest", claimed)
}

/// Whatever a tag was answered with, the pull by digest that follows must hold: no link may dangle.
async fn assert_consistent(bench: &Bench, known: &[&Image], name: &str) {
    let answer = bench.get(TAG).send().await;
    if answer.status != 200 {
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        return;
    }
    let digest = answer.header("docker-content-digest").unwrap_or_default().to_owned();
    assert_eq!(digest, answer.digest, "{name}: the digest is that of the bytes");
    assert!(known.iter().any(|image| image.digest == digest), "{name}");
    let head = bench.head(TAG).send().await;
    if head.status == 200 {
        let promised = head.header("docker-content-digest").unwrap_or_default().to_owned();
        let by_digest = bench.get(format!("/v2/team/app/manifests/{promised}")).send().await;
        assert_eq!((by_digest.status, &by_digest.digest), (200, &promised), "{name}: {by_digest:?}");
    } else {
        assert_eq!(head.status, 502, "{name}: {head:?}");
    }
}

/// T-HU7
#[tokio::test(flavor = "multi_thread")]
async fn t_hu7_a_wrong_digest_header() {
    let (good, other) = (Image::small(1), Image::small(2));
    for (name, on_head, on_get) in [
        ("wrong on both", &other.digest, &other.digest),
        ("wrong on HEAD", &other.digest, &good.digest),
        ("wrong on GET", &good.digest, &other.digest),
    ] {
        let bench = Bench::new();
        bench.upstream.serve_manifest("team/app", "", &good.manifest, media::MANIFEST);
        bench.upstream.on(Method::Head, TAG).reply(claims(&good, on_head));
        bench.upstream.on(Method::Get, TAG).reply(claims(&good, on_get));
        let missing = format!("/v2/team/app/manifests/{}", other.digest);
        bench.upstream.on(Method::Read, &missing).reply(Reply::oci_error(404, "MANIFEST_UNKNOWN"));
        assert_consistent(&bench, &[&good], name).await;
        assert!(bench.upstream.count(Method::Get, TAG) <= 3, "{name}: fetched again once, not for ever");
        assert_error(&bench.get(&missing).send().await, 404, "MANIFEST_UNKNOWN");
    }
}

/// T-HU7: HEAD and GET name different manifests, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu7_head_and_get_disagree() {
    let (one, two) = (Image::small(3), Image::small(4));
    let bench = Bench::new();
    bench.upstream.on(Method::Head, TAG).reply(Reply::manifest(&one.manifest, media::MANIFEST));
    bench.upstream.on(Method::Get, TAG).reply(Reply::manifest(&two.manifest, media::MANIFEST));
    for image in [&one, &two] {
        bench.upstream.serve_manifest("team/app", "", &image.manifest, media::MANIFEST);
    }
    let head = bench.head(TAG).send().await;
    assert!(matches!(head.status, 200 | 502), "{head:?}");
    assert_consistent(&bench, &[&one, &two], "HEAD and GET disagree").await;
}

/// T-HU7: the tag moves with every request.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu7_a_tag_that_flips() {
    let images = [Image::small(5), Image::small(6)];
    let bench = Bench::setup().cache("manifest_ttl", "1s").start();
    for (state, next, image) in [("", "two", &images[0]), ("two", "", &images[1])] {
        let reply = Reply::manifest(&image.manifest, media::MANIFEST);
        bench.upstream.on(Method::Read, TAG).if_state(state).set_state(next).reply(reply);
        bench.upstream.serve_manifest("team/app", "", &image.manifest, media::MANIFEST);
    }
    for _ in 0..4 {
        assert_consistent(&bench, &[&images[0], &images[1]], "flipping").await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
    }
}

/// T-HU10
#[tokio::test(flavor = "multi_thread")]
async fn t_hu10_a_tag_that_is_an_index_then_an_image_then_gone_then_back() {
    let bench = Bench::setup()
        .cache("manifest_ttl", "1s")
        .cache("negative_ttl", "1s")
        .source("on_gone", "follow")
        .start();
    let images = [Image::small(7), Image::small(8), Image::small(9)];
    let index = Image::index(&images[..2]);
    for image in &images {
        bench.upstream.serve_image("team/app", "", image);
    }
    let mut seen = BTreeSet::new();
    for (bytes, media_type) in
        [(&index, media::INDEX), (&images[2].manifest, media::MANIFEST), (&index, media::INDEX)]
    {
        let digest = bench.upstream.serve_manifest("team/app", "latest", bytes, media_type);
        // Gone a moment ago, it may be remembered as gone for `negative_ttl`.
        bench.eventually(TAG, "the tag is there", |answer| answer.status == 200).await;
        // Within the TTL, and one revalidation that may go on behind a stale answer.
        let start = std::time::Instant::now();
        loop {
            let answer = bench.get(TAG).header("accept", ALL_TYPES).send().await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let of = answer.header("docker-content-digest").unwrap_or_default().to_owned();
            assert_eq!(of, answer.digest, "never the digest of one and the bytes of another");
            let is_index = answer.json()["manifests"].is_array();
            let expected = if is_index { media::INDEX } else { media::MANIFEST };
            assert_eq!(
                answer.header("content-type"),
                Some(expected),
                "never the type of one and the bytes of another"
            );
            if of == digest {
                break;
            }
            assert!(seen.contains(&of), "only what the tag has been: {of}");
            assert!(start.elapsed() < Duration::from_secs(4), "the tag follows upstream");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        seen.insert(digest);

        bench.upstream.on(Method::Read, TAG).reply(Reply::oci_error(404, "MANIFEST_UNKNOWN"));
        bench.eventually(TAG, "the tag has gone", |answer| answer.status == 404).await;
        bench.upstream.stop();
        for digest in &seen {
            let kept = bench.get(format!("/v2/team/app/manifests/{digest}")).send().await;
            assert_eq!((kept.status, &kept.digest), (200, digest), "an old digest keeps serving");
        }
        bench.upstream.resume();
    }
}

/// T-HU10: by default a tag that upstream has deleted is kept, and says that it is old.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu10_a_deleted_tag_is_kept_with_a_warning() {
    let bench = Bench::setup().cache("manifest_ttl", "1s").start();
    let image = Image::small(10);
    bench.upstream.serve_image("team/app", "latest", &image);
    assert_eq!(bench.get(TAG).send().await.digest, image.digest);
    bench.upstream.on(Method::Read, TAG).reply(Reply::oci_error(404, "MANIFEST_UNKNOWN"));
    let stale =
        bench.eventually(TAG, "stale with a warning", |answer| answer.header("warning").is_some()).await;
    assert_eq!((stale.status, &stale.digest), (200, &image.digest));
    assert!(stale.header("warning").is_some_and(|warning| warning.starts_with("299 - ")), "{:?}", stale.head);
    assert!(bench.upstream.count(Method::Head, TAG) >= 1, "a tag is revalidated by HEAD");
    assert_eq!(bench.upstream.count(Method::Get, TAG), 1);
}
