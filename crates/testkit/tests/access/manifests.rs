//! What may and what may not pass for a manifest.

use entrepot_testkit::script::{Image, Method, Reply, media, sha256};

use crate::common::{Bench, assert_error};

const TAG: &str = "/v2/team/app/manifests/latest";

/// A well-formed image and index, as text to be spoilt.
fn samples() -> (String, String) {
    let image = Image::small(1);
    let index = Image::index(std::slice::from_ref(&image));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&image.manifest), text(&index))
}

/// The value of a member of a JSON object, as JSON.
fn member(text: &str, key: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(text).expect("a sample is JSON");
    json[key].to_string()
}

/// Adds members at the end of the top object.
fn with(text: &str, members: &str) -> String {
    format!("{}, {members}}}", text.strip_suffix('}').expect("an object"))
}

/// Adds members at its beginning.
fn led_by(text: &str, members: &str) -> String {
    format!("{{{members}, {}", text.strip_prefix('{').expect("an object"))
}

fn spoilt(text: &str, what: &str, by: &str) -> String {
    let done = text.replacen(what, by, 1);
    assert_ne!(done, text, "{what} is in the sample");
    done
}

/// Name, bytes, `Content-Type`.
type Case = (&'static str, Vec<u8>, &'static str);

fn ambiguous() -> Vec<Case> {
    let (image, index) = samples();
    let (layers, manifests, config) =
        (member(&image, "layers"), member(&index, "manifests"), member(&image, "config"));
    let docker = |text: &str| text.replace(media::MANIFEST, media::DOCKER_MANIFEST);
    let untyped = |text: &str, kind: &str| spoilt(text, &format!("\"mediaType\":\"{kind}\","), "");
    let cases: Vec<(&'static str, String, &'static str)> = vec![
        ("layers and manifests", with(&image, &format!("\"manifests\": {manifests}")), media::MANIFEST),
        ("manifests and layers", with(&index, &format!("\"layers\": {layers}")), media::INDEX),
        ("manifests and config", with(&index, &format!("\"config\": {config}")), media::INDEX),
        ("both, and an empty list", with(&index, "\"layers\": []"), media::INDEX),
        ("an image that comes as an index", image.clone(), media::INDEX),
        ("an index that comes as an image", index.clone(), media::MANIFEST),
        ("OCI that comes as Docker", image.clone(), media::DOCKER_MANIFEST),
        ("Docker that comes as OCI", docker(&image), media::MANIFEST),
        ("no type inside, and Docker's outside", untyped(&image, media::MANIFEST), media::DOCKER_MANIFEST),
        (
            "schema 1",
            "{\"schemaVersion\":1,\"name\":\"a\",\"tag\":\"b\",\"fsLayers\":[],\"history\":[]}".into(),
            media::DOCKER_SCHEMA1,
        ),
        (
            "schema 1 that comes as schema 2",
            "{\"schemaVersion\":1,\"name\":\"a\",\"tag\":\"b\",\"fsLayers\":[]}".into(),
            media::DOCKER_MANIFEST,
        ),
        ("both schemas", with(&docker(&image), "\"fsLayers\": []"), media::DOCKER_MANIFEST),
        ("plain text", image.clone(), "text/plain"),
        ("octets", image.clone(), "application/octet-stream"),
        ("any JSON", image.clone(), "application/json"),
        ("no type at all", image.clone(), ";"),
        ("two types in one", image.clone(), "application/vnd.oci.image.manifest.v1+json, text/html"),
        (
            "a type with something after it",
            spoilt(&image, media::MANIFEST, &format!("{};x=y", media::MANIFEST)),
            media::MANIFEST,
        ),
        (
            "a type in capitals",
            spoilt(&image, media::MANIFEST, &media::MANIFEST.to_uppercase()),
            media::MANIFEST,
        ),
        ("schema 3", spoilt(&image, "\"schemaVersion\":2", "\"schemaVersion\":3"), media::MANIFEST),
        ("no schema", spoilt(&image, "\"schemaVersion\":2", "\"schema\":2"), media::MANIFEST),
        ("neither layers nor manifests", "{\"schemaVersion\":2}".into(), media::MANIFEST),
    ];
    cases.into_iter().map(|(name, text, kind)| (name, text.into_bytes(), kind)).collect()
}

