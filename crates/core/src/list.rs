//! Lists of tags and of referrers: what to ask for, what upstream's answer means, and how long it is believed.

use std::time::Duration;

use bytes::Bytes;
use entrepot_oci::digest::Digest;
use entrepot_oci::manifest::{Kind, MAX_MANIFEST, Manifest};
use entrepot_oci::tags::{self, Page, TagList};
use entrepot_oci::{link, referrers};
use http::header::LINK;
use serde::{Deserialize, Serialize};

use crate::admit::{Incoming, Request};
use crate::answer::{self, Answer, Served};
use crate::config::Cache;
use crate::failure::{Failure, Reason};
use crate::freshness::{self, TroubleKind};
use crate::time::Wall;
use crate::upstream::{Reply, What};

/// A list that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListAsk {
    Tags { page: Page, query: String },
    Referrers { digest: Digest, artifact_type: Option<String>, query: String },
}

/// A list as upstream gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRecord {
    list: List,
    /// The query of the next page, after a `?`.
    next: Option<String>,
    /// When upstream said so.
    pub checked: Wall,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum List {
    Tags(Vec<String>),
    /// An image index. `filtered`: by artifact type.
    Referrers {
        index: String,
        filtered: bool,
    },
}

impl ListAsk {
    /// What is asked, if it is a list.
    pub fn of(request: &Request) -> Option<ListAsk> {
        match request.clone() {
            Request::Tags { page, query } => Some(ListAsk::Tags { page, query }),
            Request::Referrers { digest, artifact_type, query } => {
                Some(ListAsk::Referrers { digest, artifact_type, query })
            }
            Request::Manifest(_) | Request::Blob(_) => None,
        }
    }

    /// Names it within its repository; lists with equal keys are the same.
    pub fn key(&self) -> String {
        match self {
            ListAsk::Tags { query, .. } => format!("tags {query}"),
            ListAsk::Referrers { digest, query, .. } => format!("referrers {digest} {query}"),
        }
    }

    /// What upstream is asked for.
    pub fn what(&self) -> What {
        match self {
            // Registries disagree on what a page of no tags is: ask for one, and cut it off.
            ListAsk::Tags { page: Page { n: Some(0), .. }, .. } => What::Tags("n=1".to_owned()),
            ListAsk::Tags { query, .. } => What::Tags(query.clone()),
            ListAsk::Referrers { digest, query, .. } => What::Referrers(*digest, query.clone()),
        }
    }

    /// Bytes that upstream's answer may have at most.
    pub fn max_body(&self) -> usize {
        match self {
            ListAsk::Tags { .. } => tags::MAX_BODY,
            ListAsk::Referrers { .. } => MAX_MANIFEST,
        }
    }

    /// The end of the path, which links are built from.
    fn tail(&self) -> String {
        match self {
            ListAsk::Tags { .. } => "tags/list".to_owned(),
            ListAsk::Referrers { digest, .. } => format!("referrers/{digest}"),
        }
    }
}

impl ListRecord {
    /// Reads upstream's answer.
    ///
    /// Errors: `UpstreamBadAnswer` for what is no such list; an empty list in its place would claim that there is nothing.
    pub fn read(ask: &ListAsk, reply: &Reply, bytes: &[u8], now: Wall) -> Result<ListRecord, Failure> {
        let next = next_query(reply);
        let (list, next) = match ask {
            ListAsk::Tags { page, .. } => tag_page(page, bytes, next)?,
            ListAsk::Referrers { artifact_type, .. } => {
                (referrer_page(artifact_type.as_deref(), reply, bytes)?, next)
            }
        };
        Ok(ListRecord { list, next, checked: now })
    }

    /// The list of referrers that stands under a tag (distribution-spec, "Referrers Tag Schema").
    ///
    /// Errors: `UpstreamBadAnswer` for what is no index.
    pub fn of_tag(bytes: &[u8], artifact_type: Option<&str>, now: Wall) -> Result<ListRecord, Failure> {
        let list = chosen(&index(bytes)?, artifact_type);
        Ok(ListRecord { list, next: None, checked: now })
    }

    /// How much longer it is believed, if it still is.
    pub fn left(&self, cache: &Cache, now: Wall) -> Option<Duration> {
        let ttl = freshness::list_ttl(cache);
        let age = now.since(self.checked);
        (self.checked <= now && age < ttl).then(|| ttl - age)
    }

