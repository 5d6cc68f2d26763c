use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use entrepot_testkit::script::{Image, Method, media};

use crate::common::Bench;
use crate::shelf::{self, Blob};

const SIZE: u64 = 700_001;

fn flip(file: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(file).expect("the object's file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("reading a byte");
    file.write_all_at(&[byte[0] ^ 0x20], at).expect("writing it back");
}

/// T-DF4: whatever happens to a file, the very next pull gives good bytes, and upstream is asked for them once.
#[tokio::test(flavor = "multi_thread")]
async fn t_df4_no_damage_is_ever_served() {
    type Damage = Box<dyn Fn(&Path)>;
    let flips = [0, 1, SIZE / 3, SIZE / 2, 65_536, SIZE - 65_536, SIZE - 2, SIZE - 1];
    let resize = |size: u64| -> Damage {
        Box::new(move |file| {
            File::options().write(true).open(file).and_then(|file| file.set_len(size)).expect("resizing")
        })
    };
    let mut damages: Vec<(String, Damage)> = flips
        .into_iter()
        .map(|at| (format!("byte {at} flipped"), Box::new(move |file: &Path| flip(file, at)) as Damage))
        .collect();
    for size in [0, 1, SIZE / 2, SIZE - 1, SIZE + 1, SIZE * 2] {
        damages.push((format!("resized to {size}"), resize(size)));
    }
    damages.push((
        "zeros".into(),
        Box::new(|file| fs::write(file, vec![0; SIZE as usize]).expect("writing zeros")),
    ));
    damages.push((
        "zeros under another inode".into(),
        Box::new(|file| {
            let other = file.with_extension("other");
            fs::write(&other, vec![0; SIZE as usize]).expect("writing zeros");
            fs::rename(other, file).expect("renaming");
        }),
    ));

    let mut bench = Bench::new();
    let blob = Blob::served(&bench, 1, SIZE);
    blob.store(&bench).await;
    let file = shelf::file(&bench.mirror, &blob.digest);
    let mut quarantined = 0.0;
    for (round, (what, damage)) in damages.iter().enumerate() {
        println!("{what}");
        // Every third time while the mirror is down: then nothing in memory helps.
        let restarted = round % 3 == 2;
        let before = blob.fetches(&bench);
        if restarted {
            bench.mirror.kill9();
            quarantined = 0.0;
        }
        damage(&file);
        if restarted {
            bench.mirror.restart();
        }
        blob.pull(&bench).await;
        blob.store(&bench).await;
        assert_eq!(blob.fetches(&bench), before + 1, "{what}: fetched anew, once");
        quarantined += 1.0;
        assert_eq!(bench.mirror.metric("entrepot_quarantined_objects", &[]), quarantined, "{what}: counted");
        shelf::assert_sound(bench.mirror.cache_dir());
    }
}

/// T-DF4
#[tokio::test(flavor = "multi_thread")]
async fn t_df4_two_files_swapped() {
    let bench = Bench::new();
    let (one, other) = (Blob::served(&bench, 1, SIZE), Blob::served(&bench, 2, SIZE));
    one.store(&bench).await;
    other.store(&bench).await;
    let (a, b) = (shelf::file(&bench.mirror, &one.digest), shelf::file(&bench.mirror, &other.digest));
    let aside = bench.mirror.cache_dir().join("aside");
    fs::rename(&a, &aside)
        .and_then(|()| fs::rename(&b, &a))
        .and_then(|()| fs::rename(&aside, &b))
        .expect("swapping");
    one.pull(&bench).await;
    other.pull(&bench).await;
    assert_eq!((one.fetches(&bench), other.fetches(&bench)), (2, 2));
}

/// T-DF4: a damaged file is no answer when upstream is away either, and a range of it is not.
#[tokio::test(flavor = "multi_thread")]
async fn t_df4_damage_while_upstream_is_away() {
    let bench = Bench::new();
    let blob = Blob::served(&bench, 1, SIZE);
    blob.store(&bench).await;
    flip(&shelf::file(&bench.mirror, &blob.digest), 5);
    bench.upstream.stop();
    for range in [None, Some("bytes=100000-200000")] {
        let call = bench.get(&blob.path);
        let answer = match range {
            Some(range) => call.range(range),
            None => call,
        };
        let answer = answer.send().await;
        assert!(matches!(answer.status, 502..=504), "{answer:?}");
    }
    bench.upstream.resume();
    bench
        .eventually(&blob.path, "upstream is back", |answer| {
            answer.status == 200 && answer.digest == blob.digest
        })
        .await;
}

/// T-DF4: the file is cut while a client reads it. That answer breaks off, the next is good.
#[tokio::test(flavor = "multi_thread")]
async fn t_df4_cut_while_being_served() {
    let bench = Bench::new();
    let blob = Blob::served(&bench, 1, 30_000_000);
    blob.store(&bench).await;
    let stream = bench.get(&blob.path).open().await;
    let file = shelf::file(&bench.mirror, &blob.digest);
    File::options().write(true).open(&file).and_then(|file| file.set_len(1_000_000)).expect("cutting");
    let answer = stream.finish().await;
    assert!(!answer.clean_end, "half an object must not look whole");
    blob.pull(&bench).await;
}

/// T-DF4: a manifest, with nothing in memory.
#[tokio::test(flavor = "multi_thread")]
async fn t_df4_a_damaged_manifest() {
    let mut bench = Bench::new();
    let image = Image::small(1);
    bench.upstream.serve_image("team/app", "v1", &image);
    let path = "/v2/team/app/manifests/v1";
    assert_eq!(bench.get(path).send().await.body, image.manifest);
    let file = shelf::file(&bench.mirror, &image.digest);
    bench.mirror.wait_until(Duration::from_secs(5), "the manifest is stored", |_| file.exists());
    bench.mirror.restart();
    flip(&file, 20);
    let answer = bench.get(path).header("accept", media::MANIFEST).send().await;
    assert_eq!((answer.status, answer.body), (200, image.manifest));
    assert_eq!(bench.mirror.metric("entrepot_quarantined_objects", &[]), 1.0);
}

/// T-DF4: files that were restored from a backup are as good as before: hashed, not fetched; however many ask at once.
#[tokio::test(flavor = "multi_thread")]
async fn t_df4_restored_files_are_adopted() {
    let mut bench = Bench::new();
    let blob = Blob::served(&bench, 1, 5_000_000);
    blob.store(&bench).await;
    bench.mirror.kill9();
    let file = shelf::file(&bench.mirror, &blob.digest);
    let copy = file.with_extension("copy");
    fs::copy(&file, &copy).and_then(|_| fs::rename(&copy, &file)).expect("restoring");
    bench.mirror.restart();
    let pulls: Vec<_> = (0..20).map(|_| tokio::spawn(bench.get(&blob.path).discard().send())).collect();
    for pull in pulls {
        assert_eq!(pull.await.expect("a pull").digest, blob.digest);
    }
    assert_eq!(blob.fetches(&bench), 1, "nothing was fetched again");
    assert_eq!(bench.mirror.metric("entrepot_stored_bytes", &[]), 5_000_000.0);
}

/// T-DF2: the disk cannot read what it stored, whether a client finds out or the scrubber. At most one answer breaks off,
/// and the next comes from upstream.
#[tokio::test(flavor = "multi_thread")]
async fn t_df2_a_read_error() {
    let mut bench = Bench::new();
    let blob = Blob::served(&bench, 1, SIZE);
    blob.store(&bench).await;
    bench.mirror.set_env("FAILPOINTS", "store::read=1*return(5)->off");
    bench.mirror.restart();
    shelf::assert_failpoints(&bench.mirror);
    if let Ok(answer) = bench.get(&blob.path).discard().try_send().await
        && answer.clean_end
    {
        assert_eq!((answer.status, &answer.digest), (200, &blob.digest));
    }
    bench.mirror.wait_until(Duration::from_secs(30), "the error is found", |mirror| {
        mirror.metric("entrepot_quarantined_objects", &[]) == 1.0
    });
    blob.store(&bench).await;
    assert_eq!(bench.upstream.count(Method::Get, &blob.path), 2);
    assert_eq!(bench.mirror.metric("entrepot_quarantined_objects", &[]), 1.0);
}
