//! What the Worker answers besides pulls.

use std::time::Duration;

use entrepot_testkit::edge::Edge;
use entrepot_testkit::http;
use entrepot_testkit::script::{Image, Method, Reply, sha256};
use serde_json::Value;

use crate::common::{Bench, assert_error};

const TAG: &str = "/v2/team/app/manifests/1";

/// T-OP2: outside the registry's paths there is one answer, and nothing is asked of anyone.
#[tokio::test(flavor = "multi_thread")]
async fn t_op2_everything_else_is_one_constant_404() {
    let bench = Bench::new();
    let mut seen = std::collections::BTreeSet::new();
    for path in [
        "/",
        "/index.html",
        "/v1/search?q=x",
        "/_ping",
        "/search?q=busybox",
        "/r/library/busybox",
        "/proxy?url=http://hub.docker.com/",
        "/.entrepot/objects/sha256:00",
        "/.entrepot/records/00",
        "/readyz",
        "/robots.txt",
        "/favicon.ico",
        "/.well-known/acme-challenge/x",
        "/V2/",
        "/v2x/",
    ] {
        for host in [None, Some("hub.docker.com"), Some("evil.example")] {
            let call = host.into_iter().fold(bench.get(path), |call, host| call.host(host));
            let answer = call.send().await;
            assert_eq!(answer.status, 404, "{path} {host:?}: {answer:?}");
            assert!(!answer.text().contains("html"), "{answer:?}");
            seen.insert(answer.text());
        }
    }
    assert_eq!(seen.len(), 1, "one answer: {seen:?}");
    assert_eq!(bench.upstream.connections(), 0);
    let health = bench.get("/healthz").send().await;
    assert_eq!((health.status, health.text().as_str()), (200, "ok\n"));
}

/// A configuration that cannot be used serves nothing, and says nothing of itself to strangers.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_serves_nothing() {
    let edge = Edge::builder(r#"{"proxy": {"endpoint": "__ENDPOINT__", "surces": []}}"#).raw().start();
    for path in ["/v2/", TAG, "/healthz", "/token"] {
        let answer = http::get(edge.url(path)).send().await;
        assert_eq!((answer.status, answer.error_code().as_str()), (503, "UNAVAILABLE"), "{path}: {answer:?}");
        assert!(!answer.text().contains("surces"), "{answer:?}");
    }
    assert!(edge.log().contains("surces"), "the log says what is wrong:\n{}", edge.log());
}

/// Without a word on access nobody is served.
#[tokio::test(flavor = "multi_thread")]
async fn closed_unless_the_configuration_opens_it() {
    let edge = Edge::start(
        "proxy:\n  endpoint: \"__ENDPOINT__\"\n  access: { networks: [\"192.0.2.0/24\"] }\n  sources:\n    - { name: up, type: registry, url: \"http://127.0.0.1:9\", names: [\"up.test\"], insecure: true, allow_private: true }\n",
    );
    for path in ["/v2/", TAG] {
        let answer = http::get(edge.url(path)).send().await;
        assert_error(&answer, 401, "UNAUTHORIZED");
    }
}

/// Pages of other origins may read public content, and ask first whether they may.
#[tokio::test(flavor = "multi_thread")]
async fn cors_preflight_and_headers() {
    let bench = Bench::new();
    bench.upstream.serve_image("team/app", "1", &Image::small(1));
    let preflight = bench
        .request("OPTIONS", TAG)
        .header("origin", "https://page.example")
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization")
        .send()
        .await;
    assert_eq!((preflight.status, preflight.length), (204, 0), "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"), "{preflight:?}");
    let methods = preflight.header("access-control-allow-methods").unwrap_or_default();
    assert!(methods.contains("GET") && methods.contains("HEAD") && !methods.contains("PUT"), "{preflight:?}");
    // Public content needs no credentials, and no page may send any.
    let allowed = preflight.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
    assert!(allowed.contains("range") && !allowed.contains("authorization"), "{preflight:?}");
    let answer = bench.get(TAG).header("origin", "https://page.example").send().await;
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, Some("*")), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-credentials"), None);
}

/// Answers and log lines say by which configuration they were made.
#[tokio::test(flavor = "multi_thread")]
async fn the_configurations_hash_is_told() {
    let mut bench = Bench::new();
    bench.upstream.serve_image("team/app", "1", &Image::small(1));
    let mut stamps = Vec::new();
    for _ in 0..2 {
        let answer = bench.get(TAG).send().await;
        let stamp = answer.header("entrepot-config").expect("a hash").to_owned();
        assert!(stamp.len() == 12 && stamp.bytes().all(|byte| byte.is_ascii_hexdigit()), "{stamp}");
        bench.mirror.edge.wait_until(Duration::from_secs(5), "a line tells it", |edge| {
            requests(&edge.log()).iter().any(|line| line["config"] == stamp.as_str())
        });
        stamps.push(stamp);
        let changed = format!(
            "proxy:\n  endpoint: \"__ENDPOINT__\"\n  access: {{ anonymous: true }}\n  sources:\n    - {{ name: up, type: registry, url: \"{}\", insecure: true, allow_private: true, mirror: true }}\n",
            bench.upstream.url()
        );
        bench.mirror.edge.write_config(&changed);
        bench.restart();
    }
    assert_ne!(stamps[0], stamps[1], "another configuration, another hash");
}

