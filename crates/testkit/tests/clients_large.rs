//! Real clients, cold and warm and with the upstream stopped: an image with a layer of 1 GB, by every client.

use std::fmt::Debug;
use std::slice;

use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::need;
use entrepot_testkit::real::{Containerd, Dockerd, Image, Podman, Registry, Skopeo, mirror_of, three_times};

const GIGABYTE: u64 = 1_000_000_000;

/// `pull` takes `<registry or mirror, as this client names it>` and pulls `team/large:1` from there.
fn large<T: PartialEq + Debug>(
    setup: impl FnOnce(&Registry, &Mirror) -> (String, String),
    mut pull: impl FnMut(&str) -> Result<T, String>,
) {
    let mut registry = Registry::plain();
    let image = Image::large(GIGABYTE);
    registry.push("team/large", Some("1"), &image);
    let mirror = mirror_of(&registry);
    let (from_registry, from_mirror) = setup(&registry, &mirror);
    let direct = pull(&format!("{from_registry}/team/large:1")).expect("a direct pull");
    three_times(&mut registry, &mirror, slice::from_ref(&image), &direct, || {
        pull(&format!("{from_mirror}/team/large:1"))
    });
    let memory = mirror.rss_anon_kb();
    assert!(memory < 64 * 1024, "the mirror keeps {memory} kB of anonymous memory");
}

fn by_prefix(registry: &Registry, mirror: &Mirror) -> (String, String) {
    (registry.address(), format!("{}/origin.test", mirror.address()))
}

#[test]
fn docker_pulls_a_layer_of_a_gigabyte() {
    need!("docker_pulls_a_layer_of_a_gigabyte", "docker-registry", "dockerd", "docker");
    large(by_prefix, |reference| Dockerd::start(&[]).pull(reference));
}

#[test]
fn containerd_pulls_a_layer_of_a_gigabyte() {
    need!("containerd_pulls_a_layer_of_a_gigabyte", "docker-registry", "containerd", "ctr");
    let containerd = Containerd::start();
    let setup = |registry: &Registry, mirror: &Mirror| {
        containerd.mirror("direct.test", &registry.url());
        containerd.mirror("origin.test", &mirror.url());
        ("direct.test".to_owned(), "origin.test".to_owned())
    };
    large(setup, |reference| {
        let pulled = containerd.pull(reference, true)?;
        containerd.remove(reference);
        Ok(pulled)
    });
}

#[test]
fn podman_pulls_a_layer_of_a_gigabyte() {
    need!("podman_pulls_a_layer_of_a_gigabyte", "docker-registry", "podman");
    let podman = Podman::new();
    large(by_prefix, |reference| {
        let pulled = podman.pull(reference)?;
        podman.remove(reference);
        Ok(pulled)
    });
}

#[test]
fn skopeo_copies_a_layer_of_a_gigabyte() {
    need!("skopeo_copies_a_layer_of_a_gigabyte", "docker-registry", "skopeo");
    large(by_prefix, Skopeo::copy);
}
