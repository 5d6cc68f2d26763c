use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::access::SigningKey;
use crate::admit::{Admitted, Incoming, admit};
use crate::answer::{self, Answer};
use crate::resolve::{record_key, sample};
use crate::time::{Mono, Now, Wall};

const NOW: Now = Now { wall: Wall(1_795_358_179_000), mono: Mono(0) };
const HOST: &str = "h0st-canary-5d1f0c9a7b";
const PATH: &str = "p4th-canary-77aa01c2e9";
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Closed; `laptop` is known by a label and `builder` by a path.
fn config() -> Config {
    let mut config = sample::config_with_token();
    config.access.anonymous = false;
    let client = |name: &str, secret: &str| ClientToken {
        name: name.into(),
        sha256: Sha256::digest(secret).into(),
        forwards: false,
    };
    config.access.secret_hosts = vec![client("phone", "another-secret-of-hosts"), client("laptop", HOST)];
    config.access.secret_paths = vec![client("builder", PATH)];
    config
}

fn asked(config: &Config, method: &str, host: &str, uri: &str, authorization: Option<&str>) -> Admitted {
    let mut request = http::Request::builder().method(method).uri(uri).header("host", host);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let (head, ()) = request.body(()).unwrap().into_parts();
    admit(config, &head, "192.0.2.1".parse().unwrap(), &SigningKey::new([7; 32]), NOW)
}

fn pulled(config: &Config, host: &str, uri: &str) -> Incoming {
    match asked(config, "GET", host, uri, None) {
        Admitted::Call(call) => *call,
        other => panic!("{host}{uri}: {other:?}"),
    }
}

fn answered(config: &Config, host: &str, uri: &str, authorization: Option<&str>) -> Answer {
    match asked(config, "GET", host, uri, authorization) {
        Admitted::Answer { answer, .. } => answer,
        other => panic!("{host}{uri}: {other:?}"),
    }
}

fn under(label: &str) -> String {
    format!("{label}.mirror.example.com")
}

#[test]
fn a_secret_in_the_address_names_the_client() {
    let config = config();
    let by_path = |rest: &str| format!("/{PATH}{rest}");
    for (host, uri, client, repository) in [
        (under(HOST), "/v2/busybox/manifests/latest".to_owned(), "laptop", "library/busybox"),
        (format!("{}:8443", under(HOST)), "/v2/a/b/manifests/latest".into(), "laptop", "a/b"),
        (under(&HOST.to_uppercase()), "/v2/a/b/manifests/latest?ns=ghcr.io".into(), "laptop", "a/b"),
        (under(HOST), "/quay.io/v2/a/b/manifests/latest".into(), "laptop", "a/b"),
        ("mirror.example.com".into(), by_path("/v2/busybox/manifests/latest"), "builder", "library/busybox"),
        ("mirror.example.com".into(), by_path("/ghcr.io/v2/a/b/manifests/latest"), "builder", "a/b"),
        ("mirror.example.com".into(), by_path("/v2/quay.io/a/b/manifests/latest"), "builder", "a/b"),
        ("other.example.net".into(), by_path("/v2/a/b/manifests/latest?ns=quay.io"), "builder", "a/b"),
        (under(HOST), by_path("/v2/a/b/manifests/latest"), "laptop", "a/b"),
    ] {
        let call = pulled(&config, &host, &uri);
        assert_eq!(call.client.name().map(|name| &**name), Some(client), "{host} {uri}");
        assert_eq!(call.resolved.repository.as_str(), repository, "{host} {uri}");
        assert!(!call.presented);
    }
    for (host, uri) in [
        (under(HOST), "/v2/".to_owned()),
        ("mirror.example.com".into(), by_path("/v2")),
        ("mirror.example.com".into(), by_path("/quay/v2/")),
    ] {
        let ping = answered(&config, &host, &uri, None);
        assert_eq!(ping.status, StatusCode::OK, "{host} {uri}");
        assert!(!ping.headers.contains_key("www-authenticate"));
    }
}

