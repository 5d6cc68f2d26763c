use serde_json::{Value, json};

use super::*;
use crate::digest::Algorithm;

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn descriptor(media_type: &str) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{HEX}"), "size": 7})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media::OCI_MANIFEST,
        "config": descriptor(media::OCI_CONFIG),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
    })
}

fn index() -> Value {
    let mut child = descriptor(media::OCI_MANIFEST);
    child["platform"] =
        json!({"architecture": "arm64", "os": "linux", "variant": "v8", "os.features": ["x"]});
    json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": [child]})
}

fn with(mut value: Value, key: &str, member: Value) -> Value {
    value[key] = member;
    value
}

fn without(mut value: Value, key: &str) -> Value {
    value.as_object_mut().unwrap().remove(key).unwrap();
    value
}

fn parse(value: &Value, content_type: Option<&str>) -> Result<Manifest, ManifestError> {
    Manifest::parse(value.to_string().as_bytes(), content_type)
}

fn parse_text(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(text.as_bytes(), None)
}

fn is_json(error: &ManifestError, expected: JsonFault) -> bool {
    matches!(error, ManifestError::Json { fault, .. } if *fault == expected)
}

/// A well-formed image whose text holds `members` besides.
fn image_text(members: &str) -> String {
    let text = image().to_string();
    format!("{},{members}}}", &text[..text.len() - 1])
}

#[test]
fn an_image_is_read() {
    let annotated = with(image(), "annotations", json!({"a": "b"}));
    let manifest = parse(&annotated, Some(media::OCI_MANIFEST)).unwrap();
    assert_eq!(manifest.kind, Kind::Image);
    assert_eq!(manifest.media_type.as_str(), media::OCI_MANIFEST);
    assert_eq!(manifest.annotations["a"], "b");
    assert_eq!(manifest.config.as_ref().unwrap().media_type.as_str(), media::OCI_CONFIG);
    assert_eq!(manifest.layers.len(), 1);
    assert_eq!((manifest.layers[0].size, manifest.layers[0].digest), (7, Digest::sha256(b"")));
    assert_eq!(manifest.descriptors().count(), 2);
    assert_eq!((manifest.subject, manifest.artifact_type, manifest.children), (None, None, vec![]));
}

#[test]
fn an_index_is_read() {
    let manifest = parse(&index(), None).unwrap();
    assert_eq!(manifest.kind, Kind::Index);
    let platform = manifest.children[0].platform.as_deref().unwrap();
    assert_eq!(
        *platform,
        Platform { architecture: "arm64".into(), os: "linux".into(), variant: Some("v8".into()) }
    );
    assert_eq!((manifest.config, manifest.layers), (None, vec![]));
}

#[test]
fn t_bi1_legal_variants_are_accepted_with_the_canonical_type() {
    let artifact = json!({
        "schemaVersion": 2, "mediaType": media::OCI_MANIFEST, "artifactType": "application/vnd.example+json",
        "config": {"mediaType": media::OCI_EMPTY, "digest": format!("sha256:{HEX}"), "size": 2, "data": "e30="},
        "layers": [], "subject": descriptor(media::OCI_MANIFEST),
    });
    let mut foreign = descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
    foreign["urls"] = json!(["https://example.com/layer", "x:y"]);
    let nulls = json!({
        "schemaVersion": 2, "config": descriptor(media::OCI_CONFIG), "layers": null, "manifests": null,
        "annotations": null, "subject": null, "artifactType": null,
    });
    let nested =
        with(index(), "manifests", json!([descriptor(media::OCI_INDEX), descriptor(media::DOCKER_LIST)]));
    let parameters = format!("{}; charset=utf-8", media::OCI_MANIFEST.to_uppercase());
    let rows: &[(Value, Option<&str>, &str)] = &[
        (image(), None, media::OCI_MANIFEST),
        (image(), Some(&parameters), media::OCI_MANIFEST),
        (without(image(), "mediaType"), None, media::OCI_MANIFEST),
        (without(image(), "mediaType"), Some(media::OCI_MANIFEST), media::OCI_MANIFEST),
        (with(image(), "mediaType", json!(media::DOCKER_MANIFEST)), None, media::DOCKER_MANIFEST),
        (without(index(), "mediaType"), None, media::OCI_INDEX),
        (with(index(), "mediaType", json!(media::DOCKER_LIST)), Some(media::DOCKER_LIST), media::DOCKER_LIST),
        (with(index(), "subject", descriptor(media::OCI_INDEX)), None, media::OCI_INDEX),
        (with(index(), "manifests", json!([])), None, media::OCI_INDEX),
        (with(index(), "manifests", json!(null)), None, media::OCI_INDEX),
        (with(image(), "layers", json!([foreign])), None, media::OCI_MANIFEST),
        (with(image(), "artifactType", json!("junk, not a media type")), None, media::OCI_MANIFEST),
        (with(image(), "unknown", json!([{"Layers": [1.5e300, "\u{0}"]}])), None, media::OCI_MANIFEST),
        (artifact, None, media::OCI_MANIFEST),
        (nulls, None, media::OCI_MANIFEST),
        (nested, None, media::OCI_INDEX),
    ];
    for (value, content_type, expected) in rows {
        let manifest = parse(value, *content_type).unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(manifest.media_type.as_str(), *expected, "{value}");
    }
}

