//! Repository names, tags and references (distribution-spec, "Pulling manifests").

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::digest::{Digest, DigestError};

/// A repository name as the registry knows it, without a host: at most [`Repository::MAX`] bytes of
/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, such components being joined by `/`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(Arc<str>);

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

/// What a manifest is asked by. Whatever holds a `:` is a digest, for a tag cannot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
            return Err(NameError::TooLong {
                found: text.chars().count(),
            });
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
            return Err(TagError::TooLong {
                found: text.chars().count(),
            });
        }
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let fits = is_word(first)
            && text
                .bytes()
                .all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if fits {
            Ok(Tag(text.into()))
        } else {
            Err(TagError::Character)
        }
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
