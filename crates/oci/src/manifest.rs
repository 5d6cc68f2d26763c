//! Manifests and indexes: what they are, which type they have, what they point to (image-spec, "Image Manifest" and
//! "Image Index").
//!
//! A manifest is read to be checked and understood, never to be written again: its digest is that of its bytes. What two
//! readers could understand differently is refused (CVE-2021-41190): keys that come twice or in another case, `layers`
//! beside `manifests`, a `Content-Type` that contradicts the content. The type is a function of the bytes alone, so
//! that one digest has one type for ever.

mod bounds;
mod read;
mod seed;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::{Digest, DigestError};
use crate::media::{self, MediaType, MediaTypeError};

/// Bytes of a manifest at most: the 4 MiB that the distribution-spec asks registries to take.
pub const MAX_MANIFEST: usize = 4 * 1024 * 1024;
/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: usize = 64;
/// Keys in the whole document at most.
pub const MAX_KEYS: usize = 131_072;
/// Descriptors, annotations and URLs together at most: bounds what a parsed manifest holds in memory.
pub const MAX_ITEMS: usize = 16_384;

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The type to serve it with.
    pub media_type: MediaType,
    pub kind: Kind,
    /// What this artifact is about; makes it a referrer.
    pub subject: Option<Descriptor>,
    /// As written; not necessarily a media type.
    pub artifact_type: Option<String>,
    pub annotations: BTreeMap<String, String>,
    /// An image's configuration; an index has none, an image always has one.
    pub config: Option<Descriptor>,
    /// An image's layers; artifacts may have none.
    pub layers: Vec<Descriptor>,
    /// What an index lists: images, or further indexes.
    pub children: Vec<Descriptor>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Image,
    Index,
}

/// A pointer to content (image-spec, "OCI Content Descriptors"). Embedded `data` is skipped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: MediaType,
    pub digest: Digest,
    /// Bytes; at most 2⁶³-1, as clients hold it signed.
    pub size: u64,
    /// Where else it might be. Never fetched from there unasked (CVE-2020-15157).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Box<Platform>>,
}

/// What an image runs on; empty where the index does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why bytes are not a manifest that we pass on: `MANIFEST_INVALID`. `at` names the member of the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has {found} bytes; at most {MAX_MANIFEST} are accepted")]
    TooLarge { found: usize },
    #[error("the Content-Type is not a media type: {0}")]
    ContentType(MediaTypeError),
    #[error("{media_type} is not the type of a manifest that is passed on: OCI and Docker schema 2 are")]
    NotAManifest { media_type: MediaType },
    #[error("Docker schema 1 manifests are not passed on: push the image again as OCI or Docker schema 2")]
    Schema1,
    #[error("the manifest is not UTF-8")]
    Encoding,
    #[error("the manifest begins with a byte order mark")]
    ByteOrderMark,
    #[error("the manifest nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the manifest has more than {MAX_KEYS} keys")]
    TooManyKeys,
    #[error("the manifest has more than {MAX_ITEMS} descriptors, annotations and URLs")]
    TooManyItems,
    #[error("the manifest {fault} at line {line}, column {column}")]
    Json { fault: JsonFault, line: usize, column: usize },
    #[error("{at} has the key {key} twice")]
    DuplicateKey { at: &'static str, key: &'static str },
    #[error("{at} has an annotation twice")]
    DuplicateAnnotation { at: &'static str },
    #[error("{at} has a key that some readers take for {key}, written in another case")]
    KeyCase { at: &'static str, key: &'static str },
    #[error("{at} has no {key}")]
    Missing { at: &'static str, key: &'static str },
    #[error("schemaVersion must be 2")]
    SchemaVersion,
    #[error("the manifest is of type {media_type}, but came as {content_type}")]
    Disagreement { media_type: MediaType, content_type: MediaType },
    #[error("a manifest of type {media_type} must not have {key}")]
    Ambiguous { media_type: MediaType, key: &'static str },
    #[error("the mediaType in {at} is wrong: {source}")]
    MediaType { at: &'static str, source: MediaTypeError },
    #[error("the digest in {at} is wrong: {source}")]
    Digest { at: &'static str, source: DigestError },
    #[error("the size in {at} is not a number of bytes from 0 to 2^63-1")]
    Size { at: &'static str },
}

/// How a text fails to be the JSON we expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonFault {
    Malformed,
    Truncated,
    WrongType,
}

impl std::fmt::Display for JsonFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            JsonFault::Malformed => "is not a single JSON value",
            JsonFault::Truncated => "ends early",
            JsonFault::WrongType => "has a value of the wrong type",
        })
    }
}

