use std::time::Duration;

use entrepot_testkit::http;
use entrepot_testkit::script::{Body, Method, Pattern, Reply, Request, Upstream};

use crate::common::{Bench, assert_refused};

const SIZE: u64 = 1 << 20;
const SIXTEENTH: u64 = SIZE / 16;

/// A blob at an upstream that breaks.
struct Blob {
    body: Body,
    digest: String,
    path: String,
}

impl Blob {
    fn new(seed: u64) -> Self {
        let body = Body::from(Pattern::new(seed, SIZE));
        let digest = body.sha256();
        let path = format!("/v2/team/app/blobs/{digest}");
        Self { body, digest, path }
    }

    /// As a good registry serves it.
    fn good(&self) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
        let (body, digest) = (self.body.clone(), self.digest.clone());
        move |request| Reply::blob(request, &digest, body.clone())
    }

    /// The first answer is cut after `n` bytes; later requests are answered by `rest`.
    fn cut_at(&self, upstream: &Upstream, n: u64, rest: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        let good = self.good();
        upstream.on(Method::Get, &self.path).reply_with(rest);
        upstream
            .on(Method::Get, &self.path)
            .times(1)
            .reply_with(move |request| good(request).truncate_after(n));
    }

    fn requests(&self, upstream: &Upstream) -> Vec<Request> {
        let mut requests = upstream.requests();
        requests.retain(|request| request.path == self.path);
        requests
    }
}

/// T-UF4
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_a_cut_at_every_sixteenth_is_mended() {
    let bench = Bench::new();
    let blobs: Vec<Blob> = (0..16).map(Blob::new).collect();
    for (k, blob) in (0..).zip(&blobs) {
        blob.cut_at(&bench.upstream, k * SIXTEENTH, blob.good());
    }
    let urls: Vec<String> = blobs.iter().map(|blob| bench.url(&blob.path)).collect();
    let answers = http::parallel(16, move |k| {
        let url = urls[k].clone();
        async move { http::get(url).send().await }
    })
    .await;
    for ((k, blob), answer) in (0..).zip(&blobs).zip(&answers) {
        assert_eq!(
            (answer.status, &answer.digest, answer.clean_end),
            (200, &blob.digest, true),
            "cut at {k}/16: {answer:?}"
        );
        let requests = blob.requests(&bench.upstream);
        assert_eq!(requests.len(), 2, "cut at {k}/16");
        if k > 0 {
            assert_eq!(requests[1].range(), Some((k * SIXTEENTH, None)), "only what is missing");
            assert_eq!(
                requests[1].header("if-range"),
                Some(format!("\"{}\"", blob.digest).as_str()),
                "only of the same object"
            );
        }
        assert_eq!(
            bench.upstream.bytes_sent(&blob.path),
            SIZE,
            "cut at {k}/16: every byte once, and the resumed ones count"
        );
    }
    assert!(bench.counted("resumed") >= 16.0, "{:?}", bench.upstream.summary());
    bench.upstream.stop();
    for blob in &blobs {
        assert_eq!(bench.get(&blob.path).send().await.digest, blob.digest, "stored whole");
    }
}

/// T-UF4: the same for a connection that is reset, and for one that goes silent.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_a_reset_and_a_stall_are_mended() {
    let bench =
        Bench::setup().source("timeouts", "{ connect: \"2s\", first_byte: \"3s\", stall: \"1s\" }").start();
    for (seed, how) in [(20, Reply::reset_after as fn(Reply, u64) -> Reply), (21, Reply::stall_after)] {
        let blob = Blob::new(seed);
        let good = blob.good();
        bench.upstream.on(Method::Get, &blob.path).reply_with(blob.good());
        bench
            .upstream
            .on(Method::Get, &blob.path)
            .times(1)
            .reply_with(move |request| how(good(request), SIZE / 2));
        let answer = bench.get(&blob.path).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &blob.digest), "{answer:?}");
        assert_eq!(blob.requests(&bench.upstream).len(), 2);
    }
}

