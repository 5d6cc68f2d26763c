//! Fills: the one conversation that brings a blob, resumed where it breaks.

use entrepot_core::event::Event;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::integrity;
use entrepot_core::upstream::{Verb, What};
use entrepot_oci::Digest;

use crate::Engine;
use crate::job::Place;
use crate::ports::{Blobs, Filled, Host, Ticket};

impl<H: Host> Engine<H> {
    /// The filling job, to its end.
    pub(crate) async fn fill(&self, place: Place, digest: Digest, mut ticket: <H::Blobs as Blobs>::Ticket) {
        let source = &place.source.name;
        let sealed = match self.fill_all(&place, digest, &mut ticket).await {
            Ok(()) => ticket.seal().await,
            Err(failure) => {
                self.not_shown(&place, digest, &failure).await;
                ticket.fail(failure.clone());
                Err(failure)
            }
        };
        let (bytes, reason) = match &sealed {
            Ok(bytes) => (*bytes, None),
            Err(failure) => (0, Some(failure.reason)),
        };
        if reason == Some(Reason::DigestMismatch) {
            self.host.observe(Event::DigestMismatch { source: source.clone() });
        }
        self.host.observe(Event::FillEnded { source: source.clone(), bytes, reason });
    }

    async fn fill_all(
        &self,
        place: &Place,
        digest: Digest,
        ticket: &mut <H::Blobs as Blobs>::Ticket,
    ) -> Result<(), Failure> {
        let mut exchange = self.exchange(place, What::Blob(digest), Verb::Get, None).await?;
        let (mut reply, mut body) = self.begin(&mut exchange).await?;
        let described = self.described_size(place, digest).await;
        let size = reply.size.or(described);
        if let Some(size) = size {
            integrity::blob_size(&digest, described, size)?;
        }
        // Upstream shows it in this repository, whatever becomes of the bytes. Their number is not known before all of
        // them are there: a length that turns out to be wrong must not answer a HEAD.
        self.remember_shown(place, digest, described).await;
        ticket.begin(size).await;
        loop {
            let arrived = body.take().ok_or_else(|| Self::unexpected("a GET"))?;
            match ticket.fill(reply.offset, arrived, place.source.timeouts.stall).await {
                Filled::Whole => return Ok(()),
                Filled::Broken { received: offset, fault } => {
                    self.host.observe(Event::Resumed { source: place.source.name.clone(), offset });
                    (reply, body) = self.resume(&mut exchange, offset, fault).await?;
                    if reply.size.is_some() && size.is_some() && reply.size != size {
                        return Err(Failure::new(
                            Reason::SizeMismatch,
                            format!("upstream changed the size of {digest} in the middle of the download"),
                        ));
                    }
                }
                Filled::TooLong => {
                    return Err(Failure::new(
                        Reason::SizeMismatch,
                        format!("upstream sends more bytes for {digest} than it announced"),
                    ));
                }
                Filled::Abandoned => {
                    return Err(Failure::new(
                        Reason::StoreFailed,
                        "the disk cannot take the object, and nobody waits for it",
                    ));
                }
            }
        }
    }
}
