//! Media types and what a client accepts of them (RFC 9110 §8.3.1 and §12.5.1).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::field;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";
pub const OCTET_STREAM: &str = "application/octet-stream";
pub const JSON: &str = "application/json";

/// The manifests a mirror passes on, in the order in which it asks for them.
pub const MANIFESTS: &[&str] = &[OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// A media type without parameters, in lower case: `type/subtype`, each a token, at most [`MediaType::MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaType(Arc<str>);

/// Why a text is not a media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaTypeError {
    #[error("a media type has the form type/subtype, both made of letters, digits and !#$&^_.+-")]
    Malformed,
    #[error("a media type has at most {max} characters", max = MediaType::MAX)]
    TooLong,
}

/// What a client accepts. Its size is that of the headers it was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// Each on a line of its own, for no header holds a line break.
    headers: String,
}

impl MediaType {
    /// Bytes at most: twice the 127 of RFC 6838 §4.2, and the slash.
    pub const MAX: usize = 255;

    /// Drops parameters and folds case.
    pub fn parse(text: &str) -> Result<MediaType, MediaTypeError> {
        essence(text).map(|essence| MediaType(essence.to_ascii_lowercase().into()))
    }

    /// One of the constants of this module.
    pub(crate) fn known(text: &'static str) -> MediaType {
        MediaType(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An image index or a Docker manifest list.
    pub fn is_index(&self) -> bool {
        matches!(self.as_str(), OCI_INDEX | DOCKER_LIST)
    }

    /// An image manifest, OCI's or Docker's schema 2.
    pub fn is_image(&self) -> bool {
        matches!(self.as_str(), OCI_MANIFEST | DOCKER_MANIFEST)
    }

    /// A manifest that we pass on.
    pub fn is_manifest(&self) -> bool {
        self.is_index() || self.is_image()
    }

    /// Docker's schema 1, which nobody should be given any more: its digest does not cover its bytes.
    pub fn is_schema1(&self) -> bool {
        matches!(self.as_str(), DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)
    }
}

/// What a media type is without parameters, in whatever case it came.
fn essence(text: &str) -> Result<&str, MediaTypeError> {
    let essence = text.split(';').next().unwrap_or_default().trim_matches(field::OWS);
    if essence.len() > MediaType::MAX {
        return Err(MediaTypeError::TooLong);
    }
    let (kind, subtype) = essence.split_once('/').ok_or(MediaTypeError::Malformed)?;
    if !field::is_token(kind) || !field::is_token(subtype) {
        return Err(MediaTypeError::Malformed);
    }
    Ok(essence)
}

impl FromStr for MediaType {
    type Err = MediaTypeError;

    fn from_str(text: &str) -> Result<MediaType, MediaTypeError> {
        MediaType::parse(text)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MediaType, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = MediaType;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a media type")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<MediaType, E> {
                MediaType::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl Accept {
    /// Keeps all `Accept` lines of a request: clients spread their types over several, in any order.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Accept {
        let mut accept = Accept::default();
        for value in values {
            accept.headers.push_str(value);
            accept.headers.push('\n');
        }
        accept
    }

    /// Whether the client takes `media_type`: the most specific range that fits it decides (RFC 9110 §12.5.1), and of a range
    /// that is named more than once the kinder word. Members that make no sense are left out; when nothing remains,
    /// everything is accepted.
    pub fn allows(&self, media_type: &MediaType) -> bool {
        if self.names(media_type.as_str()) {
            return true;
        }
        let kind = media_type.as_str().split('/').next().unwrap_or_default();
        let (mut exact, mut by_kind, mut any) = (None, None, None);
        let mut is_empty = true;
        for member in self.headers.lines().flat_map(|line| field::split(line, ',')) {
            // A wildcard is a token, too.
            let Ok(range) = essence(member) else { continue };
            is_empty = false;
            let word = if range.eq_ignore_ascii_case(media_type.as_str()) {
                &mut exact
            } else if range == "*/*" {
                &mut any
            } else if range.strip_suffix("/*").is_some_and(|range| range.eq_ignore_ascii_case(kind)) {
                &mut by_kind
            } else {
                continue;
            };
            *word = Some(word.unwrap_or(false) | !is_refused(member));
        }
        is_empty || exact.or(by_kind).or(any).unwrap_or(false)
    }

    /// Whether a member is `range` and nothing else, as clients send what they are after: no word is kinder.
    fn names(&self, range: &str) -> bool {
        let headers = self.headers.as_bytes();
        // What stands in quotes is no member.
        let is_plain = !self.headers.contains('"');
        is_plain
            && headers
                .split(|byte| matches!(byte, b',' | b'\n'))
                .any(|member| member.trim_ascii().eq_ignore_ascii_case(range.as_bytes()))
    }
}

/// Whether the member has a weight of nought: `q=0`, `q=0.0`, …
fn is_refused(member: &str) -> bool {
    field::split(member, ';').skip(1).filter_map(|parameter| parameter.split_once('=')).any(
        |(name, value)| {
            let value = value.trim_matches(field::OWS);
            name.trim_matches(field::OWS).eq_ignore_ascii_case("q")
                && value.starts_with('0')
                && value.bytes().all(|byte| byte == b'0' || byte == b'.')
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(text: &str) -> MediaType {
        MediaType::parse(text).unwrap()
    }

    #[test]
    fn parameters_and_case_are_dropped() {
        for text in [
            OCI_INDEX.to_owned(),
            OCI_INDEX.to_uppercase(),
            format!(" {OCI_INDEX} ; charset=utf-8"),
            format!("{OCI_INDEX};"),
        ] {
            assert_eq!(media(&text).as_str(), OCI_INDEX, "{text}");
        }
    }

    #[test]
    fn malformed_types_are_refused() {
        for text in [
            "", "/", "a", "a/", "/b", "a/b/c", "a b/c", "a/b c", "a/b,c/d", "a/\u{e9}", "a/b\n", ";a/b",
            "a/\"b\"",
        ] {
            assert_eq!(MediaType::parse(text), Err(MediaTypeError::Malformed), "{text:?}");
        }
        assert!(MediaType::parse(&format!("a/{}", "b".repeat(253))).is_ok());
        assert_eq!(MediaType::parse(&format!("a/{}", "b".repeat(254))), Err(MediaTypeError::TooLong));
        assert_eq!(MediaType::parse(&"a".repeat(1 << 20)), Err(MediaTypeError::TooLong));
    }

    #[test]
    fn the_manifest_types_are_told_apart() {
        for text in MANIFESTS {
            assert!(media(text).is_manifest(), "{text}");
            assert_ne!(media(text).is_index(), media(text).is_image(), "{text}");
        }
        for text in [DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED] {
            assert!(media(text).is_schema1() && !media(text).is_manifest(), "{text}");
        }
        for text in [OCI_CONFIG, OCI_EMPTY, JSON, OCTET_STREAM, "text/plain"] {
            assert!(!media(text).is_manifest() && !media(text).is_schema1(), "{text}");
        }
    }

    #[test]
    fn media_types_are_texts_in_json() {
        assert_eq!(serde_json::to_string(&media("a/b")).unwrap(), "\"a/b\"");
        assert_eq!(serde_json::from_str::<MediaType>("\"A/b; c=d\"").unwrap(), media("a/b"));
        assert!(serde_json::from_str::<MediaType>("\"x\"").is_err());
    }

    #[test]
    fn t_cp3_accept_decides_by_the_most_specific_range() {
        let both = format!("{OCI_INDEX}, {OCI_MANIFEST}");
        let rows: &[(&[&str], bool, bool)] = &[
            // Header lines; is an index accepted, is an image?
            (&[], true, true),
            (&[""], true, true),
            (&[" , ,"], true, true),
            (&["garbage"], true, true),
            (&["*/*"], true, true),
            (&["application/*"], true, true),
            (&["text/*"], false, false),
            (&["text/html"], false, false),
            (&[OCI_INDEX], true, false),
            (&[OCI_MANIFEST], false, true),
            (&[OCI_INDEX, OCI_MANIFEST], true, true),
            (&[&both], true, true),
            (&["application/vnd.oci.image.INDEX.v1+json;q=0.1"], true, false),
            (&["application/vnd.oci.image.index.v1+json;q=0, */*"], false, true),
            (&["*/*", "application/vnd.oci.image.index.v1+json; Q=0.000"], false, true),
            (&["application/*;q=0, application/vnd.oci.image.index.v1+json"], true, false),
            (&["*/*;q=0"], false, false),
            (&["*/*;q=0.001"], true, true),
            (&["application/vnd.oci.image.index.v1+json;x=\",\";q=0, */*"], false, true),
            (&["text/html;x=\",application/vnd.oci.image.index.v1+json,\""], false, false),
            (
                &["application/vnd.oci.image.index.v1+json;q=0, application/vnd.oci.image.index.v1+json"],
                true,
                false,
            ),
        ];
        for (lines, index, image) in rows {
            let accept = Accept::parse(lines.iter().copied());
            assert_eq!(accept.allows(&media(OCI_INDEX)), *index, "{lines:?}");
            assert_eq!(accept.allows(&media(OCI_MANIFEST)), *image, "{lines:?}");
        }
    }

    #[test]
    fn t_cp3_two_hundred_types_are_read() {
        let many = (0..200).map(|n| format!("application/x-{n}")).collect::<Vec<_>>().join(",");
        let accept = Accept::parse([many.as_str(), OCI_INDEX]);
        assert!(accept.allows(&media("application/x-199")));
        assert!(accept.allows(&media(OCI_INDEX)));
        assert!(!accept.allows(&media(OCI_MANIFEST)));
    }
}
