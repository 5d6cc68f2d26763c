//! What the store knows through one repository is unknown in every other.

use std::collections::BTreeSet;
use std::time::Duration;

use entrepot_testkit::http::{Call, Response};
use entrepot_testkit::script::{Image, Method, Reply, Upstream, media, sha256};

use crate::common::Bench;

/// Where the image is, and where it is not: another repository of the source, and the same one of another source.
const HOME: &str = "/v2/team/home";
const ELSEWHERE: [&str; 3] = ["/v2/team/away", "/v2/other.test/team/home", "/v2/other/team/away"];

struct Two {
    bench: Bench,
    other: Upstream,
    image: Image,
}

impl Two {
    fn start(negative_ttl: &str) -> Self {
        let other = Upstream::start().lenient();
        let bench = Bench::setup_over(Upstream::start().lenient())
            .and_source("other", &other.url(), &[])
            .cache("negative_ttl", negative_ttl)
            .start();
        let (image, resident) = (Image::small(1), Image::small(2));
        bench.upstream.serve_image("team/home", "1", &image);
        // The other repositories exist, and are known to the mirror.
        for (upstream, repository) in
            [(&bench.upstream, "team/away"), (&other, "team/home"), (&other, "team/away")]
        {
            upstream.serve_image(repository, "1", &resident);
        }
        Self { bench, other, image }
    }

    /// Has the store hold all of the image, through the repository where it is.
    async fn warm(&self) {
        for path in [
            format!("{HOME}/manifests/1"),
            format!("{HOME}/manifests/{}", self.image.digest),
            format!("{HOME}/blobs/{}", self.image.config_digest),
            format!("{HOME}/blobs/{}", self.image.layer_digests[0]),
        ] {
            assert_eq!(self.bench.get(&path).send().await.status, 200, "{path}");
        }
        for base in ELSEWHERE {
            let path = format!("{base}/manifests/1");
            assert_eq!(self.bench.get(&path).send().await.status, 200, "{path}");
        }
    }

    fn asked(&self) -> usize {
        self.bench.upstream.requests().len() + self.other.requests().len()
    }
}

/// Every way to try a digest in a repository.
fn tries(bench: &Bench, base: &str, digest: &str) -> Vec<(&'static str, Call)> {
    let (blob, manifest) = (format!("{base}/blobs/{digest}"), format!("{base}/manifests/{digest}"));
    vec![
        ("HEAD of a blob", bench.head(&blob)),
        ("GET of a blob", bench.get(&blob)),
        ("a range of a blob", bench.get(&blob).range("bytes=0-0")),
        ("the end of a blob", bench.get(&blob).range("bytes=-1")),
        ("a blob on condition", bench.get(&blob).header("if-none-match", format!("\"{digest}\""))),
        ("HEAD of a manifest", bench.head(&manifest)),
        ("GET of a manifest", bench.get(&manifest)),
        ("a manifest on condition", bench.get(&manifest).header("if-none-match", format!("\"{digest}\""))),
        ("referrers", bench.get(format!("{base}/referrers/{digest}"))),
        ("mount", bench.request("POST", format!("{base}/blobs/uploads/?mount={digest}&from=team/home"))),
    ]
}

/// What a client sees, but for the digest that it named itself, and the time of day.
fn seen(answer: &Response, digest: &str) -> String {
    let (_, hex) = digest.split_once(':').expect("a digest");
    let headers = answer
        .head
        .headers
        .iter()
        .filter(|(name, _)| name != "date")
        .map(|(name, value)| format!("{name}: {value}\n"))
        .collect::<String>();
    format!("{}\n{headers}\n{}", answer.status, answer.text()).replace(hex, "HEX")
}

/// T-AZ1: never seen, being asked for the first time, once more, and after the image's own repository was warmed.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_a_digest_known_elsewhere_is_as_unknown_as_any() {
    for negative_ttl in ["0", "1h"] {
        let two = Two::start(negative_ttl);
        let stored = [&two.image.layer_digests[0], &two.image.config_digest, &two.image.digest];
        for round in ["cold", "warm", "warm again"] {
            if round == "warm" {
                two.warm().await;
            }
            for (n, known) in stored.into_iter().enumerate() {
                let unknown = sha256(format!("unknown {n}").as_bytes());
                for base in ELSEWHERE {
                    compare(&two, base, known, &unknown, round).await;
                }
            }
        }
        assert_eq!(
            two.bench.get(format!("{HOME}/blobs/{}", stored[0])).send().await.status,
            200,
            "where it is it stays"
        );
    }
}

