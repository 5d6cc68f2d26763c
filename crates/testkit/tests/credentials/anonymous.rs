use std::time::Duration;

use entrepot_testkit::http::{Call, Response};
use entrepot_testkit::script::{Image, Method, Reply, Request, Upstream};
use serde_json::json;

use crate::accounts::{access, auth, basic, client_basic, watch};
use crate::common::{Bench, Setup, assert_error};

/// An upstream where `shown/*` is for anyone and the rest for the mirror's account.
fn private_registry() -> Upstream {
    let upstream = Upstream::start();
    let wanted = format!("Basic {}", basic());
    upstream.guard(move |request| {
        let open = request.repository().is_some_and(|repository| repository.starts_with("shown/"))
            || request.header("authorization") == Some(&wanted);
        (!open).then(|| {
            Reply::oci_error(401, "UNAUTHORIZED").header("www-authenticate", "Basic realm=\"scripted\"")
        })
    });
    upstream
}

fn setup() -> Setup {
    Bench::setup_over(private_registry()).source("auth", auth()).proxy("access", access())
}

fn serve(bench: &Bench, repository: &str, image: &Image) {
    bench.upstream.serve_image(repository, "latest", image);
    bench
        .upstream
        .on(Method::Get, format!("/v2/{repository}/tags/list"))
        .reply(Reply::json(200, &json!({"name": repository, "tags": ["latest"]})));
    bench
        .upstream
        .on(Method::Get, format!("/v2/{repository}/referrers/{}", image.digest))
        .reply(Reply::ok(Image::index(&[])).header("content-type", entrepot_testkit::script::media::INDEX));
}

/// Everything that can be asked of a repository.
fn everything(bench: &Bench, repository: &str, image: &Image) -> Vec<Call> {
    let base = format!("/v2/{repository}");
    let blob = format!("{base}/blobs/{}", image.layer_digests[0]);
    vec![
        bench.get(format!("{base}/manifests/latest")),
        bench.head(format!("{base}/manifests/latest")),
        bench.get(format!("{base}/manifests/{}", image.digest)),
        bench.head(format!("{base}/manifests/{}", image.digest)),
        bench.get(&blob),
        bench.head(&blob),
        bench.get(&blob).range("bytes=0-9"),
        bench.get(format!("{base}/blobs/{}", image.config_digest)),
        bench.get(format!("{base}/tags/list")),
        bench.get(format!("{base}/referrers/{}", image.digest)),
    ]
}

fn with_account(request: &Request) -> bool {
    request.header("authorization").is_some()
}

fn assert_private(answer: &Response) {
    assert_eq!(
        answer.header("cache-control"),
        Some("private, no-store"),
        "nothing shared may keep it: {answer:?}"
    );
    assert_eq!(answer.header("access-control-allow-origin"), None, "no script may read it: {answer:?}");
}

/// T-AZ5
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_unknown_clients_get_what_anyone_gets_upstream() {
    let bench = watch(setup().start());
    let image = Image::small(1);
    serve(&bench, "shown/app", &image);
    for call in everything(&bench, "shown/app", &image) {
        let answer = call.send().await;
        assert!(matches!(answer.status, 200 | 206), "{answer:?}");
        assert_ne!(answer.header("cache-control"), Some("private, no-store"), "{answer:?}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{answer:?}");
    }
    let requests = bench.upstream.requests();
    let probes = requests.iter().filter(|request| request.method == "HEAD" && !with_account(request)).count();
    assert_eq!(probes, 1, "asked without the account once: {:?}", bench.upstream.summary());
    assert_eq!(requests[0].method, "HEAD", "HEAD costs nobody a pull");
    assert!(!with_account(&requests[0]));
}

/// T-AZ5: the rest is 401, cold and warm, whatever is asked and however often, and costs no request with our account.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_unknown_clients_get_nothing_else() {
    let bench = watch(setup().start());
    let image = Image::small(2);
    serve(&bench, "team/app", &image);
    for temperature in ["cold", "warm"] {
        bench.upstream.clear_requests();
        for call in everything(&bench, "team/app", &image) {
            let answer = call.send().await;
            assert_eq!(answer.status, 401, "{temperature}: {answer:?}");
            let challenge = answer.header("www-authenticate").unwrap_or_default();
            let ours = format!("Bearer realm=\"{}/token\"", bench.mirror.url());
            assert!(challenge.starts_with(&ours), "our challenge, not upstream's: {answer:?}");
            if !answer.body.is_empty() {
                assert_eq!(answer.error_code(), "UNAUTHORIZED");
            }
            assert_eq!(answer.header("docker-content-digest"), None, "{answer:?}");
        }
        assert!(!bench.upstream.saw_authorization(), "{:?}", bench.upstream.summary());
        assert!(bench.upstream.requests().len() <= 1, "its no is remembered: {:?}", bench.upstream.summary());
        for call in everything(&bench, "team/app", &image) {
            let answer = call.basic(&client_basic()).send().await;
            assert!(matches!(answer.status, 200 | 206), "{answer:?}");
            assert_private(&answer);
        }
    }
    // Nor when upstream is away.
    bench.upstream.stop();
    for call in everything(&bench, "team/app", &image) {
        assert_eq!(call.send().await.status, 401);
    }
}

