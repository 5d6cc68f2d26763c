//! What clients hear: the only place that knows the statuses and header names of answers.

mod blob;
mod condition;
mod failure;
mod list;
mod manifest;
mod trace;

use bytes::Bytes;
use entrepot_oci::Digest;
use entrepot_oci::media;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

pub use blob::{BlobAnswer, blob};
pub use condition::{EntityTags, etag};
pub use failure::{Allow, FailureContext, failure, status_and_code};
pub use list::{next_link, referrers, tags};
pub use manifest::{Believed, ManifestFacts, manifest, negotiate};
pub use trace::{Served, Trace, Verdict};

/// A whole answer, or the head of one whose body the engine adds. `Content-Length` is set wherever it is known, also for
/// HEAD and when the body is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What old tools still look for (wire behaviour of docker-ce before 1.10).
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const X_CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// Headers of an answer, usually. With room for them from the start none has to move.
const HEADERS: usize = 16;

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Scripts of any page may read what anyone may pull, and these headers of it.
const EXPOSED: &str = "Docker-Content-Digest, Docker-Distribution-API-Version, Content-Length, Content-Range, ETag, Link, \
                       OCI-Filters-Applied, OCI-Namespace, Retry-After, Warning, X-Cache, Cache-Status, \
                       RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset";

impl Answer {
    fn new(status: StatusCode) -> Answer {
        let mut answer = Answer { status, headers: HeaderMap::with_capacity(HEADERS), body: Bytes::new() };
        answer.put(API_VERSION, const { HeaderValue::from_static("registry/2.0") });
        answer.put(X_CONTENT_TYPE_OPTIONS, const { HeaderValue::from_static("nosniff") });
        answer
    }

    /// Whether the connection ends with it.
    pub fn closes(&self) -> bool {
        self.headers.contains_key(header::CONNECTION)
    }

    /// Sets a header. Text that no header may hold leaves it out; ours never is such text.
    fn set(&mut self, name: HeaderName, value: impl AsRef<str>) {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.put(name, value);
        }
    }

    fn put(&mut self, name: HeaderName, value: HeaderValue) {
        self.headers.insert(name, value);
    }

    fn set_length(&mut self, bytes: u64) {
        self.put(header::CONTENT_LENGTH, bytes.into());
    }

    /// The headers that name the object.
    fn set_digest(&mut self, digest: &Digest) {
        // One piece of memory for both: the entity tag is the digest in quotes.
        let etag = Bytes::from(etag(digest));
        let text = etag.slice(1..etag.len() - 1);
        if let (Ok(etag), Ok(text)) =
            (HeaderValue::from_maybe_shared(etag), HeaderValue::from_maybe_shared(text))
        {
            self.put(DOCKER_CONTENT_DIGEST, text);
            self.put(header::ETAG, etag);
        }
    }

    /// JSON, with its length; for HEAD without the body itself.
    fn json(mut self, body: Vec<u8>, head_only: bool) -> Answer {
        self.put(header::CONTENT_TYPE, const { HeaderValue::from_static(media::JSON) });
        self.set_length(body.len() as u64);
        if !head_only {
            self.body = body.into();
        }
        self
    }

    fn open_to_scripts(&mut self) {
        self.put(header::ACCESS_CONTROL_ALLOW_ORIGIN, const { HeaderValue::from_static("*") });
        self.put(header::ACCESS_CONTROL_EXPOSE_HEADERS, const { HeaderValue::from_static(EXPOSED) });
    }
}

/// `GET /v2/`: we are a registry, whatever upstream is doing.
pub fn ping(head_only: bool) -> Answer {
    let mut answer = Answer::new(StatusCode::OK).json(b"{}".to_vec(), head_only);
    answer.put(header::CACHE_CONTROL, NO_STORE);
    answer.open_to_scripts();
    answer
}

/// The CORS preflight. Scripts may not send credentials, so `Authorization` is not among the headers.
pub fn preflight() -> Answer {
    let mut answer = Answer::new(StatusCode::NO_CONTENT);
    answer.set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    answer.set(header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS");
    answer.set(header::ACCESS_CONTROL_ALLOW_HEADERS, "Accept, Range, If-None-Match, If-Range");
    answer.set(header::ACCESS_CONTROL_MAX_AGE, "86400");
    answer.set(header::ALLOW, "GET, HEAD, OPTIONS");
    answer
}

/// A token, as JSON that is already made.
pub fn token(body: &[u8], head_only: bool) -> Answer {
    let mut answer = Answer::new(StatusCode::OK).json(body.to_vec(), head_only);
    answer.put(header::CACHE_CONTROL, NO_STORE);
    answer
}

/// What Prometheus reads, for those who may know.
pub fn metrics(text: String, head_only: bool) -> Answer {
    let mut answer = Answer::new(StatusCode::OK);
    answer.set(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    answer.set_length(text.len() as u64);
    answer.put(header::CACHE_CONTROL, NO_STORE);
    if !head_only {
        answer.body = text.into();
    }
    answer
}

#[cfg(test)]
mod tests;
