use std::time::Duration;

use entrepot_testkit::http;
use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, Tokens, Upstream};
use serde_json::{Value, json};

use crate::common::{Bench, Setup, assert_error, at_home_only};

const TAG: &str = "/v2/team/app/manifests/latest";
const SCOPE: &str = "repository:team/app:pull";

/// An upstream that demands tokens, which it issues itself.
fn demanding(tokens: &Tokens) -> Setup {
    let upstream = Upstream::start();
    upstream.serve_tokens("/token", tokens);
    upstream.require_tokens(tokens, &format!("{}/token", upstream.url()), "scripted");
    Bench::setup_over(upstream)
}

/// An image of several layers, and the paths of all its objects.
fn image(seed: u64) -> (Image, Vec<String>) {
    let layers = (0..5).map(|n| Body::from(Pattern::new(seed * 10 + n, 30_000))).collect();
    let image = Image::of(layers);
    let mut paths = vec![TAG.to_owned()];
    for digest in image.layer_digests.iter().chain([&image.config_digest]) {
        paths.push(format!("/v2/team/app/blobs/{digest}"));
    }
    (image, paths)
}

/// T-UF7
#[tokio::test(flavor = "multi_thread")]
async fn t_uf7_a_token_that_ends_in_the_middle_of_a_pull() {
    if at_home_only("t_uf7_a_token_that_ends_in_the_middle_of_a_pull") {
        return;
    }
    let tokens = Tokens::new();
    let bench = demanding(&tokens).start();
    let (image, paths) = image(1);
    bench.upstream.serve_image("team/app", "latest", &image);
    for (n, path) in paths.iter().enumerate() {
        let answer = bench.get(path).send().await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        if n == 2 {
            tokens.revoke_all();
        }
    }
    assert_eq!(tokens.issued(SCOPE), 2, "one before and one after, none for each object");
}

/// T-UF7: even in the middle of a blob.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf7_a_token_that_ends_before_a_blob_is_resumed() {
    if at_home_only("t_uf7_a_token_that_ends_before_a_blob_is_resumed") {
        return;
    }
    let tokens = Tokens::new();
    let bench = demanding(&tokens).start();
    let body = Body::from(Pattern::new(7, 1 << 20));
    let digest = bench.upstream.serve_blob("team/app", body.clone());
    let path = format!("/v2/team/app/blobs/{digest}");
    let (ending, of) = (tokens.clone(), digest.clone());
    bench.upstream.on(Method::Get, &path).times(1).reply_with(move |request| {
        ending.revoke_all();
        Reply::blob(request, &of, body.clone()).truncate_after(500_000)
    });
    let answer = bench.get(&path).send().await;
    assert_eq!((answer.status, answer.digest), (200, digest), "the pull completes");
    assert_eq!(tokens.issued(SCOPE), 2);
}

/// T-UF7: whatever the token service says of the life of its tokens, and of the time of day.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf7_one_token_request_whatever_its_life() {
    let lives = [
        ("absent", json!({})),
        ("zero", json!({"expires_in": 0})),
        ("negative", json!({"expires_in": -300})),
        ("huge", json!({"expires_in": 1e18 as u64})),
        ("beyond a number", json!({"expires_in": 1e300})),
        ("a text", json!({"expires_in": "300"})),
        ("null", json!({"expires_in": null})),
        ("ten minutes behind", json!({"expires_in": 300, "issued_at": "2026-11-22T00:00:00Z"})),
        ("far ahead", json!({"expires_in": 300, "issued_at": "2099-01-01T00:00:00Z"})),
        ("no time at all", json!({"expires_in": 300, "issued_at": "yesterday"})),
    ];
    for (n, (name, life)) in (0..).zip(lives) {
        let bench = Bench::new();
        let (image, paths) = image(20 + n);
        bench.upstream.serve_image("team/app", "latest", &image);
        let mut answer: Value = life.clone();
        answer["access_token"] = json!("t0ken");
        bench
            .upstream
            .on(Method::Get, "/token")
            .reply(Reply::json(200, &answer).header("date", "Tue, 01 Jan 2030 00:00:00 GMT"));
        let realm = format!("{}/token", bench.upstream.url());
        bench.upstream.guard(move |request| {
            let granted = request.header("authorization") == Some("Bearer t0ken");
            (request.path.starts_with("/v2/") && !granted).then(|| Reply::challenge(&realm, "s", SCOPE))
        });
        for path in &paths {
            let answer = bench.get(path).send().await;
            assert_eq!(answer.status, 200, "{name}: {path}: {answer:?}");
        }
        assert_eq!(bench.upstream.count(Method::Any, "/token"), 1, "{name}");
    }
}

