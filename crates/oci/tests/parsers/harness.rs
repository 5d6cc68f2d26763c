//! What must hold for every input of each parser. Driven by arbitrary bytes (`fuzz/`), by what those found (`corpus.rs`)
//! and by texts that nearly fit the grammar (`properties.rs`).

#![expect(clippy::unwrap_used, reason = "a check fails by panicking")]

use std::str::FromStr;

use entrepot_oci::manifest::{self, Kind, Manifest};
use entrepot_oci::path::{self, ApiPath, Call, RawName};
use entrepot_oci::quota::{Quota, RetryAfter};
use entrepot_oci::range::{ContentRange, RangeRequest};
use entrepot_oci::tags::{Page, TagList};
use entrepot_oci::{Descriptor, Digest, Reference, Repository, Tag, challenge, error, link};
use serde_json::Value;

/// A parser, by the name of its corpus.
pub(crate) type Harness = fn(&[u8]);

/// Every parser there is.
pub(crate) const ALL: &[(&str, Harness)] = &[
    ("challenge", challenge),
    ("digest", digest),
    ("link", link),
    ("lists", lists),
    ("manifest", manifest),
    ("path", path),
    ("quota", quota),
    ("range", range),
    ("reference", reference),
];

/// Digests have one spelling.
pub(crate) fn digest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(digest) = Digest::from_str(text) else {
        return;
    };
    assert_eq!(digest.to_string(), text);
    assert_eq!(digest.hex().len(), digest.algorithm().hex_len());
    assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b':'));
    let json = serde_json::to_string(&digest).unwrap();
    assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
}

/// Names, tags and references keep their spelling, and can do no harm in a path, a header or a log line.
pub(crate) fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(repository) = Repository::from_str(text) {
        assert_eq!(repository.as_str(), text);
        assert!(text.len() <= Repository::MAX);
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-/".contains(&byte))
        );
        assert!(
            !text.contains("..") && !text.contains("//") && !text.starts_with('/') && !text.ends_with('/')
        );
        assert!(RawName::parse(text).is_ok());
    }
    if let Ok(tag) = Tag::from_str(text) {
        assert_eq!(tag.as_str(), text);
        assert!(text.len() <= Tag::MAX && !text.starts_with('.') && !text.starts_with('-'));
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)));
    }
    match Reference::from_str(text) {
        Ok(reference) => {
            assert_eq!(reference.to_string(), text);
            assert_eq!(matches!(reference, Reference::Digest(_)), text.contains(':'));
        }
        Err(error) => assert!(error.to_string().len() < 300),
    }
}

/// A path that is read is spelt by what was read.
pub(crate) fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match path::parse(text) {
        Ok(ApiPath { root, call }) => {
            let root = root.map(|root| raw(&root, path::MAX_ROOT)).unwrap_or_default();
            let plain = text.replace("%3A", ":").replace("%3a", ":");
            let rest = plain.strip_prefix(root.as_str()).unwrap();
            let named = |name: &RawName| format!("/v2{}", raw(name.as_str(), path::MAX_NAME));
            match call {
                Call::Ping => assert!(rest == "/v2" || rest == "/v2/"),
                Call::Catalog => assert_eq!(rest, "/v2/_catalog"),
                Call::Token => assert_eq!(rest, "/token"),
                Call::Tags { name } => assert_eq!(rest, format!("{}/tags/list", named(&name))),
                Call::Upload { name } => {
                    assert!(rest.starts_with(&format!("{}/blobs/uploads", named(&name))))
                }
                Call::Manifest { name, reference: Ok(it) } => {
                    assert_eq!(rest, format!("{}/manifests/{it}", named(&name)))
                }
                Call::Blob { name, digest: Ok(it) } => {
                    assert_eq!(rest, format!("{}/blobs/{it}", named(&name)))
                }
                Call::Referrers { name, digest: Ok(it) } => {
                    assert_eq!(rest, format!("{}/referrers/{it}", named(&name)))
                }
                Call::Manifest { name, reference: Err(_) } => {
                    assert!(rest.starts_with(&format!("{}/manifests/", named(&name))))
                }
                Call::Blob { name, digest: Err(_) } => {
                    assert!(rest.starts_with(&format!("{}/blobs/", named(&name))))
                }
                Call::Referrers { name, digest: Err(_) } => {
                    assert!(rest.starts_with(&format!("{}/referrers/", named(&name))))
                }
            }
        }
        Err(error) => assert!(error.to_string().len() < 300),
    }
}

