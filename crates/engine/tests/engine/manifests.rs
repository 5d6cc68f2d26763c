//! Manifests by digest and by tag, cold and warm, GET and HEAD.

use entrepot_core::upstream::Fault;
use http::header;

use crate::memory::{Ask, get, head};
use crate::samples::{digest, image, index, public};

#[test]
fn a_manifest_by_digest_is_asked_for_once_and_kept_for_ever() {
    let world = public();
    let text = image("one");
    let path = format!("app/manifests/{}", digest(&text));
    world.expect(get(&path).manifest(&text));
    let cold = world.get(&path);
    assert_eq!((cold.brief(), &cold.body[..]), ("200 MISS".into(), text.as_bytes()));
    assert!(cold.header("cache-control").unwrap().contains("immutable"));
    world.advance(365.0 * 86_400.0);
    let warm = world.get(&path);
    assert_eq!((warm.brief(), &warm.body[..]), ("200 HIT".into(), text.as_bytes()));
    let asked = world.head(&path);
    assert_eq!(asked.brief(), "200 HIT");
    for name in ["docker-content-digest", "content-type", "content-length", "etag"] {
        assert_eq!(asked.header(name), cold.header(name), "{name}");
        assert_eq!(warm.header(name), cold.header(name), "{name}");
    }
}

#[test]
fn head_of_a_cold_manifest_asks_by_head_and_a_tag_is_then_known() {
    let world = public();
    let text = image("one");
    let path = format!("app/manifests/{}", digest(&text));
    world.expect(head(&path).manifest(&text)).expect(head("app/manifests/v1").manifest(&text));
    assert_eq!(world.head(&path).brief(), "200 MISS");
    let cold = world.head("app/manifests/v1");
    assert_eq!(
        (cold.brief(), cold.header("content-length")),
        ("200 MISS".into(), Some(&*text.len().to_string()))
    );
    assert_eq!(world.head("app/manifests/v1").brief(), "200 HIT");
    // The record is shared with GET, which has no bytes yet.
    world.expect(get("app/manifests/v1").manifest(&text));
    assert_eq!(world.get("app/manifests/v1").brief(), "200 MISS");
    assert_eq!(world.get("app/manifests/v1").brief(), "200 HIT");
}

#[test]
fn a_head_that_says_too_little_is_followed_by_a_get() {
    let text = image("one");
    let poor = || head("app/manifests/v1").header(header::CONTENT_LENGTH, "1234");
    for poor in
        [poor(), poor().status(405), poor().manifest(&text).header(header::CONTENT_TYPE, "text/plain")]
    {
        let world = public();
        world.expect(poor).expect(get("app/manifests/v1").manifest(&text));
        let cold = world.head("app/manifests/v1");
        assert_eq!(cold.header("docker-content-digest"), Some(&*digest(&text).to_string()));
        assert_eq!(world.get("app/manifests/v1").brief(), "200 HIT", "what was fetched for HEAD is kept");
    }
}

#[test]
fn a_manifest_that_another_repository_has_shown_is_asked_for_here() {
    let world = public();
    let text = image("one");
    let path = |name: &str| format!("{name}/manifests/{}", digest(&text));
    world.expect(get(&path("a")).manifest(&text)).expect(get(&path("b")).status(404));
    assert_eq!(world.get(&path("a")).brief(), "200 MISS");
    assert_eq!(world.get(&path("b")).brief(), "404 MANIFEST_UNKNOWN");
    assert_eq!(world.get(&path("a")).brief(), "200 HIT");
}

#[test]
fn a_cached_tag_does_not_answer_a_client_that_cannot_take_it() {
    let world = public();
    let text = index(&[("x", "y")]);
    world.expect(get("app/manifests/v1").manifest(&text));
    let only = |kind| Ask::get("app/manifests/v1").header(header::ACCEPT, kind);
    let image = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!(world.answer(only(image)).brief(), "404 MANIFEST_UNKNOWN");
    assert_eq!(world.answer(only("application/vnd.oci.image.index.v1+json")).brief(), "200 HIT");
    assert_eq!(world.answer(only(image)).brief(), "404 MANIFEST_UNKNOWN");
    assert!(world.store.records("absent").is_empty(), "that is no absence");
}

#[test]
fn an_unchanged_manifest_is_304_and_has_no_body() {
    let world = public();
    let text = image("one");
    world.expect(get("app/manifests/v1").manifest(&text));
    let cold = world.get("app/manifests/v1");
    let tag = cold.header("etag").unwrap();
    let warm = world.answer(Ask::get("app/manifests/v1").header(header::IF_NONE_MATCH, tag));
    assert_eq!((warm.status.as_u16(), warm.body.len()), (304, 0));
}

/// T-CP4: only upstream's word that a thing is not there is remembered, and not for long.
#[test]
fn t_cp4_only_absences_are_remembered_and_for_ten_seconds() {
    let text = image("one");
    for path in ["app/manifests/v1".to_owned(), format!("app/manifests/{}", digest(&text))] {
        for asked in [Ask::get(&path), Ask::head(&path)] {
            let world = public();
            world.expect(if format!("{asked:?}").contains("HEAD") {
                head(&path).status(404)
            } else {
                get(&path).status(404)
            });
            assert_eq!(world.answer(asked.clone()).status, 404);
            world.advance(9.999);
            assert_eq!(world.answer(asked.clone()).status, 404);
            assert_eq!(world.upstream.count(), 1, "{path}");
            world.advance(0.001);
            world.expect(get(&path).manifest(&text));
            assert_eq!(world.get(&path).brief(), "200 MISS", "it has appeared");
        }
    }
}

/// T-UF1: cold, nothing but "not found" is 404, and nothing of it is remembered.
#[test]
fn t_uf1_cold_failures_keep_their_meaning_and_are_not_remembered() {
    let said = || get("app/manifests/v1");
    let slow = || vec![said().after(11.0), said().after(11.0), said().after(11.0)];
    let thrice = |said: crate::memory::Said| vec![said.clone(), said.clone(), said];
    let cases = [
        (vec![said().status(401)], "401 UNAUTHORIZED"),
        (vec![said().status(403)], "403 DENIED"),
        (vec![said().status(429).header(header::RETRY_AFTER, "7")], "429 TOOMANYREQUESTS"),
        (thrice(said().status(502)), "502 UNAVAILABLE"),
        (slow(), "504 UNAVAILABLE"),
        (thrice(said().fails(Fault::Reset)), "502 UNAVAILABLE"),
        (thrice(said().fails(Fault::Dns)), "502 UNAVAILABLE"),
        (vec![said().fails(Fault::Tls)], "502 UNAVAILABLE"),
    ];
    for (script, expected) in cases {
        let world = public();
        for said in script {
            world.expect(said);
        }
        let answered = world.get("app/manifests/v1");
        assert_eq!(answered.brief(), expected);
        assert!(world.store.records("absent").is_empty(), "{expected}");
        if answered.status == 429 {
            assert_eq!(answered.header("retry-after"), Some("7"));
        }
        world.advance(60.0);
        world.expect(get("app/manifests/v1").manifest(&image("one")));
        assert_eq!(world.get("app/manifests/v1").brief(), "200 MISS", "after {expected}");
    }
}

#[test]
fn a_failure_is_neither_stored_nor_called_so() {
    let world = public();
    world.expect(get("app/manifests/v1").status(404));
    let answered = world.get("app/manifests/v1");
    assert!(!answered.header("cache-status").unwrap().contains("stored"), "{answered:?}");
}