/// What a client is told whose address holds something that is no secret of ours.
#[test]
fn an_unknown_secret_is_answered_like_any_unknown_name() {
    let config = config();
    let unlike = |uri: &str, host: &str| {
        let answer = answered(&config, host, uri, None);
        (answer.status, answer.headers, answer.body)
    };
    let uri = "/v2/a/b/manifests/latest";
    let stranger = unlike(uri, "stranger.example.net");
    assert_eq!(stranger.0, StatusCode::UNAUTHORIZED);
    let longer = format!("{HOST}x");
    for label in
        [&HOST[1..], &HOST[..HOST.len() - 1], &longer, PATH, "a", &"a".repeat(63), "another-secret-of-host"]
    {
        assert_eq!(unlike(uri, &under(label)), stranger, "{label}");
    }
    // Only the one label right under the endpoint's host counts.
    for host in [
        format!("{HOST}.example.com"),
        format!("{HOST}.ghcr.mirror.example.com"),
        format!("ghcr.{HOST}.mirror.example.com"),
        format!("{HOST}.mirror.example.com.evil.example"),
        format!("{HOST}mirror.example.com"),
        format!("{HOST}.mirror.example.com."),
    ] {
        assert_eq!(unlike(uri, &host), stranger, "{host}");
    }
    let unknown = unlike("/stranger/v2/a/b/manifests/latest", "mirror.example.com");
    assert_eq!(unknown.0, StatusCode::NOT_FOUND);
    for root in [&PATH[1..], &PATH.to_uppercase(), HOST, &format!("{PATH}x"), &format!("x/{PATH}")] {
        let found = unlike(&format!("/{root}/v2/a/b/manifests/latest"), "mirror.example.com");
        assert_eq!(found.0, unknown.0, "{root}");
        assert!(!String::from_utf8_lossy(&found.2).contains("canary"), "{root}");
    }
    for root in [&PATH[1..], &format!("{PATH}x"), &"b".repeat(40)] {
        assert_eq!(
            unlike(&format!("/{root}/v2/a/b/manifests/latest"), "mirror.example.com"),
            unknown,
            "{root}"
        );
    }
}

/// T-HC4: a wrong credential is refused beside a right secret, and a right one says who asks.
#[test]
fn t_hc4_a_secret_does_not_make_up_for_a_wrong_credential() {
    let config = config();
    for wrong in ["Basic Y2k6d3Jvbmc=", "Bearer x.y", "Digest x"] {
        for (host, uri) in
            [(under(HOST), "/v2/".to_owned()), ("m".into(), format!("/{PATH}/v2/a/b/tags/list"))]
        {
            let answer = answered(&config, &host, &uri, Some(wrong));
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{host} {uri} {wrong}");
        }
    }
    let Admitted::Call(call) =
        asked(&config, "GET", &under(HOST), "/v2/a/b/tags/list", Some("Basic Y2k6czNjcmV0LW9mLWNp"))
    else {
        panic!()
    };
    assert_eq!(call.client.name().map(|name| &**name), Some("ci"));
}

