//! The kit itself: every client pulls from every registry directly, and gets the digests that were pushed.

use entrepot_testkit::need;
use entrepot_testkit::real::{Containerd, Dockerd, Image, Podman, Registry, Skopeo};

fn registries() -> [(&'static str, Registry); 3] {
    [
        ("plain", Registry::plain()),
        ("tokens", Registry::with_tokens()),
        ("redirecting", Registry::redirecting()),
    ]
}

#[test]
fn docker_pulls_directly_and_builds() {
    need!(
        "docker_pulls_directly_and_builds",
        "dockerd",
        "docker",
        "docker-registry",
        "openssl"
    );
    let docker = Dockerd::start(&[]);
    for (name, registry) in registries() {
        for image in [Image::small("direct"), Image::multi_arch("direct")] {
            registry.push("team/app", Some("1"), &image);
            let reference = format!("{}/team/app:1", registry.address());
            let pulled = docker
                .pull(&reference)
                .unwrap_or_else(|e| panic!("{name}: {e}\n{}", docker.log()));
            assert_eq!(pulled.digest, image.digest(), "{name}");
            assert_eq!(pulled.layers, image.diff_ids[0], "{name}");
            docker.remove(&reference);
            let built = docker
                .build(&format!("FROM {reference}\n"))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(built.layers, image.diff_ids[0], "{name}");
            assert!(
                built.progress.contains(image.digest()),
                "{name}: {}",
                built.progress
            );
            docker.remove("built:1");
        }
    }
}

#[test]
fn containerd_pulls_directly() {
    need!(
        "containerd_pulls_directly",
        "containerd",
        "ctr",
        "docker-registry",
        "openssl"
    );
    let containerd = Containerd::start();
    for (name, registry) in registries() {
        let image = Image::multi_arch("direct");
        registry.push("team/app", Some("1"), &image);
        containerd.mirror("origin.test", &registry.url());
        let (digest, content) = containerd
            .pull("origin.test/team/app:1", true)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(digest, image.digest(), "{name}");
        assert_eq!(content, image.digests(), "{name}");
        let named = registry
            .seen()
            .iter()
            .any(|s| s.query.as_deref() == Some("ns=origin.test"));
        assert!(named, "{name}: containerd did not say ?ns=");
        containerd.remove("origin.test/team/app:1");
    }
}

#[test]
fn podman_pulls_directly() {
    need!("podman_pulls_directly", "podman", "docker-registry", "openssl");
    let podman = Podman::new();
    for (name, registry) in registries() {
        let image = Image::multi_arch("direct");
        registry.push("team/app", Some("1"), &image);
        let reference = format!("{}/team/app:1", registry.address());
        let (digests, _) = podman.pull(&reference).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(digests.contains(image.digest()), "{name}: {digests:?}");
        podman.remove(&reference);
    }
}

#[test]
fn skopeo_copies_directly_and_the_gateway_counts() {
    need!(
        "skopeo_copies_directly_and_the_gateway_counts",
        "skopeo",
        "docker-registry",
        "openssl"
    );
    for (name, mut registry) in registries() {
        let image = Image::typical(3, 6);
        registry.push("team/app", Some("1"), &image);
        let reference = format!("{}/team/app:1", registry.address());
        let files = Skopeo::copy(&reference).unwrap_or_else(|e| panic!("{name}: {e}"));
        for blob in &image.blobs {
            assert_eq!(
                files.get(blob.digest.trim_start_matches("sha256:")),
                Some(&blob.digest),
                "{name}"
            );
            assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{name}");
        }
        assert_eq!(files["manifest.json"], image.digest(), "{name}");
        assert_eq!(registry.count("GET", "/manifests/1"), 1, "{name}");
        let away = registry
            .seen()
            .iter()
            .filter(|s| s.blob_host && s.status == 200)
            .count();
        assert_eq!(
            away,
            if name == "redirecting" {
                image.blobs.len()
            } else {
                0
            },
            "{name}"
        );
        if let Some(tokens) = registry.tokens() {
            assert!(
                tokens.requests() > 0 && tokens.scopes().contains(&"repository:team/app:pull".to_owned())
            );
        }
        registry.stop();
        Skopeo::copy(&reference).expect_err("a stopped registry refuses");
        registry.restart();
        registry.forget();
        Skopeo::copy(&reference).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(registry.blob_bytes() > 6_000_000, "{name}");
    }
}
