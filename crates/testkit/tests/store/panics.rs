use std::time::Duration;

use entrepot_testkit::http;
use entrepot_testkit::script::Image;

use crate::common::Bench;
use crate::shelf::{self, Blob, failing};

/// T-CS6: a panic while a request is answered is that request's 500, on a connection that goes on.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs6_a_request_that_panics() {
    let mut bench = failing(Bench::setup(), "server::respond=2*off->1*panic->off");
    bench.mirror.may_panic();
    let blob = Blob::served(&bench, 1, 20_000_000);
    // One that is being answered meanwhile.
    let other = bench.get(&blob.path).open().await;
    let request = "GET /v2/ HTTP/1.1\r\nhost: mirror\r\n\r\n";
    let last = "GET /v2/ HTTP/1.1\r\nhost: mirror\r\nconnection: close\r\n\r\n";
    // Counts on from the mirror's own start: `/v2/` was asked once, the blob once.
    let raw = http::raw(
        bench.mirror.address(),
        format!("{request}{request}{last}").as_bytes(),
        Duration::from_secs(5),
    )
    .await;
    assert_eq!(raw.statuses(), [500, 200, 200], "{}", raw.text());
    assert!(raw.text().contains("\"errors\""), "in the registry's words: {}", raw.text());
    let answer = other.finish().await;
    assert_eq!((answer.clean_end, answer.digest), (true, blob.digest.clone()));
    blob.store(&bench).await;
    // The mirror sees a moment after its clients that a connection has ended.
    bench.mirror.wait_until(Duration::from_secs(10), "no connection is leaked", |mirror| {
        mirror.metric("entrepot_connections", &[]) == 0.0
    });
}

/// T-CS6: a fill that panics fails those who wait for it; the next request fills anew.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs6_a_fill_that_panics() {
    let mut bench = failing(Bench::setup(), "server::job=1*panic->off");
    bench.mirror.may_panic();
    let blob = Blob::served(&bench, 1, 300_000);
    let failed = bench.get(&blob.path).limit(Duration::from_secs(10)).send().await;
    assert_eq!(failed.status, 500, "{failed:?}");
    assert_eq!(bench.mirror.metric("entrepot_filling", &[]), 0.0, "the slot is free");
    assert_eq!(shelf::fills(bench.mirror.cache_dir()), 0);
    blob.store(&bench).await;
}

/// T-CS6: so does a flight.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs6_a_flight_that_panics() {
    let mut bench = failing(Bench::setup(), "server::job=1*panic->off");
    bench.mirror.may_panic();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "v1", &image);
    let path = "/v2/team/app/manifests/v1";
    let failed = bench.get(path).limit(Duration::from_secs(10)).send().await;
    assert_eq!(failed.status, 500, "{failed:?}");
    let good = bench.get(path).send().await;
    assert_eq!((good.status, good.body), (200, image.manifest));
}

/// T-CS6: a panic in the store's own work costs no pull, and the store goes on.
#[tokio::test(flavor = "multi_thread")]
async fn t_cs6_a_store_that_panics() {
    for point in
        ["store::create", "store::write", "store::sync", "store::rename", "store::open", "index::write"]
    {
        println!("{point}");
        let mut bench = failing(Bench::setup(), &format!("{point}=1*off->1*panic->off"));
        bench.mirror.may_panic();
        let blobs: Vec<Blob> = (0..4).map(|seed| Blob::served(&bench, seed, 1_200_000)).collect();
        for blob in &blobs {
            blob.pull(&bench).await;
            blob.pull(&bench).await;
        }
        for blob in &blobs {
            blob.store(&bench).await;
        }
        assert_eq!(bench.mirror.metric("entrepot_filling", &[]), 0.0);
        shelf::assert_sound(bench.mirror.cache_dir());
        bench.mirror.wait_until(Duration::from_secs(30), "nothing is left under tmp/", |mirror| {
            shelf::fills(mirror.cache_dir()) == 0
        });
        bench
            .mirror
            .wait_until(Duration::from_secs(30), "/readyz is well", |mirror| shelf::ready(mirror) == 200);
    }
}
