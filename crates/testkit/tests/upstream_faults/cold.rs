use std::sync::Arc;
use std::time::Duration;

use entrepot_testkit::http::{self, Response};
use entrepot_testkit::script::{Image, sha256};

use super::faults::{self, Failing, Fault};
use crate::common::{Bench, TELLS_FAULTS, assert_only_our_headers};

/// Asks every failing upstream for the same thing at once; nothing is held of it.
async fn cold(path: impl Fn(&str) -> String) {
    let faults = Arc::new(faults::all());
    let bench = faults::with_sources(Bench::setup(), &faults, &[]).start();
    let urls: Vec<(String, String)> = faults
        .iter()
        .map(|fault| {
            fault.begin();
            (fault.name.to_owned(), bench.url(path(&fault.repository())))
        })
        .collect();
    let asked = urls.clone();
    let answers = http::parallel(urls.len(), move |i| {
        let url = asked[i].1.clone();
        async move { (http::head(&url).send().await, http::get(&url).send().await) }
    })
    .await;
    for (fault, (head, get)) in faults.iter().zip(&answers) {
        judge(fault, get);
        // After it the breaker may be open, or the conversation held off.
        assert!(fault.statuses.contains(&head.status) || head.status == 503, "{}: {head:?}", fault.name);
        if let Failing::Scripted(upstream, _) = &fault.upstream {
            assert!(
                (1..=8).contains(&upstream.requests().len()),
                "{}: tried, and not for ever: {:?}",
                fault.name,
                upstream.summary()
            );
        }
    }
    bench.assert_nothing_stored();
}

fn judge(fault: &Fault, answer: &Response) {
    let name = fault.name;
    assert_ne!(answer.status, 404, "{name}: that upstream fails says nothing of what it has");
    // HEAD was asked a moment before: five faults in a row open the breaker.
    let suspended = answer.status == 503 && answer.header("retry-after").is_some();
    assert!(fault.statuses.contains(&answer.status) || suspended, "{name}: {answer:?}");
    assert!(answer.clean_end);
    let code = if suspended || (name == "garbage" && !TELLS_FAULTS) { "UNAVAILABLE" } else { fault.code };
    assert_eq!(answer.error_code(), code, "{name}: {answer:?}");
    assert!(
        answer.json()["errors"][0]["message"].as_str().is_some_and(|message| message.len() > 10),
        "{name}: a sentence: {answer:?}"
    );
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{name}");
    assert!(!answer.text().contains("nginx"), "{name}: upstream's page is not ours");
    assert!(!answer.text().contains("127.0.0.1"), "{name}: no address: {answer:?}");
    assert_eq!(answer.header("www-authenticate"), None, "{name}: there is nothing to log in to here");
    assert_only_our_headers(answer);
    if TELLS_FAULTS && matches!(name, "tls-alert" | "tls-plain") {
        let status = answer.header("cache-status").unwrap_or_default();
        assert!(status.ends_with("detail=upstream_tls"), "{name}: not merely unreachable: {answer:?}");
    }
    if let (Some((least, most)), false) = (fault.retry_after, suspended) {
        let said: u64 = answer
            .header("retry-after")
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{name}: Retry-After in seconds: {answer:?}"));
        assert!((least..=most).contains(&said), "{name}: {said} is not within {least}..={most}");
    }
}

/// T-UF1
#[tokio::test(flavor = "multi_thread")]
async fn t_uf1_cold_manifest_by_tag() {
    cold(|repository| format!("{repository}/manifests/latest")).await;
}

/// T-UF1
#[tokio::test(flavor = "multi_thread")]
async fn t_uf1_cold_manifest_by_digest() {
    cold(|repository| format!("{repository}/manifests/{}", sha256(b"x"))).await;
}

/// T-UF1
#[tokio::test(flavor = "multi_thread")]
async fn t_uf1_cold_blob() {
    cold(|repository| format!("{repository}/blobs/{}", sha256(b"x"))).await;
}

/// T-UF1
#[tokio::test(flavor = "multi_thread")]
async fn t_uf1_cold_tags() {
    cold(|repository| format!("{repository}/tags/list")).await;
}

/// T-UF1
#[tokio::test(flavor = "multi_thread")]
async fn t_uf1_cold_referrers() {
    cold(|repository| format!("{repository}/referrers/{}", sha256(b"x"))).await;
}

/// T-UF1, T-CP4: no failure but upstream's own 404 is remembered: with upstream well again, everything is there.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf1_nothing_of_a_failure_is_remembered() {
    let image = Image::small(1);
    let faults = faults::all();
    let bench = faults::with_sources(Bench::setup().cache("negative_ttl", "1h"), &faults, &[]).start();
    for fault in &faults {
        // What asked to be left alone for a minute and more is left alone.
        let patient = fault.retry_after.is_some_and(|(_, most)| most > 5);
        let (Failing::Scripted(upstream, _), false) = (&fault.upstream, patient) else {
            continue;
        };
        fault.begin();
        let manifest = format!("{}/manifests/latest", fault.repository());
        let blob = format!("{}/blobs/{}", fault.repository(), image.layer_digests[0]);
        for path in [&manifest, &blob] {
            let answer = bench.get(path).limit(Duration::from_secs(20)).send().await;
            assert!(answer.status >= 400 && answer.status != 404, "{}: {answer:?}", fault.name);
        }
        upstream.clear_rules();
        upstream.serve_image("team/app", "latest", &image);
        let good = bench.eventually(&manifest, fault.name, |answer| answer.status == 200).await;
        assert_eq!(good.digest, image.digest);
        let good = bench.eventually(&blob, fault.name, |answer| answer.status == 200).await;
        assert_eq!(good.digest, image.layer_digests[0]);
    }
}
