//! Lists of tags and of referrers: believed for a short while, kept for when upstream is away.

use std::time::Duration;

use bytes::Bytes;
use entrepot_core::admit::{Incoming, Request};
use entrepot_core::answer::{self, Answer, Served, Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness::{self, TroubleKind};
use entrepot_core::time::Wall;
use entrepot_core::upstream::{Reply, SmallFault, Verb, What};
use entrepot_oci::manifest::{MAX_MANIFEST, Manifest};
use entrepot_oci::name::Tag;
use entrepot_oci::tags::{self, Page, TagList};
use entrepot_oci::{Digest, Reference, link, referrers};
use http::header::LINK;
use serde::{Deserialize, Serialize};

use crate::{Engine, missed};
use crate::job::{Landed, Place, Work};
use crate::ports::{Host, Http};
use crate::reply::Facts;

/// A list that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListAsk {
    Tags { page: Page, query: String },
    Referrers { digest: Digest, artifact_type: Option<String>, query: String },
}

/// A list as upstream gave it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListRecord {
    list: List,
    /// The query of the next page, after a `?`.
    next: Option<String>,
    checked: Wall,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum List {
    Tags(Vec<String>),
    /// An image index. `filtered`: by artifact type.
    Referrers { index: String, filtered: bool },
}

impl ListAsk {
    /// What is asked, if it is a list.
    pub(crate) fn of(request: &Request) -> Option<ListAsk> {
        match request.clone() {
            Request::Tags { page, query } => Some(ListAsk::Tags { page, query }),
            Request::Referrers { digest, artifact_type, query } => Some(ListAsk::Referrers { digest, artifact_type, query }),
            Request::Manifest(_) | Request::Blob(_) => None,
        }
    }

    pub(crate) fn key(&self) -> String {
        match self {
            ListAsk::Tags { query, .. } => format!("tags {query}"),
            ListAsk::Referrers { digest, query, .. } => format!("referrers {digest} {query}"),
        }
    }

