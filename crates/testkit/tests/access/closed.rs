//! A mirror for known clients only.

use entrepot_testkit::script::Image;

use super::guarded::{
    CLIENT_TOKEN, OPEN, assert_private, assert_shut_out, basic, one_token, serve, setup, start, ways,
};
use crate::common::Bench;

/// T-AZ5: with `anonymous: false` everything is 401, what anyone may see upstream and the ping included.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_without_anonymous_clients_everything_is_401() {
    let setup = setup().source("public", "[\"open/*\"]").proxy("access", one_token(", anonymous: false"));
    let bench = start(setup);
    let image = Image::small(1);
    let mut paths = serve(&bench.upstream, OPEN, &image);
    paths.extend(["/v2/", "/v2/_catalog"].map(str::to_owned));
    shut_out(&bench, &paths, &image, "cold").await;
    assert_eq!(bench.upstream.requests().len(), 0, "{:?}", bench.upstream.summary());

    let credential = basic("any", CLIENT_TOKEN);
    for path in &paths[..6] {
        assert_private(&bench.get(path).basic(&credential).send().await, path);
    }
    assert_eq!(bench.get("/v2/").basic(&credential).send().await.status, 200);
    let asked = bench.upstream.requests().len();
    shut_out(&bench, &paths, &image, "warm").await;
    assert_eq!(bench.upstream.requests().len(), asked);
}

/// T-AZ5: also where the source has no credentials.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_without_anonymous_clients_public_sources_are_closed_too() {
    let bench = Bench::setup().proxy("access", one_token(", anonymous: false")).start();
    let image = Image::small(2);
    let paths = serve(&bench.upstream, "team/app", &image);
    shut_out(&bench, &paths, &image, "cold").await;
    for path in &paths {
        let answer = bench.get(path).basic(&basic("any", CLIENT_TOKEN)).send().await;
        assert_private(&answer, path);
    }
    shut_out(&bench, &paths, &image, "warm").await;
}

async fn shut_out(bench: &Bench, paths: &[String], image: &Image, round: &str) {
    for path in paths {
        for (way, call) in ways(bench, path, &image.digest) {
            // A name before or after `/v2` makes another path of the ping, and there is none such.
            if path.matches('/').count() <= 2 && way.starts_with("by ") {
                continue;
            }
            assert_shut_out(bench, &call.send().await, &format!("{round}, {way}, {path}"));
        }
    }
    for call in [
        bench.get("/token?service=x&scope=repository:open/app:pull"),
        bench.get("/token").basic(&basic("ci", "wrong")),
        bench.get("/token").basic(&basic("ci", "")),
        bench
            .request("POST", "/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body("grant_type=password&username=ci&password=wrong"),
    ] {
        assert_shut_out(bench, &call.send().await, "no token for strangers");
    }
}
