//! One request with its answer, in the words of the file.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::file::Ask;
use super::{Fills, NONE, PLATFORM, TOLERANCE, USUAL};
use crate::script::sha256;

/// Bytes of a text that is shown even where it is some content.
const SHORT: usize = 100;
/// Bytes of a text that is shown in full.
const SHOWN: usize = 2000;

/// An answer as a host gave it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body ended where its head said.
    pub whole: bool,
}

impl Answer {
    /// The digest of the blob whose fill it has begun: only blobs have ranges, and only what is new is stored.
    pub(super) fn fills(&self) -> Option<&str> {
        let begun = self.header("accept-ranges").and(self.header("cache-status"));
        begun.filter(|status| status.contains("; stored")).and(self.header("docker-content-digest"))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What was asked, upstream and by whom, and what came back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    pub(super) ask: String,
    /// What upstreams were asked, in order.
    #[serde(default)]
    asked: Vec<String>,
    status: u16,
    /// All but [`PLATFORM`], and [`USUAL`] where they are as usual.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    /// What is different with [`Fills::Apart`].
    apart: Option<Apart>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Apart {
    asked: Option<Vec<String>>,
    status: Option<u16>,
    headers: Option<BTreeMap<String, String>>,
    body: Option<String>,
}

/// What stands for addresses, digests, sizes and what is kept from answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// Placeholder (with its braces) and value.
    words: Vec<(String, String)>,
}

impl Names {
    pub(super) fn new(addresses: &BTreeMap<String, String>, contents: &BTreeMap<String, Vec<u8>>) -> Names {
        let mut words = Vec::new();
        for (name, url) in addresses {
            words.push((format!("{{{name}}}"), url.clone()));
            let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host);
            words.push((format!("{{{name}.host}}"), host.to_owned()));
        }
        for (name, bytes) in contents {
            let digest = sha256(bytes);
            let hex = digest.trim_start_matches("sha256:").to_owned();
            words.push((format!("{{digest:{name}}}"), digest));
            words.push((format!("{{hex:{name}}}"), hex));
            words.push((format!("{{size:{name}}}"), bytes.len().to_string()));
        }
        Names { words }
    }

    /// Placeholders become values.
    pub(super) fn fill(&self, text: &str) -> String {
        self.words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value))
    }

    /// Values become placeholders, but for sizes: a number may be any number.
    fn hide(&self, text: &str) -> String {
        let told = self.words.iter().filter(|(word, _)| !word.starts_with("{size:"));
        told.fold(text.to_owned(), |text, (word, value)| text.replace(value, word))
    }

    /// Takes fields of the answer's JSON for placeholders.
    pub(super) fn keep(&mut self, fields: &BTreeMap<String, String>, answer: &Answer) {
        let json: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        for (name, field) in fields {
            if let Some(value) = json[field].as_str() {
                let word = format!("{{{name}}}");
                self.words.retain(|(known, _)| *known != word);
                // Two answers may hold the same value: it bears the name that this one gives it.
                self.words.insert(0, (word, value.to_owned()));
            }
        }
    }
}

impl Exchange {
    pub(super) fn of(
        ask: &Ask,
        asked: Vec<String>,
        answer: &Answer,
        names: &Names,
        contents: &BTreeMap<String, Vec<u8>>,
    ) -> Exchange {
        Exchange {
            ask: ask.0.clone(),
            asked: asked.iter().map(|line| names.hide(line)).collect(),
            status: answer.status,
            headers: headers(answer, names),
            body: body(answer, names, contents),
            apart: None,
        }
    }

    /// This where fills are followed, and `other` where they are apart.
    pub(super) fn merged(mut self, other: &Exchange) -> Exchange {
        fn new<T: Clone + PartialEq>(ours: &T, other: &T) -> Option<T> {
            (ours != other).then(|| other.clone())
        }
        let apart = Apart {
            asked: new(&self.asked, &other.asked),
            status: new(&self.status, &other.status),
            headers: new(&self.headers, &other.headers),
            body: new(&self.body, &other.body),
        };
        let same = apart.asked.is_none() && !apart.answers();
        self.apart = (!same).then_some(apart);
        self
    }

    /// What is expected of a host.
    pub(super) fn with(&self, fills: Fills) -> Exchange {
        let mut other = self.clone();
        if let (Some(apart), Fills::Apart) = (other.apart.take(), fills) {
            other.asked = apart.asked.unwrap_or(other.asked);
            other.status = apart.status.unwrap_or(other.status);
            other.headers = apart.headers.unwrap_or(other.headers);
            other.body = apart.body.unwrap_or(other.body);
        }
        other
    }

    /// How many requests upstream are expected.
    pub(super) fn asks(&self, fills: Fills) -> usize {
        self.with(fills).asked.len()
    }

