//! Lists of tags and of referrers.

use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::media;
use http::StatusCode;
use http::header::{self, HeaderName};
use serde::Serialize;

use super::manifest::Believed;
use super::{Answer, Served};
use crate::resolve::Resolved;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Bytes of a query in a link of ours at most.
const MAX_LINK_QUERY: usize = 2048;

#[derive(Serialize)]
struct Tags<'a, T> {
    name: &'a str,
    tags: &'a [T],
}

/// A page of tags, under the name that the client used (`end-8a`). `next`: our link to the next page, from
/// [`next_link`].
pub fn tags<T: Serialize>(
    resolved: &Resolved,
    tags: &[T],
    next: Option<&str>,
    left: Duration,
    served: &Served<'_>,
    head_only: bool,
) -> Answer {
    // Strings in a struct always serialise.
    let body = serde_json::to_vec(&Tags { name: &resolved.shown, tags }).unwrap_or_default();
    let mut answer = Answer::new(StatusCode::OK).json(body, head_only);
    finish(&mut answer, next, left, served);
    answer
}

/// A page of referrers (`end-12a`): `body` is an image index. `filtered`: by `artifactType`.
pub fn referrers(
    body: Bytes,
    filtered: bool,
    next: Option<&str>,
    left: Duration,
    served: &Served<'_>,
    head_only: bool,
) -> Answer {
    let mut answer = Answer::new(StatusCode::OK);
    answer.set(header::CONTENT_TYPE, media::OCI_INDEX);
    answer.set_length(body.len() as u64);
    if filtered {
        answer.set(OCI_FILTERS_APPLIED, "artifactType");
    }
    if !head_only {
        answer.body = body;
    }
    finish(&mut answer, next, left, served);
    answer
}

fn finish(answer: &mut Answer, next: Option<&str>, left: Duration, served: &Served<'_>) {
    if let Some(next) = next {
        answer.set(header::LINK, format!("<{next}>; rel=\"next\""));
    }
    served.cache_control(answer, Believed::For(left));
    served.write(answer);
}

/// Our own link to the page that upstream's `Link` target leads to: upstream's query (paging marks are its own business)
/// on our path. `tail` is `tags/list` or `referrers/<digest>`. Relative to our host, so that a client that reached us by a
/// source's own `Host` name stays there; an `ns` it sent is carried along.
///
/// `None` when the target has no query, or one too long to pass on.
pub fn next_link(resolved: &Resolved, tail: &str, upstream_target: &str) -> Option<String> {
    let target = upstream_target.split('#').next().unwrap_or_default();
    let (_, query) = target.split_once('?')?;
    if query.is_empty() || query.len() > MAX_LINK_QUERY {
        return None;
    }
    let mut ours = url::form_urlencoded::Serializer::new(String::new());
    for (key, value) in url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key != "ns") {
        ours.append_pair(&key, &value);
    }
    if let Some(ns) = &resolved.ns {
        ours.append_pair("ns", ns);
    }
    Some(format!("{}/{tail}?{}", resolved.path(), ours.finish()))
}
