//! Manifests that are not what they should be: 502, and nothing of them is kept.

use http::HeaderName;
use http::header::CONTENT_TYPE;

use crate::memory::{Ask, Said, get, head};
use crate::samples::{descriptor, digest, image, index, media_type, public};

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// Asks for `text`, which upstream serves with `content_type`, by digest and by tag.
fn refused(text: &[u8], content_type: &str, code: &str) {
    for path in [format!("app/manifests/{}", digest(text)), "app/manifests/v1".to_owned()] {
        let world = public();
        let good = image("good");
        world.expect(get("app/manifests/good").manifest(&good));
        assert_eq!(world.get("app/manifests/good").brief(), "200 MISS");
        let before = world.store.snapshot();
        world.expect(get(&path).blob(text).header(CONTENT_TYPE, content_type));
        let answered = world.get(&path);
        assert_eq!(answered.brief(), format!("502 {code}"), "{}", String::from_utf8_lossy(text));
        assert_eq!(world.store.snapshot(), before, "nothing is kept, not even that it failed");
        assert_eq!(world.get("app/manifests/good").brief(), "200 HIT");
    }
}

/// T-BI1: what two readers could understand differently is refused, and leaves the store as it was.
#[test]
fn t_bi1_ambiguous_manifests_are_502_and_leave_the_store_unchanged() {
    let config = descriptor("config.v1+json", b"{}", 2);
    let layers = format!("\"layers\":[{}]", descriptor("layer.v1.tar", b"x", 1));
    let manifests = format!("\"manifests\":[{}]", descriptor("manifest.v1+json", b"y", 1));
    let with =
        |kind: &str, members: &str| format!("{{\"schemaVersion\":2,\"mediaType\":\"{kind}\",{members}}}");
    let plain = |members: &str| format!("{{\"schemaVersion\":2,{members}}}");
    let image_and_index = format!("\"config\":{config},{layers},{manifests}");
    let cases = [
        (with(OCI_IMAGE, &image_and_index), OCI_IMAGE),
        (with(OCI_INDEX, &image_and_index), OCI_INDEX),
        (plain(&image_and_index), OCI_IMAGE),
        (plain(&format!("\"config\":{config},{manifests}")), OCI_INDEX),
        (plain(&format!("{layers},{manifests}")), OCI_INDEX),
        (image("one"), OCI_INDEX),
        (index(&[("a", "b")]), OCI_IMAGE),
        (image("one"), "text/plain"),
        ("{\"schemaVersion\":1,\"name\":\"app\",\"tag\":\"v1\"}".to_owned(), SCHEMA1),
        (plain("\"fsLayers\":[]"), "application/json"),
    ];
    for (text, content_type) in cases {
        refused(text.as_bytes(), content_type, "MANIFEST_INVALID");
    }
}

/// T-BI1: what is only unusual is served with its own type, which is the same however upstream spells it.
#[test]
fn t_bi1_legal_variants_are_served_with_the_canonical_type() {
    let image = image("one");
    let untyped = image.replace(&format!("\"mediaType\":\"{OCI_IMAGE}\","), "");
    for (text, content_type) in [
        (&image, OCI_IMAGE.to_owned()),
        (&image, format!("{OCI_IMAGE}; charset=utf-8")),
        (&image, OCI_IMAGE.to_uppercase()),
        (&untyped, OCI_IMAGE.to_owned()),
        (&untyped, format!("{OCI_IMAGE};charset=utf-8")),
    ] {
        let world = public();
        let path = format!("app/manifests/{}", digest(text));
        world.expect(get(&path).blob(text.as_bytes()).header(CONTENT_TYPE, &content_type));
        for answered in [world.get(&path), world.get(&path), world.head(&path)] {
            assert_eq!(answered.header("content-type"), Some(OCI_IMAGE), "{content_type}");
        }
        assert_eq!(world.get(&path).body, text.as_bytes());
    }
}

