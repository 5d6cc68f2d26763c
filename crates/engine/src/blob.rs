//! Blobs: one fill for each, whoever asks, and no answer to who may not have it.

use entrepot_core::admit::Incoming;
use entrepot_core::answer::{self, Answer, Served, Trace, Verdict};
use entrepot_core::config::Config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::integrity;
use entrepot_core::upstream::{Reply, Verb, What};
use entrepot_oci::Digest;
use entrepot_oci::range::ByteSpan;

use crate::job::{Job, Landed, Place, Work};
use crate::manifest::Shown;
use crate::ports::{Blobs, Claim, Follower, Host, Meta, Stored};
use crate::reply::Facts;
use crate::{Engine, missed};

/// Fills begun elsewhere whose failure a request sits out before it gives up.
const FOREIGN_FILLS: usize = 4;

pub(crate) type Body<H> = <<H as Host>::Blobs as Blobs>::Body;

/// A blob that a client asks for.
pub(crate) struct Wanted<'a> {
    pub(crate) config: &'a Config,
    pub(crate) call: &'a Incoming,
    pub(crate) place: Place,
    pub(crate) digest: Digest,
}

impl<H: Host> Engine<H> {
    pub(crate) async fn blob(
        &self,
        config: &Config,
        call: &Incoming,
        digest: Digest,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<Body<H>>), Failure> {
        let place = self.place(call, &What::Blob(digest)).await?;
        let wanted = Wanted { config, call, place, digest };
        if !wanted.place.source.mirror {
            return self.pass_through(&wanted, Trace::new(Verdict::Bypass), facts).await;
        }
        let shown = self.shown(&wanted.place, digest).await;
        if call.head_only {
            let (size, trace) = self.size(&wanted.place, digest, shown).await?;
            return Ok((wanted.answer(size, trace, facts).0, None));
        }
        self.cached(&wanted, shown.is_some(), facts).await
    }

    /// The blob from the store, or from the fill that brings it there.
    async fn cached(
        &self,
        wanted: &Wanted<'_>,
        mut shown: bool,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<Body<H>>), Failure> {
        let (place, digest) = (&wanted.place, wanted.digest);
        if !shown {
            self.absent(place, &What::Blob(digest)).await?;
        }
        let by = place.key("fill", "");
        for _ in 0..FOREIGN_FILLS {
            let (mut follower, ours, begun) = match self.host.blobs().claim(digest, &by).await {
                Claim::Stored(stored) => {
                    let verdict = if shown { Verdict::Hit } else { Verdict::Revalidated };
                    if !shown {
                        self.whether_shown(place, digest).await?;
                    }
                    self.check_size(place, digest, stored.size()).await?;
                    let (head, span) = wanted.answer(stored.size(), Trace::new(verdict), facts);
                    return Ok((head, span.map(|span| stored.body(span))));
                }
                Claim::Filling { follower, ours } => (follower, ours, false),
                Claim::Yours(ticket, follower) => {
                    self.host.start(Job::Fill { place: place.clone(), digest, ticket });
                    (follower, true, true)
                }
                Claim::Apart(ticket) => return self.apart(wanted, ticket, facts).await,
            };
            // A fill from this very place says by itself whether upstream shows the blob here.
            if !shown && !ours {
                self.whether_shown(place, digest).await?;
                shown = true;
            }
            match follower.head().await {
                Ok(size) => {
                    self.check_size(place, digest, size).await?;
                    let (head, span) = wanted.answer(size, missed(&place.source).joined(!begun), facts);
                    return Ok((head, span.map(|span| follower.body(span))));
                }
                Err(failure) if ours => return Err(failure),
                // What another repository or registry answered says nothing of this one.
                Err(_) => {}
            }
        }
        Err(Failure::new(Reason::UpstreamUnreachable, "other downloads of this blob keep failing; try again"))
    }

    /// Bytes of the blob, for HEAD. Never starts a fill.
    async fn size(
        &self,
        place: &Place,
        digest: Digest,
        shown: Option<Shown>,
    ) -> Result<(u64, Trace), Failure> {
        let stored = self.host.blobs().stored(digest).await.map(|stored| stored.size());
        let (size, trace) = match (shown, stored) {
            (Some(_), Some(size)) | (Some(Shown { size: Some(size), .. }), None) => {
                (size, Trace::new(Verdict::Hit))
            }
            (None | Some(Shown { size: None, .. }), stored) => {
                self.absent(place, &What::Blob(digest)).await?;
                match (self.whether_shown(place, digest).await?, stored) {
                    (_, Some(size)) => (size, Trace::new(Verdict::Revalidated)),
                    (Some(size), None) => (size, Trace::new(Verdict::Miss)),
                    (None, None) => return Err(unsized_blob(digest)),
                }
            }
        };
        self.check_size(place, digest, size).await?;
        Ok((size, trace))
    }

    /// The same blob may be stored for another repository: that says nothing of this one. Upstream is asked by HEAD, once
    /// for all who wait. The size, if upstream says it.
    pub(crate) async fn whether_shown(&self, place: &Place, digest: Digest) -> Result<Option<u64>, Failure> {
        match self.fly(Work::Show(place.clone(), digest)).await.landed? {
            Landed::Shown(size) => Ok(size),
            _ => Err(Self::unexpected("a look at a blob")),
        }
    }

