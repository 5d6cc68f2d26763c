//! What registries say to whom, whatever carries it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use super::exchange::Names;
use super::file::Rule;
use crate::script::sha256;

/// Headers of a request upstream that a transcript tells.
const TOLD: [&str; 3] = ["authorization", "if-range", "range"];

/// The registries of one replay. Clones share it.
#[derive(Clone, Debug)]
pub struct Script {
    inner: Arc<Mutex<Inner>>,
    contents: Arc<BTreeMap<String, Vec<u8>>>,
    /// The upstream of rules that name none.
    first: String,
}

#[derive(Debug)]
struct Inner {
    rules: Vec<Rule>,
    names: Names,
    asked: Vec<String>,
    unexpected: Vec<String>,
    /// Digests of all bodies that were sent whole, to GET.
    sent: BTreeSet<String>,
}

/// A request as it came to an upstream.
#[derive(Debug)]
pub struct Heard<'a> {
    /// The upstream's name.
    pub upstream: &'a str,
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// What the upstream says to it. `Content-Length` is the carrier's to add, unless `unsized_body`.
#[derive(Clone, Debug)]
pub struct Said {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    /// Sent to anything but HEAD.
    pub body: Vec<u8>,
    pub unsized_body: bool,
    /// The connection breaks after so many bytes of the body.
    pub cut: Option<usize>,
}

impl Script {
    pub(super) fn new(first: String, names: Names, contents: BTreeMap<String, Vec<u8>>) -> Script {
        let (rules, asked, unexpected, sent) = Default::default();
        let inner = Inner { rules, names, asked, unexpected, sent };
        Script { inner: Arc::new(Mutex::new(inner)), contents: Arc::new(contents), first }
    }

