//! The OCI conformance suite in read-only mode, against the mirror: cold, warm, with the upstream
//! stopped, and after `kill -9`. The suite cannot know the content, so every object is compared with the origin's as well.

use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::real::conformance::{Inventory, REPOSITORY, Suite};
use entrepot_testkit::real::{Registry, fetch, mirror_of};
use entrepot_testkit::{each_upstream, need};

/// Ask for what is drawn at random. While upstream cannot be asked nobody knows whether it exists: a 404 would be a guess, and
/// an empty list of referrers an invention.
const UNKNOWABLE: [&str; 3] = [
    "OCI Conformance Test/empty/referrers",
    "OCI Conformance Test/missing-manifest/by-digest",
    "OCI Conformance Test/missing-manifest/by-tag",
];

fn suite() -> Suite {
    Suite::build().expect("Go is here, so the suite builds")
}

fn judge(suite: &Suite, mirror: &Mirror, inventory: &Inventory, phase: &str, excused: &[&str]) {
    let repository = format!("origin.test/{REPOSITORY}");
    let mut report = suite.read(&mirror.address().to_string(), &repository, inventory);
    report.failed.retain(|(name, _)| !excused.contains(&name.as_str()));
    assert!(report.failed.is_empty(), "{phase}:\n{}\nmirror:\n{}", report.failures(), mirror.log());
}

/// Bytes, and for manifests the media type.
fn compare(origin: &Registry, mirror: &Mirror, inventory: &Inventory) {
    let manifests = inventory.manifests.iter().chain(&inventory.tags).map(|r| format!("manifests/{r}"));
    for path in manifests.chain(inventory.blobs.iter().map(|d| format!("blobs/{d}"))) {
        let original = origin.ask(REPOSITORY, &path).expect("the origin's process runs behind its gateway");
        let copy = fetch("GET", &format!("{}/v2/origin.test/{REPOSITORY}/{path}", mirror.url()), &[])
            .expect("an answer");
        assert_eq!(copy.status, 200, "{path}");
        assert!(copy.body == original.body, "{path} differs from the origin's");
        if path.starts_with("manifests/") {
            assert_eq!(copy.header("content-type"), original.header("content-type"), "{path}");
        }
    }
}

fn four_times(mut origin: Registry) {
    let suite = suite();
    let inventory = suite.fill(&origin);
    let mut mirror = mirror_of(&origin);
    judge(&suite, &mirror, &inventory, "cold", &[]);
    judge(&suite, &mirror, &inventory, "warm", &[]);
    origin.stop();
    judge(&suite, &mirror, &inventory, "upstream stopped", &UNKNOWABLE);
    compare(&origin, &mirror, &inventory);
    mirror.kill9();
    mirror.restart();
    judge(&suite, &mirror, &inventory, "after kill -9", &UNKNOWABLE);
    compare(&origin, &mirror, &inventory);
}

/// From an origin that has the referrers API.
#[test]
fn conformance_with_referrers() {
    need!("conformance_with_referrers", "go");
    four_times(Registry::with_referrers().expect("Go is here, so the origin builds"));
}

fn conformance(origin: Registry) {
    four_times(origin);
}

each_upstream!(conformance, "go");

/// The kit itself: what the suite says of the origin with the referrers API, read-only, without a mirror between.
#[test]
fn conformance_of_the_origin_itself() {
    need!("conformance_of_the_origin_itself", "go");
    let suite = suite();
    let origin = Registry::with_referrers().expect("Go is here, so the origin builds");
    let inventory = suite.fill(&origin);
    assert!(!inventory.subjects.is_empty() && !inventory.tags.is_empty(), "{inventory:#?}");
    let report = suite.read(&origin.address(), REPOSITORY, &inventory);
    assert!(report.failed.is_empty(), "{}", report.failures());
}
