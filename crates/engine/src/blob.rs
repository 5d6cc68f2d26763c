//! Blobs: one fill for each, whoever asks, and no answer to who may not have it.

use entrepot_core::admit::Incoming;
use entrepot_core::answer::{self, Answer, Served, Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::event::Event;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness::NegativeRecord;
use entrepot_core::upstream::{Ask, Exchange, Input, Verb, What};
use entrepot_oci::Digest;
use entrepot_oci::range::RangeRequest;

use crate::{Engine, missed};
use crate::job::{Job, Landed, Place, Work};
use crate::manifest::Shown;
use crate::ports::{Blobs, Claim, Filled, Follower, Host, Stored, Ticket};
use crate::reply::Facts;

/// Fills begun elsewhere whose failure a request sits out before it gives up.
const FOREIGN_FILLS: usize = 4;

type Body<H> = <<H as Host>::Blobs as Blobs>::Body;

impl<H: Host> Engine<H> {
    pub(crate) async fn blob(
        &self,
        config: &Config,
        call: &Incoming,
        digest: Digest,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<Body<H>>), Failure> {
        let place = self.place(call, &What::Blob(digest)).await?;
        if !place.source.mirror {
            return self.pass_through(config, call, &place, digest, facts).await;
        }
        let shown: Option<Shown> = self.load(&place.shared_key("blob", &digest.to_string())).await;
        if call.head_only {
            let (size, verdict) = self.size(config, &place, digest, shown).await?;
            let answer = blob_answer(config, call, &place, digest, size, Trace::new(verdict), facts).head;
            return Ok((answer, None));
        }
        let mut shown = shown.is_some();
        if !shown {
            self.absent_blob(config, &place, digest).await?;
        }
        let by = place.key("fill", "");
        for _ in 0..FOREIGN_FILLS {
            match self.host.blobs().claim(digest, &by).await {
                Claim::Stored(stored) => {
                    let verdict = if shown { Verdict::Hit } else { Verdict::Revalidated };
                    if !shown {
                        self.whether_shown(&place, digest).await?;
                    }
                    self.check_size(&place, digest, stored.size()).await?;
                    let found = blob_answer(config, call, &place, digest, stored.size(), Trace::new(verdict), facts);
                    return Ok((found.head, found.span.map(|span| stored.body(span))));
                }
                Claim::Filling { mut follower, ours } => {
                    // A fill from this very place says by itself whether upstream shows the blob here.
                    if !shown && !ours {
                        self.whether_shown(&place, digest).await?;
                        shown = true;
                    }
                    match follower.head().await {
                        Ok(size) => {
                            let trace = Trace { collapsed: true, ..missed(&place.source) };
                            return self.follow(config, call, &place, digest, (follower, size), trace, facts).await;
                        }
                        Err(failure) if ours => return Err(failure),
                        // What another repository or registry answered says nothing of this one.
                        Err(_) => {}
                    }
                }
                Claim::Yours(ticket, mut follower) => {
                    let ask = place.ask(What::Blob(digest), Verb::Get);
                    self.host.start(Job::Fill { ask, credentialed: place.credentialed, ticket });
                    let size = follower.head().await?;
                    return self.follow(config, call, &place, digest, (follower, size), missed(&place.source), facts).await;
                }
            }
        }
        Err(Failure::new(Reason::UpstreamUnreachable, "other downloads of this blob keep failing; try again"))
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `blob`, with what it knows")]
    async fn follow(
        &self,
        config: &Config,
        call: &Incoming,
        place: &Place,
        digest: Digest,
        (follower, size): (<H::Blobs as Blobs>::Follower, u64),
        trace: Trace,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<Body<H>>), Failure> {
        self.check_size(place, digest, size).await?;
        let found = blob_answer(config, call, place, digest, size, trace, facts);
        Ok((found.head, found.span.map(|span| follower.body(span))))
    }

    /// Bytes of the blob, for HEAD. Never starts a fill.
    async fn size(
        &self,
        config: &Config,
        place: &Place,
        digest: Digest,
        shown: Option<Shown>,
    ) -> Result<(u64, Verdict), Failure> {
        if let Some(shown) = shown {
            if let Some(stored) = self.host.blobs().stored(digest).await {
                return Ok((stored.size(), Verdict::Hit));
            }
            if let Some(size) = shown.size {
                return Ok((size, Verdict::Hit));
            }
        }
        self.absent_blob(config, place, digest).await?;
        match self.whether_shown(place, digest).await? {
            Some(size) => Ok((size, Verdict::Miss)),
            None => match self.host.blobs().stored(digest).await {
                Some(stored) => Ok((stored.size(), Verdict::Revalidated)),
                None => Err(Failure::new(Reason::UpstreamBadAnswer, format!("upstream does not say how large {digest} is"))),
            },
        }
    }

    /// The same blob may be stored for another repository: that says nothing of this one. Upstream is asked by HEAD, once
    /// for all who wait. The size, if upstream says it.
    async fn whether_shown(&self, place: &Place, digest: Digest) -> Result<Option<u64>, Failure> {
        match self.fly(Work::Show(place.clone(), digest)).await? {
            Landed::Shown(size) => Ok(size),
            _ => Err(Self::unexpected("a look at a blob")),
        }
    }

    /// HEADs a blob, and remembers upstream's yes or no.
    pub(crate) async fn show(&self, place: &Place, digest: Digest) -> Result<Option<u64>, Failure> {
        // Another may have asked since this request looked.
        if let Some(shown) = self.load::<Shown>(&place.shared_key("blob", &digest.to_string())).await
            && shown.size.is_some()
        {
            return Ok(shown.size);
        }
        match self.ask(place.ask(What::Blob(digest), Verb::Head)).await {
            Ok((reply, _)) => {
                self.remember_shown(place, digest, reply.size).await;
                Ok(reply.size)
            }
            Err(failure) => {
                self.remember_absent_blob(place, digest, &failure).await;
                Err(failure)
            }
        }
    }

    async fn remember_shown(&self, place: &Place, digest: Digest, size: Option<u64>) {
        let shown = Shown { size, media_type: None };
        self.save(place.shared_key("blob", &digest.to_string()), &shown, None).await;
    }

    /// The size that a manifest of this repository gives for the blob.
    async fn described_size(&self, place: &Place, digest: Digest) -> Option<u64> {
        self.load(&place.shared_key("size", &digest.to_string())).await
    }

    /// Errors: a manifest of this repository says another size.
    async fn check_size(&self, place: &Place, digest: Digest, size: u64) -> Result<(), Failure> {
        match self.described_size(place, digest).await {
            Some(described) if described != size => Err(Failure::new(
                Reason::SizeMismatch,
                format!("upstream has {size} bytes for {digest}, of which its manifest says {described}; nothing was kept"),
            )),
            _ => Ok(()),
        }
    }

    async fn absent_blob(&self, config: &Config, place: &Place, digest: Digest) -> Result<(), Failure> {
        let record: Option<NegativeRecord> = self.load(&place.key("absent-blob", &digest.to_string())).await;
        let stands = record.and_then(|record| record.stands(config.cache.negative_ttl, self.host.now().wall));
        stands.map_or(Ok(()), Err)
    }

    async fn remember_absent_blob(&self, place: &Place, digest: Digest, failure: &Failure) {
        if let Some(record) = NegativeRecord::of(failure, self.host.now().wall) {
            let keep = self.host.config().cache.negative_ttl;
            self.save(place.key("absent-blob", &digest.to_string()), &record, Some(keep)).await;
        }
    }

    /// For a source that is not cached: upstream's own answer, range for range.
    async fn pass_through(
        &self,
        config: &Config,
        call: &Incoming,
        place: &Place,
        digest: Digest,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<Body<H>>), Failure> {
        let head = Ask { method: Verb::Head, ..place.ask(What::Blob(digest), Verb::Head) };
        let trace = Trace::new(Verdict::Bypass);
        if call.head_only || call.range.is_some() {
            let (reply, _) = self.ask(head).await?;
            let size = reply.size.ok_or_else(|| {
                Failure::new(Reason::UpstreamBadAnswer, format!("upstream does not say how large {digest} is"))
            })?;
            let found = blob_answer(config, call, place, digest, size, trace, facts);
            let Some(span) = found.span.filter(|_| !call.head_only) else { return Ok((found.head, None)) };
            let range = (!span.is_empty()).then(|| (span.start, Some(span.end.saturating_sub(1))));
            let ask = Ask { range, ..place.ask(What::Blob(digest), Verb::Get) };
            let (reply, body) = self.ask(ask).await?;
            if reply.offset != span.start || reply.length != Some(span.len()) {
                return Err(Failure::new(Reason::UpstreamBadAnswer, "upstream does not serve ranges of this blob; ask for all of it"));
            }
            let body = body.map(|body| self.host.blobs().through(digest, None, place.source.timeouts.stall, body));
            return Ok((found.head, body));
        }
        let (reply, body) = self.ask(place.ask(What::Blob(digest), Verb::Get)).await?;
        let size = reply.size.ok_or_else(|| {
            Failure::new(Reason::UpstreamBadAnswer, format!("upstream does not say how large {digest} is"))
        })?;
        let found = blob_answer(config, call, place, digest, size, trace, facts);
        let body = body.map(|body| self.host.blobs().through(digest, Some(size), place.source.timeouts.stall, body));
        Ok((found.head, body.filter(|_| found.span.is_some())))
    }

    /// The filling job: the whole conversation, resumed where it breaks.
    pub(crate) async fn fill(&self, ask: Ask, credentialed: bool, mut ticket: <H::Blobs as Blobs>::Ticket) {
        let (source, stall) = (ask.source.clone(), ask.source.timeouts.stall);
        let place = Place {
            source: source.clone(),
            repository: ask.repository.clone(),
            identity: ask.identity.clone(),
            credentialed,
        };
        let What::Blob(digest) = ask.what.clone() else { return };
        self.host.observe(Event::FillStarted { source: source.name.clone() });
        let filled = self.fill_all(&place, digest, ask, &mut ticket, stall).await;
        let sealed = match filled {
            Ok(()) => ticket.seal().await,
            Err(failure) => {
                self.remember_absent_blob(&place, digest, &failure).await;
                ticket.fail(failure.clone());
                Err(failure)
            }
        };
        let (bytes, reason) = match &sealed {
            Ok(bytes) => (*bytes, None),
            Err(failure) => (0, Some(failure.reason)),
        };
        if reason == Some(Reason::DigestMismatch) {
            self.host.observe(Event::DigestMismatch { source: source.name.clone() });
        }
        self.host.observe(Event::FillEnded { source: source.name.clone(), bytes, reason });
    }

    async fn fill_all(
        &self,
        place: &Place,
        digest: Digest,
        ask: Ask,
        ticket: &mut <H::Blobs as Blobs>::Ticket,
        stall: std::time::Duration,
    ) -> Result<(), Failure> {
        let mut exchange = Exchange::new(ask);
        let (mut reply, mut body) = self.drive(&mut exchange, Input::Start).await?;
        if let Some(size) = reply.size {
            self.check_size(place, digest, size).await?;
        }
        let size = match reply.size {
            Some(size) => Some(size),
            None => self.described_size(place, digest).await,
        };
        // Upstream shows it in this repository, whatever becomes of the bytes.
        self.remember_shown(place, digest, size).await;
        ticket.begin(size).await;
        loop {
            let arrived = body.take().ok_or_else(|| Self::unexpected("a GET"))?;
            match ticket.fill(reply.offset, arrived, stall).await {
                Filled::Whole => return Ok(()),
                Filled::Broken { received, fault } => {
                    let offset = received;
                    self.host.observe(Event::Resumed { source: place.source.name.clone(), offset });
                    (reply, body) = self.resume(&mut exchange, received, fault).await?;
                    if reply.size.is_some() && size.is_some() && reply.size != size {
                        return Err(Failure::new(
                            Reason::SizeMismatch,
                            format!("upstream changed the size of {digest} in the middle of the download"),
                        ));
                    }
                }
                Filled::TooLong => {
                    return Err(Failure::new(Reason::SizeMismatch, format!("upstream sends more bytes for {digest} than it announced")));
                }
                Filled::Abandoned => {
                    return Err(Failure::new(Reason::StoreFailed, "the disk cannot take the object, and nobody waits for it"));
                }
            }
        }
    }
}

fn blob_answer(
    config: &Config,
    call: &Incoming,
    place: &Place,
    digest: Digest,
    size: u64,
    trace: Trace,
    facts: &mut Facts,
) -> answer::BlobAnswer {
    facts.verdict = Some(trace.verdict);
    facts.fetched = matches!(trace.verdict, Verdict::Miss | Verdict::Bypass) && !trace.collapsed;
    let served = Served {
        credentialed: place.credentialed || !config.access.anonymous,
        ns: call.resolved.ns.as_deref(),
        ..Served::new(trace)
    };
    let range: Option<RangeRequest> = call.range.filter(|_| !call.head_only);
    answer::blob(&digest, Some(size), range, call.if_range.as_deref(), call.if_none_match.as_ref(), &served)
}
