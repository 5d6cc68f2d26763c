//! Credentials of a source serve known clients, and anonymous ones only where upstream shows the same to anyone.

use entrepot_core::upstream::Fault;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};

use crate::memory::{Ask, Said, World, get, head};
use crate::samples::{KNOWN, OURS, PRIVATE, digest, image, private};

const TAG: &str = "app/manifests/v1";
const HOUR: f64 = 3600.0;

pub(crate) fn challenged(said: Said) -> Said {
    said.status(401).header(WWW_AUTHENTICATE, "Basic realm=\"up\"")
}

/// A known client has pulled the tag with our credentials.
fn pulled_by_a_known_client(text: &str) -> World {
    let world = private();
    world.expect(challenged(get(TAG))).expect(get(TAG).with(OURS).manifest(text));
    let answered = world.answer(Ask::get(TAG).from(KNOWN));
    assert_eq!(
        (answered.brief(), answered.header("cache-control")),
        ("200 MISS".into(), Some("private, no-store"))
    );
    assert_eq!(answered.header("access-control-allow-origin"), None);
    world
}

/// T-AZ5, T-AZ6: what upstream shows to nobody is 401, cold and warm, and costs nothing on our credentials.
#[test]
fn t_az5_private_content_is_401_warm_and_cold() {
    let text = image("one");
    let by_digest = format!("app/manifests/{}", digest(&text));
    let blob = format!("app/blobs/{}", digest(b"a layer"));
    for world in [private(), pulled_by_a_known_client(&text)] {
        world.expect(challenged(head(TAG)));
        let refused = world.get(TAG);
        assert_eq!(refused.brief(), "401 UNAUTHORIZED");
        assert!(
            refused
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer realm=\"https://mirror.example.com/token\"")
        );
        assert_eq!(refused.header("access-control-allow-origin"), None);
        let asked = world.upstream.count();
        for path in [TAG, &by_digest, &blob, "app/tags/list"] {
            assert_eq!(world.get(path).brief(), "401 UNAUTHORIZED", "{path}");
            assert_eq!(world.head(path).status, 401, "{path}");
        }
        assert_eq!(world.upstream.count(), asked, "asked once for the repository");
        // Another repository is another question.
        world.expect(challenged(head("other/manifests/v1")));
        assert_eq!(world.get("other/manifests/v1").brief(), "401 UNAUTHORIZED");
    }
}

#[test]
fn t_az5_public_content_is_fetched_with_the_credentials_and_open_to_anyone() {
    let text = image("one");
    let world = private();
    world.expect(head(TAG).manifest(&text));
    world.expect(challenged(get(TAG))).expect(get(TAG).with(OURS).manifest(&text));
    let cold = world.get(TAG);
    assert_eq!((cold.brief(), cold.header("access-control-allow-origin")), ("200 MISS".into(), Some("*")));
    assert!(cold.header("cache-control").unwrap().starts_with("public"));
    for warm in [world.get(TAG), world.answer(Ask::get(TAG).from(KNOWN))] {
        assert_eq!(warm.brief(), "200 HIT");
        assert!(warm.header("cache-control").unwrap().starts_with("public"), "it is known to be public");
    }
}

#[test]
fn t_az5_what_is_cached_is_shown_to_anyone_as_soon_as_upstream_shows_it() {
    let text = image("one");
    let world = pulled_by_a_known_client(&text);
    world.expect(head(TAG).manifest(&text));
    assert_eq!(world.get(TAG).brief(), "200 HIT", "held already, and public");
}

#[test]
fn the_question_is_asked_once_an_hour() {
    let text = image("one");
    let world = pulled_by_a_known_client(&text);
    world.expect(head(TAG).manifest(&text));
    assert_eq!(world.get(TAG).brief(), "200 HIT");
    world.advance(HOUR - 1.0);
    let by_digest = format!("app/manifests/{}", digest(&text));
    assert_eq!(world.get(&by_digest).brief(), "200 HIT");
    world.advance(1.0);
    world.expect(challenged(head(&by_digest)));
    assert_eq!(world.get(&by_digest).brief(), "401 UNAUTHORIZED", "it was made private");
    world.advance(HOUR);
    world.expect(head(&by_digest).manifest(&text));
    assert_eq!(world.get(&by_digest).brief(), "200 HIT", "and public again");
}

#[test]
fn a_public_verdict_outlives_an_outage_and_no_other_does() {
    let text = image("one");
    let by_digest = format!("app/manifests/{}", digest(&text));
    let public = pulled_by_a_known_client(&text);
    public.expect(head(&by_digest).manifest(&text));
    assert_eq!(public.get(&by_digest).brief(), "200 HIT");
    public.advance(HOUR);
    public.expect(head(&by_digest).fails(Fault::Tls));
    assert_eq!(public.get(&by_digest).brief(), "200 HIT");

    let unknown = pulled_by_a_known_client(&text);
    unknown.expect(head(&by_digest).fails(Fault::Tls));
    assert_eq!(unknown.get(&by_digest).brief(), "502 UNAVAILABLE");

    let refused = pulled_by_a_known_client(&text);
    refused.expect(challenged(head(&by_digest)));
    assert_eq!(refused.get(&by_digest).brief(), "401 UNAUTHORIZED");
    refused.advance(HOUR);
    refused.expect(head(&by_digest).fails(Fault::Tls));
    assert_eq!(refused.get(&by_digest).brief(), "502 UNAVAILABLE");
}

