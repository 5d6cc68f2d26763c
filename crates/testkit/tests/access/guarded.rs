//! A registry that shows `open/…` to anyone and the rest to its account, and clients of the mirror before it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use entrepot_testkit::http::{Call, Response};
use entrepot_testkit::script::Method;
use entrepot_testkit::script::{Image, Reply, Request, Upstream, media, sha256};
use serde_json::json;

use crate::common::{Bench, Setup};

pub(crate) const OPEN: &str = "open/app";
pub(crate) const CLOSED: &str = "closed/app";

/// What a client of the mirror calls itself and shows.
pub(crate) const CLIENT_TOKEN: &str = "canary-a-client-of-ours";
const ACCOUNT_PASSWORD: &str = "canary-the-account-upstream";
/// What the registry gives to anyone, and to its account.
const FOR_ANYONE: &str = "Bearer anyones";
const FOR_ACCOUNT: &str = "Bearer the-accounts";

pub(crate) fn basic(user: &str, password: &str) -> String {
    STANDARD.encode(format!("{user}:{password}"))
}

/// The value of `proxy.access` with one token, and more keys.
pub(crate) fn one_token(more: &str) -> String {
    let digest = sha256(CLIENT_TOKEN.as_bytes());
    let hash = digest.trim_start_matches("sha256:");
    format!("{{ tokens: [{{ name: \"ci\", sha256: \"{hash}\" }}]{more} }}")
}

pub(crate) fn registry() -> Upstream {
    let upstream = Upstream::start();
    let (realm, account) =
        (format!("{}/token", upstream.url()), format!("Basic {}", basic("us", ACCOUNT_PASSWORD)));
    upstream.on(Method::Any, "/token").reply_with(move |request| match request.header("authorization") {
        None => Reply::json(200, &json!({"token": "anyones"})),
        Some(value) if value == account => Reply::json(200, &json!({"token": "the-accounts"})),
        Some(_) => Reply::oci_error(401, "UNAUTHORIZED"),
    });
    upstream.guard(move |request| {
        let repository = request.repository()?;
        let shown = match request.header("authorization") {
            Some(FOR_ACCOUNT) => true,
            Some(FOR_ANYONE) => repository.starts_with("open/"),
            _ => false,
        };
        let scope = format!("repository:{repository}:pull");
        (!shown).then(|| Reply::challenge(&realm, "scripted", &scope))
    });
    upstream
}

/// A mirror with the registry's account.
pub(crate) fn setup() -> Setup {
    let auth = format!("{{ username: \"us\", password: \"{ACCOUNT_PASSWORD}\" }}");
    Bench::setup_over(registry()).source("auth", auth)
}

pub(crate) fn start(setup: Setup) -> Bench {
    let mut bench = setup.start();
    for secret in [ACCOUNT_PASSWORD, CLIENT_TOKEN, "the-accounts"] {
        bench.mirror.canary(secret);
    }
    bench
}

/// Serves an image with a list of tags and of referrers, and answers one path of each kind.
pub(crate) fn serve(upstream: &Upstream, repository: &str, image: &Image) -> Vec<String> {
    upstream.serve_image(repository, "1", image);
    let base = format!("/v2/{repository}");
    upstream
        .on(Method::Read, format!("{base}/tags/list"))
        .reply(Reply::json(200, &json!({"name": repository, "tags": ["1"]})));
    let referrers = format!("{base}/referrers/{}", image.digest);
    let index = Image::index(&[]);
    upstream.on(Method::Read, &referrers).reply(Reply::ok(index).header("content-type", media::INDEX));
    vec![
        format!("{base}/manifests/1"),
        format!("{base}/manifests/{}", image.digest),
        format!("{base}/blobs/{}", image.config_digest),
        format!("{base}/blobs/{}", image.layer_digests[0]),
        format!("{base}/tags/list"),
        referrers,
    ]
}

/// The requests that were made on the account, those for its token included.
pub(crate) fn on_account(upstream: &Upstream) -> Vec<String> {
    let shows = |request: &Request| request.header("authorization").is_some_and(|value| value != FOR_ANYONE);
    upstream
        .requests()
        .into_iter()
        .filter(shows)
        .map(|request| format!("{} {}", request.method, request.target))
        .collect()
}

/// How often the registry was asked, as anyone, for something in a repository (and not merely challenged).
pub(crate) fn as_anyone(upstream: &Upstream, repository: &str) -> usize {
    upstream
        .requests()
        .iter()
        .filter(|request| request.repository() == Some(repository))
        .filter(|request| request.header("authorization") == Some(FOR_ANYONE))
        .count()
}

/// Every way to ask for a path.
pub(crate) fn ways(bench: &Bench, path: &str, etag: &str) -> Vec<(&'static str, Call)> {
    let rest = path.trim_start_matches("/v2/");
    vec![
        ("GET", bench.get(path)),
        ("HEAD", bench.head(path)),
        ("a range", bench.get(path).range("bytes=0-3")),
        ("a condition", bench.get(path).header("if-none-match", format!("\"{etag}\""))),
        ("by ns", bench.get(format!("{path}?ns=up.test"))),
        ("by registry", bench.get(format!("/v2/up.test/{rest}"))),
        ("by root", bench.get(format!("/up.test/v2/{rest}"))),
        ("by the source's name", bench.get(format!("/v2/up/{rest}"))),
        ("from a page", bench.get(path).header("origin", "https://evil.example")),
        (
            "with an anonymous cookie",
            bench.get(path).header("cookie", "token=x").header("x-registry-auth", "e30="),
        ),
    ]
}

/// A refusal of ours: 401 with a challenge that leads to our own token endpoint, and nothing that a script may read.
#[track_caller]
pub(crate) fn assert_shut_out(bench: &Bench, answer: &Response, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{what}: {answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}: {answer:?}");
    let challenge = answer.header("www-authenticate").unwrap_or_default();
    let realm = format!("Bearer realm=\"{}/token\"", bench.mirror.url());
    assert!(challenge.starts_with(&realm), "{what}: our own challenge: {challenge}");
    if answer.length > 0 {
        assert_eq!(answer.error_code(), "UNAUTHORIZED", "{what}");
    }
}

/// Content for whoever shows who they are: nothing shared may keep it, and no script may read it.
#[track_caller]
pub(crate) fn assert_private(answer: &Response, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    assert_eq!(answer.header("cache-control"), Some("private, no-store"), "{what}: {answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), None, "{what}: {answer:?}");
}

/// Content for anyone.
#[track_caller]
pub(crate) fn assert_public(answer: &Response, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {answer:?}");
    let control = answer.header("cache-control").unwrap_or_default();
    assert!(control.starts_with("public, "), "{what}: {answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{what}: {answer:?}");
}
