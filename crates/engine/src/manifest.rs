//! Manifests: by digest for ever, by tag for as long as the tag is believed.

use std::time::Duration;

use bytes::Bytes;
use entrepot_core::access::identity_needed;
use entrepot_core::admit::Incoming;
use entrepot_core::answer::{self, Answer, Believed, ManifestFacts, Served, Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness::{self, AfterFailure, NegativeRecord, TagRecord, TagVerdict, TroubleKind};
use entrepot_core::upstream::{Ask, Reply, SmallFault, Verb, What};
use entrepot_oci::manifest::{MAX_MANIFEST, Manifest};
use entrepot_oci::media::MediaType;
use entrepot_oci::name::Tag;
use entrepot_oci::{Algorithm, Digest, Reference};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::{Deserialize, Serialize};

use crate::{Engine, missed};
use crate::job::{Held, Landed, Place, Work};
use crate::ports::{Blobs, Host, Http, Meta};
use crate::reply::Facts;

/// What a repository has shown: the right to read an object through it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) size: Option<u64>,
    pub(crate) media_type: Option<MediaType>,
}

/// A fetch that failed, and whether trying once more at once may help.
struct Unfetched {
    failure: Failure,
    again: bool,
}

impl From<Failure> for Unfetched {
    fn from(failure: Failure) -> Unfetched {
        Unfetched { failure, again: false }
    }
}

/// A manifest to be answered.
struct Found {
    digest: Digest,
    size: u64,
    media_type: MediaType,
    bytes: Option<Bytes>,
    trace: Trace,
    /// How much longer a tag is believed; `None` by digest.
    left: Option<Duration>,
    age: Option<Duration>,
    warning: Option<&'static str>,
}

impl<H: Host> Engine<H> {
    pub(crate) async fn manifest(
        &self,
        config: &Config,
        call: &Incoming,
        reference: &Reference,
        facts: &mut Facts,
    ) -> Result<Answer, Failure> {
        let place = self.place(call, &What::Manifest(reference.clone())).await?;
        let found = match reference {
            Reference::Digest(digest) => self.by_digest(config, &place, *digest, call.head_only).await?,
            Reference::Tag(tag) => self.by_tag(config, &place, tag, call.head_only).await?,
        };
        answer::negotiate(&call.accept, reference, &found.media_type)?;
        facts.verdict = Some(found.trace.verdict);
        facts.fetched = matches!(found.trace.verdict, Verdict::Miss | Verdict::Bypass);
        let served = Served {
            age: found.age,
            warning: found.warning,
            credentialed: place.credentialed || !config.access.anonymous,
            ns: call.resolved.ns.as_deref(),
            limit: facts.limit,
            ..Served::new(found.trace)
        };
        let described = ManifestFacts { digest: found.digest, size: found.size, media_type: &found.media_type };
        let believed = found.left.map_or(Believed::Forever, Believed::For);
        let mut answer = answer::manifest(&described, believed, &served, call.if_none_match.as_ref());
        if let Some(bytes) = found.bytes.filter(|_| !call.head_only && answer.status == http::StatusCode::OK) {
            answer.body = bytes;
        }
        Ok(answer)
    }

    async fn by_digest(&self, config: &Config, place: &Place, digest: Digest, head: bool) -> Result<Found, Failure> {
        if let Some(held) = self.held(place, digest).await {
            return Ok(Found::of(held, Trace::new(Verdict::Hit)));
        }
        let reference = Reference::Digest(digest);
        self.absent(config, place, &reference).await?;
        let work = if head { Work::Look(place.clone(), reference) } else { Work::Fetch(place.clone(), reference) };
        Ok(match self.fly(work).await? {
            Landed::Manifest(held) => Found::of(held, missed(&place.source)),
            Landed::Head(record) => Found::head(record, missed(&place.source)),
            _ => return Err(Self::unexpected("a manifest")),
        })
    }

