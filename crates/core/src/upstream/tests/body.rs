//! Heads that make sense and heads that do not; ranges; resumption.

use super::*;
use crate::failure::Reason;

const BLOB: [(&str, &str); 2] = [("content-length", "100"), ("etag", "\"v1\"")];

fn once(ask: Ask, said: Said) -> Result<Reply, Failure> {
    World::new(move |_: &Outbound| said.clone()).ask(ask)
}

#[test]
fn urls_of_every_kind() {
    let digest = || DIGEST.parse().unwrap();
    for (what, path) in [
        (What::Manifest(DIGEST.parse().unwrap()), format!("manifests/{DIGEST}")),
        (What::Blob(digest()), format!("blobs/{DIGEST}")),
        (What::Tags(String::new()), "tags/list".into()),
        (What::Tags("n=5&last=a".into()), "tags/list?n=5&last=a".into()),
        (What::Referrers(digest(), "artifactType=x".into()), format!("referrers/{DIGEST}?artifactType=x")),
    ] {
        let source = Source { url: url("https://user:pw@r.example.com:8443/ignored?x#y"), ..hub() };
        let mut world = World::new(|_: &Outbound| http(200, &[("content-length", "3")]));
        let reply = world.ask(ask(source, Verb::Get, what)).unwrap();
        assert_eq!(world.lines(), [format!("GET https://r.example.com:8443/v2/library/nginx/{path}")]);
        assert_eq!(reply.upstream.as_str(), "https://r.example.com:8443/");
    }
}

#[test]
fn t_hu3_answers_that_are_none() {
    let html: &[(&str, &str)] = &[("content-type", "text/html; charset=utf-8"), ("content-length", "9")];
    for said in [
        http(200, html),
        http(200, &[("content-length", "0")]),
        http(204, &[]),
        http(206, &[("content-range", "bytes 0-2/3")]),
        http(304, &[]),
        http(100, &[]),
        http(101, &[]),
        http(203, &[]),
        http(300, &[]),
        http(305, &[]),
        http(302, &[]),
        http(200, &[("content-encoding", "gzip")]),
        http(200, &[("content-encoding", "identity"), ("content-encoding", "x-gzip")]),
        http(200, &[("content-length", "3"), ("content-length", "4")]),
        http(200, &[("content-length", "-3")]),
        http(200, &[("content-length", "+3")]),
        http(200, &[("content-length", "99999999999999999999")]),
        http(999, &[]),
        http(418, &[]),
    ] {
        let failure = once(tag(hub(), Verb::Get), said.clone()).unwrap_err();
        let redirect = matches!(said, Said::Http(302, ..));
        let reason = if redirect { Reason::UpstreamRedirectRefused } else { Reason::UpstreamBadAnswer };
        assert_eq!(failure.reason, reason, "{said:?}");
    }
    assert!(once(blob(hub(), Verb::Get), http(200, html)).is_ok(), "a blob may be a page; its digest tells");
    assert!(once(blob(hub(), Verb::Get), http(200, &[("content-length", "0")])).is_ok());
    assert!(once(tag(hub(), Verb::Get), http(200, &[("content-encoding", "identity")])).is_ok());
}

#[test]
fn a_reply_carries_what_is_known() {
    let reply = once(tag(hub(), Verb::Head), http(200, &MANIFEST)).unwrap();
    assert_eq!((reply.offset, reply.length, reply.size), (0, None, Some(3)));
    let reply = once(tag(hub(), Verb::Get), http(200, &MANIFEST)).unwrap();
    assert_eq!((reply.offset, reply.length, reply.size), (0, Some(3), Some(3)));
    let said = http(
        200,
        &[("transfer-encoding", "chunked"), ("set-cookie", "a=b"), ("docker-content-digest", DIGEST)],
    );
    let reply = once(tag(hub(), Verb::Get), said).unwrap();
    assert_eq!((reply.length, reply.size), (None, None));
    assert_eq!(reply.headers.len(), 1);
    assert_eq!(reply.headers["docker-content-digest"], DIGEST);
}

