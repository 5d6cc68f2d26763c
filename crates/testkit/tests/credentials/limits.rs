use std::net::TcpListener;
use std::time::{Duration, Instant};

use entrepot_testkit::http::{self, Response};
use entrepot_testkit::script::Image;

use crate::accounts::{access, client_basic};
use crate::common::{Bench, Setup};

const TAG: &str = "/v2/team/app/manifests/latest";

async fn bench(setup: Setup, image: &Image) -> Bench {
    let bench = setup.start();
    bench.upstream.serve_image("team/app", "latest", image);
    // Known clients are not limited, so warming spends nothing of what the tests count.
    bench
}

fn limited(limit: &str) -> Setup {
    Bench::setup()
        .proxy("rate_limit", format!("{{ anonymous: \"{limit}\" }}"))
        .proxy("trusted_proxies", "[\"127.0.0.1/32\", \"::1/128\", \"10.9.0.0/16\"]")
        .proxy("access", access())
}

fn assert_limited(answer: &Response) -> u64 {
    assert_eq!(answer.status, 429, "{answer:?}");
    assert_eq!(answer.error_code(), "TOOMANYREQUESTS");
    for name in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
        assert!(answer.header(name).is_some(), "{name}: {answer:?}");
    }
    assert!(answer.header("ratelimit-remaining").is_some_and(|left| left.starts_with("0;w=")), "{answer:?}");
    let wait: u64 = answer
        .header("retry-after")
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("Retry-After in seconds: {answer:?}"));
    assert!(wait >= 1);
    wait
}

/// T-RL2: however many ask at once, no more get through than the limit allows.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl2_sixty_four_at_once() {
    let image = Image::small(1);
    let bench = bench(limited("20/d"), &image).await;
    let url = bench.url(TAG);
    let answers = http::parallel(64, move |_| {
        let url = url.clone();
        async move { http::get(url).send().await }
    })
    .await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(served, 20, "exactly");
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_limited(answer);
    }
    assert_eq!(bench.counted("limited_total{bucket=\"pulls\"}"), 44.0);
}

/// T-RL6: what is counted is what Docker Hub counts, and `Retry-After` is the truth.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl6_manifests_by_get_count_and_the_wait_is_true() {
    let image = Image::small(2);
    let bench =
        bench(limited("30/min").proxy("rate_limit", "{ anonymous: \"30/min\", burst: 3 }"), &image).await;
    for left in ["2", "1", "0"] {
        let answer = bench.get(TAG).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let remaining = answer.header("ratelimit-remaining").unwrap_or_default();
        assert!(remaining.starts_with(&format!("{left};w=")) || remaining.starts_with("1;w="), "{answer:?}");
    }
    let refused = bench.get(TAG).send().await;
    let wait = assert_limited(&refused);
    assert!(wait <= 2, "30 a minute is one every two seconds: {refused:?}");
    for n in 0..5 {
        assert_eq!(bench.head(TAG).send().await.status, 200, "HEAD is free");
        let blob = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
        assert_eq!(bench.get(blob).send().await.status, 200, "blobs are free, {n}");
    }
    let known = bench.get(TAG).basic(&client_basic()).send().await;
    assert_eq!(known.status, 200, "a known client is not limited");
    let asked = bench.upstream.requests().len();
    assert_limited(&bench.get("/v2/team/app/manifests/cold").send().await);
    assert_eq!(bench.upstream.requests().len(), asked, "a refusal costs upstream nothing");
    // A client that comes back when it was told to is served; one that knocks in between is not kept out longer.
    let start = Instant::now();
    let wait = assert_limited(&bench.get(TAG).send().await);
    while start.elapsed() < Duration::from_secs(wait) {
        let answer = bench.get(TAG).send().await;
        if answer.status == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(bench.get(TAG).send().await.status, 200, "after {wait} s");
}

/// T-RL6: the tenfold bound on requests of all kinds, those that are refused included.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl6_requests_of_all_kinds_are_bounded_too() {
    let image = Image::small(3);
    let bench = bench(limited("3/d"), &image).await;
    let mut statuses = Vec::new();
    for n in 0..40 {
        let path = match n % 3 {
            0 => "/v2/".to_owned(),
            1 => "/nonsense".to_owned(),
            _ => TAG.to_owned(),
        };
        statuses.push(bench.head(path).send().await.status);
    }
    // The mirror was asked once already, whether it had started.
    let (served, refused) = statuses.split_at(29);
    assert!(!served.contains(&429), "{statuses:?}");
    assert!(refused.iter().all(|status| *status == 429), "{statuses:?}");
}

