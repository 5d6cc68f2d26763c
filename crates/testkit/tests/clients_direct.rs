//! The kit itself: every client pulls from every registry directly, and gets the digests that were pushed.

use std::io::{Read, Write};
use std::net::TcpStream;

use entrepot_testkit::need;
use entrepot_testkit::real::{Containerd, Credentials, Dockerd, Image, Podman, Registry, Skopeo, fetch};

fn registries() -> [(&'static str, Registry); 3] {
    [
        ("plain", Registry::plain()),
        ("tokens", Registry::with_tokens()),
        ("redirecting", Registry::redirecting()),
    ]
}

#[test]
fn docker_pulls_directly_and_builds() {
    need!("docker_pulls_directly_and_builds", "dockerd", "docker", "docker-registry", "openssl");
    let docker = Dockerd::start(&[]);
    for (name, registry) in registries() {
        for image in [Image::small("direct"), Image::multi_arch("direct")] {
            registry.push("team/app", Some("1"), &image);
            let reference = format!("{}/team/app:1", registry.address());
            let pulled = docker.pull(&reference).unwrap_or_else(|e| panic!("{name}: {e}\n{}", docker.log()));
            assert_eq!(pulled.digest, image.digest(), "{name}");
            assert_eq!(pulled.layers, image.diff_ids[0], "{name}");
            docker.remove(&reference);
            let built =
                docker.build(&format!("FROM {reference}\n")).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(built.layers, image.diff_ids[0], "{name}");
            assert!(built.progress.contains(image.digest()), "{name}: {}", built.progress);
            docker.remove("built:1");
        }
    }
}

#[test]
fn containerd_pulls_directly() {
    need!("containerd_pulls_directly", "containerd", "ctr", "docker-registry", "openssl");
    let containerd = Containerd::start();
    for (name, registry) in registries() {
        let image = Image::multi_arch("direct");
        registry.push("team/app", Some("1"), &image);
        containerd.mirror("origin.test", &registry.url());
        let (digest, content) =
            containerd.pull("origin.test/team/app:1", true).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(digest, image.digest(), "{name}");
        assert_eq!(content, image.digests(), "{name}");
        let named = registry.seen().iter().any(|s| s.query.as_deref() == Some("ns=origin.test"));
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
    need!("skopeo_copies_directly_and_the_gateway_counts", "skopeo", "docker-registry", "openssl");
    for (name, mut registry) in registries() {
        let image = Image::typical(3, 6);
        registry.push("team/app", Some("1"), &image);
        let reference = format!("{}/team/app:1", registry.address());
        let files = Skopeo::copy(&reference).unwrap_or_else(|e| panic!("{name}: {e}"));
        for blob in &image.blobs {
            assert_eq!(files.get(blob.digest.trim_start_matches("sha256:")), Some(&blob.digest), "{name}");
            assert_eq!(registry.bytes_of(&blob.digest), blob.size, "{name}");
        }
        assert_eq!(files["manifest.json"], image.digest(), "{name}");
        assert_eq!(registry.count("GET", "/manifests/1"), 1, "{name}");
        let away = registry.seen().iter().filter(|s| s.blob_host && s.status == 200).count();
        assert_eq!(away, if name == "redirecting" { image.blobs.len() } else { 0 }, "{name}");
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

#[test]
fn a_stopped_registry_cuts_what_is_under_way() {
    need!("a_stopped_registry_cuts_what_is_under_way", "docker-registry");
    let mut registry = Registry::plain();
    let image = Image::typical(1, 100);
    registry.push("team/app", Some("1"), &image);
    let layer = &image.blobs[1];
    let mut socket = TcpStream::connect(registry.address()).expect("a connection");
    let request = format!("GET /v2/team/app/blobs/{} HTTP/1.1\r\nhost: x\r\n\r\n", layer.digest);
    socket.write_all(request.as_bytes()).expect("a request");
    let mut first = [0; 1024];
    socket.read_exact(&mut first).expect("the beginning of the answer");
    registry.stop();
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert!((rest.len() as u64) < layer.size / 2, "{} bytes came after the stop", rest.len());
}

#[test]
fn the_blob_host_takes_signed_links_without_authorization_only() {
    let name = "the_blob_host_takes_signed_links_without_authorization_only";
    need!(name, "docker-registry", "openssl", "skopeo");
    let registry = Registry::redirecting();
    registry.push("team/app", Some("1"), &Image::small("links"));
    Skopeo::copy(&format!("{}/team/app:1", registry.address())).expect("a direct copy");
    let seen = registry.seen();
    let link = seen.iter().find(|s| s.blob_host && s.status == 200).expect("a blob came from the blob host");
    let host = registry.blob_host().expect("it redirects");
    let (bare, query) =
        (format!("http://{host}{}", link.path), link.query.as_deref().expect("links are signed"));
    let signed = format!("{bare}?{query}");
    let status = |url: &str, headers: &[(&str, &str)]| fetch("GET", url, headers).expect("an answer").status;
    assert_eq!(status(&signed, &[]), 200);
    assert_eq!(status(&signed, &[("authorization", &Credentials::TEST.basic())]), 400);
    assert_eq!(status(&bare, &[]), 403);
    assert_eq!(status(&format!("{bare}?X-Expires=1&X-Signature=0"), &[]), 403);
    assert_eq!(status(&format!("{signed}0"), &[]), 403);
}