#[test]
fn parts_that_fit_and_parts_that_do_not() {
    let part = |first, last, range: &str| {
        once(ranged(hub(), first, last), http(206, &[("content-range", range)]))
            .map(|reply| (reply.offset, reply.length, reply.size))
            .map_err(|failure| failure.reason)
    };
    let bad = Err(Reason::UpstreamBadAnswer);
    assert_eq!(part(10, None, "bytes 10-99/100"), Ok((10, Some(90), Some(100))));
    assert_eq!(part(10, Some(19), "bytes 10-19/100"), Ok((10, Some(10), Some(100))));
    assert_eq!(part(10, Some(200), "bytes 10-99/100"), Ok((10, Some(90), Some(100))));
    assert_eq!(part(10, Some(19), "bytes 10-19/*"), Ok((10, Some(10), None)));
    assert_eq!(part(10, None, "bytes 0-99/100"), bad);
    assert_eq!(part(10, None, "bytes 11-99/100"), bad);
    assert_eq!(part(10, None, "bytes 10-50/100"), bad);
    assert_eq!(part(10, Some(19), "bytes 10-20/100"), bad);
    assert_eq!(part(10, None, "bytes 10-100/100"), bad);
    assert_eq!(part(10, None, "bytes 10-9/100"), bad);
    assert_eq!(part(10, None, "bytes */100"), bad);
    assert_eq!(part(10, None, "items 10-99/100"), bad);
    assert_eq!(part(0, None, "bytes 0-18446744073709551615/*"), bad);
    for headers in [
        &[][..],
        &[("content-range", "bytes 10-99/100"), ("content-length", "91")],
        &[("content-range", "bytes 10-99/100"), ("content-range", "bytes 10-99/100")],
        &[("content-range", "bytes 10-99/100"), ("content-type", "multipart/byteranges; boundary=x")],
    ] {
        assert_eq!(
            once(ranged(hub(), 10, None), http(206, headers)).unwrap_err().reason,
            Reason::UpstreamBadAnswer
        );
    }
    let whole = once(ranged(hub(), 10, Some(19)), http(200, &BLOB)).unwrap();
    assert_eq!((whole.offset, whole.length, whole.status.as_u16()), (0, Some(100), 200));
    let beyond = once(ranged(hub(), 500, None), http(416, &[("content-range", "bytes */100")])).unwrap_err();
    assert_eq!(beyond.reason, Reason::RangeInvalid);
}

#[test]
fn a_refused_head_is_replaced_by_the_first_byte() {
    let run = |refusal: u16, answer: Said| {
        let mut world = World::new(move |request: &Outbound| match request.url.path().starts_with("/v2/") {
            true => http(307, &[("location", "https://cdn.example.com/a")]),
            false if request.method == http::Method::HEAD => http(refusal, &[]),
            false => answer.clone(),
        });
        let reply = world.ask(blob(hub(), Verb::Head)).unwrap();
        let last = world.sent.last().unwrap();
        assert_eq!((last.method.as_str(), last.headers["range"].to_str().unwrap()), ("GET", "bytes=0-0"));
        assert_eq!(world.sent.len(), 4);
        assert_eq!(
            (reply.status.as_u16(), reply.length, reply.headers.get("content-range")),
            (200, None, None)
        );
        assert_eq!(reply.headers["content-length"].to_str().unwrap(), reply.size.unwrap().to_string());
        reply.size.unwrap()
    };
    let part = http(206, &[("content-range", "bytes 0-0/100"), ("content-length", "1")]);
    for refusal in [400, 403, 405, 501] {
        assert_eq!(run(refusal, part.clone()), 100);
    }
    assert_eq!(run(200, part), 100, "a HEAD that tells no size");
    assert_eq!(run(403, http(200, &BLOB)), 100);
    assert_eq!(run(403, http(416, &[("content-range", "bytes */0")])), 0);
    assert_eq!(once(tag(hub(), Verb::Head), http(405, &[])).unwrap_err().reason, Reason::UpstreamUnsupported);
}

/// A registry with a blob of 100 bytes that honours `Range` and `If-Range`.
fn store(etag: &'static str) -> impl FnMut(&Outbound) -> Said {
    move |request| {
        let range = request.headers.get("range").map(|range| range.to_str().unwrap());
        let same = request.headers.get("if-range").is_none_or(|tag| tag == etag);
        match range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-')) {
            Some((first, last)) if same => {
                let last = if last.is_empty() { "99" } else { last };
                let range = format!("bytes {first}-{last}/100");
                Said::Http(206, vec![("content-range", range), ("etag", etag.into())], String::new())
            }
            _ => http(200, &[("content-length", "100"), ("etag", etag)]),
        }
    }
}

#[test]
fn t_uf4_a_broken_body_goes_on_where_it_broke() {
    for sixteenth in 1..16_u64 {
        let received = sixteenth * 100 / 16;
        let mut world = World::new(store("\"v1\""));
        let mut exchange = Exchange::new(blob(hub(), Verb::Get));
        world.run(&mut exchange).unwrap();
        let reply = world.broken(&mut exchange, received).unwrap();
        assert_eq!((reply.offset, reply.length, reply.size), (received, Some(100 - received), Some(100)));
        let headers = &world.sent[1].headers;
        assert_eq!(headers["range"], format!("bytes={received}-"));
        assert_eq!(headers["if-range"], "\"v1\"");
        assert_eq!(world.waits.len(), 1);
    }
}

