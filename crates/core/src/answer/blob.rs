//! Blobs, whole and in parts.

use entrepot_oci::digest::Digest;
use entrepot_oci::media;
use entrepot_oci::range::{self, ByteSpan, RangeRequest};
use http::StatusCode;
use http::header::{self, HeaderValue};

use super::condition::{EntityTags, if_range_holds};
use super::manifest::Believed;
use super::{Answer, NO_STORE, Served};

/// The head of a blob, and which of its bytes follow.
#[derive(Clone, Debug)]
pub struct BlobAnswer {
    pub head: Answer,
    /// The bytes to send after a GET; `None` where there are none (304, 416). `end` is `u64::MAX` while the size is not
    /// known.
    pub span: Option<ByteSpan>,
}

/// Answers a blob of `size` bytes (`None`: upstream has not said, so it goes out whole and without a length).
/// `range` is what the `Range` header of a GET asks for; HEAD has none.
pub fn blob(
    digest: &Digest,
    size: Option<u64>,
    range: Option<RangeRequest>,
    if_range: Option<&str>,
    if_none_match: Option<&EntityTags>,
    served: &Served<'_>,
) -> BlobAnswer {
    if if_none_match.is_some_and(|tags| tags.matches(digest)) {
        return BlobAnswer { head: head(StatusCode::NOT_MODIFIED, digest, served), span: None };
    }
    let range = range.filter(|_| if_range_holds(if_range, digest));
    match (size, range) {
        (Some(size), Some(range)) => partial(digest, size, range, served),
        (Some(size), None) => {
            let mut head = typed(StatusCode::OK, digest, served);
            head.set_length(size);
            BlobAnswer { head, span: Some(ByteSpan { start: 0, end: size }) }
        }
        (None, _) => {
            let head = typed(StatusCode::OK, digest, served);
            BlobAnswer { head, span: Some(ByteSpan { start: 0, end: u64::MAX }) }
        }
    }
}

fn partial(digest: &Digest, size: u64, range: RangeRequest, served: &Served<'_>) -> BlobAnswer {
    match range.resolve(size) {
        Ok(span) => {
            let mut head = typed(StatusCode::PARTIAL_CONTENT, digest, served);
            head.set_length(span.len());
            if let Some(range) = span.content_range(size) {
                head.set(header::CONTENT_RANGE, range.to_string());
            }
            BlobAnswer { head, span: Some(span) }
        }
        Err(_) => {
            let mut head = Answer::new(StatusCode::RANGE_NOT_SATISFIABLE);
            head.set(header::CONTENT_RANGE, range::unsatisfied(size));
            head.put(header::CACHE_CONTROL, NO_STORE);
            head.set_length(0);
            served.write(&mut head);
            BlobAnswer { head, span: None }
        }
    }
}

fn typed(status: StatusCode, digest: &Digest, served: &Served<'_>) -> Answer {
    let mut answer = head(status, digest, served);
    answer.put(header::CONTENT_TYPE, const { HeaderValue::from_static(media::OCTET_STREAM) });
    answer.put(header::ACCEPT_RANGES, const { HeaderValue::from_static("bytes") });
    answer
}

fn head(status: StatusCode, digest: &Digest, served: &Served<'_>) -> Answer {
    let mut answer = Answer::new(status);
    answer.set_digest(digest);
    served.cache_control(&mut answer, Believed::Forever);
    served.write(&mut answer);
    answer
}
