//! Real clients through the Worker, cold and warm and with the upstream stopped: each gets what it gets from the registry
//! itself. What was missed passes through unheld and is stored apart, so that a byte may be fetched again, and warm never.

use std::slice;

use entrepot_testkit::each_guarded_upstream;
use entrepot_testkit::edge::Edge;
use entrepot_testkit::real::{
    Containerd, Dockerd, Door, Image, Podman, Pulled, Registry, Skopeo, edge_config, three_times,
};

fn edge_of(registry: &Registry) -> (Edge, Door) {
    let edge = Edge::start(edge_config(registry, "{ anonymous: true }"));
    let door = Door::before(edge.address());
    (edge, door)
}

fn images(client: &str) -> [(&'static str, Image); 2] {
    [("library/entrepot-multi", Image::multi_arch(client)), ("team/typical", Image::typical(4, 12))]
}

/// Pulls with a daemon that has never seen the images: one keeps manifests beyond an image's removal, for a while.
fn docker(mirrors: &[&str], references: &[String]) -> Result<Vec<Pulled>, String> {
    let docker = Dockerd::start(mirrors);
    references.iter().map(|reference| docker.pull(reference)).collect()
}

/// Docker Hub's names by `registry-mirrors`, with `library/` left out as people do; and others by the Worker's own address.
fn docker_pull(mut registry: Registry) {
    let named = images("docker");
    for (repository, image) in &named {
        registry.push(repository, Some("1"), image);
    }
    let direct = named.each_ref().map(|(name, _)| format!("{}/{name}:1", registry.address()));
    let direct = docker(&[], &direct).expect("a direct pull");
    let all = named.each_ref().map(|(_, image)| image.clone());
    let digests: Vec<&str> = direct.iter().map(|pulled| pulled.digest.as_str()).collect();
    assert_eq!(digests, all.each_ref().map(Image::digest));

    let (edge, door) = edge_of(&registry);
    let by_mirror = named.each_ref().map(|(name, _)| format!("{}:1", name.trim_start_matches("library/")));
    three_times(&mut registry, &edge, &all, &direct, || docker(&[&door.url()], &by_mirror));

    let (edge, door) = edge_of(&registry);
    let by_prefix = named.each_ref().map(|(name, _)| format!("{}/origin.test/{name}:1", door.address()));
    three_times(&mut registry, &edge, &all, &direct, || docker(&[], &by_prefix));
}

/// `hosts.toml`, for Docker Hub and for another registry; the whole image, and this machine's part of it.
fn containerd_pull(mut registry: Registry) {
    let (edge, door) = edge_of(&registry);
    let containerd = Containerd::start();
    containerd.mirror("direct.test", &registry.url());
    containerd.mirror("origin.test", &door.url());
    containerd.mirror("docker.io", &door.url());
    let pull = |reference: String, all| {
        let got = containerd.pull(&reference, all)?;
        containerd.remove(&reference);
        Ok::<_, String>(got)
    };
    let [(hub, multi), (other, typical)] = images("containerd");
    let part = Image::multi_arch("containerd-part");
    let cases = [
        ("docker.io", hub, multi, true),
        ("origin.test", other, typical, true),
        ("origin.test", "team/part", part, false),
    ];
    for (host, repository, image, all) in cases {
        registry.push(repository, Some("1"), &image);
        let direct = pull(format!("direct.test/{repository}:1"), all).expect("a direct pull");
        assert_eq!(direct.0, image.digest());
        assert_eq!(direct.1 == image.digests(), all);
        three_times(&mut registry, &edge, slice::from_ref(&image), &direct, || {
            pull(format!("{host}/{repository}:1"), all)
        });
    }
}

/// A mirror in `registries.conf`: Docker Hub by the Worker's root, another registry by its name as the first part of the path.
fn podman_pull(mut registry: Registry) {
    let (edge, door) = edge_of(&registry);
    let locations = [door.address(), format!("{}/origin.test", door.address())];
    let hosts = ["docker.io", "origin.test"];
    for (((repository, image), host), location) in images("podman").into_iter().zip(hosts).zip(&locations) {
        let podman = Podman::new();
        podman.mirror(host, location);
        let pull = |reference: String| {
            let got = podman.pull(&reference)?;
            podman.remove(&reference);
            Ok::<_, String>(got)
        };
        registry.push(repository, Some("1"), &image);
        let direct = pull(format!("{}/{repository}:1", registry.address())).expect("a direct pull");
        assert!(direct.0.contains(image.digest()), "{direct:?}");
        three_times(&mut registry, &edge, slice::from_ref(&image), &direct, || {
            pull(format!("{host}/{repository}:1"))
        });
    }
}

/// `skopeo copy --all --preserve-digests`, which takes every byte of an image; by tag and by digest.
fn skopeo_copy(mut registry: Registry) {
    let (edge, door) = edge_of(&registry);
    for (repository, image) in images("skopeo") {
        registry.push(repository, Some("1"), &image);
        let direct = Skopeo::copy(&format!("{}/{repository}:1", registry.address())).expect("a direct copy");
        assert_eq!(direct["manifest.json"], image.digest());
        let through = format!("{}/origin.test/{repository}", door.address());
        three_times(&mut registry, &edge, slice::from_ref(&image), &direct, || {
            Skopeo::copy(&format!("{through}:1"))
        });
        let by_digest = Skopeo::copy(&format!("{through}@{}", image.digest()));
        assert_eq!(by_digest.expect("a copy by digest"), direct);
    }
}

each_guarded_upstream!(docker_pull, "node", "dockerd", "docker");
each_guarded_upstream!(containerd_pull, "node", "containerd", "ctr");
each_guarded_upstream!(podman_pull, "node", "podman");
each_guarded_upstream!(skopeo_copy, "node", "skopeo");
