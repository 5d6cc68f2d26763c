//! A scripted upstream with the Worker before it, in the runtime that runs it in production: what `mod.rs` is for the
//! binary, under the same names, so that a test is the same text for both.
//!
//! What differs is said here and in `worker_acceptance/apart.rs`. Whoever asks first for a blob that is not stored gets
//! upstream's bytes as they come; what is asserted instead is that nothing is ever stored that is not what its name says.
#![allow(
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses its own part of this"
)]

mod asking;
mod setup;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use entrepot_testkit::edge::{Builder, Edge};
use entrepot_testkit::http::{self, Call, Response};
use entrepot_testkit::script::{Paths, Upstream, sha256, sha512};

pub(crate) use crate::apart::at_home_only;
pub use asking::{assert_error, assert_only_our_headers};
pub use setup::Setup;

/// How long nothing may be asked or sent upstream before fills that clients do not wait for count as ended. Longer than
/// the pauses between attempts.
const QUIET: Duration = Duration::from_millis(700);

/// What every configuration begins with.
const PROXY: &[(&str, &str)] = &[("endpoint", "__ENDPOINT__")];
const CACHE: &[(&str, &str)] = &[];

/// Statuses by which what stands before the Worker refuses what is no request for it: a method that it does not know.
pub const BEFORE_IT: &[u16] = &[501];

/// What is answered beside the registry's API.
pub const BESIDE: &[&str] = &["/healthz"];

/// How a target is refused that is longer than any of ours: like any other that is none.
pub const TOO_LONG: &[u16] = &[404];

/// Whether the host can tell an answer that is no HTTP, and a failed TLS handshake, from a broken connection.
pub const TELLS_FAULTS: bool = false;

/// How soon after its start the runtime on this machine serves what is held. The platform's own has started long before.
pub const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// How many of many like cases are tried, each with a runtime of its own, which takes a second to start.
pub const FIRST_OF_MANY: usize = 2;

/// Whether a header without a value reaches the Worker: the runtime leaves it out.
pub const EMPTY_HEADERS_ARRIVE: bool = false;

/// Headers of its own that the host adds.
const HOSTS: &[&str] = &["entrepot-config"];

pub struct Bench {
    // Dropped first: it must not ask an upstream that has gone.
    pub mirror: Worker,
    pub upstream: Upstream,
}

/// The Worker, as a mirror.
pub struct Worker {
    pub edge: Edge,
    canaries: Vec<String>,
}

impl Bench {
    fn start(mut setup: Setup) -> Bench {
        let edge = setup.worker().start();
        setup.before(edge)
    }

    /// Waits until nothing is being fetched any more, and asserts that nothing has been stored.
    pub fn assert_nothing_stored(&self) {
        self.settle();
        let stored = self.mirror.stored_files();
        assert!(stored.is_empty(), "nothing is stored: {stored:?}");
    }

    /// Waits until nothing is asked upstream any more, and nothing sent.
    pub fn settle(&self) {
        let seen = || (self.upstream.requests().len(), self.upstream.bytes_sent(Paths::containing("")));
        let (mut last, mut since) = (seen(), Instant::now());
        let start = since;
        while since.elapsed() < QUIET && start.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
            let now = seen();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }

    /// Ends the runtime and starts it again: same address, same store.
    pub fn restart(&mut self) -> Instant {
        let start = Instant::now();
        self.mirror.edge.restart();
        start
    }

    /// There is always a Worker.
    pub fn assert_ready(&self) {}

    /// The Worker has no page that tells of upstreams.
    pub fn assert_tells(&self, _url: &str, _failing: bool) {}

    pub fn wait_for_fills(&self) {
        self.settle();
    }

    pub fn forget_memory(&mut self) {}

    /// A GET by a client at this address, which the platform tells.
    pub fn get_from(&self, address: &str, path: &str) -> Call {
        http::get(self.url(path)).header("cf-connecting-ip", address)
    }

    /// Counters are gathered and told in batches here: there is always enough of them.
    pub fn counted(&self, _word: &str) -> f64 {
        1.0
    }
}

/// Whatever a test did, everything that is stored is what its name says.
impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let is_blob = |path: &str| path.contains("/blobs/");
        if self.upstream.requests().iter().any(|request| is_blob(&request.path)) {
            self.settle();
        }
        self.mirror.assert_store_is_true();
    }
}

impl Setup {
    /// The platform alone is believed about clients.
    pub fn behind_a_proxy(self) -> Setup {
        self
    }

    /// The bench with a Worker that `worker` made.
    pub fn before(self, edge: Edge) -> Bench {
        Bench { mirror: Worker { edge, canaries: Vec::new() }, upstream: self.upstream }
    }

