use std::time::Duration;

use entrepot_testkit::http::{self, parallel};
use entrepot_testkit::script::{Gate, Method, Reply};

use crate::common::{Bench, assert_refused};
use crate::{Blob, asked, connected};

const WAITERS: usize = 100;

/// T-CC4
#[tokio::test(flavor = "multi_thread")]
async fn t_cc4_a_fill_that_fails_verification_fails_everyone_once() {
    for size in [30_000, 3_000_000] {
        let bench = Bench::new();
        let (blob, gate) = (Blob::new(size, size), Gate::new());
        let (served, body, held) = (blob.digest.clone(), blob.body.clone(), gate.clone());
        bench.upstream.on(Method::Read, &blob.path).reply_with(move |request| {
            Reply::blob(request, &served, body.clone()).flip(size - 1).hold_at(size / 2, &held)
        });
        wave(&bench, &blob, &gate).await;
        assert_eq!(asked(&bench.upstream, &blob.path), ["GET"], "the waiters do not try again");
        bench.assert_nothing_stored();

        // Still bad: a second wave asks once more, and no oftener.
        gate.shut();
        wave(&bench, &blob, &gate).await;
        assert_eq!(asked(&bench.upstream, &blob.path), ["GET", "GET"]);
        bench.assert_nothing_stored();

        // Good again: the failure is not remembered.
        bench.upstream.serve_blob("team/app", blob.body.clone());
        let url = bench.url(&blob.path);
        let answers = parallel(WAITERS, move |_| {
            let call = http::get(url.clone());
            async move { call.send().await }
        })
        .await;
        assert!(answers.iter().all(|answer| answer.clean_end && answer.digest == blob.digest));
        assert_eq!(asked(&bench.upstream, &blob.path), ["GET", "GET", "GET"]);
    }
}

/// A hundred clients on one fill, all of which see that it failed.
async fn wave(bench: &Bench, blob: &Blob, gate: &Gate) {
    let waiters: Vec<_> = (0..WAITERS).map(|_| tokio::spawn(bench.get(&blob.path).send())).collect();
    // A small blob has no head before it is verified, so that connections are all there is to wait for.
    connected(bench, WAITERS).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    gate.open();
    for waiter in waiters {
        let answer = waiter.await.expect("a client that does not panic");
        assert_refused(&answer);
        assert!(answer.length < blob.size, "{answer:?}");
    }
    connected(bench, 0).await;
}
