//! A scripted upstream with a mirror before it, and the few questions that most tests ask of the two.
#![allow(
    dead_code,
    missing_debug_implementations,
    unreachable_pub,
    reason = "each test file uses its own part of this"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use entrepot_testkit::http::{self, Call, Response};
use entrepot_testkit::mirror::Mirror;
use entrepot_testkit::script::Upstream;

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

/// A configuration in the making: keys and YAML values of the three places that tests set things in.
pub struct Setup {
    upstream: Upstream,
    proxy: BTreeMap<String, String>,
    cache: BTreeMap<String, String>,
    source: BTreeMap<String, String>,
    more_sources: Vec<BTreeMap<String, String>>,
    env: Vec<(String, String)>,
    open_files: Option<u64>,
    directory: Option<std::path::PathBuf>,
}

impl Bench {
    /// One source called `up`, named `up.test`, on a scripted upstream without rules. Names that carry no registry are
    /// its own.
    pub fn new() -> Self {
        Self::setup().start()
    }

    pub fn setup() -> Setup {
        Self::setup_over(Upstream::start())
    }

    pub fn setup_over(upstream: Upstream) -> Setup {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let source = source_of("up", &upstream.url());
        let proxy = map(&[("endpoint", "__ENDPOINT__"), ("listen", "__LISTEN__"), ("admin", "__ADMIN__")]);
        let cache = map(&[("dir", "__CACHE__")]);
        Setup {
            upstream,
            proxy,
            cache,
            source,
            more_sources: Vec::new(),
            env: Vec::new(),
            open_files: None,
            directory: None,
        }
    }

    /// A GET of a path of the mirror.
    pub fn get(&self, path: impl AsRef<str>) -> Call {
        http::get(self.url(path))
    }

    pub fn head(&self, path: impl AsRef<str>) -> Call {
        http::head(self.url(path))
    }

    pub fn request(&self, method: &str, path: impl AsRef<str>) -> Call {
        http::request(method, self.url(path))
    }

    pub fn url(&self, path: impl AsRef<str>) -> String {
        format!("{}{}", self.mirror.url(), path.as_ref())
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

    /// Waits until nothing is stored, half-finished files included.
    pub fn assert_nothing_stored(&self) {
        self.mirror.wait_until(Duration::from_secs(5), "nothing is stored", |mirror| {
            mirror.stored_files().is_empty()
        });
    }

    /// Waits until a path answers as a condition demands, which a breaker or a back-off may delay.
    pub async fn eventually(&self, path: &str, what: &str, good: impl Fn(&Response) -> bool) -> Response {
        let start = std::time::Instant::now();
        loop {
            let answer = self.get(path).send_or_broken().await;
            if good(&answer) {
                return answer;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {path} still answers {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Setup {
    /// A key directly under `proxy`, with its YAML value; values that are plain text are quoted by the caller.
    pub fn proxy(mut self, key: &str, value: impl Into<String>) -> Self {
        self.proxy.insert(key.to_owned(), value.into());
        self
    }

    /// A key under `proxy.cache`.
    pub fn cache(mut self, key: &str, value: impl Into<String>) -> Self {
        self.cache.insert(key.to_owned(), value.into());
        self
    }

    /// A key of the source.
    pub fn source(mut self, key: &str, value: impl Into<String>) -> Self {
        self.source.insert(key.to_owned(), value.into());
        self
    }

    /// Another source with this name, named `<name>.test`.
    pub fn and_source(mut self, name: &str, url: &str, keys: &[(&str, &str)]) -> Self {
        let mut source = source_of(name, url);
        source.extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        self.more_sources.push(source);
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// What the mirror may have open at once.
    pub fn open_files(mut self, limit: u64) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Stores in this directory instead of a temporary one.
    pub fn directory(mut self, directory: impl Into<std::path::PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// The configuration as it would be written.
    pub fn yaml(&self) -> String {
        let mut text = String::from("proxy:\n");
        if !self.more_sources.is_empty() && !self.proxy.contains_key("default_source") {
            text.push_str("  default_source: \"up\"\n");
        }
        for (key, value) in &self.proxy {
            text.push_str(&format!("  {key}: {}\n", quoted(value)));
        }
        text.push_str("  cache:\n");
        for (key, value) in &self.cache {
            text.push_str(&format!("    {key}: {}\n", quoted(value)));
        }
        text.push_str("  sources:\n");
        for source in std::iter::once(&self.source).chain(&self.more_sources) {
            let mut mark = "-";
            for (key, value) in source {
                text.push_str(&format!("    {mark} {key}: {}\n", quoted(value)));
                mark = " ";
            }
        }
        text
    }

    pub fn start(self) -> Bench {
        let builder = self
            .env
            .iter()
            .fold(Mirror::builder(self.yaml()), |builder, (name, value)| builder.env(name, value));
        let builder = match self.open_files {
            Some(limit) => builder.open_files(limit),
            None => builder,
        };
        let builder = match self.directory {
            Some(directory) => builder.cache(directory),
            None => builder,
        };
        let mirror = builder.start();
        Bench { baseline: (mirror.fds(), mirror.rss_anon_kb()), mirror, upstream: self.upstream }
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

fn source_of(name: &str, url: &str) -> BTreeMap<String, String> {
    [
        ("name", name.to_owned()),
        ("type", "registry".to_owned()),
        ("url", url.to_owned()),
        ("names", format!("[\"{name}.test\"]")),
        ("insecure", "true".to_owned()),
        ("allow_private", "true".to_owned()),
        ("timeouts", "{ connect: \"2s\", first_byte: \"3s\", stall: \"3s\" }".to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Lists, maps, numbers and booleans stand as they are; anything else becomes a quoted text.
fn quoted(value: &str) -> String {
    let plain = value.starts_with(['[', '{', '"'])
        || value == "true"
        || value == "false"
        || value.parse::<f64>().is_ok();
    if plain { value.to_owned() } else { format!("\"{value}\"") }
}

/// Asserts the status, and the code of an OCI error body.
#[track_caller]
pub fn assert_error(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{answer:?}");
}

/// Asserts that a blob was refused: either 502 in the registry's words, or an answer that visibly broke off.
#[track_caller]
pub fn assert_refused(answer: &Response) {
    if answer.clean_end {
        assert_eq!(answer.status, 502, "bad content may not look complete: {answer:?}");
        assert!(!answer.error_code().is_empty());
    }
}

/// Asserts that an answer carries no header but those we mean to send.
#[track_caller]
pub fn assert_only_our_headers(answer: &Response) {
    const OURS: &[&str] = &[
        "accept-ranges",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "age",
        "allow",
        "cache-control",
        "cache-status",
        "connection",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "docker-content-digest",
        "docker-distribution-api-version",
        "etag",
        "link",
        "oci-filters-applied",
        "oci-namespace",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "retry-after",
        "transfer-encoding",
        "vary",
        "warning",
        "www-authenticate",
        "x-cache",
        "x-content-type-options",
    ];
    for (name, value) in &answer.head.headers {
        assert!(OURS.contains(&name.as_str()), "the header {name}: {value} is not ours: {answer:?}");
    }
}
