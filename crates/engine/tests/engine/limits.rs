//! The limits on clients, and what they are counted on.

use http::Method;

use crate::memory::{Ask, World, get, head};
use crate::samples::{KNOWN, PRIVATE, PUBLIC, digest, image};

const TAG: &str = "app/manifests/v1";

/// Two pulls a minute, so twenty requests.
fn world() -> World {
    World::new(&format!("  rate_limit: {{ anonymous: \"2/min\", burst: 2 }}\n{PUBLIC}"))
}

#[test]
fn pulls_are_counted_exactly_and_heads_and_blobs_are_not_pulls() {
    let world = world();
    let text = image("one");
    world.expect(get(TAG).manifest(&text));
    let blob = format!("app/blobs/{}", digest(b"a layer"));
    world.expect(get(&blob).blob(b"a layer"));
    let first = world.get(TAG);
    assert_eq!((first.brief(), first.header("ratelimit-remaining")), ("200 MISS".into(), Some("1;w=60")));
    for _ in 0..3 {
        assert_eq!(world.head(TAG).header("ratelimit-remaining"), None);
        assert_eq!(world.get(&blob).status, 200);
    }
    assert_eq!(world.get(TAG).header("ratelimit-remaining"), Some("0;w=60"));
    let refused = world.get(TAG);
    assert_eq!(refused.brief(), "429 TOOMANYREQUESTS");
    assert_eq!(
        (refused.header("retry-after"), refused.header("ratelimit-remaining")),
        (Some("30"), Some("0;w=60"))
    );
    assert_eq!(world.events("Limited"), 1);
    assert_eq!(world.head(TAG).status, 200);
    assert_eq!(world.answer(Ask::get(TAG).from("198.51.100.1")).status, 200, "others have their own");
    world.advance(30.0);
    assert_eq!((world.get(TAG).status.as_u16(), world.get(TAG).status.as_u16()), (200, 429));
}

/// Who is refused by the limit learns nothing and costs nothing, not even a question upstream.
#[test]
fn the_limit_comes_before_everything_that_costs_something() {
    let world = World::new(&format!("  rate_limit: {{ anonymous: \"1/min\", burst: 1 }}{PRIVATE}"));
    world.expect(head(TAG).status(404));
    assert_eq!(world.get(TAG).status, 404);
    assert_eq!(world.get("other/manifests/v1").brief(), "429 TOOMANYREQUESTS");
    assert_eq!(world.upstream.count(), 1);
}

#[test]
fn all_requests_are_bounded_tenfold_whatever_becomes_of_them() {
    let asks = [
        Ask::get(""),
        Ask::head(TAG),
        Ask::get("app/manifests/..."),
        Ask::get("NOT/A/NAME/manifests/v1"),
        Ask::new(Method::POST, "app/blobs/uploads/"),
        Ask::new(Method::OPTIONS, TAG),
        Ask::get("token"),
        Ask::get(&format!("app/blobs/{}", digest("x"))),
    ];
    for ask in asks {
        let world = world();
        world.expect(head(TAG).status(404));
        let mut statuses: Vec<_> = (0..19).map(|_| world.answer(Ask::get("")).status.as_u16()).collect();
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        statuses.clear();
        world.answer(Ask::head(TAG));
        let refused = world.answer(ask.clone());
        assert_eq!(refused.status, 429, "{ask:?}");
        assert_eq!(refused.header("retry-after"), Some("3"));
        assert_eq!(world.answer(Ask::get("").from("198.51.100.1")).status, 200, "others have their own");
    }
}

#[test]
fn known_clients_are_not_limited() {
    let world = World::new(&format!("  rate_limit: {{ anonymous: \"1/min\", burst: 1 }}{PRIVATE}"));
    world.expect(get(TAG).manifest(&image("one")));
    for _ in 0..30 {
        let answered = world.answer(Ask::get(TAG).from(KNOWN));
        assert_eq!((answered.status.as_u16(), answered.header("ratelimit-limit")), (200, None));
    }
}

/// The connection of a request whose body is not read must end, also when the answer is another than 405.
#[test]
fn a_refusal_by_limit_ends_a_connection_that_had_to_end() {
    let world = world();
    let push = || Ask::new(Method::POST, "app/blobs/uploads/");
    for _ in 0..20 {
        assert_eq!(world.answer(push()).header("connection"), Some("close"));
    }
    let refused = world.answer(push());
    assert_eq!((refused.status.as_u16(), refused.header("connection")), (429, Some("close")));
}
