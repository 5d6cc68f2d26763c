//! Exchanges that every host must answer alike.
//!
//! A file of `transcripts/` says how a mirror is configured, what registries say and what clients ask, and below the line
//! `---` what they get. The same files are replayed through the engine in memory, the native server over a socket and
//! the Worker in its runtime, and the answers must be equal but for [`PLATFORM`].
//!
//! What is expected is written by the engine's replay (`TRANSCRIPTS_WRITE=1`) and read by whoever commits it.
//! `TRANSCRIPTS=<part of a name>` replays only some of the files. The form of a file is in `transcripts/README.md`.

mod exchange;
mod file;
mod script;
mod sockets;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use exchange::Names;
pub use exchange::{Answer, Exchange};
use file::{Ask, Written};
pub use script::{Heard, Said, Script};
pub use sockets::{Over, Sockets};

/// Headers that belong to the connection or the platform, and why no transcript speaks of them. Nothing else may differ
/// between two hosts.
pub const PLATFORM: &[(&str, &str)] = &[
    ("connection", "of the one connection, which the engine does not have and a Worker does not see"),
    ("date", "set by whoever writes to the socket"),
    (
        "entrepot-config",
        "by which configuration a Worker answered; there may be several, and a process has one",
    ),
    ("keep-alive", "of the one connection"),
    ("transfer-encoding", "how the one connection frames a body; its length is compared where it is said"),
];

/// Headers of nearly every answer. A transcript names one of them only where an answer has another value, or none:
/// [`NONE`].
pub const USUAL: &[(&str, &str)] = &[
    ("access-control-allow-origin", "*"),
    (
        "access-control-expose-headers",
        "Docker-Content-Digest, Docker-Distribution-API-Version, Content-Length, Content-Range, ETag, Link, \
         OCI-Filters-Applied, OCI-Namespace, Retry-After, Warning, X-Cache, Cache-Status, RateLimit-Limit, \
         RateLimit-Remaining, RateLimit-Reset",
    ),
    ("docker-distribution-api-version", "registry/2.0"),
    ("x-content-type-options", "nosniff"),
];

/// Stands for a usual header that an answer does not have.
pub const NONE: &str = "(none)";

/// Seconds that a replay in real time may be behind the engine's, whose clock stands still: in `max-age`, `age` and
/// `retry-after`.
pub const TOLERANCE: u64 = 5;

/// The public URL that every transcript's mirror has, so that answers can name it.
pub const ENDPOINT: &str = "https://mirror.example.com";

/// The `Host` of a request that names none.
const HOST: &str = "mirror.example.com";

/// Between what a person writes and what a replay writes.
const LINE: &str = "\n---\n";

/// One file.
#[derive(Debug)]
pub struct Transcript {
    /// The file's name without its ending.
    pub name: String,
    path: PathBuf,
    /// Everything above the line, verbatim.
    text: String,
    written: Written,
    contents: BTreeMap<String, Vec<u8>>,
    expected: Vec<Exchange>,
}

/// Where a transcript is replayed.
pub trait Host {
    /// Sends a request and waits for its whole answer.
    fn ask(&mut self, ask: &Request) -> Answer;
    /// Waits until the work that outlives the last answer is done.
    fn settle(&mut self, after: &After);
    /// An upstream goes away, or comes back.
    fn turn(&mut self, upstream: &str, up: bool);
}

/// What is to come after an answer.
#[derive(Clone, Debug, Default)]
pub struct After {
    /// Requests upstream that there must be in the end.
    pub asked: usize,
    /// The digest of the blob whose fill the answer has begun.
    pub fills: Option<String>,
}

/// A client's request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// In lower case; `host` is always there.
    pub headers: BTreeMap<String, String>,
    pub body: Option<String>,
}

/// Whether requests can follow another's fill, as natively. In a Worker they cannot: a cold blob passes through to its
/// client unheld, and the store is filled apart from that. It is all in which two hosts may differ, and a file that shows a
/// difference to clients says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fills {
    Followed,
    Apart,
}

/// Replays every file with `run`, which answers what was seen. Panics with all that differs from what is expected.
#[track_caller]
pub fn replay_all(fills: Fills, run: impl Fn(&Transcript) -> Vec<Exchange>) {
    let mut complaints = Vec::new();
    for transcript in &wanted() {
        complaints.extend(transcript.complaints(fills, &run(transcript)));
    }
    assert!(complaints.is_empty(), "{} differences:\n{}", complaints.len(), complaints.join("\n"));
}

/// Writes what is seen into every file.
pub fn write_all(run: impl Fn(&Transcript, Fills) -> Vec<Exchange>) {
    for transcript in &wanted() {
        let seen = run(transcript, Fills::Followed);
        let apart = run(transcript, Fills::Apart);
        let both: Vec<Exchange> =
            seen.into_iter().zip(&apart).map(|(one, other)| one.merged(other)).collect();
        transcript.write(&both);
    }
}

fn wanted() -> Vec<Transcript> {
    let only = std::env::var("TRANSCRIPTS").unwrap_or_default();
    let wanted: Vec<Transcript> =
        Transcript::all().into_iter().filter(|transcript| transcript.name.contains(&only)).collect();
    assert!(!wanted.is_empty(), "there are transcripts named {only}");
    wanted
}

