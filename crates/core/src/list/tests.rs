use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::*;
use crate::resolve::sample;

const NOW: Wall = Wall(1_000_000_000);
const SUBJECT: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

fn reply(headers: &[(&'static str, &str)]) -> Reply {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    Reply {
        status: StatusCode::OK,
        headers: map,
        offset: 0,
        length: None,
        size: None,
        upstream: "https://up.example.com/".parse().unwrap(),
    }
}

fn tags_ask(query: &str) -> ListAsk {
    ListAsk::Tags { page: Page::parse(query).unwrap(), query: query.to_owned() }
}

fn referrers_ask(artifact_type: Option<&str>) -> ListAsk {
    ListAsk::Referrers {
        digest: SUBJECT.parse().unwrap(),
        artifact_type: artifact_type.map(str::to_owned),
        query: String::new(),
    }
}

fn tags_of(record: &ListRecord) -> Vec<&str> {
    match &record.list {
        List::Tags(tags) => tags.iter().map(String::as_str).collect(),
        List::Referrers { .. } => panic!("{record:?}"),
    }
}

fn artifacts_of(record: &ListRecord) -> (Vec<String>, bool) {
    match &record.list {
        List::Referrers { index, filtered } => {
            let manifest = Manifest::parse(index.as_bytes(), None).unwrap();
            let types = manifest.children.into_iter().filter_map(|child| child.artifact_type);
            (types.collect(), *filtered)
        }
        List::Tags(_) => panic!("{record:?}"),
    }
}

fn two_referrers() -> String {
    let one = |kind| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{SUBJECT}","size":2,"artifactType":"{kind}"}}"#
        )
    };
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{},{}]}}"#,
        one("a/sig"),
        one("a/sbom")
    )
}

fn image() -> String {
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{SUBJECT}","size":2}},"layers":[]}}"#
    )
}

#[test]
fn upstreams_page_and_its_mark_are_taken_as_they_are() {
    let link = r#"</v2/app/tags/list?last=b&n=2&token=x%2Fy>; rel="next""#;
    let record = ListRecord::read(
        &tags_ask("n=2"),
        &reply(&[("link", link)]),
        br#"{"name":"app","tags":["b","a"]}"#,
        NOW,
    )
    .unwrap();
    assert_eq!(tags_of(&record), ["b", "a"]);
    assert_eq!(record.next.as_deref(), Some("last=b&n=2&token=x%2Fy"));
}

#[test]
fn a_list_longer_than_asked_for_is_cut() {
    let read = |query| {
        ListRecord::read(&tags_ask(query), &reply(&[]), br#"{"name":"app","tags":["c","a","b"]}"#, NOW)
            .unwrap()
    };
    let first = read("n=2");
    assert_eq!((tags_of(&first), first.next.as_deref()), (vec!["a", "b"], Some("n=2&last=b")));
    let second = read("n=2&last=b");
    assert_eq!((tags_of(&second), &second.next), (vec!["c"], &None));
    for ignored in ["last=b", "n=3&last=b"] {
        let rest = read(ignored);
        assert_eq!((tags_of(&rest), &rest.next), (vec!["c"], &None), "{ignored}: the list has `b` itself");
    }
    let none = read("n=0");
    assert_eq!((tags_of(&none).len(), &none.next), (0, &None));
    assert_eq!(tags_ask("n=0").what(), What::Tags("n=1".into()));
}

#[test]
fn referrers_are_filtered_where_upstream_has_not() {
    let read = |wanted, headers: &[(&'static str, &str)]| {
        let text = two_referrers();
        artifacts_of(
            &ListRecord::read(&referrers_ask(wanted), &reply(headers), text.as_bytes(), NOW).unwrap(),
        )
    };
    let both = vec!["a/sig".to_owned(), "a/sbom".to_owned()];
    assert_eq!(read(None, &[]), (both.clone(), false));
    assert_eq!(read(Some("a/sig"), &[]), (vec!["a/sig".to_owned()], true));
    assert_eq!(read(Some("a/none"), &[]), (vec![], true));
    // What upstream says it has filtered is passed on as it is.
    let applied = [("oci-filters-applied", "other, artifactType")];
    assert_eq!(read(Some("a/sig"), &applied), (both, true));
}

#[test]
fn what_is_no_list_is_never_read_as_an_empty_one() {
    let image = image();
    for bytes in ["", "{}", "[]", "<html>", &*image] {
        let failure = ListRecord::read(&referrers_ask(None), &reply(&[]), bytes.as_bytes(), NOW).unwrap_err();
        assert_eq!(failure.reason, Reason::UpstreamBadAnswer, "{bytes}");
        let failure = ListRecord::of_tag(bytes.as_bytes(), Some("a/sig"), NOW).unwrap_err();
        assert_eq!(failure.reason, Reason::UpstreamBadAnswer, "{bytes}");
    }
    for bytes in ["", "[]", "<html>", r#"{"tags":"v1"}"#] {
        let failure = ListRecord::read(&tags_ask(""), &reply(&[]), bytes.as_bytes(), NOW).unwrap_err();
        assert_eq!(failure.reason, Reason::UpstreamBadAnswer, "{bytes}");
    }
}

#[test]
fn the_list_under_a_tag_is_filtered_here() {
    let text = two_referrers();
    let read = |wanted| artifacts_of(&ListRecord::of_tag(text.as_bytes(), wanted, NOW).unwrap());
    assert_eq!(read(None), (vec!["a/sig".to_owned(), "a/sbom".to_owned()], false));
    assert_eq!(read(Some("a/sbom")), (vec!["a/sbom".to_owned()], true));
}

#[test]
fn a_list_is_believed_for_a_minute_and_kept_for_an_outage() {
    let cache = sample::config().cache;
    let text = two_referrers();
    let record = ListRecord::of_tag(text.as_bytes(), None, NOW).unwrap();
    let after = |seconds| NOW.plus(Duration::from_secs(seconds));
    assert_eq!(record.left(&cache, after(59)), Some(Duration::from_secs(1)));
    assert_eq!(record.left(&cache, after(60)), None);
    assert_eq!(record.left(&cache, Wall(0)), None, "a record from the future");

    let stale =
        |reason, credentialed, now| record.stale_after(&Failure::new(reason, ""), credentialed, &cache, now);
    let last = after(60 + 7 * 86_400);
    let cases = [
        (Reason::UpstreamTimeout, false, last, Some(TroubleKind::Failed)),
        (Reason::UpstreamTimeout, false, last.plus(Duration::from_millis(1)), None),
        (Reason::UpstreamRateLimited, true, after(61), Some(TroubleKind::Limited)),
        (Reason::UpstreamDenied, false, after(61), Some(TroubleKind::Refused)),
        (Reason::UpstreamDenied, true, after(61), None),
        (Reason::NameUnknown, false, after(61), None),
    ];
    for (reason, credentialed, now, expected) in cases {
        assert_eq!(stale(reason, credentialed, now), expected, "{reason:?}");
    }
    assert_eq!(keep(&cache), Duration::from_secs(60 + 7 * 86_400));
}
