use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use entrepot_testkit::script::{Body, Image, Method, Pattern, Reply, Request, Upstream, media};

use crate::common::{Bench, Setup, assert_refused};

/// Enough for four connections with two pieces each.
const SIZE: u64 = 17 << 20;
/// So far away that pieces are worth it.
const FAR: Duration = Duration::from_millis(80);

/// A mirror before a registry that is far away, with an image of one large layer.
struct Far {
    bench: Bench,
    body: Body,
    digest: String,
    path: String,
}

impl Far {
    async fn new(seed: u64) -> Far {
        Far::with(seed, Bench::setup()).await
    }

    async fn with(seed: u64, setup: Setup) -> Far {
        let body = Body::from(Pattern::new(seed, SIZE));
        let image = Image::of(vec![body.clone()]);
        let bench = setup.start();
        let manifest = Reply::manifest(&image.manifest, media::MANIFEST).delay(FAR);
        bench.upstream.on(Method::Read, "/v2/team/app/manifests/1").reply(manifest);
        let answer = bench.get("/v2/team/app/manifests/1").send().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let digest = image.layer_digests[0].clone();
        let path = format!("/v2/team/app/blobs/{digest}");
        Far { bench, body, digest, path }
    }

    /// As a good registry serves it.
    fn good(&self) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
        let (body, digest) = (self.body.clone(), self.digest.clone());
        move |request| Reply::blob(request, &digest, body.clone()).delay(FAR)
    }

    async fn arrives(&self) {
        let answer = self.bench.get(&self.path).limit(Duration::from_secs(60)).send().await;
        assert_eq!(
            (answer.status, &answer.digest, answer.clean_end),
            (200, &self.digest, true),
            "{answer:?}"
        );
    }

    async fn is_stored(&self) {
        self.bench.upstream.stop();
        self.arrives().await;
    }
}

/// T-UF4: every piece breaks once, and goes on where it broke.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_a_cut_in_every_piece_is_mended() {
    let far = Far::new(90).await;
    let good = far.good();
    far.bench.upstream.on(Method::Get, &far.path).reply_with(move |request| {
        let (first, last) = request.range().expect("a piece is asked for");
        let last = last.expect("a piece has an end");
        let begins = last - first > 1_500_000;
        let reply = good(request);
        if begins { reply.truncate_after(700_000) } else { reply }
    });
    far.arrives().await;
    assert!(far.bench.counted("resumed") >= 4.0);
    assert_eq!(far.bench.upstream.bytes_sent(far.path.as_str()), SIZE, "each byte once");
    far.is_stored().await;
}

/// T-UF4: further pieces are asked of the host that the registry has led to, and of the registry when it refuses.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_links_that_expire_between_pieces() {
    let far = Far::new(91).await;
    let cdn = Upstream::start_on([127, 0, 0, 2]);
    let (url, count) = (cdn.url(), AtomicUsize::new(0));
    far.bench.upstream.on(Method::Get, &far.path).reply_with(move |_| {
        let n = count.fetch_add(1, Ordering::Relaxed);
        Reply::redirect(307, format!("{url}/signed?n={n}"))
    });
    let good = far.good();
    // The first link is good for three answers.
    let uses = AtomicUsize::new(0);
    cdn.on(Method::Get, "/signed").reply_with(move |request| {
        if request.query == "n=0" && uses.fetch_add(1, Ordering::Relaxed) >= 3 {
            return Reply::status(403);
        }
        good(request)
    });
    far.arrives().await;
    assert_eq!(cdn.bytes_sent("/signed"), SIZE, "each byte once");
    assert!(far.bench.upstream.count(Method::Get, &far.path) < 8, "the registry is asked only for links");
    far.is_stored().await;
}

/// T-UF4: pieces of another object under the same name are never put together with the first.
#[tokio::test(flavor = "multi_thread")]
async fn t_uf4_pieces_of_another_object() {
    let far = Far::new(92).await;
    let (good, other) = (far.good(), Body::from(Pattern::new(93, SIZE)));
    let digest = far.digest.clone();
    far.bench.upstream.on(Method::Get, &far.path).reply_with(move |request| match request.range() {
        Some((0, _)) | None => good(request),
        Some(_) => Reply::blob(request, &digest, other.clone()),
    });
    let answer = far.bench.get(&far.path).limit(Duration::from_secs(60)).send().await;
    assert!(!answer.clean_end || answer.status == 502, "{answer:?}");
    assert_refused(&answer);
    assert!(
        !far.bench.mirror.stored_files().iter().any(|file| file.to_string_lossy().contains(&far.digest[7..]))
    );
}

/// T-DF1: a disk that fills up under several pieces leaves one stream, which brings the rest through memory.
#[tokio::test(flavor = "multi_thread")]
async fn t_df1_a_disk_that_fills_up_under_pieces() {
    for writes in [2, 12, 30] {
        let setup = Bench::setup();
        let far =
            Far::with(94 + writes, setup.env("FAILPOINTS", format!("store::write={writes}*off->return(28)")))
                .await;
        far.bench.upstream.on(Method::Get, &far.path).reply_with(far.good());
        far.arrives().await;
        assert!(far.bench.mirror.stored_files().len() <= 1, "at most the manifest");
    }
}
