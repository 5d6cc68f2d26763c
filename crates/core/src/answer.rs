//! What clients hear: the only place that knows the statuses and header names of answers.

mod blob;
mod condition;
mod failure;
mod list;
mod manifest;
mod trace;

use bytes::Bytes;
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
const X_CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");

/// Scripts of any page may read what anyone may pull, and these headers of it.
const EXPOSED: &str = "Docker-Content-Digest, Docker-Distribution-API-Version, Content-Length, Content-Range, ETag, Link, \
                       OCI-Filters-Applied, OCI-Namespace, Retry-After, Warning, X-Cache, Cache-Status, \
                       RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset";

impl Answer {
    fn new(status: StatusCode) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Answer { status, headers, body: Bytes::new() }
    }

    /// Whether the connection ends with it.
    pub fn closes(&self) -> bool {
        self.headers.contains_key(header::CONNECTION)
    }

    /// Sets a header. Text that no header may hold leaves it out; ours never is such text.
    fn set(&mut self, name: HeaderName, value: impl AsRef<str>) {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
    }

    /// JSON, with its length; for HEAD without the body itself.
    fn json(mut self, body: Vec<u8>, head_only: bool) -> Answer {
        self.set(header::CONTENT_TYPE, media::JSON);
        self.set(header::CONTENT_LENGTH, body.len().to_string());
        if !head_only {
            self.body = body.into();
        }
        self
    }

    fn open_to_scripts(&mut self) {
        self.set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
        self.set(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
}

/// `GET /v2/`: we are a registry, whatever upstream is doing.
pub fn ping(head_only: bool) -> Answer {
    let mut answer = Answer::new(StatusCode::OK).json(b"{}".to_vec(), head_only);
    answer.set(header::CACHE_CONTROL, "no-store");
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
    answer.set(header::CACHE_CONTROL, "no-store");
    answer
}

/// What Prometheus reads, for those who may know.
pub fn metrics(text: String, head_only: bool) -> Answer {
    let mut answer = Answer::new(StatusCode::OK);
    answer.set(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    answer.set(header::CONTENT_LENGTH, text.len().to_string());
    answer.set(header::CACHE_CONTROL, "no-store");
    if !head_only {
        answer.body = text.into();
    }
    answer
}

#[cfg(test)]
mod tests;
