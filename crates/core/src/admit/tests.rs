use http::header::HeaderValue;
use http::{Request as HttpRequest, StatusCode};
use proptest::prelude::*;

use super::*;
use crate::resolve::sample;
use crate::time::{Mono, Wall};

const NOW: Now = Now { wall: Wall(1_795_358_179_000), mono: Mono(0) };
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

pub(super) fn head(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
    let mut request = HttpRequest::builder().method(method).uri(uri);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", "mirror.example.com");
    }
    for (name, value) in headers.iter().filter(|(_, value)| *value != "absent") {
        request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    request.body(()).unwrap().into_parts().0
}

fn peer() -> IpAddr {
    "192.0.2.1".parse().unwrap()
}

fn key() -> SigningKey {
    SigningKey::new([7; 32])
}

pub(super) fn admit_to(config: &Config, head: &Parts) -> Admitted {
    admit(config, head, peer(), &key(), NOW)
}

pub(super) fn answer_of(admitted: Admitted) -> Answer {
    match admitted {
        Admitted::Answer { answer, .. } => answer,
        other => panic!("admitted: {other:?}"),
    }
}

fn call_of(admitted: Admitted) -> Incoming {
    match admitted {
        Admitted::Call(incoming) => *incoming,
        other => panic!("not admitted: {other:?}"),
    }
}

/// Status and code of a refusal.
pub(super) fn refused(config: &Config, head: &Parts) -> (u16, String) {
    let answer = answer_of(admit_to(config, head));
    let code = match serde_json::from_slice::<serde_json::Value>(&answer.body) {
        Ok(body) => body["errors"][0]["code"].as_str().unwrap_or_default().to_owned(),
        Err(_) => String::new(),
    };
    if answer.status.as_u16() >= 400 {
        assert_eq!(answer.headers["content-type"], "application/json");
        assert!(!answer.headers.contains_key("location"));
    }
    (answer.status.as_u16(), code)
}

pub(super) fn pull(config: &Config, uri: &str, headers: &[(&str, &str)]) -> Incoming {
    call_of(admit_to(config, &head("GET", uri, headers)))
}

#[test]
fn every_route_is_told_apart() {
    let config = sample::config();
    let manifest = pull(&config, "/v2/library/busybox/manifests/latest", &[]);
    assert_eq!(manifest.call, Request::Manifest("latest".parse().unwrap()));
    assert_eq!(manifest.resolved.repository.as_str(), "library/busybox");
    assert!(manifest.is_pull());
    let digest: Digest = DIGEST.parse().unwrap();
    let by_digest = pull(&config, &format!("/v2/a/b/manifests/{}", DIGEST.replace(':', "%3A")), &[]);
    assert_eq!(by_digest.call, Request::Manifest(Reference::Digest(digest)));
    let blob = pull(&config, &format!("/v2/a/manifests/blobs/{DIGEST}?ns=quay.io"), &[]);
    assert_eq!(blob.call, Request::Blob(digest));
    assert_eq!(blob.resolved.repository.as_str(), "a/manifests");
    assert_eq!(blob.resolved.ns.as_deref(), Some("quay.io"));
    assert!(!blob.is_pull());
    let tags = pull(&config, "/ghcr/v2/a/b/tags/list?n=5000&last=x&next_page=opaque%20mark&ns=ghcr.io", &[]);
    let Request::Tags { page, query } = tags.call else { panic!("no tags") };
    assert_eq!((page.n, page.last.as_deref()), (Some(1000), Some("x")));
    assert_eq!(query, "n=1000&last=x&next_page=opaque+mark");
    let uri = format!("/v2/a/b/referrers/{DIGEST}?artifactType=application%2Fspdx%2Bjson");
    let Request::Referrers { artifact_type, query, .. } = pull(&config, &uri, &[]).call else {
        panic!("no referrers")
    };
    assert_eq!(artifact_type.as_deref(), Some("application/spdx+json"));
    assert_eq!(query, "artifactType=application%2Fspdx%2Bjson");
}

