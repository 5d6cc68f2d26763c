use super::*;
use crate::http::{self, get, head};

#[tokio::test]
async fn serves_content_and_records_requests() {
    let upstream = Upstream::start();
    let image = Image::small(1);
    upstream.serve_image("library/app", "1.0", &image);
    let by_tag = get(format!("{}/v2/library/app/manifests/1.0", upstream.url())).send().await;
    assert_eq!((by_tag.status, by_tag.digest.as_str()), (200, image.digest.as_str()));
    assert!(by_tag.clean_end);
    let blob = format!("{}/v2/library/app/blobs/{}", upstream.url(), image.layer_digests[0]);
    let part = get(&blob).range("bytes=10-19").header("authorization", "Bearer x").send().await;
    assert_eq!((part.status, part.length), (206, 10));
    assert_eq!(part.body, image.layers[0].slice(10..20));
    let size = head(&blob).send().await;
    assert_eq!((size.status, size.length, size.header("content-length")), (200, 0, Some("40001")));
    assert_eq!(upstream.count(Method::Get, "/v2/library/app/blobs/*"), 1);
    assert!(upstream.saw_authorization());
    assert_eq!(upstream.requests()[1].repository(), Some("library/app"));
}

#[tokio::test]
async fn a_request_without_a_rule_fails_the_test() {
    let upstream = Upstream::start();
    assert_eq!(get(upstream.url()).send().await.status, 418);
    assert_eq!(upstream.take_unexpected(), ["GET /"]);
    upstream.assert_clean();
}

#[tokio::test]
async fn the_newest_rule_answers_until_it_is_used_up() {
    let upstream = Upstream::start();
    upstream.on(Method::Get, "/x").reply(Reply::ok("old"));
    upstream.on(Method::Get, "/x").times(1).set_state("seen").reply(Reply::status(503));
    upstream.on(Method::Get, "/x").if_state("never").reply(Reply::status(500));
    let url = format!("{}/x", upstream.url());
    assert_eq!(get(&url).send().await.status, 503);
    assert_eq!(upstream.state(), "seen");
    assert_eq!(get(&url).send().await.text(), "old");
}

#[tokio::test]
async fn faults_are_what_they_say() {
    let upstream = Upstream::start();
    let body = Body::from(Pattern::new(3, 100_000));
    let base = || Reply::ok(body.clone());
    let url = format!("{}/x", upstream.url());
    for (fault, length, clean) in [
        (base(), 100_000, true),
        (base().chunked(), 100_000, true),
        (base().until_close(), 100_000, true),
        (base().truncate_after(70_000), 70_000, false),
        (base().declared_length(100_001), 100_000, false),
        (base().declared_length(5), 5, true),
        (base().chunked_without_end(), 100_000, false),
        (base().chunked().truncate_after(9), 9, false),
        (base().informational(3), 100_000, true),
        (base().many_headers(100), 100_000, true),
    ] {
        let shown = format!("{fault:?}");
        upstream.on(Method::Get, "/x").times(1).reply(fault);
        let answer = get(&url).send().await;
        assert_eq!((answer.length, answer.clean_end), (length, clean), "{shown}");
    }
    for fault in
        [Reply::reset(), Reply::close_before_head(), Reply::garbage_head(), Reply::raw(&b"nonsense"[..])]
    {
        upstream.on(Method::Get, "/x").times(1).reply(fault);
        assert!(get(&url).limit(Duration::from_secs(2)).try_send().await.is_err());
    }
    upstream.on(Method::Get, "/x").times(1).reply(base().flip(50_000));
    let flipped = get(&url).send().await;
    let good = body.slice(0..100_000);
    let changed: Vec<usize> = (0..good.len()).filter(|&at| good[at] != flipped.body[at]).collect();
    assert_eq!(changed, [50_000]);
}

#[tokio::test]
async fn a_stall_an_endless_body_and_a_gate() {
    let upstream = Upstream::start();
    let url = format!("{}/x", upstream.url());
    upstream.on(Method::Get, "/x").times(1).reply(Reply::ok(vec![1; 100]).stall_after(40));
    let mut stream = get(&url).open().await;
    assert_eq!(stream.read(40).await.len(), 40);
    assert!(tokio::time::timeout(Duration::from_millis(100), stream.chunk()).await.is_err());
    stream.abort();

    upstream.on(Method::Get, "/x").times(1).reply(Reply::status(200).endless());
    let mut stream = get(&url).open().await;
    assert!(stream.read(3_000_000).await.len() >= 3_000_000);
    drop(stream);

    let gate = Gate::new();
    upstream.on(Method::Get, "/held").times(1).reply(Reply::ok(vec![1; 100]).hold_at(60, &gate));
    let mut stream = get(format!("{}/held", upstream.url())).open().await;
    assert_eq!(stream.read(60).await.len(), 60);
    assert_eq!(upstream.peak("/held"), 1);
    gate.open();
    assert_eq!(stream.finish().await.length, 100);
}

#[tokio::test]
async fn tokens_are_issued_counted_and_demanded() {
    let (upstream, auth) = (Upstream::start(), Upstream::start_on([127, 0, 0, 2]));
    let tokens = Tokens::new().expires_in(300);
    auth.serve_tokens("/token", &tokens);
    upstream.require_tokens(&tokens, &format!("{}/token", auth.url()), "svc");
    upstream.serve_blob("a/b", "hello");
    let url = format!("{}/v2/a/b/blobs/{}", upstream.url(), sha256(b"hello"));
    let refused = get(&url).send().await;
    assert_eq!(refused.status, 401);
    assert!(
        refused
            .header("www-authenticate")
            .is_some_and(|value| value.contains("scope=\"repository:a/b:pull\""))
    );
    let issued =
        get(format!("{}/token?service=svc&scope=repository%3Aa/b%3Apull", auth.url())).send().await.json();
    let token = issued["token"].as_str().unwrap_or_default().to_owned();
    assert_eq!(get(&url).bearer(&token).send().await.text(), "hello");
    assert_eq!(tokens.issued("repository:a/b:pull"), 1);
    tokens.revoke_all();
    assert_eq!(get(&url).bearer(&token).send().await.status, 401);
}

#[tokio::test]
async fn stops_and_resumes_on_the_same_port() {
    let upstream = Upstream::start();
    upstream.on(Method::Get, "/x").reply(Reply::ok("here"));
    let url = format!("{}/x", upstream.url());
    upstream.stop();
    assert!(get(&url).try_send().await.is_err());
    upstream.resume();
    assert_eq!(get(&url).send().await.text(), "here");
}

#[tokio::test]
async fn a_bare_connection_shows_every_answer() {
    let upstream = Upstream::start();
    upstream.on(Method::Get, "/x").reply(Reply::ok("here"));
    let two = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n";
    let raw = http::raw(upstream.address(), two, Duration::from_millis(200)).await;
    assert_eq!(raw.statuses(), [200, 200]);
    assert!(!raw.closed);
}
