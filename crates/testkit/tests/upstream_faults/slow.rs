use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use entrepot_testkit::http::{self, Response};
use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, Upstream, media, sha256};

use crate::common::{Bench, assert_refused, at_home_only};

const SIZE: u64 = 4 << 20;
const SHORT: &str = "{ connect: \"1s\", first_byte: \"1s\", stall: \"1s\" }";

/// Well above what all tries with these time-outs take, and far below what upstream would take.
const SOON: Duration = Duration::from_secs(25);

fn bench() -> Bench {
    Bench::setup().source("timeouts", SHORT).start()
}

fn assert_gave_up(answer: &Response, name: &str) {
    assert!(answer.total < SOON, "{name}: the deadline fires: {answer:?}");
    assert_refused(answer);
    assert!(!answer.clean_end || answer.status >= 500, "{name}: {answer:?}");
}

/// T-UF5: silence and a trickle, inside a blob.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf5_a_blob_that_stalls_or_drips_is_given_up() {
    if at_home_only("t_uf5_a_blob_that_stalls_or_drips_is_given_up") {
        return;
    }
    let bench = bench();
    let mut paths = Vec::new();
    for (seed, name) in [(1, "stalls at once"), (2, "stalls in the middle"), (3, "drips 1 kB/s")] {
        let body = Body::from(Pattern::new(seed, SIZE));
        let digest = body.sha256();
        let path = format!("/v2/team/app/blobs/{digest}");
        bench.upstream.on(Method::Get, &path).reply_with(move |request| {
            let reply = Reply::blob(request, &digest, body.clone());
            match seed {
                1 => reply.stall_after(0),
                2 if request.range().is_none() => reply.stall_after(SIZE / 2),
                2 => reply.stall_after(0),
                _ => reply.drip(1000),
            }
        });
        paths.push((name, bench.url(path)));
    }
    let urls = paths.clone();
    let answers = http::parallel(paths.len(), move |i| {
        let url = urls[i].1.clone();
        async move { http::get(url).send().await }
    })
    .await;
    for ((name, _), answer) in paths.iter().zip(&answers) {
        assert_gave_up(answer, name);
    }
    bench.assert_nothing_stored();
}

/// T-UF5: the same inside what is read whole: manifests, lists, tokens, error bodies.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf5_documents_that_stall_are_given_up() {
    let bench = bench();
    let image = Image::small(1);
    let manifest = || Reply::manifest(&image.manifest, media::MANIFEST);
    let list = serde_json::json!({"name": "team/app", "tags": ["a", "b"]});
    for (path, reply) in [
        ("/v2/team/app/manifests/stalls", manifest().stall_after(9)),
        ("/v2/team/drips/tags/list", Reply::json(200, &list).drip(1)),
        ("/v2/team/app/tags/list", Reply::json(200, &list).stall_after(3)),
        ("/v2/team/refused/tags/list", Reply::oci_error(429, "TOOMANYREQUESTS").stall_after(3)),
    ] {
        bench.upstream.on(Method::Read, path).reply(reply);
    }
    let urls: Vec<String> = ["app/manifests/stalls", "app/tags/list", "drips/tags/list"]
        .iter()
        .map(|tail| bench.url(format!("/v2/team/{tail}")))
        .collect();
    let asked = urls.clone();
    let answers = http::parallel(urls.len(), move |i| {
        let url = asked[i].clone();
        async move { http::get(url).send().await }
    })
    .await;
    for (url, answer) in urls.iter().zip(&answers) {
        assert!(matches!(answer.status, 502..=504), "{url}: {answer:?}");
        let limit = if url.contains("drips") { 25 } else { 10 };
        assert!(answer.total < Duration::from_secs(limit), "{url}: {answer:?}");
    }
    let answer = bench.get("/v2/team/refused/tags/list").send().await;
    assert_eq!(answer.status, 429, "{answer:?}");
    assert!(answer.total < SOON);
    bench.assert_nothing_stored();
}

