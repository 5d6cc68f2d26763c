use std::sync::Arc;
use std::time::Duration;

use entrepot_testkit::http::{self, parallel};
use entrepot_testkit::limits::{RssWatch, raise_open_files};
use entrepot_testkit::script::{Gate, Image, Method, Reply, Tokens, media};
use tokio::sync::Barrier;

use crate::common::Bench;
use crate::{Blob, asked};

const CLIENTS: usize = 1000;
/// What a thousand connections with their windows may take, in KiB; a copy of the blob for each would be 2 GB.
const WINDOWS: u64 = 96 * 1024;

/// T-CC1
#[tokio::test(flavor = "multi_thread")]
async fn t_cc1_a_thousand_cold_pulls_of_one_blob() {
    raise_open_files();
    let bench = Bench::new();
    let blob = Blob::new(1, 2_000_000);
    let gate = Gate::new();
    let (served, held) = (blob.digest.clone(), gate.clone());
    let body = blob.body.clone();
    bench
        .upstream
        .on(Method::Read, &blob.path)
        .reply_with(move |request| Reply::blob(request, &served, body.clone()).hold_at(600_000, &held));
    let before = bench.mirror.rss_anon_kb();
    let watch = RssWatch::start(bench.mirror.pid());
    // Upstream stops in the middle until every client has its head, so that all of them are cold.
    let heads = Arc::new(Barrier::new(CLIENTS + 1));
    let opener = tokio::spawn({
        let (heads, gate) = (heads.clone(), gate.clone());
        async move {
            heads.wait().await;
            gate.open();
        }
    });
    let url = bench.url(&blob.path);
    let answers = parallel(CLIENTS, move |_| {
        let (url, heads) = (url.clone(), heads.clone());
        async move {
            let stream = http::get(url).limit(Duration::from_secs(120)).open().await;
            assert_eq!(stream.head.status, 200, "{:?}", stream.head);
            heads.wait().await;
            let answer = stream.finish().await;
            (answer.clean_end, answer.digest)
        }
    })
    .await;
    opener.await.expect("the gate opens");
    assert!(answers.iter().all(|answer| *answer == (true, blob.digest.clone())), "everyone has the bytes");
    assert_eq!(asked(&bench.upstream, &blob.path), ["GET"], "one request upstream for all");
    assert_eq!(bench.upstream.bytes_sent(&blob.path), blob.size);
    let grown = watch.peak_kb().saturating_sub(before);
    println!("T-CC1: {CLIENTS} clients: RssAnon +{grown} kB (peak {} kB)", watch.peak_kb());
    assert!(grown < WINDOWS, "{grown} kB more");
}

/// T-CC1: by tag and by digest, GET and HEAD; not one request upstream more, however late a client looks.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc1_a_thousand_cold_manifests() {
    raise_open_files();
    let bench = Bench::new();
    let (tagged, by_digest, headed) = (Image::small(1), Image::small(2), Image::small(3));
    let path_of = |reference: &str| format!("/v2/team/app/manifests/{reference}");
    for (reference, image) in [("1", &tagged), (by_digest.digest.as_str(), &by_digest), ("3", &headed)] {
        let reply = Reply::manifest(&image.manifest, media::MANIFEST);
        bench.upstream.on(Method::Read, path_of(reference)).reply(reply.delay(Duration::from_millis(100)));
    }
    for (method, reference, image) in
        [("GET", "1", &tagged), ("GET", by_digest.digest.as_str(), &by_digest), ("HEAD", "3", &headed)]
    {
        let path = path_of(reference);
        let url = bench.url(&path);
        let answers = parallel(CLIENTS, move |i| {
            let call = http::request(method, url.clone()).header("accept", media::MANIFEST);
            async move {
                // Over the moment at which the answer arrives, so that some look just before it and ask just after.
                tokio::time::sleep(Duration::from_micros(i as u64 * 200)).await;
                call.send().await
            }
        })
        .await;
        for answer in &answers {
            assert_eq!(
                (answer.status, answer.header("docker-content-digest")),
                (200, Some(image.digest.as_str())),
                "{answer:?}"
            );
            assert!(method == "HEAD" || answer.body == image.manifest, "{answer:?}");
        }
        assert_eq!(asked(&bench.upstream, &path), [method], "one request upstream for all");
    }
}

/// T-CC1, T-UF7: manifests and blobs of one repository, all at once: one token.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf7_a_thousand_parallel_requests_take_one_token() {
    raise_open_files();
    let bench = Bench::new();
    let image = Image::small(4);
    bench.upstream.serve_image("team/app", "1", &image);
    let tokens = Tokens::new().expires_in(300);
    let realm = format!("{}/token", bench.upstream.url());
    bench.upstream.serve_tokens("/token", &tokens);
    bench.upstream.require_tokens(&tokens, &realm, "svc");
    let urls: Vec<String> = ["/v2/team/app/manifests/1".to_owned()]
        .into_iter()
        .chain([format!("/v2/team/app/manifests/{}", image.digest)])
        .chain(
            [&image.config_digest, &image.layer_digests[0]]
                .map(|digest| format!("/v2/team/app/blobs/{digest}")),
        )
        .map(|path| bench.url(path))
        .collect();
    let answers = parallel(CLIENTS, move |i| {
        let call = http::get(&urls[i % urls.len()]);
        async move { call.send().await }
    })
    .await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.clean_end));
    assert_eq!(tokens.issued("repository:team/app:pull"), 1);
    assert_eq!(tokens.issued_in_all(), 1);
    assert_eq!(bench.upstream.count(Method::Any, "/token"), 1);
}

/// T-CC1: a blob that is stored for another repository costs one question upstream, however many ask.
#[tokio::test(flavor = "multi_thread")]
async fn t_cc1_a_stored_blob_of_another_repository_is_asked_for_once() {
    raise_open_files();
    let bench = Bench::new();
    let blob = Blob::new(5, 300_000);
    bench.upstream.serve_blob("team/app", blob.body.clone());
    assert_eq!(bench.get(&blob.path).send().await.digest, blob.digest);
    let elsewhere = format!("/v2/team/other/blobs/{}", blob.digest);
    let (served, body) = (blob.digest.clone(), blob.body.clone());
    bench.upstream.on(Method::Read, &elsewhere).reply_with(move |request| {
        Reply::blob(request, &served, body.clone()).delay(Duration::from_millis(100))
    });
    let url = bench.url(&elsewhere);
    let answers = parallel(200, move |_| {
        let call = http::get(url.clone());
        async move { call.send().await }
    })
    .await;
    assert!(answers.iter().all(|answer| answer.clean_end && answer.digest == blob.digest));
    assert_eq!(asked(&bench.upstream, &elsewhere), ["HEAD"]);
}
