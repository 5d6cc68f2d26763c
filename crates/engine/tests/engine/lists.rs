//! Lists of tags and of referrers.

use entrepot_core::upstream::Fault;
use http::header::{LINK, RETRY_AFTER, WWW_AUTHENTICATE};

use crate::memory::{Ask, Said, World, get};
use crate::samples::{KNOWN, OURS, digest, image, index, private, public};

const TAGS: &str = "app/tags/list";

fn referrers() -> String {
    format!("app/referrers/{}", digest("subject"))
}

fn tag_of_referrers() -> String {
    format!("app/manifests/{}", digest("subject").to_string().replace(':', "-"))
}

fn tags(list: &str) -> Said {
    get(TAGS).json(&format!(r#"{{"name":"app","tags":{list}}}"#))
}

#[test]
fn a_list_is_believed_for_a_minute() {
    let world = public();
    world.expect(tags(r#"["v1"]"#));
    let cold = world.get(TAGS);
    assert_eq!((cold.brief(), &cold.body[..]), ("200 MISS".into(), &br#"{"name":"app","tags":["v1"]}"#[..]));
    world.advance(50.0);
    let warm = world.get(TAGS);
    assert_eq!(
        (warm.brief(), warm.header("cache-control")),
        ("200 HIT".into(), Some("public, max-age=10, no-transform"))
    );
    assert_eq!(world.head(TAGS).brief(), "200 HIT");
    world.advance(10.0);
    world.expect(tags(r#"["v1","v2"]"#));
    assert_eq!(&world.get(TAGS).body[..], br#"{"name":"app","tags":["v1","v2"]}"#);
}

#[test]
fn links_to_the_next_page_lead_through_the_mirror() {
    let world = public();
    let link = r#"<https://up.example.com/v2/app/tags/list?last=b&n=2&mark=x%2Fy>; rel="next""#;
    world.expect(get("app/tags/list?n=2").json(r#"{"name":"app","tags":["a","b"]}"#).header(LINK, link));
    for _ in 0..2 {
        let page = world.get("up.example.com/app/tags/list?n=2");
        let next = r#"</v2/up.example.com/app/tags/list?last=b&n=2&mark=x%2Fy>; rel="next""#;
        assert_eq!(page.header("link"), Some(next));
        assert!(page.body.starts_with(br#"{"name":"up.example.com/app""#));
    }
    world.expect(get("app/tags/list?last=b&n=2&mark=x%2Fy").json(r#"{"name":"app","tags":["c"]}"#));
    let last = world.get("up.example.com/app/tags/list?last=b&n=2&mark=x%2Fy");
    assert_eq!((last.brief(), last.header("link")), ("200 MISS".into(), None));
}

#[test]
fn an_upstream_that_ignores_n_is_cut_and_can_be_walked() {
    let world = public();
    let mut query = "n=2".to_owned();
    let mut seen = Vec::new();
    loop {
        world.expect(get(&format!("{TAGS}?{query}")).json(r#"{"name":"app","tags":["c","a","b","e","d"]}"#));
        let page = world.get(&format!("{TAGS}?{query}"));
        let body: serde_json::Value = serde_json::from_slice(&page.body).unwrap();
        seen.extend(body["tags"].as_array().unwrap().iter().map(|tag| tag.as_str().unwrap().to_owned()));
        let Some(link) = page.header("link") else { break };
        query = link.split_once('?').unwrap().1.split_once('>').unwrap().0.to_owned();
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_list_outlives_an_outage_and_says_so() {
    let failures = [
        (get(TAGS).fails(Fault::Tls), "does not answer"),
        (get(TAGS).status(429).header(RETRY_AFTER, "5"), "limits"),
        (get(TAGS).status(403), "refuses"),
        (get(TAGS).json("<html>"), "does not answer"),
        (get(TAGS).json("{").cut(1), "does not answer"),
    ];
    for (failure, warning) in failures {
        let world = public();
        world.expect(tags(r#"["v1"]"#));
        assert_eq!(world.get(TAGS).brief(), "200 MISS");
        world.advance(90.0);
        world.expect(failure);
        let stale = world.get(TAGS);
        assert_eq!((stale.brief(), stale.header("age")), ("200 STALE".into(), Some("90")));
        assert!(stale.header("warning").unwrap().contains(warning), "{stale:?}");
        assert!(stale.header("cache-control").unwrap().contains("max-age=0"));
    }
}

#[test]
fn a_list_that_is_gone_is_gone_and_one_that_was_refused_is_denied() {
    let world = public();
    world.expect(tags(r#"["v1"]"#));
    assert_eq!(world.get(TAGS).brief(), "200 MISS");
    world.advance(60.0);
    world.expect(get(TAGS).status(404));
    assert_eq!(world.get(TAGS).brief(), "404 NAME_UNKNOWN");
    assert_eq!(world.get(TAGS).brief(), "404 NAME_UNKNOWN");
    assert_eq!(world.upstream.count(), 2, "the absence is remembered");
    world.advance(10.0);
    world.expect(tags(r#"["v1"]"#));
    assert_eq!(world.get(TAGS).brief(), "200 MISS");

    let world = private();
    let challenged = |said: Said| said.status(401).header(WWW_AUTHENTICATE, "Basic realm=\"up\"");
    world.expect(challenged(get(TAGS))).expect(tags(r#"["v1"]"#).with(OURS));
    assert_eq!(world.answer(Ask::get(TAGS).from(KNOWN)).brief(), "200 MISS");
    world.advance(60.0);
    world.expect(challenged(get(TAGS).with(OURS)));
    assert_eq!(world.answer(Ask::get(TAGS).from(KNOWN)).status, 401);
    world.expect(challenged(get(TAGS)));
    assert_eq!(world.get(TAGS).brief(), "401 UNAUTHORIZED", "nor is it shown to who is not known");
}

#[test]
fn past_max_stale_a_lists_failure_is_passed_on() {
    let world = World::new(&format!("  cache: {{ max_stale: \"1d\" }}\n{}", crate::samples::PUBLIC));
    world.expect(tags(r#"["v1"]"#));
    assert_eq!(world.get(TAGS).brief(), "200 MISS");
    world.advance(86_400.0 + 60.0);
    world.expect(get(TAGS).fails(Fault::Tls));
    assert_eq!(world.get(TAGS).status, 502);
}

#[test]
fn referrers_come_from_the_api_and_are_filtered_where_upstream_has_not() {
    let world = public();
    let list = index(&[("one", "a/sig"), ("two", "a/sbom")]);
    world.expect(get(&referrers()).manifest(&list));
    let all = world.get(&referrers());
    assert_eq!((all.brief(), &all.body[..]), ("200 MISS".into(), list.as_bytes()));
    assert_eq!(all.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    assert_eq!(all.header("oci-filters-applied"), None);
    let filtered = format!("{}?artifactType=a%2Fsig", referrers());
    world.expect(get(&filtered).manifest(&list));
    let some = world.get(&filtered);
    assert_eq!(some.header("oci-filters-applied"), Some("artifactType"));
    assert!(
        some.body.windows(5).any(|text| text == b"a/sig")
            && !some.body.windows(6).any(|text| text == b"a/sbom")
    );
}

#[test]
fn without_the_api_referrers_come_from_their_tag() {
    for status in [404, 405, 501] {
        let world = public();
        let list = index(&[("one", "a/sig")]);
        world.expect(get(&referrers()).status(status)).expect(get(&tag_of_referrers()).manifest(&list));
        let answered = world.get(&referrers());
        assert_eq!(answered.brief(), "200 MISS", "{status}");
        let body: serde_json::Value = serde_json::from_slice(&answered.body).unwrap();
        assert_eq!(body["manifests"][0]["artifactType"], "a/sig");
        assert_eq!(world.get(&referrers()).brief(), "200 HIT");
    }
}

/// Whatever keeps the mirror from knowing, an empty list would claim that there are no signatures.
#[test]
fn there_is_never_an_invented_empty_list_nor_an_outage_called_an_absence() {
    let ask = |api: Said, tag: Option<Said>| {
        let world = public();
        world.expect(api);
        if let Some(tag) = tag {
            world.expect(tag);
        }
        let answered = world.get(&referrers());
        (world, answered.brief())
    };
    let none = || get(&referrers()).status(404);
    let tag = || get(&tag_of_referrers());
    let (world, brief) = ask(none(), Some(tag().status(404)));
    assert_eq!(brief, "404 MANIFEST_UNKNOWN");
    assert_eq!(world.get(&referrers()).brief(), "404 MANIFEST_UNKNOWN", "the absence is remembered");
    let cases = [
        (none(), Some(tag().status(429)), "429 TOOMANYREQUESTS"),
        (none(), Some(tag().status(403)), "403 DENIED"),
        (none(), Some(tag().fails(Fault::Tls)), "502 UNAVAILABLE"),
        (none(), Some(tag().manifest(&image("not a list"))), "502 UNKNOWN"),
        (get(&referrers()).manifest(&image("not a list")), None, "502 UNKNOWN"),
        (get(&referrers()).status(403), None, "403 DENIED"),
        (get(&referrers()).fails(Fault::Tls), None, "502 UNAVAILABLE"),
        (get(&referrers()).json("{}"), None, "502 UNKNOWN"),
    ];
    for (api, tag, expected) in cases {
        let (world, brief) = ask(api, tag);
        assert_eq!(brief, expected);
        assert!(
            world.store.records("absent").is_empty() && world.store.records("list").is_empty(),
            "{expected}"
        );
    }
}

#[test]
fn a_list_of_too_many_bytes_is_refused() {
    let world: World = public();
    let long = format!(r#"["{}"]"#, vec!["a".repeat(128); 40_000].join("\",\""));
    world.expect(tags(&long).unsized_body());
    assert_eq!(world.get(TAGS).status, 502);
    assert!(world.store.records("list").is_empty());
}
