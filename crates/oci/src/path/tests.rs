use super::*;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn name(text: &str) -> RawName {
    RawName(text.into())
}

fn tag(text: &str) -> Result<Reference, ReferenceError> {
    Ok(Reference::Tag(text.parse().unwrap()))
}

fn digest() -> Digest {
    format!("sha256:{HEX}").parse().unwrap()
}

#[test]
fn every_endpoint_is_read() {
    let rows = [
        ("/v2".to_owned(), Call::Ping),
        ("/v2/".to_owned(), Call::Ping),
        ("/v2/_catalog".to_owned(), Call::Catalog),
        ("/token".to_owned(), Call::Token),
        ("/v2/a/manifests/latest".to_owned(), Call::Manifest { name: name("a"), reference: tag("latest") }),
        (
            format!("/v2/a/b/manifests/sha256:{HEX}"),
            Call::Manifest { name: name("a/b"), reference: Ok(digest().into()) },
        ),
        (format!("/v2/a/b/blobs/sha256:{HEX}"), Call::Blob { name: name("a/b"), digest: Ok(digest()) }),
        (format!("/v2/a/b/blobs/sha256%3A{HEX}"), Call::Blob { name: name("a/b"), digest: Ok(digest()) }),
        (format!("/v2/a/b/blobs/sha256%3a{HEX}"), Call::Blob { name: name("a/b"), digest: Ok(digest()) }),
        ("/v2/a/tags/list".to_owned(), Call::Tags { name: name("a") }),
        (format!("/v2/a/referrers/sha256:{HEX}"), Call::Referrers { name: name("a"), digest: Ok(digest()) }),
        ("/v2/a/blobs/uploads".to_owned(), Call::Upload { name: name("a") }),
        ("/v2/a/blobs/uploads/".to_owned(), Call::Upload { name: name("a") }),
        ("/v2/a/blobs/uploads/5d1c-77".to_owned(), Call::Upload { name: name("a") }),
    ];
    for (path, call) in rows {
        assert_eq!(parse(&path), Ok(ApiPath { root: None, call: call.clone() }), "{path}");
        let rooted = ApiPath { root: Some("hub/eu".into()), call };
        assert_eq!(parse(&format!("/hub/eu{path}")), Ok(rooted), "/hub/eu{path}");
    }
}

#[test]
fn names_are_matched_from_the_right() {
    let rows = [
        ("/v2/manifests/manifests/manifests", name("manifests"), "manifests"),
        ("/v2/a/blobs/uploads/manifests/x", name("a/blobs/uploads"), "x"),
        ("/v2/a/tags/list/manifests/x", name("a/tags/list"), "x"),
        ("/v2/v2/v2/manifests/v2", name("v2/v2"), "v2"),
        ("/v2/ghcr.io/o/i/manifests/x", name("ghcr.io/o/i"), "x"),
        ("/v2/localhost:5000/i/manifests/x", name("localhost:5000/i"), "x"),
        ("/v2/token/manifests/token", name("token"), "token"),
    ];
    for (path, name, reference) in rows {
        let call = Call::Manifest { name, reference: tag(reference) };
        assert_eq!(parse(path), Ok(ApiPath { root: None, call }), "{path}");
    }
    assert_eq!(parse("/v2/a/manifests/tags/list").unwrap().call, Call::Tags { name: name("a/manifests") });
}