    /// Whether it may be served although upstream failed, and what to say of that. A refusal denies what rests on
    /// credentials, and a list that is gone is gone: nobody pulls by it.
    pub fn stale_after(
        &self,
        failure: &Failure,
        credentialed: bool,
        cache: &Cache,
        now: Wall,
    ) -> Option<TroubleKind> {
        let kind = freshness::kind_of(failure.reason);
        let denied = kind == TroubleKind::Refused && credentialed;
        let held = now.since(self.checked) <= freshness::list_ttl(cache).saturating_add(cache.max_stale);
        (held && !denied && kind != TroubleKind::Gone).then_some(kind)
    }

    /// The answer to `call`. `left`: how much longer it is believed.
    pub fn answer(&self, call: &Incoming, ask: &ListAsk, left: Duration, served: &Served<'_>) -> Answer {
        let next = self
            .next
            .as_ref()
            .and_then(|query| answer::next_link(&call.resolved, &ask.tail(), &format!("?{query}")));
        match &self.list {
            List::Tags(tags) => {
                answer::tags(&call.resolved, tags, next.as_deref(), left, served, call.head_only)
            }
            List::Referrers { index, filtered } => {
                let body = Bytes::from(index.clone());
                answer::referrers(body, *filtered, next.as_deref(), left, served, call.head_only)
            }
        }
    }
}

/// How long a list is kept, so that it outlives an outage.
pub fn keep(cache: &Cache) -> Duration {
    freshness::list_ttl(cache).saturating_add(cache.max_stale)
}

fn tag_page(page: &Page, bytes: &[u8], next: Option<String>) -> Result<(List, Option<String>), Failure> {
    let list = TagList::parse(bytes).map_err(|error| {
        Failure::new(Reason::UpstreamBadAnswer, format!("upstream's list of tags is not one: {error}"))
    })?;
    // An upstream that pages does so in an order of its own. One that sends more than was asked for, or the very tag
    // after which the page begins, does not page (docker-registry 2.8): its list is cut for the client.
    let ignores = page.n.is_some_and(|n| list.tags.len() as u64 > n)
        || page.last.as_deref().is_some_and(|last| list.tags.iter().any(|tag| tag.as_str() == last));
    let (tags, next) = if ignores {
        let (tags, page) = page.cut(list.tags);
        (tags, page.map(|page| page.query()))
    } else {
        (list.tags, next)
    };
    let next = next.filter(|_| page.n != Some(0));
    let tags = tags.into_iter().map(|tag| tag.as_str().to_owned()).collect();
    Ok((List::Tags(tags), next))
}

fn referrer_page(artifact_type: Option<&str>, reply: &Reply, bytes: &[u8]) -> Result<List, Failure> {
    let manifest = index(bytes)?;
    let applied =
        reply.headers.get("oci-filters-applied").and_then(|applied| applied.to_str().ok()).is_some_and(
            |applied| applied.split(',').any(|filter| filter.trim().eq_ignore_ascii_case("artifactType")),
        );
    match artifact_type {
        Some(_) if !applied => Ok(chosen(&manifest, artifact_type)),
        _ => Ok(List::Referrers {
            index: String::from_utf8_lossy(bytes).into_owned(),
            filtered: artifact_type.is_some(),
        }),
    }
}

/// An image has no `manifests`, and would read as an index of none.
fn index(bytes: &[u8]) -> Result<Manifest, Failure> {
    let bad = |why: String| {
        let public = format!("upstream's list of referrers is not one: {why}");
        Failure::new(Reason::UpstreamBadAnswer, public)
    };
    let manifest = Manifest::parse(bytes, None).map_err(|error| bad(error.to_string()))?;
    match manifest.kind {
        Kind::Index => Ok(manifest),
        Kind::Image => Err(bad(format!("it is a {}", manifest.media_type))),
    }
}

fn chosen(manifest: &Manifest, artifact_type: Option<&str>) -> List {
    let index = match artifact_type {
        Some(wanted) => referrers::index(referrers::filter(&manifest.children, wanted)),
        None => referrers::index(&manifest.children),
    };
    List::Referrers { index: String::from_utf8_lossy(&index).into_owned(), filtered: artifact_type.is_some() }
}

fn next_query(reply: &Reply) -> Option<String> {
    let target = link::next(reply.headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok()))?;
    let (_, query) = target.split_once('?')?;
    Some(query.to_owned())
}

#[cfg(test)]
mod tests;