#[test]
fn ping_needs_no_upstream_and_no_challenge_where_anyone_may_pull() {
    let config = sample::config();
    for uri in ["/v2", "/v2/", "/ghcr/v2/", "/docker.io/v2"] {
        for method in ["GET", "HEAD"] {
            let answer = answer_of(admit_to(&config, &head(method, uri, &[])));
            assert_eq!(answer.status, StatusCode::OK, "{method} {uri}");
            assert!(!answer.headers.contains_key("www-authenticate"));
            assert_eq!(answer.headers["content-length"], "2");
            assert_eq!(answer.headers["docker-distribution-api-version"], "registry/2.0");
            assert_eq!(&answer.body[..], if method == "GET" { b"{}".as_slice() } else { b"" });
        }
    }
    assert_eq!(refused(&config, &head("GET", "/evil/v2/", &[])).0, 404);
}

/// Docker and podman take the challenge from the ping, so there it must be, for anyone and for nobody alike.
#[test]
fn ping_asks_for_a_token_where_there_are_tokens() {
    let config = sample::config_with_token();
    let ping = |headers: &[(&str, &str)]| answer_of(admit_to(&config, &head("GET", "/v2/", headers)));
    let unknown = ping(&[]);
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        unknown.headers["www-authenticate"],
        "Bearer realm=\"https://mirror.example.com/token\",service=\"mirror.example.com\""
    );
    let token = access::sign(&key(), config.endpoint.as_str(), "", NOW.wall);
    assert_eq!(ping(&[("authorization", &format!("Bearer {token}"))]).status, StatusCode::OK);
    let uri = "/v2/a/b/manifests/latest";
    assert!(!pull(&config, uri, &[]).client.is_known(), "anyone may pull without a token");
    let mut by_network = config.clone();
    by_network.access.networks = vec!["192.0.2.0/24".parse().unwrap()];
    let answer = answer_of(admit_to(&by_network, &head("GET", "/v2/", &[])));
    assert_eq!(answer.status, StatusCode::OK);
}

/// T-CR9: the realm is the configured endpoint's, whatever the request says of us.
#[test]
fn t_cr9_the_realm_ignores_what_the_request_claims() {
    let mut config = sample::config_with_token();
    config.access.anonymous = false;
    config.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    let forged = [
        ("host", "evil.example.net"),
        ("x-forwarded-host", "evil.example.net"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "evil"),
        ("forwarded", "host=evil.example.net;proto=http"),
        ("x-original-url", "https://evil.example.net/"),
    ];
    for uri in ["/v2/", "/v2/a/b/manifests/latest", "/v2/_catalog", "/token"] {
        let admitted = admit_to(&config, &head("GET", uri, &forged));
        let answer = match admitted {
            Admitted::Token(request) => access::token_answer(&config, &request, None, &key(), NOW),
            other => answer_of(other),
        };
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{uri}");
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        let expected = "Bearer realm=\"https://mirror.example.com/token\",service=\"mirror.example.com\"";
        assert!(challenge.starts_with(expected), "{challenge}");
        assert!(!format!("{answer:?}").contains("evil"));
    }
    let answer = answer_of(admit_to(&config, &head("GET", "/v2/ghcr.io/a/b/manifests/latest", &[])));
    let challenge = answer.headers["www-authenticate"].to_str().unwrap();
    assert!(challenge.ends_with(",scope=\"repository:ghcr.io/a/b:pull\""), "{challenge}");
}

#[test]
fn t_ss3_an_unlisted_registry_is_404_and_nothing_else() {
    let config = sample::config();
    for uri in [
        "/v2/a/b/manifests/latest?ns=evil.com",
        "/v2/a/b/manifests/latest?ns=",
        "/v2/a/b/manifests/latest?ns=docker.io&ns=docker.io",
        "/v2/a/b/manifests/latest?ns=docker.io&ns=quay.io",
        "/v2/a/b/manifests/latest?n%73=evil.com",
        "/v2/a/b/manifests/latest?ns=user%40docker.io",
        "/v2/a/b/manifests/latest?ns=docker.io%3A443",
        "/v2/a/b/manifests/latest?ns=d%C3%B6cker.io",
        "/v2/a/b/manifests/latest?ns=%00",
        "/v2/evil.com/a/manifests/latest",
        "/v2/localhost:5000/a/tags/list",
        "/evil.com/v2/a/manifests/latest",
        "/quay/v2/a/b/manifests/latest?ns=ghcr.io",
        "/v2/?ns=evil.com",
    ] {
        assert_eq!(refused(&config, &head("GET", uri, &[])), (404, "NAME_UNKNOWN".into()), "{uri}");
        let answer = answer_of(admit_to(&config, &head("GET", uri, &[])));
        assert!(!answer.headers.contains_key("oci-namespace"), "{uri}");
    }
    assert_eq!(
        pull(&config, "/v2/a/b/manifests/latest?ns=DOCKER.io", &[]).resolved.ns.as_deref(),
        Some("docker.io")
    );
}

