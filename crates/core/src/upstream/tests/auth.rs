//! Challenges: who is given what.

use super::*;
use crate::failure::Reason;

#[test]
fn a_token_is_fetched_once_and_then_brought_along() {
    let mut world = World::new(bearer(|_| http(200, &MANIFEST)));
    world.ask(tag(hub(), Verb::Get)).unwrap();
    world.ask(tag(hub(), Verb::Get)).unwrap();
    assert_eq!(
        world.lines(),
        [
            "GET https://registry-1.docker.io/v2/library/nginx/manifests/latest",
            "GET https://auth.docker.io/token?service=registry.docker.io&scope=repository%3Alibrary%2Fnginx%3Apull",
            "GET https://registry-1.docker.io/v2/library/nginx/manifests/latest",
            "GET https://registry-1.docker.io/v2/library/nginx/manifests/latest",
        ]
    );
    assert!(world.sent.iter().filter(|request| is_token(request)).all(is_clean));
    // Another repository: another token, but no second 401.
    let other = Ask { repository: "library/redis".parse().unwrap(), ..tag(hub(), Verb::Get) };
    world.ask(other).unwrap();
    assert_eq!(world.sent.len(), 6);
    assert!(world.sent[4].url.query().unwrap().ends_with("scope=repository%3Alibrary%2Fredis%3Apull"));
}

#[test]
fn headers_are_only_ours() {
    let mut world = World::new(|_: &Outbound| http(200, &MANIFEST));
    world.ask(tag(hub(), Verb::Get)).unwrap();
    let headers = &world.sent[0].headers;
    assert_eq!(headers["user-agent"], format!("entrepot/{}", env!("CARGO_PKG_VERSION")));
    assert_eq!(headers["accept-encoding"], "identity");
    assert_eq!(headers["accept"].to_str().unwrap().split(", ").count(), 4);
    assert_eq!(headers.len(), 3);
}

#[test]
fn credentials_go_to_the_declared_token_host_and_the_token_to_the_registry() {
    let mut world = World::new(bearer(|_| http(200, &MANIFEST)));
    world.ask(tag(account(), Verb::Get)).unwrap();
    assert!(authorization(&world.sent[1].headers).starts_with("Basic "));
    assert!(world.sent[1].headers[header::AUTHORIZATION].is_sensitive());
    assert_eq!(authorization(&world.sent[2].headers), "Bearer t1");
    assert_eq!(authorization(&world.sent[0].headers), "");
}

#[test]
fn t_cr5_anonymous_never_shares_what_credentials_bought() {
    let mut world = World::new(bearer(|_| http(200, &MANIFEST)));
    world.ask(tag(account(), Verb::Get)).unwrap();
    let before = world.sent.len();
    world.ask(Ask { identity: Identity::Anonymous, ..tag(account(), Verb::Get) }).unwrap();
    let anonymous = &world.sent[before..];
    assert_eq!(anonymous.len(), 3, "its own challenge, its own token");
    assert!(anonymous.iter().all(|request| !authorization(&request.headers).starts_with("Basic")));
}