    async fn by_tag(&self, config: &Config, place: &Place, tag: &Tag, head: bool) -> Result<Found, Failure> {
        let policy = freshness::tag_policy(&config.cache, &place.source, &place.repository, tag);
        let record = self.load::<TagRecord>(&place.shared_key("tag", tag.as_str())).await;
        let Some(mut record) = record.filter(|_| place.source.mirror) else {
            return self.cold(config, place, tag, head, policy.ttl).await;
        };
        record.credentialed = place.credentialed;
        let now = self.host.now();
        let budget_low = self.host.state(|state| state.budget_low(&place.source, now));
        match freshness::tag_verdict(&record, &policy, now.wall, budget_low) {
            TagVerdict::Fresh { left } => match self.from_record(place, &record, head).await {
                Some(found) => Ok(Found { left: Some(left), age: Some(record.age(now.wall)), ..found }),
                None => self.cold(config, place, tag, head, policy.ttl).await,
            },
            TagVerdict::Revalidate { wait } => {
                let flight = self.fly(Work::Revalidate(place.clone(), tag.clone(), record.clone()));
                let done = match wait {
                    Some(wait) => self.within(wait, flight).await,
                    None => Some(flight.await),
                };
                self.revalidated(config, place, tag, head, record, done).await
            }
            TagVerdict::Stale { kind } => self.stale(config, place, tag, head, &record, kind).await,
            TagVerdict::Denied if place.source.auth.is_some() => Err(identity_refused()),
            TagVerdict::Denied => Err(identity_needed()),
            TagVerdict::Gone => self.cold(config, place, tag, head, policy.ttl).await,
        }
    }

    /// After a revalidation, or when it takes too long (`None`).
    async fn revalidated(
        &self,
        config: &Config,
        place: &Place,
        tag: &Tag,
        head: bool,
        record: TagRecord,
        done: Option<Result<Landed, Failure>>,
    ) -> Result<Found, Failure> {
        let policy = freshness::tag_policy(&config.cache, &place.source, &place.repository, tag);
        match done {
            None => self.stale(config, place, tag, head, &record, None).await,
            Some(Ok(Landed::Head(record))) => match self.from_record(place, &record, head).await {
                Some(found) => Ok(Found { trace: Trace::new(Verdict::Revalidated), left: Some(policy.ttl), ..found }),
                None => self.cold(config, place, tag, head, policy.ttl).await,
            },
            Some(Ok(Landed::Manifest(held))) => Ok(Found { left: Some(policy.ttl), ..Found::of(held, missed(&place.source)) }),
            Some(Ok(_)) => Err(Self::unexpected("a revalidation")),
            Some(Err(failure)) => match freshness::after_failure(&record, &policy, &failure, self.host.now().wall) {
                AfterFailure::Stale { kind, .. } => self.stale(config, place, tag, head, &record, Some(kind)).await,
                AfterFailure::Deny { .. } | AfterFailure::Follow | AfterFailure::TooOld => Err(failure),
            },
        }
    }

    /// What is held of a tag that is no longer believed.
    async fn stale(
        &self,
        config: &Config,
        place: &Place,
        tag: &Tag,
        head: bool,
        record: &TagRecord,
        kind: Option<TroubleKind>,
    ) -> Result<Found, Failure> {
        match self.from_record(place, record, head).await {
            Some(found) => Ok(Found {
                trace: Trace::new(Verdict::Stale),
                left: Some(Duration::ZERO),
                age: Some(record.age(self.host.now().wall)),
                warning: Some(freshness::warning(kind)),
                ..found
            }),
            // Evicted: it can only be fetched again.
            None => self.cold(config, place, tag, head, Duration::ZERO).await,
        }
    }

