use http::StatusCode;
use http::Version;

use super::super::tests::{admit_to, answer_of, head, pull, refused};
use crate::resolve::sample;

/// T-HC1, the part that reaches core: what a server lets through of old versions and other target forms.
#[test]
fn t_hc1_other_targets_and_versions_are_refused_and_the_connection_closed() {
    let config = sample::config();
    let mut cases = vec![
        head("GET", "http://mirror.example.com/v2/", &[]),
        head("GET", "mirror.example.com:80", &[]),
        head("GET", "*", &[]),
        head("CONNECT", "mirror.example.com:443", &[]),
    ];
    for version in [Version::HTTP_09, Version::HTTP_10] {
        let mut old = head("GET", "/v2/", &[]);
        old.version = version;
        cases.push(old);
    }
    for case in cases {
        let answer = answer_of(admit_to(&config, &case));
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{case:?}");
        assert_eq!(answer.headers["connection"], "close");
    }
    for method in ["get", "Get", "PRI"] {
        let answer = answer_of(admit_to(&config, &head(method, "/v2/", &[])));
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(answer.headers["connection"], "close");
    }
}

#[test]
fn t_hc2_hosts() {
    let config = sample::config();
    let ping = |host: &str| refused(&config, &head("GET", "/v2/", &[("host", host)])).0;
    for host in
        ["mirror.example.com", "MIRROR.example.com:443", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:80", "a_b"]
    {
        assert_eq!(ping(host), 200, "{host}");
    }
    for host in [
        "absent", "", "a/b", "a?b", "a#b", "user@a", "a b", " ", "a:", "a:0", "a:65536", "a:x", "a:+80",
        "a:80:80", ":80", "[::1", "[::1]x", "[::g]", "[]", "::1", "a\\b", "a,b", "h\u{e9}", "a%41",
        "http://a",
    ] {
        assert_eq!(ping(host), 400, "{host:?}");
    }
    assert_eq!(ping(&"a".repeat(261)), 400);
    let two = head("GET", "/v2/", &[("host", "a"), ("host", "a")]);
    assert_eq!(refused(&config, &two).0, 400);
    let h2 = |uri: &str, host: &str| {
        let mut parts = head("GET", uri, &[("host", host)]);
        parts.version = Version::HTTP_2;
        let answer = answer_of(admit_to(&config, &parts));
        assert!(!answer.headers.contains_key("connection"), "HTTP/2 has no such header");
        answer.status.as_u16()
    };
    assert_eq!(h2("https://mirror.example.com/v2/", "absent"), 200);
    assert_eq!(h2("https://mirror.example.com/v2/", "Mirror.example.com"), 200);
    assert_eq!(h2("https://mirror.example.com/v2/", "other.example.com"), 400);
    assert_eq!(h2("https://user@mirror.example.com/v2/", "absent"), 400);
    assert_eq!(h2("/v2/", "absent"), 400);
}

/// T-HC3, the part that reaches core: no pull has a body.
#[test]
fn t_hc3_a_body_on_a_pull_closes_the_connection() {
    let config = sample::config();
    for headers in [
        vec![("content-length", "5")],
        vec![("content-length", "+5")],
        vec![("content-length", "5,5")],
        vec![("content-length", "-0")],
        vec![("content-length", "")],
        vec![("content-length", "99999999999999999999999")],
        vec![("content-length", "0"), ("content-length", "0")],
        vec![("transfer-encoding", "chunked")],
        vec![("transfer-encoding", "identity")],
        vec![("transfer-encoding", "chunked"), ("content-length", "0")],
    ] {
        for method in ["GET", "HEAD"] {
            let answer = answer_of(admit_to(&config, &head(method, "/v2/a/b/manifests/latest", &headers)));
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{headers:?}");
            assert_eq!(answer.headers["connection"], "close");
        }
    }
    pull(&config, "/v2/a/b/manifests/latest", &[("content-length", "0")]);
    pull(&config, "/v2/a/b/manifests/latest", &[("upgrade", "h2c"), ("expect", "100-continue")]);
}

/// T-HC3: the one request that has a body says its length once.
#[test]
fn t_hc3_the_token_form_has_one_length() {
    let config = sample::config();
    for headers in [
        vec![("content-length", "5"), ("transfer-encoding", "chunked")],
        vec![("content-length", "5"), ("content-length", "5")],
        vec![("content-length", "5"), ("content-length", "6")],
        vec![("content-length", "0x5")],
    ] {
        let answer = answer_of(admit_to(&config, &head("POST", "/token", &headers)));
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{headers:?}");
        assert_eq!(answer.headers["connection"], "close");
    }
}
