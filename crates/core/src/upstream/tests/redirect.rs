//! Where redirects lead, and what goes along.

use super::*;
use crate::failure::Reason;

fn asks() -> Vec<Ask> {
    let digest = || DIGEST.parse().unwrap();
    vec![
        tag(account(), Verb::Get),
        tag(account(), Verb::Head),
        blob(account(), Verb::Get),
        ask(account(), Verb::Get, What::Tags("n=10".into())),
        ask(account(), Verb::Get, What::Referrers(digest(), String::new())),
        ranged(account(), 5, None),
    ]
}

#[test]
fn t_cr2_no_credential_leaves_the_origin_and_none_returns() {
    for status in [301, 302, 303, 307, 308] {
        for ask in asks() {
            let ranged = ask.range.is_some();
            let mut world = World::new(bearer(|request| match request.url.as_str() {
                url if url.contains("/v2/") => http(status, &[("location", "//cdn.example.com/a?sig=s")]),
                _ => http(200, &[]),
            }));
            let mut script = |request: &Outbound| match request.url.as_str() {
                "https://cdn.example.com/a?sig=s" => {
                    http(status, &[("location", "https://registry-1.docker.io/back")])
                }
                "https://registry-1.docker.io/back" => match ranged {
                    true => http(206, &[("content-range", "bytes 5-9/10")]),
                    false => http(200, &[("content-length", "3")]),
                },
                _ => (world.script)(request),
            };
            let mut outer = World::new(&mut script);
            outer.ask(ask).unwrap();
            let [.., there, back] = outer.sent.as_slice() else { panic!() };
            assert_eq!(back.url.path(), "/back");
            assert!(is_clean(there) && is_clean(back), "{status}: {:?} {:?}", there.headers, back.headers);
            assert_eq!(there.headers.contains_key("range") && back.headers.contains_key("range"), ranged);
        }
    }
}

#[test]
fn a_redirect_within_the_registry_keeps_the_token() {
    let mut world = World::new(bearer(|request| match request.url.path() {
        "/moved" => http(200, &MANIFEST),
        _ => http(307, &[("location", "/moved")]),
    }));
    world.ask(tag(account(), Verb::Get)).unwrap();
    assert_eq!(authorization(&world.sent.last().unwrap().headers), "Bearer t1");
}

fn follow(source: Source, location: &str) -> (Result<Reply, Failure>, usize) {
    let location = location.to_owned();
    let mut world = World::new(move |request: &Outbound| match request.url.path().starts_with("/v2/") {
        true => Said::Http(307, vec![("location", location.clone())], String::new()),
        false => http(200, &[("content-length", "3")]),
    });
    let result = world.ask(blob(source, Verb::Get));
    (result, world.sent.len())
}

#[test]
fn t_ss1_targets_that_are_refused_before_connecting() {
    for location in [
        "https://127.0.0.1/a",
        "https://127.1/a",
        "https://2130706433/a",
        "https://0x7f.0.0.1/a",
        "https://0177.0.0.1/a",
        "https://0/a",
        "https://10.0.0.1/a",
        "https://172.16.0.1/a",
        "https://192.168.1.1/a",
        "https://100.64.0.1/a",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/a",
        "https://[fd00:ec2::254]/a",
        "https://[fe80::1]/a",
        "https://[::ffff:127.0.0.1]/a",
        "https://[64:ff9b::7f00:1]/a",
        "https://localhost/a",
        "https://localhost./a",
        "https://x.localhost/a",
        "https://metadata.google.internal/a",
        "https://redis/a",
        "https://cdn.example.com:22/a",
        "https://cdn.example.com:25/a",
        "https://cdn.example.com:6379/a",
        "http://cdn.example.com/a",
        "http://registry-1.docker.io/a",
        "https://user@cdn.example.com/a",
        "ftp://cdn.example.com/a",
        "file:///etc/passwd",
        "unix:/run/docker.sock",
        "data:text/plain,x",
        "https://",
        "https://exa mple.com/",
        "https://cdn.example.com:99999/",
    ] {
        let (result, sent) = follow(hub(), location);
        let failure = result.unwrap_err();
        assert_eq!((failure.reason, sent), (Reason::UpstreamRedirectRefused, 1), "{location}");
    }
    assert_eq!(follow(hub(), &format!("https://cdn.example.com/{}", "a".repeat(9000))).1, 1);
}

#[test]
fn targets_that_are_followed() {
    for location in [
        "https://cdn.example.com/a?X-Amz-Signature=s",
        "//cdn.example.com/a",
        "https://cdn.example.com:8443/a",
        "https://1.1.1.1/a",
        "/a",
        "https://registry-1.docker.io:443/a",
    ] {
        let (result, sent) = follow(hub(), location);
        assert_eq!(
            (result.unwrap().upstream.as_str(), sent),
            ("https://registry-1.docker.io/", 2),
            "{location}"
        );
    }
}