#[test]
fn t_cr5_a_source_without_an_entry_gives_nothing_to_a_basic_challenge() {
    let mut world = World::new(|_: &Outbound| http(401, &[("www-authenticate", r#"Basic realm="x""#)]));
    let failure = world.ask(tag(hub(), Verb::Get)).unwrap_err();
    assert_eq!(failure.reason, Reason::UpstreamUnauthorized);
    assert_eq!(world.sent.len(), 1);
    world.assert_clean_except(&[]);
}

#[test]
fn basic_is_presented_and_remembered() {
    let mut world = World::new(|request: &Outbound| match authorization(&request.headers) {
        "" => http(401, &[("www-authenticate", r#"Negotiate abc, Basic realm="x""#)]),
        _ => http(200, &MANIFEST),
    });
    world.ask(tag(account(), Verb::Get)).unwrap();
    world.ask(tag(account(), Verb::Get)).unwrap();
    assert_eq!(world.sent.len(), 3);
}

#[test]
fn wrong_credentials_end_in_one_repetition() {
    for challenge in [CHALLENGE, r#"Basic realm="x""#] {
        let mut world = World::new(|request: &Outbound| match is_token(request) {
            true => http(200, &[]).body(r#"{"token":"t1"}"#),
            false => http(401, &[("www-authenticate", challenge)]),
        });
        let failure = world.ask(tag(account(), Verb::Get)).unwrap_err();
        assert_eq!(failure.reason, Reason::UpstreamUnauthorized, "{failure}");
        assert_eq!(world.sent.iter().filter(|request| !is_token(request)).count(), 2);
    }
}

#[test]
fn t_cr1_hostile_realms_see_no_credential() {
    for realm in [
        "https://evil-docker.io/token",
        "https://auth.docker.io.evil.com/token",
        "https://docker.io.evil.com/token",
        "https://xauth.docker.io/token",
        "https://x.auth.docker.io/token",
        "https://docker.io/token",
        "https://203.0.113.9/token",
        "https://93.184.216.34/token",
        "https://127.0.0.1/token",
        "https://0x7f000001/token",
        "https://[::1]/token",
        "https://[::ffff:93.184.216.34]/token",
        "https://auth.docker.io@evil.com/token",
        "https://user:pass@auth.docker.io/token",
        "https://auth.docker.io./token",
        "https://xn--uth-6cd.docker.io/token",
        "https://auth.docker.io:8443/token",
        "https://auth.docker.io:80/token",
        "http://auth.docker.io/token",
        "http://registry-1.docker.io/token",
        "https://registry-1.docker.io:444/token",
        "https://auth.docker.io%2eevil.com/token",
        "https://auth.docker.io\\@evil.com/token",
        "https:///evil.com/token",
        "//evil.com/token",
        "/token",
        "ftp://auth.docker.io/token",
        "file:///token",
        "",
    ] {
        let challenge = format!(r#"Bearer realm="{realm}",service="registry.docker.io""#);
        let mut world = World::new(|request: &Outbound| match is_token(request) {
            true => http(200, &[]).body(r#"{"token":"t1"}"#),
            false => Said::Http(401, vec![("www-authenticate", challenge.clone())], String::new()),
        });
        let failure = world.ask(tag(account(), Verb::Get)).unwrap_err();
        world.assert_clean_except(&["https://auth.docker.io", "https://registry-1.docker.io"]);
        assert!(!failure.public.contains(PASSWORD) && !format!("{failure:?}").contains(PASSWORD));
        assert_eq!((failure.reason, world.sent.len()), (Reason::UpstreamRedirectRefused, 1), "{realm}");
    }
}

/// What is not ASCII is not a realm at all.
#[test]
fn t_cr1_unicode_realms_are_not_read() {
    let challenge = r#"Bearer realm="https://аuth.docker.io/token""#;
    let mut world = World::new(|_: &Outbound| http(401, &[("www-authenticate", challenge)]));
    assert_eq!(world.ask(tag(account(), Verb::Get)).unwrap_err().reason, Reason::UpstreamUnauthorized);
    assert_eq!(world.sent.len(), 1);
}

#[test]
fn t_cr1_spellings_of_the_declared_host_are_that_host() {
    for realm in ["https://AUTH.docker.io/token", "https://auth.docker.io:443/token"] {
        let challenge = format!(r#"bEARER service=x,REALM="{realm}""#);
        let mut world = World::new(|request: &Outbound| match is_token(request) {
            true => http(200, &[]).body(r#"{"access_token":"t1"}"#),
            false if authorization(&request.headers) == "Bearer t1" => http(200, &MANIFEST),
            false => Said::Http(401, vec![("www-authenticate", challenge.clone())], String::new()),
        });
        world.ask(tag(account(), Verb::Get)).unwrap();
        assert_eq!(world.sent[1].url.host_str(), Some("auth.docker.io"));
    }
}

/// An unknown token host may be asked without credentials, if it is public.
#[test]
fn t_cr1_foreign_realms_are_only_for_anonymous() {
    let run = |realm: &str| {
        let challenge = format!(r#"Bearer realm="{realm}""#);
        let mut world = World::new(move |request: &Outbound| match is_token(request) {
            true => http(200, &[]).body(r#"{"token":"t1"}"#),
            false if authorization(&request.headers) == "Bearer t1" => http(200, &MANIFEST),
            false => Said::Http(401, vec![("www-authenticate", challenge.clone())], String::new()),
        });
        let result = world.ask(tag(hub(), Verb::Get)).map(drop).map_err(|failure| failure.reason);
        world.assert_clean_except(&["https://registry-1.docker.io"]);
        (result, world.sent.len())
    };
    assert_eq!(run("https://auth.example.com/token"), (Ok(()), 3));
    for private in [
        "https://localhost/token",
        "https://169.254.169.254/token",
        "https://metadata.google.internal/token",
        "https://auth.example.com:22/token",
        "https://auth.example.com:6379/token",
        "http://auth.example.com/token",
        "https://[fd00::1]/token",
    ] {
        assert_eq!(run(private), (Err(Reason::UpstreamRedirectRefused), 1), "{private}");
    }
}

/// Near misses of exact and wildcard patterns, with and without a port.
#[test]
fn t_cr6_token_hosts_match_whole_labels() {
    let reaches = |pattern: &str, realm: &str| {
        let source = Source { token_hosts: vec![pattern.parse().unwrap()], ..account() };
        let challenge = format!(r#"Bearer realm="{realm}/token""#);
        let mut world = World::new(move |_: &Outbound| {
            Said::Http(401, vec![("www-authenticate", challenge.clone())], String::new())
        });
        let _ = world.ask(tag(source, Verb::Get));
        world.sent.iter().any(|request| !is_clean(request))
    };
    for (pattern, realm) in [
        ("*.azurecr.io", "https://evil.azurecr.io"),
        ("auth.example.com:8443", "https://auth.example.com:8443"),
        ("auth.example.com:443", "https://auth.example.com"),
    ] {
        assert!(reaches(pattern, realm), "{pattern} {realm}");
    }
    for (pattern, realm) in [
        ("*.azurecr.io", "https://evil.azurecr.io.attacker.com"),
        ("*.azurecr.io", "https://azurecr.io"),
        ("*.azurecr.io", "https://evilazurecr.io"),
        ("*.azurecr.io", "https://x.azurecr.io."),
        ("*.azurecr.io", "https://x.azurecr.io:8443"),
        ("auth.example.com", "https://auth.example.com.evil"),
        ("auth.example.com", "https://evil-auth.example.com"),
        ("auth.example.com:8443", "https://auth.example.com"),
        ("auth.example.com:8443", "https://auth.example.com:8444"),
    ] {
        assert!(!reaches(pattern, realm), "{pattern} {realm}");
    }
}

#[test]
fn t_cr4_nothing_secret_over_plain_http_unless_declared() {
    let script = |request: &Outbound| match authorization(&request.headers) {
        "" => http(
            401,
            &[("www-authenticate", r#"Basic realm="x", Bearer realm="http://r.example.com/token""#)],
        ),
        _ => http(200, &MANIFEST),
    };
    let plain = Source { url: url("http://r.example.com"), ..account() };
    let mut world = World::new(script);
    let failure = world.ask(tag(plain.clone(), Verb::Get)).unwrap_err();
    assert!(failure.reason.is_refusal() || failure.reason == Reason::UpstreamRedirectRefused);
    world.assert_clean_except(&[]);
    let mut world = World::new(|request: &Outbound| match is_token(request) {
        true => http(200, &[]).body(r#"{"token":"t1"}"#),
        false => script(request),
    });
    world.ask(tag(Source { insecure: true, ..plain }, Verb::Get)).unwrap();
    assert!(world.sent.iter().any(|request| !is_clean(request)));
}

#[test]
fn alternates_are_asked_without_credentials() {
    let source = Source { alternates: vec![url("https://mirror.gcr.io")], ..account() };
    let mut world = World::new(|request: &Outbound| match request.url.host_str().unwrap() {
        "mirror.gcr.io" if authorization(&request.headers).is_empty() => http(
            401,
            &[("www-authenticate", r#"Basic realm="x", Bearer realm="https://auth.docker.io/token""#)],
        ),
        "mirror.gcr.io" => http(200, &MANIFEST),
        "auth.docker.io" => http(200, &[]).body(r#"{"token":"anonymous"}"#),
        _ => Said::Fault(Fault::Connect),
    });
    let reply = world.ask(tag(source, Verb::Get)).unwrap();
    assert_eq!(reply.upstream, url("https://mirror.gcr.io/"));
    assert_eq!(authorization(&world.sent.last().unwrap().headers), "Bearer anonymous");
    assert!(!world.sent.iter().any(|request| authorization(&request.headers).starts_with("Basic")));
}
