//! Referrers: the artifacts that name a manifest as their subject (distribution-spec, "Listing Referrers").

use serde::Serialize;

use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest};
use crate::media;

/// The body of a referrers answer: an image index, to be sent as [`media::OCI_INDEX`]. No descriptors, and it is the
/// empty list.
pub fn index<'a>(descriptors: impl IntoIterator<Item = &'a Descriptor>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u8,
        media_type: &'static str,
        manifests: Vec<&'a Descriptor>,
    }
    let manifests = descriptors.into_iter().collect();
    // Texts and numbers in, text out: serde_json fails on maps with other keys and on failing writers only.
    serde_json::to_vec(&Index { schema_version: 2, media_type: media::OCI_INDEX, manifests })
        .unwrap_or_default()
}

/// Those of the given type, compared as written; then `OCI-Filters-Applied: artifactType` is due.
pub fn filter<'a>(
    descriptors: &'a [Descriptor],
    artifact_type: &'a str,
) -> impl Iterator<Item = &'a Descriptor> {
    descriptors.iter().filter(move |descriptor| descriptor.artifact_type.as_deref() == Some(artifact_type))
}

/// How a manifest with a subject appears in that subject's list: with its annotations, and with its artifact type or,
/// for an image without one, its configuration's media type (`end-12a`).
pub fn describe(manifest: &Manifest, digest: Digest, size: u64) -> Descriptor {
    let artifact_type = manifest.artifact_type.clone().filter(|text| !text.is_empty());
    let config_type = || manifest.config.as_ref().map(|config| config.media_type.as_str().to_owned());
    Descriptor {
        media_type: manifest.media_type.clone(),
        digest,
        size,
        urls: Vec::new(),
        annotations: manifest.annotations.clone(),
        artifact_type: artifact_type.or_else(config_type),
        platform: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(members: &str) -> Manifest {
        let empty = r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
        let text =
            format!(r#"{{"schemaVersion":2,"config":{empty},"layers":[],"subject":{empty}{members}}}"#);
        Manifest::parse(text.as_bytes(), None).unwrap()
    }

    fn digest() -> Digest {
        Digest::sha256(b"artifact")
    }

    #[test]
    fn an_artifact_is_described_by_its_type_or_its_configuration() {
        let typed = artifact(r#","artifactType":"application/vnd.example","annotations":{"a":"b"}"#);
        let typed = describe(&typed, digest(), 9);
        assert_eq!(typed.artifact_type.as_deref(), Some("application/vnd.example"));
        assert_eq!((typed.annotations["a"].as_str(), typed.size, typed.digest), ("b", 9, digest()));
        for members in ["", r#","artifactType":"""#] {
            let untyped = describe(&artifact(members), digest(), 9);
            assert_eq!(untyped.artifact_type.as_deref(), Some(media::OCI_EMPTY), "{members}");
        }
    }

    #[test]
    fn the_list_is_an_index_that_we_read_ourselves() {
        let descriptors: Vec<_> =
            [r#","artifactType":"a/b","annotations":{"x":"\u0000\"","y":""}"#, r#","artifactType":"c/d""#]
                .iter()
                .map(|members| describe(&artifact(members), digest(), 1))
                .collect();
        let read = Manifest::parse(&index(&descriptors), Some(media::OCI_INDEX)).unwrap();
        assert_eq!(read.children, descriptors);
        let filtered: Vec<_> = filter(&descriptors, "c/d").collect();
        assert_eq!(filtered, [&descriptors[1]]);
        assert_eq!(filter(&descriptors, "C/D").count(), 0);
        assert_eq!(filter(&descriptors, "").count(), 0);
    }

    #[test]
    fn an_empty_list_is_an_index_without_members() {
        let expected =
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
        assert_eq!(index([]), expected.as_bytes());
    }
}
