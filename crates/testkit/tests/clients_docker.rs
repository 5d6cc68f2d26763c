//! What it must show, 1: `docker pull` through `registry-mirrors` and by prefix, and BuildKit.

use entrepot_testkit::each_upstream;
use entrepot_testkit::real::{Dockerd, Image, Pulled, Registry, mirror_of, three_times};

fn images() -> [(&'static str, Image); 3] {
    [
        ("library/entrepot-small", Image::small("docker")),
        ("library/entrepot-multi", Image::multi_arch("docker")),
        ("team/typical", Image::typical(8, 24)),
    ]
}

fn pull(docker: &Dockerd, reference: &str) -> Result<Pulled, String> {
    let pulled = docker.pull(reference)?;
    docker.remove(reference);
    Ok(pulled)
}

/// `registry-mirrors` serve Docker Hub's names, with `library/` left out as people do.
fn docker_registry_mirrors(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    let docker = Dockerd::start(&[&mirror.url()]);
    for (repository, image) in images() {
        registry.push(repository, Some("1"), &image);
        let direct = pull(&docker, &format!("{}/{repository}:1", registry.address())).expect("a direct pull");
        assert_eq!(direct.digest, image.digest());
        let reference = format!("{}:1", repository.trim_start_matches("library/"));
        three_times(&mut registry, &mirror, &image, &direct, || {
            pull(&docker, &reference)
        });
    }
}

/// The mirror's own address, and the registry's name as the first part of the repository.
fn docker_by_prefix(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    let docker = Dockerd::start(&[]);
    for (repository, image) in images() {
        registry.push(repository, Some("1"), &image);
        let direct = pull(&docker, &format!("{}/{repository}:1", registry.address())).expect("a direct pull");
        let reference = format!("{}/origin.test/{repository}:1", mirror.address());
        three_times(&mut registry, &mirror, &image, &direct, || {
            pull(&docker, &reference)
        });
        let by_digest = format!("{}/origin.test/{repository}@{}", mirror.address(), image.digest());
        assert_eq!(pull(&docker, &by_digest).expect("a pull by digest"), direct);
    }
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
            assert!(
                resolved,
                "the base was resolved to something else: {}",
                built.progress
            );
            Ok::<_, String>(built.layers)
        };
        let direct =
            build(&format!("{}/library/entrepot-base:{shape}", registry.address())).expect("a direct build");
        assert_eq!(direct, image.diff_ids[0]);
        three_times(&mut registry, &mirror, &image, &direct, || build(&base));
    }
}

each_upstream!(docker_registry_mirrors, "dockerd", "docker");
each_upstream!(docker_by_prefix, "dockerd", "docker");
each_upstream!(buildkit_build, "dockerd", "docker");
