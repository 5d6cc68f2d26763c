//! How long a tag is believed, and what happens after.

use std::time::Duration;

use entrepot_core::upstream::Fault;
use http::HeaderName;
use http::header::RETRY_AFTER;

use crate::memory::{Answered, Ask, Said, World, get, head};
use crate::samples::{KNOWN, OURS, PRIVATE, PUBLIC, digest, image, private, public};

const TAG: &str = "app/manifests/v1";
const HOUR: f64 = 3600.0;

/// A world that holds the tag, fetched just now.
fn holding(text: &str) -> World {
    held(public(), text)
}

fn held(world: World, text: &str) -> World {
    world.expect(get(TAG).manifest(text));
    assert_eq!(world.get(TAG).brief(), "200 MISS");
    world
}

fn is_stale(answered: &Answered, text: &str, warning: &str, age: &str) {
    assert_eq!((answered.brief(), &answered.body[..]), ("200 STALE".into(), text.as_bytes()));
    assert!(answered.header("warning").is_some_and(|said| said.contains(warning)), "{answered:?}");
    assert_eq!(answered.header("age"), Some(age));
    assert!(answered.header("cache-control").unwrap().contains("max-age=0"));
}

#[test]
fn within_its_ttl_a_tag_is_believed() {
    let text = image("one");
    let world = holding(&text);
    world.advance(HOUR - 1.0);
    for warm in [world.get(TAG), world.head(TAG)] {
        assert_eq!(warm.brief(), "200 HIT");
        assert_eq!(warm.header("cache-control"), Some("public, max-age=1, no-transform"));
    }
    assert_eq!(world.upstream.count(), 1);
}

#[test]
fn past_its_ttl_a_head_with_the_same_digest_renews_it() {
    let text = image("one");
    let world = holding(&text);
    world.advance(HOUR);
    world.expect(head(TAG).manifest(&text).after(0.4));
    let answered = world.get(TAG);
    assert_eq!((answered.brief(), answered.took), ("200 REVALIDATED".into(), 400));
    assert_eq!(answered.header("warning"), None);
    world.advance(HOUR - 1.0);
    assert_eq!(world.get(TAG).brief(), "200 HIT", "for another hour");
}

#[test]
fn past_its_ttl_a_new_digest_is_fetched_by_that_digest() {
    let (old, new) = (image("old"), image("new"));
    let world = holding(&old);
    world.advance(HOUR);
    let by_digest = format!("app/manifests/{}", digest(&new));
    world.expect(head(TAG).manifest(&new)).expect(get(&by_digest).manifest(&new));
    let answered = world.get(TAG);
    assert_eq!((answered.brief(), &answered.body[..]), ("200 MISS".into(), new.as_bytes()));
    assert_eq!(world.get(TAG).brief(), "200 HIT");
    assert_eq!(world.get(&by_digest).brief(), "200 HIT");
    assert_eq!(
        world.get(&format!("app/manifests/{}", digest(&old))).brief(),
        "200 HIT",
        "a digest is for ever"
    );
}

/// Wire behaviour of ECR: HEAD of a manifest may lack what it needs to say.
#[test]
fn past_its_ttl_a_head_that_says_too_little_is_followed_by_a_get() {
    let (old, new) = (image("old"), image("new"));
    let world = holding(&old);
    world.advance(HOUR);
    world.expect(head(TAG)).expect(get(TAG).manifest(&new));
    let answered = world.get(TAG);
    assert_eq!(&answered.body[..], new.as_bytes());
}

#[test]
fn a_slow_head_is_waited_for_half_a_second_and_goes_on() {
    for alone in [false, true] {
        let (old, new) = (image("old"), image("new"));
        let world = holding(&old);
        world.flights.alone.set(alone);
        world.advance(HOUR);
        world.expect(head(TAG).manifest(&new).after(2.0));
        world.expect(get(&format!("app/manifests/{}", digest(&new))).manifest(&new));
        let asked = world.ask(Ask::get(TAG));
        world.advance(0.499);
        assert!(asked.take().is_none(), "it waits");
        world.advance(0.001);
        is_stale(&asked.take().expect("it waits no longer"), &old, "slow", "3600");
        world.advance(1.5);
        let answered = world.get(TAG);
        assert_eq!(
            (answered.brief(), &answered.body[..]),
            ("200 HIT".into(), new.as_bytes()),
            "alone: {alone}"
        );
    }
}