    /// Nothing is held.
    async fn cold(&self, config: &Config, place: &Place, tag: &Tag, head: bool, ttl: Duration) -> Result<Found, Failure> {
        let reference = Reference::Tag(tag.clone());
        self.absent(config, place, &reference).await?;
        let work = if head { Work::Look(place.clone(), reference) } else { Work::Fetch(place.clone(), reference) };
        let found = match self.fly(work).await? {
            Landed::Manifest(held) => Found::of(held, missed(&place.source)),
            Landed::Head(record) => Found::head(record, missed(&place.source)),
            _ => return Err(Self::unexpected("a manifest")),
        };
        Ok(Found { left: Some(ttl), ..found })
    }

    /// A held manifest that this repository has shown.
    async fn held(&self, place: &Place, digest: Digest) -> Option<Held> {
        if !place.source.mirror {
            return None;
        }
        let shown: Shown = self.load(&place.shared_key("manifest", &digest.to_string())).await?;
        let bytes = self.host.blobs().read(digest, MAX_MANIFEST).await?;
        Some(Held { digest, media_type: shown.media_type?, bytes })
    }

    /// The manifest that a record names. For HEAD the record itself is enough.
    async fn from_record(&self, place: &Place, record: &TagRecord, head: bool) -> Option<Found> {
        if head {
            return Some(Found::head(record.clone(), Trace::new(Verdict::Hit)));
        }
        let held = self.held(place, record.digest).await?;
        Some(Found::of(held, Trace::new(Verdict::Hit)))
    }

    /// Errors: upstream said a moment ago that there is no such manifest.
    async fn absent(&self, config: &Config, place: &Place, reference: &Reference) -> Result<(), Failure> {
        let record: Option<NegativeRecord> = self.load(&place.key("absent", &reference.to_string())).await;
        let stands = record.and_then(|record| record.stands(config.cache.negative_ttl, self.host.now().wall));
        stands.map_or(Ok(()), Err)
    }

    // The flights.