#[test]
fn public_content_waits_half_a_second_for_a_slow_probe_which_goes_on() {
    let text = image("one");
    let by_digest = format!("app/manifests/{}", digest(&text));
    let world = pulled_by_a_known_client(&text);
    world.expect(head(&by_digest).manifest(&text).after(2.0));
    let first = world.get(&by_digest);
    assert_eq!((first.brief(), first.took), ("200 HIT".into(), 2000), "nothing was known");
    world.advance(HOUR);
    world.expect(challenged(head(&by_digest)).after(2.0));
    let second = world.get(&by_digest);
    assert_eq!((second.brief(), second.took), ("200 HIT".into(), 500));
    world.advance(1.5);
    assert_eq!(world.get(&by_digest).brief(), "401 UNAUTHORIZED", "it has heard the answer");
}

#[test]
fn an_absence_says_nothing_of_the_repository_and_is_remembered_for_itself() {
    let text = image("one");
    let world = private();
    let gone = "app/manifests/gone";
    world.expect(head(gone).status(404));
    for _ in 0..3 {
        assert_eq!(world.get(gone).brief(), "404 MANIFEST_UNKNOWN");
    }
    assert_eq!(world.upstream.count(), 1);
    assert!(world.store.records("public").is_empty());
    world.expect(head(TAG).manifest(&text)).expect(get(TAG).manifest(&text));
    assert_eq!(world.get(TAG).brief(), "200 MISS");
}

#[test]
fn what_the_configuration_calls_public_is_not_asked_about() {
    let text = image("one");
    let tag = "open/app/manifests/v1";
    let world = private();
    world.expect(challenged(get(tag))).expect(get(tag).with(OURS).manifest(&text));
    let answered = world.get(tag);
    assert_eq!(
        (answered.brief(), answered.header("access-control-allow-origin")),
        ("200 MISS".into(), Some("*"))
    );
}

#[test]
fn where_nobody_is_anonymous_no_answer_is_for_shared_caches() {
    let text = image("one");
    let world = World::new(
        &crate::samples::PUBLIC
            .replace("  sources", "  access: { anonymous: false, networks: [\"10.0.0.0/8\"] }\n  sources"),
    );
    assert_eq!(world.get(TAG).brief(), "401 UNAUTHORIZED");
    world.expect(get(TAG).manifest(&text));
    let answered = world.answer(Ask::get(TAG).from(KNOWN));
    assert_eq!(
        (answered.brief(), answered.header("cache-control")),
        ("200 MISS".into(), Some("private, no-store"))
    );
}

#[test]
fn clients_are_known_by_token_and_a_wrong_one_is_refused() {
    // sha256 of "s3cret"
    let tokens = "tokens: [{ name: \"ci\", sha256: \"1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0\" }]";
    let world = World::new(&PRIVATE.replace("networks: [\"10.0.0.0/8\"]", tokens));
    let text = image("one");
    world.expect(challenged(get(TAG))).expect(get(TAG).with(OURS).manifest(&text));
    let answered = world.answer(Ask::get(TAG).header(AUTHORIZATION, "Basic Y2k6czNjcmV0"));
    assert_eq!((answered.brief(), answered.facts.client.as_deref()), ("200 MISS".into(), Some("ci")));
    assert_eq!(
        world.answer(Ask::get(TAG).header(AUTHORIZATION, "Basic Y2k6d3Jvbmc=")).brief(),
        "401 UNAUTHORIZED"
    );
}

/// What is held needs no credentials, so a helper that fails takes nothing away.
#[test]
fn a_broken_credential_helper_stops_only_what_must_be_asked_upstream() {
    let text = image("one");
    let world =
        World::new(&PRIVATE.replace("{ username: \"us\", password: \"pass\" }", "{ helper: \"vault\" }"));
    let known = |path: &str| Ask::get(path).from(KNOWN);
    world.expect(get(TAG).manifest(&text));
    assert_eq!(world.answer(known(TAG)).brief(), "200 MISS");
    world.helper.set(None);
    assert_eq!(world.answer(known(TAG)).brief(), "200 HIT");
    world.advance(HOUR);
    assert_eq!(world.answer(known(TAG)).brief(), "200 STALE");
    assert_eq!(world.answer(known("app/manifests/v2")).status, 500);
    assert_eq!(world.upstream.count(), 1);
}
