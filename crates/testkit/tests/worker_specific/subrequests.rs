//! What one invocation asks of the platform.

use std::time::Duration;

use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, Tokens, Upstream, media};

use crate::common::Bench;
use crate::doors::requests;

/// The free plan allows 50.
const MOST: u64 = 45;

/// T-WK5: a registry that demands tokens and redirects from host to host, with alternates that fail before it, and a client
/// that asks for everything there is.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk5_the_worst_request_stays_below_the_limit() {
    let registry = Upstream::start();
    let hops: Vec<Upstream> = (2..7).map(|n| Upstream::start_on([127, 0, 0, n])).collect();
    let tokens = Tokens::new();
    let tokens_at = Upstream::start_on([127, 0, 0, 9]);
    tokens_at.serve_tokens("/token", &tokens);
    registry.require_tokens(&tokens, &format!("{}/token", tokens_at.url()), "scripted");
    let broken: Vec<Upstream> = (0..2).map(|_| Upstream::start()).collect();
    for upstream in &broken {
        upstream.on(Method::Any, "/*").reply(Reply::status(503));
    }
    let image = Image::of((0..4).map(|n| Body::from(Pattern::new(n, 200_000))).collect());
    registry.serve_image("team/app", "1", &image);
    let index = Image::index(std::slice::from_ref(&image));
    registry.serve_manifest("team/app", "all", &index, media::INDEX);
    for digest in image.layer_digests.iter().chain([&image.config_digest]) {
        let path = format!("/v2/team/app/blobs/{digest}");
        registry
            .on(Method::Read, &path)
            .reply(Reply::redirect(307, format!("{}/hop0/{digest}", hops[0].url())));
        for (n, hop) in hops.iter().enumerate().take(hops.len() - 1) {
            let next = format!("{}/hop{}/{digest}", hops[n + 1].url(), n + 1);
            hop.on(Method::Read, format!("/hop{n}/{digest}")).reply(Reply::redirect(302, next));
        }
    }
    let last = hops.len() - 1;
    for (digest, body) in image.layer_digests.iter().zip(&image.layers) {
        let (of, body) = (digest.clone(), body.clone());
        hops[last]
            .on(Method::Read, format!("/hop{last}/{digest}"))
            .reply_with(move |request| Reply::blob(request, &of, body.clone()));
    }
    let (of, config) = (image.config_digest.clone(), Body::from(image.config.clone()));
    hops[last]
        .on(Method::Read, format!("/hop{last}/{of}"))
        .reply_with(move |request| Reply::blob(request, &of, config.clone()));

    let alternates: Vec<String> = broken.iter().map(|upstream| format!("\"{}\"", upstream.url())).collect();
    let bench = Bench::setup_over(registry)
        .source("alternates", format!("[{}]", alternates.join(", ")))
        .cache("manifest_ttl", "1s")
        .start();
    let mut paths =
        vec!["/v2/".to_owned(), "/v2/team/app/manifests/all".into(), "/v2/team/app/manifests/1".into()];
    paths.push(format!("/v2/team/app/manifests/{}", image.digest));
    paths.extend(
        image
            .layer_digests
            .iter()
            .chain([&image.config_digest])
            .map(|digest| format!("/v2/team/app/blobs/{digest}")),
    );
    paths.extend([
        "/v2/team/app/tags/list?n=1000".to_owned(),
        format!("/v2/team/app/referrers/{}", image.digest),
    ]);
    bench.upstream.on(Method::Read, "/v2/team/app/tags/list").reply(Reply::status(503));
    let mut sent = 0;
    for round in 0..3 {
        for path in &paths {
            for range in [None, Some("bytes=1000-1999")] {
                for method in ["HEAD", "GET"] {
                    let call = bench.request(method, path);
                    let call = range.into_iter().fold(call, |call, range| call.range(range));
                    call.send_or_broken().await;
                    sent += 1;
                }
            }
        }
        if round == 1 {
            // All tokens end, and what was fresh is not.
            tokens.revoke_all();
            tokio::time::sleep(Duration::from_millis(1100)).await;
        }
    }
    let wait = Duration::from_secs(10);
    bench.mirror.edge.wait_until(wait, "a line for each", |edge| requests(&edge.log()).len() >= sent);
    let lines = requests(&bench.mirror.log());
    let worst = lines.iter().max_by_key(|line| line["subrequests"].as_u64()).expect("a line");
    let most = worst["subrequests"].as_u64().expect("a number");
    println!("the worst of {sent} requests: {most} subrequests: {worst}");
    assert!(most >= 5, "there was something to do: {worst}");
    assert!(most <= MOST, "{worst}");
    let _ = bench.upstream.take_unexpected();
}