/// Checks a root or a name, and puts the slash before it.
fn raw(text: &str, max: usize) -> String {
    assert!(text.len() <= max);
    for segment in text.split('/') {
        assert!(!matches!(segment, "" | "." | ".."));
        assert!(segment.bytes().all(|byte| byte.is_ascii_graphic() && !b"%\\".contains(&byte)));
    }
    format!("/{text}")
}

/// The first line is a size, the second a `Range` or a `Content-Range`. What is served lies within the size, and is
/// described by a header that we read ourselves.
pub(crate) fn range(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (size, value) = text.split_once('\n').unwrap_or(("10", text));
    let size = size.parse().unwrap_or(u64::MAX);
    if let Ok(range) = value.parse::<ContentRange>() {
        assert!(
            range.start <= range.end_inclusive && range.size.is_none_or(|size| range.end_inclusive < size)
        );
        assert_eq!(range.to_string().parse(), Ok(range));
    }
    let Ok(request) = RangeRequest::parse(value) else {
        return;
    };
    let Ok(span) = request.resolve(size) else { return };
    assert!(span.start < span.end && span.end <= size);
    match request {
        RangeRequest::From { start } => assert_eq!((span.start, span.end), (start, size)),
        RangeRequest::FromTo { start, end } => assert!(span.start == start && span.end - 1 <= end),
        RangeRequest::Suffix { len } => assert!(span.end == size && span.len() == len.min(size)),
    }
    let described = span.content_range(size).unwrap();
    assert_eq!(described.span(), span);
    assert_eq!(described.to_string().parse(), Ok(described));
}