/// The lines that speak of requests.
pub(crate) fn requests(log: &str) -> Vec<Value> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["message"] == "request").collect()
}

/// T-HC9: whatever a client writes, its request is one line of JSON.
#[tokio::test(flavor = "multi_thread")]
async fn t_hc9_one_escaped_line_for_each_request() {
    let bench = Bench::new();
    bench.upstream.serve_image("team/app", "1", &Image::small(1));
    let nasty =
        ["\"},{\"level\":\"error\"", "a\u{1b}[31mred", "\\\\\\\"", "{{7*7}}${jndi:ldap://evil}", "a\tb"];
    for text in nasty {
        bench.get(TAG).header("user-agent", text).header("traceparent", text).send().await;
        let escaped: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
        bench.get(format!("/v2/{escaped}/manifests/1")).send().await;
    }
    let sent = 2 * nasty.len();
    let wait = Duration::from_secs(5);
    bench.mirror.edge.wait_until(wait, "a line for each", |edge| requests(&edge.log()).len() >= sent);
    let log = bench.mirror.log();
    assert_eq!(requests(&log).len(), sent, "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}

/// T-RL6, T-RL9: the platform's limiter refuses in the registry's words, and says when to come back.
#[tokio::test(flavor = "multi_thread")]
async fn t_rl6_beyond_the_limit_is_429() {
    let mut setup = Bench::setup().proxy("rate_limit", "{ anonymous: \"3/min\" }");
    let edge = setup.worker().rate_limit("PULLS", 3, 60).start();
    let bench = setup.before(edge);
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let ask = |address: &str| bench.get_from(address, TAG).send();
    let mut statuses = Vec::new();
    for _ in 0..5 {
        statuses.push(ask("192.0.2.1").await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refused = ask("192.0.2.1").await;
    assert_error(&refused, 429, "TOOMANYREQUESTS");
    let after: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("a Retry-After");
    assert!((1..=60).contains(&after), "{refused:?}");
    assert_eq!(ask("192.0.2.2").await.status, 200, "others are not touched");
    let blob = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    assert_eq!(bench.get_from("192.0.2.1", &blob).send().await.status, 200, "blobs are no pulls");
    assert_eq!(ask("2001:db8::1").await.status, 200);
}

/// A secret in the address is told to nobody: not to upstream, and not to the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_secret_in_the_path_reaches_neither_log_nor_upstream() {
    const SECRET: &str = "canary-secret-in-the-path";
    let digest = sha256(SECRET.as_bytes());
    let hash = digest.trim_start_matches("sha256:");
    let access = "{ anonymous: false, secret_paths_env: \"SECRET_PATHS\" }";
    let mut bench =
        Bench::setup().proxy("access", access).env("SECRET_PATHS", format!("home:{hash}\n")).start();
    bench.mirror.canary(SECRET);
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    bench.upstream.on(Method::Read, "/v2/team/app/manifests/broken").reply(Reply::status(500));
    for path in [TAG.to_owned(), format!("/v2/team/app/blobs/{}", image.layer_digests[0])] {
        assert_eq!(bench.get(&path).send().await.status, 401, "{path}");
        for _ in 0..2 {
            let answer = bench
                .get(format!("/{SECRET}{path}"))
                .header("referer", format!("http://x/{SECRET}/"))
                .send()
                .await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert!(!format!("{:?}", answer.head.headers).contains(SECRET), "{answer:?}");
        }
    }
    // Also where something goes wrong, which is kept in KV.
    let broken = bench.get(format!("/{SECRET}/v2/team/app/manifests/broken")).send().await;
    assert_eq!(broken.status, 502, "{broken:?}");
    let wrong = bench.get("/canary-another-secret/v2/team/app/manifests/1").send().await;
    assert_eq!(wrong.status, 404, "like any name that is none: {wrong:?}");
    bench.settle();
    for request in bench.upstream.requests() {
        assert!(!format!("{request:?}").contains(SECRET), "{request:?}");
    }
    let kept = format!("{:?}", bench.mirror.edge.kv(""));
    assert!(!kept.contains(SECRET), "{kept}");
    let lines = requests(&bench.mirror.log());
    assert!(lines.iter().any(|line| line["client"] == "home"), "{lines:?}");
}
