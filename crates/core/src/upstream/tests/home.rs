//! A mirror of ours as upstream: what it is asked and told, and who else is told nothing of it.

use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::*;
use crate::config::SourceKind;
use crate::failure::Reason;
use crate::forward::{About, heard};

const HOME: &str = "https://home.example.org";

/// Home, with Docker Hub where home is away.
fn home() -> Source {
    Source {
        name: "home".into(),
        kind: SourceKind::Entrepot,
        url: url(HOME),
        alternates: vec![url("https://registry-1.docker.io")],
        token_hosts: vec![],
        blob_hosts: Some(vec!["*.docker.com".parse().unwrap()]),
        ..account()
    }
}

fn client() -> IpAddr {
    "203.0.113.9".parse().unwrap()
}

fn told(ask: Ask) -> Ask {
    Ask { client: Some(client()), ..ask }
}

/// Whom home understands to be asking.
fn understood(request: &Outbound, now: Now) -> Option<IpAddr> {
    let key = Sha256::digest(PASSWORD).into();
    let about = About { method: &request.method, path: request.url.path(), ns: "docker.io" };
    heard(&key, &about, request.headers.get("entrepot-client")?, now.wall)
}

#[test]
fn home_is_asked_with_our_name_and_told_for_whom() {
    let mut world = World::new(|request: &Outbound| match request.url.path().contains("blobs") {
        true => http(200, &[("content-length", "0")]),
        false => http(200, &MANIFEST),
    });
    world.ask(told(tag(home(), Verb::Get))).unwrap();
    world.ask(told(tag(home(), Verb::Head))).unwrap();
    world.ask(told(blob(home(), Verb::Get))).unwrap();
    assert_eq!(
        world.lines(),
        [
            format!("GET {HOME}/v2/library/nginx/manifests/latest?ns=docker.io"),
            format!("HEAD {HOME}/v2/library/nginx/manifests/latest?ns=docker.io"),
            format!("GET {HOME}/v2/library/nginx/blobs/{DIGEST}?ns=docker.io"),
        ],
        "nobody has to ask who we are"
    );
    for request in &world.sent {
        assert!(authorization(&request.headers).starts_with("Basic "));
        assert_eq!(understood(request, world.now), Some(client()));
    }
    world.assert_clean_except(&[HOME]);
    // Where nobody asked, nobody is named.
    world.ask(tag(home(), Verb::Get)).unwrap();
    assert!(!world.sent[3].headers.contains_key("entrepot-client"));
}

#[test]
fn the_name_joins_the_query_that_is_there() {
    let mut world = World::new(|_: &Outbound| http(200, &[("content-type", "application/json")]));
    for query in ["n=5&last=a%2Fb", "n=5&ns=quay.io&last=a%2Fb", "ns=docker.io"] {
        world.ask(ask(home(), Verb::Get, What::Tags(query.into()))).unwrap();
    }
    let queries: Vec<_> = world.sent.iter().map(|request| request.url.query().unwrap()).collect();
    assert_eq!(queries, ["n=5&last=a%2Fb&ns=docker.io", "n=5&last=a%2Fb&ns=docker.io", "ns=docker.io"]);
}

/// T-CR1, T-CR2: home's credentials stay at home when it is away: the registry is asked as by anyone.
#[test]
fn t_cr2_the_registry_in_homes_stead_hears_nothing_of_home() {
    let hub = || {
        bearer(|request: &Outbound| match request.url.path().contains("blobs") {
            true => http(307, &[("location", "https://production.cloudflare.docker.com/x?sig=1")]),
            false => http(200, &MANIFEST),
        })
    };
    for away in [
        Said::Fault(Fault::Connect),
        Said::Fault(Fault::Timeout),
        Said::Fault(Fault::Dns),
        http(503, &[]),
        http(502, &[]),
    ] {
        let mut hub = hub();
        let mut world = World::new(|request: &Outbound| match request.url.host_str() {
            Some("home.example.org") => away.clone(),
            Some("production.cloudflare.docker.com") => http(200, &[("content-length", "0")]),
            _ => hub(request),
        });
        let reply = world.ask(told(tag(home(), Verb::Get))).unwrap();
        assert_eq!(reply.upstream.host_str(), Some("registry-1.docker.io"), "{away:?}");
        world.ask(told(blob(home(), Verb::Get))).unwrap();
        world.assert_clean_except(&[HOME, "https://registry-1.docker.io"]);
        let elsewhere: Vec<_> =
            world.sent.iter().filter(|request| request.url.host_str() != Some("home.example.org")).collect();
        assert!(elsewhere.iter().any(|request| is_token(request)), "a token for anyone");
        assert!(elsewhere.iter().any(|request| request.url.path() == "/x"));
        for request in elsewhere {
            assert!(!request.headers.contains_key("entrepot-client"), "{request:?}");
            assert!(!authorization(&request.headers).starts_with("Basic"), "{request:?}");
            assert!(!request.url.as_str().contains("ns=") && !request.url.as_str().contains("robot"));
        }
    }
}

/// T-CR1, T-CR2: whatever home answers, what is meant for it goes nowhere else.
#[test]
fn t_cr1_home_cannot_send_its_credentials_on() {
    for (status, name, value) in [
        (302, "location", "https://evil.example/v2/x"),
        (307, "location", "https://production.cloudflare.docker.com/x"),
        (307, "location", "https://registry-1.docker.io/v2/library/nginx/manifests/latest"),
        (307, "location", "https://home.example.org:8443/x"),
        (401, "www-authenticate", r#"Bearer realm="https://auth.docker.io/token",service="s""#),
        (401, "www-authenticate", r#"Bearer realm="https://evil.example/token",service="s""#),
    ] {
        let mut world = World::new(|request: &Outbound| {
            match request.url.as_str().starts_with(HOME) && !request.url.as_str().contains(":8443") {
                true => http(status, &[(name, value)]),
                false => http(200, &MANIFEST).body(r#"{"token":"t"}"#),
            }
        });
        _ = world.ask(told(tag(home(), Verb::Get)));
        world.assert_clean_except(&[HOME]);
    }
    // Within home a redirect is followed, but only what we asked for ourselves is signed.
    let mut world = World::new(|request: &Outbound| match request.url.path() {
        "/elsewhere" => http(200, &MANIFEST),
        _ => http(307, &[("location", "/elsewhere")]),
    });
    world.ask(told(tag(home(), Verb::Get))).unwrap();
    assert!(!world.sent[1].headers.contains_key("entrepot-client"));
}

#[test]
fn what_home_refuses_is_refused() {
    for (status, reason) in
        [(404, Reason::ManifestUnknown), (403, Reason::UpstreamDenied), (401, Reason::UpstreamUnauthorized)]
    {
        let realm = format!("Bearer realm=\"{HOME}/token\",service=\"home.example.org\"");
        let mut world = World::new(|_: &Outbound| http(status, &[("www-authenticate", &realm)]));
        assert_eq!(world.ask(told(tag(home(), Verb::Get))).unwrap_err().reason, reason, "{status}");
        assert!(
            world.sent.iter().all(|request| request.url.as_str().starts_with(HOME)),
            "{:?}",
            world.lines()
        );
    }
}

#[test]
fn a_registry_is_told_nothing() {
    let mut world = World::new(bearer(|_| http(200, &MANIFEST)));
    world.ask(told(tag(account(), Verb::Get))).unwrap();
    assert!(world.sent.iter().all(|request| !request.headers.contains_key("entrepot-client")));
    assert!(world.lines().iter().all(|line| !line.contains("ns=")));
}
