//! Referrers: the artifacts that name a manifest as their subject (distribution-spec, "Listing Referrers").

use serde::Serialize;

use crate::digest::Digest;
use crate::manifest::{Descriptor, Manifest};
use crate::media;
use crate::name::{Tag, TagError};

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
    serde_json::to_vec(&Index {
        schema_version: 2,
        media_type: media::OCI_INDEX,
        manifests,
    })
    .unwrap_or_default()
}

/// Those of the given type, compared as written; then `OCI-Filters-Applied: artifactType` is due.
pub fn filter<'a>(
    descriptors: &'a [Descriptor],
    artifact_type: &'a str,
) -> impl Iterator<Item = &'a Descriptor> {
    descriptors
        .iter()
        .filter(move |descriptor| descriptor.artifact_type.as_deref() == Some(artifact_type))
}

/// How a manifest with a subject appears in that subject's list: with its annotations, and with its artifact type or,
/// for an image without one, its configuration's media type (`end-12a`).
pub fn describe(manifest: &Manifest, digest: Digest, size: u64) -> Descriptor {
    let artifact_type = manifest.artifact_type.clone().filter(|text| !text.is_empty());
    let config_type = || {
        manifest
            .config
            .as_ref()
            .map(|config| config.media_type.as_str().to_owned())
    };
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

/// The tag under which clients look for referrers where a registry has no such API ("Referrers Tag Schema"): the digest
/// with `-` for `:`, its hex part cut to 64 digits.
pub fn fallback_tag(subject: &Digest) -> Result<Tag, TagError> {
    let hex = subject.hex();
    format!("{}-{}", subject.algorithm(), &hex[..hex.len().min(64)]).parse()
}
