//! Real clients, cold and warm and with the upstream stopped: podman with a mirror in `registries.conf`.

use std::collections::BTreeSet;
use std::slice;

use entrepot_testkit::each_upstream;
use entrepot_testkit::real::{Image, Podman, Registry, mirror_of, three_times};

type Got = (BTreeSet<String>, String);

fn pull(podman: &Podman, reference: &str) -> Result<Got, String> {
    let got = podman.pull(reference)?;
    podman.remove(reference);
    Ok(got)
}

/// Docker Hub by the mirror's root, and another registry by its name as the first part of the path.
fn podman_mirror(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    let address = mirror.address().to_string();
    let prefixed = format!("{address}/origin.test");
    let cases = [
        ("docker.io", &address, "library/entrepot-small", Image::small("podman")),
        ("docker.io", &address, "library/entrepot-multi", Image::multi_arch("podman")),
        ("origin.test", &prefixed, "team/multi", Image::multi_arch("podman-prefix")),
        ("origin.test", &prefixed, "team/typical", Image::typical(4, 24)),
    ];
    for (host, location, repository, image) in cases {
        let podman = Podman::new();
        podman.mirror(host, location);
        registry.push(repository, Some("1"), &image);
        let direct = pull(&podman, &format!("{}/{repository}:1", registry.address())).expect("a direct pull");
        assert!(direct.0.contains(image.digest()), "{direct:?}");
        let reference = format!("{host}/{repository}:1");
        three_times(&mut registry, &mirror, slice::from_ref(&image), &direct, || pull(&podman, &reference));
    }
}

each_upstream!(podman_mirror, "podman");
