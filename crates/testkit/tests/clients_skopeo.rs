//! Real clients, cold and warm and with the upstream stopped: `skopeo copy --all --preserve-digests`,
//! which takes every byte of an image.

use std::slice;

use entrepot_testkit::each_upstream;
use entrepot_testkit::real::{Image, Registry, Skopeo, mirror_of, three_times};

fn skopeo_copy_all(mut registry: Registry) {
    let mirror = mirror_of(&registry);
    let cases = [
        ("library/entrepot-small", Image::small("skopeo")),
        ("team/multi", Image::multi_arch("skopeo")),
        ("team/deep/typical", Image::typical(8, 24)),
        ("team/artifact", Image::artifact("application/vnd.test.sbom", "an artifact", None)),
    ];
    for (repository, image) in cases {
        registry.push(repository, Some("1"), &image);
        let direct = Skopeo::copy(&format!("{}/{repository}:1", registry.address())).expect("a direct copy");
        assert_eq!(direct["manifest.json"], image.digest());
        // The directory holds every document and blob, and a file with its version.
        assert_eq!(direct.len(), image.digests().len() + 1, "{direct:#?}");
        let reference = format!("{}/origin.test/{repository}:1", mirror.address());
        three_times(&mut registry, &mirror, slice::from_ref(&image), &direct, || Skopeo::copy(&reference));
        let by_digest = format!("{}/origin.test/{repository}@{}", mirror.address(), image.digest());
        assert_eq!(Skopeo::copy(&by_digest).expect("a copy by digest"), direct);
    }
}

each_upstream!(skopeo_copy_all, "skopeo");