/// T-UF5: no first byte for a minute, of anything.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf5_an_upstream_that_says_nothing() {
    let bench = bench();
    bench.upstream.on(Method::Any, "/*").reply(Reply::status(200).delay(Duration::from_secs(60)));
    let digest = sha256(b"x");
    let urls: Vec<String> =
        ["manifests/1".to_owned(), format!("manifests/{digest}"), format!("blobs/{digest}")]
            .iter()
            .map(|tail| bench.url(format!("/v2/team/app/{tail}")))
            .collect();
    let answers = http::parallel(urls.len(), move |i| {
        let url = urls[i].clone();
        async move { http::get(url).send().await }
    })
    .await;
    for answer in answers {
        assert!(matches!(answer.status, 503 | 504), "{answer:?}");
        assert!(answer.total < SOON, "{answer:?}");
    }
}

/// A listener whose queue is full: connections to it hang, as to a host that drops packets.
struct BlackHole {
    address: SocketAddr,
    _listener: socket2::Socket,
    _filling: Vec<TcpStream>,
}

impl BlackHole {
    fn new() -> Self {
        let listener =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
        listener.listen(0).expect("a queue");
        let address = listener.local_addr().expect("bound").as_socket().expect("an IP address");
        let mut filling = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            filling.push(stream);
            assert!(filling.len() < 64, "the queue fills up");
        }
        Self { address, _listener: listener, _filling: filling }
    }
}

/// T-UF5: packets to the host vanish.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf5_a_half_open_host() {
    let hole = BlackHole::new();
    let bench = Bench::setup()
        .and_source("hole", &format!("http://{}", hole.address), &[("timeouts", SHORT)])
        .start();
    let answer = bench.get("/v2/hole.test/team/app/manifests/1").send().await;
    assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    assert!(answer.total < SOON, "{answer:?}");
}

/// T-UF5, T-OL4: a hundred pulls from an upstream that hangs neither pin anything nor slow another upstream down.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf5_a_hanging_upstream_leaves_the_others_alone() {
    if at_home_only("t_uf5_a_hanging_upstream_leaves_the_others_alone") {
        return;
    }
    let hanging = Upstream::start_on([127, 0, 0, 2]);
    let bench = Bench::setup()
        .source("timeouts", SHORT)
        .and_source("hangs", &hanging.url(), &[("timeouts", SHORT)])
        .start();
    let image = Image::small(9);
    bench.upstream.serve_image("team/app", "latest", &image);
    let body = Body::from(Pattern::new(99, SIZE));
    let digest = body.sha256();
    hanging
        .on(Method::Any, "/v2/team/stalls/*")
        .reply(Reply::ok(body).header("etag", format!("\"{digest}\"")).stall_after(100_000));
    hanging.on(Method::Any, "/v2/team/silent/*").reply(Reply::status(200).delay(Duration::from_secs(60)));
    let base = bench.mirror.url();
    let stuck = tokio::spawn(http::parallel(100, move |i| {
        let kind = if i % 2 == 0 { "stalls" } else { "silent" };
        let url = format!("{base}/v2/hangs.test/team/{kind}/blobs/{}", sha256(format!("{i}").as_bytes()));
        async move { http::get(url).send().await }
    }));
    hanging.wait_until(Duration::from_secs(10), "the pulls hang", |requests| requests.len() >= 20).await;
    let start = Instant::now();
    let mut times = Vec::new();
    for n in 0..40 {
        let reference = if n == 0 { "latest" } else { image.digest.as_str() };
        let answer = bench.get(format!("/v2/team/app/manifests/{reference}")).send().await;
        assert_eq!((answer.status, &answer.digest), (200, &image.digest), "{answer:?}");
        times.push(answer.total);
    }
    let cold = Image::small(10);
    bench.upstream.serve_image("team/app", "cold", &cold);
    let answer = bench.get("/v2/team/app/manifests/cold").send().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    times.push(answer.total);
    times.sort();
    assert!(
        times[times.len() * 9 / 10] < Duration::from_millis(900),
        "others do not wait: {times:?} in {:?}",
        start.elapsed()
    );
    for answer in stuck.await.expect("no client panics") {
        assert!(answer.status >= 500 || !answer.clean_end, "{answer:?}");
        assert!(answer.total < SOON, "{answer:?}");
    }
    // What a hanging conversation held is given back; `Bench` looks at files and memory as it goes.
    bench.wait_for_fills();
}
