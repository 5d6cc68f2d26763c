//! `mirror: false`: everything passes through, and nothing is stored.

use http::header::{IF_NONE_MATCH, RANGE};

use crate::memory::{Ask, HELD_BACK, World, get, head};
use crate::samples::{PUBLIC, digest, image, index};

const LAYER: &[u8] =
    b"a layer, long enough that its beginning may be seen before its end is known to be right";

fn world() -> World {
    World::new(&PUBLIC.replace("mirror: true", "mirror: false"))
}

fn blob() -> String {
    format!("app/blobs/{}", digest(LAYER))
}

fn is_empty(world: &World) {
    assert_eq!(world.store.snapshot(), World::new(PUBLIC).store.snapshot());
}

#[test]
fn everything_is_asked_upstream_every_time_and_nothing_is_kept() {
    let text = image("one");
    let by_digest = format!("app/manifests/{}", digest(&text));
    let referrers = format!("app/referrers/{}", digest(&text));
    let world = world();
    for _ in 0..2 {
        for path in ["app/manifests/v1", &by_digest] {
            world.expect(get(path).manifest(&text)).expect(head(path).manifest(&text));
            let answered = world.get(path);
            assert_eq!((answered.brief(), &answered.body[..]), ("200 BYPASS".into(), text.as_bytes()));
            assert_eq!(world.head(path).brief(), "200 BYPASS");
        }
        world.expect(get("app/tags/list").json(r#"{"name":"app","tags":["v1"]}"#));
        assert_eq!(world.get("app/tags/list").brief(), "200 BYPASS");
        world.expect(get(&referrers).manifest(&index(&[("a", "b")])));
        assert_eq!(world.get(&referrers).brief(), "200 BYPASS");
        world.expect(get(&blob()).blob(LAYER));
        let answered = world.get(&blob());
        assert_eq!((answered.brief(), &answered.body[..]), ("200 BYPASS".into(), LAYER));
        world.expect(head(&blob()).blob(LAYER));
        assert_eq!(world.head(&blob()).brief(), "200 BYPASS");
        for path in ["app/manifests/gone", "app/tags/list", &blob()] {
            world.expect(get(path).status(404));
            assert_eq!(world.get(path).status, 404);
        }
    }
    is_empty(&world);
}

#[test]
fn ranges_pass_through_and_are_checked() {
    let world = world();
    let part = |range: &str| Ask::get(&blob()).header(RANGE, &format!("bytes={range}"));
    world.expect(head(&blob()).blob(LAYER)).expect(get(&blob()).blob(LAYER).range(2, Some(6)));
    let answered = world.answer(part("2-6"));
    assert_eq!((answered.status.as_u16(), &answered.body[..]), (206, &LAYER[2..7]));
    world.expect(head(&blob()).blob(LAYER));
    assert_eq!(world.answer(part("9999-")).status, 416);
    world.expect(head(&blob()).blob(LAYER)).expect(get(&blob()).blob(LAYER));
    let whole = world.answer(part("0-"));
    assert_eq!((whole.status.as_u16(), &whole.body[..]), (206, LAYER));
    // Neither everything, nor less, nor as many other bytes pass for the part.
    let asked = || get(&blob()).blob(LAYER).wants(2, Some(6));
    let short = get(&blob()).blob(&LAYER[..5]).range(2, Some(4)).wants(2, Some(6));
    let other = get(&blob()).blob(&LAYER[..5]).wants(2, Some(6));
    for said in [asked(), short, other] {
        world.expect(head(&blob()).blob(LAYER)).expect(said.clone());
        assert_eq!(world.answer(part("2-6")).status, 502, "{said:?}");
    }
    is_empty(&world);
}

#[test]
fn a_blob_that_is_not_what_was_asked_for_breaks_before_its_end() {
    let mut wrong = LAYER.to_vec();
    wrong[3] ^= 1;
    let ranged = Ask::get(&blob()).header(RANGE, "bytes=0-");
    for ask in [Ask::get(&blob()), ranged.clone()] {
        let world = world();
        if format!("{ask:?}") == format!("{ranged:?}") {
            world.expect(head(&blob()).blob(&wrong));
        }
        world.expect(get(&blob()).blob(&wrong));
        let answered = world.answer(ask);
        assert_eq!((answered.whole, answered.body.len()), (false, LAYER.len() - HELD_BACK));
    }
}

#[test]
fn what_the_client_has_already_is_not_fetched() {
    let world = world();
    world.expect(head(&blob()).blob(LAYER));
    let tag = format!("\"{}\"", digest(LAYER));
    assert_eq!(world.answer(Ask::get(&blob()).header(IF_NONE_MATCH, &tag)).status, 304);
}
