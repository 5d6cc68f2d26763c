//! Entity tags: ours is the quoted digest, and a digest never changes its content.

use entrepot_oci::digest::Digest;

/// How many tags of an `If-None-Match` are looked at.
const MAX_TAGS: usize = 64;

/// `If-None-Match`, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntityTags {
    /// `*`
    Any,
    /// Opaque tags without `W/` and quotes; old clients leave the quotes out.
    Tags(Vec<String>),
}

/// The entity tag of an object.
pub fn etag(digest: &Digest) -> String {
    ["\"", digest.text().as_str(), "\""].concat()
}

impl EntityTags {
    /// Reads all lines of the header; `None` if there are none.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Option<EntityTags> {
        let mut tags = Vec::new();
        // A comma inside a tag splits it into halves that match no digest.
        for member in values.into_iter().flat_map(|value| value.split(',')).take(MAX_TAGS) {
            match member.trim() {
                "" => {}
                "*" => return Some(EntityTags::Any),
                tag => tags.push(opaque(tag).to_owned()),
            }
        }
        (!tags.is_empty()).then_some(EntityTags::Tags(tags))
    }

    /// By weak comparison, as RFC 9110 §13.1.2 wants for `If-None-Match`.
    pub fn matches(&self, digest: &Digest) -> bool {
        match self {
            EntityTags::Any => true,
            EntityTags::Tags(tags) => {
                let own = digest.text();
                tags.iter().any(|tag| tag == own.as_str())
            }
        }
    }
}

/// Whether an `If-Range` allows a part to be served: the strong entity tag, and nothing else. We send no
/// `Last-Modified`, so no date can be ours (RFC 9110 §13.1.5).
pub(super) fn if_range_holds(if_range: Option<&str>, digest: &Digest) -> bool {
    if_range.is_none_or(|value| value.trim() == etag(digest))
}

fn opaque(tag: &str) -> &str {
    let tag = tag.strip_prefix("W/").unwrap_or(tag);
    tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag)
}