    /// What an earlier flight brought between this request's look at the records and its own flight.
    pub(crate) async fn meanwhile(&self, place: &Place, reference: &Reference, head: bool) -> Option<Result<Landed, Failure>> {
        let config = self.host.config();
        if let Err(failure) = self.absent(&config, place, reference).await {
            return Some(Err(failure));
        }
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let record = self.believed(&config, place, tag).await?;
                if head {
                    return Some(Ok(Landed::Head(record)));
                }
                record.digest
            }
        };
        self.held(place, digest).await.map(|held| Ok(Landed::Manifest(held)))
    }

    /// The record of a tag that needs no question upstream.
    async fn believed(&self, config: &Config, place: &Place, tag: &Tag) -> Option<TagRecord> {
        if !place.source.mirror {
            return None;
        }
        let policy = freshness::tag_policy(&config.cache, &place.source, &place.repository, tag);
        let record: TagRecord = self.load(&place.shared_key("tag", tag.as_str())).await?;
        let verdict = freshness::tag_verdict(&record, &policy, self.host.now().wall, false);
        matches!(verdict, TagVerdict::Fresh { .. }).then_some(record)
    }

    /// GETs a manifest, checks it and keeps it.
    pub(crate) async fn fetch(&self, place: &Place, reference: &Reference) -> Result<Held, Failure> {
        match self.fetch_checked(place, reference).await {
            Ok(held) => {
                self.keep(place, reference, &held).await;
                Ok(held)
            }
            Err(failure) => {
                self.remember_absence(place, reference, &failure).await;
                Err(failure)
            }
        }
    }

    async fn fetch_checked(&self, place: &Place, reference: &Reference) -> Result<Held, Failure> {
        let first = self.fetch_once(place, reference).await;
        let last = match first {
            Err(Unfetched { again: true, .. }) => self.fetch_once(place, reference).await,
            first => first,
        };
        last.map_err(|unfetched| unfetched.failure)
    }

    async fn fetch_once(&self, place: &Place, reference: &Reference) -> Result<Held, Unfetched> {
        let (reply, body) = self.ask(place.ask(What::Manifest(reference.clone()), Verb::Get)).await?;
        let too_large = || {
            Failure::new(Reason::TooLarge, format!("the manifest {reference} has more than {MAX_MANIFEST} bytes; upstream must not send that"))
        };
        if reply.length.is_some_and(|length| length > MAX_MANIFEST as u64) {
            return Err(too_large().into());
        }
        let body = body.ok_or_else(|| Self::unexpected("a GET"))?;
        let bytes = self.host.http().read_small(body, MAX_MANIFEST).await.map_err(|fault| match fault {
            SmallFault::TooLarge => Unfetched::from(too_large()),
            SmallFault::Broken => {
                let public = format!("upstream broke off in the middle of the manifest {reference}");
                Unfetched { failure: Failure::new(Reason::UpstreamUnreachable, public), again: true }
            }
        })?;
        check(reference, &reply, bytes).map_err(|failure| {
            // The tag may have moved between upstream's head and its body.
            let again = failure.reason == Reason::DigestMismatch && matches!(reference, Reference::Tag(_));
            Unfetched { failure, again }
        })
    }

    async fn keep(&self, place: &Place, reference: &Reference, held: &Held) {
        if !place.source.mirror {
            return;
        }
        self.host.blobs().keep(held.digest, held.bytes.clone()).await;
        let shown = Shown { size: Some(held.bytes.len() as u64), media_type: Some(held.media_type.clone()) };
        self.save(place.shared_key("manifest", &held.digest.to_string()), &shown, None).await;
        // What the manifest says of its blobs holds upstream to its word when they are fetched.
        if let Ok(manifest) = Manifest::parse(&held.bytes, None) {
            for described in manifest.config.iter().chain(&manifest.layers) {
                self.save(place.shared_key("size", &described.digest.to_string()), &described.size, None).await;
            }
        }
        if let Reference::Tag(tag) = reference {
            let record = held.record(place, self.host.now().wall);
            self.save(place.shared_key("tag", tag.as_str()), &record, None).await;
        }
    }

    async fn remember_absence(&self, place: &Place, reference: &Reference, failure: &Failure) {
        if let Some(record) = NegativeRecord::of(failure, self.host.now().wall) {
            let keep = self.host.config().cache.negative_ttl;
            self.save(place.key("absent", &reference.to_string()), &record, Some(keep)).await;
        }
    }

    /// HEADs a manifest of which nothing is held; where upstream's HEAD does not say enough, GETs it.
    pub(crate) async fn look(&self, place: &Place, reference: &Reference) -> Result<Landed, Failure> {
        match self.head(place, reference).await {
            Ok(Some(record)) => {
                if let (Reference::Tag(tag), true) = (reference, place.source.mirror) {
                    self.save(place.shared_key("tag", tag.as_str()), &record, None).await;
                }
                Ok(Landed::Head(record))
            }
            Ok(None) => self.fetch(place, reference).await.map(Landed::Manifest),
            Err(failure) => {
                self.remember_absence(place, reference, &failure).await;
                Err(failure)
            }
        }
    }

    /// `None`: upstream's HEAD is refused, or lacks the digest, the length or a manifest's type (wire behaviour of ECR).
    async fn head(&self, place: &Place, reference: &Reference) -> Result<Option<TagRecord>, Failure> {
        let (reply, _) = match self.ask(place.ask(What::Manifest(reference.clone()), Verb::Head)).await {
            Err(failure) if failure.reason == Reason::UpstreamUnsupported => return Ok(None),
            other => other?,
        };
        let text = |name: http::HeaderName| reply.headers.get(name).and_then(|value| value.to_str().ok());
        let said = text(http::HeaderName::from_static("docker-content-digest")).and_then(|digest| digest.parse().ok());
        let digest = match (reference, said) {
            (Reference::Digest(wanted), Some(said)) if *wanted != said => {
                return Err(Failure::new(Reason::DigestMismatch, format!("upstream says {said} where {wanted} was asked for")));
            }
            (Reference::Digest(wanted), _) => Some(*wanted),
            (Reference::Tag(_), said) => said,
        };
        let size = reply.size.or_else(|| text(CONTENT_LENGTH)?.parse().ok());
        let media_type = text(CONTENT_TYPE).and_then(|text| MediaType::parse(text).ok()).filter(|found| found.is_manifest());
        let (Some(digest), Some(size), Some(media_type)) = (digest, size, media_type) else { return Ok(None) };
        Ok(Some(TagRecord::new(digest, size, media_type, place.credentialed, self.host.now().wall)))
    }

    /// Asks whether a tag still means what is held, and updates what is held.
    pub(crate) async fn revalidate(&self, place: &Place, tag: &Tag, record: TagRecord) -> Result<Landed, Failure> {
        let reference = Reference::Tag(tag.clone());
        let key = place.shared_key("tag", tag.as_str());
        if let Some(confirmed) = self.believed(&self.host.config(), place, tag).await {
            return Ok(Landed::Head(confirmed));
        }
        let asked = match self.head(place, &reference).await {
            Ok(Some(found)) if found.digest == record.digest => {
                let confirmed = record.clone().confirmed(self.host.now().wall);
                self.save(key.clone(), &confirmed, None).await;
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
            Ok(held) => {
                self.keep(place, &reference, &held).await;
                Ok(Landed::Manifest(held))
            }
            Err(failure) => {
                let config = self.host.config();
                let policy = freshness::tag_policy(&config.cache, &place.source, &place.repository, tag);
                match freshness::after_failure(&record, &policy, &failure, self.host.now().wall) {
                    AfterFailure::Stale { record, .. } | AfterFailure::Deny { record } => self.save(key, &record, None).await,
                    AfterFailure::Follow => self.host.meta().remove(&key).await,
                    AfterFailure::TooOld => {}
                }
                Err(failure)
            }
        }
    }
}

