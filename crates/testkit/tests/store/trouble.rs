use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use entrepot_testkit::http;

use crate::common::Bench;
use crate::shelf::{self, Blob, failing, ready};

/// T-DF5: a disk that turns read-only, refuses us, or is over quota, and later takes objects again: pulls go straight
/// through meanwhile, /readyz tells, and no restart is needed.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_refused_for_a_while() {
    const EACCES: i32 = 13;
    const EROFS: i32 = 30;
    const EDQUOT: i32 = 122;
    // Quota is tried twice for each object, since eviction may help.
    for (errno, times) in [(EACCES, 3), (EROFS, 3), (EDQUOT, 6)] {
        println!("errno {errno}");
        let bench = failing(Bench::setup(), &format!("store::create={times}*return({errno})->off"));
        let blobs: Vec<Blob> = (0..3).map(|seed| Blob::served(&bench, seed, 300_000)).collect();
        for blob in &blobs {
            blob.pull(&bench).await;
            assert_eq!(ready(&bench.mirror), 503);
        }
        assert!(shelf::files(bench.mirror.cache_dir()).is_empty());
        bench
            .mirror
            .wait_until(Duration::from_secs(60), "it recovers by itself", |mirror| ready(mirror) == 200);
        blobs[0].store(&bench).await;
    }
}

/// T-DF5: objects that cannot be opened are fetched, and served again when they can.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_stored_objects_that_cannot_be_opened() {
    const EMFILE: i32 = 24;
    let mut bench = Bench::new();
    let blob = Blob::served(&bench, 1, 300_000);
    blob.store(&bench).await;
    bench.mirror.set_env("FAILPOINTS", format!("store::open=2*return({EMFILE})->off"));
    bench.mirror.restart();
    shelf::assert_failpoints(&bench.mirror);
    for _ in 0..4 {
        blob.pull(&bench).await;
    }
    assert!(blob.fetches(&bench) <= 3, "{}", blob.fetches(&bench));
    assert_eq!(
        bench.mirror.metric("entrepot_quarantined_objects", &[]),
        0.0,
        "nothing says that the object is bad"
    );
    bench.mirror.wait_until(Duration::from_secs(30), "it recovers by itself", |mirror| ready(mirror) == 200);
    assert_eq!(bench.mirror.metric("entrepot_stored_bytes", &[]), 300_000.0);
}

/// T-DF5: fewer descriptors than clients want. Who is answered is answered right, and afterwards all is as before.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_out_of_descriptors() {
    let bench = Bench::setup().open_files(48).start();
    let blobs: Vec<Blob> = (0..60).map(|seed| Blob::served(&bench, seed, 200_000)).collect();
    let pulls: Vec<_> = blobs
        .iter()
        .flat_map(|blob| [blob, blob])
        .map(|blob| {
            let (call, digest) = (bench.get(&blob.path).discard(), blob.digest.clone());
            tokio::spawn(async move {
                let Ok(answer) = call.try_send().await else {
                    return 0;
                };
                if answer.status == 200 && answer.clean_end {
                    assert_eq!(answer.digest, digest);
                }
                answer.status
            })
        })
        .collect();
    let mut served = 0;
    for pull in pulls {
        let status = pull.await.expect("a pull");
        assert!(matches!(status, 0 | 200 | 429 | 500..=504), "{status}");
        served += usize::from(status == 200);
    }
    assert!(served > 0, "some are served");
    bench.mirror.wait_until(Duration::from_secs(30), "it recovers by itself", |mirror| ready(mirror) == 200);
    for blob in &blobs {
        bench
            .eventually(&blob.path, "served", |answer| answer.status == 200 && answer.digest == blob.digest)
            .await;
    }
    shelf::assert_sound(bench.mirror.cache_dir());
}

/// T-DF5: every operation takes two seconds. A pull may be slow, but no slower for a larger object.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_two_seconds_for_each_operation() {
    let points = ["create", "reserve", "write", "sync", "mkdir", "rename", "dirsync"]
        .map(|point| format!("store::{point}=sleep(2000)"));
    let bench = failing(Bench::setup(), &points.join(";"));
    let blob = Blob::served(&bench, 1, 20_000_000);
    let start = Instant::now();
    blob.pull(&bench).await;
    assert!(start.elapsed() < Duration::from_secs(15), "as if each of its pieces waited for the disk");
    assert_eq!(ready(&bench.mirror), 503, "slow is told");
}

/// T-DF5: the disk hangs: whoever comes is served from upstream, however many they are; and it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_a_disk_that_hangs() {
    let mut bench = Bench::new();
    let blob = Blob::served(&bench, 1, 300_000);
    blob.store(&bench).await;
    bench.mirror.set_env("FAILPOINTS", "store::open=4*sleep(12000)->off;store::create=4*sleep(12000)->off");
    bench.mirror.restart();
    let start = Instant::now();
    let pulls: Vec<_> = (0..30).map(|_| tokio::spawn(bench.get(&blob.path).discard().send())).collect();
    for pull in pulls {
        let answer = pull.await.expect("a pull");
        assert_eq!((answer.status, answer.digest), (200, blob.digest.clone()));
    }
    assert!(start.elapsed() < Duration::from_secs(11), "nobody waited for the disk: {:?}", start.elapsed());
    assert_eq!(ready(&bench.mirror), 503);
    bench.mirror.wait_until(Duration::from_secs(60), "it recovers by itself", |mirror| ready(mirror) == 200);
    let before = blob.fetches(&bench);
    blob.pull(&bench).await;
    assert_eq!(blob.fetches(&bench), before, "from the disk again");
}