#[test]
fn t_ss1_every_hop_is_judged_and_there_are_five() {
    for (hops, reached) in [(5, true), (6, false)] {
        let mut left = hops;
        let mut world = World::new(move |_: &Outbound| {
            left -= 1;
            match left >= 0 {
                true => Said::Http(
                    302,
                    vec![("location", format!("https://cdn{left}.example.com/"))],
                    String::new(),
                ),
                false => http(200, &[]),
            }
        });
        assert_eq!(world.ask(blob(hub(), Verb::Get)).is_ok(), reached);
        assert_eq!(world.sent.len(), 6);
    }
    let mut world = World::new(|request: &Outbound| match request.url.host_str() {
        Some("cdn.example.com") => http(302, &[("location", "https://169.254.169.254/")]),
        _ => http(302, &[("location", "https://cdn.example.com/")]),
    });
    assert_eq!(world.ask(blob(hub(), Verb::Get)).unwrap_err().reason, Reason::UpstreamRedirectRefused);
    assert_eq!(world.sent.len(), 2);
}

#[test]
fn t_ss1_listed_hosts_and_no_others() {
    let source = || Source {
        blob_hosts: Some(vec!["*.cloudfront.net".parse().unwrap(), "10.0.0.5".parse().unwrap()]),
        ..hub()
    };
    assert!(follow(source(), "https://d1.cloudfront.net/a").0.is_ok());
    let failure = follow(source(), "https://cdn.example.com/a?sig=canary").0.unwrap_err();
    assert!(failure.internal.unwrap().ends_with("(to https://cdn.example.com/a)"));
    assert!(failure.public.contains("blob_hosts") && !failure.public.contains("cdn"));
    for location in [
        "https://cdn.example.com/a",
        "https://d1.cloudfront.net:8443/a",
        "https://d1.cloudfront.net.evil.com/a",
        "https://10.0.0.6/a",
        "https://10.0.0.5:9000/a",
    ] {
        assert_eq!(follow(source(), location).1, 1, "{location}");
    }
    assert_eq!(follow(source(), "https://10.0.0.5/a").1, 1, "listed, but private");
    let private = Source { allow_private: true, ..source() };
    assert!(follow(private, "https://10.0.0.5/a").0.is_ok());
    let insecure = Source { insecure: true, ..source() };
    assert!(follow(insecure, "http://d1.cloudfront.net/a").0.is_ok());
}

#[test]
fn t_ss1_private_targets_are_for_those_who_allow_them() {
    let source = || Source { allow_private: true, ..hub() };
    assert!(follow(source(), "https://10.0.0.5:9000/a").0.is_ok());
    assert!(follow(source(), "https://minio/a").0.is_ok());
    assert!(follow(source(), "http://minio/a").0.is_err());
}

#[test]
fn t_ss1_a_configured_address_is_no_exception() {
    let source = || Source { url: url("https://10.0.0.5"), ..hub() };
    let mut world = World::new(|_: &Outbound| http(200, &MANIFEST));
    let failure = world.ask(tag(source(), Verb::Get)).unwrap_err();
    assert!(world.sent.is_empty() && failure.public.contains("allow_private"));
    assert!(!failure.public.contains("10.0.0.5"), "{failure}");
    world.ask(tag(Source { allow_private: true, ..source() }, Verb::Get)).unwrap();
}

#[test]
fn an_expired_link_is_asked_for_afresh_once() {
    for status in [400, 401, 403, 404] {
        let mut links = 0;
        let mut script = |request: &Outbound| match request.url.path().starts_with("/v2/") {
            true => {
                links += 1;
                Said::Http(
                    307,
                    vec![("location", format!("https://cdn.example.com/{links}?sig=canary"))],
                    String::new(),
                )
            }
            false if request.url.path() == "/2" => http(200, &[("content-length", "3")]),
            false => http(status, &[]),
        };
        let mut world = World::new(&mut script);
        world.ask(blob(account(), Verb::Get)).unwrap();
        assert_eq!(world.sent.len(), 4);

        let mut world = World::new(|request: &Outbound| match request.url.path().starts_with("/v2/") {
            true => http(307, &[("location", "https://cdn.example.com/a?sig=canary")]),
            false => http(status, &[("www-authenticate", CHALLENGE)]),
        });
        let failure = world.ask(blob(account(), Verb::Get)).unwrap_err();
        assert_eq!(world.sent.len(), 4);
        assert!(!failure.reason.is_absence());
        assert!(!failure.public.contains("canary") && !failure.internal.unwrap().contains("canary"));
    }
}

#[test]
fn t_ss4_token_services_that_redirect_are_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let mut world = World::new(|request: &Outbound| match is_token(request) {
            true => http(status, &[("location", "https://auth.docker.io/elsewhere")]),
            false => http(401, &[("www-authenticate", CHALLENGE)]),
        });
        let failure = world.ask(tag(account(), Verb::Get)).unwrap_err();
        assert_eq!((failure.reason, world.sent.len()), (Reason::UpstreamRedirectRefused, 2));
    }
}
