use std::time::Duration;

use entrepot_testkit::http::Response;
use entrepot_testkit::script::{Image, Method, Reply, media};

use crate::common::{Bench, assert_only_our_headers};

/// Headers that would do harm, or mean nothing, if we passed them on.
fn with_junk(reply: Reply) -> Reply {
    reply
        .header("set-cookie", "session=stolen; Path=/")
        .header("set-cookie2", "x=y")
        .header("alt-svc", "h3=\"evil.example:443\"; ma=86400")
        .header("strict-transport-security", "max-age=63072000; includeSubDomains; preload")
        .header("public-key-pins", "pin-sha256=\"x\"")
        .header("ratelimit-limit", "1;w=1")
        .header("ratelimit-remaining", "0;w=1")
        .header("docker-ratelimit-source", "10.1.2.3")
        .header("warning", format!("299 - \"{}\"", "w".repeat(10_000)))
        .header("x-cache", "HIT from nowhere")
        .header("cache-status", "evil; hit")
        .header("age", "99999999")
        .header("server", "evil/1.0")
        .header("via", "1.1 evil")
        .header("refresh", "0; url=http://evil.example")
        .header("content-security-policy", "default-src *")
        .header("access-control-allow-origin", "https://evil.example")
        .header("access-control-allow-credentials", "true")
        .header("docker-distribution-api-version", "evil/9")
        .header("link", "<http://evil.example/>; rel=\"next\"")
        .header("location", "http://evil.example/")
        .header("www-authenticate", "Bearer realm=\"http://evil.example/token\"")
        .header("proxy-authenticate", "Basic")
        .header("x-amz-meta-secret", "abc")
}

fn assert_ours(answer: &Response) {
    assert_only_our_headers(answer);
    let text = format!("{:?}", answer.head.headers);
    assert!(!text.contains("evil") && !text.contains("www") && !text.contains("10.1.2.3"), "{text}");
    assert!(answer.header("age").is_none_or(|age| age.parse::<u64>().is_ok_and(|age| age < 60)), "{text}");
    assert_eq!(answer.header("docker-distribution-api-version"), Some("registry/2.0"));
    assert_eq!(answer.header("location"), None);
}

/// T-HU6
#[tokio::test(flavor = "multi_thread")]
async fn t_hu6_only_our_own_headers_are_sent() {
    let bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "1", &image);
    let manifest = with_junk(Reply::manifest(&image.manifest, media::MANIFEST));
    bench.upstream.on(Method::Read, "/v2/team/app/manifests/1").reply(manifest);
    let blob_path = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
    let (body, digest) = (image.layers[0].clone(), image.layer_digests[0].clone());
    let blob = move |request: &_| with_junk(Reply::blob(request, &digest, body.clone()));
    bench.upstream.on(Method::Read, &blob_path).reply_with(blob);
    // Cold, then warm.
    for _ in 0..2 {
        for path in ["/v2/team/app/manifests/1", &blob_path] {
            for answer in [bench.get(path).send().await, bench.head(path).send().await] {
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_ours(&answer);
            }
        }
    }
}

/// T-HU6: heads that break HTTP, or try to. Right content or 502; never a header of theirs.
#[tokio::test(flavor = "multi_thread")]
async fn t_hu6_broken_and_swollen_heads() {
    let image = Image::small(2);
    let base = || Reply::manifest(&image.manifest, media::MANIFEST);
    let raw = |extra: &str| {
        let body = String::from_utf8_lossy(&image.manifest).into_owned();
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {}\r\ndocker-content-digest: {}\r\n{extra}\r\n\r\n{body}",
            media::MANIFEST,
            image.digest
        ))
    };
    let length = format!("content-length: {}", image.manifest.len());
    let cases: Vec<(&str, Reply)> = vec![
        ("CR LF in a value", base().header("x-evil", "a\r\nx-evil2: b")),
        ("a bare LF in a value", base().header("x-evil", "a\nx-evil2: b")),
        ("a bare CR in a value", base().header("x-evil", "a\rx-evil2: b")),
        ("a NUL in a value", base().header("x-evil", "a\0b")),
        ("a space before the colon", base().header("x-evil ", "a")),
        ("a name that is no token", base().header("x(evil", "a")),
        ("an empty name", base().header("", "a")),
        ("a folded value", base().header("x-evil", "a\r\n folded")),
        ("10 000 headers", base().many_headers(10_000)),
        ("a header of 1 MiB", base().header("x-evil", "e".repeat(1 << 20))),
        ("1xx without end", base().informational(20_000)),
        ("connection names our header", base().header("connection", "close, Docker-Content-Digest")),
        ("chunked and identity", raw(&format!("transfer-encoding: chunked, identity\r\n{length}"))),
        ("chunked twice", raw("transfer-encoding: chunked\r\ntransfer-encoding: chunked")),
        ("two lengths", raw(&format!("{length}\r\ncontent-length: 5"))),
        ("a signed length", raw(&format!("content-length: +{}", image.manifest.len()))),
        (
            "another digest as well",
            base().header("docker-content-digest", format!("sha256:{}", "0".repeat(64))),
        ),
        (
            "a digest that is none",
            base().without("docker-content-digest").header("docker-content-digest", "sha256:evil"),
        ),
        ("two types", base().header("content-type", "text/html")),
    ];
    for (name, reply) in cases {
        let bench = Bench::new();
        let before = bench.mirror.rss_anon_kb();
        bench.upstream.on(Method::Read, "/v2/team/app/manifests/1").reply(reply.close());
        let answer = bench.get("/v2/team/app/manifests/1").limit(Duration::from_secs(30)).send().await;
        assert_only_our_headers(&answer);
        match answer.status {
            200 => {
                assert!(answer.clean_end && answer.body == image.manifest, "{name}: {answer:?}");
                assert_eq!(answer.header("docker-content-digest"), Some(image.digest.as_str()), "{name}");
                assert_eq!(answer.header("content-type"), Some(media::MANIFEST), "{name}");
            }
            status => assert_eq!(status, 502, "{name}: {answer:?}"),
        }
        let grown = bench.mirror.rss_anon_kb().saturating_sub(before);
        assert!(grown < 16 * 1024, "{name}: {grown} kB more");
    }
}
