//! What is put into the cache in front and into the bucket, and what never is.

use std::time::Duration;

use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, sha256, sha512};

use crate::common::{Bench, assert_refused};

const SOON: Duration = Duration::from_secs(10);

fn key(digest: &str) -> String {
    format!("objects/{}", digest.replace(':', "/"))
}

fn marker(digest: &str) -> String {
    format!("verified/{}", digest.replace(':', "/"))
}

fn path(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

/// Pulls a blob, and waits until it is in the bucket.
async fn stored(bench: &Bench, digest: &str) {
    let answer = bench.get(path(digest)).send().await;
    assert_eq!((answer.status, answer.digest.as_str()), (200, digest), "{answer:?}");
    let key = key(digest);
    bench.mirror.edge.wait_until(SOON, "the blob is in the bucket", |edge| edge.r2_keys().contains(&key));
}

fn assert_no_exception(bench: &Bench) {
    let log = bench.mirror.log();
    for word in ["Uncaught", "TypeError", "RangeError", "unreachable"] {
        assert!(!log.contains(word), "{word} in the log:\n{log}");
    }
}

/// T-WK1: of objects around the cache's limit, those up to it are put in front, and no other; no client notices.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk1_what_is_too_large_for_the_cache_is_never_put() {
    const LIMIT: u64 = 100_000;
    let bench = Bench::setup().env("ENTREPOT_LIMITS", format!("front={LIMIT}")).start();
    for (size, in_front) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false), (3 * LIMIT, false)] {
        let digest = bench.upstream.serve_blob("team/app", Pattern::new(size, size));
        stored(&bench, &digest).await;
        // From the bucket: what fits is put in front behind this answer.
        for _ in 0..2 {
            let answer = bench.get(path(&digest)).send().await;
            assert_eq!((answer.status, answer.digest.as_str()), (200, digest.as_str()), "{size}: {answer:?}");
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        bench.mirror.edge.r2_delete(&key(&digest));
        let asked = bench.upstream.count(Method::Get, path(&digest));
        let answer = bench.get(path(&digest)).send().await;
        assert_eq!((answer.status, answer.digest.as_str()), (200, digest.as_str()), "{size}: {answer:?}");
        let served_in_front = bench.upstream.count(Method::Get, path(&digest)) == asked;
        assert_eq!(served_in_front, in_front, "{size} bytes, with a limit of {LIMIT}");
    }
    assert_no_exception(&bench);
}

/// T-WK1: what the cache refuses with an exception never reaches it.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk1_answers_that_no_cache_takes() {
    let bench = Bench::new();
    let body = |seed| Body::from(Pattern::new(seed, 50_000));
    type Spoil = fn(Reply) -> Reply;
    let cases: [(&str, Spoil, bool); 5] = [
        ("Vary: *", |reply| reply.header("vary", "*"), true),
        ("Set-Cookie", |reply| reply.header("set-cookie", "a=b"), true),
        ("no-store", |reply| reply.header("cache-control", "no-store, private"), true),
        ("chunked, without a length", Reply::chunked, false),
        (
            "206 that nobody asked for",
            |reply| reply.with_status(206).header("content-range", "bytes 0-49999/50000"),
            false,
        ),
    ];
    for (seed, (name, spoil, is_stored)) in (1..).zip(cases) {
        let body = body(seed);
        let digest = body.sha256();
        let reply = spoil(Reply::ok(body.clone()));
        bench.upstream.on(Method::Read, path(&digest)).reply(reply);
        for round in 0..3 {
            let answer = bench.get(path(&digest)).send().await;
            assert_eq!(answer.header("set-cookie"), None, "{name}: {answer:?}");
            if !is_stored {
                // A client is told no size that nobody has said.
                assert_eq!(answer.status, 502, "{name}: {answer:?}");
            } else {
                assert_eq!((answer.status, &answer.digest), (200, &digest), "{name}, {round}: {answer:?}");
            }
        }
        bench.settle();
        assert_eq!(bench.mirror.edge.r2_keys().contains(&key(&digest)), is_stored, "{name}");
    }
    assert_no_exception(&bench);
}

