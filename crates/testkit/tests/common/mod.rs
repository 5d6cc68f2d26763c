//! A scripted upstream with a mirror before it, and the few questions that most tests ask of the two. Here the mirror is
//! the binary; in `edge.rs` it is the Worker, under the same names.
#![allow(
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    unused_imports,
    reason = "each test file uses its own part of this"
)]

mod asking;
mod peak;
mod setup;
mod trace;

use std::time::{Duration, Instant};

use entrepot_testkit::http::{Call, Response};
use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::script::Upstream;

pub use asking::{assert_error, assert_only_our_headers};
pub use peak::Peak;
pub use setup::Setup;
pub use trace::Trace;

/// What every configuration begins with.
const PROXY: &[(&str, &str)] =
    &[("endpoint", "__ENDPOINT__"), ("listen", "__LISTEN__"), ("admin", "__ADMIN__")];
const CACHE: &[(&str, &str)] = &[("dir", "__CACHE__")];

/// Statuses by which what stands before the mirror refuses what is no request for it.
pub const BEFORE_IT: &[u16] = &[];

/// What is answered beside the registry's API.
pub const BESIDE: &[&str] = &[];

/// How a target is refused that is longer than any of ours.
pub const TOO_LONG: &[u16] = &[414, 431];

/// Whether the host can tell an answer that is no HTTP, and a failed TLS handshake, from a broken connection.
pub const TELLS_FAULTS: bool = true;

/// How soon after its start the mirror serves what it holds.
pub const STARTS_WITHIN: Duration = Duration::from_secs(2);

/// How many of many like cases are tried, each with a mirror of its own.
pub const FIRST_OF_MANY: usize = usize::MAX;

/// Whether a header without a value reaches the mirror.
pub const EMPTY_HEADERS_ARRIVE: bool = true;

/// Headers of its own that the host adds.
const HOSTS: &[&str] = &[];

pub struct Bench {
    // Dropped first: it must not ask an upstream that has gone.
    pub mirror: Mirror,
    pub upstream: Upstream,
    /// Open files and anonymous kB once it had started.
    baseline: (usize, u64),
}

/// What may stay open and in memory after a test: idle connections upstream, caches of fixed size.
const FDS_OVER: usize = 32;
const KB_OVER: u64 = 64 * 1024;

impl Bench {
    /// At home an answer that is out has been asked for upstream: there is nothing to wait for.
    pub fn settle(&self) {}

    fn start(setup: Setup) -> Bench {
        let builder = setup
            .env
            .iter()
            .fold(Mirror::builder(setup.yaml()), |builder, (name, value)| builder.env(name, value));
        let builder = match setup.open_files {
            Some(limit) => builder.open_files(limit),
            None => builder,
        };
        let builder = match setup.directory {
            Some(directory) => builder.cache(directory),
            None => builder,
        };
        let mirror = builder.start();
        Bench { baseline: (mirror.fds(), mirror.rss_anon_kb()), mirror, upstream: setup.upstream }
    }

    /// The largest sample among all metrics whose name or labels contain a word. Zero if there is none.
    pub fn counted(&self, word: &str) -> f64 {
        self.mirror
            .metrics()
            .lines()
            .filter(|line| !line.starts_with('#') && line.contains(word))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .fold(0.0, f64::max)
    }

    /// Ends the mirror and starts it again: same address, same store. Since when it starts.
    pub fn restart(&mut self) -> Instant {
        self.mirror.sigterm();
        assert!(self.mirror.wait_exit(Duration::from_secs(10)).is_some(), "it ends");
        let start = Instant::now();
        self.mirror.restart();
        start
    }

    /// Asserts that the mirror calls itself ready.
    pub fn assert_ready(&self) {
        let (status, page) = self.mirror.admin_get("/readyz");
        assert_eq!(status, 200, "an upstream that is away is no reason to be out of service: {page}");
    }

    /// Asserts what `/readyz` tells of the host at this URL.
    pub fn assert_tells(&self, url: &str, failing: bool) {
        let (_, page) = self.mirror.admin_get("/readyz");
        let told = page.lines().any(|line| line.contains(url) && line.contains("failing"));
        assert_eq!(told, failing, "{url}: {page}");
    }

    /// Waits until nothing is being fetched for the store.
    pub fn wait_for_fills(&self) {
        self.mirror.wait_until(Duration::from_secs(10), "no fill is under way", |mirror| {
            mirror.metric("filling", &[]) == 0.0 && mirror.metric("entrepot_filling", &[]) == 0.0
        });
    }

    /// For tests that leave more with the allocator than others.
    pub fn forget_memory(&mut self) {
        self.mirror.kill9();
    }

    /// A GET by a client at this address, behind a proxy that `Setup::behind_a_proxy` made known.
    pub fn get_from(&self, address: &str, path: &str) -> Call {
        self.get(path).header("x-forwarded-for", address)
    }

    /// Waits until nothing is stored, half-finished files included.
    pub fn assert_nothing_stored(&self) {
        self.mirror.wait_until(Duration::from_secs(5), "nothing is stored", |mirror| {
            mirror.stored_files().is_empty()
        });
    }
}

/// Whatever a test did, it leaves nothing open and nothing in memory behind.
impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.mirror.runs() {
            return;
        }
        let (fds, kb) = self.baseline;
        self.mirror.wait_until(Duration::from_secs(10), "open files are back to what they were", |mirror| {
            mirror.fds() <= fds + FDS_OVER
        });
        self.mirror.wait_until(Duration::from_secs(10), "memory is back to what it was", |mirror| {
            mirror.rss_anon_kb() <= kb + KB_OVER
        });
    }
}

/// Asserts that a blob was refused: either 502 in the registry's words, or an answer that visibly broke off.
#[track_caller]
pub fn assert_refused(answer: &Response) {
    if answer.clean_end {
        assert_eq!(answer.status, 502, "bad content may not look complete: {answer:?}");
        assert!(!answer.error_code().is_empty());
    }
}

impl Setup {
    /// Has the mirror believe what the tests' own address says of clients.
    pub fn behind_a_proxy(self) -> Setup {
        self.proxy("trusted_proxies", "[\"127.0.0.1/32\"]")
    }
}

/// Runs cases at the same time.
pub async fn together(cases: Vec<impl Future<Output = ()> + Send + 'static>) {
    let cases: Vec<_> = cases.into_iter().map(tokio::spawn).collect();
    for case in cases {
        case.await.expect("a case that holds");
    }
}

/// A request as it reaches the mirror.
fn arriving(call: Call) -> Call {
    call
}

/// Whether a path reaches the mirror as it was sent.
pub fn arrives_as_sent(_path: &str) -> bool {
    true
}

/// True where the Worker stands in for the binary, and the test is none of its own: see `worker_acceptance/apart.rs`.
pub fn at_home_only(_test: &str) -> bool {
    false
}
