//! Real clients, cold and warm and with the upstream stopped: `docker pull` through
//! `registry-mirrors` and by prefix, and BuildKit.

use std::slice;

use entrepot_testkit::each_upstream;
use entrepot_testkit::real::{Dockerd, Image, Pulled, Registry, mirror_of, three_times};

fn images() -> [(&'static str, Image); 3] {
    [
        ("library/entrepot-small", Image::small("docker")),
        ("library/entrepot-multi", Image::multi_arch("docker")),
        ("team/typical", Image::typical(8, 24)),
    ]
}

/// Pulls each with a daemon that has never seen it: a daemon keeps manifests beyond an image's removal, for a while.
fn pull(mirrors: &[&str], references: &[String]) -> Result<Vec<Pulled>, String> {
    let docker = Dockerd::start(mirrors);
    references.iter().map(|reference| docker.pull(reference)).collect()
}

/// Pushes the images; what a daemon makes of them without a mirror.
fn directly(registry: &Registry) -> (Vec<Image>, Vec<Pulled>) {
    let direct: Vec<String> =
        images().iter().map(|(name, _)| format!("{}/{name}:1", registry.address())).collect();
    for (repository, image) in images() {
        registry.push(repository, Some("1"), &image);
    }
    let images: Vec<Image> = images().into_iter().map(|(_, image)| image).collect();
    let direct = pull(&[], &direct).expect("a direct pull");
    let digests: Vec<&str> = direct.iter().map(|pulled| pulled.digest.as_str()).collect();
    assert_eq!(digests, images.iter().map(Image::digest).collect::<Vec<_>>());
    (images, direct)
}

/// `registry-mirrors` serve Docker Hub's names, with `library/` left out as people do.
fn docker_registry_mirrors(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    let (all, direct) = directly(&registry);
    let references = images().map(|(name, _)| format!("{}:1", name.trim_start_matches("library/")));
    three_times(&mut registry, &mirror, &all, &direct, || pull(&[&mirror.url()], &references));
}

/// The mirror's own address, and the registry's name as the first part of the repository.
fn docker_by_prefix(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    let (all, direct) = directly(&registry);
    let named = images().map(|(name, image)| (format!("{}/origin.test/{name}", mirror.address()), image));
    let by_tag = named.each_ref().map(|(name, _)| format!("{name}:1"));
    three_times(&mut registry, &mirror, &all, &direct, || pull(&[], &by_tag));
    let by_digest = named.each_ref().map(|(name, image)| format!("{name}@{}", image.digest()));
    assert_eq!(pull(&[], &by_digest).expect("pulls by digest"), direct);
}

/// `DOCKER_BUILDKIT=1 docker build` of one line, its base once through `registry-mirrors` and once by prefix. Each build has
/// a daemon of its own: BuildKit's caches outlive a prune.
fn buildkit_build(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    for (round, shape) in ["docker.io", "prefix"].into_iter().enumerate() {
        let image = Image::multi_arch(&format!("buildkit-{round}"));
        registry.push("library/entrepot-base", Some("1"), &image);
        registry.push("library/entrepot-base", Some(shape), &image);
        let base = match shape {
            "prefix" => format!("{}/origin.test/library/entrepot-base:{shape}", mirror.address()),
            _ => format!("entrepot-base:{shape}"),
        };
        let build = |from: &str| {
            let docker = Dockerd::start(&[&mirror.url()]);
            let built = docker.build(&format!("FROM {from}\n"))?;
            let resolved = built.progress.contains(&format!("@{}", image.digest()));
            assert!(resolved, "the base was resolved to something else: {}", built.progress);
            Ok::<_, String>(built.layers)
        };
        let direct =
            build(&format!("{}/library/entrepot-base:{shape}", registry.address())).expect("a direct build");
        assert_eq!(direct, image.diff_ids[0]);
        three_times(&mut registry, &mirror, slice::from_ref(&image), &direct, || build(&base));
    }
}

each_upstream!(docker_registry_mirrors, "dockerd", "docker");
each_upstream!(docker_by_prefix, "dockerd", "docker");
each_upstream!(buildkit_build, "dockerd", "docker");