#[test]
fn t_op1_nothing_makes_a_proxy_of_us() {
    let config = sample::config();
    for (method, uri, host) in [
        ("CONNECT", "evil.com:443", "evil.com"),
        ("GET", "http://evil.com/v2/", "evil.com"),
        ("GET", "http://mirror.example.com/v2/", "mirror.example.com"),
        ("OPTIONS", "*", "mirror.example.com"),
        ("GET", "/v2/evil.com/a/manifests/latest", "mirror.example.com"),
        ("GET", "/proxy?url=http://evil.com/", "mirror.example.com"),
        ("GET", "/http://evil.com/v2/", "mirror.example.com"),
        ("GET", "/", "mirror.example.com"),
    ] {
        let (status, _) = refused(&config, &head(method, uri, &[("host", host)]));
        assert!((400..500).contains(&status), "{method} {uri}: {status}");
    }
    let foreign = pull(&config, "/v2/a/b/manifests/latest", &[("host", "ghcr.io")]);
    assert_eq!(&*foreign.resolved.source.name, "dockerhub");
}

/// T-HC4: every spelling of a request has one verdict.
#[test]
fn t_hc4_the_verdict_does_not_depend_on_the_spelling() {
    let mut config = sample::config_with_token();
    config.access.anonymous = false;
    for uri in [
        "/v2",
        "/v2/",
        "/v2/a/b/manifests/latest",
        "/v2/a/b/tags/list",
        "/v2/_catalog",
        "/ghcr/v2/a/tags/list",
    ] {
        for method in ["GET", "HEAD"] {
            for authorization in [None, Some("Basic Y2k6d3Jvbmc="), Some("Bearer x.y"), Some("Basic \u{e9}")]
            {
                let headers: Vec<_> =
                    authorization.map(|value| ("authorization", value)).into_iter().collect();
                assert_eq!(
                    answer_of(admit_to(&config, &head(method, uri, &headers))).status,
                    StatusCode::UNAUTHORIZED,
                    "{method} {uri} {authorization:?}"
                );
            }
            let two = [
                ("authorization", "Basic Y2k6czNjcmV0LW9mLWNp"),
                ("authorization", "Basic Y2k6czNjcmV0LW9mLWNp"),
            ];
            assert_eq!(
                answer_of(admit_to(&config, &head(method, uri, &two))).status,
                StatusCode::UNAUTHORIZED
            );
        }
    }
    let known = [("authorization", "Basic Y2k6czNjcmV0LW9mLWNp")];
    let incoming = pull(&config, "/v2/a/b/manifests/latest", &known);
    assert_eq!(incoming.client.name().map(|name| &**name), Some("ci"));
    let (status, code) = refused(&config, &head("GET", "/v2/_catalog", &known));
    assert_eq!((status, code.as_str()), (404, "NAME_UNKNOWN"));
    let preflight = answer_of(admit_to(&config, &head("OPTIONS", "/v2/a/b/manifests/latest", &[])));
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers["access-control-allow-origin"], "*");
    assert!(!preflight.headers["access-control-allow-headers"].to_str().unwrap().contains("uthorization"));
}