    /// Records a request and answers it; 418 if no rule expects it, which fails the replay.
    pub fn hear(&self, heard: &Heard<'_>) -> Said {
        let mut inner = self.lock();
        let Inner { rules, names, asked, unexpected, sent } = &mut *inner;
        let told: Vec<String> =
            TOLD.iter().filter_map(|name| Some(format!("{name}: {}", heard.headers.get(*name)?))).collect();
        let told = if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) };
        let line = format!("{} {{{}}}{}{told}", heard.method, heard.upstream, heard.target);
        asked.push(line.clone());
        let Some(rule) = rules.iter_mut().rev().find(|rule| self.matches(rule, heard, names)) else {
            unexpected.push(line);
            return Said::empty(418);
        };
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        let said = self.said(rule, heard, names);
        if heard.method == "GET" && said.status == 200 && said.cut.is_none() {
            sent.insert(sha256(&said.body));
        }
        said
    }

    /// How many requests there have been since the last exchange.
    pub(super) fn asked(&self) -> usize {
        self.lock().asked.len()
    }

    /// Whether a body with this digest has been sent whole.
    pub(super) fn has_sent(&self, digest: &str) -> bool {
        self.lock().sent.contains(digest)
    }

    pub(super) fn add(&self, rules: &[Rule]) {
        self.lock().rules.extend_from_slice(rules);
    }

    pub(super) fn names(&self) -> Names {
        self.lock().names.clone()
    }

    pub(super) fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().asked)
    }

    pub(super) fn take_unexpected(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().unexpected)
    }

    fn matches(&self, rule: &Rule, heard: &Heard<'_>, names: &Names) -> bool {
        rule.times != Some(0)
            && rule.at.as_deref().unwrap_or(&self.first) == heard.upstream
            && rule
                .when
                .iter()
                .all(|(name, value)| heard.headers.get(name).map_or("", String::as_str) == names.fill(value))
            && self.concerns(rule, heard, names)
    }

    fn concerns(&self, rule: &Rule, heard: &Heard<'_>, names: &Names) -> bool {
        let (path, _) = heard.target.split_once('?').unwrap_or((heard.target, ""));
        let reads = matches!(heard.method, "GET" | "HEAD");
        let repository = &rule.repository;
        if rule.on.is_none()
            && let Some(name) = &rule.manifest
        {
            let digest = sha256(self.content(name));
            return reads
                && rule.tag.iter().chain([&digest]).any(|reference| {
                    path == format!("/v2/{repository}/manifests/{}", names.fill(reference))
                });
        }
        if rule.on.is_none()
            && let Some(name) = &rule.blob
        {
            return reads && path == format!("/v2/{repository}/blobs/{}", sha256(self.content(name)));
        }
        let on = names.fill(rule.on.as_deref().expect("a rule has `manifest`, `blob` or `on`"));
        let (method, wanted) = on.split_once(' ').expect("`on` is a method and a path");
        let method = method == heard.method || (method == "READ" && reads);
        method
            && match wanted.strip_suffix('*') {
                Some(start) => path.starts_with(start),
                None if wanted.contains('?') => heard.target == wanted,
                None => path == wanted,
            }
    }

    fn said(&self, rule: &Rule, heard: &Heard<'_>, names: &Names) -> Said {
        let mut said = match (&rule.manifest, &rule.blob) {
            (Some(name), _) => manifest(self.content(name)),
            (None, Some(name)) => blob(self.content(name), heard),
            (None, None) => Said::empty(200),
        };
        if let Some(status) = rule.status {
            said.status = status;
        }
        for (name, value) in &rule.headers {
            said.headers.insert(name.clone(), names.fill(value));
        }
        // An empty value takes away what a good registry would say.
        said.headers.retain(|_, value| !value.is_empty());
        if let Some(name) = &rule.content {
            said.body = self.content(name).to_vec();
        } else if let Some(text) = &rule.text {
            said.body = names.fill(text).into_bytes();
        }
        (said.unsized_body, said.cut) = (rule.unsized_body, rule.cut);
        said
    }

    fn content(&self, name: &str) -> &[u8] {
        self.contents.get(name).unwrap_or_else(|| panic!("there is no content {name}"))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Said {
    fn empty(status: u16) -> Said {
        Said { status, headers: BTreeMap::new(), body: Vec::new(), unsized_body: false, cut: None }
    }

    fn header(mut self, name: &str, value: impl Into<String>) -> Said {
        self.headers.insert(name.to_owned(), value.into());
        self
    }
}

/// As a good registry serves it.
fn manifest(bytes: &[u8]) -> Said {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let media_type = json["mediaType"].as_str().unwrap_or("application/json").to_owned();
    let digest = sha256(bytes);
    let said = Said::empty(200)
        .header("content-type", media_type)
        .header("etag", format!("\"{digest}\""))
        .header("docker-content-digest", digest);
    Said { body: bytes.to_vec(), ..said }
}

/// As a good registry serves it, ranges included.
fn blob(bytes: &[u8], heard: &Heard<'_>) -> Said {
    let etag = format!("\"{}\"", sha256(bytes));
    let holds = heard.headers.get("if-range").is_none_or(|tag| *tag == etag);
    let range = heard.headers.get("range").filter(|_| holds).and_then(|text| range(text));
    let said = Said::empty(200)
        .header("content-type", "application/octet-stream")
        .header("accept-ranges", "bytes")
        .header("etag", etag);
    match range {
        None => Said { body: bytes.to_vec(), ..said },
        Some((first, _)) if first >= bytes.len() => {
            Said::empty(416).header("content-range", format!("bytes */{}", bytes.len()))
        }
        Some((first, last)) => {
            let end = last.map_or(bytes.len(), |last| (last + 1).min(bytes.len()));
            let said = said.header("content-range", format!("bytes {first}-{}/{}", end - 1, bytes.len()));
            Said { status: 206, body: bytes[first..end].to_vec(), ..said }
        }
    }
}

/// First and (inclusive) last byte of `bytes=a-[b]`.
fn range(text: &str) -> Option<(usize, Option<usize>)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let last = if last.is_empty() { None } else { Some(last.parse().ok()?) };
    Some((first.parse().ok()?, last))
}
