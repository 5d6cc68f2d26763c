//! A blob in pieces: what a first piece and further ones ask for, and what they put up with.

use super::*;
use crate::failure::Reason;
use crate::upstream::Origin;
use crate::upstream::pieces::{AHEAD, FURTHER, Line};

const BLOB: [(&str, &str); 2] = [("content-length", "100"), ("etag", "\"v1\"")];

/// A host with a blob of 100 bytes that honours `Range` and `If-Range`.
fn parts(request: &Outbound, etag: &'static str) -> Said {
    let text = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap());
    let range = text("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    match range.filter(|_| text("if-range").is_none_or(|tag| tag == etag)) {
        Some((first, last)) => {
            let last = if last.is_empty() { "99" } else { last };
            let range = format!("bytes {first}-{last}/100");
            Said::Http(206, vec![("content-range", range), ("etag", etag.into())], String::new())
        }
        None => http(200, &[("content-length", "100"), ("etag", etag)]),
    }
}

/// A registry that wants a token and has its blobs elsewhere, under links that it signs.
fn hub_with_cdn() -> impl FnMut(&Outbound) -> Said {
    let mut links = 0;
    let mut registry = bearer(move |_| {
        links += 1;
        Said::Http(307, vec![("location", format!("https://cdn.example.com/{links}"))], String::new())
    });
    move |request| match request.url.host_str() {
        Some("cdn.example.com") => parts(request, "\"cdn\""),
        _ => registry(request),
    }
}

#[test]
fn further_pieces_go_the_way_of_the_first() {
    let mut world = World::new(hub_with_cdn());
    let mut first = Exchange::opening(blob(account(), Verb::Get), 30);
    let reply = world.run(&mut first).unwrap();
    assert_eq!((reply.offset, reply.length, reply.size, first.until()), (0, Some(30), Some(100), Some(30)));
    let asked = world.sent.len();
    let mut second = first.piece(30..70);
    let reply = world.run(&mut second).unwrap();
    assert_eq!((reply.offset, reply.length, second.until()), (30, Some(40), Some(70)));
    // Nobody but the host of the link is asked, by what it said of the object.
    assert_eq!(world.lines()[asked..], ["GET https://cdn.example.com/1"]);
    let sent = &world.sent[asked];
    assert_eq!(
        (&sent.headers["range"], &sent.headers["if-range"]),
        (&value("bytes=30-69"), &value("\"cdn\""))
    );
    assert!(sent.apart && !world.sent[0].apart);
    // A piece is resumed within its bounds, by a fresh link.
    let reply = world.broken(&mut second, 50).unwrap();
    assert_eq!((reply.offset, reply.length, second.until()), (50, Some(20), Some(70)));
    assert_eq!(world.lines().last().unwrap(), "GET https://cdn.example.com/2");
    assert_eq!(world.tokens_asked(), 1);
    world.assert_clean_except(&["https://registry-1.docker.io", "https://auth.docker.io"]);
}

#[test]
fn a_link_that_has_expired_is_asked_for_anew() {
    let mut all = hub_with_cdn();
    let mut world =
        World::new(move |request: &Outbound| match (request.url.path(), request.headers.get("range")) {
            ("/1", Some(range)) if range != "bytes=0-29" => http(403, &[]),
            _ => all(request),
        });
    let mut first = Exchange::opening(blob(hub(), Verb::Get), 30);
    world.run(&mut first).unwrap();
    assert_eq!(world.run(&mut first.piece(30..70)).unwrap().offset, 30);
    assert_eq!(world.lines().last().unwrap(), "GET https://cdn.example.com/2");
}