#[test]
fn t_bi1_ambiguous_manifests_are_refused() {
    for (key, member) in
        [("config", descriptor("a/b")), ("layers", json!([])), ("layers", json!([descriptor("a/b")]))]
    {
        let error = parse(&with(index(), key, member), None).unwrap_err();
        assert!(matches!(error, ManifestError::Ambiguous { key: found, .. } if found == key), "{error}");
    }
    for value in [image(), without(image(), "mediaType")] {
        let both = with(value, "manifests", json!([]));
        let error = parse(&both, None).unwrap_err();
        assert!(matches!(error, ManifestError::Ambiguous { .. }), "{error}");
    }
    let error = parse(&with(image(), "mediaType", json!(media::OCI_INDEX)), None).unwrap_err();
    assert!(matches!(error, ManifestError::Ambiguous { .. }), "{error}");
}

#[test]
fn t_bi1_the_type_is_decided_by_the_bytes_alone() {
    let all = [media::OCI_INDEX, media::OCI_MANIFEST, media::DOCKER_LIST, media::DOCKER_MANIFEST];
    for value in [image(), index(), without(image(), "mediaType"), without(index(), "mediaType")] {
        let own = parse(&value, None).unwrap().media_type;
        for content_type in all {
            match parse(&value, Some(content_type)) {
                Ok(manifest) => {
                    assert_eq!((manifest.media_type.as_str(), &manifest.media_type), (content_type, &own))
                }
                Err(error) => {
                    assert_ne!(own.as_str(), content_type);
                    assert!(matches!(error, ManifestError::Disagreement { .. }), "{error}");
                }
            }
        }
    }
}

#[test]
fn t_bi1_other_types_are_refused() {
    for content_type in
        ["text/plain", "text/html; charset=utf-8", media::JSON, media::OCTET_STREAM, media::OCI_CONFIG]
    {
        let error = parse(&image(), Some(content_type)).unwrap_err();
        assert!(matches!(error, ManifestError::NotAManifest { .. }), "{content_type}: {error}");
        let error = parse(&with(image(), "mediaType", json!(content_type)), None).unwrap_err();
        let expected = matches!(error, ManifestError::NotAManifest { .. } | ManifestError::MediaType { .. });
        assert!(expected, "{content_type}: {error}");
    }
    for content_type in ["", "json", "application/", "\u{0}"] {
        assert!(
            matches!(parse(&image(), Some(content_type)), Err(ManifestError::ContentType(_))),
            "{content_type:?}"
        );
    }
    let inexact = format!("{}; charset=utf-8", media::OCI_MANIFEST);
    for media_type in [inexact, media::OCI_MANIFEST.to_uppercase(), format!(" {}", media::OCI_MANIFEST)] {
        let error = parse(&with(image(), "mediaType", json!(media_type)), None).unwrap_err();
        assert!(matches!(error, ManifestError::MediaType { .. }), "{media_type}: {error}");
    }
}

#[test]
fn t_bi1_schema_1_is_refused() {
    let old = json!({"schemaVersion": 1, "name": "a", "tag": "b", "architecture": "c", "fsLayers": [], "history": []});
    for content_type in [None, Some(media::DOCKER_SCHEMA1), Some(media::DOCKER_SCHEMA1_SIGNED)] {
        assert_eq!(parse(&old, content_type), Err(ManifestError::Schema1));
    }
    assert_eq!(parse(&without(old, "fsLayers"), None), Err(ManifestError::Schema1));
    assert_eq!(parse(&with(image(), "fsLayers", json!([])), None), Err(ManifestError::Schema1));
    assert_eq!(
        parse(&with(image(), "mediaType", json!(media::DOCKER_SCHEMA1)), None),
        Err(ManifestError::Schema1)
    );
    for version in [json!(0), json!(3)] {
        assert_eq!(parse(&with(image(), "schemaVersion", version), None), Err(ManifestError::SchemaVersion));
    }
    assert_eq!(parse(&without(image(), "schemaVersion"), None), Err(ManifestError::SchemaVersion));
    for version in [json!("2"), json!(2.0), json!(null), json!(-2)] {
        let error = parse(&with(image(), "schemaVersion", version), None).unwrap_err();
        assert!(is_json(&error, JsonFault::WrongType), "{error}");
    }
}