fn two_readings() -> Vec<Case> {
    let (image, index) = samples();
    let layers = member(&image, "layers");
    let other = layers.replace("sha256:", "sha256:0").replacen("sha256:00", "sha256:0", 1);
    let digest = sha256(b"another");
    let images: Vec<(&'static str, String)> = vec![
        ("layers twice", with(&image, "\"layers\": []")),
        ("layers twice, the other way round", led_by(&image, "\"layers\": []")),
        ("config twice", with(&image, &format!("\"config\": {}", member(&image, "config")))),
        ("the type twice", with(&image, &format!("\"mediaType\": \"{}\"", media::MANIFEST))),
        ("the schema twice", led_by(&image, "\"schemaVersion\": 2")),
        ("a key written with an escape", with(&image, "\"\\u006cayers\": []")),
        ("a digest twice", spoilt(&image, "\"digest\":", &format!("\"digest\":\"{digest}\",\"digest\":"))),
        ("a size twice", spoilt(&image, "\"size\":", "\"size\":1,\"size\":")),
        ("an annotation twice", with(&image, "\"annotations\": {\"a\":\"1\",\"a\":\"2\"}")),
        ("Layers", with(&image, &format!("\"Layers\": {other}"))),
        ("LAYERS", with(&image, "\"LAYERS\": []")),
        ("Config", led_by(&image, "\"Config\": {}")),
        ("MediaType", with(&image, &format!("\"MediaType\": \"{}\"", media::INDEX))),
        ("Manifests", with(&image, "\"Manifests\": []")),
        ("a long s", with(&image, "\"layer\u{17f}\": []")),
        ("Digest", spoilt(&image, "\"digest\":", &format!("\"Digest\":\"{digest}\",\"digest\":"))),
        ("Size", spoilt(&image, "\"size\":", "\"SIZE\":1,\"size\":")),
        ("words after it", format!("{image} and more")),
        ("a bracket after it", format!("{image}}}")),
        ("a NUL after it", format!("{image}\0")),
        ("two documents", format!("{image}{image}")),
        ("two documents on two lines", format!("{image}\n{index}")),
        ("a byte order mark", format!("\u{feff}{image}")),
        ("NaN", with(&image, "\"x\": NaN")),
        ("Infinity", with(&image, "\"x\": -Infinity")),
        ("a comment", with(&image, "\"x\": 1 /* one */")),
        ("a comma too many", with(&image, "\"x\": 1,")),
        ("single quotes", with(&image, "'x': 1")),
        ("a leading zero", with(&image, "\"x\": 01")),
        ("a control character in a text", with(&image, "\"x\": \"\u{1}\"")),
        ("half of it", image[..image.len() / 2].to_owned()),
        ("a list of it", format!("[{image}]")),
        ("a text of it", serde_json::Value::String(image.clone()).to_string()),
        ("null", "null".to_owned()),
        ("half of a character pair", with(&image, "\"annotations\": {\"a\": \"\\ud800\"}")),
    ];
    let images = images.into_iter().map(|(name, text)| (name, text.into_bytes(), media::MANIFEST));
    let indexes = [
        ("manifests twice", with(&index, "\"manifests\": []")),
        ("Manifests beside manifests", with(&index, "\"Manifests\": []")),
    ];
    let indexes = indexes.into_iter().map(|(name, text)| (name, text.into_bytes(), media::INDEX));
    let mut bytes = image.clone().into_bytes();
    bytes.splice(1..1, b"\"x\": \"\xff\xfe\", ".iter().copied());
    images.chain(indexes).chain([("no UTF-8", bytes, media::MANIFEST)]).collect()
}

fn served(bytes: &[u8], content_type: &str) -> Reply {
    let digest = sha256(bytes);
    Reply::ok(bytes)
        .header("content-type", content_type)
        .header("docker-content-digest", &digest)
        .header("etag", format!("\"{digest}\""))
}

/// T-BI1 and T-BI2: 502 by tag and by digest, nothing is stored, nothing is remembered, and the next one who asks is
/// answered anew.
async fn refused(cases: Vec<Case>) {
    let bench = Bench::new();
    for (n, (name, bytes, content_type)) in cases.into_iter().enumerate() {
        let by_digest = format!("/v2/team/app{n}/manifests/{}", sha256(&bytes));
        let by_tag = format!("/v2/team/app{n}/manifests/latest");
        for path in [&by_tag, &by_digest] {
            bench.upstream.on(Method::Read, path).reply(served(&bytes, content_type));
        }
        for path in [&by_tag, &by_digest, &by_tag] {
            let answer = bench.get(path).send().await;
            assert_eq!(answer.status, 502, "{name}: {answer:?}");
            assert_eq!(answer.error_code(), "MANIFEST_INVALID", "{name}: {answer:?}");
        }
        assert!(bench.upstream.count(Method::Get, &by_tag) >= 2, "{name}: asked anew");
        let (image, _) = samples();
        let good = bench.upstream.serve_manifest(
            &format!("team/app{n}"),
            "latest",
            image.as_bytes(),
            media::MANIFEST,
        );
        let mended = bench.get(&by_tag).send().await;
        assert_eq!((mended.status, &mended.digest), (200, &good), "{name}, mended: {mended:?}");
    }
}

/// T-BI1
#[tokio::test(flavor = "multi_thread")]
async fn t_bi1_ambiguous_manifests_are_refused() {
    refused(ambiguous()).await;
}

/// T-BI2
#[tokio::test(flavor = "multi_thread")]
async fn t_bi2_what_two_readers_read_differently_is_refused() {
    refused(two_readings()).await;
}