    /// Whether not only upstream but the client sees a difference where fills are apart.
    pub(super) fn differs(&self) -> bool {
        self.apart.as_ref().is_some_and(Apart::answers)
    }

    /// How `seen` differs from this.
    pub(super) fn differences(&self, seen: &Exchange) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: &str, seen: &str| {
            if expected != seen {
                differences.push(format!("{what}: expected `{expected}`, not `{seen}`"));
            }
        };
        compare("ask", &self.ask, &seen.ask);
        compare("status", &self.status.to_string(), &seen.status.to_string());
        compare("asked", &self.asked.join(", "), &seen.asked.join(", "));
        compare("body", &self.body, &seen.body);
        if self.status != seen.status {
            // Another answer altogether.
            return differences;
        }
        let names =
            self.headers.keys().chain(seen.headers.keys().filter(|name| !self.headers.contains_key(*name)));
        for name in names {
            // A header that is not named is as usual, or not there.
            let of =
                |exchange: &Exchange| exchange.headers.get(name).cloned().unwrap_or_else(|| unnamed(name));
            let (expected, seen) = (of(self), of(seen));
            if !nearly(name, &expected, &seen) {
                compare(name, &expected, &seen);
            }
        }
        differences
    }

    /// An item of the list below the line.
    pub(super) fn yaml(&self) -> String {
        let mut text = format!("- ask: {}\n", quoted(&self.ask));
        let asked = Some(&self.asked).filter(|asked| !asked.is_empty());
        let headers = Some(&self.headers).filter(|headers| !headers.is_empty());
        let body = Some(&self.body).filter(|body| !body.is_empty());
        write(&mut text, "  ", asked, Some(self.status), headers, body);
        if let Some(Apart { asked, status, headers, body }) = &self.apart {
            text.push_str("  apart:\n");
            write(&mut text, "    ", asked.as_ref(), *status, headers.as_ref(), body.as_ref());
        }
        text
    }
}

impl Apart {
    fn answers(&self) -> bool {
        self.status.is_some() || self.headers.is_some() || self.body.is_some()
    }
}

fn write(
    text: &mut String,
    indent: &str,
    asked: Option<&Vec<String>>,
    status: Option<u16>,
    headers: Option<&BTreeMap<String, String>>,
    body: Option<&String>,
) {
    let mut line = |line: String| {
        text.push_str(indent);
        text.push_str(&line);
        text.push('\n');
    };
    if let Some(asked) = asked {
        line(if asked.is_empty() { "asked: []".to_owned() } else { "asked:".to_owned() });
        asked.iter().for_each(|request| line(format!("  - {}", quoted(request))));
    }
    if let Some(status) = status {
        line(format!("status: {status}"));
    }
    if let Some(headers) = headers {
        line(if headers.is_empty() { "headers: {}".to_owned() } else { "headers:".to_owned() });
        headers.iter().for_each(|(name, value)| line(format!("  {name}: {}", quoted(value))));
    }
    if let Some(body) = body {
        line(format!("body: {}", quoted(body)));
    }
}

fn headers(answer: &Answer, names: &Names) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::<String, String>::new();
    for (name, value) in &answer.headers {
        if PLATFORM.iter().any(|(platform, _)| platform == name) {
            continue;
        }
        let value = names.hide(value);
        // Two lines of one name are not one line with a comma.
        headers.entry(name.clone()).and_modify(|all| *all = format!("{all} | {value}")).or_insert(value);
    }
    for (name, usual) in USUAL {
        match headers.get(*name) {
            Some(value) if value == usual => _ = headers.remove(*name),
            Some(_) => {}
            None => _ = headers.insert((*name).to_owned(), NONE.to_owned()),
        }
    }
    headers
}

fn unnamed(header: &str) -> String {
    USUAL.iter().find(|(name, _)| *name == header).map_or(NONE, |(_, usual)| usual).to_owned()
}

/// A body in few words: a content, a part of one, a text, or a digest.
fn body(answer: &Answer, names: &Names, contents: &BTreeMap<String, Vec<u8>>) -> String {
    let bytes = &answer.body;
    let text = std::str::from_utf8(bytes).ok();
    let all =
        || contents.iter().find(|(_, content)| *content == bytes).map(|(name, _)| format!("all of {name}"));
    let shown = |most: usize| text.filter(|_| bytes.len() <= most).map(|text| names.hide(text));
    let mut told = named_part(answer, contents)
        .or_else(|| shown(SHORT))
        .or_else(all)
        .or_else(|| shown(SHOWN))
        .or_else(|| part(bytes, contents))
        .unwrap_or_else(|| format!("{} bytes, {}", bytes.len(), sha256(bytes)));
    if !answer.whole {
        told.push_str(" (broken off)");
    }
    told
}