/// T-UF7: a token service whose clock is behind issues tokens that end sooner than it says; one that is honest has its
/// tokens renewed before they are refused.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf7_tokens_that_end_early_and_tokens_that_end_in_time() {
    let short = Duration::from_millis(300);
    for (says, lasts, refusals) in [(600, short, true), (1, Duration::from_secs(1), false)] {
        let tokens = Tokens::new().expires_in(says).lifetime(lasts);
        let bench = demanding(&tokens).start();
        let (image, paths) = image(40);
        bench.upstream.serve_image("team/app", "latest", &image);
        assert_eq!(bench.get(&paths[0]).send().await.status, 200);
        tokio::time::sleep(lasts + Duration::from_millis(200)).await;
        bench.upstream.clear_requests();
        assert_eq!(bench.get(&paths[1]).send().await.status, 200, "the pull completes");
        assert_eq!(tokens.issued(SCOPE), 2);
        let asked = bench.upstream.count(Method::Get, &paths[1]);
        assert_eq!(asked, if refusals { 2 } else { 1 }, "expires_in {says}");
    }
}

/// T-UF7: two scopes and a thousand clients at once, before anything is known of the registry.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf7_a_thousand_at_once_ask_for_one_token_for_each_scope() {
    if at_home_only("t_uf7_a_thousand_at_once_ask_for_one_token_for_each_scope") {
        return;
    }
    // Slowly, so that everyone is there before the first token is.
    let tokens = Tokens::new().delay(Duration::from_millis(500));
    let mut bench = demanding(&tokens)
        .source("timeouts", "{ connect: \"30s\", first_byte: \"30s\", stall: \"30s\" }")
        .start();
    let bodies: Vec<Body> = (0..500).map(|n| Body::from(format!("blob number {n}"))).collect();
    let mut urls = Vec::new();
    for repository in ["team/one", "team/two"] {
        for body in &bodies {
            let digest = bench.upstream.serve_blob(repository, body.clone());
            urls.push((bench.url(format!("/v2/{repository}/blobs/{digest}")), digest));
        }
    }
    pull_all(urls.clone()).await;
    let after_one = bench.mirror.rss_anon_kb();
    pull_all(urls).await;
    let grown = bench.mirror.rss_anon_kb().saturating_sub(after_one);
    assert!(grown < 32 * 1024, "the second thousand adds {grown} kB to the first");
    for repository in ["team/one", "team/two"] {
        assert_eq!(tokens.issued(&format!("repository:{repository}:pull")), 1, "{repository}");
    }
    assert_eq!(tokens.issued_in_all(), 2);
    // A thousand connections leave more with the allocator than `Bench` allows for a few; growth was looked at above.
    bench.forget_memory();
}

async fn pull_all(urls: Vec<(String, String)>) {
    let answers = http::parallel(urls.len(), move |i| {
        let (url, digest) = urls[i].clone();
        async move { (http::get(url).send().await, digest) }
    })
    .await;
    for (answer, digest) in &answers {
        assert_eq!((answer.status, &answer.digest), (200, digest), "{answer:?}");
    }
}

/// T-UF1 for the token service: its failure is upstream's, and never a 404.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf1_a_token_service_that_fails() {
    let token = json!({"token": "t0ken"});
    let replies: Vec<(&str, Reply, u16)> = vec![
        ("500", Reply::status(500), 502),
        ("503", Reply::status(503), 502),
        ("504", Reply::status(504), 504),
        ("404", Reply::status(404), 502),
        ("401", Reply::status(401), 401),
        ("403", Reply::status(403), 403),
        ("429", Reply::status(429).header("retry-after", "7"), 429),
        ("a page", Reply::ok("<html>login</html>"), 502),
        ("no token", Reply::json(200, &json!({"expires_in": 300})), 502),
        ("an empty token", Reply::json(200, &json!({"token": ""})), 502),
        ("a token with a line break", Reply::json(200, &json!({"token": "a\r\nx-evil: 1"})), 502),
        ("a token without end", Reply::status(200).endless(), 502),
        ("a redirect", Reply::redirect(302, "/elsewhere"), 502),
        ("cut", Reply::json(200, &token).truncate_after(5), 502),
        ("reset", Reply::reset(), 502),
    ];
    for (name, reply, status) in replies {
        let bench = Bench::new();
        let realm = format!("{}/token", bench.upstream.url());
        bench.upstream.on(Method::Any, "/v2/*").reply(Reply::challenge(&realm, "s", SCOPE));
        bench.upstream.on(Method::Any, "/token").reply(reply);
        let answer = bench.get(TAG).send().await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(!answer.error_code().is_empty());
        if status == 429 {
            assert_error(&answer, 429, "TOOMANYREQUESTS");
            let said: u64 =
                answer.header("retry-after").and_then(|text| text.parse().ok()).unwrap_or_default();
            assert!((1..=7).contains(&said), "{answer:?}");
        }
        bench.assert_nothing_stored();
    }
}
