//! The questions that most tests ask of a mirror, and what its answers must be, wherever it runs.

use std::time::Duration;

use entrepot_testkit::http::{self, Call, Response};

use super::{Bench, HOSTS, arriving};

impl Bench {
    /// A GET of a path of the mirror.
    pub fn get(&self, path: impl AsRef<str>) -> Call {
        arriving(http::get(self.url(path)))
    }

    pub fn head(&self, path: impl AsRef<str>) -> Call {
        arriving(http::head(self.url(path)))
    }

    pub fn request(&self, method: &str, path: impl AsRef<str>) -> Call {
        arriving(http::request(method, self.url(path)))
    }

    pub fn url(&self, path: impl AsRef<str>) -> String {
        format!("{}{}", self.mirror.url(), path.as_ref())
    }

    /// Waits until a path answers as a condition demands, which a breaker or a back-off may delay.
    pub async fn eventually(&self, path: &str, what: &str, good: impl Fn(&Response) -> bool) -> Response {
        let start = std::time::Instant::now();
        loop {
            let answer = self.get(path).send_or_broken().await;
            if good(&answer) {
                return answer;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "{what}: {path} still answers {answer:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Asserts the status, and the code of an OCI error body.
#[track_caller]
pub fn assert_error(answer: &Response, status: u16, code: &str) {
    assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "{answer:?}");
}

/// Asserts that an answer carries no header but those we mean to send.
#[track_caller]
pub fn assert_only_our_headers(answer: &Response) {
    const OURS: &[&str] = &[
        "accept-ranges",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "age",
        "allow",
        "cache-control",
        "cache-status",
        "connection",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "docker-content-digest",
        "docker-distribution-api-version",
        "etag",
        "link",
        "oci-filters-applied",
        "oci-namespace",
        "ratelimit-limit",
        "ratelimit-remaining",
        "ratelimit-reset",
        "retry-after",
        "transfer-encoding",
        "vary",
        "warning",
        "www-authenticate",
        "x-cache",
        "x-content-type-options",
    ];
    for (name, value) in &answer.head.headers {
        assert!(
            OURS.contains(&name.as_str()) || HOSTS.contains(&name.as_str()),
            "the header {name}: {value} is not ours: {answer:?}"
        );
    }
}
