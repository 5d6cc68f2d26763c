//! Blobs: one fill for each, whoever asks, and no answer to who may not have it.

use entrepot_core::upstream::Fault;
use http::header::{IF_NONE_MATCH, RANGE};

use crate::memory::{Ask, HELD_BACK, World, get, head};
use crate::samples::{descriptor, digest, image_of, image_with, public};

/// Longer than what is held back of it.
const LAYER: &[u8] =
    b"a layer, long enough that its beginning may be seen before its end is known to be right";

fn blob(repository: &str) -> String {
    format!("{repository}/blobs/{}", digest(LAYER))
}

fn part(path: &str, range: &str) -> Ask {
    Ask::get(path).header(RANGE, &format!("bytes={range}"))
}

/// A world in which repository `a` has shown the blob, which is stored.
fn filled() -> World {
    let world = public();
    world.expect(get(&blob("a")).blob(LAYER));
    let cold = world.get(&blob("a"));
    assert_eq!((cold.brief(), &cold.body[..], cold.whole), ("200 MISS".into(), LAYER, true));
    world
}

#[test]
fn a_blob_is_fetched_once_and_then_served_from_the_store() {
    let world = filled();
    let warm = world.get(&blob("a"));
    assert_eq!((warm.brief(), &warm.body[..]), ("200 HIT".into(), LAYER));
    let asked = world.head(&blob("a"));
    assert_eq!(
        (asked.brief(), asked.header("content-length")),
        ("200 HIT".into(), Some(&*LAYER.len().to_string()))
    );
    let tag = warm.header("etag").unwrap();
    assert_eq!(world.answer(Ask::get(&blob("a")).header(IF_NONE_MATCH, tag)).status, 304);
    assert_eq!(world.upstream.count(), 1);
}

#[test]
fn warm_ranges_are_answered_from_the_store() {
    let world = filled();
    let size = LAYER.len();
    let cases = [
        ("2-6", 206, &LAYER[2..7], format!("bytes 2-6/{size}")),
        ("80-", 206, &LAYER[80..], format!("bytes 80-{}/{size}", size - 1)),
        ("-3", 206, &LAYER[size - 3..], format!("bytes {}-{}/{size}", size - 3, size - 1)),
        ("9999-", 416, &[][..], format!("bytes */{size}")),
    ];
    for (range, status, body, said) in cases {
        let answered = world.answer(part(&blob("a"), range));
        assert_eq!((answered.status.as_u16(), &answered.body[..]), (status, body), "{range}");
        assert_eq!(answered.header("content-range"), Some(&*said));
    }
}

/// A blob that is stored for one repository is not thereby shown to those who ask through another.
#[test]
fn a_stored_blob_is_shown_only_where_upstream_shows_it() {
    let world = filled();
    world.expect(head(&blob("b")).status(404));
    for _ in 0..2 {
        assert_eq!(world.get(&blob("b")).brief(), "404 BLOB_UNKNOWN");
        assert_eq!(world.head(&blob("b")).status, 404);
    }
    assert_eq!(world.upstream.count(), 2, "the absence is remembered");
    world.advance(10.0);
    world.expect(head(&blob("b")).blob(LAYER));
    let shown = world.get(&blob("b"));
    assert_eq!((shown.brief(), &shown.body[..]), ("200 REVALIDATED".into(), LAYER));
    assert_eq!(world.get(&blob("b")).brief(), "200 HIT");
    // An upstream that cannot be asked shows nothing.
    world.expect(head(&blob("c")).fails(Fault::Tls)).expect(head(&blob("c")).fails(Fault::Tls));
    assert_eq!(world.get(&blob("c")).brief(), "502 UNAVAILABLE");
    assert_eq!(world.head(&blob("c")).status, 502);
}

#[test]
fn a_blob_on_its_way_in_is_shown_only_where_upstream_shows_it() {
    let world = public();
    world.expect(get(&blob("a")).blob(LAYER).pause(10, 5.0));
    world.expect(head(&blob("b")).status(404).after(1.0)).expect(head(&blob("c")).blob(LAYER).after(1.0));
    let asked: Vec<_> = ["a", "b", "c"].map(|name| world.ask(Ask::get(&blob(name)))).into();
    world.advance(5.0);
    let answers: Vec<_> = asked.iter().map(|asked| asked.take().unwrap().brief()).collect();
    assert_eq!(answers, ["200 MISS", "404 BLOB_UNKNOWN", "200 MISS"]);
    assert_eq!(world.upstream.count(), 3, "its bytes were fetched once");
}

