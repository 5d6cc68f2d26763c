//! Images and artifacts made on the spot: valid for every client, and with the digests known beforehand.

use std::io::Read;

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::layer::{LayerPlan, gzip, tar};

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const OCI_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_TAR_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// An operating system is always Linux here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform {
    pub architecture: &'static str,
    pub variant: Option<&'static str>,
}

impl Platform {
    pub const AMD64: Platform = Platform { architecture: "amd64", variant: None };
    /// What a multi-arch image offers.
    pub const FOUR: [Platform; 4] = [
        Platform::AMD64,
        Platform { architecture: "arm64", variant: Some("v8") },
        Platform { architecture: "arm", variant: Some("v7") },
        Platform { architecture: "s390x", variant: None },
    ];
}

/// A manifest or index, as bytes.
#[derive(Clone, Debug)]
pub struct Document {
    pub digest: String,
    pub media_type: String,
    pub bytes: Bytes,
}

/// A configuration or layer.
#[derive(Clone, Debug)]
pub struct Blob {
    pub digest: String,
    pub size: u64,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Bytes(Bytes),
    Plan(LayerPlan),
}

impl Blob {
    pub fn of(bytes: impl Into<Bytes>) -> Blob {
        let bytes = bytes.into();
        Blob { digest: digest_of(&bytes), size: bytes.len() as u64, content: Content::Bytes(bytes) }
    }

    fn planned(plan: LayerPlan) -> Blob {
        let mut hash = Sha256::new();
        let mut reader = plan.reader();
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer).expect("memory can be read") {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
        Blob {
            digest: format!("sha256:{}", hex(&hash.finalize())),
            size: plan.size(),
            content: Content::Plan(plan),
        }
    }

    /// The bytes, from the beginning.
    pub fn reader(&self) -> Box<dyn Read + Send> {
        match &self.content {
            Content::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes.clone())),
            Content::Plan(plan) => Box::new(plan.reader()),
        }
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest, "size": self.size })
    }
}

/// Everything that one reference leads to.
#[derive(Clone, Debug)]
pub struct Image {
    /// Children before what names them; the last one is what a tag points at.
    pub documents: Vec<Document>,
    pub blobs: Vec<Blob>,
    /// Of the uncompressed layers of each platform, in its order.
    pub diff_ids: Vec<Vec<String>>,
}

impl Image {
    /// One gzip layer of a few bytes. Other names give other digests.
    pub fn small(name: &str) -> Image {
        Image::compressed(name, Platform::AMD64, &OCI)
    }

    /// An index of four platforms, in Docker's media types as most of Docker Hub has them.
    pub fn multi_arch(name: &str) -> Image {
        let images: Vec<Image> = Platform::FOUR
            .iter()
            .map(|p| Image::compressed(&format!("{name}-{}", p.architecture), *p, &DOCKER))
            .collect();
        let children: Vec<Value> = images
            .iter()
            .zip(Platform::FOUR)
            .map(|(image, platform)| {
                let mut child = image.descriptor();
                child["platform"] = json!({ "os": "linux", "architecture": platform.architecture });
                if let Some(variant) = platform.variant {
                    child["platform"]["variant"] = variant.into();
                }
                child
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": children });
        let mut whole = Image { documents: vec![], blobs: vec![], diff_ids: vec![] };
        for image in images {
            whole.documents.extend(image.documents);
            whole.blobs.extend(image.blobs);
            whole.diff_ids.extend(image.diff_ids);
        }
        whole.documents.push(Document::of(DOCKER_LIST, &index));
        whole
    }

    /// `layers` layers of `total_mb` megabytes together, which do not compress.
    pub fn typical(layers: usize, total_mb: u64) -> Image {
        let len = total_mb * 1_000_000 / layers as u64;
        let plans = (0..layers).map(|i| LayerPlan { seed: total_mb << 8 | i as u64, len });
        Image::uncompressed(plans.map(Blob::planned).collect())
    }

    /// A layer of each of these sizes in bytes (and 1.5 KiB of tar), which do not compress.
    pub fn of_sizes(sizes: &[u64]) -> Image {
        let plans = sizes.iter().enumerate().map(|(i, &len)| LayerPlan { seed: len << 8 | i as u64, len });
        Image::uncompressed(plans.map(Blob::planned).collect())
    }

    /// One layer of `bytes` bytes (and 1.5 KiB of tar).
    pub fn large(bytes: u64) -> Image {
        Image::uncompressed(vec![Blob::planned(LayerPlan { seed: bytes, len: bytes })])
    }

    /// An OCI artifact (spec: "Guidelines for Artifact Usage", an empty configuration and one layer), which refers to
    /// `subject` if there is one.
    pub fn artifact(artifact_type: &str, payload: &str, subject: Option<&Image>) -> Image {
        let (config, layer) = (Blob::of("{}"), Blob::of(payload.to_owned()));
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": artifact_type,
            "config": config.descriptor(OCI_EMPTY), "layers": [layer.descriptor("application/octet-stream")],
        });
        if let Some(subject) = subject {
            manifest["subject"] = subject.descriptor();
        }
        Image {
            documents: vec![Document::of(OCI_MANIFEST, &manifest)],
            blobs: vec![config, layer],
            diff_ids: vec![],
        }
    }

