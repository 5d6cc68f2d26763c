use serde_json::{Value, json};

use super::Upstream;
use super::body::{Body, sha256};
use super::reply::Reply;
use super::rule::Method;

/// Media types the tests name.
pub mod media {
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
}

/// An image that a scripted upstream serves.
#[derive(Clone, Debug)]
pub struct Image {
    pub manifest: Vec<u8>,
    pub digest: String,
    pub config: Vec<u8>,
    pub config_digest: String,
    pub layers: Vec<Body>,
    pub layer_digests: Vec<String>,
}

impl Image {
    /// An OCI image of these layers.
    pub fn of(layers: Vec<Body>) -> Self {
        let layer_digests: Vec<String> = layers.iter().map(Body::sha256).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": &layer_digests},
            "config": {},
        })
        .to_string()
        .into_bytes();
        let config_digest = sha256(&config);
        let entries: Vec<Value> = layers
            .iter()
            .zip(&layer_digests)
            .map(|(body, digest)| json!({"mediaType": media::LAYER, "digest": digest, "size": body.len()}))
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::MANIFEST,
            "config": {"mediaType": media::CONFIG, "digest": &config_digest, "size": config.len()},
            "layers": entries,
        })
        .to_string()
        .into_bytes();
        Self { digest: sha256(&manifest), manifest, config, config_digest, layers, layer_digests }
    }

    /// A small image whose digests depend on `seed`.
    pub fn small(seed: u64) -> Self {
        Self::of(vec![super::Pattern::new(seed, 40_000 + seed % 1000).into()])
    }

    /// An index of these images, as bytes.
    pub fn index(images: &[Image]) -> Vec<u8> {
        const ARCHITECTURES: [&str; 4] = ["amd64", "arm64", "s390x", "riscv64"];
        let entries: Vec<Value> = images
            .iter()
            .zip(ARCHITECTURES.iter().cycle())
            .map(|(image, architecture)| {
                json!({
                    "mediaType": media::MANIFEST, "digest": &image.digest, "size": image.manifest.len(),
                    "platform": {"os": "linux", "architecture": architecture},
                })
            })
            .collect();
        json!({"schemaVersion": 2, "mediaType": media::INDEX, "manifests": entries}).to_string().into_bytes()
    }
}

impl Upstream {
    /// `GET /v2/` without a challenge.
    pub fn serve_ping(&self) {
        let ping = Reply::json(200, &json!({})).header("docker-distribution-api-version", "registry/2.0");
        self.on(Method::Read, "/v2/").reply(ping);
    }

    /// A manifest under its digest and, unless it is empty, under a tag, for GET and HEAD. Answers its digest.
    pub fn serve_manifest(&self, repository: &str, tag: &str, bytes: &[u8], media_type: &str) -> String {
        let digest = sha256(bytes);
        for reference in [tag, &digest].into_iter().filter(|reference| !reference.is_empty()) {
            let path = format!("/v2/{repository}/manifests/{reference}");
            self.on(Method::Read, path).reply(manifest_reply(bytes, media_type, &digest));
        }
        digest
    }

    /// A blob with ranges, for GET and HEAD. Answers its digest.
    pub fn serve_blob(&self, repository: &str, body: impl Into<Body>) -> String {
        let body = body.into();
        let digest = body.sha256();
        self.serve_blob_as(repository, &digest, body);
        digest
    }

    /// A blob under a digest that need not be its own.
    pub fn serve_blob_as(&self, repository: &str, digest: &str, body: impl Into<Body>) {
        let (body, digest) = (body.into(), digest.to_owned());
        let path = format!("/v2/{repository}/blobs/{digest}");
        self.on(Method::Read, path).reply_with(move |request| Reply::blob(request, &digest, body.clone()));
    }

    /// An image with its configuration and layers, under a tag (unless it is empty) and its digest.
    pub fn serve_image(&self, repository: &str, tag: &str, image: &Image) {
        self.serve_manifest(repository, tag, &image.manifest, media::MANIFEST);
        self.serve_blob_as(repository, &image.config_digest, image.config.clone());
        for (body, digest) in image.layers.iter().zip(&image.layer_digests) {
            self.serve_blob_as(repository, digest, body.clone());
        }
    }
}

/// A manifest as a good registry serves it.
pub(crate) fn manifest_reply(bytes: &[u8], media_type: &str, digest: &str) -> Reply {
    Reply::ok(bytes)
        .header("content-type", media_type)
        .header("docker-content-digest", digest)
        .header("etag", format!("\"{digest}\""))
}

impl Reply {
    /// A manifest with the headers a good registry gives it, its true digest included.
    pub fn manifest(bytes: &[u8], media_type: &str) -> Self {
        manifest_reply(bytes, media_type, &sha256(bytes))
    }
}