#[test]
fn what_another_repositorys_fill_meets_says_nothing_of_this_one() {
    let world = public();
    world.expect(get(&blob("a")).status(404).after(2.0));
    world.expect(head(&blob("b")).blob(LAYER)).expect(get(&blob("b")).blob(LAYER));
    let (a, b) = (world.ask(Ask::get(&blob("a"))), world.ask(Ask::get(&blob("b"))));
    world.advance(2.0);
    assert_eq!(a.take().unwrap().brief(), "404 BLOB_UNKNOWN");
    assert_eq!(b.take().unwrap().brief(), "200 MISS");
}

#[test]
fn head_of_a_cold_blob_starts_no_fill_and_remembers_the_size() {
    let world = public();
    world.expect(head(&blob("a")).blob(LAYER));
    let cold = world.head(&blob("a"));
    assert_eq!(
        (cold.brief(), cold.header("content-length")),
        ("200 MISS".into(), Some(&*LAYER.len().to_string()))
    );
    assert_eq!(world.head(&blob("a")).brief(), "200 HIT");
    assert_eq!((world.events("FillStarted"), world.store.objects().len()), (0, 0));
    world.expect(get(&blob("a")).blob(LAYER));
    assert_eq!(world.get(&blob("a")).brief(), "200 MISS");
}

/// S3 refuses HEAD of a URL that was signed for GET: the first byte tells the size as well.
#[test]
fn where_head_is_refused_the_first_byte_tells_the_size() {
    let world = public();
    world.expect(head(&blob("a")).status(405)).expect(get(&blob("a")).blob(LAYER).range(0, Some(0)));
    let answered = world.head(&blob("a"));
    assert_eq!(
        (answered.brief(), answered.header("content-length")),
        ("200 MISS".into(), Some(&*LAYER.len().to_string()))
    );
    assert_eq!(world.events("FillStarted"), 0);
}

#[test]
fn a_blob_that_is_gone_upstream_is_no_longer_said_to_be_there() {
    let world = public();
    world.expect(head(&blob("a")).blob(LAYER));
    assert_eq!(world.head(&blob("a")).brief(), "200 MISS");
    world.expect(get(&blob("a")).status(404));
    assert_eq!(world.get(&blob("a")).brief(), "404 BLOB_UNKNOWN");
    assert_eq!(world.head(&blob("a")).status, 404);
    assert_eq!(world.get(&blob("a")).brief(), "404 BLOB_UNKNOWN");
    assert_eq!(world.upstream.count(), 2);
}

#[test]
fn an_evicted_blob_is_fetched_again_without_further_questions() {
    let world = filled();
    world.store.evict(digest(LAYER));
    assert_eq!(world.upstream.count(), 1);
    world.expect(get(&blob("a")).blob(LAYER));
    assert_eq!(world.get(&blob("a")).brief(), "200 MISS");
}

/// T-UF4: a fill goes on where it broke, and each byte is fetched once.
#[test]
fn t_uf4_a_broken_fill_goes_on_where_it_broke() {
    for at in (0..LAYER.len()).step_by(LAYER.len() / 16) {
        let world = public();
        world.expect(get(&blob("a")).blob(LAYER).cut(at));
        let rest = get(&blob("a")).blob(LAYER);
        world.expect(if at == 0 { rest } else { rest.range(at, None) });
        let answered = world.get(&blob("a"));
        assert_eq!((&answered.body[..], answered.whole), (LAYER, true), "at {at}");
        assert_eq!(world.events("Resumed"), 1);
        assert_eq!(world.get(&blob("a")).brief(), "200 HIT");
    }
}

#[test]
fn t_uf4_an_upstream_that_ignores_the_range_is_read_from_its_start() {
    let world = public();
    let ignoring = get(&blob("a")).blob(LAYER).wants(20, None);
    world.expect(get(&blob("a")).blob(LAYER).cut(20)).expect(ignoring);
    let answered = world.get(&blob("a"));
    assert_eq!((&answered.body[..], answered.whole), (LAYER, true));
}

#[test]
fn a_stalled_fill_is_resumed_too() {
    let world = public();
    world
        .expect(get(&blob("a")).blob(LAYER).pause(20, 3600.0))
        .expect(get(&blob("a")).blob(LAYER).range(20, None));
    let asked = world.ask(Ask::get(&blob("a")));
    world.advance(15.0);
    assert_eq!(&asked.take().expect("no more than the stall time-out").body[..], LAYER);
}

