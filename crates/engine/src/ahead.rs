//! What a client that pulls will ask for next: fetched while it is still reading.
//!
//! Nobody gets anything by it: the store is filled, and whoever asks is judged as ever.

use entrepot_core::admit::Incoming;
use entrepot_core::ahead::{self, Puller};
use entrepot_core::answer::Verdict;
use entrepot_core::upstream::What;
use entrepot_core::upstream::pieces::AHEAD;
use entrepot_oci::manifest::{Kind, Manifest};
use entrepot_oci::{Digest, Reference};

use crate::Engine;
use crate::job::{Ahead, Held, Job, Landed, Place, Work};
use crate::manifest::Found;
use crate::ports::{Blobs, Claim, Host};

/// Blobs of one image that are fetched ahead at the same time.
const AT_ONCE: usize = 8;

impl<H: Host> Engine<H> {
    /// Goes ahead of a client that has just been the first to GET a manifest from upstream. Where no request follows
    /// another's fill, its blobs would only be fetched twice.
    pub(crate) fn start_ahead(&self, call: &Incoming, place: &Place, found: &Found) {
        let first = found.trace.verdict == Verdict::Miss && !found.trace.collapsed;
        if !first || call.head_only || !place.source.mirror || !self.host.blobs().is_followed() {
            return;
        }
        let Some(puller) = call.puller.clone() else { return };
        if let Some(bytes) = found.bytes.clone() {
            let held = Held { digest: found.digest, media_type: found.media_type.clone(), bytes };
            self.host.start(Job::Ahead { place: place.clone(), ahead: Ahead::Of(held, puller) });
        }
    }

    pub(crate) async fn go_ahead(&self, place: &Place, ahead: Ahead) {
        let blobs = match ahead {
            Ahead::Blobs(blobs) => {
                for digest in blobs {
                    self.fill_ahead(place, digest).await;
                }
                return;
            }
            Ahead::Of(held, puller) => self.next_blobs(place, &held, &puller).await.unwrap_or_default(),
        };
        for nth in 0..AT_ONCE.min(blobs.len()) {
            let every = blobs.iter().copied().skip(nth).step_by(AT_ONCE).collect();
            self.host.start(Job::Ahead { place: place.clone(), ahead: Ahead::Blobs(every) });
        }
    }

    /// The blobs of the image that the client will take. `None`: that is not certain, or it cannot be had.
    async fn next_blobs(&self, place: &Place, held: &Held, puller: &Puller) -> Option<Vec<Digest>> {
        let manifest = parsed(held)?;
        if manifest.kind == Kind::Image {
            return Some(ahead::blobs(&manifest));
        }
        let child = puller.child(&manifest)?;
        if self.host.state(|state| state.budget_low(&place.source, self.host.now())) {
            return None;
        }
        let held = match self.held(place, child).await {
            Some(held) => held,
            None => match self.fly(Work::Fetch(place.clone(), Reference::Digest(child))).await.landed.ok()? {
                Landed::Manifest(held) => held,
                _ => return None,
            },
        };
        Some(ahead::blobs(&parsed(&held).filter(|manifest| manifest.kind == Kind::Image)?))
    }

    /// Fills a blob that nobody has or fills yet, unless its source has enough to do.
    async fn fill_ahead(&self, place: &Place, digest: Digest) {
        if self.absent(place, &What::Blob(digest)).await.is_err() {
            return;
        }
        let Some(_further) = self.further(&place.source, AHEAD) else { return };
        if let Claim::Yours(ticket, follower) = self.host.blobs().claim(digest, &place.key("fill", "")).await
        {
            drop(follower);
            self.fill(place.clone(), digest, ticket).await;
        }
    }
}

fn parsed(held: &Held) -> Option<Manifest> {
    Manifest::parse(&held.bytes, Some(held.media_type.as_str())).ok()
}
