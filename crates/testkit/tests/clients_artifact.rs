//! Real clients, cold and warm and with the upstream stopped: an OCI artifact with referrers, from a
//! registry that has the referrers API and from one that has only the tag scheme.

use std::collections::BTreeSet;
use std::slice;

use entrepot_testkit::need;
use entrepot_testkit::real::{Image, Registry, Skopeo, fetch, mirror_of, three_times};
use serde_json::Value;

const SBOM: &str = "application/vnd.test.sbom";
const SIGNATURE: &str = "application/vnd.test.signature";

struct Family {
    subject: Image,
    referrers: [Image; 2],
}

fn family(name: &str) -> Family {
    let subject = Image::small(name);
    let sbom = Image::artifact(SBOM, &format!("the parts of {name}"), Some(&subject));
    let signature = Image::artifact(SIGNATURE, &format!("the signature of {name}"), Some(&subject));
    Family { subject, referrers: [sbom, signature] }
}

/// Digest, artifact type and size of each entry.
fn referrers(base: &str, subject: &str, query: &str) -> Result<BTreeSet<(String, String, u64)>, String> {
    let answer = fetch("GET", &format!("{base}/referrers/{subject}{query}"), &[])?;
    if answer.status != 200 {
        return Err(format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body)));
    }
    assert_eq!(answer.header("content-type"), Some("application/vnd.oci.image.index.v1+json"));
    let index: Value = serde_json::from_slice(&answer.body).map_err(|e| e.to_string())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = index["manifests"].as_array().ok_or("no list of manifests")?;
    Ok(entries
        .iter()
        .map(|e| (text(&e["digest"]), text(&e["artifactType"]), e["size"].as_u64().unwrap_or(0)))
        .collect())
}

fn expected(family: &Family) -> BTreeSet<(String, String, u64)> {
    let kinds = [SBOM, SIGNATURE].into_iter();
    let size = |image: &Image| image.root().bytes.len() as u64;
    family
        .referrers
        .iter()
        .zip(kinds)
        .map(|(r, kind)| (r.digest().to_owned(), kind.to_owned(), size(r)))
        .collect()
}

/// The artifact itself, by tag and digest; what refers to it, whole and filtered; and each of these by its digest.
fn artifact_with_referrers(mut registry: Registry, family: &Family) {
    let mirror = mirror_of(&registry);
    let through = format!("{}/origin.test/team/app", mirror.address());
    let base = format!("{}/v2/origin.test/team/app", mirror.url());
    let subject = family.subject.digest().to_owned();
    for referrer in &family.referrers {
        let direct = Skopeo::copy(&format!("{}/team/app@{}", registry.address(), referrer.digest()))
            .expect("a direct copy");
        let reference = format!("{through}@{}", referrer.digest());
        three_times(&mut registry, &mirror, slice::from_ref(referrer), &direct, || Skopeo::copy(&reference));
    }
    let lists = || -> Result<_, String> {
        let filter = format!("?artifactType={}", SBOM.replace('/', "%2F"));
        Ok((referrers(&base, &subject, "")?, referrers(&base, &subject, &filter)?))
    };
    let all = expected(family);
    let sboms: BTreeSet<_> = all.iter().filter(|entry| entry.1 == SBOM).cloned().collect();
    let (whole, filtered) = lists().expect("referrers, cold");
    assert_eq!(whole, all, "cold");
    assert!(
        filtered == sboms || filtered == all,
        "a filter may be ignored, but must not invent: {filtered:?}"
    );
    assert_eq!(lists().expect("referrers, warm").0, all, "warm");
    registry.stop();
    assert_eq!(lists().expect("referrers, upstream stopped").0, all, "upstream stopped");
    let none = referrers(&base, &format!("sha256:{}", "0".repeat(64)), "");
    none.expect_err("upstream is stopped, so nobody knows: an empty list would be invented");
    registry.restart();
}

#[test]
fn artifacts_and_referrers_from_the_api() {
    let name = "artifacts_and_referrers_from_the_api";
    need!(name, "skopeo", "go");
    let Some(registry) = Registry::with_referrers() else {
        panic!("{name}: the registry written in Go does not build");
    };
    let family = family("api");
    registry.push("team/app", Some("1"), &family.subject);
    for referrer in &family.referrers {
        registry.push("team/app", None, referrer);
    }
    let direct =
        referrers(&format!("{}/v2/team/app", registry.url()), family.subject.digest(), "").expect("direct");
    assert_eq!(direct, expected(&family));
    artifact_with_referrers(registry, &family);
}

fn tag_scheme(registry: Registry) {
    let family = family("tags");
    registry.push("team/app", Some("1"), &family.subject);
    for referrer in &family.referrers {
        registry.push("team/app", None, referrer);
    }
    let index = Image::referrers_index(&family.referrers.each_ref());
    registry.push("team/app", Some(&family.subject.referrers_tag()), &index);
    artifact_with_referrers(registry, &family);
}

entrepot_testkit::each_upstream!(tag_scheme, "skopeo");
