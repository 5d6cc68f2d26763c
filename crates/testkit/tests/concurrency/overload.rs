use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use entrepot_testkit::http::{self, Response, Stream, parallel};
use entrepot_testkit::limits::raise_open_files;
use entrepot_testkit::script::{Image, media};

use crate::common::Bench;
use crate::{Blob, connected};

/// Open files of the mirror; it takes a quarter as many connections.
const FILES: u64 = 256;
const ROOM: usize = 64;
/// How often a rate may be measured until it is what it should be.
const ROUNDS: usize = 3;
/// How soon a refusal must come: ten times what it should take, for machines with other things to do.
const REFUSED_WITHIN: Duration = Duration::from_secs(1);

#[track_caller]
fn assert_turned_away(answer: &Response, status: u16) {
    let code = if status == 429 { "TOOMANYREQUESTS" } else { "UNAVAILABLE" };
    assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{answer:?}");
    let wait: u64 = answer
        .header("retry-after")
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("a Retry-After: {answer:?}"));
    assert!((1..=60).contains(&wait), "{answer:?}");
}

/// T-OL1: three times the connections there is room for. Who has one keeps it, the others hear so at once.
#[tokio::test(flavor = "multi_thread")]
async fn t_ol1_connections_beyond_the_limit() {
    raise_open_files();
    let bench = Bench::setup().open_files(FILES).start();
    let blob = Blob::new(1, 20_000_000);
    bench.upstream.serve_blob("team/app", blob.body.clone());
    assert_eq!(bench.get(&blob.path).send().await.digest, blob.digest);
    connected(&bench, 0).await;

    let mut inside: Vec<Stream> = Vec::new();
    for _ in 0..ROOM {
        inside.push(bench.get(&blob.path).open().await);
    }
    let url = bench.url("/v2/");
    let refused = parallel(2 * ROOM, move |_| {
        let call = http::get(url.clone());
        async move { call.send().await }
    })
    .await;
    for answer in &refused {
        assert_turned_away(answer, 503);
        assert!(answer.total < REFUSED_WITHIN, "{:?}", answer.total);
    }
    // A request too long to be read in one piece hears so as well, instead of a reset.
    let long = bench.get("/v2/").header("x-long", "x".repeat(60_000)).send().await;
    assert_turned_away(&long, 503);

    let mut inside = inside.into_iter();
    for served in inside.by_ref().take(ROOM / 2) {
        let answer = served.finish().await;
        assert_eq!(
            (answer.clean_end, &answer.digest),
            (true, &blob.digest),
            "who is inside is served to the end"
        );
    }
    connected(&bench, ROOM / 2).await;
    assert_eq!(bench.get("/v2/").send().await.status, 200, "there is room again");
    drop(inside);
}

/// T-OL1: clients three times as many as there is room for, that come again as long as they are turned away: as much is
/// served as without them, every answer is whole or says when to come again, and it is over when they have gone.
#[tokio::test(flavor = "multi_thread")]
async fn t_ol1_goodput_does_not_collapse() {
    raise_open_files();
    let bench = Bench::setup().open_files(FILES).start();
    let blob = Blob::new(2, 1_000_000);
    bench.upstream.serve_blob("team/app", blob.body.clone());
    assert_eq!(bench.get(&blob.path).send().await.digest, blob.digest);
    // Two seconds of a machine with other things to do say little: what collapses does so each time.
    let mut held = false;
    for _ in 0..ROUNDS {
        let (peak, _) = goodput(&bench, &blob, ROOM / 2).await;
        let (crowded, turned_away) = goodput(&bench, &blob, 3 * ROOM).await;
        println!(
            "T-OL1: {peak:.0} answers/s with {} clients, {crowded:.0} with {} ({turned_away} turned away)",
            ROOM / 2,
            3 * ROOM
        );
        held = crowded >= peak * 0.5;
        if held {
            break;
        }
    }
    assert!(held, "less than half of the answers under three times the load, {ROUNDS} times");
    connected(&bench, 0).await;
    assert_eq!(bench.get(&blob.path).send().await.digest, blob.digest);
}

/// Whole answers a second over two seconds, and refusals in all.
async fn goodput(bench: &Bench, blob: &Blob, clients: usize) -> (f64, usize) {
    let (url, digest) = (bench.url(&blob.path), blob.digest.clone());
    let refusals = Arc::new(AtomicUsize::new(0));
    let counted = refusals.clone();
    let start = Instant::now();
    let served = parallel(clients, move |_| {
        let (url, digest, refusals) = (url.clone(), digest.clone(), counted.clone());
        async move {
            let mut served = 0;
            while start.elapsed() < Duration::from_secs(2) {
                let answer = http::get(&url).send().await;
                if answer.status == 200 {
                    assert_eq!((answer.clean_end, &answer.digest), (true, &digest));
                    served += 1;
                } else {
                    assert_turned_away(&answer, 503);
                    refusals.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            served
        }
    })
    .await;
    let rate = served.iter().sum::<usize>() as f64 / start.elapsed().as_secs_f64();
    (rate, refusals.load(Ordering::Relaxed))
}

/// T-OL1: ten times the requests that an address may make. Those within its rate are answered, the others hear at once
/// when to come again.
#[tokio::test(flavor = "multi_thread")]
async fn t_ol1_requests_beyond_the_rate() {
    const BURST: usize = 50;
    let limit = format!("{{ anonymous: \"60/min\", burst: {BURST} }}");
    let bench = Bench::setup().proxy("rate_limit", limit).start();
    let image = Image::small(3);
    bench.upstream.serve_image("team/app", "1", &image);
    let url = bench.url("/v2/team/app/manifests/1");
    let start = Instant::now();
    let answers = parallel(10 * BURST, move |_| {
        let call = http::get(url.clone()).header("accept", media::MANIFEST);
        async move { call.send().await }
    })
    .await;
    let earned = start.elapsed().as_secs() as usize + 1;
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!((BURST..=BURST + earned).contains(&served.len()), "{} served", served.len());
    assert!(served.iter().all(|answer| answer.body == image.manifest));
    for answer in &refused {
        assert_turned_away(answer, 429);
    }
    let mut times: Vec<Duration> = refused.iter().map(|answer| answer.total).collect();
    times.sort();
    assert!(times[times.len() / 2] < REFUSED_WITHIN, "{:?}", times[times.len() / 2]);

    let wait: u64 = refused[0].header("retry-after").and_then(|text| text.parse().ok()).expect("seconds");
    tokio::time::sleep(Duration::from_secs(wait)).await;
    assert_eq!(bench.get("/v2/team/app/manifests/1").send().await.status, 200, "Retry-After was true");
    let blob = bench.get(format!("/v2/team/app/blobs/{}", image.layer_digests[0])).send().await;
    assert_eq!((blob.status, blob.digest), (200, image.layer_digests[0].clone()), "a blob is not a pull");
}
