//! Whether a 200 or 206 makes sense for what was asked, and which bytes of the object its body holds.

use entrepot_oci::range::ContentRange;
use http::response::Parts;
use http::{HeaderMap, HeaderName, StatusCode, header};

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    /// A manifest or a list, and not a blob.
    pub(super) document: bool,
    pub(super) head: bool,
    /// First byte, last byte.
    pub(super) range: Option<(u64, Option<u64>)>,
}

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) length: Option<u64>,
    pub(super) size: Option<u64>,
}

/// `Err`: what is wrong, as the end of a sentence.
pub(super) fn read(expected: Expected, parts: &Parts) -> Result<Found, &'static str> {
    let headers = &parts.headers;
    let encoded =
        |value: &http::HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(header::CONTENT_ENCODING).iter().any(encoded) {
        return Err("an encoded body, though identity was asked for");
    }
    let kind = content_type(headers);
    if expected.document && is_html(&kind) {
        return Err("an HTML page where a document of the registry was expected");
    }
    let length = content_length(headers)?;
    match (parts.status, expected.range) {
        (StatusCode::OK, _) => {
            if expected.document && length == Some(0) {
                return Err("an empty body where a document was expected");
            }
            Ok(Found { offset: 0, length: length.filter(|_| !expected.head), size: length })
        }
        (StatusCode::PARTIAL_CONTENT, Some(range)) => part(range, headers, &kind, length),
        (StatusCode::PARTIAL_CONTENT, None) => Err("206, though no part was asked for"),
        _ => Err("a status that fits no request"),
    }
}

/// A part must begin where it was asked to; one asked without an end must reach the end, or a client that resumes by it
/// would refuse it (wire: Docker compares the last byte with the size).
fn part(
    (first, last): (u64, Option<u64>),
    headers: &HeaderMap,
    kind: &str,
    length: Option<u64>,
) -> Result<Found, &'static str> {
    if kind.starts_with("multipart/") {
        return Err("several parts, though one was asked for");
    }
    let mut ranges = headers.get_all(header::CONTENT_RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Err("206 without a single Content-Range");
    };
    let range: ContentRange = range
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or("206 with a Content-Range that makes no sense")?;
    let beyond = last.is_some_and(|last| range.end_inclusive > last);
    let outside = range.size.is_some_and(|size| range.end_inclusive >= size);
    if range.start != first || range.end_inclusive < first || beyond || outside {
        return Err("another part than the one asked for");
    }
    if last.is_none() && range.size.is_some_and(|size| range.end_inclusive + 1 != size) {
        return Err("a part that stops before the end");
    }
    let covers = (range.end_inclusive - range.start)
        .checked_add(1)
        .ok_or("206 with a Content-Range that makes no sense")?;
    if length.is_some_and(|length| length != covers) {
        return Err("a Content-Length that contradicts Content-Range");
    }
    Ok(Found { offset: range.start, length: Some(covers), size: range.size })
}

/// Whether this is a page for people: HTML, and without a registry's word on which object it is.
pub(super) fn is_page(headers: &HeaderMap) -> bool {
    is_html(&content_type(headers)) && !headers.contains_key("docker-content-digest")
}

fn is_html(kind: &str) -> bool {
    matches!(kind, "text/html" | "application/xhtml+xml")
}

fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Repeated values must agree (RFC 9110 §8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    let mut found = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let text = value.to_str().unwrap_or_default().trim();
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let length: u64 =
            text.parse().ok().filter(|_| digits).ok_or("a Content-Length that is not a number")?;
        if found.is_some_and(|other| other != length) {
            return Err("two Content-Lengths that disagree");
        }
        found = Some(length);
    }
    Ok(found)
}

/// The size that a 416 tells: `bytes */<size>`.
pub(super) fn unsatisfied_size(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes */")?.parse().ok()
}

/// A validator that `If-Range` may carry (RFC 9110 §13.1.5).
pub(super) fn strong_etag(headers: &HeaderMap) -> Option<http::HeaderValue> {
    let value = headers.get(header::ETAG)?;
    let bytes = value.as_bytes();
    (bytes.len() >= 2 && bytes.starts_with(b"\"") && bytes.ends_with(b"\"")).then(|| value.clone())
}

/// The headers that mean something to a mirror; everything else ends here.
pub(super) fn kept(headers: &HeaderMap) -> HeaderMap {
    let known = [
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::ETAG,
        header::LAST_MODIFIED,
        header::LINK,
        header::DATE,
        header::AGE,
        HeaderName::from_static("docker-content-digest"),
        HeaderName::from_static("oci-filters-applied"),
        HeaderName::from_static("oci-subject"),
        HeaderName::from_static("ratelimit-limit"),
        HeaderName::from_static("ratelimit-remaining"),
        HeaderName::from_static("docker-ratelimit-source"),
    ];
    let mut kept = HeaderMap::new();
    for name in known {
        for value in headers.get_all(&name).iter().take(8) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}
