//! Repository names, tags and references (distribution-spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, DigestError};

/// A repository name as the registry knows it, without a host: at most [`Repository::MAX`] bytes of
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, such components being joined by `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Arc<str>);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// What a manifest is asked by. Whatever holds a `:` is a digest, for a tag cannot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reference {
    Tag(Tag),
    Digest(Digest),
}

/// Why a text is not a repository name: `NAME_INVALID`. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the repository name is empty")]
    Empty,
    #[error("a repository name has at most {max} characters, not {found}", max = Repository::MAX)]
    TooLong { found: usize },
    #[error(
        "a repository name is made of components of a-z and 0-9, joined by '/', with '.', '_', '__' or '-' only inside \
         a component; the component at offset {offset} is not"
    )]
    Component { offset: usize },
}

/// Why a text is not a tag. The text itself is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    #[error("the tag is empty")]
    Empty,
    #[error("a tag has at most {max} characters, not {found}", max = Tag::MAX)]
    TooLong { found: usize },
    #[error("a tag is made of A-Z, a-z, 0-9, '_', '.' and '-', and begins with neither '.' nor '-'")]
    Character,
}

/// Why a text is neither a tag nor a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    #[error(transparent)]
    Tag(#[from] TagError),
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Repository {
    /// Bytes at most. The spec leaves the limit to the implementation and warns that many clients stop at 255.
    pub const MAX: usize = 255;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Tag {
    /// Bytes at most.
    pub const MAX: usize = 128;

    /// The tag under which clients look for the referrers of `subject` where a registry has no such API
    /// (distribution-spec, "Referrers Tag Schema"): the digest with `-` for `:`, its hex digits cut to 64.
    pub fn for_referrers(subject: &Digest) -> Tag {
        let hex = subject.hex();
        Tag(format!("{}-{}", subject.algorithm(), &hex[..hex.len().min(64)]).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Repository, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Repository::MAX {
            return Err(NameError::TooLong { found: text.chars().count() });
        }
        let mut offset = 0;
        for component in text.split('/') {
            if !is_component(component.as_bytes()) {
                return Err(NameError::Component { offset });
            }
            offset += component.len() + 1;
        }
        Ok(Repository(text.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (component.first(), component.last()) else {
        return false;
    };
    is_word(first)
        && is_word(last)
        && component
            .split(is_word)
            .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|&byte| byte == b'-'))
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Tag, TagError> {
        let first = *text.as_bytes().first().ok_or(TagError::Empty)?;
        if text.len() > Tag::MAX {
            return Err(TagError::TooLong { found: text.chars().count() });
        }
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let fits = is_word(first) && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if fits { Ok(Tag(text.into())) } else { Err(TagError::Character) }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        if text.contains(':') {
            Ok(Reference::Digest(text.parse()?))
        } else {
            Ok(Reference::Tag(text.parse()?))
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Reference {
        Reference::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Reference {
        Reference::Digest(digest)
    }
}

/// What a newtype around a checked text needs besides its grammar.
macro_rules! checked_text {
    ($type:ident, $what:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($what)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

checked_text!(Repository, "a repository name");
checked_text!(Tag, "a tag");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_the_grammar_are_read() {
        let longest = format!("{}/{}", "a".repeat(127), "b".repeat(127));
        let good = [
            "a",
            "0",
            "library/busybox",
            "a/b/c/d/e/f",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "a-b.c_d__e--f",
            "blobs",
            "tags/list",
            "manifests",
            "con",
            "nul",
            "v2",
            longest.as_str(),
        ];
        for name in good {
            let repository: Repository = name.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(repository.as_str(), name);
            assert_eq!(repository.to_string(), name);
            let json = serde_json::to_string(&repository).unwrap();
            assert_eq!(serde_json::from_str::<Repository>(&json).unwrap(), repository);
        }
    }

    #[test]
    fn t_bi4_hostile_names_are_refused() {
        let bad = [
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../etc/passwd",
            "a/../b",
            "a/./b",
            "a..b",
            "a.",
            ".a",
            "-a",
            "a-",
            "_a",
            "a_",
            "a___b",
            "a._b",
            "a.-b",
            "a-_b",
            "_uploads",
            "_catalog",
            "A",
            "library/Busybox",
            "a b",
            "a\\b",
            "a%2fb",
            "%2e%2e%2f",
            "%252f",
            "a\0b",
            "a;b",
            "a:b",
            "a@b",
            "a?b",
            "a#b",
            "a\nb",
            "a\r\nb",
            "café",
            "a\u{200B}b",
            "\u{202E}a",
            "\u{1D7D8}",
            "CON",
            "NUL",
            "a~b",
            "a+b",
            "$a",
            "a/_uploads",
            "a/-b",
        ];
        for name in bad {
            let error = name.parse::<Repository>().expect_err(name);
            assert!(matches!(error, NameError::Component { .. }), "{name:?}: {error}");
        }
        assert_eq!("".parse::<Repository>(), Err(NameError::Empty));
        assert_eq!("ab/c/D".parse::<Repository>(), Err(NameError::Component { offset: 5 }));
    }

    #[test]
    fn t_bi4_names_have_an_end() {
        assert!("a".repeat(255).parse::<Repository>().is_ok());
        for found in [256, 10_000] {
            assert_eq!("a".repeat(found).parse::<Repository>(), Err(NameError::TooLong { found }));
        }
    }

    #[test]
    fn tags_of_the_grammar_are_read() {
        let longest = "t".repeat(128);
        let good = [
            "latest",
            "a",
            "A",
            "0",
            "_",
            "_a",
            "1.2.3-rc.1",
            "v1..2",
            "a-",
            "a.",
            "sha256-abc.sig",
            "__-..",
            &longest,
        ];
        for text in good {
            let tag: Tag = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(tag.as_str(), text);
            let json = serde_json::to_string(&tag).unwrap();
            assert_eq!(serde_json::from_str::<Tag>(&json).unwrap(), tag);
        }
    }

    #[test]
    fn t_bi4_hostile_tags_are_refused() {
        assert_eq!("".parse::<Tag>(), Err(TagError::Empty));
        assert_eq!("t".repeat(129).parse::<Tag>(), Err(TagError::TooLong { found: 129 }));
        let bad = [
            ".",
            "..",
            ".a",
            "-a",
            "a/b",
            "a:b",
            "a b",
            "a\0",
            "a\n",
            "\r\na",
            "a%2e",
            "a\\b",
            "a;b",
            "+a",
            "a+b",
            "é",
            "a\u{200B}",
            "\u{1B}[31m",
            "\"",
            "a@sha256",
        ];
        for text in bad {
            assert_eq!(text.parse::<Tag>(), Err(TagError::Character), "{text:?}");
        }
    }

    #[test]
    fn the_referrers_tag_is_cut_to_what_a_tag_can_hold() {
        let short = Digest::sha256(b"artifact");
        assert_eq!(Tag::for_referrers(&short).as_str(), format!("sha256-{}", short.hex()));
        let long = Digest::of(crate::Algorithm::Sha512, b"artifact");
        assert_eq!(Tag::for_referrers(&long).as_str(), format!("sha512-{}", &long.hex()[..64]));
        for tag in [Tag::for_referrers(&short), Tag::for_referrers(&long)] {
            assert_eq!(tag.as_str().parse(), Ok(tag));
        }
    }

    #[test]
    fn a_colon_makes_a_reference_a_digest() {
        let digest = Digest::sha256(b"x");
        assert_eq!(digest.to_string().parse(), Ok(Reference::Digest(digest)));
        assert_eq!("latest".parse(), Ok(Reference::Tag("latest".parse().unwrap())));
        assert_eq!("sha256-e3b0".parse(), Ok(Reference::Tag("sha256-e3b0".parse().unwrap())));
        assert!(matches!("a:b".parse::<Reference>(), Err(ReferenceError::Digest(DigestError::Algorithm))));
        assert!(matches!(".a".parse::<Reference>(), Err(ReferenceError::Tag(TagError::Character))));
        assert!(matches!("".parse::<Reference>(), Err(ReferenceError::Tag(TagError::Empty))));
    }
}
