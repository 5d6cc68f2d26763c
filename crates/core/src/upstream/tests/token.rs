//! Token services.

use super::*;
use crate::failure::Reason;

/// A registry that takes whatever token the service gave last.
fn service(mut token: impl FnMut(&Outbound) -> Said) -> impl FnMut(&Outbound) -> Said {
    move |request| match is_token(request) {
        true => token(request),
        false if authorization(&request.headers).starts_with("Bearer ") => http(200, &MANIFEST),
        false => http(401, &[("www-authenticate", CHALLENGE)]),
    }
}

/// How long a token granted with this lifetime is used, in seconds.
fn lasts(lifetime: &str) -> u64 {
    let body = format!(r#"{{"token":"t"{lifetime}}}"#);
    let mut world = World::new(service(move |_| http(200, &[]).body(&body)));
    world.ask(tag(hub(), Verb::Get)).unwrap();
    for second in 1..10_000 {
        world.pass(Duration::from_secs(1));
        world.ask(tag(hub(), Verb::Get)).unwrap();
        if world.tokens_asked() > 1 {
            return second;
        }
    }
    u64::MAX
}

#[test]
fn t_uf7_lifetimes() {
    assert_eq!(lasts(""), 54);
    assert_eq!(lasts(r#","expires_in":0"#), 54);
    assert_eq!(lasts(r#","expires_in":null"#), 54);
    assert_eq!(lasts(r#","expires_in":-5"#), 54);
    assert_eq!(lasts(r#","expires_in":"soon""#), 54);
    assert_eq!(lasts(r#","expires_in":300"#), 270);
    assert_eq!(lasts(r#","expires_in":100"#), 90);
    assert_eq!(lasts(r#","expires_in":18446744073709551615"#), 3570);
    assert_eq!(lasts(r#","expires_in":1e300"#), 54);
}

/// Only the time since receipt counts, whatever clocks say.
#[test]
fn t_uf7_clock_skew_is_harmless() {
    for skew in [-600_000_i64, 600_000] {
        let mut world = World::new(service(|_| {
            http(200, &[("date", "Mon, 01 Jan 2035 00:00:00 GMT")])
                .body(r#"{"token":"t","expires_in":300,"issued_at":"2001-01-01T00:00:00Z"}"#)
        }));
        world.ask(tag(hub(), Verb::Get)).unwrap();
        world.now.wall = Wall(world.now.wall.0.wrapping_add_signed(skew));
        world.ask(tag(hub(), Verb::Get)).unwrap();
        assert_eq!(world.tokens_asked(), 1);
    }
}

#[test]
fn t_uf7_a_token_that_is_no_longer_honoured_is_replaced_once() {
    let mut given = 0;
    let mut revoked = false;
    let mut script = |request: &Outbound| {
        if is_token(request) {
            given += 1;
            return http(200, &[]).body(&format!(r#"{{"token":"t{given}","expires_in":300}}"#));
        }
        let honoured = if revoked { "Bearer t2" } else { "Bearer t1" };
        if request.url.path().ends_with("revoke") {
            revoked = true;
        }
        match authorization(&request.headers) == honoured {
            true => http(200, &MANIFEST),
            false => http(401, &[("www-authenticate", CHALLENGE)]),
        }
    };
    let mut world = World::new(&mut script);
    world.ask(tag(hub(), Verb::Get)).unwrap();
    world.ask(ask(hub(), Verb::Get, What::Manifest("revoke".parse().unwrap()))).unwrap();
    world.ask(tag(hub(), Verb::Get)).unwrap();
    world.ask(tag(hub(), Verb::Get)).unwrap();
    assert_eq!(world.tokens_asked(), 2);
}

/// Whoever finds a token while another conversation fetches it takes that one.
#[test]
fn t_uf7_a_thousand_conversations_share_a_token() {
    let mut world = World::new(service(|_| http(200, &[]).body(r#"{"token":"t","expires_in":300}"#)));
    world.ask(ask(hub(), Verb::Get, What::Manifest("other".parse().unwrap()))).unwrap();
    world.pass(Duration::from_secs(290));
    let (now, mut asks) = (world.now, vec![]);
    for _ in 0..1000 {
        let mut exchange = Exchange::new(tag(hub(), Verb::Get));
        let Step::Token(ask) = exchange.step(&mut world.state, now, 0, Input::Start) else { panic!() };
        asks.push((exchange, ask));
    }
    for (mut exchange, ask) in asks {
        let token = world.token(ask).unwrap();
        let step = exchange.step(&mut world.state, now, 0, Input::Token(Ok(token)));
        world.go_on(&mut exchange, step).unwrap();
    }
    assert_eq!(world.tokens_asked(), 2);
}

#[test]
fn t_uf7_two_scopes_two_tokens() {
    let mut world = World::new(service(|_| http(200, &[]).body(r#"{"token":"t","expires_in":300}"#)));
    for repository in ["library/nginx", "library/redis", "library/nginx", "library/redis"] {
        world.ask(Ask { repository: repository.parse().unwrap(), ..tag(hub(), Verb::Get) }).unwrap();
    }
    assert_eq!(world.tokens_asked(), 2);
}

/// Where a registry once sent us for tokens is forgotten when there are none.
#[test]
fn a_registry_may_move_its_token_service() {
    let moved = std::cell::Cell::new(false);
    let mut world = World::new(|request: &Outbound| match (is_token(request), moved.get()) {
        (true, _) => http(404, &[]),
        (false, true) => http(200, &MANIFEST),
        (false, false) => http(401, &[("www-authenticate", CHALLENGE)]),
    });
    world.ask(tag(hub(), Verb::Get)).unwrap_err();
    moved.set(true);
    world.ask(tag(hub(), Verb::Get)).unwrap();
}

#[test]
fn failures_keep_their_class() {
    let fails = |said: Said| {
        let mut world = World::new(service(move |_| said.clone()));
        let failure = world.ask(tag(account(), Verb::Get)).unwrap_err();
        assert!(failure.public.contains("auth.docker.io"), "{failure}");
        (failure.reason, world.tokens_asked())
    };
    assert_eq!(fails(http(401, &[])), (Reason::UpstreamUnauthorized, 1));
    assert_eq!(fails(http(403, &[])), (Reason::UpstreamDenied, 1));
    assert_eq!(fails(http(429, &[])), (Reason::UpstreamRateLimited, 1));
    assert_eq!(fails(http(404, &[])), (Reason::UpstreamBadAnswer, 1));
    assert_eq!(fails(http(400, &[])), (Reason::UpstreamBadAnswer, 1));
    assert_eq!(fails(http(500, &[])), (Reason::UpstreamServerError, 2));
    assert_eq!(fails(http(503, &[])), (Reason::UpstreamServerError, 3));
    assert_eq!(fails(http(503, &[("retry-after", "60")])), (Reason::UpstreamServerError, 1));
    assert_eq!(fails(http(504, &[])), (Reason::UpstreamTimeout, 3));
    assert_eq!(fails(Said::Fault(Fault::Timeout)), (Reason::UpstreamTimeout, 3));
    assert_eq!(fails(Said::Fault(Fault::Connect)), (Reason::UpstreamUnreachable, 3));
    assert_eq!(fails(Said::Fault(Fault::Dns)), (Reason::UpstreamNameUnresolved, 3));
    assert_eq!(fails(Said::Fault(Fault::Tls)), (Reason::UpstreamTls, 1));
    assert_eq!(fails(http(200, &[("content-encoding", "gzip")])), (Reason::UpstreamBadAnswer, 1));
    for body in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"token":""}"#,
        r#"{"token":"a b"}"#,
        r#"{"token":"a\r\nX: y"}"#,
        r#"{"token":7}"#,
    ] {
        assert_eq!(fails(http(200, &[]).body(body)), (Reason::UpstreamBadAnswer, 1), "{body}");
    }
    assert_eq!(fails(http(200, &[]).body(&"x".repeat(70_000))), (Reason::UpstreamBadAnswer, 1));
}

#[test]
fn a_realm_keeps_its_own_query() {
    let challenge = r#"Bearer realm="https://auth.docker.io/token?account=a%26b#frag",service="a&scope=b""#;
    let mut world = World::new(|request: &Outbound| match is_token(request) {
        true => http(200, &[]).body(r#"{"token":"","access_token":"t"}"#),
        false if authorization(&request.headers) == "Bearer t" => http(200, &MANIFEST),
        false => http(401, &[("www-authenticate", challenge)]),
    });
    world.ask(tag(hub(), Verb::Get)).unwrap();
    let query = world.sent[1].url.query().unwrap();
    assert_eq!(query, "account=a%26b&service=a%26scope%3Db&scope=repository%3Alibrary%2Fnginx%3Apull");
    assert_eq!(world.sent[1].url.fragment(), None);
}

#[test]
fn memory_is_bounded() {
    let mut world = World::new(service(|_| http(200, &[]).body(r#"{"token":"t","expires_in":300}"#)));
    for number in 0..4200 {
        let repository = format!("library/x{number}").parse().unwrap();
        world.ask(Ask { repository, ..tag(hub(), Verb::Head) }).unwrap();
    }
    assert_eq!(world.state.sizes(), [4096, 2, 1, 0]);
    let mut world = World::new(|request: &Outbound| match request.url.host_str() {
        Some("registry-1.docker.io") => Said::Http(307, vec![], String::new()),
        _ => http(200, &[]),
    });
    for number in 0..1100 {
        let source = Source {
            url: url(&format!("https://r{number}.example.com")),
            name: format!("{number}").into(),
            ..hub()
        };
        let script = |_: &Outbound| http(200, &[("ratelimit-remaining", "5;w=60"), ("content-length", "3")]);
        let mut exchange = Exchange::new(tag(source, Verb::Get));
        let Step::Send(request) = exchange.step(&mut world.state, world.now, 0, Input::Start) else {
            panic!()
        };
        let Said::Http(_, headers, _) = script(&request) else { panic!() };
        let mut response = Response::new(());
        for (name, value) in headers {
            response.headers_mut().append(name, HeaderValue::from_str(&value).unwrap());
        }
        let step = exchange.step(&mut world.state, world.now, 0, Input::Head(response.into_parts().0));
        assert!(matches!(step, Step::Done(Ok(_))));
    }
    assert_eq!(world.state.sizes(), [0, 1024, 0, 1024]);
}

/// Two conversations find their token refused; the second takes what the first has got meanwhile.
#[test]
fn t_uf7_a_refused_token_is_replaced_once_for_all() {
    let mut given = 0;
    let mut script = |request: &Outbound| {
        if is_token(request) {
            given += 1;
            return http(200, &[]).body(&format!(r#"{{"token":"t{given}","expires_in":300}}"#));
        }
        match authorization(&request.headers) {
            "Bearer t2" => http(200, &MANIFEST),
            "Bearer t1" if request.method == http::Method::HEAD => http(200, &MANIFEST),
            _ => http(401, &[("www-authenticate", CHALLENGE)]),
        }
    };
    let mut world = World::new(&mut script);
    world.ask(tag(hub(), Verb::Head)).unwrap();
    let mut late = Exchange::new(tag(hub(), Verb::Get));
    let sent = late.step(&mut world.state, world.now, 0, Input::Start);
    assert!(matches!(&sent, Step::Send(request) if authorization(&request.headers) == "Bearer t1"));
    world.ask(tag(hub(), Verb::Get)).unwrap();
    world.go_on(&mut late, sent).unwrap();
    assert_eq!(world.tokens_asked(), 2);
}