/// Only what was a hit may be given again, and only as long as the answer would be the same to the word.
#[test]
fn a_hit_may_be_given_again_until_another_second_is_left() {
    let text = image("one");
    let world = public();
    world.expect(get(TAG).manifest(&text));
    let again = |ask: &dyn Fn() -> Answered, brief: &str| {
        let answered = ask();
        assert_eq!(answered.brief(), brief);
        (answered.header("cache-control").map(str::to_owned), answered.facts.again)
    };
    let tag = || world.get(TAG);
    assert_eq!(again(&tag, "200 MISS").1, None);
    world.advance(0.25);
    let (first, again_for) = again(&tag, "200 HIT");
    assert_eq!(again_for, Some(Duration::from_millis(750)));
    world.advance(0.75);
    assert_eq!(again(&tag, "200 HIT"), (first, Some(Duration::ZERO)));
    let by_digest = || world.get(&format!("app/manifests/{}", digest(&text)));
    assert_eq!(again(&by_digest, "200 HIT").1, Some(Duration::from_secs(1)));
    world.advance(HOUR);
    world.expect(head(TAG).fails(Fault::Tls));
    assert_eq!(again(&tag, "200 STALE").1, None);
    assert_eq!(again(&tag, "200 STALE").1, None);
    world.advance(10.0);
    world.expect(head(TAG).manifest(&text));
    assert_eq!(again(&tag, "200 REVALIDATED").1, None);
    world.expect(get("app/manifests/none").status(404));
    assert_eq!(world.get("app/manifests/none").facts.again, None);
}

#[test]
fn clients_that_come_during_a_slow_head_wait_for_the_same_one() {
    let text = image("one");
    let world = holding(&text);
    world.advance(HOUR);
    world.expect(head(TAG).manifest(&text).after(0.8));
    let first = world.ask(Ask::get(TAG));
    world.advance(0.4);
    let second = world.ask(Ask::head(TAG));
    world.advance(0.4);
    assert_eq!(first.take().unwrap().brief(), "200 STALE");
    let second = second.take().unwrap();
    assert_eq!((second.brief(), second.took), ("200 REVALIDATED".into(), 400));
}

/// T-UF2: what is held is served while upstream fails, which is not asked again at once.
#[test]
fn t_uf2_an_upstream_that_fails_is_left_alone_for_a_while() {
    let text = image("one");
    let failures = [
        (head(TAG).status(401), "refuses"),
        (head(TAG).status(403), "refuses"),
        (head(TAG).status(429), "limits"),
        (head(TAG).status(503).header(RETRY_AFTER, "8"), "does not answer"),
        (head(TAG).fails(Fault::Tls), "does not answer"),
        (head(TAG).status(418), "does not answer"),
    ];
    for (failure, warning) in failures {
        let world = holding(&text);
        world.advance(HOUR);
        world.expect(failure);
        is_stale(&world.get(TAG), &text, warning, "3600");
        world.advance(9.999);
        is_stale(&world.get(TAG), &text, warning, "3609");
        assert_eq!(world.head(TAG).brief(), "200 STALE");
        assert_eq!(world.upstream.count(), 2, "{warning}");
        // The pause is over, and upstream is back (429 pauses the whole origin for longer).
        world.advance(60.0);
        world.expect(head(TAG).manifest(&text));
        assert_eq!(world.get(TAG).brief(), "200 REVALIDATED");
        assert_eq!(world.get(TAG).brief(), "200 HIT");
    }
}