impl Transcript {
    /// All files of `transcripts/`, by name. Panics with the file that is no transcript.
    pub fn all() -> Vec<Transcript> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../transcripts");
        let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
            .map(|entry| entry.expect("an entry of the directory").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "yml"))
            .collect();
        paths.sort();
        paths.into_iter().map(Transcript::read).collect()
    }

    fn read(path: PathBuf) -> Transcript {
        let shown = path.display();
        let whole = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let (text, expected) = whole.split_once(LINE).unwrap_or((whole.trim_end(), ""));
        let written: Written =
            serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{shown}: {error}"));
        let expected = match expected.trim() {
            "" => Vec::new(),
            list => serde_saphyr::from_str(list)
                .unwrap_or_else(|error| panic!("{shown}, below the line: {error}")),
        };
        let contents = file::contents(&written.content);
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        Transcript { name, text: text.to_owned(), written, contents, expected, path }
    }

    /// The upstreams' names.
    pub fn upstreams(&self) -> &[String] {
        &self.written.upstreams
    }

    /// What registries will say; `addresses` are the upstreams' URLs by name.
    pub fn script(&self, addresses: &BTreeMap<String, String>) -> Script {
        let first = self.written.upstreams.first().cloned().unwrap_or_default();
        Script::new(first, self.names(addresses), self.contents.clone())
    }

    /// The configuration below `proxy:` but for what every host adds itself: endpoint, addresses and directory.
    pub fn config(&self, addresses: &BTreeMap<String, String>) -> Map<String, Value> {
        let text = self.names(addresses).fill(&Value::Object(self.written.config.clone()).to_string());
        serde_json::from_str(&text).expect("addresses do not change the form of JSON")
    }

    /// The whole configuration of a process: what it listens on and stores in are the words that `mirror` replaces.
    pub fn whole_config(&self, addresses: &BTreeMap<String, String>) -> String {
        let mut proxy = self.config(addresses);
        for (key, value) in [("endpoint", ENDPOINT), ("listen", "__LISTEN__"), ("admin", "__ADMIN__")] {
            proxy.insert(key.to_owned(), json!(value));
        }
        let cache = proxy.entry("cache").or_insert_with(|| json!({}));
        cache["dir"] = json!("__CACHE__");
        json!({ "proxy": proxy }).to_string()
    }

    /// The whole configuration of a Worker, which is closed unless it is told otherwise.
    pub fn edge_config(&self, addresses: &BTreeMap<String, String>) -> String {
        let mut proxy = self.config(addresses);
        proxy.insert("endpoint".to_owned(), json!(ENDPOINT));
        let access = proxy.entry("access").or_insert_with(|| json!({}));
        if access["anonymous"].is_null() {
            access["anonymous"] = json!(true);
        }
        json!({ "proxy": proxy }).to_string()
    }

    /// Takes every step in order.
    pub fn replay(&self, fills: Fills, host: &mut impl Host, script: &Script) -> Vec<Exchange> {
        let mut names = script.names();
        let mut seen = Vec::new();
        for step in &self.written.steps {
            script.add(&step.say);
            for (upstream, up) in
                step.down.iter().map(|name| (name, false)).chain(step.back.iter().map(|name| (name, true)))
            {
                assert!(self.written.upstreams.contains(upstream), "{}: no upstream {upstream}", self.name);
                host.turn(upstream, up);
            }
            let Some(ask) = &step.ask else { continue };
            let request = request(ask, step, &names);
            let answer = host.ask(&request);
            let expected = self.expected.get(seen.len());
            host.settle(&After {
                asked: expected.map_or(0, |expected| expected.asks(fills)),
                fills: answer.fills().map(str::to_owned),
            });
            names.keep(&step.keep, &answer);
            seen.push(Exchange::of(ask, script.take_asked(), &answer, &names, &self.contents));
        }
        let unexpected = script.take_unexpected();
        assert!(unexpected.is_empty(), "{}: the script does not expect {unexpected:#?}", self.name);
        seen
    }

    /// How what was seen differs from what is expected.
    fn complaints(&self, fills: Fills, seen: &[Exchange]) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.written.apart.is_none() && self.expected.iter().any(Exchange::differs) {
            complaints.push(format!(
                "{}: answers differ where fills are apart, and `apart` does not say why",
                self.name
            ));
        }
        if seen.len() != self.expected.len() {
            let counts = format!("{} exchanges, {} expected", seen.len(), self.expected.len());
            complaints
                .push(format!("{}: {counts}: write it with TRANSCRIPTS_WRITE=1 and read it", self.name));
        }
        for (number, (seen, expected)) in seen.iter().zip(&self.expected).enumerate() {
            let expected = expected.with(fills);
            let differences = expected.differences(seen);
            if !differences.is_empty() {
                let differences = differences.join("\n    ");
                complaints.push(format!(
                    "{}, {}. {}:\n    {differences}",
                    self.name,
                    number + 1,
                    expected.ask
                ));
            }
        }
        complaints
    }

    fn write(&self, seen: &[Exchange]) {
        let list: Vec<String> = seen.iter().map(Exchange::yaml).collect();
        let text = format!("{}{LINE}{}", self.text, list.join("\n"));
        fs::write(&self.path, text).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()));
    }

    fn names(&self, addresses: &BTreeMap<String, String>) -> Names {
        Names::new(addresses, &self.contents)
    }
}

fn request(ask: &Ask, step: &file::Step, names: &Names) -> Request {
    let (method, target) = ask.0.split_once(' ').expect("an ask is a method and a target");
    let mut headers: BTreeMap<String, String> =
        step.with.iter().map(|(name, value)| (name.to_ascii_lowercase(), names.fill(value))).collect();
    headers.entry("host".to_owned()).or_insert_with(|| HOST.to_owned());
    Request {
        method: method.to_owned(),
        target: names.fill(target),
        headers,
        body: step.form.as_ref().map(|form| names.fill(form)),
    }
}