impl Place {
    pub(crate) fn ask(&self, what: What, method: Verb) -> Ask {
        Ask {
            source: self.source.clone(),
            repository: self.repository.clone(),
            what,
            method,
            accept: None,
            range: None,
            identity: self.identity.clone(),
        }
    }
}

impl Held {
    fn record(&self, place: &Place, now: entrepot_core::time::Wall) -> TagRecord {
        TagRecord::new(self.digest, self.bytes.len() as u64, self.media_type.clone(), place.credentialed, now)
    }
}

impl Found {
    fn of(held: Held, trace: Trace) -> Found {
        let size = held.bytes.len() as u64;
        Found { digest: held.digest, size, media_type: held.media_type, bytes: Some(held.bytes), trace, left: None, age: None, warning: None }
    }

    fn head(record: TagRecord, trace: Trace) -> Found {
        Found { digest: record.digest, size: record.size, media_type: record.media_type, bytes: None, trace, left: None, age: None, warning: None }
    }
}

/// Takes a manifest for what its bytes say, not for what its head says.
fn check(reference: &Reference, reply: &Reply, bytes: Bytes) -> Result<Held, Failure> {
    let said = reply
        .headers
        .get("docker-content-digest")
        .and_then(|digest| digest.to_str().ok())
        .and_then(|digest| digest.parse::<Digest>().ok());
    let wanted = match reference {
        Reference::Digest(digest) => Some(*digest),
        Reference::Tag(_) => said,
    };
    let digest = Digest::of(wanted.map_or(Algorithm::Sha256, |wanted| wanted.algorithm()), &bytes);
    if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
        return Err(Failure::new(
            Reason::DigestMismatch,
            format!("upstream sent a manifest that hashes to {digest} where {wanted} was promised; nothing was kept"),
        ));
    }
    let content_type = reply.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let manifest = Manifest::parse(&bytes, content_type).map_err(|error| {
        Failure::new(Reason::UpstreamManifestInvalid, format!("upstream's manifest {reference} is not one: {error}"))
    })?;
    Ok(Held { digest, media_type: manifest.media_type, bytes })
}

fn identity_refused() -> Failure {
    Failure::new(Reason::UpstreamDenied, "upstream refused this mirror's credentials a moment ago")
}
