//! Hosts on which no request can follow another's fill: the client gets upstream's own answer, the store a fill of its own.

use http::header::RANGE;

use crate::memory::{Ask, World, get, head};
use crate::samples::{digest, image_of, public};

const LAYER: &[u8] = b"a layer that is fetched for the client, and once more for the store";

fn blob(repository: &str) -> String {
    format!("{repository}/blobs/{}", digest(LAYER))
}

fn apart() -> World {
    let world = public();
    world.store.fill_apart();
    world
}

#[test]
fn a_cold_blob_passes_through_and_is_filled_on_its_own() {
    let world = apart();
    world.expect(get(&blob("a")).blob(LAYER)).expect(get(&blob("a")).blob(LAYER));
    let cold = world.get(&blob("a"));
    assert_eq!((cold.brief(), &cold.body[..], cold.whole), ("200 MISS".into(), LAYER, true));
    assert_eq!(world.store.objects(), [digest(LAYER)]);
    assert_eq!(world.get(&blob("a")).brief(), "200 HIT", "the fill has shown it for the repository");
}

#[test]
fn a_part_of_a_cold_blob_is_upstreams_part() {
    let world = apart();
    world
        .expect(head(&blob("a")).blob(LAYER))
        .expect(get(&blob("a")).blob(LAYER).range(2, Some(6)).wants(2, Some(6)))
        .expect(get(&blob("a")).blob(LAYER));
    let cold = world.answer(Ask::get(&blob("a")).header(RANGE, "bytes=2-6"));
    assert_eq!((cold.status.as_u16(), &cold.body[..]), (206, &LAYER[2..7]));
    assert_eq!(world.store.objects(), [digest(LAYER)]);
}

/// T-CP4: nothing is filled that upstream does not have, and its word is remembered.
#[test]
fn t_cp4_what_upstream_does_not_have_is_asked_for_once() {
    let world = apart();
    world.expect(get(&blob("a")).status(404));
    assert_eq!(world.get(&blob("a")).status, 404);
    assert_eq!(world.get(&blob("a")).status, 404);
    assert!(world.store.objects().is_empty());
}

/// T-BI6: a size that contradicts the manifest's is refused before a byte of it goes out.
#[test]
fn t_bi6_a_blob_of_another_size_than_described() {
    let world = apart();
    let manifest = image_of("one", &[LAYER]);
    world.expect(get("a/manifests/one").manifest(&manifest));
    assert_eq!(world.get("a/manifests/one").status, 200);
    world.expect(get(&blob("a")).blob(&LAYER[1..]));
    assert_eq!(world.get(&blob("a")).status, 502);
    assert!(!world.store.objects().contains(&digest(LAYER)));
}

/// T-HU2: what the fill brings is checked, whatever the client got.
#[test]
fn t_hu2_the_store_takes_nothing_that_does_not_match() {
    let world = apart();
    let mut wrong = LAYER.to_vec();
    wrong[3] ^= 1;
    world.expect(get(&blob("a")).blob(&wrong)).expect(get(&blob("a")).blob(&wrong));
    world.get(&blob("a"));
    assert!(world.store.objects().is_empty());
}