/// What an Entrepot at the edge says of its client, and anyone else.
#[test]
fn an_edge_that_may_says_for_whom_it_asks() {
    use crate::forward::{About, told};
    let mut config = sample::config_with_token();
    let token = config.access.tokens[0].clone();
    let uri = "/v2/library/busybox/manifests/latest?ns=docker.io";
    let about = About { method: &Method::GET, path: "/v2/library/busybox/manifests/latest", ns: "docker.io" };
    let value = |about: &About<'_>, key: &[u8; 32]| {
        let told = told(key, about, "203.0.113.9".parse().unwrap(), NOW.wall).unwrap();
        told.to_str().unwrap().to_owned()
    };
    let right = value(&about, &token.sha256);
    let known = ("authorization", "Basic Y2k6czNjcmV0LW9mLWNp");
    let address = |config: &Config, headers: &[(&str, &str)]| pull(config, uri, headers).client.address;

    // Nobody may unless the configuration says so, and then nobody but this client.
    assert_eq!(address(&config, &[known, ("entrepot-client", &right)]), peer());
    config.access.tokens[0].forwards = true;
    config.access.networks = vec!["192.0.2.0/24".parse().unwrap()];
    for headers in
        [vec![("entrepot-client", right.as_str())], vec![("entrepot-client", "garbage")], vec![known]]
    {
        assert_eq!(address(&config, &headers), peer(), "{headers:?}");
    }
    let there = "203.0.113.9".parse::<IpAddr>().unwrap();
    assert_eq!(address(&config, &[known, ("entrepot-client", &right)]), there);
    assert_eq!(
        address(&config, &[known, ("entrepot-client", &right), ("x-forwarded-for", "203.0.113.10")]),
        there
    );
    let incoming = pull(&config, uri, &[known, ("entrepot-client", &right)]);
    assert_eq!(incoming.client.name().map(|name| &**name), Some("ci"));
    let bearer = format!("Bearer {}", access::sign(&key(), config.endpoint.as_str(), "ci", NOW.wall));
    assert_eq!(address(&config, &[("authorization", &bearer), ("entrepot-client", &right)]), there);

    // What is said wrongly is refused, and is not a question of who asks.
    let other = value(&About { ns: "ghcr.io", ..about }, &token.sha256);
    let foreign = value(&about, &[0; 32]);
    for wrong in [other.as_str(), &foreign, "", "garbage", "for=203.0.113.9"] {
        let head = head("GET", uri, &[known, ("entrepot-client", wrong)]);
        assert_eq!(refused(&config, &head).0, 400, "{wrong}");
        assert!(!answer_of(admit_to(&config, &head)).headers.contains_key("www-authenticate"));
    }
    let twice = head("GET", uri, &[known, ("entrepot-client", &right), ("entrepot-client", &right)]);
    assert_eq!(refused(&config, &twice).0, 400);
}

/// A valid token that names nobody is not asked for again and again.
#[test]
fn a_token_for_anyone_is_told_that_it_does_not_suffice() {
    let mut config = sample::config_with_token();
    let token = access::sign(&key(), config.endpoint.as_str(), "", NOW.wall);
    let authorization = format!("Bearer {token}");
    let uri = "/v2/private/app/manifests/latest";
    let incoming = pull(&config, uri, &[("authorization", &authorization)]);
    let context = incoming.failure_context(&config);
    let answer = answer::failure(&access::identity_needed(), &context);
    assert!(answer.headers["www-authenticate"].to_str().unwrap().ends_with("error=\"insufficient_scope\""));
    config.access.anonymous = false;
    let answer = answer_of(admit_to(&config, &head("GET", uri, &[("authorization", &authorization)])));
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
}

#[test]
fn t_hc5_ranges_are_of_blobs_by_get_and_one_at_a_time() {
    let config = sample::config();
    let blob = format!("/v2/a/b/blobs/{DIGEST}");
    let range = |uri: &str, value: &str| pull(&config, uri, &[("range", value)]).range;
    assert_eq!(range(&blob, "bytes=5-"), Some(RangeRequest::From { start: 5 }));
    assert_eq!(range(&blob, "bytes=0-0,5-6"), None);
    assert_eq!(range(&blob, "bytes=5-2"), None);
    assert_eq!(range("/v2/a/b/manifests/latest", "bytes=5-"), None);
    let by_head = call_of(admit_to(&config, &head("HEAD", &blob, &[("range", "bytes=5-")])));
    assert_eq!(by_head.range, None);
    let two = pull(&config, &blob, &[("range", "bytes=5-"), ("range", "bytes=6-")]);
    assert_eq!(two.range, None);
}

