//! Tags: believed for their time, then asked for anew, then served stale while upstream cannot be asked.

use std::time::Duration;

use entrepot_core::answer::{Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness::{self, AfterFailure, TagPolicy, TagRecord, TagVerdict, TroubleKind};
use entrepot_core::upstream::What;
use entrepot_oci::Reference;
use entrepot_oci::name::Tag;

use crate::job::{Landed, Place, Work};
use crate::manifest::Found;
use crate::ports::{Host, Meta};
use crate::{Engine, Flown, missed};

/// A tag that a client asks for.
struct Wanted<'a> {
    place: &'a Place,
    tag: &'a Tag,
    /// HEAD.
    head: bool,
    policy: TagPolicy,
}

impl<H: Host> Engine<H> {
    pub(crate) async fn by_tag(
        &self,
        config: &Config,
        place: &Place,
        tag: &Tag,
        head: bool,
    ) -> Result<Found, Failure> {
        let policy = freshness::tag_policy(&config.cache, &place.source, &place.repository, tag);
        let wanted = Wanted { place, tag, head, policy };
        let Some(record) = self.tag_record(place, tag).await else {
            return self.cold_tag(&wanted, policy.ttl).await;
        };
        let now = self.host.now();
        let judged = |budget_low| freshness::tag_verdict(&record, &policy, now.wall, budget_low);
        // What is remembered of upstreams is looked at only where it matters.
        let verdict = match judged(false) {
            TagVerdict::Revalidate { .. } => {
                judged(self.host.state(|state| state.budget_low(&place.source, now)))
            }
            verdict => verdict,
        };
        match verdict {
            TagVerdict::Fresh { left } => match self.recorded(&wanted, &record, Verdict::Hit).await {
                Some(found) => Ok(Found { left: Some(left), age: Some(record.age(now.wall)), ..found }),
                None => self.cold_tag(&wanted, policy.ttl).await,
            },
            TagVerdict::Revalidate { wait } => {
                let flight = self.fly(Work::Revalidate(place.clone(), tag.clone(), record.clone()));
                let flown = match wait {
                    Some(wait) => self.within(wait, flight).await,
                    None => Some(flight.await),
                };
                match flown {
                    Some(flown) => self.revalidated(&wanted, record, flown).await,
                    None => self.stale(&wanted, &record, None).await,
                }
            }
            TagVerdict::Stale { kind } => self.stale(&wanted, &record, kind).await,
            TagVerdict::Denied => Err(Failure::new(
                Reason::UpstreamDenied,
                "upstream refused this mirror's credentials a moment ago",
            )),
            TagVerdict::Gone => self.cold_tag(&wanted, policy.ttl).await,
        }
    }

    async fn revalidated(
        &self,
        wanted: &Wanted<'_>,
        record: TagRecord,
        flown: Flown,
    ) -> Result<Found, Failure> {
        let ttl = wanted.policy.ttl;
        match flown.landed {
            Ok(Landed::Head(confirmed)) => {
                match self.recorded(wanted, &confirmed, Verdict::Revalidated).await {
                    Some(found) => Ok(Found { left: Some(ttl), ..found }),
                    None => self.cold_tag(wanted, ttl).await,
                }
            }
            Ok(Landed::Manifest(held)) => {
                let trace = missed(&wanted.place.source).joined(flown.shared);
                Ok(Found { left: Some(ttl), ..Found::of(held, trace) })
            }
            Ok(_) => Err(Self::unexpected("a revalidation")),
            Err(failure) => {
                match freshness::after_failure(&record, &wanted.policy, &failure, self.host.now().wall) {
                    AfterFailure::Stale { kind, .. } => self.stale(wanted, &record, Some(kind)).await,
                    AfterFailure::Deny { .. } | AfterFailure::Follow | AfterFailure::TooOld => Err(failure),
                }
            }
        }
    }

    /// What is held of a tag that is no longer believed.
    async fn stale(
        &self,
        wanted: &Wanted<'_>,
        record: &TagRecord,
        kind: Option<TroubleKind>,
    ) -> Result<Found, Failure> {
        match self.recorded(wanted, record, Verdict::Stale).await {
            Some(found) => Ok(Found {
                left: Some(Duration::ZERO),
                age: Some(record.age(self.host.now().wall)),
                warning: Some(freshness::warning(kind)),
                ..found
            }),
            // Evicted: it can only be fetched again.
            None => self.cold_tag(wanted, Duration::ZERO).await,
        }
    }