/// T-RL5: the address is the peer's, unless the peer is a proxy that is trusted; then the right-most that is not.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl5_forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let image = Image::small(4);
    let trusting = bench(limited("1/d"), &image).await;
    // (header, what identifies the client): the second of each pair is the same client, so it is refused.
    for (first, second) in [
        ("1.1.1.1", "1.1.1.1"),
        ("9.9.9.9, 2.2.2.2", "8.8.8.8, 2.2.2.2"),
        ("9.9.9.9, 3.3.3.3, 10.9.0.1", "3.3.3.3"),
        ("4.4.4.4:1234", "4.4.4.4:9999"),
        ("[2001:db8:1:2::1]", "2001:db8:1:2:ffff::9"),
        ("2001:db8:1:3::1", "[2001:db8:1:3::2]:80"),
        ("::ffff:5.5.5.5", "5.5.5.5"),
    ] {
        let one = trusting.get(TAG).header("x-forwarded-for", first).send().await;
        assert_eq!(one.status, 200, "{first}: {one:?}");
        let two = trusting.get(TAG).header("x-forwarded-for", second).send().await;
        assert_limited(&two);
    }
    let other = trusting.get(TAG).header("x-forwarded-for", "2001:db8:1:4::1").send().await;
    assert_eq!(other.status, 200, "another /64");
    let ignored = [
        ("forwarded", "for=6.6.6.6"),
        ("x-real-ip", "6.6.6.6"),
        ("x-client-ip", "6.6.6.6"),
        ("cf-connecting-ip", "6.6.6.6"),
        ("true-client-ip", "6.6.6.6"),
    ];
    let first = trusting.get(TAG).send().await;
    assert_eq!(first.status, 200);
    for (name, value) in ignored {
        assert_limited(&trusting.get(TAG).header(name, value).send().await);
    }

    let strict = bench(limited("1/d").proxy("trusted_proxies", "[\"10.0.0.0/8\"]"), &image).await;
    assert_eq!(strict.get(TAG).send().await.status, 200);
    for spoof in ["1.1.1.1", "10.0.0.1", "2.2.2.2, 10.0.0.1", "127.0.0.1", "unknown", ""] {
        assert_limited(&strict.get(TAG).header("x-forwarded-for", spoof).send().await);
    }
    // PROXY protocol is no HTTP, and is not spoken here.
    let raw = http::raw(
        strict.mirror.address(),
        b"PROXY TCP4 7.7.7.7 127.0.0.1 1 2\r\nGET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
        Duration::from_secs(2),
    )
    .await;
    assert!(!raw.statuses().contains(&200), "{}", raw.text());
}

/// T-RL4: a client has its whole /64, and its neighbours have theirs; IPv4 is counted by address.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl4_every_address_of_a_64_is_one_client() {
    let image = Image::small(5);
    let bench = bench(limited("2/d"), &image).await;
    let ask = |address: String| bench.get(TAG).header("x-forwarded-for", address).send();
    let mut served = 0;
    for n in 0..20 {
        served += usize::from(ask(format!("2001:db8:7:7::{n:x}:1")).await.status == 200);
    }
    assert_eq!(served, 2, "one /64, one bucket");
    for n in 0..10 {
        assert_eq!(ask(format!("2001:db8:7:{:x}::1", 100 + n)).await.status, 200);
        assert_eq!(ask(format!("192.0.2.{n}")).await.status, 200);
    }
    // Many strangers neither use up memory without bound nor reset who is refused.
    let before = bench.mirror.rss_anon_kb();
    let base = bench.mirror.url();
    http::parallel(8, move |worker| {
        let base = base.clone();
        async move {
            for n in 0..250 {
                let address = format!("2001:db9:{worker:x}:{n:x}::1");
                let answer =
                    http::head(format!("{base}/v2/")).header("x-forwarded-for", address).send().await;
                assert!(matches!(answer.status, 200 | 401), "{answer:?}");
            }
        }
    })
    .await;
    assert!(bench.mirror.rss_anon_kb() < before + 32 * 1024);
    assert_limited(&ask("2001:db8:7:7::abcd".to_owned()).await);
}

/// T-RL4: over a real IPv6 connection.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl4_a_real_ipv6_peer() {
    let Ok(free) = TcpListener::bind("[::1]:0").and_then(|listener| listener.local_addr()) else {
        eprintln!("SKIPPED t_rl4_a_real_ipv6_peer: this machine has no ::1");
        return;
    };
    let image = Image::small(6);
    let bench = bench(
        limited("1/d")
            .proxy("listen", format!("[\"__LISTEN__\", \"{free}\"]"))
            .proxy("trusted_proxies", "[\"10.0.0.0/8\"]"),
        &image,
    )
    .await;
    let six = format!("http://{free}{TAG}");
    assert_eq!(http::get(&six).send().await.status, 200);
    assert_limited(&http::get(&six).send().await);
    assert_eq!(bench.get(TAG).send().await.status, 200, "127.0.0.1 is somebody else");
    assert_limited(&bench.get(TAG).send().await);
}