    /// The index that a registry without the referrers API holds under [`referrers_tag`](Image::referrers_tag).
    pub fn referrers_index(referrers: &[&Image]) -> Image {
        let entries: Vec<Value> = referrers
            .iter()
            .map(|referrer| {
                let manifest: Value = serde_json::from_slice(&referrer.root().bytes).expect("we wrote it");
                let mut entry = referrer.descriptor();
                entry["artifactType"] = manifest["artifactType"].clone();
                entry
            })
            .collect();
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
        Image { documents: vec![Document::of(OCI_INDEX, &index)], blobs: vec![], diff_ids: vec![] }
    }

    /// What a tag of this image points at.
    pub fn root(&self) -> &Document {
        self.documents.last().expect("an image has a manifest")
    }

    pub fn digest(&self) -> &str {
        &self.root().digest
    }

    /// The tag under which older registries keep what refers to this image (spec, "Referrers Tag Schema").
    pub fn referrers_tag(&self) -> String {
        self.digest().replace(':', "-")
    }

    /// Digests of every document and blob.
    pub fn digests(&self) -> std::collections::BTreeSet<String> {
        let documents = self.documents.iter().map(|d| d.digest.clone());
        documents.chain(self.blobs.iter().map(|b| b.digest.clone())).collect()
    }

    fn compressed(name: &str, platform: Platform, words: &Words) -> Image {
        let plain = tar("hello", format!("hello from {name}\n").as_bytes());
        let layer = Blob::of(gzip(&plain));
        Image::of(vec![(layer, digest_of(&plain))], platform, words, words.gzip)
    }

    fn uncompressed(layers: Vec<Blob>) -> Image {
        let layers = layers
            .into_iter()
            .map(|layer| {
                let diff_id = layer.digest.clone();
                (layer, diff_id)
            })
            .collect();
        Image::of(layers, Platform::AMD64, &OCI, OCI_TAR)
    }

    fn of(layers: Vec<(Blob, String)>, platform: Platform, words: &Words, layer_type: &str) -> Image {
        let diff_ids: Vec<String> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let mut config = json!({
            "architecture": platform.architecture, "os": "linux", "config": { "Cmd": ["/hello"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": layers.iter().map(|_| json!({ "created_by": "testkit" })).collect::<Vec<_>>(),
        });
        if let Some(variant) = platform.variant {
            config["variant"] = variant.into();
        }
        let config = Blob::of(config.to_string());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": words.manifest, "config": config.descriptor(words.config),
            "layers": layers.iter().map(|(layer, _)| layer.descriptor(layer_type)).collect::<Vec<_>>(),
        });
        let blobs = std::iter::once(config).chain(layers.into_iter().map(|(layer, _)| layer)).collect();
        Image { documents: vec![Document::of(words.manifest, &manifest)], blobs, diff_ids: vec![diff_ids] }
    }

    fn descriptor(&self) -> Value {
        let root = self.root();
        json!({ "mediaType": root.media_type, "digest": root.digest, "size": root.bytes.len() })
    }
}

impl Document {
    fn of(media_type: &str, value: &Value) -> Document {
        // Pretty-printed, with a newline: a mirror that writes JSON anew changes the digest.
        let text = format!("{}\n", serde_json::to_string_pretty(value).expect("a JSON value can be written"));
        Document { digest: digest_of(text.as_bytes()), media_type: media_type.to_owned(), bytes: text.into() }
    }
}

/// How one of the two families of media types names an image's parts.
struct Words {
    manifest: &'static str,
    config: &'static str,
    gzip: &'static str,
}

const OCI: Words = Words { manifest: OCI_MANIFEST, config: OCI_CONFIG, gzip: OCI_TAR_GZIP };
const DOCKER: Words = Words { manifest: DOCKER_MANIFEST, config: DOCKER_CONFIG, gzip: DOCKER_TAR_GZIP };

/// `sha256:<hex>`
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