/// T-WK3: R2 itself refuses what does not match; the next client is answered from upstream anew.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk3_a_put_that_does_not_match_stores_nothing() {
    let bench = Bench::new();
    for (seed, hash) in [(1, sha256 as fn(&[u8]) -> String), (2, sha512)] {
        let body = Body::from(Pattern::new(seed, 300_000));
        let digest = hash(&body.slice(0..300_000));
        let (served, of) = (body.clone(), digest.clone());
        bench
            .upstream
            .on(Method::Read, path(&digest))
            .reply_with(move |request| Reply::blob(request, &of, served.clone()).flip(150_000));
        assert_refused(&bench.get(path(&digest)).send_or_broken().await);
        bench.assert_nothing_stored();
        let asked = bench.upstream.count(Method::Get, path(&digest));

        bench.upstream.serve_blob_as("team/app", &digest, body.clone());
        stored_as(&bench, &digest, &body).await;
        assert!(bench.upstream.count(Method::Get, path(&digest)) > asked, "upstream is asked anew");
        bench.upstream.stop();
        let held = bench.get(path(&digest)).send().await;
        assert!(held.status == 200 && held.body == body.slice(0..300_000), "{held:?}");
        bench.upstream.resume();
        bench.mirror.edge.r2_delete(&key(&digest));
    }
}

async fn stored_as(bench: &Bench, digest: &str, body: &Body) {
    let answer = bench.get(path(digest)).send().await;
    let size = body.len().expect("a size");
    assert!(answer.status == 200 && answer.body == body.slice(0..size), "{answer:?}");
    let key = key(digest);
    bench.mirror.edge.wait_until(SOON, "the blob is in the bucket", |edge| edge.r2_keys().contains(&key));
}

const PART: u64 = 5 << 20;
const LARGE: u64 = 2 * PART + 1000;

fn in_parts() -> Bench {
    Bench::setup().env("ENTREPOT_LIMITS", format!("put={PART} part={PART}")).start()
}

/// T-WK3: what is too large for one put is put in parts, read back, and counts once its marker stands.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk3_an_object_of_parts_counts_once_it_was_read_back() {
    let bench = in_parts();
    let digest = bench.upstream.serve_blob("team/app", Pattern::new(1, LARGE));
    let answer = bench.get(path(&digest)).send().await;
    assert_eq!((answer.status, answer.digest.as_str()), (200, digest.as_str()), "{answer:?}");
    bench.mirror.edge.wait_until(SOON, "the marker stands", |edge| edge.r2_keys().contains(&marker(&digest)));
    assert_eq!(bench.mirror.edge.r2().get(&key(&digest)), Some(&LARGE));
    bench.upstream.stop();
    let held = bench.get(path(&digest)).send().await;
    assert_eq!((held.status, held.digest.as_str()), (200, digest.as_str()), "{held:?}");
    let part = bench.get(path(&digest)).range(&format!("bytes={}-", LARGE - 10)).send().await;
    assert_eq!((part.status, part.length), (206, 10), "{part:?}");
    bench.upstream.resume();
    // Without its marker it is nothing that anybody has looked at.
    bench.mirror.edge.r2_delete(&marker(&digest));
    bench.mirror.edge.purge_cache();
    let asked = bench.upstream.count(Method::Get, path(&digest));
    let again = bench.get(path(&digest)).send().await;
    assert_eq!((again.status, again.digest.as_str()), (200, digest.as_str()), "{again:?}");
    assert!(bench.upstream.count(Method::Get, path(&digest)) > asked, "upstream is asked");
}

/// T-WK3: parts of something else, and parts that never come to an end.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk3_parts_that_do_not_match_or_end_are_given_up() {
    let bench = in_parts();
    type Spoil = fn(Reply) -> Reply;
    let damage: [(&str, Spoil); 3] = [
        ("a byte in the last part", |reply| reply.flip(LARGE - 1)),
        ("cut in the second part", |reply| reply.truncate_after(PART + 1000)),
        ("reset in the second part", |reply| reply.reset_after(PART + 1000)),
    ];
    for (seed, (name, spoil)) in (10..).zip(damage) {
        let body = Body::from(Pattern::new(seed, LARGE));
        let digest = body.sha256();
        let of = digest.clone();
        bench
            .upstream
            .on(Method::Read, path(&digest))
            .reply_with(move |request| spoil(Reply::blob(request, &of, body.clone())));
        assert_refused(&bench.get(path(&digest)).discard().send_or_broken().await);
        bench.settle();
        assert_eq!(bench.mirror.edge.r2_keys(), Vec::<String>::new(), "{name}");
    }
    let open = uploads_under_way(&bench);
    assert_eq!(open, 0, "parts that nobody completes are aborted");
}

