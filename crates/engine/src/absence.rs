//! What upstream has just said is not there.

use entrepot_core::failure::Failure;
use entrepot_core::freshness::NegativeRecord;
use entrepot_core::upstream::What;

use crate::Engine;
use crate::job::Place;
use crate::ports::Host;

impl<H: Host> Engine<H> {
    /// Errors: upstream said a moment ago that there is no such thing.
    pub(crate) async fn absent(&self, place: &Place, what: &What) -> Result<(), Failure> {
        let record: Option<NegativeRecord> = self.load(&key(place, what)).await;
        let ttl = self.host.config().cache.negative_ttl;
        let stands = record.and_then(|record| record.stands(ttl, self.host.now().wall));
        stands.map_or(Ok(()), Err)
    }

    /// Remembers `failure` if it says that the thing is not there, and nothing else. A source that is not cached has no
    /// records.
    pub(crate) async fn remember_absence(&self, place: &Place, what: &What, failure: &Failure) {
        if !place.source.mirror {
            return;
        }
        if let Some(record) = NegativeRecord::of(failure, self.host.now().wall) {
            let keep = self.host.config().cache.negative_ttl;
            self.save(key(place, what), &record, Some(keep)).await;
        }
    }
}

fn key(place: &Place, what: &What) -> String {
    let what = match what {
        What::Manifest(reference) => format!("manifest {reference}"),
        What::Blob(digest) => format!("blob {digest}"),
        What::Tags(query) => format!("tags {query}"),
        What::Referrers(digest, query) => format!("referrers {digest} {query}"),
    };
    place.key("absent", &what)
}