#[test]
fn each_failure_in_a_row_doubles_the_pause() {
    let text = image("one");
    let world = holding(&text);
    world.advance(HOUR);
    for pause in [10.0, 20.0, 40.0, 80.0] {
        world.expect(head(TAG).fails(Fault::Tls));
        assert_eq!(world.get(TAG).brief(), "200 STALE");
        let asked = world.upstream.count();
        world.advance(pause - 0.001);
        assert_eq!(world.get(TAG).brief(), "200 STALE");
        assert_eq!(world.upstream.count(), asked, "before {pause} s");
        world.advance(0.001);
    }
}

#[test]
fn a_new_digest_that_cannot_be_fetched_leaves_the_old_one() {
    let (old, new) = (image("old"), image("new"));
    let world = holding(&old);
    world.advance(HOUR);
    let by_digest = format!("app/manifests/{}", digest(&new));
    world.expect(head(TAG).manifest(&new)).expect(get(&by_digest).status(429).header(RETRY_AFTER, "30"));
    is_stale(&world.get(TAG), &old, "limits", "3600");
}

#[test]
fn a_new_digest_that_is_a_lie_leaves_the_old_one() {
    let (old, new, third) = (image("old"), image("new"), image("third"));
    let world = holding(&old);
    world.advance(HOUR);
    let by_digest = format!("app/manifests/{}", digest(&new));
    let lie = get(TAG)
        .manifest(&third)
        .header(HeaderName::from_static("docker-content-digest"), &digest(&new).to_string());
    world
        .expect(head(TAG).manifest(&new))
        .expect(get(&by_digest).manifest(&third))
        .expect(lie.clone())
        .expect(lie);
    is_stale(&world.get(TAG), &old, "does not answer", "3600");
    assert_eq!(world.store.objects(), [digest(&old)]);
}

#[test]
fn past_max_stale_the_failure_is_passed_on() {
    let text = image("one");
    let world = held(World::new(&format!("  cache: {{ max_stale: \"1d\" }}\n{PUBLIC}")), &text);
    world.advance(HOUR + 86_400.0);
    world.expect(head(TAG).fails(Fault::Tls));
    assert_eq!(world.get(TAG).brief(), "200 STALE", "on its last day");
    world.advance(20.0);
    world.expect(get(TAG).fails(Fault::Tls));
    assert_eq!(world.get(TAG).brief(), "502 UNAVAILABLE");
    world.advance(20.0);
    world.expect(get(TAG).manifest(&text));
    assert_eq!(world.get(TAG).brief(), "200 MISS");
}

#[test]
fn an_evicted_manifest_is_fetched_again_whatever_its_tag_says() {
    let text = image("one");
    let world = holding(&text);
    world.store.evict(digest(&text));
    world.expect(get(TAG).manifest(&text));
    assert_eq!(world.get(TAG).brief(), "200 MISS");
    world.advance(HOUR);
    world.store.evict(digest(&text));
    world.expect(head(TAG).manifest(&text)).expect(get(TAG).manifest(&text));
    assert_eq!(world.get(TAG).status, 200);
    world.advance(HOUR);
    world.store.evict(digest(&text));
    world.expect(head(TAG).fails(Fault::Tls)).expect(get(TAG).fails(Fault::Tls));
    assert_eq!(world.get(TAG).brief(), "502 UNAVAILABLE", "nothing is held that could be served stale");
}

/// T-UF2: a tag that is gone, by `on_gone`.
#[test]
fn t_uf2_a_tag_that_is_gone_is_kept_or_dropped_as_told() {
    let text = image("one");
    let keep = holding(&text);
    keep.advance(HOUR);
    keep.expect(head(TAG).status(404));
    is_stale(&keep.get(TAG), &text, "no longer has this tag", "3600");
    assert!(keep.store.records("absent").is_empty());

    let yaml = PUBLIC.replace("mirror: true", "mirror: true, on_gone: \"follow\"");
    let follow = held(World::new(&yaml), &text);
    follow.advance(HOUR);
    follow.expect(head(TAG).status(404));
    assert_eq!(follow.get(TAG).brief(), "404 MANIFEST_UNKNOWN");
    assert_eq!(follow.get(TAG).brief(), "404 MANIFEST_UNKNOWN");
    assert_eq!(follow.upstream.count(), 2, "the absence is remembered");
    assert_eq!(
        follow.get(&format!("app/manifests/{}", digest(&text))).brief(),
        "200 HIT",
        "a digest is for ever"
    );
    follow.advance(10.0);
    follow.expect(get(TAG).manifest(&text));
    assert_eq!(follow.get(TAG).brief(), "200 MISS", "it is back");
}