#[test]
fn t_hc6_paging_is_clamped_or_refused() {
    let config = sample::config();
    let n = |n: &str| match admit_to(&config, &head("GET", &format!("/v2/a/b/tags/list?n={n}"), &[])) {
        Admitted::Call(incoming) => match incoming.call {
            Request::Tags { page, .. } => Ok(page.n),
            other => panic!("{other:?}"),
        },
        other => Err(answer_of(other).status.as_u16()),
    };
    assert_eq!(n("0"), Ok(Some(0)));
    assert_eq!(n("7"), Ok(Some(7)));
    assert_eq!(n("1001"), Ok(Some(1000)));
    assert_eq!(n("18446744073709551616"), Ok(Some(1000)));
    for bad in ["-1", "1.5", "x", "1e9", "%00", "+5", "5&n=6"] {
        assert_eq!(n(bad), Err(400), "{bad}");
    }
    let long = format!("/v2/a/b/tags/list?last={}", "x".repeat(5000));
    assert_eq!(refused(&config, &head("GET", &long, &[])).0, 400);
    let code = refused(&config, &head("GET", "/v2/a/b/tags/list?n=x", &[])).1;
    assert_eq!(code, "PAGINATION_NUMBER_INVALID");
}

/// T-HC10 and T-AZ9: nothing that changes anything is ever admitted, on any route, under any disguise.
#[test]
fn t_hc10_t_az9_mutating_methods_are_unsupported_everywhere() {
    let config = sample::config_with_token();
    let blob = format!("/v2/a/b/blobs/{DIGEST}");
    let uris = [
        "/v2/",
        "/v2",
        "/v2/_catalog",
        "/v2/a/b/manifests/latest",
        "/v2/a/b/tags/list",
        "/v2/a/b/blobs/uploads/",
        "/v2/a/b/blobs/uploads/x-y-z",
        "/v2/evil.com/a/manifests/latest",
        "/v2/A/../b",
        "/other",
        &blob,
    ];
    let methods = ["PUT", "POST", "PATCH", "DELETE", "TRACE", "PROPFIND", "FOO"];
    for uri in uris {
        for method in methods {
            for headers in
                [vec![], vec![("content-length", "5")], vec![("authorization", "Basic Y2k6czNjcmV0LW9mLWNp")]]
            {
                let request = head(method, uri, &headers);
                assert_eq!(refused(&config, &request), (405, "UNSUPPORTED".into()), "{method} {uri}");
                let answer = answer_of(admit_to(&config, &request));
                assert!(answer.headers.contains_key("allow"));
                assert_eq!(answer.headers["connection"], "close");
            }
        }
    }
    for method in ["PUT", "PATCH", "DELETE"] {
        assert_eq!(refused(&config, &head(method, "/token", &[])).0, 405);
        let disguised =
            [("x-http-method-override", method), ("x-method-override", method), ("x-http-method", method)];
        let uri = format!("/v2/a/b/manifests/latest?_method={method}");
        let incoming = pull(&config, &uri, &disguised);
        assert_eq!(incoming.call, Request::Manifest("latest".parse().unwrap()));
        assert!(!incoming.head_only);
    }
    assert_eq!(refused(&config, &head("GET", "/v2/a/b/blobs/uploads/x", &[])), (405, "UNSUPPORTED".into()));
}

/// T-AZ10: the verdict does not depend on a body, and comes before it is read.
#[test]
fn t_az10_the_token_endpoint_judges_the_head_first() {
    let config = sample::config_with_token();
    for length in ["0", "10", "1073741824"] {
        let wrong = [("authorization", "Basic Y2k6d3Jvbmc="), ("content-length", length)];
        assert_eq!(refused(&config, &head("POST", "/token", &wrong)).0, 401);
        let plain = admit_to(&config, &head("POST", "/token", &[("content-length", length)]));
        assert!(matches!(plain, Admitted::Token(TokenRequest { has_form: true, .. })));
    }
}

