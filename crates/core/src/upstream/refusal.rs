//! What a registry's own "no" means: 404, 429 and the like, by status, body and what was asked.

use entrepot_oci::error;
use http::HeaderMap;

use super::{What, budget};
use crate::failure::Reason;

/// What 404 says about the object. A code in the body decides where it fits the question, except for a blob: a blob that
/// is held for another repository is asked for by HEAD, whose answer has no body, and must not be told from one that
/// nobody holds, which is asked for by GET (T-AZ1).
pub(super) fn absence(what: &What, body: &[u8]) -> Reason {
    let codes = error::parse(body);
    let says = |code: &str| codes.iter().any(|error| error.code == code);
    match what {
        What::Blob(_) => Reason::BlobUnknown,
        _ if says("NAME_UNKNOWN") => Reason::NameUnknown,
        What::Manifest(_) => Reason::ManifestUnknown,
        What::Tags(_) => Reason::NameUnknown,
        // The list of a subject nobody refers to is empty; 404 is a registry without the API (distribution-spec,
        // "Listing Referrers").
        What::Referrers(..) => Reason::UpstreamUnsupported,
    }
}

/// Whether 429 means that the pulls are used up, and not that there were too many requests of any kind: Docker Hub says
/// so in the body.
pub(super) fn is_pull_limit(headers: &HeaderMap, body: &[u8]) -> bool {
    budget::none_left(headers) || contains(body, b"pull rate limit")
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}