/// The part that the answer's head says it is.
fn named_part(answer: &Answer, contents: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    let (first, _) = answer.header("content-range")?.strip_prefix("bytes ")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let last = first + answer.body.len().checked_sub(1)?;
    let (name, _) =
        contents.iter().find(|(_, content)| content.get(first..=last) == Some(&answer.body[..]))?;
    Some(format!("bytes {first}-{last} of {name}"))
}

fn part(bytes: &[u8], contents: &BTreeMap<String, Vec<u8>>) -> Option<String> {
    contents.iter().find_map(|(name, content)| {
        let from = content.windows(bytes.len()).position(|window| window == bytes)?;
        Some(format!("bytes {from}-{} of {name}", from + bytes.len() - 1))
    })
}

/// Equal, or apart by no more than the seconds that pass in real time.
fn nearly(header: &str, expected: &str, seen: &str) -> bool {
    if expected == seen {
        return true;
    }
    let left = |text: &str| text.parse::<u64>().ok();
    let within = |more: u64, less: u64| more >= less && more - less <= TOLERANCE;
    match header {
        "age" => {
            matches!((left(seen), left(expected)), (Some(seen), Some(expected)) if within(seen, expected))
        }
        "retry-after" => {
            matches!((left(expected), left(seen)), (Some(expected), Some(seen)) if within(expected, seen))
        }
        "cache-control" => match (max_age(expected), max_age(seen)) {
            (Some((before, expected, after)), Some((seen_before, seen, seen_after))) => {
                (before, after) == (seen_before, seen_after) && within(expected, seen)
            }
            _ => false,
        },
        _ => false,
    }
}

/// What stands before `max-age`'s number, the number, and what stands after.
fn max_age(text: &str) -> Option<(&str, u64, &str)> {
    let at = text.find("max-age=")? + "max-age=".len();
    let end = text[at..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |len| at + len);
    Some((&text[..at], text[at..end].parse().ok()?, &text[end..]))
}

/// A JSON text is a YAML text. Single quotes where they save backslashes.
fn quoted(text: &str) -> String {
    if text.contains('"') && !text.contains(['\n', '\r', '\t']) && text.chars().all(|c| !c.is_control()) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(headers: &[(&str, &str)]) -> Exchange {
        let mut all: Vec<(String, String)> =
            USUAL.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let answer = Answer { status: 200, headers: all, body: b"{}".to_vec(), whole: true };
        Exchange::of(&Ask("GET /v2/".into()), Vec::new(), &answer, &Names::default(), &BTreeMap::new())
    }

    #[test]
    fn what_is_written_is_read_back() {
        let one = seen(&[("etag", "\"it's\""), ("link", "a\tb"), ("vary", "x"), ("vary", "y")]);
        let read: Vec<Exchange> = serde_saphyr::from_str(&one.yaml()).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].differences(&one), Vec::<String>::new());
        assert_eq!(read[0].headers["vary"], "x | y");
    }

    #[test]
    fn what_differs_where_fills_are_apart_stands_beside() {
        let one = seen(&[("etag", "\"a\"")]);
        assert!(one.clone().merged(&one).apart.is_none());
        let other = Exchange { asked: vec!["GET {up}/".into()], body: String::new(), ..seen(&[]) };
        let both = one.clone().merged(&other);
        assert!(both.differs());
        let read: Vec<Exchange> = serde_saphyr::from_str(&both.yaml()).unwrap();
        assert_eq!(read[0].differences(&one), Vec::<String>::new());
        assert_eq!(read[0].with(Fills::Apart).differences(&other), Vec::<String>::new());
    }

    #[test]
    fn nothing_may_differ_but_what_the_platform_sets() {
        let expected = seen(&[("etag", "\"a\""), ("cache-control", "public, max-age=60")]);
        let none = Vec::<String>::new();
        let same = [("etag", "\"a\""), ("cache-control", "public, max-age=57"), ("date", "now")];
        assert_eq!(expected.differences(&seen(&same)), none);
        for other in [
            &[("etag", "\"b\""), ("cache-control", "public, max-age=60")][..],
            &[("etag", "\"a\""), ("cache-control", "public, max-age=61")],
            &[("etag", "\"a\""), ("cache-control", "public, max-age=50")],
            &[("etag", "\"a\""), ("cache-control", "private, max-age=60")],
            &[("etag", "\"a\""), ("cache-control", "public, max-age=60"), ("server", "x")],
            &[
                ("etag", "\"a\""),
                ("cache-control", "public, max-age=60"),
                ("x-content-type-options", "nosniff"),
            ],
            &[("etag", "\"a\"")],
        ] {
            assert_eq!(expected.differences(&seen(other)).len(), 1, "{other:?}");
        }
    }
}
