//! What reading the distribution-spec's words costs: `cargo bench -p entrepot-oci`.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::BytesCount;
use entrepot_oci::media::{Accept, MANIFESTS};
use entrepot_oci::range::RangeRequest;
use entrepot_oci::{Digest, Manifest, path};

fn main() {
    divan::main();
}

fn digest(seed: usize) -> Digest {
    Digest::sha256(&seed.to_le_bytes())
}

#[divan::bench(args = [
    "/v2/",
    "/v2/library/busybox/manifests/latest",
    "/v2/ghcr.io/some/deeper/name/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
])]
fn parse_path(path: &str) -> bool {
    path::parse(black_box(path)).is_ok()
}

#[divan::bench]
fn parse_digest(bencher: Bencher<'_, '_>) {
    let text = digest(1).to_string();
    bencher.bench_local(|| black_box(text.as_str()).parse::<Digest>());
}

#[divan::bench]
fn spell_digest(bencher: Bencher<'_, '_>) {
    let digest = digest(1);
    bencher.bench_local(|| black_box(&digest).text());
}

#[divan::bench]
fn parse_accept(bencher: Bencher<'_, '_>) {
    let line = MANIFESTS.join(", ");
    bencher.bench_local(|| Accept::parse([black_box(line.as_str())]));
}

#[divan::bench]
fn parse_range() -> bool {
    RangeRequest::parse(black_box("bytes=1048576-2097151")).is_ok()
}

/// An image of so many layers.
#[divan::bench(args = [8, 128])]
fn parse_manifest(bencher: Bencher<'_, '_>, layers: usize) {
    let layers: Vec<String> = (0..layers)
        .map(|at| {
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}"#,
                digest(at),
                at * 1000
            )
        })
        .collect();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},
            "layers":[{}]}}"#,
        digest(999),
        layers.join(",")
    );
    assert!(Manifest::parse(text.as_bytes(), None).is_ok());
    bencher
        .counter(BytesCount::of_str(&text))
        .bench_local(|| Manifest::parse(black_box(text.as_bytes()), None));
}