/// T-BI2: JSON that parsers disagree on.
#[test]
fn t_bi2_documents_that_parsers_disagree_on_are_502_and_leave_the_store_unchanged() {
    let good = image("one");
    let cases = [
        good.replacen("{\"schemaVersion\":2,", "{\"schemaVersion\":2,\"schemaVersion\":2,", 1),
        good.replacen("\"layers\":", "\"Layers\":[],\"layers\":", 1),
        good.replacen("\"layers\":", "\"layers\":[],\"layers\":", 1),
        format!("{good} x"),
        format!("{good}{good}"),
        format!("\u{feff}{good}"),
        good.replacen("\"size\":2", "\"size\":NaN", 1),
        good.replacen("\"size\":2", "\"size\":-2", 1),
        good.replacen("\"size\":2", "\"size\":9223372036854775808", 1),
        good.replacen("\"size\":2", "\"size\":2.0", 1),
    ];
    for text in cases {
        assert_ne!(text, good);
        refused(text.as_bytes(), media_type(&good), "MANIFEST_INVALID");
    }
    refused(b"\xff\xfe", OCI_IMAGE, "MANIFEST_INVALID");
}

/// T-BI2: bytes are never written anew.
#[test]
fn t_bi2_odd_but_legal_bytes_are_served_as_they_are() {
    let world = public();
    let text = format!(" \n{}\r\n\t ", image("one").replace(',', " ,\n\t"));
    let path = format!("app/manifests/{}", digest(&text));
    world.expect(get(&path).blob(text.as_bytes()).header(CONTENT_TYPE, OCI_IMAGE));
    for _ in 0..2 {
        assert_eq!(world.get(&path).body, text.as_bytes());
    }
}

#[test]
fn a_manifest_that_hashes_to_something_else_is_502_and_not_kept() {
    let (wanted, sent) = (image("wanted"), image("sent"));
    let by_digest = format!("app/manifests/{}", digest(&wanted));
    let world = public();
    world.expect(get(&by_digest).manifest(&sent));
    assert_eq!(world.get(&by_digest).brief(), "502 DIGEST_INVALID");
    // By tag the head's promise counts. It may have moved in between, so it is asked for twice.
    let promised = HeaderName::from_static("docker-content-digest");
    let lie: Said =
        get("app/manifests/v1").manifest(&sent).header(promised.clone(), &digest(&wanted).to_string());
    world.expect(lie.clone()).expect(lie.clone());
    assert_eq!(world.get("app/manifests/v1").brief(), "502 DIGEST_INVALID");
    world.expect(lie).expect(get("app/manifests/v1").manifest(&wanted));
    assert_eq!(world.get("app/manifests/v1").brief(), "200 MISS");
    assert_eq!(world.store.objects(), [digest(&wanted)]);
    // A HEAD by digest that speaks of another one is no answer.
    let other = format!("app/manifests/{}", digest("other"));
    world.expect(head(&other).manifest(&sent));
    assert_eq!(world.answer(Ask::head(&other)).status, 502);
}

#[test]
fn a_manifest_that_breaks_off_is_asked_for_once_more() {
    let text = image("one");
    let world = public();
    let broken = || get("app/manifests/v1").manifest(&text).cut(20);
    world.expect(broken()).expect(get("app/manifests/v1").manifest(&text));
    assert_eq!(world.get("app/manifests/v1").brief(), "200 MISS");
    let other = public();
    other.expect(broken()).expect(broken());
    assert_eq!(other.get("app/manifests/v1").brief(), "502 UNAVAILABLE");
}

#[test]
fn a_manifest_of_more_than_four_mebibytes_is_refused_announced_or_not() {
    let text = image(&"x".repeat(4 << 20));
    for said in
        [get("app/manifests/v1").manifest(&text), get("app/manifests/v1").manifest(&text).unsized_body()]
    {
        let world = public();
        world.expect(said);
        assert_eq!(world.get("app/manifests/v1").status, 502);
        assert_eq!(world.store.objects(), []);
    }
}