/// T-UF4: an upstream that answers the whole instead of the rest.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_an_upstream_that_ignores_ranges() {
    let bench = Bench::new();
    for k in [1, 8, 15] {
        let blob = Blob::new(30 + k);
        let body = blob.body.clone();
        blob.cut_at(&bench.upstream, k * SIXTEENTH, move |_| Reply::ok(body.clone()));
        let answer = bench.get(&blob.path).send().await;
        assert_eq!(
            (answer.status, &answer.digest, answer.length),
            (200, &blob.digest, SIZE),
            "cut at {k}/16: {answer:?}"
        );
        assert_eq!(blob.requests(&bench.upstream).len(), 2);
    }
}

/// T-UF4: what the rest is taken from is another object by now.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_an_upstream_whose_object_changes() {
    let bench = Bench::new();
    // Another ETag, first for the part, then for the whole that is asked for instead.
    let blob = Blob::new(40);
    let good = blob.good();
    blob.cut_at(&bench.upstream, SIZE / 2, move |request| {
        good(request).without("etag").header("etag", "\"other\"")
    });
    let answer = bench.get(&blob.path).send().await;
    assert_eq!((answer.status, &answer.digest), (200, &blob.digest), "{answer:?}");
    let requests = blob.requests(&bench.upstream);
    assert_eq!(requests.last().and_then(Request::range), None, "the whole is fetched anew: {requests:?}");

    // Other bytes under the same ETag, and other bytes honestly under another one.
    for (seed, etag) in [(41, "same"), (42, "other")] {
        let (blob, changed) = (Blob::new(seed), Blob::new(seed + 100));
        let (good, same) = (changed.good(), format!("\"{}\"", blob.digest));
        blob.cut_at(&bench.upstream, SIZE / 2, move |request| {
            let reply = good(request).without("etag").without("docker-content-digest");
            let tag = if etag == "same" { same.as_str() } else { "\"other\"" };
            match request.range() {
                // `If-Range` names the old object, so this registry's own check is done by hand.
                Some((first, _)) if etag == "same" => Reply::status(206)
                    .header("content-range", format!("bytes {first}-{}/{SIZE}", SIZE - 1))
                    .header("etag", tag)
                    .body(changed.body.slice(first..SIZE)),
                _ => reply.header("etag", tag),
            }
        });
        let answer = bench.get(&blob.path).send().await;
        assert!(!answer.clean_end || answer.status == 502, "{etag}: {answer:?}");
        assert_refused(&answer);
        assert!(answer.length < SIZE, "{etag}: the end is held back");
        assert!(
            !bench
                .mirror
                .stored_files()
                .iter()
                .any(|file| blob.digest.ends_with(&*file.file_name().unwrap_or_default().to_string_lossy())),
            "{etag}: nothing is kept"
        );
    }
}

/// T-UF4: the digest is that of the bytes from the first on, wherever the rest came from.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_resumed_bytes_are_hashed_with_those_before() {
    let bench = Bench::new();
    for (seed, flip_first) in [(50, true), (51, false)] {
        let blob = Blob::new(seed);
        let (good, rest) = (blob.good(), blob.good());
        bench
            .upstream
            .on(Method::Get, &blob.path)
            .reply_with(move |request| if flip_first { rest(request) } else { rest(request).flip(SIZE - 1) });
        bench.upstream.on(Method::Get, &blob.path).times(1).reply_with(move |request| {
            let reply = good(request).truncate_after(SIZE / 2);
            if flip_first { reply.flip(7) } else { reply }
        });
        let answer = bench.get(&blob.path).send().await;
        assert!(!answer.clean_end, "never a complete answer: {answer:?}");
        bench.assert_nothing_stored();
    }
    // Clients hear of it first.
    bench
        .mirror
        .wait_until(Duration::from_secs(10), "both are counted", |_| bench.counted("digest_mismatch") == 2.0);
}

