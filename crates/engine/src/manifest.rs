//! Manifests: by digest for ever, by tag as `tag` says.

use std::time::Duration;

use bytes::Bytes;
use entrepot_core::admit::Incoming;
use entrepot_core::answer::{self, Answer, Believed, ManifestFacts, Served, Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness::TagRecord;
use entrepot_core::integrity;
use entrepot_core::upstream::{SmallFault, Verb, What};
use entrepot_oci::manifest::{MAX_MANIFEST, Manifest};
use entrepot_oci::media::MediaType;
use entrepot_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::job::{Held, Landed, Place, Work};
use crate::ports::{Blobs, Host, Http};
use crate::reply::Facts;
use crate::{Engine, missed};

/// What a repository has shown: the right to read an object through it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) size: Option<u64>,
    pub(crate) media_type: Option<MediaType>,
}

/// A manifest to be answered.
pub(crate) struct Found {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media_type: MediaType,
    pub(crate) bytes: Option<Bytes>,
    pub(crate) trace: Trace,
    /// How much longer a tag is believed; `None` by digest.
    pub(crate) left: Option<Duration>,
    pub(crate) age: Option<Duration>,
    pub(crate) warning: Option<&'static str>,
}

/// A manifest from upstream whose bytes are what was asked for.
pub(crate) struct Checked {
    pub(crate) held: Held,
    manifest: Manifest,
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
            Reference::Digest(digest) => self.by_digest(&place, *digest, call.head_only).await?,
            Reference::Tag(tag) => self.by_tag(config, &place, tag, call.head_only).await?,
        };
        answer::negotiate(&call.accept, reference, &found.media_type)?;
        self.start_ahead(call, &place, &found);
        facts.served(&found.trace);
        let served = Served {
            age: found.age,
            warning: found.warning,
            credentialed: place.credentialed || !config.access.anonymous,
            ns: call.resolved.ns.as_deref(),
            limit: facts.limit,
            ..Served::new(found.trace)
        };
        let described =
            ManifestFacts { digest: found.digest, size: found.size, media_type: &found.media_type };
        let believed = found.left.map_or(Believed::Forever, Believed::For);
        facts.again = (found.trace.verdict == Verdict::Hit).then(|| believed.lasts());
        let mut answer = answer::manifest(&described, believed, &served, call.if_none_match.as_ref());
        if let Some(bytes) = found.bytes.filter(|_| !call.head_only && answer.status == http::StatusCode::OK)
        {
            answer.body = bytes;
        }
        Ok(answer)
    }

    pub(crate) async fn by_digest(
        &self,
        place: &Place,
        digest: Digest,
        head: bool,
    ) -> Result<Found, Failure> {
        match self.held(place, digest).await {
            Some(held) => Ok(Found::of(held, Trace::new(Verdict::Hit))),
            None => self.cold(place, Reference::Digest(digest), head).await,
        }
    }

    /// Nothing is held.
    pub(crate) async fn cold(
        &self,
        place: &Place,
        reference: Reference,
        head: bool,
    ) -> Result<Found, Failure> {
        let work =
            if head { Work::Look(place.clone(), reference) } else { Work::Fetch(place.clone(), reference) };
        let flown = self.fly(work).await;
        let trace = missed(&place.source).joined(flown.shared);
        match flown.landed? {
            Landed::Manifest(held) => Ok(Found::of(held, trace)),
            Landed::Head(record) => Ok(Found::head(record, trace)),
            _ => Err(Self::unexpected("a manifest")),
        }
    }

    /// A held manifest that this repository has shown.
    pub(crate) async fn held(&self, place: &Place, digest: Digest) -> Option<Held> {
        if !place.source.mirror {
            return None;
        }
        let shown: Shown = self.load(&place.shared_key("manifest", digest)).await?;
        let bytes = self.host.blobs().read(digest, MAX_MANIFEST).await?;
        Some(Held { digest, media_type: shown.media_type?, bytes })
    }

    /// What an earlier flight brought between this request's look at the records and its own flight.
    pub(crate) async fn meanwhile(
        &self,
        place: &Place,
        reference: &Reference,
        head: bool,
    ) -> Option<Result<Landed, Failure>> {
        if let Err(failure) = self.absent(place, &What::Manifest(reference.clone())).await {
            return Some(Err(failure));
        }
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let record = self.believed(place, tag).await?;
                if head {
                    return Some(Ok(Landed::Head(record)));
                }
                record.digest
            }
        };
        self.held(place, digest).await.map(|held| Ok(Landed::Manifest(held)))
    }

    /// GETs a manifest, checks it and keeps it.
    pub(crate) async fn fetch(&self, place: &Place, reference: &Reference) -> Result<Held, Failure> {
        match self.fetch_checked(place, reference).await {
            Ok(checked) => {
                self.keep(place, reference, &checked).await;
                Ok(checked.held)
            }
            Err(failure) => {
                self.remember_absence(place, &What::Manifest(reference.clone()), &failure).await;
                Err(failure)
            }
        }
    }

    pub(crate) async fn fetch_checked(
        &self,
        place: &Place,
        reference: &Reference,
    ) -> Result<Checked, Failure> {
        let first = self.fetch_once(place, reference).await;
        let last = match first {
            Err(Unfetched { again: true, .. }) => self.fetch_once(place, reference).await,
            first => first,
        };
        last.map_err(|unfetched| unfetched.failure)
    }

    async fn fetch_once(&self, place: &Place, reference: &Reference) -> Result<Checked, Unfetched> {
        let (reply, body) = self.ask(place, What::Manifest(reference.clone()), Verb::Get).await?;
        if reply.length.is_some_and(|length| length > MAX_MANIFEST as u64) {
            return Err(integrity::too_large(reference).into());
        }
        let body = body.ok_or_else(|| Self::unexpected("a GET"))?;
        let bytes = self.host.http().read_small(body, MAX_MANIFEST).await.map_err(|fault| match fault {
            SmallFault::TooLarge => Unfetched::from(integrity::too_large(reference)),
            SmallFault::Broken => {
                let public = format!("upstream broke off in the middle of the manifest {reference}");
                Unfetched { failure: Failure::new(Reason::UpstreamUnreachable, public), again: true }
            }
        })?;
        match integrity::manifest(reference, &reply.headers, &bytes) {
            Ok((digest, manifest)) => {
                let held = Held { digest, media_type: manifest.media_type.clone(), bytes };
                Ok(Checked { held, manifest })
            }
            // The tag may have moved between upstream's head and its body.
            Err(failure) => {
                let again =
                    failure.reason == Reason::DigestMismatch && matches!(reference, Reference::Tag(_));
                Err(Unfetched { failure, again })
            }
        }
    }

    pub(crate) async fn keep(&self, place: &Place, reference: &Reference, checked: &Checked) {
        if !place.source.mirror {
            return;
        }
        let Checked { held, manifest } = checked;
        self.host.blobs().keep(held.digest, held.bytes.clone()).await;
        let shown = Shown { size: Some(held.bytes.len() as u64), media_type: Some(held.media_type.clone()) };
        self.save(place.shared_key("manifest", held.digest), &shown, None).await;
        // What the manifest says of its blobs holds upstream to its word when they are fetched.
        for described in manifest.config.iter().chain(&manifest.layers) {
            self.save(place.shared_key("size", described.digest), &described.size, None).await;
        }
        if let Reference::Tag(tag) = reference {
            let record = held.record(place, self.host.now().wall);
            self.save(place.shared_key("tag", tag.as_str()), &record, None).await;
        }
    }

    /// HEADs a manifest of which nothing is held; where upstream's HEAD does not say enough, GETs it.
    pub(crate) async fn look(&self, place: &Place, reference: &Reference) -> Result<Landed, Failure> {
        match self.ask_head(place, reference).await {
            Ok(Some(record)) => {
                if let (Reference::Tag(tag), true) = (reference, place.source.mirror) {
                    self.save(place.shared_key("tag", tag.as_str()), &record, None).await;
                }
                Ok(Landed::Head(record))
            }
            Ok(None) => self.fetch(place, reference).await.map(Landed::Manifest),
            Err(failure) => {
                self.remember_absence(place, &What::Manifest(reference.clone()), &failure).await;
                Err(failure)
            }
        }
    }

    /// `None`: upstream refuses HEAD, or its answer lacks something.
    pub(crate) async fn ask_head(
        &self,
        place: &Place,
        reference: &Reference,
    ) -> Result<Option<TagRecord>, Failure> {
        let (reply, _) = match self.ask(place, What::Manifest(reference.clone()), Verb::Head).await {
            Err(failure) if failure.reason == Reason::UpstreamUnsupported => return Ok(None),
            other => other?,
        };
        let described = integrity::described(reference, &reply)?;
        let now = self.host.now().wall;
        Ok(described.map(|it| TagRecord::new(it.digest, it.size, it.media_type, place.credentialed, now)))
    }
}

impl Held {
    fn record(&self, place: &Place, now: entrepot_core::time::Wall) -> TagRecord {
        TagRecord::new(self.digest, self.bytes.len() as u64, self.media_type.clone(), place.credentialed, now)
    }
}

impl Found {
    pub(crate) fn of(held: Held, trace: Trace) -> Found {
        let size = held.bytes.len() as u64;
        Found {
            digest: held.digest,
            size,
            media_type: held.media_type,
            bytes: Some(held.bytes),
            trace,
            left: None,
            age: None,
            warning: None,
        }
    }

    pub(crate) fn head(record: TagRecord, trace: Trace) -> Found {
        Found {
            digest: record.digest,
            size: record.size,
            media_type: record.media_type,
            bytes: None,
            trace,
            left: None,
            age: None,
            warning: None,
        }
    }
}