/// Each line is a header line. What is read is bounded, clean, and read the same when written out properly.
pub(crate) fn challenge(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let read = challenge::parse(text.split('\n'));
    assert!(read.len() <= challenge::MAX_CHALLENGES);
    let mut lines = Vec::new();
    for challenge in &read {
        assert!(challenge.params.len() <= challenge::MAX_PARAMS);
        assert_eq!(challenge.scheme, challenge.scheme.to_ascii_lowercase());
        let mut line = format!("{} {}", challenge.scheme, challenge.token68.as_deref().unwrap_or_default());
        for (name, value) in &challenge.params {
            assert_eq!(*name, name.to_ascii_lowercase());
            assert!(!value.is_empty() && !value.chars().any(char::is_control));
            line += &format!(", {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        }
        lines.push(line);
    }
    if lines.iter().all(|line| line.len() <= challenge::MAX_LINE) {
        assert_eq!(challenge::parse(lines.iter().map(String::as_str)), read);
    }
}

/// Each line is a header line. A target fits a header, and our own link leads to it.
pub(crate) fn link(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(target) = link::next(text.split('\n')) {
        assert!(!target.is_empty() && target.len() <= link::MAX_LINE);
        assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
        let ours = link::Next(&target).to_string();
        assert!(ours.len() > link::MAX_LINE || link::next([ours.as_str()]) == Some(target));
    }
    let ours = link::Next(text).to_string();
    assert!(ours.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    assert_eq!(ours.matches('<').count() + ours.matches('>').count(), 2);
    assert!(text.is_empty() || ours.len() > link::MAX_LINE || link::next([ours.as_str()]).is_some());
}

/// Each line is a value of a rate limit header or of `Retry-After`.
pub(crate) fn quota(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    for line in text.split('\n') {
        if let Ok(Quota { count, window }) = line.parse() {
            let window = window.map(|window| format!(";w={}", window.as_secs())).unwrap_or_default();
            assert_eq!(format!("{count}{window}").parse::<Quota>(), line.parse());
        }
        if let Ok(RetryAfter::Date(seconds)) = RetryAfter::parse(line) {
            // The end of the year 9999, and its leap second.
            assert!(seconds <= 253_402_300_800);
        }
    }
}

/// The bodies of lists and errors, and the query that asks for a page of tags.
pub(crate) fn lists(data: &[u8]) {
    if let Ok(list) = TagList::parse(data) {
        assert!(list.tags.len() <= entrepot_oci::tags::MAX_TAGS);
        assert_eq!(TagList::parse(&list.body()), Ok(list));
    }
    for found in error::parse(data) {
        assert!(
            found.code.chars().count() <= error::MAX_CODE
                && found.message.chars().count() <= error::MAX_MESSAGE
        );
        assert!(!found.code.chars().chain(found.message.chars()).any(char::is_control));
    }
    let Ok(page) = std::str::from_utf8(data).map_or(Ok(Page::default()), Page::parse) else {
        return;
    };
    assert!(page.n.is_none_or(|n| n <= Page::MAX));
    assert_eq!(Page::parse(&page.query()), Ok(page));
}

/// The first line is a `Content-Type`, or empty; the rest is the manifest. What is read agrees with what a reader that
/// knows nothing of manifests sees, and its type does not depend on the header.
pub(crate) fn manifest(data: &[u8]) {
    let at = data.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let bytes = data.get(at + 1..).unwrap_or_default();
    let content_type = std::str::from_utf8(&data[..at]).ok().filter(|text| !text.is_empty());
    let manifest = match Manifest::parse(bytes, content_type) {
        Ok(manifest) => manifest,
        Err(error) => {
            assert!(error.to_string().len() < 1000);
            return;
        }
    };
    assert!(bytes.len() <= manifest::MAX_MANIFEST);
    assert!(manifest.descriptors().count() <= manifest::MAX_ITEMS + 2);
    assert_eq!(Manifest::parse(bytes, None).as_ref(), Ok(&manifest));
    assert_eq!(Manifest::parse(bytes, Some(manifest.media_type.as_str())).as_ref(), Ok(&manifest));
    assert_eq!(manifest.kind == Kind::Index, manifest.media_type.is_index());

    // In what we skip there may be a number or a lone surrogate that no `Value` can hold.
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    assert_eq!(value["schemaVersion"], 2);
    if let Some(media_type) = value["mediaType"].as_str() {
        assert_eq!(media_type, manifest.media_type.as_str());
    }
    let list = |key: &str| value[key].as_array().cloned().unwrap_or_default();
    match manifest.kind {
        Kind::Image => {
            assert!(value["manifests"].is_null() && manifest.children.is_empty());
            same(manifest.config.as_ref().unwrap(), &value["config"]);
            assert_eq!(manifest.layers.len(), list("layers").len());
            manifest.layers.iter().zip(&list("layers")).for_each(|(ours, theirs)| same(ours, theirs));
        }
        Kind::Index => {
            assert!(value["config"].is_null() && value["layers"].is_null());
            assert!(manifest.config.is_none() && manifest.layers.is_empty());
            assert_eq!(manifest.children.len(), list("manifests").len());
            manifest.children.iter().zip(&list("manifests")).for_each(|(ours, theirs)| same(ours, theirs));
        }
    }
    assert_eq!(manifest.subject.is_some(), !value["subject"].is_null());
    if let Some(subject) = &manifest.subject {
        same(subject, &value["subject"]);
    }
}

fn same(ours: &Descriptor, theirs: &Value) {
    assert_eq!(theirs["digest"], ours.digest.to_string());
    assert_eq!(theirs["size"], ours.size);
    assert!(i64::try_from(ours.size).is_ok());
    assert_eq!(theirs["urls"].as_array().map_or(0, Vec::len), ours.urls.len());
    assert_eq!(theirs["annotations"].as_object().map_or(0, serde_json::Map::len), ours.annotations.len());
}
