//! Real clients, cold and warm and with the upstream stopped: containerd with `hosts.toml`, which says
//! `?ns=` to a mirror.

use std::collections::BTreeSet;
use std::slice;

use entrepot_testkit::each_upstream;
use entrepot_testkit::real::{Containerd, Image, Registry, mirror_of, three_times};

type Got = (String, BTreeSet<String>);

fn pull(containerd: &Containerd, reference: &str, all: bool) -> Result<Got, String> {
    let got = containerd.pull(reference, all)?;
    containerd.remove(reference);
    Ok(got)
}

/// Another host for `origin.test`, and for Docker Hub; the whole image, and this machine's part of it.
fn containerd_hosts_toml(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    let containerd = Containerd::start();
    containerd.mirror("direct.test", &registry.url());
    containerd.mirror("origin.test", &mirror.url());
    containerd.mirror("docker.io", &mirror.url());
    let cases = [
        ("origin.test", "team/small", Image::small("containerd"), true),
        ("origin.test", "team/multi", Image::multi_arch("containerd"), true),
        ("origin.test", "team/part", Image::multi_arch("containerd-part"), false),
        ("origin.test", "team/typical", Image::typical(8, 24), true),
        ("docker.io", "library/entrepot-multi", Image::multi_arch("containerd-hub"), true),
    ];
    for (host, repository, image, all) in cases {
        registry.push(repository, Some("1"), &image);
        let direct = pull(&containerd, &format!("direct.test/{repository}:1"), all).expect("a direct pull");
        assert_eq!(direct.0, image.digest());
        assert_eq!(direct.1 == image.digests(), all);
        let reference = format!("{host}/{repository}:1");
        three_times(&mut registry, &mirror, slice::from_ref(&image), &direct, || {
            pull(&containerd, &reference, all)
        });
    }
}

each_upstream!(containerd_hosts_toml, "containerd", "ctr");
