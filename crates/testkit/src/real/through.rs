//! A registry, a mirror before it, and the three ways in which a client may find them.

use std::fmt::Debug;
use std::time::Duration;

use super::image::{Blob, Image};
use super::registry::Registry;
use crate::edge::Edge;
use crate::mirror::Mirror;

/// How long the Worker may take to store what it was asked for: a gigabyte, in the local stand-in for the platform's store.
const STORED: Duration = Duration::from_secs(120);

/// What stands between a client and a registry.
pub trait Between {
    /// How often a byte of a blob may be fetched that is not held.
    const FETCHES: u64;

    fn log(&self) -> String;

    /// Waits until these blobs, which clients have been given, are held.
    fn settle(&self, blobs: &[&Blob]);
}

impl Between for Mirror {
    const FETCHES: u64 = 1;

    fn log(&self) -> String {
        Mirror::log(self)
    }

    /// The last bytes of a blob are given out once it is held.
    fn settle(&self, _blobs: &[&Blob]) {}
}

impl Between for Edge {
    /// What passes through to the client that missed is no use to the store, which fetches for itself, and once more if that
    /// broke: it takes all of an object or nothing.
    const FETCHES: u64 = 3;

    fn log(&self) -> String {
        Edge::log(self)
    }

    fn settle(&self, blobs: &[&Blob]) {
        let key = |blob: &&Blob| format!("objects/{}", blob.digest.replace(':', "/"));
        let keys: Vec<String> = blobs.iter().map(key).collect();
        self.wait_until(STORED, "what was pulled is stored", |edge| {
            let held = edge.r2();
            keys.iter().all(|key| held.contains_key(key))
        });
    }
}

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
{}"#,
        sources(registry)
    ))
}

/// The same at the edge, for those whom `access` (the value of that key, in YAML) lets in.
pub fn edge_config(registry: &Registry, access: &str) -> String {
    format!(
        r#"proxy:
  endpoint: "__ENDPOINT__"
  cache: {{ max_size: "20GiB", manifest_ttl: "1s" }}
  access: {access}
{}"#,
        sources(registry)
    )
}

fn sources(registry: &Registry) -> String {
    format!(
        r#"  sources:
    - name: "dockerhub"
      names: ["docker.io", "index.docker.io", "registry-1.docker.io", "origin.test"]
      mirror: true
{}"#,
        registry.source("      ")
    )
}

/// Pulls `images` cold, warm, and with the upstream stopped. Each time the result must equal `direct`; cold, no byte of a blob is
/// fetched more often than [`Between::FETCHES`], and warm none at all. The upstream runs again afterwards.
pub fn three_times<M: Between, T: PartialEq + Debug>(
    registry: &mut Registry,
    mirror: &M,
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
    let fetched: Vec<&Blob> = blobs().filter(|blob| registry.bytes_of(&blob.digest) > 0).collect();
    assert!(!fetched.is_empty(), "cold: nothing came from upstream: {:#?}", registry.seen());
    mirror.settle(&fetched);
    for blob in blobs() {
        let bytes = registry.bytes_of(&blob.digest);
        assert!(
            bytes <= M::FETCHES * blob.size,
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