/// A client that is led to our token endpoint gets a token, which names nobody, and stays known by its secret.
#[test]
fn a_token_for_anyone_takes_nothing_from_a_secret() {
    let config = config();
    let key = SigningKey::new([7; 32]);
    let Admitted::Token(request) = asked(&config, "GET", &under(HOST), "/token?service=x", None) else {
        panic!()
    };
    let answer = crate::access::token_answer(&config, &request, None, &key, NOW);
    assert_eq!(answer.status, StatusCode::OK);
    let issued: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let bearer = format!("Bearer {}", issued["token"].as_str().unwrap());
    let Admitted::Call(call) = asked(&config, "GET", &under(HOST), "/v2/a/b/tags/list", Some(&bearer)) else {
        panic!()
    };
    assert_eq!(call.client.name().map(|name| &**name), Some("laptop"));
    // Anywhere else it opens nothing.
    let answer = answered(&config, "mirror.example.com", "/v2/a/b/tags/list", Some(&bearer));
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

/// T-CR8: what leaves us for anyone but this client never holds its secret.
#[test]
fn t_cr8_a_secret_reaches_no_log_key_challenge_or_upstream() {
    let config = config();
    let by_path = format!("/{PATH}/ghcr.io/v2/a/b/tags/list?n=5");
    for (host, uri) in
        [(under(HOST), "/v2/a/b/tags/list?n=5".to_owned()), ("mirror.example.com".into(), by_path)]
    {
        let call = pulled(&config, &host, &uri);
        let dumped = format!("{call:?}");
        assert!(!dumped.contains("canary"), "{dumped}");
        let resolved = &call.resolved;
        assert!(!record_key(&resolved.source, &resolved.repository, "tag", "latest").contains("canary"));
        let failure = Failure::new(Reason::UpstreamUnauthorized, "no");
        let refusal = answer::failure(&failure, &call.failure_context(&config));
        assert!(refusal.headers.contains_key("www-authenticate"));
        assert!(!format!("{:?} {:?}", refusal.headers, refusal.body).contains("canary"));
        assert!(!loggable(&config, &uri).contains("canary"));
        // Its own links lead back to where it came in.
        let link = answer::next_link(resolved, "tags/list", "/v2/a/b/tags/list?last=x").unwrap();
        assert_eq!(link, format!("{}?last=x", uri.split('?').next().unwrap()));
        pulled(&config, &host, &link);
    }
    // Asked for as a name, it would go upstream.
    for secret in [HOST, PATH] {
        for uri in [
            format!("/v2/{secret}/library/alpine/manifests/latest"),
            format!("/v2/a/{secret}/manifests/latest"),
            format!("/v2/a/x.{secret}/manifests/latest"),
            format!("/v2/a/b/manifests/{secret}"),
            format!("/{PATH}/v2/{secret}/b/manifests/latest"),
            format!("/{PATH}/{secret}/v2/a/b/manifests/latest"),
        ] {
            let answer = answered(&config, &under(HOST), &uri, None);
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{uri}");
            assert!(!String::from_utf8_lossy(&answer.body).contains("canary"));
            assert!(!loggable(&config, &uri).contains("canary"), "{uri}");
        }
    }
}

#[test]
fn what_is_logged_tells_the_rest() {
    let config = config();
    for (target, shown) in [
        (format!("/{PATH}/v2/a/b/tags/list?n=5"), "/***/v2/a/b/tags/list?n=5"),
        (format!("/{PATH}/ghcr.io/v2/"), "/***/ghcr.io/v2/"),
        (format!("/{PATH}"), "/***"),
        (format!("/{PATH}?x"), "/***?x"),
        // Nearly a secret is nearly as good.
        (format!("/{}/v2/", &PATH[1..]), "/***/v2/"),
        (format!("/%70{}/v2/", &PATH[1..]), "/***/v2/"),
        (format!("//{PATH}/v2/"), "//***/v2/"),
        (format!("/v2/{HOST}/a/manifests/{PATH}"), "/v2/***/a/manifests/***"),
        (
            format!("/token?scope=repository%3A{PATH}%2Fa%3Apull&x={}", HOST.to_uppercase()),
            "/token?scope=repository%3A***%2Fa%3Apull&x=***",
        ),
        (format!("/v2/a/blobs/{DIGEST}"), &format!("/v2/a/blobs/{DIGEST}")),
        ("/ghcr.io/v2/a/b/tags/list".into(), "/ghcr.io/v2/a/b/tags/list"),
        ("/k8s/v2/".into(), "/k8s/v2/"),
        ("/".into(), "/"),
        ("*".into(), "*"),
        ("".into(), ""),
    ] {
        assert_eq!(loggable(&config, &target), shown, "{target}");
    }
    let open = sample::config();
    assert_eq!(loggable(&open, "/anything/v2/"), "/anything/v2/");
}

proptest! {
    #[test]
    fn no_target_shows_a_secret(
        parts in prop::collection::vec(prop::sample::select(vec!["/", "?", "%2F", "%", "%4", "v2", "a", "é", "=", ".", ":", "_", HOST, PATH]), 0..12)
    ) {
        // Joined to letters on either side it is another word, which is no secret.
        let mut target = String::from("/");
        for part in parts {
            let ends = target.ends_with(|c: char| c.is_ascii_alphanumeric()) && part.starts_with(|c: char| c.is_ascii_alphanumeric());
            target.push_str(if ends { "/" } else { "" });
            target.push_str(part);
        }
        let config = config();
        let shown = loggable(&config, &target);
        prop_assert!(!shown.contains("canary"), "{target} {shown}");
    }

    #[test]
    fn no_address_panics_or_comes_in_by_chance(host in "[a-z0-9.:-]{0,40}", path in "/[ -~é]{0,60}", root in proptest::option::of("[ -~]{1,30}")) {
        let config = config();
        let path = root.as_ref().map_or(path.clone(), |root| format!("/{root}{path}"));
        let found = entrance(&config, &host, &path, root.as_deref()).unwrap();
        prop_assert!(found.client.is_none() && found.secret.is_none());
        prop_assert_eq!((found.host, found.root), (host.as_str(), root.as_deref()));
        _ = loggable(&config, &path);
    }
}