impl Manifest {
    /// Checks `bytes`, which came with `content_type` (parameters are ignored; `None` if there was no such header).
    ///
    /// A `mediaType` is optional in OCI manifests and required in Docker's, so bytes without it are OCI's, image or
    /// index by their content. A `Content-Type` must agree.
    pub fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Manifest, ManifestError> {
        if bytes.len() > MAX_MANIFEST {
            return Err(ManifestError::TooLarge { found: bytes.len() });
        }
        let content_type = content_type
            .map(|value| MediaType::parse(value).map_err(ManifestError::ContentType).and_then(passed_on))
            .transpose()?;
        if bytes.starts_with(b"\xEF\xBB\xBF") {
            return Err(ManifestError::ByteOrderMark);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ManifestError::Encoding)?;
        bounds::check(bytes)?;
        let document = read::document(text)?;
        let media_type = type_of(&document)?;
        match content_type {
            Some(content_type) if content_type != media_type => {
                Err(ManifestError::Disagreement { media_type, content_type })
            }
            _ => assemble(document, media_type),
        }
    }

    /// Everything it points to, but for its subject: configuration, layers, children.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers).chain(&self.children)
    }
}

fn passed_on(media_type: MediaType) -> Result<MediaType, ManifestError> {
    if media_type.is_schema1() {
        Err(ManifestError::Schema1)
    } else if media_type.is_manifest() {
        Ok(media_type)
    } else {
        Err(ManifestError::NotAManifest { media_type })
    }
}

fn type_of(document: &read::Document) -> Result<MediaType, ManifestError> {
    if document.fs_layers || document.schema_version == Some(1) {
        return Err(ManifestError::Schema1);
    }
    if let Some(media_type) = &document.media_type {
        return passed_on(media_type.clone());
    }
    if document.manifests.is_some() {
        Ok(MediaType::known(media::OCI_INDEX))
    } else if document.config.is_some() {
        Ok(MediaType::known(media::OCI_MANIFEST))
    } else {
        Err(ManifestError::Missing { at: "the manifest", key: "mediaType" })
    }
}

fn assemble(document: read::Document, media_type: MediaType) -> Result<Manifest, ManifestError> {
    if document.schema_version != Some(2) {
        return Err(ManifestError::SchemaVersion);
    }
    let kind = if media_type.is_index() { Kind::Index } else { Kind::Image };
    let require = |key, present: bool| {
        if present { Ok(()) } else { Err(ManifestError::Missing { at: "the manifest", key }) }
    };
    let forbid = |key, present: bool| {
        if present { Err(ManifestError::Ambiguous { media_type: media_type.clone(), key }) } else { Ok(()) }
    };
    match kind {
        Kind::Index => {
            forbid("config", document.config.is_some())?;
            forbid("layers", document.layers.is_some())?;
            require("manifests", document.has_manifests)?;
        }
        Kind::Image => {
            forbid("manifests", document.manifests.is_some())?;
            require("config", document.config.is_some())?;
            require("layers", document.has_layers)?;
        }
    }
    Ok(Manifest {
        media_type,
        kind,
        subject: document.subject,
        artifact_type: document.artifact_type,
        annotations: document.annotations,
        config: document.config,
        layers: document.layers.unwrap_or_default(),
        children: document.manifests.unwrap_or_default(),
    })
}