/// The uploads in the local bucket that were begun and neither completed nor aborted.
fn uploads_under_way(bench: &Bench) -> i64 {
    let mut pending = vec![bench.mirror.edge.storage().join("r2")];
    let mut open = 0;
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).expect("the storage").flatten() {
            let path = entry.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|end| end == "sqlite") {
                let file = rusqlite::Connection::open(&path).expect("a database");
                // 0: neither completed nor aborted.
                let count = "SELECT count(*) FROM _mf_multipart_uploads WHERE state = 0";
                open += file.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap_or(0);
            }
        }
    }
    open
}

/// T-WK3: what somebody else put into the bucket is not believed for its name.
#[tokio::test(flavor = "multi_thread")]
async fn t_wk3_what_lies_in_the_bucket_unverified_is_not_served() {
    let bench = Bench::new();
    let body = Body::from(Pattern::new(3, 20_000));
    let digest = bench.upstream.serve_blob("team/app", body.clone());
    bench.mirror.edge.r2_put(&key(&digest), b"something else");
    let answer = bench.get(path(&digest)).send().await;
    assert_eq!((answer.status, &answer.digest), (200, &digest), "{answer:?}");
    let right = body.slice(0..20_000);
    bench.mirror.edge.wait_until(SOON, "it is stored anew", |edge| edge.r2_get(&key(&digest)) == right);
}

/// T-UF4: a pull that breaks is broken for its client too, and nothing of it is kept; the next one is whole.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_a_cut_reaches_the_client_and_stores_nothing() {
    const SIZE: u64 = 1 << 20;
    let bench = Bench::new();
    for k in 0..4 {
        let body = Body::from(Pattern::new(40 + k, SIZE));
        let digest = body.sha256();
        let of = digest.clone();
        let cut = body.clone();
        bench
            .upstream
            .on(Method::Get, path(&digest))
            .reply_with(move |request| Reply::blob(request, &of, cut.clone()).truncate_after(k * SIZE / 4));
        let answer = bench.get(path(&digest)).send_or_broken().await;
        assert!(!answer.clean_end || answer.status == 502, "cut at {k}/4: {answer:?}");
        bench.assert_nothing_stored();
        bench.upstream.serve_blob("team/app", body);
        let whole = bench
            .eventually(&path(&digest), "upstream is well", |answer| answer.clean_end && answer.status == 200)
            .await;
        assert_eq!(whole.digest, digest);
        bench.mirror.edge.wait_until(SOON, "it is stored", |edge| edge.r2_keys().contains(&key(&digest)));
        bench.mirror.edge.r2_delete(&key(&digest));
    }
}

/// T-DF8: an object that leaves the bucket while the cache in front still tells of it costs one try, and no wrong byte.
#[tokio::test(flavor = "multi_thread")]
async fn t_df8_a_bucket_that_forgets() {
    let bench = Bench::new();
    let image = Image::small(5);
    bench.upstream.serve_image("team/app", "1", &image);
    for digest in [&image.layer_digests[0], &image.config_digest] {
        stored(&bench, digest).await;
        assert_eq!(bench.get(path(digest)).send().await.status, 200);
        bench.mirror.edge.r2_delete(&key(digest));
        for range in [Some("bytes=1-2"), None] {
            let call = range.into_iter().fold(bench.get(path(digest)), |call, range| call.range(range));
            let answer = call.send().await;
            assert!(matches!(answer.status, 200 | 206 | 502 | 503), "{answer:?}");
        }
        let good = bench.eventually(&path(digest), "it is fetched anew", |answer| answer.status == 200).await;
        assert_eq!(&good.digest, digest);
    }
}
