//! Anonymous clients of a source with credentials.

use std::time::Duration;

use entrepot_testkit::http::{self, parallel};
use entrepot_testkit::script::{Image, Method, Reply};

use super::guarded::{
    CLIENT_TOKEN, CLOSED, OPEN, as_anyone, assert_public, assert_shut_out, basic, on_account, one_token,
    serve, setup, start, ways,
};
use crate::common::{Bench, assert_error, at_home_only};

/// T-AZ5: what anyone may see upstream, anyone gets; upstream is asked that once for each repository.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_what_upstream_shows_to_anyone() {
    let bench = start(setup());
    let (image, other) = (Image::small(1), Image::small(2));
    let mut paths = serve(&bench.upstream, OPEN, &image);
    paths.extend(serve(&bench.upstream, "open/other", &other));
    for round in ["cold", "warm"] {
        for path in &paths {
            assert_public(&bench.get(path).send().await, &format!("{round} {path}"));
            assert_public(&bench.head(path).send().await, &format!("{round} HEAD {path}"));
        }
    }
    for repository in [OPEN, "open/other"] {
        assert_eq!(
            as_anyone(&bench.upstream, repository),
            1,
            "asked as anyone once: {:?}",
            bench.upstream.summary()
        );
    }
    assert!(
        !on_account(&bench.upstream).is_empty(),
        "what anyone may have is fetched on the account, whose limits are higher"
    );
}

/// T-AZ5: many at once cost one question.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_upstream_is_asked_once_however_many_ask() {
    let bench = start(setup());
    let image = Image::small(3);
    let path = serve(&bench.upstream, OPEN, &image).remove(0);
    let url = bench.url(&path);
    let answers = parallel(32, |_| http::get(&url).send()).await;
    for answer in &answers {
        assert_eq!((answer.status, &answer.digest), (200, &image.digest), "{answer:?}");
    }
    assert_eq!(as_anyone(&bench.upstream, OPEN), 1, "{:?}", bench.upstream.summary());
}

/// T-AZ5: that one client's object is missing keeps nobody else from theirs.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_a_missing_object_says_nothing_of_its_repository() {
    let bench = start(setup());
    let image = Image::small(4);
    serve(&bench.upstream, OPEN, &image);
    bench
        .upstream
        .on(Method::Read, format!("/v2/{OPEN}/manifests/none"))
        .reply(Reply::oci_error(404, "MANIFEST_UNKNOWN").delay(Duration::from_millis(300)));
    let (none, one) =
        (bench.url(format!("/v2/{OPEN}/manifests/none")), bench.url(format!("/v2/{OPEN}/manifests/1")));
    let missing = tokio::spawn(http::get(&none).send());
    bench
        .upstream
        .wait_until(Duration::from_secs(5), "the missing one is asked for", |requests| {
            requests
                .iter()
                .any(|request| request.path.ends_with("/none") && request.header("authorization").is_some())
        })
        .await;
    let there = http::get(&one).send().await;
    assert_eq!((there.status, &there.digest), (200, &image.digest), "{there:?}");
    assert_error(&missing.await.expect("an answer"), 404, "MANIFEST_UNKNOWN");
}

/// T-AZ5, T-AZ6: all else is 401, cold and warm, and nothing is asked on the account for who is refused.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_t_az6_all_else_is_401_cold_and_warm() {
    let bench = start(setup().proxy("access", one_token("")).cache("manifest_ttl", "1s"));
    let image = Image::small(5);
    let paths = serve(&bench.upstream, CLOSED, &image);
    let shut_out = async |round: &str| {
        for path in &paths {
            for (way, call) in ways(&bench, path, &image.digest) {
                let answer = call.send().await;
                assert_shut_out(&bench, &answer, &format!("{round}, {way}, {path}"));
            }
        }
    };
    shut_out("cold").await;
    assert_eq!(on_account(&bench.upstream), Vec::<String>::new());
    assert_eq!(as_anyone(&bench.upstream, CLOSED), 1, "the verdict stands");

    for path in &paths {
        let warm = bench.get(path).basic(&basic("any", CLIENT_TOKEN)).send().await;
        assert_eq!(warm.status, 200, "{warm:?}");
    }
    let asked = bench.upstream.requests().len();
    shut_out("warm").await;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    shut_out("stale").await;
    bench.upstream.stop();
    shut_out("warm, and upstream away").await;
    bench.upstream.resume();
    assert_eq!(
        bench.upstream.requests().len(),
        asked,
        "a refusal costs upstream nothing: {:?}",
        bench.upstream.summary()
    );
}

/// T-AZ5: each route by itself, as the first that is ever asked of the repository.
#[tokio::test(flavor = "multi_thread")]
async fn t_az6_every_route_is_refused_as_the_first_of_all() {
    let bench = start(setup().proxy("access", one_token("")));
    for n in 0..6 {
        let repository = format!("closed/app{n}");
        let path = serve(&bench.upstream, &repository, &Image::small(10)).remove(n);
        assert_shut_out(&bench, &bench.get(&path).send().await, &path);
    }
    assert_eq!(on_account(&bench.upstream), Vec::<String>::new());
}

/// T-AZ5: `public` opens what it names without a question, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_what_public_names_is_for_anyone() {
    let bench = start(setup().source("public", "[\"closed/app\"]").proxy("access", one_token("")));
    let image = Image::small(6);
    for path in serve(&bench.upstream, CLOSED, &image) {
        for round in ["cold", "warm"] {
            assert_public(&bench.get(&path).send().await, &format!("{round} {path}"));
        }
    }
    assert_eq!(as_anyone(&bench.upstream, CLOSED), 0, "nobody needs to ask upstream");
    for path in serve(&bench.upstream, "closed/app2", &image) {
        assert_shut_out(&bench, &bench.get(&path).send().await, &path);
    }
    for path in serve(&bench.upstream, "closed/app/below", &image) {
        assert_shut_out(&bench, &bench.get(&path).send().await, &path);
    }
}

/// T-AZ5: what was public goes on to be served while upstream is away.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_an_outage_does_not_close_what_was_open() {
    let bench = start(setup().cache("manifest_ttl", "1s"));
    let image = Image::small(7);
    let paths = serve(&bench.upstream, OPEN, &image);
    for path in &paths {
        assert_public(&bench.get(path).send().await, path);
    }
    bench.upstream.stop();
    for wait in [0, 1100] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        for path in &paths {
            let answer = bench.get(path).send().await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        }
    }
    let unknown = bench.get("/v2/open/other/manifests/1").send().await;
    assert!(matches!(unknown.status, 502..=504), "an outage is no verdict on who may see it: {unknown:?}");
    bench.upstream.resume();
}

/// T-AZ5: the start says loudly what such a configuration means, and says nothing where it does not matter.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_the_start_says_so() {
    if at_home_only("t_az5_the_start_says_so") {
        return;
    }
    let says = |bench: &Bench| bench.mirror.log().contains("NOTE          source `up` has credentials");
    let bench = start(setup());
    bench.mirror.wait_until(Duration::from_secs(5), "the note", |_| says(&bench));
    let record = bench.mirror.log();
    assert!(
        record.lines().any(|line| line.starts_with('{') && line.contains("only public content is served")),
        "and as a record for those who collect them: {record}"
    );
    for quiet in [start(setup().proxy("access", one_token(", anonymous: false"))), Bench::new()] {
        assert_eq!(quiet.get("/healthz").send().await.status, 404, "it runs");
        assert!(!says(&quiet), "{}", quiet.mirror.log());
    }
}