#[test]
fn what_is_required_is_missed() {
    for (value, key) in [(image(), "config"), (image(), "layers"), (index(), "manifests")] {
        let error = parse(&without(value, key), None).unwrap_err();
        assert_eq!(error, ManifestError::Missing { at: "the manifest", key });
    }
    assert!(matches!(
        parse_text("{\"schemaVersion\":2}"),
        Err(ManifestError::Missing { key: "mediaType", .. })
    ));
    assert!(matches!(parse_text("{}"), Err(ManifestError::Missing { .. })));
    for key in ["mediaType", "digest", "size"] {
        let config = without(descriptor(media::OCI_CONFIG), key);
        let error = parse(&with(image(), "config", config), None).unwrap_err();
        assert_eq!(error, ManifestError::Missing { at: "config", key });
    }
}

#[test]
fn t_bi2_keys_that_come_twice_are_refused() {
    for key in ["schemaVersion", "mediaType", "config", "layers"] {
        let member = image()[key].to_string();
        let error = parse_text(&image_text(&format!("\"{key}\":{member}"))).unwrap_err();
        assert_eq!(error, ManifestError::DuplicateKey { at: "the manifest", key });
    }
    for key in ["manifests", "subject", "annotations", "artifactType", "fsLayers"] {
        let error = parse_text(&image_text(&format!("\"{key}\":null,\"{key}\":null"))).unwrap_err();
        assert_eq!(error, ManifestError::DuplicateKey { at: "the manifest", key });
    }
    // The same key, spelt with an escape.
    let error = parse_text(&image_text("\"\\u006cayers\":[]")).unwrap_err();
    assert_eq!(error, ManifestError::DuplicateKey { at: "the manifest", key: "layers" });
    for (place, at) in [("config", "config"), ("subject", "subject")] {
        for key in ["mediaType", "digest", "size"] {
            let inner = descriptor("a/b").to_string();
            let member = descriptor("a/b")[key].to_string();
            let twice = format!("{},\"{key}\":{member}}}", &inner[..inner.len() - 1]);
            let text = with(image(), place, json!("HERE")).to_string().replace("\"HERE\"", &twice);
            assert_eq!(parse_text(&text), Err(ManifestError::DuplicateKey { at, key }));
        }
    }
    for (key, member) in [("urls", "[]"), ("data", "\"\""), ("platform", "{}"), ("annotations", "{}")] {
        let inner = descriptor("a/b").to_string();
        let twice = format!("{},\"{key}\":{member},\"{key}\":{member}}}", &inner[..inner.len() - 1]);
        let text = with(image(), "layers", json!(["HERE"])).to_string().replace("\"HERE\"", &twice);
        assert_eq!(parse_text(&text), Err(ManifestError::DuplicateKey { at: "layers", key }));
    }
    let error = parse_text(&image_text("\"annotations\":{\"a\":\"b\",\"a\":\"b\"}")).unwrap_err();
    assert_eq!(error, ManifestError::DuplicateAnnotation { at: "the manifest" });
    let platform = index().to_string().replace("\"os\":", "\"os\":\"x\",\"os\":");
    assert_eq!(parse_text(&platform), Err(ManifestError::DuplicateKey { at: "platform", key: "os" }));
}

#[test]
fn t_bi2_keys_in_another_case_are_refused() {
    let rows = [
        ("Layers", "layers"),
        ("LAYERS", "layers"),
        ("layer\u{17F}", "layers"),
        ("mediatype", "mediaType"),
        ("MediaType", "mediaType"),
        ("schemaversion", "schemaVersion"),
        ("Manifests", "manifests"),
        ("manife\u{17F}t\u{17F}", "manifests"),
        ("FSLayers", "fsLayers"),
        ("Subject", "subject"),
        ("artifacttype", "artifactType"),
        ("Annotations", "annotations"),
    ];
    for (written, key) in rows {
        let error = parse_text(&image_text(&format!("\"{written}\":null"))).unwrap_err();
        assert_eq!(error, ManifestError::KeyCase { at: "the manifest", key }, "{written}");
    }
    for (written, key) in [("Digest", "digest"), ("SIZE", "size"), ("\u{17F}ize", "size"), ("Urls", "urls")] {
        let layer = with(descriptor("a/b"), written, json!(null));
        let error = parse(&with(image(), "layers", json!([layer])), None).unwrap_err();
        assert_eq!(error, ManifestError::KeyCase { at: "layers", key }, "{written}");
    }
    // Where keys are free, case is too.
    assert!(parse(&with(image(), "annotations", json!({"a": "", "A": "", "Layers": ""})), None).is_ok());
    assert!(parse(&with(image(), "layersX", json!({"Digest": 1})), None).is_ok());
}