/// T-DF5: the volume is gone while the mirror runs, and an empty one takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_the_volume_goes_away() {
    let mut bench = Bench::new();
    let cache = bench.mirror.cache_dir().to_owned();
    let blobs: Vec<Blob> = (0..4).map(|seed| Blob::served(&bench, seed, 300_000)).collect();
    for blob in &blobs {
        blob.store(&bench).await;
    }
    fs::rename(&cache, cache.with_extension("away")).expect("moving the volume away");
    for blob in &blobs {
        blob.pull(&bench).await;
    }
    assert_eq!(ready(&bench.mirror), 503);
    bench.mirror.wait_until(Duration::from_secs(30), "it recovers by itself", |mirror| ready(mirror) == 200);
    for blob in &blobs[..2] {
        blob.store(&bench).await;
    }
    bench.mirror.wait_until(Duration::from_secs(30), "only what is there is counted", |mirror| {
        mirror.metric("entrepot_stored_bytes", &[]) == 600_000.0
    });

    // The old one comes back: what it holds is found again.
    fs::rename(&cache, cache.with_extension("empty")).expect("moving the empty volume away");
    fs::rename(cache.with_extension("away"), &cache).expect("moving the volume back");
    bench.mirror.wait_until(Duration::from_secs(40), "what is there is counted", |mirror| {
        mirror.metric("entrepot_stored_bytes", &[]) == 1_200_000.0
    });
    let before: usize = blobs.iter().map(|blob| blob.fetches(&bench)).sum();
    for blob in &blobs {
        blob.pull(&bench).await;
    }
    assert_eq!(blobs.iter().map(|blob| blob.fetches(&bench)).sum::<usize>(), before);
    bench.mirror.kill9();
}

/// T-DF5, T-DF1: a volume of 20 MB, and a mirror that believes it has more. It lives within what there is.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_a_small_volume() {
    let Some(volume) = Volume::mounted("size=20m") else {
        return;
    };
    let bench = Bench::setup().cache("max_size", "10GiB").directory(volume.0.join("cache")).start();
    for seed in 0..12 {
        let blob = Blob::served(&bench, seed, 3_000_000);
        blob.store(&bench).await;
    }
    let large = Blob::served(&bench, 20, 30_000_000);
    large.pull(&bench).await;
    Blob::served(&bench, 21, 3_000_000).store(&bench).await;
    shelf::assert_sound(bench.mirror.cache_dir());
    // Filled up by somebody else, nothing left to evict, not even room for the index.
    let ballast = volume.0.join("ballast");
    let filling =
        Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", ballast.display())).output();
    assert!(!filling.expect("dd runs").status.success(), "the volume is full");
    for seed in 30..40 {
        Blob::served(&bench, seed, 3_000_000).pull(&bench).await;
    }
    fs::remove_file(ballast).expect("removing");
    bench.mirror.wait_until(Duration::from_secs(40), "it recovers by itself", |mirror| ready(mirror) == 200);
    Blob::served(&bench, 41, 3_000_000).store(&bench).await;
}

/// T-DF5: a start on a volume that is full.
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_a_start_on_a_full_volume() {
    let Some(volume) = Volume::mounted("size=10m") else {
        return;
    };
    let mut bench = Bench::setup().directory(volume.0.join("cache")).start();
    let blob = Blob::served(&bench, 1, 1_000_000);
    blob.store(&bench).await;
    bench.mirror.sigterm();
    assert!(bench.mirror.wait_exit(Duration::from_secs(10)).is_some());
    let ballast = volume.0.join("ballast");
    let filling =
        Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", ballast.display())).output();
    assert!(!filling.expect("dd runs").status.success(), "the volume is full");
    bench.mirror.restart();
    blob.pull(&bench).await;
    let other = Blob::served(&bench, 2, 1_000_000);
    other.pull(&bench).await;
    fs::remove_file(ballast).expect("removing");
    other.store(&bench).await;
    bench.mirror.wait_until(Duration::from_secs(40), "it recovers by itself", |mirror| ready(mirror) == 200);
    assert!(!volume.0.join("cache/index.db.aside").exists(), "a good index is kept");
}

/// T-DF5
#[tokio::test(flavor = "multi_thread")]
async fn t_df5_out_of_inodes() {
    let Some(volume) = Volume::mounted("size=200m,nr_inodes=40") else {
        return;
    };
    let bench = Bench::setup().directory(volume.0.join("cache")).start();
    for seed in 0..60 {
        let blob = Blob::served(&bench, seed, 10_000);
        blob.pull(&bench).await;
    }
    shelf::assert_sound(bench.mirror.cache_dir());
    let answer = http::get(format!("{}/v2/", bench.mirror.url())).send().await;
    assert_eq!(answer.status, 200);
    bench.mirror.wait_until(Duration::from_secs(40), "it recovers by itself", |mirror| ready(mirror) == 200);
}

/// A small file system of our own, where we may mount one.
struct Volume(PathBuf);

impl Volume {
    fn mounted(options: &str) -> Option<Volume> {
        let folder = tempfile::Builder::new().prefix("entrepot-volume-").tempdir().expect("a folder").keep();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Volume(folder));
        }
        let _ = fs::remove_dir(&folder);
        // The test harness holds back what is printed, but not this.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            b"SKIPPED a test of small volumes: mounting takes root\n",
        );
        None
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a mirror that is being killed may still have files open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}
