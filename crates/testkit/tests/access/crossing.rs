//! Several sources with the same names in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use entrepot_testkit::http::{self, Call, Response};
use entrepot_testkit::script::{Image, Method, Pattern, Reply, Upstream, sha256};
use serde_json::json;

use crate::common::Bench;

const REPOSITORIES: [&str; 2] = ["team/app", "team/tool"];
const TAGS: [&str; 2] = ["1", "latest"];
const REQUESTS: u64 = 3000;
const AT_ONCE: u64 = 12;

/// What is served where, which is all that an answer may be.
struct Model {
    base: String,
    sources: Vec<Holding>,
}

struct Holding {
    name: &'static str,
    /// By repository and tag.
    images: BTreeMap<(usize, usize), Image>,
}

/// The same numbers in each run: what fails once fails again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}

/// T-CP1
#[tokio::test(flavor = "multi_thread")]
async fn t_cp1_sources_with_the_same_names_are_never_crossed() {
    let others = [Upstream::start().lenient(), Upstream::start().lenient()];
    let bench = Bench::setup_over(Upstream::start().lenient())
        .source("hosts", "[\"up.mirror.example\"]")
        .and_source("beta", &others[0].url(), &[("hosts", "[\"beta.mirror.example\"]")])
        .and_source("gamma", &others[1].url(), &[("hosts", "[\"gamma.mirror.example\"]")])
        .cache("manifest_ttl", "300ms")
        .cache("negative_ttl", "100ms")
        .start();
    let upstreams = [&bench.upstream, &others[0], &others[1]];
    let sources = ["up", "beta", "gamma"]
        .into_iter()
        .zip(upstreams)
        .enumerate()
        .map(|(at, (name, upstream))| fill(at as u64, name, upstream))
        .collect();
    let model = Arc::new(Model { base: bench.mirror.url(), sources });
    let workers = (0..AT_ONCE).map(|worker| {
        let model = model.clone();
        tokio::spawn(async move {
            let mut dice = Dice(worker);
            for _ in 0..REQUESTS / AT_ONCE {
                model.ask(&mut dice).await;
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no answer is crossed");
    }
    for upstream in upstreams {
        assert!(!upstream.saw_authorization());
        assert!(upstream.requests().len() > 50, "each was asked");
    }
}

/// The same names, and in each source something else under them; one layer is in all but the last source.
fn fill(at: u64, name: &'static str, upstream: &Upstream) -> Holding {
    let mut images = BTreeMap::new();
    for (r, repository) in REPOSITORIES.into_iter().enumerate() {
        let tags: Vec<String> =
            TAGS.iter().map(|tag| (*tag).to_owned()).chain([format!("only-{name}")]).collect();
        upstream
            .on(Method::Read, format!("/v2/{repository}/tags/list"))
            .reply(Reply::json(200, &json!({"name": repository, "tags": tags})));
        for (t, tag) in TAGS.into_iter().enumerate() {
            let own = Pattern::new(1 + at * 100 + r as u64 * 10 + t as u64, 3000 + at * 100);
            let shared = Pattern::new(4242, 5000);
            let layers = if at < 2 { vec![own.into(), shared.into()] } else { vec![own.into()] };
            let image = Image::of(layers);
            upstream.serve_image(repository, tag, &image);
            images.insert((r, t), image);
        }
    }
    Holding { name, images }
}

impl Model {
    async fn ask(&self, dice: &mut Dice) {
        let (source, repository, tag) = (dice.roll(self.sources.len()), dice.roll(2), dice.roll(2));
        let holding = &self.sources[source];
        // Mostly what is there, sometimes what is only elsewhere.
        let whose = if dice.roll(4) == 0 { dice.roll(self.sources.len()) } else { source };
        let image = &self.sources[whose].images[&(repository, tag)];
        let layer = &image.layer_digests[dice.roll(image.layer_digests.len())];
        let method = ["GET", "GET", "HEAD"][dice.roll(3)];
        let here = |blob: &str| {
            let inside = |image: &Image| {
                image.config_digest == blob || image.layer_digests.iter().any(|digest| digest == blob)
            };
            let same = |(place, image): (&(usize, usize), &Image)| place.0 == repository && inside(image);
            holding.images.iter().any(same)
        };
        match dice.roll(6) {
            0 | 1 => {
                let own = &holding.images[&(repository, tag)];
                let answer =
                    self.send(dice, source, repository, method, &format!("manifests/{}", TAGS[tag])).await;
                self.check(&answer, Some((&own.digest, &own.manifest)), method, source);
            }
            2 => {
                let found = (whose == source).then_some((&image.digest, &image.manifest));
                let answer =
                    self.send(dice, source, repository, method, &format!("manifests/{}", image.digest)).await;
                self.check(&answer, found, method, source);
            }
            3 | 4 => {
                let bytes = bytes_of(image, layer);
                let answer = self.send(dice, source, repository, method, &format!("blobs/{layer}")).await;
                self.check(&answer, here(layer).then_some((layer, &bytes)), method, source);
            }
            _ => {
                let answer = self.send(dice, source, repository, "GET", "tags/list").await;
                assert_eq!(answer.status, 200, "{answer:?}");
                let only = format!("only-{}", holding.name);
                let tags = answer.json()["tags"].as_array().cloned().unwrap_or_default();
                assert_eq!(tags.len(), 3, "{answer:?}");
                assert!(tags.contains(&json!(only)), "{only}: {answer:?}");
            }
        }
    }

    #[track_caller]
    fn check(&self, answer: &Response, expected: Option<(&String, &Vec<u8>)>, method: &str, source: usize) {
        let name = self.sources[source].name;
        let Some((digest, bytes)) = expected else {
            assert_eq!(answer.status, 404, "{name} does not have it: {answer:?}");
            return;
        };
        assert_eq!(answer.status, 200, "{method} at {name}: {answer:?}");
        assert_eq!(answer.header("docker-content-digest"), Some(digest.as_str()), "{name}: {answer:?}");
        assert_eq!(answer.header("content-length"), Some(bytes.len().to_string().as_str()), "{name}");
        if method == "GET" {
            assert_eq!(&answer.digest, digest, "{method} at {name}: {answer:?}");
            assert!(answer.clean_end && &answer.body == bytes, "{name}");
        }
    }

    /// Names the source in one of the ways there are.
    async fn send(
        &self,
        dice: &mut Dice,
        source: usize,
        repository: usize,
        method: &str,
        tail: &str,
    ) -> Response {
        let (name, repository) = (self.sources[source].name, REPOSITORIES[repository]);
        let call = |path: String| http::request(method, format!("{}{path}", self.base));
        let plain = format!("/v2/{repository}/{tail}");
        let named: Call = match dice.roll(if source == 0 { 9 } else { 8 }) {
            0 => call(format!("/v2/{name}.test/{repository}/{tail}")),
            1 => call(format!("/v2/{name}/{repository}/{tail}")),
            2 => call(format!("{plain}?ns={name}.test")),
            3 => call(format!("/{name}.test{plain}")),
            4 => call(format!("/{name}{plain}")),
            5 => call(plain).host(&format!("{name}.mirror.example")),
            6 => call(format!("/v2/{name}.test/{repository}/{tail}?ns={name}.test")),
            // What `ns` says holds against the Host name.
            7 => call(format!("{plain}?ns={name}.test")).host("gamma.mirror.example"),
            // Only the default source needs no name.
            _ => call(plain),
        };
        named.header("x-forwarded-host", "beta.mirror.example").send().await
    }
}

fn bytes_of(image: &Image, digest: &str) -> Vec<u8> {
    let at = image.layer_digests.iter().position(|layer| layer == digest).expect("a layer of the image");
    let layer = &image.layers[at];
    let bytes = layer.slice(0..layer.len().expect("a layer of known size"));
    assert_eq!(sha256(&bytes), digest);
    bytes
}
