use entrepot_testkit::script::{Image, media};

use crate::common::Bench;
use crate::shelf::{self, Blob, failing, ready};

/// Every operation of a store that changes the disk.
const POINTS: [&str; 8] = [
    "store::create",
    "store::reserve",
    "store::write",
    "store::sync",
    "store::mkdir",
    "store::rename",
    "store::dirsync",
    "index::write",
];
const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EROFS: i32 = 30;

/// T-DF1: nothing can be written, for as long as the mirror runs.
#[tokio::test(flavor = "multi_thread")]
async fn t_df1_an_operation_that_always_fails() {
    for point in POINTS {
        for errno in [ENOSPC, EIO, EROFS] {
            let what = format!("{point}=return({errno})");
            println!("{what}");
            let mut bench = failing(Bench::setup(), &what);
            let (image, blob) = content(&bench);
            for _ in 0..2 {
                pull_image(&bench, &image).await;
                blob.pull(&bench).await;
            }
            shelf::assert_sound(bench.mirror.cache_dir());
            assert!(bench.mirror.metric("entrepot_store_healthy", &[]) == 0.0, "{what}: the metrics tell");
            assert_eq!(ready(&bench.mirror), 503, "{what}: /readyz tells");
            if point != "index::write" {
                // A pull may end while what it left is still being taken away.
                let nothing = format!("{what}: nothing half-stored is visible");
                bench.mirror.wait_until(std::time::Duration::from_secs(5), &nothing, |mirror| {
                    shelf::files(mirror.cache_dir()).is_empty()
                });
            }

            bench.mirror.set_env("FAILPOINTS", "");
            bench.mirror.restart();
            pull_image(&bench, &image).await;
            blob.store(&bench).await;
            assert_eq!(ready(&bench.mirror), 200, "{what}: over with the fault");
        }
    }
}

/// T-DF1: one failure, at the first, at a later, or in the middle of many operations; the next object is stored.
#[tokio::test(flavor = "multi_thread")]
async fn t_df1_an_operation_that_fails_once() {
    for (at, point) in POINTS.iter().enumerate() {
        for skip in ["", "1*off->", "3*off->"] {
            let errno = [ENOSPC, EIO, EROFS][at % 3];
            let what = format!("{point}={skip}1*return({errno})->off");
            println!("{what}");
            let bench = failing(Bench::setup(), &what);
            let (image, blob) = content(&bench);
            for _ in 0..2 {
                pull_image(&bench, &image).await;
                blob.pull(&bench).await;
            }
            Blob::served(&bench, 9, 100_000).store(&bench).await;
            shelf::assert_sound(bench.mirror.cache_dir());
            bench.mirror.wait_until(std::time::Duration::from_secs(15), "/readyz is well again", |mirror| {
                ready(mirror) == 200
            });
        }
    }
}

/// T-DF1: clients that follow a fill when the disk fails in its middle get everything, and so does who comes later.
#[tokio::test(flavor = "multi_thread")]
async fn t_df1_a_disk_that_fails_under_followers() {
    for after in [1, 20, 70] {
        let bench = failing(Bench::setup(), &format!("store::write={after}*off->1*return({ENOSPC})->off"));
        let blob = Blob::served(&bench, after, 12_000_000);
        let pulls = (0..8).map(|_| blob.pull(&bench));
        futures(pulls).await;
        blob.store(&bench).await;
        shelf::assert_sound(bench.mirror.cache_dir());
    }
}

/// T-DF1: a disk that is full before the store is gives space back: the oldest objects go.
#[tokio::test(flavor = "multi_thread")]
async fn t_df1_a_full_disk_is_relieved_by_eviction() {
    let bench = failing(Bench::setup(), &format!("store::reserve=3*off->1*return({ENOSPC})->off"));
    let old: Vec<Blob> = (0..3).map(|seed| Blob::served(&bench, seed, 500_000)).collect();
    for blob in &old {
        blob.store(&bench).await;
    }
    let new = Blob::served(&bench, 10, 700_000);
    new.store(&bench).await;
    let left = shelf::files(bench.mirror.cache_dir());
    assert_eq!(left.len(), 2, "two old ones made room for the new one, and no more: {left:?}");
    assert!(left.contains_key(&new.digest));
    assert_eq!(ready(&bench.mirror), 200);
    assert_eq!(bench.mirror.metric("entrepot_evicted_objects", &[]), 2.0);
}

fn content(bench: &Bench) -> (Image, Blob) {
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "v1", &image);
    (image, Blob::served(bench, 3, 1_500_000))
}

async fn pull_image(bench: &Bench, image: &Image) {
    let manifest = bench.get("/v2/team/app/manifests/v1").header("accept", media::MANIFEST).send().await;
    assert_eq!((manifest.status, &manifest.body), (200, &image.manifest), "{manifest:?}");
    for digest in image.layer_digests.iter().chain([&image.config_digest]) {
        let blob = bench.get(format!("/v2/team/app/blobs/{digest}")).send().await;
        assert_eq!((blob.status, blob.clean_end, &blob.digest), (200, true, digest), "{blob:?}");
    }
}

/// Waits for all of them, at the same time.
async fn futures<F: Future<Output = ()>>(all: impl Iterator<Item = F>) {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
