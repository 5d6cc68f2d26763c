//! Real clients through the Worker: an image with a layer of 1 GB, cold and warm and with the upstream stopped.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::slice;
use std::time::Duration;

use entrepot_testkit::edge::Edge;
use entrepot_testkit::need;
use entrepot_testkit::real::{
    Between, Containerd, Dockerd, Door, Image, Podman, Pulled, Registry, Skopeo, edge_config, three_times,
};

const GIGABYTE: u64 = 1_000_000_000;

/// `pull` pulls `origin.test/team/large:1` through the door; `wanted` is what must come of the image.
fn large<T: PartialEq + Debug>(
    wanted: impl FnOnce(&Image) -> T,
    mut pull: impl FnMut(&Door) -> Result<T, String>,
) {
    let mut registry = Registry::redirecting();
    let image = Image::large(GIGABYTE);
    registry.push("team/large", Some("1"), &image);
    let edge = Edge::start(edge_config(&registry, "{ anonymous: true }"));
    let door = Door::before(edge.address());
    three_times(&mut registry, &edge, slice::from_ref(&image), &wanted(&image), || pull(&door));
}

#[test]
fn docker_pulls_a_layer_of_a_gigabyte() {
    need!("docker_pulls_a_layer_of_a_gigabyte", "node", "docker-registry", "openssl", "dockerd", "docker");
    let wanted = |image: &Image| Pulled {
        digest: image.digest().to_owned(),
        id: image.blobs[0].digest.clone(),
        layers: image.diff_ids[0].clone(),
    };
    large(wanted, |door| Dockerd::start(&[]).pull(&format!("{}/origin.test/team/large:1", door.address())));
}

#[test]
fn containerd_pulls_a_layer_of_a_gigabyte() {
    need!(
        "containerd_pulls_a_layer_of_a_gigabyte",
        "node",
        "docker-registry",
        "openssl",
        "containerd",
        "ctr"
    );
    let containerd = Containerd::start();
    let wanted = |image: &Image| (image.digest().to_owned(), image.digests());
    large(wanted, |door| {
        containerd.mirror("origin.test", &door.url());
        let pulled = containerd.pull("origin.test/team/large:1", true)?;
        containerd.remove("origin.test/team/large:1");
        Ok(pulled)
    });
}

#[test]
fn podman_pulls_a_layer_of_a_gigabyte() {
    need!("podman_pulls_a_layer_of_a_gigabyte", "node", "docker-registry", "openssl", "podman");
    let podman = Podman::new();
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let wanted = |image: &Image| (BTreeSet::from([image.digest().to_owned()]), hex(&image.blobs[0].digest));
    large(wanted, |door| {
        let reference = format!("{}/origin.test/team/large:1", door.address());
        let pulled = podman.pull(&reference)?;
        podman.remove(&reference);
        Ok(pulled)
    });
}

#[test]
fn skopeo_copies_a_layer_of_a_gigabyte() {
    need!("skopeo_copies_a_layer_of_a_gigabyte", "node", "docker-registry", "openssl", "skopeo");
    let wanted = |image: &Image| {
        let mut digests = image.digests();
        digests.remove(image.digest());
        digests
    };
    large(wanted, |door| {
        // Beside them the directory holds the manifest, and a file with its version.
        let files = Skopeo::copy(&format!("{}/origin.test/team/large:1", door.address()))?;
        Ok(files
            .into_iter()
            .filter(|(name, digest)| digest.ends_with(name))
            .map(|(_, digest)| digest)
            .collect())
    });
}

/// A layer that is too large for one put is stored in parts, and counts once it was read back.
#[test]
fn a_layer_in_parts() {
    need!("a_layer_in_parts", "node", "docker-registry", "openssl", "skopeo");
    let mut registry = Registry::redirecting();
    let image = Image::typical(1, 60);
    registry.push("team/parts", Some("1"), &image);
    let config = edge_config(&registry, "{ anonymous: true }");
    let edge = Edge::builder(config).var("ENTREPOT_LIMITS", "put=20000000 part=7000000").start();
    let door = Door::before(edge.address());
    let reference = format!("{}/origin.test/team/parts:1", door.address());
    let copy = || Skopeo::copy(&reference).unwrap_or_else(|error| panic!("{error}\n{}", edge.log()));
    let direct = Skopeo::copy(&format!("{}/team/parts:1", registry.address())).expect("a direct copy");
    assert_eq!(direct["manifest.json"], image.digest());

    assert_eq!(copy(), direct, "cold");
    edge.settle(&image.blobs.iter().collect::<Vec<_>>());
    let marker = format!("verified/{}", image.blobs[1].digest.replace(':', "/"));
    edge.wait_until(Duration::from_secs(60), "what was stored in parts is read back", |edge| {
        edge.r2_keys().contains(&marker)
    });
    let markers: Vec<String> =
        edge.r2_keys().into_iter().filter(|key| key.starts_with("verified/")).collect();
    assert_eq!(markers, [marker], "the small ones are verified as they are put");
    registry.forget();
    assert_eq!(copy(), direct, "warm");
    assert_eq!(registry.blob_bytes(), 0, "{:#?}", registry.seen());
    registry.stop();
    assert_eq!(copy(), direct, "upstream stopped");
}
