//! The form of what a person writes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::exchange::Names;
use crate::script::{Body, Pattern};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    /// What the file shows.
    #[expect(dead_code, reason = "for people; that it is there is what is checked")]
    about: String,
    /// Why clients see a difference where fills are apart, if they do.
    pub(super) apart: Option<String>,
    /// Names of upstreams, each on an address of its own.
    #[serde(default = "one_upstream")]
    pub(super) upstreams: Vec<String>,
    pub(super) config: Map<String, Value>,
    #[serde(default)]
    pub(super) content: BTreeMap<String, Content>,
    pub(super) steps: Vec<Step>,
}

/// Bytes with a name.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Content {
    /// As it stands, with placeholders filled in.
    Text(String),
    /// So many that look random.
    Generated { seed: u64, size: u64 },
}

/// First what changes upstream, then at most one request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Step {
    /// What registries say from now on; the newest rule that matches answers.
    #[serde(default)]
    pub(super) say: Vec<Rule>,
    /// Upstreams that go away, and come back.
    #[serde(default)]
    pub(super) down: Vec<String>,
    #[serde(default)]
    pub(super) back: Vec<String>,
    pub(super) ask: Option<Ask>,
    /// The request's headers.
    #[serde(default)]
    pub(super) with: BTreeMap<String, String>,
    /// The request's body, a form.
    pub(super) form: Option<String>,
    /// Fields of the answer's JSON that differ each time: placeholders by name, for this answer and later requests.
    #[serde(default)]
    pub(super) keep: BTreeMap<String, String>,
}

/// `GET /v2/`
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Ask(pub(super) String);

/// What a registry says to some requests. One of `manifest`, `blob` and `on` is there.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Rule {
    /// The upstream; the first unless told.
    pub(super) at: Option<String>,
    /// A content that is served as a good registry serves a manifest, by digest and by `tag`.
    pub(super) manifest: Option<String>,
    /// A content that is served as a good registry serves a blob.
    pub(super) blob: Option<String>,
    /// The repository of `manifest` and `blob`.
    #[serde(rename = "in")]
    pub(super) repository: String,
    pub(super) tag: Option<String>,
    /// `GET /path`, with a query if that matters. `READ` is GET and HEAD; a path that ends in `*` is a prefix.
    pub(super) on: Option<String>,
    /// Only requests with these headers; an empty value: without the header.
    pub(super) when: BTreeMap<String, String>,
    /// How many requests it answers; all unless told.
    pub(super) times: Option<usize>,
    /// 200 unless told. Of `manifest` and `blob` too, and so are `headers`, which replace theirs.
    pub(super) status: Option<u16>,
    pub(super) headers: BTreeMap<String, String>,
    /// The body: the name of a content, or a text.
    pub(super) content: Option<String>,
    pub(super) text: Option<String>,
    /// The head does not say how long the body is.
    pub(super) unsized_body: bool,
    /// The connection breaks after so many bytes of the body.
    pub(super) cut: Option<usize>,
}

fn one_upstream() -> Vec<String> {
    vec!["up".to_owned()]
}

/// All contents, in an order in which each names only those before it.
pub(super) fn contents(written: &BTreeMap<String, Content>) -> BTreeMap<String, Vec<u8>> {
    let mut contents = BTreeMap::new();
    while contents.len() < written.len() {
        let names = Names::new(&BTreeMap::new(), &contents);
        let ready: Vec<(String, Vec<u8>)> = written
            .iter()
            .filter(|(name, _)| !contents.contains_key(*name))
            .filter_map(|(name, content)| Some((name.clone(), bytes(content, &names)?)))
            .collect();
        assert!(!ready.is_empty(), "contents that name one another, or none that there is: {written:#?}");
        contents.extend(ready);
    }
    contents
}

/// `None` while it names a content that is not there yet.
fn bytes(content: &Content, names: &Names) -> Option<Vec<u8>> {
    match content {
        Content::Text(text) => {
            let text = names.fill(text);
            let waits = ["{digest:", "{hex:", "{size:"].iter().any(|open| text.contains(open));
            (!waits).then(|| text.into_bytes())
        }
        Content::Generated { seed, size } => Some(Body::from(Pattern::new(*seed, *size)).slice(0..*size)),
    }
}