/// T-UF7: a token that expires between two pieces.
#[test]
fn t_uf7_a_piece_whose_token_has_expired_takes_another() {
    let mut tokens = 0;
    let mut asked = 0;
    let mut world = World::new(move |request: &Outbound| {
        if is_token(request) {
            tokens += 1;
            return http(200, &[]).body(&format!(r#"{{"token":"t{tokens}","expires_in":300}}"#));
        }
        asked += u32::from(authorization(&request.headers) == "Bearer t1");
        match authorization(&request.headers) {
            "Bearer t1" if asked == 1 => parts(request, "\"v1\""),
            "Bearer t2" => parts(request, "\"v1\""),
            _ => http(401, &[("www-authenticate", CHALLENGE)]),
        }
    });
    let mut first = Exchange::opening(blob(hub(), Verb::Get), 30);
    world.run(&mut first).unwrap();
    for piece in [30..60, 60..100] {
        assert_eq!(world.run(&mut first.piece(piece.clone())).unwrap().offset, piece.start);
    }
    assert_eq!(world.tokens_asked(), 2);
}

/// T-UF4: an upstream that serves no parts is asked for everything, whatever it says instead of a first one.
#[test]
fn t_uf4_a_first_piece_that_is_not_to_be_had_is_the_whole() {
    for (refusal, requests) in [
        (http(200, &BLOB), 1),
        (http(416, &[("content-range", "bytes */100")]), 2),
        (http(206, &[]), 2),
        (http(206, &[("content-range", "bytes 0-9/100")]), 2),
        (http(206, &[("content-range", "bytes 1-29/100")]), 2),
        (http(206, &[("content-range", "bytes 0-29/100"), ("content-length", "7")]), 2),
    ] {
        let said = refusal.clone();
        let mut world = World::new(move |request: &Outbound| match request.headers.contains_key("range") {
            true => said.clone(),
            false => http(200, &BLOB),
        });
        let mut first = Exchange::opening(blob(hub(), Verb::Get), 30);
        let reply = world.run(&mut first).unwrap();
        assert_eq!((reply.offset, reply.length, first.until()), (0, Some(100), None), "{refusal:?}");
        assert_eq!(world.sent.len(), requests, "{refusal:?}");
    }
}

/// T-UF4: parts of different objects are never put together.
#[test]
fn t_uf4_a_further_piece_is_one_of_the_same_object_or_none() {
    for refusal in [
        http(200, &BLOB),
        http(416, &[("content-range", "bytes */100")]),
        http(206, &[("content-range", "bytes 30-69/100"), ("etag", "\"v2\"")]),
        http(206, &[("content-range", "bytes 30-69/101"), ("etag", "\"v1\"")]),
        http(206, &[("content-range", "bytes 30-59/100"), ("etag", "\"v1\"")]),
        http(206, &[("content-range", "bytes 0-69/100"), ("etag", "\"v1\"")]),
        http(206, &[]),
    ] {
        let said = refusal.clone();
        let mut world = World::new(move |request: &Outbound| match &request.headers["range"] {
            range if range == "bytes=30-69" => said.clone(),
            _ => parts(request, "\"v1\""),
        });
        let mut first = Exchange::opening(blob(hub(), Verb::Get), 30);
        world.run(&mut first).unwrap();
        let failure = world.run(&mut first.piece(30..70)).unwrap_err();
        assert_eq!(failure.reason, Reason::RangeInvalid, "{refusal:?}");
        assert_eq!(world.sent.len(), 2, "{refusal:?}");
        // One conversation goes on from what is there.
        let reply = world.run(&mut first.rest(30)).unwrap();
        assert_eq!((reply.offset, reply.length), (30, Some(70)));
    }
}

/// What refuses one of several connections may be one too many for it: it is neither asked again nor left alone for that.
#[test]
fn a_further_piece_that_is_refused_is_over_and_costs_nobody_else() {
    for refusal in
        [http(429, &[("retry-after", "7")]), http(503, &[]), http(502, &[]), Said::Fault(Fault::Connect)]
    {
        let said = refusal.clone();
        let mut world = World::new(move |request: &Outbound| match request.headers.get("range") {
            Some(range) if range == "bytes=30-69" => said.clone(),
            _ => parts(request, "\"v1\""),
        });
        let mut first = Exchange::opening(blob(hub(), Verb::Get), 30);
        world.run(&mut first).unwrap();
        for _ in 0..20 {
            world.run(&mut first.piece(30..70)).unwrap_err();
        }
        assert_eq!(world.sent.len(), 21, "{refusal:?}");
        let registry = Origin::of(&url("https://registry-1.docker.io"));
        let line = world.state.line(&registry, world.now).unwrap();
        assert_eq!(line != Line::new(Duration::ZERO, true), matches!(refusal, Said::Http(429 | 503, ..)));
        assert_eq!(world.run(&mut first.rest(30)).unwrap().offset, 30, "{refusal:?}");
    }
}

#[test]
fn the_way_to_blobs_is_measured_where_they_are() {
    let mut world = World::new(hub_with_cdn());
    world.run(&mut Exchange::new(blob(hub(), Verb::Get))).unwrap();
    let registry = Origin::of(&url("https://registry-1.docker.io"));
    let line = world.state.line(&registry, world.now).unwrap();
    assert_eq!(line, Line::new(Duration::ZERO, true));
    assert_eq!(world.state.line(&Origin::of(&url("https://cdn.example.com")), world.now), None);
}

#[test]
fn further_connections_are_counted_for_each_source() {
    let mut state = UpstreamState::new();
    let other = Source { name: "other".into(), ..hub() };
    let taken = (0..100).filter(|_| state.take_further(&hub(), FURTHER)).count();
    assert_eq!(taken, FURTHER);
    assert!(state.take_further(&other, FURTHER));
    state.give_back(&hub());
    assert!(state.take_further(&hub(), FURTHER) && !state.take_further(&hub(), FURTHER));
    let ahead = (0..100).filter(|_| state.take_further(&hub(), AHEAD)).count();
    assert_eq!(ahead, AHEAD - FURTHER, "who goes ahead need not wait for large layers");
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap()
}