/// T-UF4: parts that are not the part that was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_parts_that_do_not_fit() {
    let half = SIZE / 2;
    type Wrong = fn(&Blob) -> Reply;
    let wrong: [(&str, Wrong); 6] = [
        ("from another byte on", |blob| part(blob, SIZE / 2 + 1, SIZE, SIZE)),
        ("from the start", |blob| part(blob, 0, SIZE, SIZE)),
        ("of another size", |blob| part(blob, SIZE / 2, SIZE, SIZE + 1)),
        ("without saying which", |blob| part(blob, SIZE / 2, SIZE, SIZE).without("content-range")),
        ("in several parts", |blob| {
            part(blob, SIZE / 2, SIZE, SIZE).header("content-type", "multipart/byteranges; boundary=x")
        }),
        ("unsatisfiable", |_| Reply::status(416).header("content-range", format!("bytes */{SIZE}"))),
    ];
    for (seed, (name, wrong)) in (60..).zip(wrong) {
        let bench = Bench::new();
        let blob = Blob::new(seed);
        let reply = wrong(&blob);
        let good = blob.good();
        blob.cut_at(&bench.upstream, half, move |request| match request.range() {
            Some(_) => reply.clone(),
            None => good(request),
        });
        let answer = bench.get(&blob.path).send().await;
        if answer.clean_end && answer.status == 200 {
            assert_eq!(answer.digest, blob.digest, "{name}: one whole blob or an error");
        } else {
            assert_refused(&answer);
            bench.assert_nothing_stored();
        }
        assert!(blob.requests(&bench.upstream).len() <= 8, "{name}");
    }
}

fn part(blob: &Blob, from: u64, to: u64, size: u64) -> Reply {
    Reply::status(206)
        .header("content-range", format!("bytes {from}-{}/{size}", to - 1))
        .header("etag", format!("\"{}\"", blob.digest))
        .body(blob.body.slice(from..to))
}

/// T-UF4: an upstream that always breaks is given up, one that comes a little further each time is not at once.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_breaks_are_mended_a_few_times_only() {
    let bench = Bench::new();
    let (stuck, slow) = (Blob::new(70), Blob::new(71));
    let (good, other) = (stuck.good(), slow.good());
    bench.upstream.on(Method::Get, &stuck.path).reply_with(move |request| match request.range() {
        Some(_) => good(request).truncate_after(0),
        None => good(request).truncate_after(SIZE / 2),
    });
    bench
        .upstream
        .on(Method::Get, &slow.path)
        .reply_with(move |request| other(request).truncate_after(SIZE / 4));
    let answer = bench.get(&stuck.path).send().await;
    assert!(!answer.clean_end, "{answer:?}");
    assert!((2..=6).contains(&stuck.requests(&bench.upstream).len()));
    bench.assert_nothing_stored();
    let answer = bench.get(&slow.path).send().await;
    assert_eq!((answer.status, &answer.digest), (200, &slow.digest), "{answer:?}");
    assert_eq!(slow.requests(&bench.upstream).len(), 4);
    assert_eq!(bench.upstream.bytes_sent(&slow.path), SIZE);
}

/// T-UF4: the host that a registry redirects to breaks: the registry is asked for a fresh way there, and the rest is
/// asked of that.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_behind_a_redirect_the_registry_is_asked_again() {
    let bench = Bench::new();
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let blob = Blob::new(80);
    let url = cdn.url();
    let count = std::sync::atomic::AtomicU64::new(0);
    bench.upstream.on(Method::Get, &blob.path).reply_with(move |_| {
        let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Reply::redirect(307, format!("{url}/signed?n={n}"))
    });
    let (good, rest) = (blob.good(), blob.good());
    cdn.on(Method::Get, "/signed")
        .reply_with(move |request| if request.query == "n=0" { Reply::status(403) } else { rest(request) });
    cdn.on(Method::Get, "/signed").times(1).reply_with(move |request| good(request).truncate_after(SIZE / 2));
    let answer = bench.get(&blob.path).limit(Duration::from_secs(20)).send().await;
    assert_eq!((answer.status, &answer.digest), (200, &blob.digest), "{answer:?}");
    let asked = cdn.requests();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].range(), Some((SIZE / 2, None)));
    assert_eq!(asked[1].query, "n=1");
}
