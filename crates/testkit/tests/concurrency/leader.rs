use std::time::Duration;

use entrepot_testkit::http::{self, Response};
use entrepot_testkit::script::{Gate, Method, Reply};
use tokio::task::JoinHandle;

use crate::common::Bench;
use crate::{Blob, asked, connected};

const WAITERS: usize = 20;

/// Serves a blob that waits for `gate` before its head.
fn hold_head(bench: &Bench, blob: &Blob, gate: &Gate) {
    let (served, body, gate) = (blob.digest.clone(), blob.body.clone(), gate.clone());
    bench
        .upstream
        .on(Method::Read, &blob.path)
        .reply_with(move |request| Reply::blob(request, &served, body.clone()).hold_head(&gate));
}

fn hold_at(bench: &Bench, blob: &Blob, at: u64, gate: &Gate) {
    let (served, body, gate) = (blob.digest.clone(), blob.body.clone(), gate.clone());
    bench
        .upstream
        .on(Method::Read, &blob.path)
        .reply_with(move |request| Reply::blob(request, &served, body.clone()).hold_at(at, &gate));
}

fn waiters(bench: &Bench, blob: &Blob) -> Vec<JoinHandle<Response>> {
    (0..WAITERS).map(|_| tokio::spawn(bench.get(&blob.path).send())).collect()
}

async fn assert_served(waiters: Vec<JoinHandle<Response>>, blob: &Blob) {
    for waiter in waiters {
        let answer = waiter.await.expect("a client that does not panic");
        assert_eq!((answer.status, answer.clean_end, &answer.digest), (200, true, &blob.digest));
    }
}

/// T-CC2
#[tokio::test(flavor = "multi_thread")]
async fn t_cc2_the_leaders_client_leaves_before_the_head() {
    let bench = Bench::new();
    let (blob, gate) = (Blob::new(1, 1_000_000), Gate::new());
    hold_head(&bench, &blob, &gate);
    let leader = tokio::spawn(bench.get(&blob.path).send());
    bench
        .upstream
        .wait_until(Duration::from_secs(10), "the leader's GET", |requests| !requests.is_empty())
        .await;
    let waiters = waiters(&bench, &blob);
    connected(&bench, WAITERS + 1).await;
    leader.abort();
    connected(&bench, WAITERS).await;
    gate.open();
    assert_served(waiters, &blob).await;
    assert_eq!(asked(&bench.upstream, &blob.path), ["GET"]);
}

/// T-CC2
#[tokio::test(flavor = "multi_thread")]
async fn t_cc2_the_leaders_client_leaves_after_the_first_byte() {
    let bench = Bench::new();
    let (blob, gate) = (Blob::new(2, 2_000_000), Gate::new());
    hold_at(&bench, &blob, 500_000, &gate);
    let mut leader = bench.get(&blob.path).open().await;
    let early = waiters(&bench, &blob);
    assert!(!leader.read(1).await.is_empty());
    connected(&bench, WAITERS + 1).await;
    leader.abort();
    connected(&bench, WAITERS).await;
    let late = waiters(&bench, &blob);
    connected(&bench, 2 * WAITERS).await;
    gate.open();
    assert_served(early, &blob).await;
    assert_served(late, &blob).await;
    assert_eq!(asked(&bench.upstream, &blob.path), ["GET"]);
}

/// T-CC2: nobody else waits, and the fill goes on all the same.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc2_a_fill_that_nobody_waits_for_is_finished() {
    for after_head in [false, true] {
        let bench = Bench::new();
        let (blob, gate) = (Blob::new(3, 1_000_000), Gate::new());
        if after_head {
            hold_at(&bench, &blob, 500_000, &gate);
            let mut leader = bench.get(&blob.path).open().await;
            assert!(!leader.read(1).await.is_empty());
            leader.abort();
        } else {
            hold_head(&bench, &blob, &gate);
            let leader = tokio::spawn(bench.get(&blob.path).send());
            bench
                .upstream
                .wait_until(Duration::from_secs(10), "the leader's GET", |requests| !requests.is_empty())
                .await;
            leader.abort();
        }
        connected(&bench, 0).await;
        gate.open();
        bench.mirror.wait_until(Duration::from_secs(10), "the blob is stored", |mirror| {
            mirror.stored_files().iter().any(|file| file.starts_with("blobs"))
        });
        let answer = bench.get(&blob.path).send().await;
        assert_eq!((answer.clean_end, &answer.digest), (true, &blob.digest));
        assert_eq!(asked(&bench.upstream, &blob.path), ["GET"]);
    }
}

/// T-CC2: a fill that another repository's upstream refuses is not the end of ours.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc2_another_repositorys_failing_fill_fails_nobody_else() {
    let bench = Bench::new();
    let (blob, gate) = (Blob::new(4, 400_000), Gate::new());
    bench.upstream.serve_blob("team/app", blob.body.clone());
    let denied = format!("/v2/team/denied/blobs/{}", blob.digest);
    bench.upstream.on(Method::Read, &denied).reply(Reply::oci_error(403, "DENIED").hold_head(&gate));
    let leader = tokio::spawn(bench.get(&denied).send());
    bench
        .upstream
        .wait_until(Duration::from_secs(10), "the leader's GET", |requests| !requests.is_empty())
        .await;
    let follower = tokio::spawn(http::get(bench.url(&blob.path)).send());
    bench
        .upstream
        .wait_until(Duration::from_secs(10), "the question for the other repository", |requests| {
            requests.iter().any(|request| request.path == blob.path)
        })
        .await;
    gate.open();
    assert_ne!(leader.await.expect("an answer").status, 200);
    let answer = follower.await.expect("an answer");
    assert_eq!((answer.status, answer.clean_end, &answer.digest), (200, true, &blob.digest), "{answer:?}");
}
