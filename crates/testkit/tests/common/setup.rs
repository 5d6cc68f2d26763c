//! A configuration in the making, and what it starts.

use std::collections::BTreeMap;

use entrepot_testkit::script::Upstream;

use super::{Bench, CACHE, PROXY};

/// A configuration in the making: keys and YAML values of the three places that tests set things in.
pub struct Setup {
    pub(super) upstream: Upstream,
    pub(super) proxy: BTreeMap<String, String>,
    pub(super) cache: BTreeMap<String, String>,
    pub(super) source: BTreeMap<String, String>,
    pub(super) more_sources: Vec<BTreeMap<String, String>>,
    pub(super) env: Vec<(String, String)>,
    pub(super) open_files: Option<u64>,
    pub(super) directory: Option<std::path::PathBuf>,
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
        let (proxy, cache) = (map(PROXY), map(CACHE));
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
        if !self.cache.is_empty() {
            text.push_str("  cache:\n");
        }
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
        Bench::start(self)
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