#[test]
fn t_bi2_what_is_not_one_json_object_is_refused() {
    let text = image().to_string();
    for tail in [" ", "\n\r\t"] {
        assert!(parse_text(&format!("{text}{tail}")).is_ok());
    }
    for tail in ["x", "{}", &text, "\u{0}", ",", "}", "//"] {
        let error = parse_text(&format!("{text}{tail}")).unwrap_err();
        assert!(is_json(&error, JsonFault::Malformed), "{tail}: {error}");
    }
    for end in 0..text.len() {
        assert!(parse_text(&text[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(parse_text(&format!("\u{FEFF}{text}")), Err(ManifestError::ByteOrderMark));
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(Manifest::parse(&utf16, None).is_err());
    for junk in ["NaN", "Infinity", "-", "01", "1.", "'a'", "undefined", "\"\t\"", "\"\\x\"", "[1,]", "{a:1}"]
    {
        let error = parse_text(&image_text(&format!("\"x\":{junk}"))).unwrap_err();
        assert!(is_json(&error, JsonFault::Malformed), "{junk}: {error}");
    }
    for wrong in ["[]", "null", "1", "\"a\"", "true"] {
        let error = parse_text(wrong).unwrap_err();
        assert!(is_json(&error, JsonFault::WrongType), "{wrong}: {error}");
    }
    for (key, wrong) in [
        ("layers", json!({})),
        ("config", json!([])),
        ("annotations", json!({"a": 1})),
        ("layers", json!([null])),
    ] {
        let error = parse(&with(image(), key, wrong), None).unwrap_err();
        assert!(is_json(&error, JsonFault::WrongType), "{key}: {error}");
    }
}

#[test]
fn t_bi3_every_descriptor_has_a_strict_digest() {
    let bad = [
        format!("sha256:{}", HEX.to_uppercase()),
        format!("sha256-{HEX}"),
        format!("sha1:{HEX}"),
        format!("sha256:{HEX}0"),
        "a".repeat(10_240),
        String::new(),
    ];
    for digest in bad {
        let wrong = with(descriptor("a/b"), "digest", json!(digest));
        let rows = [
            (with(image(), "config", wrong.clone()), "config"),
            (with(image(), "subject", wrong.clone()), "subject"),
            (with(image(), "layers", json!([descriptor("a/b"), wrong.clone()])), "layers"),
            (with(index(), "manifests", json!([wrong])), "manifests"),
        ];
        for (value, expected) in rows {
            let error = parse(&value, None).unwrap_err();
            assert!(matches!(error, ManifestError::Digest { at, .. } if at == expected), "{digest}: {error}");
        }
    }
    let sha512 = Digest::of(Algorithm::Sha512, b"x");
    let value = with(image(), "config", with(descriptor("a/b"), "digest", json!(sha512)));
    assert_eq!(parse(&value, None).unwrap().config.unwrap().digest, sha512);
}

#[test]
fn t_bi6_sizes_are_counts_of_bytes() {
    for size in [json!(0), json!(i64::MAX)] {
        let value = with(image(), "config", with(descriptor("a/b"), "size", size.clone()));
        assert_eq!(json!(parse(&value, None).unwrap().config.unwrap().size), size);
    }
    for size in [
        "-1",
        "9223372036854775808",
        "18446744073709551616",
        "1e400",
        "1.0",
        "1e3",
        "-0",
        "\"7\"",
        "null",
        "[]",
    ] {
        let value = with(image(), "layers", json!([with(descriptor("a/b"), "size", json!("HERE"))]));
        let error = parse_text(&value.to_string().replace("\"HERE\"", size)).unwrap_err();
        let refused = matches!(error, ManifestError::Size { at: "layers" } | ManifestError::Json { .. });
        assert!(refused, "{size}: {error}");
    }
}
