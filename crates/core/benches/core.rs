//! What the decisions of a hit cost: `cargo bench -p entrepot-core`.
#![expect(clippy::unwrap_used, reason = "what is measured works")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use divan::Bencher;
use entrepot_core::access::SigningKey;
use entrepot_core::admit::{Admitted, admit};
use entrepot_core::answer::{self, Believed, ManifestFacts, Served, Trace, Verdict};
use entrepot_core::config::{self, Config, RateLimit};
use entrepot_core::evict::{self, Candidate};
use entrepot_core::freshness::{self, TagRecord};
use entrepot_core::limit::{Bucket, Buckets, Gcra, LimitKey};
use entrepot_core::resolve::record_key;
use entrepot_core::time::{Mono, Now, Wall};
use entrepot_core::upstream::UpstreamState;
use entrepot_oci::{Digest, MediaType, media};
use http::request::Parts;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const NOW: Now = Now { wall: Wall(1_700_000_000_000), mono: Mono(1_000_000) };

fn main() {
    divan::main();
}

fn defaults() -> Config {
    let no_secrets = &mut |_: &config::SecretRef| Err(String::new());
    config::parse(config::DEFAULT, "default.yml", no_secrets).unwrap().config
}

fn digest(seed: u64) -> Digest {
    Digest::sha256(&seed.to_le_bytes())
}

/// As containerd and dockerd ask.
fn head(path: &str) -> Parts {
    let builder =
        http::Request::get(path).header("host", "127.0.0.1:8080").header("user-agent", "containerd/2.1.4");
    builder.header("accept", media::MANIFESTS.join(", ")).body(()).unwrap().into_parts().0
}

#[divan::bench]
fn parse_config(bencher: Bencher<'_, '_>) {
    bencher.bench_local(defaults);
}

#[divan::bench(args = [
    "/v2/library/busybox/manifests/latest",
    "/v2/library/busybox/manifests/latest?ns=docker.io",
    "/v2/ghcr.io/a/b/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
])]
fn admit_pull(bencher: Bencher<'_, '_>, path: &str) {
    let (config, head, key) = (defaults(), head(path), SigningKey::new([7; 32]));
    assert!(matches!(admit(&config, &head, PEER, &key, NOW), Admitted::Call(_)));
    bencher.bench_local(|| admit(&config, black_box(&head), PEER, &key, NOW));
}

#[divan::bench]
fn spell_record_key(bencher: Bencher<'_, '_>) {
    let (config, repository, digest) = (defaults(), "library/busybox".parse().unwrap(), digest(1));
    bencher.bench_local(|| record_key(&config.sources[0], black_box(&repository), "manifest", digest));
}

#[divan::bench]
fn judge_tag(bencher: Bencher<'_, '_>) {
    let config = defaults();
    let (repository, tag) = ("library/busybox".parse().unwrap(), "latest".parse().unwrap());
    let record =
        TagRecord::new(digest(1), 2000, MediaType::parse(media::OCI_INDEX).unwrap(), false, NOW.wall);
    bencher.bench_local(|| {
        let policy = freshness::tag_policy(&config.cache, &config.sources[0], black_box(&repository), &tag);
        freshness::tag_verdict(black_box(&record), &policy, NOW.wall, false)
    });
}

#[divan::bench]
fn answer_manifest(bencher: Bencher<'_, '_>) {
    let media_type = MediaType::parse(media::OCI_INDEX).unwrap();
    let facts = ManifestFacts { digest: digest(1), size: 2000, media_type: &media_type };
    let believed = Believed::For(Duration::from_secs(3000));
    let served = Served::new(Trace::new(Verdict::Hit));
    bencher.bench_local(|| answer::manifest(black_box(&facts), believed, &served, None));
}

/// So many clients, each of whom asks now and then.
#[divan::bench(args = [1, 1_000, 100_000])]
fn charge_limit(bencher: Bencher<'_, '_>, clients: u32) {
    let gcra = Gcra::requests(&RateLimit { count: 100, per: Duration::from_secs(60), burst: 50 });
    let mut buckets = Buckets::default();
    let mut asked = 0u32;
    bencher.bench_local(|| {
        asked = asked.wrapping_add(1);
        let key = LimitKey::new(Bucket::Requests, IpAddr::from((asked % clients).to_be_bytes()));
        buckets.charge(&gcra, key, Mono(1_000_000 + u64::from(asked)), 1)
    });
}

#[divan::bench]
fn look_at_budget(bencher: Bencher<'_, '_>) {
    let (config, state) = (defaults(), UpstreamState::new());
    bencher.bench_local(|| black_box(&state).budget_low(&config.sources[0], NOW));
}

/// What goes when so many objects must, of which each tenth is being served.
#[divan::bench(args = [1, 1_000])]
fn plan_eviction(bencher: Bencher<'_, '_>, objects: u64) {
    let candidates: Vec<Candidate> = (0..objects * 2)
        .map(|n| Candidate { digest: digest(n), size: 1000, used: Wall(n), busy: n % 10 == 9 })
        .collect();
    bencher.bench_local(|| evict::plan(black_box(objects * 1000), candidates.iter().copied()));
}
