//! The pulls that upstream grants us.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use entrepot_testkit::http::{self, parallel};
use entrepot_testkit::script::{Image, Method, Reply, Upstream, media};

use crate::common::Bench;

/// Counts pulls as Docker Hub does, and what it has had to refuse.
#[derive(Clone, Default)]
struct Grants {
    left: Arc<AtomicU64>,
    refused: Arc<AtomicUsize>,
}

impl Grants {
    fn of(n: u64) -> Self {
        let grants = Self::default();
        grants.left.store(n, Ordering::SeqCst);
        grants
    }

    /// Every tag and digest under `team/` is this image; a GET costs a pull of a hundred in `window` seconds.
    fn serve(&self, upstream: &Upstream, image: &Image, window: u32) {
        let (grants, image) = (self.clone(), image.clone());
        upstream
            .on(Method::Read, "/v2/team/*")
            .when(|request| request.path.contains("/manifests/"))
            .reply_with(move |request| {
                let take = |left: u64| left.checked_sub(u64::from(request.method == "GET"));
                let before = grants.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
                let reply = if before.is_ok() {
                    Reply::manifest(&image.manifest, media::MANIFEST)
                } else {
                    grants.refused.fetch_add(1, Ordering::SeqCst);
                    Reply::oci_error(429, "TOOMANYREQUESTS")
                };
                let left = grants.left.load(Ordering::SeqCst);
                reply
                    .header("ratelimit-limit", format!("100;w={window}"))
                    .header("ratelimit-remaining", format!("{left};w={window}"))
            });
    }

    fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

fn tag(n: usize) -> String {
    format!("/v2/team/app{n}/manifests/latest")
}

/// T-RL7: with little left, what is held is served stale, and upstream is not asked at all.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_held_tags_are_served_stale_when_little_is_left() {
    for left in [2, 6, 11] {
        let bench = Bench::setup().cache("manifest_ttl", "200ms").start();
        let (grants, image) = (Grants::of(left), Image::small(1));
        grants.serve(&bench.upstream, &image, 21_600);
        let first = bench.get(tag(0)).send().await;
        assert_eq!((first.status, first.header("warning")), (200, None), "{first:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
        let asked = bench.upstream.requests().len();
        for _ in 0..5 {
            for method in ["GET", "HEAD"] {
                let stale = bench.request(method, tag(0)).send().await;
                assert_eq!(stale.status, 200, "{left} left: {stale:?}");
                let warning = stale.header("warning").expect("a warning that it is stale");
                assert!(warning.starts_with("299 - ") && warning.contains("limit"), "{warning}");
                assert!(stale.header("age").is_some(), "{stale:?}");
            }
        }
        // A HEAD in the background would be one too many.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(bench.upstream.requests().len(), asked, "{left} left: {:?}", bench.upstream.summary());
    }
}

/// T-RL7: with plenty left, tags are revalidated, by HEAD, which costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_with_plenty_left_tags_are_revalidated() {
    let bench = Bench::setup().cache("manifest_ttl", "200ms").start();
    let (grants, image) = (Grants::of(90), Image::small(2));
    grants.serve(&bench.upstream, &image, 21_600);
    for _ in 0..3 {
        let answer = bench.get(tag(0)).send().await;
        assert_eq!((answer.status, answer.header("warning")), (200, None), "{answer:?}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert_eq!(bench.upstream.count(Method::Get, tag(0)), 1);
    assert!(bench.upstream.count(Method::Head, tag(0)) >= 2, "{:?}", bench.upstream.summary());
}

/// T-RL7: cold pulls take what is left and no more, however many want one; the rest hear 429 and when to come back, and
/// nothing is sent that would be refused.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_nothing_is_sent_that_would_be_refused() {
    const LEFT: u64 = 8;
    let bench = Bench::new();
    let (grants, image) = (Grants::of(LEFT), Image::small(3));
    grants.serve(&bench.upstream, &image, 21_600);
    bench.upstream.serve_blob("team/app0", image.layers[0].clone());
    assert_eq!(bench.get(tag(0)).send().await.status, 200, "the first answer tells what is left");
    let base = bench.url("");
    let answers = parallel(40, |n| http::get(format!("{base}{}", tag(n + 1))).send()).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!((answer.status, answer.error_code().as_str()), (429, "TOOMANYREQUESTS"), "{answer:?}");
        let after: u64 =
            answer.header("retry-after").and_then(|text| text.parse().ok()).expect("a Retry-After");
        assert!((1..=21_600).contains(&after), "{answer:?}");
    }
    assert_eq!((passed as u64, grants.refused()), (LEFT - 1, 0), "{:?}", bench.upstream.summary());
    let asked = bench.upstream.count(Method::Get, "/v2/team/*");
    for n in 50..60 {
        assert_eq!(bench.get(tag(n)).send().await.status, 429);
    }
    assert_eq!(bench.upstream.count(Method::Get, "/v2/team/*"), asked, "nothing more is sent");
    assert_eq!(bench.get(tag(0)).send().await.status, 200, "what is held is served");
    let blob = bench.get(format!("/v2/team/app0/blobs/{}", image.layer_digests[0])).send().await;
    assert_eq!(blob.status, 200, "blobs are no pulls: {blob:?}");
    assert_eq!(bench.head(tag(70)).send().await.status, 200, "nor is HEAD");
}

/// T-RL7: after as long as the refusal says, upstream grants pulls again and gets them.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_the_wait_is_true() {
    let bench = Bench::new();
    let (grants, image) = (Grants::of(1), Image::small(4));
    grants.serve(&bench.upstream, &image, 2);
    assert_eq!(bench.get(tag(0)).send().await.status, 200);
    let refused = bench.get(tag(1)).send().await;
    assert_eq!(refused.status, 429, "{refused:?}");
    let after: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("a Retry-After");
    assert!((1..=2).contains(&after), "{after}");
    grants.left.store(100, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(after)).await;
    let passed = bench.get(tag(1)).send().await;
    assert_eq!((passed.status, grants.refused()), (200, 0), "{passed:?}");
}

/// T-RL7: a tag that has moved upstream is not fetched with the last pulls; it is once there are more.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl7_the_reserve_is_for_what_is_not_held() {
    let bench = Bench::setup().cache("manifest_ttl", "200ms").start();
    let (grants, image, moved) = (Grants::of(4), Image::small(5), Image::small(6));
    grants.serve(&bench.upstream, &image, 3);
    assert_eq!(bench.get(tag(0)).send().await.digest, image.digest);
    grants.serve(&bench.upstream, &moved, 3);
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(bench.get(tag(0)).send().await.digest, image.digest, "what is held");
    assert_eq!(bench.get(tag(1)).send().await.digest, moved.digest, "what is not");
    grants.left.store(100, Ordering::SeqCst);
    let followed =
        bench.eventually(&tag(0), "the tag follows upstream", |answer| answer.digest == moved.digest).await;
    assert_eq!(followed.header("warning"), None, "{followed:?}");
    assert_eq!(grants.refused(), 0);
}
