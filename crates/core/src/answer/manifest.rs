//! Manifests.

use std::time::Duration;

use entrepot_oci::digest::Digest;
use entrepot_oci::media::{Accept, MediaType};
use entrepot_oci::name::Reference;
use http::StatusCode;
use http::header::{self, HeaderValue};

use super::condition::EntityTags;
use super::{Answer, NO_STORE, Served};
use crate::failure::{Failure, Reason};
use crate::repeat;

/// What a manifest's head says.
#[derive(Clone, Copy, Debug)]
pub struct ManifestFacts<'a> {
    pub digest: Digest,
    pub size: u64,
    /// The canonical one, which belongs to the digest for ever.
    pub media_type: &'a MediaType,
}

/// How long others may believe an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Believed {
    /// Asked for by digest.
    Forever,
    /// Asked for by tag: what remains of its TTL, zero when stale.
    For(Duration),
}

impl Believed {
    /// How long the answer stays the same to the word, within [`repeat::WHILE`]: a tag's says how many seconds are left.
    pub fn lasts(self) -> Duration {
        match self {
            Believed::Forever => repeat::WHILE,
            Believed::For(left) => Duration::from_nanos(left.subsec_nanos().into()),
        }
    }

    pub(super) fn cache_control(self) -> HeaderValue {
        const FOREVER: HeaderValue =
            HeaderValue::from_static("public, max-age=31536000, immutable, no-transform");
        match self {
            Believed::Forever => FOREVER,
            Believed::For(left) => {
                HeaderValue::try_from(format!("public, max-age={}, no-transform", left.as_secs()))
                    .unwrap_or(NO_STORE)
            }
        }
    }
}

/// The head of a manifest: 200 with an empty body, to which the engine adds the bytes unless the request was HEAD; or a
/// 304, which has no body.
pub fn manifest(
    facts: &ManifestFacts<'_>,
    believed: Believed,
    served: &Served<'_>,
    if_none_match: Option<&EntityTags>,
) -> Answer {
    let unchanged = if_none_match.is_some_and(|tags| tags.matches(&facts.digest));
    let mut answer = Answer::new(if unchanged { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    answer.set_digest(&facts.digest);
    if !unchanged {
        answer.set(header::CONTENT_TYPE, facts.media_type.as_str());
        answer.set_length(facts.size);
    }
    served.cache_control(&mut answer, believed);
    served.write(&mut answer);
    answer
}

/// Whether the client takes this type (T-CP3). Asked for by digest it is served as it is: the digest leaves no choice.
/// By tag, a client that does not take an index is not handed one, nor a platform of our choosing out of it.
///
/// Errors: `ManifestUnknown`, which says what there is.
pub fn negotiate(accept: &Accept, reference: &Reference, media_type: &MediaType) -> Result<(), Failure> {
    if matches!(reference, Reference::Digest(_)) || accept.allows(media_type) {
        return Ok(());
    }
    Err(Failure::new(
        Reason::ManifestUnknown,
        format!(
            "the tag names a {media_type}, which the Accept header does not allow: add it, or ask for a digest"
        ),
    ))
}