#[test]
fn t_uf4_a_part_goes_on_within_its_bounds() {
    let mut world = World::new(store("\"v1\""));
    let mut exchange = Exchange::new(ranged(hub(), 20, Some(59)));
    assert_eq!(world.run(&mut exchange).unwrap().length, Some(40));
    let reply = world.broken(&mut exchange, 40).unwrap();
    assert_eq!((reply.offset, reply.length), (40, Some(20)));
    assert_eq!(world.sent[1].headers["range"], "bytes=40-59");
}

#[test]
fn t_uf4_what_changed_is_fetched_whole() {
    // The registry heeds If-Range, ignores it, or has another size; or it does not know ranges at all.
    for second in [
        http(200, &[("content-length", "100"), ("etag", "\"v2\"")]),
        http(206, &[("content-range", "bytes 50-99/100"), ("etag", "\"v2\"")]),
        http(206, &[("content-range", "bytes 50-119/120"), ("etag", "\"v1\"")]),
        http(416, &[("content-range", "bytes */10")]),
    ] {
        let mut world = World::new(move |request: &Outbound| match request.headers.contains_key("range") {
            true => second.clone(),
            false => http(200, &BLOB),
        });
        let mut exchange = Exchange::new(blob(hub(), Verb::Get));
        world.run(&mut exchange).unwrap();
        let reply = world.broken(&mut exchange, 50).unwrap();
        assert_eq!((reply.offset, reply.status.as_u16()), (0, 200));
        // From then on that is what is resumed.
        assert_eq!(exchange.ask().range, None);
    }
}

#[test]
fn t_uf4_weak_validators_and_those_of_others_are_not_sent() {
    let mut world = World::new(|request: &Outbound| match request.headers.contains_key("range") {
        true => http(206, &[("content-range", "bytes 50-99/100")]),
        false => http(200, &[("content-length", "100"), ("etag", "W/\"v1\"")]),
    });
    let mut exchange = Exchange::new(blob(hub(), Verb::Get));
    world.run(&mut exchange).unwrap();
    world.broken(&mut exchange, 50).unwrap();
    assert!(!world.sent[1].headers.contains_key("if-range"));

    let mut links = 0;
    let mut world = World::new(move |request: &Outbound| match request.url.path().starts_with("/v2/") {
        true => {
            links += 1;
            Said::Http(307, vec![("location", format!("https://cdn.example.com/{links}"))], String::new())
        }
        false => store("\"cdn\"")(request),
    });
    let mut exchange = Exchange::new(blob(account(), Verb::Get));
    world.run(&mut exchange).unwrap();
    world.broken(&mut exchange, 50).unwrap();
    let [_, _, registry, cdn] = world.sent.as_slice() else { panic!() };
    assert!(!registry.headers.contains_key("if-range") && registry.headers.contains_key("range"));
    assert_eq!((cdn.url.path(), &cdn.headers["if-range"]), ("/2", &HeaderValue::from_static("\"cdn\"")));
}

#[test]
fn t_uf4_breaks_are_counted() {
    let mut world = World::new(store("\"v1\""));
    let mut exchange = Exchange::new(blob(hub(), Verb::Get));
    world.run(&mut exchange).unwrap();
    for received in [10, 20, 30, 40, 50] {
        world.broken(&mut exchange, received).unwrap();
    }
    let failure = world.broken(&mut exchange, 60).unwrap_err();
    assert_eq!(failure.reason, Reason::UpstreamUnreachable);

    let mut exchange = Exchange::new(blob(hub(), Verb::Get));
    world.run(&mut exchange).unwrap();
    world.broken(&mut exchange, 10).unwrap();
    world.broken(&mut exchange, 10).unwrap();
    world.broken(&mut exchange, 10).unwrap();
    assert!(world.broken(&mut exchange, 10).is_err(), "three tries that brought nothing");
    assert_eq!(world.broken(&mut exchange, 10).unwrap_err().reason, Reason::Internal);
}

#[test]
fn t_uf4_a_long_stretch_makes_up_for_breaks() {
    let size = 400 * 1024 * 1024_u64;
    let mut world = World::new(move |request: &Outbound| match request.headers.get("range") {
        Some(range) => {
            let first = range.to_str().unwrap().trim_start_matches("bytes=").trim_end_matches('-');
            Said::Http(
                206,
                vec![("content-range", format!("bytes {first}-{}/{size}", size - 1))],
                String::new(),
            )
        }
        None => Said::Http(200, vec![("content-length", size.to_string())], String::new()),
    });
    let mut exchange = Exchange::new(blob(hub(), Verb::Get));
    world.run(&mut exchange).unwrap();
    for twentieth in 1..20 {
        world.broken(&mut exchange, twentieth * size / 20).unwrap();
    }
}