async fn compare(two: &Two, base: &str, known: &str, unknown: &str, round: &str) {
    let pairs = tries(&two.bench, base, known).into_iter().zip(tries(&two.bench, base, unknown));
    for ((way, of_known), (_, of_unknown)) in pairs {
        let (before, known_answer) = (two.asked(), of_known.send().await);
        let (between, unknown_answer) = (two.asked(), of_unknown.send().await);
        let (for_known, for_unknown) = (between - before, two.asked() - between);
        let what = format!("{round}: {way} in {base}");
        let status = if way == "mount" { 405 } else { 404 };
        let listed = way == "referrers" && unknown_answer.status == 200;
        assert!(known_answer.status == status || listed, "{what}: {known_answer:?}");
        assert_eq!(seen(&known_answer, known), seen(&unknown_answer, unknown), "{what}");
        assert_eq!(for_known, for_unknown, "{what}: as many questions upstream");
    }
}

/// T-AZ1: nor does the time it takes tell them apart.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_nor_does_time_tell() {
    let two = Two::start("0");
    two.warm().await;
    let known = two.image.layer_digests[0].clone();
    let unknown = sha256(b"unknown");
    for (way, index) in [("HEAD", 0), ("GET", 1), ("range", 2), ("manifest", 6)] {
        let (mut of_known, mut of_unknown) = (Vec::new(), Vec::new());
        for _ in 0..40 {
            for (digest, times) in [(&known, &mut of_known), (&unknown, &mut of_unknown)] {
                let call = tries(&two.bench, ELSEWHERE[0], digest).swap_remove(index).1;
                let answer = call.send().await;
                assert_eq!(answer.status, 404, "{way}: {answer:?}");
                times.push(answer.total);
            }
        }
        let (one, other) = (lower_quartile(of_known), lower_quartile(of_unknown));
        // A fifth of the whole, and what two busy processors may add.
        let slack = one.max(other) / 5 + Duration::from_millis(2);
        assert!(one.abs_diff(other) <= slack, "{way}: {one:?} and {other:?}");
    }
}

fn lower_quartile(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 4]
}

/// T-AZ1: while the blob is still on its way in through its own repository, others neither see it nor wait for it.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_nor_while_it_is_being_fetched() {
    let two = Two::start("0");
    let digest = two.image.layer_digests[0].clone();
    let gate = entrepot_testkit::script::Gate::new();
    let (body, of, held) = (two.image.layers[0].clone(), digest.clone(), gate.clone());
    two.bench
        .upstream
        .on(Method::Get, format!("{HOME}/blobs/{digest}"))
        .reply_with(move |request| Reply::blob(request, &of, body.clone()).hold_at(1000, &held));
    let first = tokio::spawn(two.bench.get(format!("{HOME}/blobs/{digest}")).send());
    two.bench
        .upstream
        .wait_until(Duration::from_secs(5), "the download has begun", |requests| {
            requests.iter().any(|request| request.sent() > 0)
        })
        .await;
    for base in ELSEWHERE {
        let unknown = sha256(base.as_bytes());
        for index in 0..4 {
            let (way, of_known) = tries(&two.bench, base, &digest).swap_remove(index);
            let of_unknown = tries(&two.bench, base, &unknown).swap_remove(index).1;
            let (known, unknown_answer) = (of_known.send().await, of_unknown.send().await);
            assert_eq!(known.status, 404, "{way} in {base}: {known:?}");
            assert_eq!(seen(&known, &digest), seen(&unknown_answer, &unknown), "{way} in {base}");
        }
    }
    gate.open();
    let first = first.await.expect("an answer");
    assert_eq!((first.status, &first.digest), (200, &digest));
}

/// T-AZ1: what two repositories share is served in both, by each one's own word.
#[tokio::test(flavor = "multi_thread")]
async fn t_az1_what_is_shared_is_shared() {
    let two = Two::start("0");
    two.warm().await;
    two.other.serve_image("team/home", "shared", &two.image);
    let blob = format!("blobs/{}", two.image.layer_digests[0]);
    let path = format!("{}/{blob}", ELSEWHERE[1]);
    let answer = two.bench.get(&path).send().await;
    assert_eq!((answer.status, &answer.digest), (200, &two.image.layer_digests[0]));
    let fetched = two.other.count(Method::Get, format!("/v2/team/home/{blob}"));
    assert_eq!(fetched, 0, "its bytes are here already; only the right to them was asked for");
    let away = two.bench.get(format!("{}/{blob}", ELSEWHERE[2])).send().await;
    assert_eq!(away.status, 404, "{away:?}");
    let types: BTreeSet<_> = [media::MANIFEST].into();
    let manifest = two.bench.get("/v2/other.test/team/home/manifests/shared").send().await;
    assert!(manifest.header("content-type").is_some_and(|found| types.contains(found)));
}
