//! Content and configurations that many tests share.

use entrepot_oci::Digest;

use crate::memory::World;

/// One public registry, for a tag's hour.
pub(crate) const PUBLIC: &str =
    r#"  sources: [{ name: "up", type: "registry", url: "https://up.example.com", mirror: true }]"#;

/// The same registry with credentials; `10.0.0.0/8` is known, `open/*` is anyone's.
pub(crate) const PRIVATE: &str = r#"
  access: { anonymous: true, networks: ["10.0.0.0/8"] }
  sources:
    - name: "up"
      type: "registry"
      url: "https://up.example.com"
      mirror: true
      auth: { username: "us", password: "pass" }
      public: ["open/*"]
"#;

/// `us:pass`, as the registry gets it.
pub(crate) const OURS: &str = "Basic dXM6cGFzcw==";

/// Who is known.
pub(crate) const KNOWN: &str = "10.0.0.1";

pub(crate) fn public() -> World {
    World::new(PUBLIC)
}

pub(crate) fn private() -> World {
    World::new(PRIVATE)
}

/// An OCI image; `mark` makes it another one.
pub(crate) fn image(mark: &str) -> String {
    image_of(mark, &[b"a layer"])
}

/// An OCI image of these layers.
pub(crate) fn image_of(mark: &str, layers: &[&[u8]]) -> String {
    let layers: Vec<_> =
        layers.iter().map(|layer| descriptor("layer.v1.tar", layer, layer.len() as u64)).collect();
    image_with(mark, &layers.join(","))
}

/// An OCI image whose layer has another size than it says.
pub(crate) fn image_with(mark: &str, layers: &str) -> String {
    let config = descriptor("config.v1+json", b"{}", 2);
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{config},"layers":[{layers}],"annotations":{{"mark":"{mark}"}}}}"#
    )
}

pub(crate) fn descriptor(kind: &str, bytes: &[u8], size: u64) -> String {
    let digest = Digest::sha256(bytes);
    format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{size}}}"#)
}

/// An OCI index of `members`, each with an artifact type.
pub(crate) fn index(members: &[(&str, &str)]) -> String {
    let members: Vec<_> = members
        .iter()
        .map(|(text, artifact)| {
            let digest = Digest::sha256(text.as_bytes());
            let size = text.len();
            format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"artifactType":"{artifact}"}}"#)
        })
        .collect();
    let members = members.join(",");
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{members}]}}"#
    )
}

/// The `mediaType` that a manifest gives itself.
pub(crate) fn media_type(text: &str) -> &str {
    let after = text.split_once("\"mediaType\":\"").expect("a manifest that says its type").1;
    after.split_once('"').unwrap().0
}

pub(crate) fn digest(bytes: impl AsRef<[u8]>) -> Digest {
    Digest::sha256(bytes.as_ref())
}