/// T-RL6: as Docker Hub counts.
#[test]
fn t_rl6_only_a_manifest_by_get_is_a_pull() {
    let config = sample::config();
    let charged = |method, uri: &str| call_of(admit_to(&config, &head(method, uri, &[]))).is_pull();
    assert!(charged("GET", "/v2/a/b/manifests/latest"));
    assert!(charged("GET", &format!("/v2/a/b/manifests/{DIGEST}")));
    assert!(!charged("HEAD", "/v2/a/b/manifests/latest"));
    assert!(!charged("GET", &format!("/v2/a/b/blobs/{DIGEST}")));
    assert!(!charged("GET", "/v2/a/b/tags/list"));
}

/// Whoever is refused is charged for it all the same, wherever the refusal came: guessing passwords is not free.
#[test]
fn every_refusal_says_whose_it_is() {
    let mut config = sample::config_with_token();
    config.trusted_proxies = vec!["192.0.2.0/24".parse().unwrap()];
    config.access.networks = vec!["10.0.0.0/8".parse().unwrap()];
    let wrong = ("authorization", "Basic Y2k6d3Jvbmc=");
    for (method, uri, headers) in [
        ("GET", "/v2/a/b/manifests/latest", vec![wrong]),
        ("POST", "/token", vec![wrong]),
        ("PUT", "/v2/a/b/manifests/latest", vec![]),
        ("GET", "/v2/evil.com/a/manifests/latest", vec![]),
        ("GET", "/v2/", vec![("content-length", "5")]),
    ] {
        for (address, known) in [("203.0.113.1", false), ("10.1.2.3", true)] {
            let mut headers = headers.clone();
            headers.push(("x-forwarded-for", address));
            let admitted = admit_to(&config, &head(method, uri, &headers));
            let Admitted::Answer { client, reason: Some(_), .. } = admitted else {
                panic!("{uri}: {admitted:?}")
            };
            assert_eq!(client.address.to_string(), address);
            assert_eq!(client.is_known(), known);
        }
    }
}

#[test]
fn bad_names_and_references_are_told() {
    let config = sample::config();
    for (uri, status, code) in [
        ("/v2/A/b/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a/../b/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a/%2e%2e/b/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a//b/manifests/latest", 400, "NAME_INVALID"),
        ("/v2/a/b/manifests/.bad", 404, "MANIFEST_UNKNOWN"),
        ("/v2/a/b/manifests/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/a/b/blobs/sha256:abc", 400, "DIGEST_INVALID"),
        ("/v2/a/b/blobs/md5:00", 400, "DIGEST_INVALID"),
        ("/v2/a/b/referrers/latest", 400, "DIGEST_INVALID"),
        ("/v2/a/b", 404, "NAME_UNKNOWN"),
        ("/v1/search", 404, "NAME_UNKNOWN"),
    ] {
        assert_eq!(refused(&config, &head("GET", uri, &[])), (status, code.into()), "{uri}");
    }
}

proptest! {
    #[test]
    fn no_request_panics_and_every_refusal_is_ours(
        method in prop_oneof![Just("GET"), Just("HEAD"), Just("POST"), Just("PUT"), Just("OPTIONS")],
        path in "/(v2|token|[a-z.:]{1,8}/v2)(/[a-zA-Z0-9.:_%@~-]{0,20}){0,6}",
        query in proptest::option::of("[a-zA-Z0-9.:=&%+-]{0,60}"),
        host in "[a-zA-Z0-9.:\\[\\]@/-]{0,30}",
        authorization in proptest::option::of("[ -~]{0,60}"),
    ) {
        let uri = query.map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut headers = vec![("host", host.as_str())];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        let parts = head(method, &uri, &headers);
        for config in [sample::config(), sample::config_with_token()] {
            match admit_to(&config, &parts) {
                Admitted::Call(incoming) => prop_assert!(method == "GET" || method == "HEAD", "{:?}", incoming),
                Admitted::Token(_) => prop_assert!(path.ends_with("/token")),
                Admitted::Answer { answer, reason, .. } => {
                    prop_assert!(!answer.status.is_redirection() && !answer.status.is_server_error());
                    prop_assert_eq!(reason.is_some(), answer.status.as_u16() >= 400);
                    prop_assert!(method != "HEAD" || answer.body.is_empty());
                    prop_assert_eq!(answer.status == StatusCode::UNAUTHORIZED, answer.headers.contains_key("www-authenticate"));
                }
            }
        }
    }
}