    /// HEADs a blob, and remembers upstream's yes or no.
    pub(crate) async fn show(&self, place: &Place, digest: Digest) -> Result<Option<u64>, Failure> {
        // Another may have asked, or filled it, since this request looked.
        match self.shown(place, digest).await {
            Some(Shown { size: Some(size), .. }) => return Ok(Some(size)),
            Some(Shown { size: None, .. }) => {
                if let Some(stored) = self.host.blobs().stored(digest).await {
                    return Ok(Some(stored.size()));
                }
            }
            None => {}
        }
        match self.ask(place, What::Blob(digest), Verb::Head).await {
            Ok((reply, _)) => {
                self.remember_shown(place, digest, reply.size).await;
                Ok(reply.size)
            }
            Err(failure) => {
                self.not_shown(place, digest, &failure).await;
                Err(failure)
            }
        }
    }

    pub(crate) async fn shown(&self, place: &Place, digest: Digest) -> Option<Shown> {
        self.load(&place.shared_key("blob", digest)).await
    }

    pub(crate) async fn remember_shown(&self, place: &Place, digest: Digest, size: Option<u64>) {
        let shown = Shown { size, media_type: None };
        self.save(place.shared_key("blob", digest), &shown, None).await;
    }

    /// After a failure: what upstream no longer has is no longer shown, until it is asked again.
    pub(crate) async fn not_shown(&self, place: &Place, digest: Digest, failure: &Failure) {
        if failure.reason.is_absence() {
            self.host.meta().remove(&place.shared_key("blob", digest)).await;
        }
        self.remember_absence(place, &What::Blob(digest), failure).await;
    }

    /// The size that a manifest of this repository gives for the blob.
    pub(crate) async fn described_size(&self, place: &Place, digest: Digest) -> Option<u64> {
        self.load(&place.shared_key("size", digest)).await
    }

    /// Errors: a manifest of this repository says another size.
    pub(crate) async fn check_size(&self, place: &Place, digest: Digest, size: u64) -> Result<(), Failure> {
        integrity::blob_size(&digest, self.described_size(place, digest).await, size)
    }

    /// Upstream's own answer for the client, and a fill of its own for the store, begun when upstream is seen to have it.
    async fn apart(
        &self,
        wanted: &Wanted<'_>,
        ticket: <H::Blobs as Blobs>::Ticket,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<Body<H>>), Failure> {
        let (place, digest) = (&wanted.place, wanted.digest);
        match self.pass_through(wanted, missed(&place.source), facts).await {
            Ok(answer) => {
                self.host.start(Job::Fill { place: place.clone(), digest, ticket });
                Ok(answer)
            }
            Err(failure) => {
                self.not_shown(place, digest, &failure).await;
                Err(failure)
            }
        }
    }

    /// Upstream's own answer, range for range.
    async fn pass_through(
        &self,
        wanted: &Wanted<'_>,
        trace: Trace,
        facts: &mut Facts,
    ) -> Result<(Answer, Option<Body<H>>), Failure> {
        let Wanted { call, place, digest, .. } = wanted;
        let what = What::Blob(*digest);
        let through =
            |whole, body| self.host.blobs().through(*digest, whole, place.source.timeouts.stall, body);
        if call.head_only || call.range.is_some() || call.if_none_match.is_some() {
            let described = self.described_size(place, *digest).await;
            let size = match described {
                // The part itself shows whether upstream has it here.
                Some(size) if call.range.is_some() && !call.head_only && call.if_none_match.is_none() => size,
                _ => {
                    let (reply, _) = self.ask(place, what.clone(), Verb::Head).await?;
                    self.passing_size(wanted, &reply).await?
                }
            };
            let (head, span) = wanted.answer(size, trace, facts);
            let Some(span) = span.filter(|_| !call.head_only) else {
                return Ok((head, None));
            };
            let whole = span == ByteSpan::whole(size);
            let range = (!whole).then(|| (span.start, Some(span.end.saturating_sub(1))));
            let mut exchange = self.exchange(place, what, Verb::Get, range).await?;
            let (reply, body) = self.begin(&mut exchange).await?;
            if reply.offset != span.start || reply.length != Some(span.len()) {
                let public = "upstream does not serve ranges of this blob; ask for all of it";
                return Err(Failure::new(Reason::UpstreamBadAnswer, public));
            }
            return Ok((head, body.map(|body| through(whole.then_some(size), body))));
        }
        let (reply, body) = self.ask(place, what, Verb::Get).await?;
        let size = self.passing_size(wanted, &reply).await?;
        let (head, _) = wanted.answer(size, trace, facts);
        Ok((head, body.map(|body| through(Some(size), body))))
    }

    /// Bytes of a blob that passes through.
    async fn passing_size(&self, wanted: &Wanted<'_>, reply: &Reply) -> Result<u64, Failure> {
        let described = self.described_size(&wanted.place, wanted.digest).await;
        let size = reply.size.or(described).ok_or_else(|| unsized_blob(wanted.digest))?;
        integrity::blob_size(&wanted.digest, described, size)?;
        Ok(size)
    }
}

impl Wanted<'_> {
    /// The head of a blob of `size` bytes, and which of them follow.
    fn answer(&self, size: u64, trace: Trace, facts: &mut Facts) -> (Answer, Option<ByteSpan>) {
        facts.served(&trace);
        let call = self.call;
        let served = Served {
            credentialed: self.place.credentialed || !self.config.access.anonymous,
            ns: call.resolved.ns.as_deref(),
            ..Served::new(trace)
        };
        let range = call.range.filter(|_| !call.head_only);
        let answer = answer::blob(
            &self.digest,
            Some(size),
            range,
            call.if_range.as_deref(),
            call.if_none_match.as_ref(),
            &served,
        );
        (answer.head, answer.span)
    }
}

fn unsized_blob(digest: Digest) -> Failure {
    Failure::new(Reason::UpstreamBadAnswer, format!("upstream does not say how large {digest} is"))
}
