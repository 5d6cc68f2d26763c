//! The configuration as the edge reads it: closed unless opened, with a limit unless told otherwise, and without what only
//! a machine at home has.

mod bundle;

use std::time::Duration;

use super::problem::Problems;
use super::read::{At, Reader, Site};
use super::tree::{Entry, Node, Value};
use super::units::Rate;
use super::value::{Origin, Scalar};
use super::{Loaded, SecretRef, read_all};

pub use bundle::{Bundle, Kept, Wanted, bundle};

/// As [`super::parse`], where a Worker runs: `access.anonymous` is false and `rate_limit` is `100/min` unless the file says
/// otherwise, and what the edge cannot honour is a problem. `secrets` is asked for variables only. Without the feature `yaml`
/// the text must be JSON, as [`bundle`] makes it.
///
/// # Errors
/// All that is wrong.
pub fn parse(
    text: &str,
    file: &str,
    secrets: &mut dyn FnMut(&SecretRef) -> Result<String, String>,
) -> Result<Loaded, Problems> {
    read_all(Node::parse(text), Reader::new(file, Site::Edge, secrets))
}

/// Where a Worker is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the platform: under a domain, over https, with no way to private addresses.
    Platform,
    /// In a runtime on this machine, which has neither a domain nor a certificate.
    Local,
}

/// Judges a file before it is deployed, where the Worker's secrets are not at hand: something stands in their place, so the
/// configuration tells everything else, and is not to be served by. What means nothing at the edge is a warning.
///
/// # Errors
/// All that is wrong, and all that the edge cannot honour.
pub fn check(text: &str, file: &str, place: Place) -> Result<Loaded, Problems> {
    let site = match place {
        Place::Platform => Site::EdgeToBe,
        Place::Local => Site::Edge,
    };
    read_all(Node::parse(text), Reader::new(file, site, &mut stand_in))
}

/// What can be read as a password and as a client's line.
fn stand_in(reference: &SecretRef) -> Result<String, String> {
    let (SecretRef::File(name) | SecretRef::Env(name)) = reference;
    let word = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = name.chars().map(word).take(64).collect();
    Ok(format!("{name}:{}", "0".repeat(64)))
}

/// Says what of a file means nothing at the edge, or cannot be honoured there. What needs files or programs is found where
/// those are asked for. At home nothing is said.
pub(super) fn judge(reader: &mut Reader<'_>, root: &Node) {
    if !reader.site.is_edge() {
        return;
    }
    let Some(proxy) = root.entry("proxy").map(|entry| &entry.node) else { return };
    endpoint(reader, proxy);
    for key in ["listen", "admin", "tls"] {
        at_home_only(reader, proxy.entry(key), format!("proxy.{key}"));
    }
    at_home_only(reader, below(proxy, "cache", "dir"), "proxy.cache.dir".into());
    if let Some(entry) = proxy.entry("trusted_proxies") {
        let message = "the edge believes the platform alone about a client's address";
        reader.problem(&at(entry, "proxy.trusted_proxies".into()), message, "remove the key");
    }
    if let Some(entry) = below(proxy, "access", "anonymous").filter(is_true) {
        let message =
            "anyone may pull through this Worker, at your cost, and the platform's terms forbid open proxies";
        let remedy = "remove the key, and give your clients tokens or secrets";
        reader.warn(&at(entry, "proxy.access.anonymous".into()), message, remedy);
    }
    limit(reader, proxy);
    if let Some(Value::List(sources)) = proxy.entry("sources").map(|entry| &entry.node.value) {
        for (index, node) in sources.iter().enumerate() {
            source(reader, node, &format!("proxy.sources[{index}]"));
        }
    }
}

/// The platform routes names, and has certificates for those.
fn endpoint(reader: &mut Reader<'_>, proxy: &Node) {
    let Some(entry) = proxy.entry("endpoint") else { return };
    let (Value::Text(text), Site::EdgeToBe) = (&entry.node.value, reader.site) else { return };
    let Ok(Origin(url)) = Origin::read(text) else { return };
    if url.scheme() != "https" || url.port().is_some() || url.domain().is_none_or(|host| !host.contains('.'))
    {
        let message = "the platform serves https, on its own port, under a name in one of your zones";
        let remedy = "write it like \"https://mirror.example.com\"";
        reader.problem(&at(entry, "proxy.endpoint".into()), message, remedy);
    }
}

fn at_home_only(reader: &mut Reader<'_>, entry: Option<&Entry>, key: String) {
    if let Some(entry) = entry {
        let message = "this belongs to a machine, and means nothing at the edge";
        reader.warn(&at(entry, key), message, "leave it for the mirror at home, or remove it");
    }
}

/// The platform counts by the minute (or ten seconds, which no rate of ours says), and knows no burst.
fn limit(reader: &mut Reader<'_>, proxy: &Node) {
    let Some(entry) = below(proxy, "rate_limit", "anonymous") else { return };
    let Value::Text(text) = &entry.node.value else { return };
    let Ok(rate) = Rate::read(text) else { return };
    if rate.per != Duration::from_secs(60) {
        let message = "the platform counts requests by the minute";
        let key = "proxy.rate_limit.anonymous".into();
        reader.problem(&at(entry, key), message, "write a rate like \"100/min\"");
    }
    if let Some(burst) = below(proxy, "rate_limit", "burst") {
        let same = matches!(&burst.node.value, Value::Number(number) if *number == rate.count.to_string());
        if !same {
            let message = "the platform lets all requests of a minute come at once";
            reader.problem(&at(burst, "proxy.rate_limit.burst".into()), message, "remove the key");
        }
    }
}

fn source(reader: &mut Reader<'_>, source: &Node, key: &str) {
    let insecure = source.entry("insecure").filter(is_true);
    if let (Some(entry), true) = (insecure, source.entry("url").is_some_and(is_https)) {
        let message = "the platform verifies every certificate";
        let remedy = "remove the key, and give the registry a certificate that the public trusts";
        reader.problem(&at(entry, format!("{key}.insecure")), message, remedy);
    }
    let private = source.entry("allow_private").filter(is_true);
    if let (Some(entry), Site::EdgeToBe) = (private, reader.site) {
        let message = "a Worker reaches public addresses only";
        let remedy = "leave this source to a mirror at home, and make that a source of `type: entrepot`";
        reader.problem(&at(entry, format!("{key}.allow_private")), message, remedy);
    }
    if let Some(entry) = below(source, "timeouts", "stall") {
        let message = "bodies pass through the platform, which does not tell of pauses in them";
        reader.problem(&at(entry, format!("{key}.timeouts.stall")), message, "remove the key");
    }
}

fn below<'n>(node: &'n Node, section: &str, key: &str) -> Option<&'n Entry> {
    node.entry(section)?.node.entry(key)
}

fn at(entry: &Entry, key: String) -> At {
    match entry.node.line {
        0 => At { key, line: entry.line, column: entry.column },
        _ => At::of(key, &entry.node),
    }
}

fn is_true(entry: &&Entry) -> bool {
    matches!(entry.node.value, Value::Bool(true))
}

fn is_https(entry: &Entry) -> bool {
    matches!(&entry.node.value, Value::Text(url) if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:")))
}
