//! What everyone fetches from: Debian's docker-registry, with the images of the bench.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use entrepot_testkit::real::{Image, Registry};

use crate::options::Scale;

/// The media types that a client says it takes.
pub(crate) const ACCEPT: &str =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";
/// What a tag of everything is.
pub(crate) const TAG: &str = "1";

/// A running registry, whose images stay for the next run.
#[derive(Debug)]
pub(crate) struct Upstream {
    registry: Registry,
    dir: PathBuf,
    scale: Scale,
    typical: OnceCell<Stored>,
    layer: OnceCell<Stored>,
    big: OnceCell<Stored>,
    many: OnceCell<Stored>,
}

/// An image in the registry.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) repository: &'static str,
    pub(crate) image: Image,
}

impl Upstream {
    /// In `dir`, where images of an earlier run may lie.
    pub(crate) fn start(dir: &Path, scale: &Scale) -> Result<Upstream> {
        std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let registry = Registry::kept(dir);
        Ok(Upstream {
            registry,
            dir: dir.to_owned(),
            scale: scale.clone(),
            typical: OnceCell::new(),
            layer: OnceCell::new(),
            big: OnceCell::new(),
            many: OnceCell::new(),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.registry.backend()
    }

    /// Eight layers, of 142 MB together.
    pub(crate) fn typical(&self) -> &Stored {
        self.stored(&self.typical, "bench/typical", || Image::of_sizes(&self.scale.typical))
    }

    /// One layer of 256 MB.
    pub(crate) fn layer(&self) -> &Stored {
        self.stored(&self.layer, "bench/layer", || Image::large(self.scale.layer))
    }

    /// One layer of 2 GB.
    pub(crate) fn big(&self) -> &Stored {
        self.stored(&self.big, "bench/big", || Image::large(self.scale.big))
    }

    /// 24 layers of 8 MB.
    pub(crate) fn many(&self) -> &Stored {
        self.stored(&self.many, "bench/many", || Image::of_sizes(&[self.scale.one_of_many; 24]))
    }

    /// The file that the registry keeps a blob in.
    pub(crate) fn file_of(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        let blobs = self.dir.join("data/docker/registry/v2/blobs/sha256");
        blobs.join(&hex[..2]).join(hex).join("data")
    }

    /// Pushed when it is first asked for; nothing is sent that lies there already.
    fn stored<'a>(
        &self,
        cell: &'a OnceCell<Stored>,
        repository: &'static str,
        make: impl FnOnce() -> Image,
    ) -> &'a Stored {
        cell.get_or_init(|| {
            let image = make();
            self.registry.push(repository, Some(TAG), &image);
            Stored { repository, image }
        })
    }
}

impl Stored {
    /// Of the manifest, by tag or by digest.
    pub(crate) fn manifest_path(&self, reference: &str) -> String {
        format!("/v2/{}/manifests/{reference}", self.repository)
    }

    pub(crate) fn blob_path(&self, digest: &str) -> String {
        format!("/v2/{}/blobs/{digest}", self.repository)
    }

    /// The largest layer: its digest and its size.
    pub(crate) fn layer(&self) -> (&str, u64) {
        let largest = self.image.blobs.iter().max_by_key(|blob| blob.size);
        largest.map_or(("", 0), |blob| (blob.digest.as_str(), blob.size))
    }
}
