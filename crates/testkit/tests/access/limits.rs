//! The mirror's own limit on its clients.

use std::time::Duration;

use entrepot_testkit::http::{self, Response, parallel};
use entrepot_testkit::script::Image;

use crate::common::{Bench, Setup};

pub(crate) const TAG: &str = "/v2/team/app/manifests/1";

/// Behind a proxy that is believed, so that each test has clients of its own: the harness asks too, from loopback.
pub(crate) fn limited(rate: &str, burst: u32) -> Setup {
    Bench::setup()
        .proxy("rate_limit", format!("{{ anonymous: \"{rate}\", burst: {burst} }}"))
        .proxy("trusted_proxies", "[\"127.0.0.1/32\", \"::1/128\"]")
}

/// A limit that gives nothing back within a test.
pub(crate) async fn warmed(setup: Setup) -> (Bench, Image) {
    let bench = setup.start();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    for path in [TAG.to_owned(), blob(&image)] {
        let warm = bench.get(path).header("x-forwarded-for", "203.0.113.254").send().await;
        assert_eq!(warm.status, 200, "{warm:?}");
    }
    (bench, image)
}

pub(crate) fn blob(image: &Image) -> String {
    format!("/v2/team/app/blobs/{}", image.layer_digests[0])
}

/// How many of so many requests for a tag pass.
pub(crate) async fn pulls(bench: &Bench, client: &str, n: usize) -> usize {
    let mut passed = 0;
    for _ in 0..n {
        let answer = bench.get(TAG).header("x-forwarded-for", client).send().await;
        passed += usize::from(answer.status == 200);
        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
    }
    passed
}

#[track_caller]
fn assert_limited(answer: &Response, what: &str) -> u64 {
    assert_eq!(answer.status, 429, "{what}: {answer:?}");
    if answer.length > 0 {
        assert_eq!(answer.error_code(), "TOOMANYREQUESTS", "{what}");
    }
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
    let after = answer.header("retry-after").expect("a Retry-After");
    let seconds: u64 = after.parse().expect("whole seconds");
    assert!(seconds >= 1, "{what}: {after}");
    seconds
}

fn number(answer: &Response, name: &str) -> u64 {
    let text = answer.header(name).unwrap_or_else(|| panic!("{name}: {answer:?}"));
    let count = text.split(';').next().unwrap_or_default();
    count.parse().unwrap_or_else(|_| panic!("{name}: {text}"))
}

/// T-RL2: 64 threads on one key, two keys at the same time: each passes exactly its burst, of pulls and of all requests.
#[test]
fn t_rl2_threads_that_hammer_one_key_pass_exactly_the_burst() {
    const BURST: usize = 37;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (bench, image) = runtime.block_on(warmed(limited("1/d", BURST as u32)));
    for (kind, path, limit) in [("pulls", TAG.to_owned(), BURST), ("all requests", blob(&image), BURST * 10)]
    {
        let url = bench.url(&path);
        let each = limit * 2 / 32 + 2;
        let threads: Vec<_> = (0..64)
            .map(|thread| {
                let url = url.clone();
                let address = format!("198.51.100.{}", 1 + thread % 2 + 10 * usize::from(kind == "pulls"));
                std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime");
                    runtime.block_on(async {
                        let mut passed = 0;
                        for _ in 0..each {
                            let answer = http::get(&url).header("x-forwarded-for", &address).send().await;
                            assert!(matches!(answer.status, 200 | 429), "{answer:?}");
                            passed += usize::from(answer.status == 200);
                        }
                        (address, passed)
                    })
                })
            })
            .collect();
        let mut passed = std::collections::BTreeMap::<String, usize>::new();
        for thread in threads {
            let (address, count) = thread.join().expect("a client that does not panic");
            *passed.entry(address).or_default() += count;
        }
        let counts: Vec<usize> = passed.values().copied().collect();
        assert_eq!(counts, [limit, limit], "{kind}");
    }
}