#[test]
fn t_bi4_hostile_paths_are_refused() {
    use PathError::*;
    let rows = [
        ("", NotOurs),
        ("/", NotOurs),
        ("v2/", NotOurs),
        ("*", NotOurs),
        ("/v1/", NotOurs),
        ("/V2/a/manifests/x", NotOurs),
        ("/v2%2f", NotOurs),
        ("/%76%32/a/manifests/x", NotOurs),
        ("/../../etc/passwd", NotOurs),
        ("/token/", NotOurs),
        ("/tokens", NotOurs),
        ("/proxy", NotOurs),
        ("https://evil.example/v2/", EmptySegment),
        ("//v2/", EmptySegment),
        ("//token", EmptySegment),
        ("/../v2/", DotSegment),
        ("/./token", DotSegment),
        ("/a%2fb/v2/", Character),
        ("/v2/..", DotSegment),
        ("/v2/a", NoSuchEndpoint),
        ("/v2/a/b", NoSuchEndpoint),
        ("/v2/token", NoSuchEndpoint),
        ("/v2/tags/list", NoSuchEndpoint),
        ("/v2/manifests/x", NoSuchEndpoint),
        ("/v2/blobs/uploads", NoSuchEndpoint),
        ("/v2/a/_catalog", NoSuchEndpoint),
        ("/v2/_catalog/", EmptySegment),
        ("/v2//", EmptySegment),
        ("/v2//a/manifests/x", EmptySegment),
        ("/v2/a//manifests/x", EmptySegment),
        ("/v2/a/manifests//x", EmptySegment),
        ("/v2/a/manifests/", EmptySegment),
        ("/v2/a/manifests/x/", EmptySegment),
        ("/v2/a/tags/list/", EmptySegment),
        ("/v2/a/manifests/..", DotSegment),
        ("/v2/a/../b/manifests/x", DotSegment),
        ("/v2/./manifests/x", DotSegment),
        ("/v2/%2e%2e/manifests/x", Character),
        ("/v2/a%2fb/manifests/x", Character),
        ("/v2/a%252fb/manifests/x", Character),
        ("/v2/a%3Ab/manifests/x", Character),
        ("/v2/a\\b/manifests/x", Character),
        ("/v2/a%00/manifests/x", Character),
        ("/v2/a\0/manifests/x", Character),
        ("/v2/a b/manifests/x", Character),
        ("/v2/caf\u{e9}/manifests/x", Character),
        ("/v2/a\u{202E}b/manifests/x", Character),
        ("/v2/a\u{200B}/tags/list", Character),
        ("/v2/a/tags/list%00", Character),
    ];
    for (path, error) in rows {
        // "https:" is a root like any other, but for the empty segment behind it.
        let path = if path.starts_with("https") { format!("/{path}") } else { path.to_owned() };
        assert_eq!(parse(&path), Err(error), "{path:?}");
        assert!(!error.to_string().is_empty());
    }
}

#[test]
fn t_bi4_paths_have_an_end() {
    let with_name = |length| parse(&format!("/v2/{}/manifests/x", "a".repeat(length)));
    assert!(with_name(MAX_NAME).is_ok());
    assert_eq!(with_name(MAX_NAME + 1), Err(PathError::TooLong));
    assert_eq!(with_name(10_000), Err(PathError::TooLong));
    let with_root = |length| parse(&format!("/{}/v2/", "a".repeat(length)));
    assert!(with_root(MAX_ROOT).is_ok());
    assert_eq!(with_root(MAX_ROOT + 1), Err(PathError::TooLong));
    assert_eq!(PathError::TooLong.class(), PathClass::NameInvalid);
    assert_eq!(PathError::NotOurs.class(), PathClass::NotFound);
}

#[test]
fn t_bi3_a_bad_digest_is_called_a_bad_digest() {
    let long = format!("sha256:{}", "a".repeat(10_240));
    let bad = [
        "sha256:x",
        "sha1:00",
        "latest",
        "sha256-00",
        "sha256:%D9%A3",
        "sha256:a%2f",
        "sha256:\u{661}",
        &long,
    ];
    for text in bad {
        let Ok(ApiPath { call: Call::Blob { digest, .. }, .. }) = parse(&format!("/v2/a/blobs/{text}"))
        else {
            panic!("{text}")
        };
        assert!(digest.is_err(), "{text}");
        let Ok(ApiPath { call: Call::Referrers { digest, .. }, .. }) =
            parse(&format!("/v2/a/referrers/{text}"))
        else {
            panic!("{text}")
        };
        assert!(digest.is_err(), "{text}");
    }
    let Ok(ApiPath { call: Call::Manifest { reference, .. }, .. }) = parse("/v2/a/manifests/sha256:x") else {
        panic!()
    };
    assert!(matches!(reference, Err(ReferenceError::Digest(_))));
    let Ok(ApiPath { call: Call::Manifest { reference, .. }, .. }) = parse("/v2/a/manifests/%2e%2e%2f")
    else {
        panic!()
    };
    assert!(matches!(reference, Err(ReferenceError::Tag(_))));
}

#[test]
fn a_raw_name_is_checked_wherever_it_comes_from() {
    assert_eq!(RawName::parse("ghcr.io/o/i").unwrap().split_first(), ("ghcr.io", Some("o/i")));
    assert_eq!(RawName::parse("busybox").unwrap().split_first(), ("busybox", None));
    for (text, error) in
        [("", PathError::EmptySegment), ("a/../b", PathError::DotSegment), ("a%41", PathError::Character)]
    {
        assert_eq!(RawName::parse(text), Err(error), "{text:?}");
    }
}
