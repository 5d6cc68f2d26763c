//! A registry, a mirror before it, and the three ways in which a client may find them.

use std::fmt::Debug;

use super::image::Image;
use super::registry::Registry;
use crate::mirror::Mirror;

/// A mirror of `registry`, which it knows as Docker Hub and as `origin.test`; the latter is nowhere to be found, so that a
/// client that gets something got it through the mirror. Tags are believed for a second, so that a pull soon asks upstream
/// again, or serves stale what it holds.
pub fn mirror_of(registry: &Registry) -> Mirror {
    Mirror::start(format!(
        r#"proxy:
  endpoint: "__ENDPOINT__"
  listen: "__LISTEN__"
  admin: "__ADMIN__"
  cache: {{ dir: "__CACHE__", max_size: "20GiB", manifest_ttl: "1s" }}
  sources:
    - name: "dockerhub"
      names: ["docker.io", "index.docker.io", "registry-1.docker.io", "origin.test"]
      mirror: true
{}"#,
        registry.source("      ")
    ))
}

/// Pulls `images` cold, warm, and with the upstream stopped. Each time the result must equal `direct`; cold, no byte of a blob is
/// fetched twice, and warm none at all. The upstream runs again afterwards.
pub fn three_times<T: PartialEq + Debug>(
    registry: &mut Registry,
    mirror: &Mirror,
    images: &[Image],
    direct: &T,
    mut pull: impl FnMut() -> Result<T, String>,
) {
    let mut phase = |name: &str| {
        let got = pull().unwrap_or_else(|e| panic!("{name}: {e}\nmirror:\n{}", mirror.log()));
        assert_eq!(&got, direct, "{name}");
    };
    registry.forget();
    phase("cold");
    let blobs = || images.iter().flat_map(|image| &image.blobs);
    let fetched: u64 = blobs().map(|blob| registry.bytes_of(&blob.digest)).sum();
    assert!(fetched > 0, "cold: nothing came from upstream: {:#?}", registry.seen());
    for blob in blobs() {
        let bytes = registry.bytes_of(&blob.digest);
        assert!(
            bytes <= blob.size,
            "cold: {bytes} bytes fetched of {}, which has {}",
            blob.digest,
            blob.size
        );
    }
    registry.forget();
    phase("warm");
    assert_eq!(registry.blob_bytes(), 0, "warm: {:#?}", registry.seen());
    registry.stop();
    phase("upstream stopped");
    registry.restart();
}