/// T-AZ5: known by token, in both forms, and by network.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_known_clients_get_everything() {
    let image = Image::small(3);
    let bench = watch(setup().start());
    serve(&bench, "team/app", &image);
    let path = "/v2/team/app/manifests/latest";
    let traded = bench.get("/token").basic(&client_basic()).send().await;
    let token = traded.json()["token"].as_str().unwrap_or_default().to_owned();
    let nobody = bench.get("/token").send().await.json()["token"].as_str().unwrap_or_default().to_owned();
    for (call, status) in [
        (bench.get(path).basic(&client_basic()), 200),
        (bench.get(path).bearer(&token), 200),
        (bench.get(path).bearer(&nobody), 401),
        (bench.get(path).bearer(&format!("{token}x")), 401),
        (bench.get(path).basic("YTpi"), 401),
        (bench.get(path), 401),
    ] {
        let answer = call.send().await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status == 200 {
            assert_private(&answer);
        }
    }
    let bench = watch(
        Bench::setup_over(private_registry())
            .source("auth", auth())
            .proxy("access", "{ networks: [\"127.0.0.0/8\"] }")
            .start(),
    );
    serve(&bench, "team/app", &image);
    for call in everything(&bench, "team/app", &image) {
        let answer = call.send().await;
        assert!(matches!(answer.status, 200 | 206), "{answer:?}");
        assert_private(&answer);
    }
    for repository in ["team/app", "shown/app"] {
        serve(&bench, repository, &image);
        let answer = bench.get(format!("/v2/{repository}/manifests/latest")).send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

/// T-AZ5: what `public` names is had without further asking, and nothing besides.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_what_the_operator_calls_public() {
    let bench = watch(setup().source("public", "[\"open/*\"]").start());
    let image = Image::small(4);
    for repository in ["open/app", "open/deep/app", "opened/app"] {
        serve(&bench, repository, &image);
    }
    for call in everything(&bench, "open/app", &image) {
        let answer = call.send().await;
        assert!(matches!(answer.status, 200 | 206), "{answer:?}");
    }
    for repository in ["open/deep/app", "opened/app"] {
        for call in everything(&bench, repository, &image) {
            assert_eq!(call.send().await.status, 401, "{repository}");
        }
    }
}

/// T-AZ5: the start says so.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_the_start_says_so_loudly() {
    let said = |bench: &Bench| {
        bench
            .mirror
            .log()
            .lines()
            .any(|line| line.contains("NOTE") && line.contains("`up`") && line.contains("anonymous"))
    };
    let open = setup().start();
    open.mirror.wait_until(Duration::from_secs(5), "the start says so", |_| said(&open));
    let closed = Bench::setup_over(private_registry())
        .source("auth", auth())
        .proxy("access", access().replacen('{', "{ anonymous: false, ", 1))
        .start();
    assert_eq!(closed.get("/v2/").send().await.status, 401);
    assert!(!said(&closed), "{}", closed.mirror.log());
}

/// T-AZ5: while nobody can say whether a repository is public, it is not.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_doubt_opens_nothing() {
    for (name, reply) in [
        ("500", Reply::status(500)),
        ("429", Reply::status(429).header("retry-after", "1")),
        ("reset", Reply::reset()),
        ("a redirect to a page", Reply::redirect(302, "http://127.0.0.9:9/login")),
        ("200 that is a page", Reply::ok("<html>").header("content-type", "text/html")),
        ("nothing", Reply::status(204)),
    ] {
        let bench = watch(setup().start());
        let image = Image::small(5);
        serve(&bench, "team/app", &image);
        let path = "/v2/team/app/manifests/latest";
        let blob = format!("/v2/team/app/blobs/{}", image.layer_digests[0]);
        for path in [path, &blob] {
            let known = bench.get(path).basic(&client_basic()).send().await;
            assert_eq!(known.status, 200, "{name}: warm: {known:?}");
        }
        bench.upstream.clear_rules();
        bench.upstream.on(Method::Any, "/*").reply(reply);
        for path in [path, &blob] {
            let answer = bench.get(path).send().await;
            assert!(answer.status >= 400, "{name}: {answer:?}");
            assert_ne!(answer.digest, image.digest);
            assert_ne!(answer.digest, image.layer_digests[0]);
        }
    }
}

/// T-AZ5: that one object is absent for anyone says nothing of another: two strangers at once, one of whom asks for a tag
/// that is not there.
#[tokio::test(flavor = "multi_thread")]
async fn t_az5_an_absent_tag_hides_no_other() {
    let bench = watch(setup().start());
    let image = Image::small(6);
    bench
        .upstream
        .on(Method::Any, "/v2/shown/app/manifests/missing")
        .reply(Reply::oci_error(404, "MANIFEST_UNKNOWN").delay(Duration::from_millis(700)));
    serve(&bench, "shown/app", &image);
    let missing = tokio::spawn(bench.get("/v2/shown/app/manifests/missing").send());
    bench
        .upstream
        .wait_until(Duration::from_secs(5), "the first is under way", |requests| !requests.is_empty())
        .await;
    let answer = bench.get("/v2/shown/app/manifests/latest").send().await;
    assert_eq!((answer.status, &answer.digest), (200, &image.digest), "{answer:?}");
    let missing = missing.await.expect("no client panics");
    assert_error(&missing, 404, "MANIFEST_UNKNOWN");
}