    fn what(&self) -> What {
        match self {
            // Registries disagree on what a page of no tags is: ask for one, and cut it off.
            ListAsk::Tags { page: Page { n: Some(0), .. }, .. } => What::Tags("n=1".to_owned()),
            ListAsk::Tags { query, .. } => What::Tags(query.clone()),
            ListAsk::Referrers { digest, query, .. } => What::Referrers(*digest, query.clone()),
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

impl<H: Host> Engine<H> {
    pub(crate) async fn list(
        &self,
        config: &Config,
        call: &Incoming,
        ask: ListAsk,
        facts: &mut Facts,
    ) -> Result<Answer, Failure> {
        let place = self.place(call, &ask.what()).await?;
        let ttl = freshness::list_ttl(&config.cache);
        let key = place.shared_key("list", &ask.key());
        let held: Option<ListRecord> = self.load(&key).await.filter(|_| place.source.mirror);
        let now = self.host.now().wall;
        let (record, trace, warning) = match held {
            Some(held) if held.checked <= now && now.since(held.checked) < ttl => (held, Trace::new(Verdict::Hit), None),
            held => match self.fly(Work::List(place.clone(), ask.clone())).await {
                Ok(Landed::List(record)) => (record, missed(&place.source), None),
                Ok(_) => return Err(Self::unexpected("a list")),
                Err(failure) => match held.filter(|held| may_be_stale(held, &failure, config, &place, now)) {
                    Some(held) => (held, Trace::new(Verdict::Stale), Some(freshness::warning(Some(TroubleKind::Failed)))),
                    None => return Err(failure),
                },
            },
        };
        facts.verdict = Some(trace.verdict);
        let age = now.since(record.checked);
        let served = Served {
            age: (trace.verdict != Verdict::Miss).then_some(age),
            warning,
            credentialed: place.credentialed || !config.access.anonymous,
            ns: call.resolved.ns.as_deref(),
            ..Served::new(trace)
        };
        Ok(record.answer(call, &ask, ttl.saturating_sub(age), &served))
    }

    pub(crate) async fn fetch_list(&self, place: &Place, ask: &ListAsk) -> Result<Landed, Failure> {
        let record = match (self.fetch_page(place, ask).await, ask) {
            (Err(failure), ListAsk::Referrers { digest, artifact_type, .. })
                if failure.reason.is_absence() || failure.reason == Reason::UpstreamUnsupported =>
            {
                // No such API there: the list may stand under a tag. If it does not, the client hears upstream's 404
                // and looks for the tag itself; an empty list would claim that there are none (wire behaviour of cosign).
                self.by_tag_schema(place, digest, artifact_type.as_deref()).await.map_err(|_| failure)?
            }
            (fetched, _) => fetched?,
        };
        if place.source.mirror {
            let keep = self.host.config().cache.max_stale.max(Duration::from_secs(60));
            self.save(place.shared_key("list", &ask.key()), &record, Some(keep)).await;
        }
        Ok(Landed::List(record))
    }

    async fn fetch_page(&self, place: &Place, ask: &ListAsk) -> Result<ListRecord, Failure> {
        let (reply, body) = self.ask(place.ask(ask.what(), Verb::Get)).await?;
        let body = body.ok_or_else(|| Self::unexpected("a GET"))?;
        let max = match ask {
            ListAsk::Tags { .. } => tags::MAX_BODY,
            ListAsk::Referrers { .. } => MAX_MANIFEST,
        };
        let bytes = self.host.http().read_small(body, max).await.map_err(|fault| match fault {
            SmallFault::TooLarge => Failure::new(Reason::TooLarge, format!("upstream's list has more than {max} bytes; ask for pages with n=")),
            SmallFault::Broken => Failure::new(Reason::UpstreamUnreachable, "upstream broke off in the middle of the list"),
        })?;
        let next = next_query(&reply);
        let (list, next) = match ask {
            ListAsk::Tags { page, .. } => tag_page(page, &bytes, next)?,
            ListAsk::Referrers { artifact_type, .. } => (referrer_page(artifact_type.as_deref(), &reply, &bytes)?, next),
        };
        Ok(ListRecord { list, next, checked: self.host.now().wall })
    }

    async fn by_tag_schema(&self, place: &Place, digest: &Digest, artifact_type: Option<&str>) -> Result<ListRecord, Failure> {
        let held = self.fetch(place, &Reference::Tag(Tag::for_referrers(digest))).await?;
        let manifest = Manifest::parse(&held.bytes, None).map_err(bad_list)?;
        let list = chosen(&manifest, artifact_type);
        Ok(ListRecord { list, next: None, checked: self.host.now().wall })
    }
}

impl ListRecord {
    fn answer(&self, call: &Incoming, ask: &ListAsk, left: Duration, served: &Served<'_>) -> Answer {
        let next = self.next.as_ref().and_then(|query| answer::next_link(&call.resolved, &ask.tail(), &format!("?{query}")));
        match &self.list {
            List::Tags(tags) => answer::tags(&call.resolved, tags, next.as_deref(), left, served, call.head_only),
            List::Referrers { index, filtered } => {
                let body = Bytes::from(index.clone());
                answer::referrers(body, *filtered, next.as_deref(), left, served, call.head_only)
            }
        }
    }
}

fn may_be_stale(held: &ListRecord, failure: &Failure, config: &Config, place: &Place, now: Wall) -> bool {
    let refused = failure.reason.is_refusal() && place.credentialed;
    !refused && !failure.reason.is_absence() && now.since(held.checked) <= config.cache.max_stale
}

fn tag_page(page: &Page, bytes: &[u8], next: Option<String>) -> Result<(List, Option<String>), Failure> {
    let list = TagList::parse(bytes)
        .map_err(|error| Failure::new(Reason::UpstreamBadAnswer, format!("upstream's list of tags is not one: {error}")))?;
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
    Ok((List::Tags(tags.into_iter().map(|tag| tag.as_str().to_owned()).collect()), next))
}

fn referrer_page(artifact_type: Option<&str>, reply: &Reply, bytes: &Bytes) -> Result<List, Failure> {
    let manifest = Manifest::parse(bytes, None).map_err(bad_list)?;
    let applied = reply
        .headers
        .get("oci-filters-applied")
        .and_then(|applied| applied.to_str().ok())
        .is_some_and(|applied| applied.split(',').any(|filter| filter.trim().eq_ignore_ascii_case("artifactType")));
    match artifact_type {
        Some(_) if !applied => Ok(chosen(&manifest, artifact_type)),
        _ => Ok(List::Referrers { index: String::from_utf8_lossy(bytes).into_owned(), filtered: artifact_type.is_some() }),
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

fn bad_list(error: impl std::fmt::Display) -> Failure {
    Failure::new(Reason::UpstreamBadAnswer, format!("upstream's list of referrers is not one: {error}"))
}
