use std::time::Duration;

use entrepot_testkit::script::{Gate, Method, Reply};

use crate::common::Bench;
use crate::{Blob, asked, connected};

const STEP: u64 = 700_001;
const STEPS: u64 = 10;

/// T-CC3: whoever joins, wherever the fill stands, has the bytes that have arrived at once, those to come when they come,
/// and all of them from one request upstream.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc3_joining_at_every_offset() {
    let bench = Bench::new();
    let blob = Blob::new(1, STEP * STEPS);
    let gates: Vec<Gate> = (0..STEPS).map(|_| Gate::new()).collect();
    let (served, body, held) = (blob.digest.clone(), blob.body.clone(), gates.clone());
    bench.upstream.on(Method::Read, &blob.path).reply_with(move |request| {
        (1..STEPS).fold(Reply::blob(request, &served, body.clone()), |reply, step| {
            reply.hold_at(step * STEP, &held[step as usize])
        })
    });
    let mut whole = vec![tokio::spawn(bench.get(&blob.path).send())];
    for step in 1..STEPS {
        let here = step * STEP;
        bench
            .upstream
            .wait_until(Duration::from_secs(10), "upstream has come to the gate", |requests| {
                requests.first().is_some_and(|request| request.sent() == here)
            })
            .await;
        whole.push(tokio::spawn(bench.get(&blob.path).send()));
        // What has arrived is there although upstream stands still.
        for (first, end) in [(0, 1), (here - 100_000, here - 5), (here - 1, here)] {
            let answer = bench.get(&blob.path).range(&format!("bytes={first}-{}", end - 1)).send().await;
            assert_eq!(answer.status, 206, "{answer:?}");
            assert_eq!(answer.body, blob.body.slice(first..end), "{first}..{end} of {here}");
        }
        // The first chunk of what is to come, and an answer that begins before it.
        let across = (here - 1000, here + 1000);
        let ahead = (here + 300_000, here + 300_100);
        let waiting: Vec<_> = [across, ahead]
            .into_iter()
            .map(|(first, end)| {
                let call = bench.get(&blob.path).range(&format!("bytes={first}-{}", end - 1));
                (first, end, tokio::spawn(call.send()))
            })
            .collect();
        connected(&bench, whole.len() + waiting.len()).await;
        assert!(waiting.iter().all(|(.., waiter)| !waiter.is_finished()), "nobody has what has not come");
        gates[step as usize].open();
        for (first, end, waiter) in waiting {
            let answer = waiter.await.expect("a client that does not panic");
            assert_eq!(answer.status, 206, "{answer:?}");
            assert_eq!(answer.body, blob.body.slice(first..end), "{first}..{end}");
        }
    }
    for (joined, client) in whole.into_iter().enumerate() {
        let answer = client.await.expect("a client that does not panic");
        assert_eq!((answer.clean_end, &answer.digest), (true, &blob.digest), "joined at step {joined}");
    }
    assert_eq!(asked(&bench.upstream, &blob.path), ["GET"]);
}

/// T-CC3: the last bytes come only once the digest matches, for ranges as well.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc3_a_range_at_the_end_waits_for_the_digest() {
    let bench = Bench::new();
    let (blob, gate) = (Blob::new(2, 3_000_000), Gate::new());
    let last = blob.size - 1;
    let (served, body, held) = (blob.digest.clone(), blob.body.clone(), gate.clone());
    bench
        .upstream
        .on(Method::Read, &blob.path)
        .reply_with(move |request| Reply::blob(request, &served, body.clone()).hold_at(last, &held));
    let tail = tokio::spawn(bench.get(&blob.path).range(&format!("bytes={}-{last}", last - 9)).send());
    let suffix = tokio::spawn(bench.get(&blob.path).range("bytes=-5").send());
    bench
        .upstream
        .wait_until(Duration::from_secs(10), "all but one byte", |requests| {
            requests.first().is_some_and(|request| request.sent() == last)
        })
        .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!tail.is_finished() && !suffix.is_finished(), "nothing of the tail before the digest");
    gate.open();
    assert_eq!(tail.await.expect("an answer").body, blob.body.slice(last - 9..last + 1));
    assert_eq!(suffix.await.expect("an answer").body, blob.body.slice(last - 4..last + 1));
    assert_eq!(asked(&bench.upstream, &blob.path), ["GET"]);
}