/// T-RL6: what a refusal looks like, and that waiting as long as it says is enough.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl6_a_refusal_says_when_to_come_back_and_means_it() {
    // One every two seconds.
    let (bench, _) = warmed(limited("30/min", 2)).await;
    let ask = || bench.get(TAG).header("x-forwarded-for", "192.0.2.1").send();
    let (first, second) = (ask().await, ask().await);
    for (answer, left) in [(&first, 1), (&second, 0)] {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(number(answer, "ratelimit-limit"), 2);
        assert_eq!(
            answer.header("ratelimit-limit"),
            Some("2;w=4"),
            "the burst, and how long it takes to earn"
        );
        assert_eq!(number(answer, "ratelimit-remaining"), left);
        assert!((1..=4).contains(&number(answer, "ratelimit-reset")));
    }
    for _ in 0..2 {
        let refused = ask().await;
        let seconds = assert_limited(&refused, "the third");
        assert!(seconds <= 2, "one is earned in two seconds: {seconds}");
        assert_eq!(number(&refused, "ratelimit-limit"), 2);
        assert_eq!(number(&refused, "ratelimit-remaining"), 0);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let passed = ask().await;
        assert_eq!(passed.status, 200, "after waiting for as long as told: {passed:?}");
    }
    assert!(bench.mirror.metric("entrepot_limited_total", &[]) >= 2.0 || bench.counted("limited") >= 2.0);
}

/// T-RL6: as at Docker Hub, HEAD and blobs are no pulls; but all requests together are bounded.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl6_only_pulls_are_pulls_and_all_is_bounded() {
    const BURST: usize = 3;
    let (bench, image) = warmed(limited("1/d", BURST as u32)).await;
    let client = "192.0.2.2";
    let by = |method: &str, path: &str| bench.request(method, path).header("x-forwarded-for", client).send();
    let free =
        [("HEAD", TAG.to_owned()), ("HEAD", blob(&image)), ("GET", blob(&image)), ("GET", "/v2/".to_owned())];
    let mut sent = 0;
    for _ in 0..4 {
        for (method, path) in &free {
            let answer = by(method, path).await;
            assert_eq!(answer.status, 200, "{method} {path} is no pull: {answer:?}");
            sent += 1;
        }
    }
    assert_eq!(pulls(&bench, client, BURST).await, BURST, "no pull has been spent");
    sent += BURST;
    let refused = by("GET", &format!("/v2/team/app/manifests/{}", image.digest)).await;
    assert_limited(&refused, "a digest is a pull too");
    sent += 1;
    let after_refusal = by("GET", &blob(&image)).await;
    assert_eq!(after_refusal.status, 200, "layers of what was pulled still come: {after_refusal:?}");
    sent += 1;
    // The rest of the tenfold, in requests of any fate.
    for n in sent..BURST * 10 {
        let path =
            ["/v2/team/app/manifests/..", "/v2/_catalog", "/nonsense", "/v2/unknown.example/app/tags/list"]
                [n % 4];
        let answer = by("GET", path).await;
        assert!(matches!(answer.status, 400 | 404), "{path}: {answer:?}");
    }
    for (method, path) in free.iter().chain([
        &("GET", "/nonsense".to_owned()),
        &("DELETE", TAG.to_owned()),
        &("GET", "/token".to_owned()),
    ]) {
        assert_limited(&by(method, path).await, &format!("{method} {path}, of all requests"));
    }
    assert_eq!(pulls(&bench, "192.0.2.3", 1).await, 1, "others are not touched");
}

/// T-RL6: a client that retries at once, as containerd does, is not kept out longer for it, and costs upstream nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl6_impatience_neither_hurts_nor_helps() {
    let (bench, _) = warmed(limited("30/min", 1)).await;
    assert_eq!(pulls(&bench, "192.0.2.4", 1).await, 1);
    let asked = bench.upstream.requests().len();
    let url = bench.url(TAG);
    let start = std::time::Instant::now();
    let answers = parallel(5, |_| http::get(&url).header("x-forwarded-for", "192.0.2.4").send()).await;
    let longest = answers.iter().map(|answer| assert_limited(answer, "at once")).max().unwrap_or_default();
    assert!(longest <= 2, "{longest}");
    tokio::time::sleep(
        Duration::from_secs(longest).saturating_sub(start.elapsed()) + Duration::from_millis(20),
    )
    .await;
    assert_eq!(pulls(&bench, "192.0.2.4", 1).await, 1);
    assert_eq!(bench.upstream.requests().len(), asked);
}
