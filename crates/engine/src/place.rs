//! As whom we ask upstream, and whether the client may have what comes back.

use entrepot_core::access::{self, Probed, PublicRecord, Standing};
use entrepot_core::admit::Incoming;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::upstream::{Ask, Identity, Verb, What};

use crate::Engine;
use crate::job::{Landed, Place, Work};
use crate::ports::Host;

/// How long a verdict on a repository is kept, so that it outlives an outage; it is asked anew long before.
const KEEP_VERDICT: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);

impl<H: Host> Engine<H> {
    /// Where `call` leads. `what` is what the client asks for: an anonymous HEAD for it shows whether the repository is
    /// public, where that is in question.
    ///
    /// Errors: 401 for what is not public, and whatever keeps us from finding out.
    pub(crate) async fn place(&self, call: &Incoming, what: &What) -> Result<Place, Failure> {
        let (source, repository) = (&call.resolved.source, &call.resolved.repository);
        let mut place = Place {
            source: source.clone(),
            repository: repository.clone(),
            identity: Identity::Anonymous,
            credentialed: false,
        };
        if source.auth.is_none() {
            return Ok(place);
        }
        let public = match access::standing(source, repository, &call.client) {
            Standing::Public => true,
            Standing::Open => self.known_public(&place).await,
            Standing::Probe => {
                self.require_public(&place, what).await?;
                true
            }
        };
        place.identity = self.host.identity(source).await?;
        place.credentialed = access::credentialed(source, repository, public);
        Ok(place)
    }

    async fn known_public(&self, place: &Place) -> bool {
        let record = self.load(&place.shared_key("public", "")).await;
        access::probe_verdict(record.as_ref(), self.host.now().wall) == Some(true)
    }

    async fn require_public(&self, place: &Place, what: &What) -> Result<(), Failure> {
        let record: Option<PublicRecord> = self.load(&place.shared_key("public", "")).await;
        match access::probe_verdict(record.as_ref(), self.host.now().wall) {
            Some(true) => Ok(()),
            Some(false) => Err(access::identity_needed()),
            None => self.fly(Work::Probe(place.clone(), what.clone())).await.map(drop),
        }
    }

    /// Asks anonymously, and remembers what that says of the repository.
    pub(crate) async fn probe(&self, place: Place, what: What) -> Result<Landed, Failure> {
        let key = place.shared_key("public", "");
        let before: Option<PublicRecord> = self.load(&key).await;
        let ask = Ask {
            source: place.source.clone(),
            repository: place.repository.clone(),
            method: if matches!(what, What::Manifest(_) | What::Blob(_)) { Verb::Head } else { Verb::Get },
            what,
            accept: None,
            range: None,
            identity: Identity::Anonymous,
        };
        let outcome = self.ask(ask).await.map(drop);
        match access::after_probe(before.as_ref(), outcome.as_ref().copied(), self.host.now().wall) {
            Probed::Public(record) => {
                self.save(key, &record, Some(KEEP_VERDICT)).await;
                Ok(Landed::Public)
            }
            Probed::Private(record, failure) => {
                self.save(key, &record, Some(KEEP_VERDICT)).await;
                Err(failure)
            }
            Probed::StillPublic => Ok(Landed::Public),
            Probed::Unknown(failure) => Err(failure),
        }
    }

    /// An answer that only a broken promise of ours explains.
    pub(crate) fn unexpected(what: &str) -> Failure {
        Failure::new(Reason::Internal, "the mirror made a mistake; try again").internal(format!("{what} brought the wrong thing"))
    }
}