/// T-UF2: a refusal denies what rests on our credentials, for as long as upstream refuses.
#[test]
fn t_uf2_a_refusal_denies_what_rests_on_credentials() {
    let text = image("one");
    let known = || Ask::get(TAG).from(KNOWN);
    for status in [401, 403] {
        let world = private();
        let tries = if status == 401 { 2 } else { 1 };
        world.expect(get(TAG).status(401).header(http::header::WWW_AUTHENTICATE, "Basic realm=\"up\""));
        world.expect(get(TAG).with(OURS).manifest(&text));
        let cold = world.answer(known());
        assert_eq!(
            (cold.brief(), cold.header("cache-control")),
            ("200 MISS".into(), Some("private, no-store"))
        );
        world.advance(HOUR);
        let challenge = |said: Said| said.header(http::header::WWW_AUTHENTICATE, "Basic realm=\"up\"");
        world.expect(challenge(head(TAG).with(OURS).status(status)));
        let refused = world.answer(known()).status.as_u16();
        assert_eq!(refused, status, "after {tries}");
        let asked = world.upstream.count();
        assert!([401, 403].contains(&world.answer(known()).status.as_u16()));
        assert_eq!(world.upstream.count(), asked, "upstream is left alone");
        // An outage does not open what was refused.
        world.advance(10.0);
        world.expect(head(TAG).with(OURS).fails(Fault::Tls));
        assert!(!world.answer(known()).status.is_success());
        world.advance(20.0);
        world.expect(head(TAG).with(OURS).manifest(&text));
        assert_eq!(world.answer(known()).brief(), "200 REVALIDATED", "upstream relents");
    }
}

#[test]
fn a_refusal_leaves_public_content_of_a_source_with_credentials() {
    let text = image("one");
    let tag = "open/app/manifests/v1";
    let world = World::new(PRIVATE);
    world.expect(get(tag).status(401).header(http::header::WWW_AUTHENTICATE, "Basic realm=\"up\""));
    world.expect(get(tag).with(OURS).manifest(&text));
    assert_eq!(world.get(tag).brief(), "200 MISS");
    world.advance(HOUR);
    world.expect(head(tag).with(OURS).status(403));
    is_stale(&world.get(tag), &text, "refuses", "3600");
}

#[test]
fn a_low_budget_is_not_spent_on_what_is_held() {
    let text = image("one");
    let world = World::new(&format!("  cache: {{ manifest_ttl: \"10m\" }}\n{PUBLIC}"));
    let remaining = HeaderName::from_static("ratelimit-remaining");
    let limit = HeaderName::from_static("ratelimit-limit");
    let said = get(TAG).manifest(&text).header(limit, "100;w=21600").header(remaining, "9;w=21600");
    world.expect(said);
    assert_eq!(world.get(TAG).brief(), "200 MISS");
    world.advance(1200.0);
    is_stale(&world.get(TAG), &text, "limits", "1200");
    assert_eq!(world.upstream.count(), 1);
    // What is not held is worth a pull. The registry's word is believed for an hour.
    world.expect(head("app/manifests/v2").manifest(&text));
    assert_eq!(world.head("app/manifests/v2").brief(), "200 MISS");
    world.advance(HOUR);
    world.expect(head(TAG).manifest(&text));
    assert_eq!(world.get(TAG).brief(), "200 REVALIDATED");
}