#[test]
fn a_fill_that_can_not_go_on_breaks_and_leaves_nothing() {
    let world = public();
    world
        .expect(get(&blob("a")).blob(LAYER).pause(40, 1.0).cut(40))
        .expect(get(&blob("a")).blob(LAYER).range(40, None).status(404));
    let answered = world.get(&blob("a"));
    assert_eq!((answered.status.as_u16(), answered.whole, &answered.body[..]), (200, false, &LAYER[..40]));
    assert_eq!(world.store.objects().len(), 0);
}

/// T-BI6: the bytes that are not what was asked for never arrive whole, and are not kept.
#[test]
fn t_bi6_other_bytes_of_the_same_length_are_neither_released_nor_kept() {
    let world = public();
    let mut wrong = LAYER.to_vec();
    wrong[3] ^= 1;
    world.expect(get(&blob("a")).blob(&wrong).pause(40, 1.0));
    let answered = world.get(&blob("a"));
    assert_eq!((answered.whole, answered.body.len()), (false, LAYER.len() - HELD_BACK));
    assert_eq!((world.store.objects().len(), world.events("DigestMismatch")), (0, 2));
    // Its length is not believed either.
    world.expect(head(&blob("a")).blob(LAYER));
    assert_eq!(world.head(&blob("a")).brief(), "200 MISS");
    world.expect(get(&blob("a")).blob(LAYER));
    assert_eq!(world.get(&blob("a")).brief(), "200 MISS");
}

/// T-BI6: upstream is held to the size that its own manifest gives, whether it announces the length or not.
#[test]
fn t_bi6_a_blob_of_another_size_than_its_manifest_says_is_502_and_not_kept() {
    let size = LAYER.len() as u64;
    for said in [0, 1, size - 1, size + 1, i64::MAX as u64] {
        let text = image_with("one", &descriptor("layer.v1.tar", LAYER, said));
        for unsized_body in [false, true] {
            let world = public();
            world.expect(get("a/manifests/v1").manifest(&text));
            assert_eq!(world.get("a/manifests/v1").brief(), "200 MISS");
            world.expect(head(&blob("a")).blob(LAYER));
            assert_eq!(world.head(&blob("a")).status, 502, "{said}");
            let arriving = get(&blob("a")).blob(LAYER).pause(10, 1.0);
            world.expect(if unsized_body { arriving.unsized_body() } else { arriving });
            if unsized_body && said > size {
                // Too few bytes may be the connection's fault, so the rest is asked for.
                world.expect(get(&blob("a")).wants(LAYER.len(), None).status(404));
            }
            let answered = world.get(&blob("a"));
            assert!(answered.brief() == "502 SIZE_INVALID" || !answered.whole, "{said}: {answered:?}");
            world.advance(60.0);
            assert_eq!(world.store.objects(), [digest(&text)], "{said}");
        }
    }
}

#[test]
fn a_stored_blob_is_held_to_the_size_that_this_repository_says() {
    let world = filled();
    let text = image_with("one", &descriptor("layer.v1.tar", LAYER, 5));
    world.expect(get("b/manifests/v1").manifest(&text)).expect(head(&blob("b")).blob(LAYER));
    assert_eq!(world.get("b/manifests/v1").brief(), "200 MISS");
    assert_eq!(world.get(&blob("b")).brief(), "502 SIZE_INVALID");
    assert_eq!(world.get(&blob("a")).brief(), "200 HIT", "the other repository said nothing wrong");
}

#[test]
fn a_blob_without_a_length_has_the_one_its_manifest_says() {
    let world = public();
    let text = image_of("one", &[LAYER]);
    world
        .expect(get("a/manifests/v1").manifest(&text))
        .expect(get(&blob("a")).blob(LAYER).unsized_body().pause(4, 2.0));
    assert_eq!(world.get("a/manifests/v1").brief(), "200 MISS");
    let answered = world.get(&blob("a"));
    assert_eq!((answered.took, answered.header("content-length")), (0, Some(&*LAYER.len().to_string())));
    assert!(answered.whole);
}

#[test]
fn a_range_of_a_cold_blob_comes_from_its_fill() {
    let world = public();
    world.expect(get(&blob("a")).blob(LAYER).pause(50, 1.0));
    let answered = world.answer(part(&blob("a"), "10-19"));
    assert_eq!((answered.status.as_u16(), &answered.body[..]), (206, &LAYER[10..20]));
    assert_eq!(world.get(&blob("a")).brief(), "200 HIT");
}
