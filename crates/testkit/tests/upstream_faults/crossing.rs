use std::sync::{Arc, Mutex};

use entrepot_testkit::http;
use entrepot_testkit::script::{Image, Method, Paths, Reply, Upstream, media};

use crate::common::{Bench, assert_error};

const SOURCES: [&str; 3] = ["one", "two", "three"];
const REPOSITORIES: [&str; 2] = ["team/app", "library/nginx"];
const TAGS: [&str; 2] = ["latest", "1.0"];

/// A small generator, so that a failure can be repeated.
struct Drawn(u64);

impl Drawn {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 16) as usize % below
    }
}

/// What each source has had under each repository and tag, oldest first.
type History = Arc<Mutex<Vec<Vec<Image>>>>;

fn slot(source: usize, repository: usize, tag: usize) -> usize {
    (source * REPOSITORIES.len() + repository) * TAGS.len() + tag
}

/// T-CP1: the same repositories and tags at three sources, each with content of its own that moves, asked for in all the
/// ways that name a source: whoever is asked, the answer is of that source. A model says what each has ever had.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp1_sources_never_cross() {
    let upstreams: Vec<Upstream> = SOURCES.iter().map(|_| Upstream::start()).collect();
    for upstream in &upstreams {
        upstream.on(Method::Any, Paths::from("/v2/*")).reply(Reply::oci_error(404, "MANIFEST_UNKNOWN"));
    }
    let setup = upstreams.iter().zip(SOURCES).fold(
        Bench::setup()
            .proxy("endpoint", "https://mirror.example.com")
            .cache("manifest_ttl", "0")
            .cache("negative_ttl", "1s"),
        |setup, (upstream, name)| setup.and_source(name, &upstream.url(), &[]),
    );
    let bench = setup.start();
    let slots = SOURCES.len() * REPOSITORIES.len() * TAGS.len();
    let history: History = Arc::new(Mutex::new(vec![Vec::new(); slots]));
    let mut drawn = Drawn(1);
    let mut seed = 0;
    let mut publish = |source: usize, repository: usize, tag: usize| {
        seed += 1;
        let image = Image::small(seed);
        history.lock().expect("no holder panics")[slot(source, repository, tag)].push(image.clone());
        upstreams[source].serve_image(REPOSITORIES[repository], TAGS[tag], &image);
    };
    for source in 0..SOURCES.len() {
        for repository in 0..REPOSITORIES.len() {
            for tag in 0..TAGS.len() {
                publish(source, repository, tag);
            }
        }
    }
    for _ in 0..190 {
        let plan: Vec<[usize; 7]> =
            (0..10).map(|_| [3, 2, 2, 4, 5, 3, 2].map(|below| drawn.next(below))).collect();
        let (known, base) = (history.clone(), bench.mirror.url());
        http::parallel(plan.len(), move |i| ask(base.clone(), plan[i], known.clone())).await;
        publish(drawn.next(3), drawn.next(2), drawn.next(2));
    }
}