    /// The Worker with this configuration, open where the binary would be, and without what the edge refuses.
    pub fn worker(&mut self) -> Builder {
        for source in std::iter::once(&mut self.source).chain(&mut self.more_sources) {
            // Every certificate is verified by the platform.
            if source.get("url").is_some_and(|url| url.starts_with("https:")) {
                source.remove("insecure");
            }
        }
        let mut yaml = self.yaml();
        if !self.proxy.contains_key("access") {
            yaml = yaml.replacen("proxy:\n", "proxy:\n  access: { anonymous: true }\n", 1);
        } else if !yaml.contains("anonymous: false") {
            yaml = yaml.replacen("access: {", "access: { anonymous: true,", 1);
        }
        while let Some(at) = yaml.find(", stall: \"") {
            let end = yaml[at..].match_indices('"').nth(1).expect("a quoted time").0;
            yaml.replace_range(at..=at + end, "");
        }
        self.env.iter().fold(Edge::builder(yaml), |builder, (name, value)| builder.secret(name, value))
    }
}

/// What of the file system a request reaches: there is none.
pub struct Trace;

impl Trace {
    pub fn attach(_test: &str, _bench: &Bench) -> Option<Self> {
        Some(Trace)
    }

    pub fn assert_nothing_outside(self, _bench: &Bench) {}
}

/// See [`Worker::rss_anon_kb`].
pub struct Peak;

impl Peak {
    pub fn of(_bench: &Bench) -> Self {
        Peak
    }

    pub fn most_kb(self) -> u64 {
        0
    }
}

/// Whether a path reaches the Worker as it was sent: the platform resolves dot segments, takes `\` for `/`, and refuses in its
/// own words what no request line may hold.
pub fn arrives_as_sent(path: &str) -> bool {
    let plain = path.replace("%2e", ".").replace("%2E", ".");
    plain.bytes().all(|byte| byte.is_ascii_graphic())
        && !plain.contains('\\')
        && !plain.split(['/', '?']).any(|segment| matches!(segment, "." | ".."))
}

/// Runs cases one after the other: each has a runtime of its own.
pub async fn together(cases: Vec<impl Future<Output = ()> + Send + 'static>) {
    for case in cases {
        case.await;
    }
}

/// A request as it reaches the Worker: the platform says from where it comes.
fn arriving(call: Call) -> Call {
    call.header("cf-connecting-ip", "127.0.0.1")
}

impl Worker {
    pub fn url(&self) -> String {
        self.edge.url("")
    }

    pub fn address(&self) -> SocketAddr {
        self.edge.address()
    }

    pub fn log(&self) -> String {
        self.edge.log()
    }

    pub fn restart(&mut self) {
        self.edge.restart();
    }

    pub fn wait_until(&self, limit: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        self.edge.wait_until(limit, what, |_| condition(self));
    }

    /// A secret that must never occur in the log; looked for when the Worker is dropped (T-CR8).
    pub fn canary(&mut self, secret: impl Into<String>) {
        self.canaries.push(secret.into());
    }

    /// What is in the bucket.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        self.edge.r2_keys().into_iter().map(PathBuf::from).collect()
    }

    /// Digest of the sorted list (key, SHA-256) of everything in the bucket.
    pub fn store_hash(&self) -> String {
        let listing: Vec<String> = self
            .edge
            .r2_keys()
            .iter()
            .map(|key| format!("{key} {}\n", sha256(&self.edge.r2_get(key))))
            .collect();
        sha256(listing.concat().as_bytes())
    }

    pub fn cpu_time(&self) -> Duration {
        self.edge.cpu_time()
    }

    /// The runtime's memory is its garbage collector's affair, so that no test can say anything of it: always zero.
    pub fn rss_anon_kb(&self) -> u64 {
        0
    }

    fn assert_store_is_true(&self) {
        for (key, size) in self.edge.r2() {
            let Some(name) = key.strip_prefix("objects/") else { continue };
            let (algorithm, hex) = name.split_once('/').expect("an algorithm and a hash");
            let bytes = self.edge.r2_get(&key);
            let digest = if algorithm == "sha512" { sha512(&bytes) } else { sha256(&bytes) };
            assert_eq!(
                digest,
                format!("{algorithm}:{hex}"),
                "{key} of {size} bytes is not what its name says"
            );
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = self.edge.log();
        for secret in &self.canaries {
            assert!(!log.contains(secret.as_str()), "the log holds the secret {secret}:\n{log}");
        }
    }
}

/// Asserts that bad content was refused: by 502 in the registry's words, by an answer that broke off, or else it was passed
/// through to the one client that asked first, who is told that it does not come from here.
#[track_caller]
pub fn assert_refused(answer: &Response) {
    if answer.clean_end && answer.status != 502 {
        assert!(matches!(answer.status, 200 | 206), "{answer:?}");
        assert!(answer.header("x-cache").is_none_or(|word| word.starts_with("MISS")), "{answer:?}");
    } else if answer.clean_end {
        assert!(!answer.error_code().is_empty(), "{answer:?}");
    }
}
