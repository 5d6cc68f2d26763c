//! What many want at the same moment is asked for once; a host whose requests cannot wait for each other gives the same
//! answers.

use http::header::WWW_AUTHENTICATE;

use crate::memory::{Ask, Said, World, get, head};
use crate::samples::{KNOWN, digest, image, image_of, index, private, public};

const REALM: &str = "https://up.example.com/token?service=up&scope=repository%3Aapp%3Apull";

/// Asks `asks` at once; upstream says `said` to the first of each kind, or to each of them.
fn together(world: &World, said: &[Said], asks: &[Ask]) -> Vec<String> {
    for said in said {
        world.expect(said.clone());
    }
    let asked: Vec<_> = asks.iter().map(|ask| world.ask(ask.clone())).collect();
    world.advance(60.0);
    asked.iter().map(|asked| asked.take().expect("an answer within a minute").brief()).collect()
}

#[test]
fn each_object_is_asked_for_once_however_many_want_it() {
    let text = image("one");
    let by_digest = format!("app/manifests/{}", digest(&text));
    let blob = format!("app/blobs/{}", digest(b"a layer"));
    let referrers = format!("app/referrers/{}", digest(&text));
    let list = index(&[("a", "b")]);
    let cases = [
        ("app/manifests/v1", get("app/manifests/v1").manifest(&text)),
        (&*by_digest, get(&by_digest).manifest(&text)),
        ("app/tags/list", get("app/tags/list").json(r#"{"name":"app","tags":["v1"]}"#)),
        (&*referrers, get(&referrers).manifest(&list)),
        (&*blob, get(&blob).blob(b"a layer")),
    ];
    for (path, said) in cases {
        let world = public();
        let answers = together(&world, &[said.after(2.0)], &vec![Ask::get(path); 50]);
        assert_eq!(answers, vec!["200 MISS"; 50], "{path}");
        assert_eq!(world.upstream.count(), 1, "{path}");
        assert_eq!(world.get(path).brief(), "200 HIT");
    }
}

#[test]
fn a_head_of_a_cold_manifest_is_sent_once() {
    let world = public();
    let said = head("app/manifests/v1").manifest(&image("one")).after(1.0);
    assert_eq!(together(&world, &[said], &vec![Ask::head("app/manifests/v1"); 9]), vec!["200 MISS"; 9]);
}

#[test]
fn those_who_waited_for_a_failure_hear_it_and_it_is_not_asked_for_again() {
    let world = public();
    let said = get("app/manifests/v1").status(404).after(1.0);
    assert_eq!(
        together(&world, &[said], &vec![Ask::get("app/manifests/v1"); 9]),
        vec!["404 MANIFEST_UNKNOWN"; 9]
    );
}

#[test]
fn only_the_first_is_said_to_have_fetched() {
    let world = public();
    world.expect(get("app/manifests/v1").manifest(&image("one")).after(1.0));
    let (first, second) = (world.ask(Ask::get("app/manifests/v1")), world.ask(Ask::get("app/manifests/v1")));
    world.advance(1.0);
    let (first, second) = (first.take().unwrap(), second.take().unwrap());
    assert!(first.facts.fetched && !second.facts.fetched);
    assert!(!first.header("cache-status").unwrap().contains("collapsed"));
    assert!(second.header("cache-status").unwrap().contains("collapsed"));
}

/// T-UF7: one token for each scope, however many pull at once, and none of it for another repository.
#[test]
fn t_uf7_one_token_serves_all_who_pull_from_a_repository() {
    let world = public();
    let challenge = |path: &str| {
        let realm = "Bearer realm=\"https://up.example.com/token\",service=\"up\"";
        get(path).status(401).header(WWW_AUTHENTICATE, realm).after(0.5)
    };
    let images: Vec<_> = (0..5).map(|n| image(&n.to_string())).collect();
    let paths: Vec<_> = images.iter().map(|text| format!("app/manifests/{}", digest(text))).collect();
    for (text, path) in images.iter().zip(&paths) {
        world.expect(challenge(path)).expect(get(path).with("Bearer t1").manifest(text));
    }
    let token = get(REALM).json(r#"{"token":"t1","expires_in":300}"#).after(1.0);
    let asks: Vec<_> = paths.iter().map(|path| Ask::get(path)).collect();
    assert_eq!(together(&world, &[token], &asks), vec!["200 MISS"; 5]);
    assert_eq!(world.upstream.seen().iter().filter(|seen| seen.contains("/token")).count(), 1);
    // Another repository needs another token, and no challenge to know that.
    let other = "https://up.example.com/token?service=up&scope=repository%3Aother%3Apull";
    world.expect(get(other).json(r#"{"token":"t2"}"#));
    world.expect(get("other/manifests/v1").with("Bearer t2").manifest(&images[0]));
    assert_eq!(world.get("other/manifests/v1").brief(), "200 MISS");
}

#[test]
fn a_request_that_leaves_takes_nobodys_answer_away() {
    let world = public();
    let blob = format!("app/blobs/{}", digest(b"a layer of some length"));
    world.expect(get("app/manifests/v1").manifest(&image("one")).after(2.0));
    world.expect(get(&blob).blob(b"a layer of some length").pause(4, 2.0));
    let leaving = [world.ask(Ask::get("app/manifests/v1")), world.ask(Ask::get(&blob))];
    let staying = [world.ask(Ask::get("app/manifests/v1")), world.ask(Ask::get(&blob))];
    world.advance(1.0);
    for asked in leaving {
        asked.leave(&world);
    }
    world.advance(2.0);
    for asked in staying {
        let answered = asked.take().unwrap();
        assert!(answered.whole && answered.brief() == "200 MISS", "{answered:?}");
    }
}

#[test]
fn work_goes_on_when_nobody_waits_for_it() {
    let world = public();
    let blob = format!("app/blobs/{}", digest(b"a layer"));
    world.expect(get("app/manifests/v1").manifest(&image("one")).after(2.0));
    world.expect(get(&blob).blob(b"a layer").after(2.0));
    for path in ["app/manifests/v1", &blob] {
        world.ask(Ask::get(path)).leave(&world);
    }
    world.advance(2.0);
    for path in ["app/manifests/v1", &blob] {
        assert_eq!(world.get(path).brief(), "200 HIT");
    }
}

/// The same requests against a host that shares flights and one that does not: the answers are the same, though more is
/// asked upstream.
#[test]
fn a_host_whose_requests_cannot_wait_for_each_other_gives_the_same_answers() {
    let text = image_of("one", &[b"a layer"]);
    let by_digest = format!("app/manifests/{}", digest(&text));
    let gone = format!("app/manifests/{}", digest(b"gone"));
    let asks: Vec<_> = ["app/manifests/v1", &by_digest, &gone, "app/tags/list"]
        .iter()
        .flat_map(|path| vec![Ask::get(path); 3])
        .chain(vec![Ask::head("app/manifests/v1"); 3])
        .collect();
    let said = [
        get("app/manifests/v1").manifest(&text),
        get(&by_digest).manifest(&text),
        get(&gone).status(404),
        get("app/tags/list").json(r#"{"name":"app","tags":["v1"]}"#),
        head("app/manifests/v1").manifest(&text),
    ];
    let shared = together(&public(), &said.clone().map(|said| said.after(1.0)), &asks);
    let alone = public();
    alone.flights.alone.set(true);
    let thrice: Vec<_> = said.into_iter().flat_map(|said| vec![said.after(1.0); 3]).collect();
    assert_eq!(together(&alone, &thrice, &asks), shared);
    assert_eq!(alone.upstream.count(), 15);
}

/// What another client asked for says nothing of what this one asks for, though they share the question whether the
/// repository is public.
#[test]
fn a_shared_probe_does_not_pass_on_another_objects_absence() {
    let world = private();
    let text = image("one");
    let (gone, there) = ("app/manifests/gone", "app/manifests/v1");
    world.expect(head(gone).status(404).after(1.0));
    world.expect(head(there).manifest(&text)).expect(get(there).manifest(&text));
    let (first, second) = (world.ask(Ask::get(gone)), world.ask(Ask::get(there)));
    world.advance(1.0);
    assert_eq!(first.take().unwrap().brief(), "404 MANIFEST_UNKNOWN");
    assert_eq!(second.take().unwrap().brief(), "200 MISS");
}

#[test]
fn known_and_anonymous_clients_may_share_a_flight_but_not_its_headers() {
    let world = private();
    let text = image("one");
    let path = "app/manifests/v1";
    world.expect(get(path).manifest(&text).after(1.0)).expect(head(path).manifest(&text).after(0.2));
    let (known, anonymous) = (world.ask(Ask::get(path).from(KNOWN)), world.ask(Ask::get(path)));
    world.advance(1.0);
    let (known, anonymous) = (known.take().unwrap(), anonymous.take().unwrap());
    assert_eq!((known.brief(), anonymous.brief()), ("200 MISS".into(), "200 MISS".into()));
    assert_eq!(known.header("cache-control"), Some("private, no-store"));
    assert!(anonymous.header("cache-control").unwrap().starts_with("public"));
}

/// Whenever the second of two requests comes, before, while or after the first one's flight lands, upstream is asked once.
#[test]
fn a_request_that_just_misses_a_flight_sees_what_it_brought() {
    let text = image("one");
    let by_digest = format!("app/manifests/{}", digest(&text));
    let blob = format!("app/blobs/{}", digest(b"a layer"));
    let tags = "app/tags/list";
    let v1 = "app/manifests/v1";
    let list = || get(tags).json(r#"{"name":"app","tags":["v1"]}"#);
    let cases = [
        (public as fn() -> World, Ask::get(v1), vec![get(v1).manifest(&text)]),
        (public, Ask::get(v1), vec![get(v1).status(404)]),
        (public, Ask::get(&by_digest), vec![get(&by_digest).manifest(&text)]),
        (public, Ask::head(v1), vec![head(v1).manifest(&text)]),
        (public, Ask::get(tags), vec![list()]),
        (public, Ask::get(tags), vec![get(tags).status(404)]),
        (public, Ask::get(&blob), vec![get(&blob).blob(b"a layer")]),
        (public, Ask::head(&blob), vec![head(&blob).blob(b"a layer")]),
        (private, Ask::get(v1), vec![head(v1).status(401)]),
        (private, Ask::head(v1), vec![head(v1).manifest(&text), head(v1).manifest(&text)]),
        (private, Ask::get(tags), vec![list(), list()]),
        (held_for_an_hour, Ask::get(v1), vec![head(v1).manifest(&image("held"))]),
        (held_for_an_hour, Ask::head(v1), vec![head(v1).manifest(&image("held"))]),
    ];
    for (world, ask, script) in cases {
        for delay in 0..60 {
            let world = world();
            world.store.lag(5);
            for said in &script {
                world.expect(said.clone().after(0.007));
            }
            let first = world.ask(ask.clone());
            world.advance(f64::from(delay) / 1000.0);
            let second = world.ask(ask.clone());
            world.advance(1.0);
            let (first, second) = (first.take().unwrap(), second.take().unwrap());
            assert_eq!(first.status, second.status, "{ask:?} after {delay} ms");
        }
    }
}

/// A tag that is no longer believed.
fn held_for_an_hour() -> World {
    let world = public();
    world.expect(get("app/manifests/v1").manifest(&image("held")));
    assert_eq!(world.get("app/manifests/v1").brief(), "200 MISS");
    world.advance(3600.0);
    world
}