/// T-BI1, T-BI2: the store stays as it is, with something held for the tag and with nothing.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi1_t_bi2_the_store_is_unchanged() {
    let bench = Bench::setup().cache("manifest_ttl", "0").start();
    let cases = || ambiguous().into_iter().chain(two_readings());
    for (_, bytes, content_type) in cases() {
        bench.upstream.on(Method::Read, TAG).reply(served(&bytes, content_type));
        bench.get(TAG).send().await;
    }
    bench.assert_nothing_stored();

    let (image, _) = samples();
    let digest = bench.upstream.serve_manifest("team/app", "latest", image.as_bytes(), media::MANIFEST);
    assert_eq!(bench.get(TAG).send().await.status, 200);
    let store = bench.mirror.store_hash();
    for (name, bytes, content_type) in cases() {
        let bad = format!("/v2/team/app/manifests/{}", sha256(&bytes));
        for path in [TAG, &bad] {
            bench.upstream.on(Method::Read, path).reply(served(&bytes, content_type));
        }
        let answer = bench.get(TAG).send().await;
        assert_eq!(
            (answer.status, &answer.digest),
            (200, &digest),
            "{name}: what is held is served on: {answer:?}"
        );
        if sha256(&bytes) != digest {
            assert!(answer.header("warning").is_some(), "{name}: and says that it is old: {answer:?}");
            assert_error(&bench.get(&bad).send().await, 502, "MANIFEST_INVALID");
        }
    }
    assert_eq!(bench.mirror.store_hash(), store);
}

/// T-BI1, T-BI2: what is legal is served byte for byte, with the canonical type, for ever the same.
#[tokio::test(flavor = "multi_thread")]
async fn t_bi1_t_bi2_what_is_legal_is_served_as_it_is() {
    let (image, index) = samples();
    let untyped = |text: &str, kind: &str| spoilt(text, &format!("\"mediaType\":\"{kind}\","), "");
    let pretty = |text: &str| {
        let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
        serde_json::to_string_pretty(&json).expect("JSON")
    };
    let untyped_image = untyped(&image, media::MANIFEST);
    // By its end or its beginning, whichever the type has.
    let index_type = format!("\"mediaType\":\"{}\"", media::INDEX);
    let untyped_index = index.replace(&format!(",{index_type}"), "").replace(&format!("{index_type},"), "");
    assert!(!untyped_index.contains(&index_type), "{untyped_index}");
    let cases = [
        ("as it is", image.clone(), media::MANIFEST.to_owned(), media::MANIFEST),
        ("parameters", image.clone(), format!("{}; charset=utf-8", media::MANIFEST), media::MANIFEST),
        (
            "parameters without a space",
            index.clone(),
            format!("{};q=1;v=\"x,y\"", media::INDEX),
            media::INDEX,
        ),
        ("capitals outside", image.clone(), media::MANIFEST.to_uppercase(), media::MANIFEST),
        ("no type inside", untyped_image.clone(), media::MANIFEST.to_owned(), media::MANIFEST),
        ("an index without", untyped_index, media::INDEX.to_owned(), media::INDEX),
        ("no type outside", image.clone(), String::new(), media::MANIFEST),
        ("pretty", pretty(&image), media::MANIFEST.to_owned(), media::MANIFEST),
        ("space around it", format!("\r\n\t {image} \n\n"), media::MANIFEST.to_owned(), media::MANIFEST),
        (
            "what nobody knows",
            with(&image, "\"x\":{\"y\":[1e400,-0.0,\"\\u00e9\\/\"]},\"X\":null"),
            media::MANIFEST.to_owned(),
            media::MANIFEST,
        ),
        ("a null list", with(&image, "\"manifests\":null"), media::MANIFEST.to_owned(), media::MANIFEST),
    ];
    let bench = Bench::new();
    for (n, (name, text, content_type, canonical)) in cases.into_iter().enumerate() {
        let digest = sha256(text.as_bytes());
        let reply = served(text.as_bytes(), &content_type);
        let reply = if content_type.is_empty() { reply.without("content-type") } else { reply };
        let paths = ["latest", &digest].map(|reference| format!("/v2/team/app{n}/manifests/{reference}"));
        for path in &paths {
            bench.upstream.on(Method::Read, path).reply(reply.clone());
        }
        for path in paths.iter().chain(&paths) {
            for method in ["GET", "HEAD"] {
                let answer = bench.request(method, path).send().await;
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
                assert_eq!(answer.header("content-type"), Some(canonical), "{name}: {answer:?}");
                assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{name}");
                if method == "GET" {
                    assert_eq!(answer.body, text.as_bytes(), "{name}: byte for byte");
                }
            }
        }
    }
    // The same bytes elsewhere, under another name for their type: the digest has the type it has.
    let digest = sha256(untyped_image.as_bytes());
    for (n, content_type) in
        [media::DOCKER_MANIFEST, media::INDEX, media::DOCKER_LIST, "text/plain"].into_iter().enumerate()
    {
        let path = format!("/v2/team/liar{n}/manifests/{digest}");
        bench.upstream.on(Method::Read, &path).reply(served(untyped_image.as_bytes(), content_type));
        assert_error(&bench.get(&path).send().await, 502, "MANIFEST_INVALID");
        let again = bench.get(format!("/v2/team/app4/manifests/{digest}")).send().await;
        assert_eq!(again.header("content-type"), Some(media::MANIFEST), "{again:?}");
    }
}