/// Asks one source for one thing, and judges the answer by what that source has ever had.
async fn ask(base: String, plan: [usize; 7], known: History) {
    let [source, repository, tag, spelling, kind, other, head] = plan;
    let (own, foreign) = {
        let known = known.lock().expect("no holder panics");
        (known[slot(source, repository, tag)].clone(), known[slot(other, repository, tag)].clone())
    };
    let (newest, theirs) = (&own[own.len() - 1], &foreign[foreign.len() - 1]);
    let tail = match kind {
        0 => format!("manifests/{}", TAGS[tag]),
        1 => format!("manifests/{}", newest.digest),
        2 => format!("blobs/{}", newest.layer_digests[0]),
        3 => format!("manifests/{}", theirs.digest),
        _ => format!("blobs/{}", theirs.layer_digests[0]),
    };
    let (name, repository) = (SOURCES[source], REPOSITORIES[repository]);
    let (path, host) = match spelling {
        0 => (format!("/v2/{name}.test/{repository}/{tail}"), "mirror.example.com".to_owned()),
        1 => (format!("/{name}.test/v2/{repository}/{tail}"), "mirror.example.com".to_owned()),
        2 => (format!("/v2/{repository}/{tail}?ns={name}.test"), "two.mirror.example.com".to_owned()),
        _ => (format!("/v2/{repository}/{tail}"), format!("{name}.mirror.example.com")),
    };
    let method = if head == 1 { "HEAD" } else { "GET" };
    let answer = http::request(method, format!("{base}{path}")).host(&host).send().await;
    let said = answer.header("docker-content-digest").unwrap_or_default().to_owned();
    let what = format!("{method} {path} at {host}");
    match kind {
        0 => {
            // The tag may move while it is asked for: then it is what it has become.
            let ever = known.lock().expect("no holder panics")[slot(source, plan[1], tag)].clone();
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            assert!(ever.iter().any(|image| image.digest == said), "{what}: {answer:?}");
        }
        1 | 2 => assert_eq!(answer.status, 200, "{what}: {answer:?}"),
        _ if other == source => assert_eq!(answer.status, 200, "{what}: {answer:?}"),
        _ => assert_eq!(answer.status, 404, "what another source has: {what}: {answer:?}"),
    }
    if answer.status == 200 && head == 0 {
        assert_eq!(answer.digest, said, "{what}: {answer:?}");
    }
}

const INDEX_CAPABLE: &str =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json";

/// T-CP3: what one client takes decides nothing for another: whoever takes an index gets it, whoever does not hears so, in
/// whatever order they come.
#[tokio::test(flavor = "multi_thread")]
async fn t_cp3_accept_variants_do_not_poison_each_other() {
    let bench = Bench::new();
    let images = [Image::small(1), Image::small(2)];
    let index = Image::index(&images);
    let digest = bench.upstream.serve_manifest("team/app", "multi", &index, media::INDEX);
    bench.upstream.serve_manifest("team/app", "single", &images[0].manifest, media::MANIFEST);
    let many: String = (0..200)
        .map(|n| format!("application/x-{n}"))
        .chain([media::INDEX.to_owned(), media::MANIFEST.to_owned()])
        .collect::<Vec<_>>()
        .join(", ");
    // Whether an index, and whether a single manifest, may be sent.
    let variants: [(Option<&str>, bool, bool); 11] = [
        (Some(INDEX_CAPABLE), true, true),
        (Some(media::DOCKER_MANIFEST), false, false),
        (Some(media::MANIFEST), false, true),
        (Some(media::INDEX), true, false),
        (Some("*/*"), true, true),
        (None, true, true),
        (Some("application/*"), true, true),
        (Some("application/vnd.oci.image.index.v1+json;q=0, */*"), false, true),
        (
            Some(
                "application/vnd.oci.image.index.v1+json;q=0.1, application/vnd.oci.image.manifest.v1+json;q=0.9",
            ),
            true,
            true,
        ),
        (Some(&many), true, true),
        (Some("text/html"), false, false),
    ];
    let mut drawn = Drawn(3);
    for _ in 0..150 {
        let (accept, takes_index, takes_manifest) = variants[drawn.next(variants.len())];
        for (tag, takes, wanted, kind) in [
            ("multi", takes_index, &digest, media::INDEX),
            ("single", takes_manifest, &images[0].digest, media::MANIFEST),
        ] {
            let mut call = bench.get(format!("/v2/team/app/manifests/{tag}"));
            if let Some(accept) = accept {
                call = call.header("accept", accept);
            }
            let answer = call.send().await;
            if takes {
                assert_eq!(
                    (answer.status, &answer.digest, answer.header("content-type")),
                    (200, wanted, Some(kind)),
                    "{tag} as {accept:.60?}: {answer:?}"
                );
            } else {
                assert_error(&answer, 404, "MANIFEST_UNKNOWN");
            }
        }
        // By digest there is no choice.
        let by_digest = bench
            .get(format!("/v2/team/app/manifests/{digest}"))
            .header("accept", accept.unwrap_or("*/*"))
            .send()
            .await;
        assert_eq!((by_digest.status, &by_digest.digest), (200, &digest));
    }
    assert_eq!(
        bench.upstream.count(Method::Get, "/v2/team/app/manifests/multi"),
        1,
        "one class asks for all"
    );
}