    async fn cold_tag(&self, wanted: &Wanted<'_>, ttl: Duration) -> Result<Found, Failure> {
        let found = self.cold(wanted.place, Reference::Tag(wanted.tag.clone()), wanted.head).await?;
        Ok(Found { left: Some(ttl), ..found })
    }

    /// The manifest that a record names. For HEAD the record itself is enough.
    async fn recorded(&self, wanted: &Wanted<'_>, record: &TagRecord, verdict: Verdict) -> Option<Found> {
        let trace = Trace::new(verdict);
        if wanted.head {
            return Some(Found::head(record.clone(), trace));
        }
        let held = self.held(wanted.place, record.digest).await?;
        Some(Found::of(held, trace))
    }

    /// What is held of the tag. Whether the right to it rests on credentials is a matter of who asks now.
    async fn tag_record(&self, place: &Place, tag: &Tag) -> Option<TagRecord> {
        if !place.source.mirror {
            return None;
        }
        let record: TagRecord = self.load(&place.shared_key("tag", tag.as_str())).await?;
        Some(TagRecord { credentialed: place.credentialed, ..record })
    }

    /// The record of a tag that needs no question upstream.
    pub(crate) async fn believed(&self, place: &Place, tag: &Tag) -> Option<TagRecord> {
        let record = self.tag_record(place, tag).await?;
        let policy = freshness::tag_policy(&self.host.config().cache, &place.source, &place.repository, tag);
        let verdict = freshness::tag_verdict(&record, &policy, self.host.now().wall, false);
        matches!(verdict, TagVerdict::Fresh { .. }).then_some(record)
    }

    /// Asks whether a tag still means what is held, and updates what is held.
    pub(crate) async fn revalidate(
        &self,
        place: &Place,
        tag: &Tag,
        record: TagRecord,
    ) -> Result<Landed, Failure> {
        // Another may have asked since this request looked.
        if let Some(confirmed) = self.believed(place, tag).await {
            return Ok(Landed::Head(confirmed));
        }
        let reference = Reference::Tag(tag.clone());
        let asked = match self.ask_head(place, &reference).await {
            Ok(Some(found)) if found.digest == record.digest => {
                let confirmed = record.confirmed(self.host.now().wall);
                self.save(place.shared_key("tag", tag.as_str()), &confirmed, None).await;
                return Ok(Landed::Head(confirmed));
            }
            // By the digest that the HEAD named: what is kept under the tag is what the HEAD promised.
            Ok(Some(found)) => match self.fetch_checked(place, &Reference::Digest(found.digest)).await {
                Err(failure) if failure.reason == Reason::DigestMismatch || failure.reason.is_absence() => {
                    self.fetch_checked(place, &reference).await
                }
                other => other,
            },
            Ok(None) => self.fetch_checked(place, &reference).await,
            Err(failure) => Err(failure),
        };
        match asked {
            Ok(checked) => {
                self.keep(place, &reference, &checked).await;
                Ok(Landed::Manifest(checked.held))
            }
            Err(failure) => {
                self.not_revalidated(place, tag, &record, &failure).await;
                Err(failure)
            }
        }
    }

    /// Remembers what a failed revalidation means for the record.
    async fn not_revalidated(&self, place: &Place, tag: &Tag, record: &TagRecord, failure: &Failure) {
        let key = place.shared_key("tag", tag.as_str());
        let policy = freshness::tag_policy(&self.host.config().cache, &place.source, &place.repository, tag);
        match freshness::after_failure(record, &policy, failure, self.host.now().wall) {
            AfterFailure::Stale { record, .. } | AfterFailure::Deny { record } => {
                self.save(key, &record, None).await
            }
            AfterFailure::Follow => {
                self.host.meta().remove(&key).await;
                let what = What::Manifest(Reference::Tag(tag.clone()));
                self.remember_absence(place, &what, failure).await;
            }
            AfterFailure::TooOld => {}
        }
    }
}
