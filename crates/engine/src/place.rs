//! As whom we ask upstream, and whether the client may have what comes back.

use std::sync::Arc;
use std::time::Duration;

use entrepot_core::access::{self, Probed, PublicRecord, Standing};
use entrepot_core::admit::Incoming;
use entrepot_core::config::Source;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::upstream::{Verb, What};
use entrepot_oci::name::Repository;

use crate::Engine;
use crate::job::{Landed, Place, Work};
use crate::ports::Host;

/// How long a verdict on a repository is kept, so that it outlives an outage; it is asked anew long before.
const KEEP_VERDICT: Duration = Duration::from_secs(30 * 24 * 3600);

impl Place {
    /// As whom we ask with the source's credentials. `public`: whether anyone may see the repository.
    fn trusted(self, public: bool) -> Place {
        let credentialed = access::credentialed(&self.source, &self.repository, public);
        Place { trusted: true, credentialed, ..self }
    }
}

impl<H: Host> Engine<H> {
    /// Where `call` leads. `what` is what the client asks for: an anonymous HEAD for it shows whether the repository is
    /// public, where that is in question.
    ///
    /// Errors: 401 for what is not public, and whatever keeps us from finding out.
    pub(crate) async fn place(&self, call: &Incoming, what: &What) -> Result<Place, Failure> {
        let (source, repository) = (&call.resolved.source, &call.resolved.repository);
        let anonymous = Place {
            source: source.clone(),
            repository: repository.clone(),
            trusted: false,
            credentialed: false,
            client: Some(call.client.address),
        };
        if source.auth.is_none() {
            return Ok(anonymous);
        }
        let public = match access::standing(source, repository, &call.client) {
            Standing::Public => true,
            Standing::Open => self.is_known_public(&anonymous).await,
            Standing::Probe => {
                self.require_public(&anonymous, what).await?;
                true
            }
        };
        Ok(anonymous.trusted(public))
    }

    /// Where the mirror asks of its own accord: as for a known client.
    pub(crate) async fn own_place(&self, source: &Arc<Source>, repository: &Repository) -> Place {
        let anonymous = Place {
            source: source.clone(),
            repository: repository.clone(),
            trusted: false,
            credentialed: false,
            client: None,
        };
        if source.auth.is_none() {
            return anonymous;
        }
        let public = self.is_known_public(&anonymous).await;
        anonymous.trusted(public)
    }

    async fn is_known_public(&self, place: &Place) -> bool {
        let record = self.public_record(place).await;
        access::probe_verdict(record.as_ref(), self.host.now().wall) == Some(true)
    }

    async fn public_record(&self, place: &Place) -> Option<PublicRecord> {
        self.load(&place.shared_key("public", "")).await
    }

    async fn require_public(&self, place: &Place, what: &What) -> Result<(), Failure> {
        let record = self.public_record(place).await;
        match access::probe_verdict(record.as_ref(), self.host.now().wall) {
            Some(true) => return Ok(()),
            Some(false) => return Err(access::identity_needed()),
            None => self.absent(place, what).await?,
        }
        let flight = self.fly(Work::Probe(place.clone(), what.clone()));
        let flown = match access::probe_wait(record.as_ref()) {
            // The question goes on, and its answer holds for those who come next.
            Some(wait) => match self.within(wait, flight).await {
                Some(flown) => flown,
                None => return Ok(()),
            },
            None => flight.await,
        };
        match flown.landed {
            // That another client's object is not there says nothing of the repository, nor of this client's object.
            Err(failure) if flown.shared && failure.reason.is_absence() => {
                self.probe(place.clone(), what.clone()).await.map(drop)
            }
            landed => landed.map(drop),
        }
    }

    /// Asks anonymously, and remembers what that says of the repository.
    pub(crate) async fn probe(&self, place: Place, what: What) -> Result<Landed, Failure> {
        let before = self.public_record(&place).await;
        // Another may have asked since this request looked.
        match access::probe_verdict(before.as_ref(), self.host.now().wall) {
            Some(true) => return Ok(Landed::Public),
            Some(false) => return Err(access::identity_needed()),
            None => {}
        }
        let verb = if matches!(what, What::Manifest(_) | What::Blob(_)) { Verb::Head } else { Verb::Get };
        let outcome = match self.ask(&place, what.clone(), verb).await {
            Ok((reply, _)) if matches!(what, What::Manifest(_)) => access::shown(&reply),
            other => other.map(drop),
        };
        let (record, answer) =
            match access::after_probe(before.as_ref(), outcome.as_ref().copied(), self.host.now().wall) {
                Probed::Public(record) => (Some(record), Ok(Landed::Public)),
                Probed::Private(record, failure) => (Some(record), Err(failure)),
                Probed::StillPublic => (None, Ok(Landed::Public)),
                Probed::Unknown(failure) => {
                    self.remember_absence(&place, &what, &failure).await;
                    (None, Err(failure))
                }
            };
        if let Some(record) = record {
            self.save(place.shared_key("public", ""), &record, Some(KEEP_VERDICT)).await;
        }
        answer
    }

    /// An answer that only a broken promise of ours explains.
    pub(crate) fn unexpected(what: &str) -> Failure {
        Failure::new(Reason::Internal, "the mirror made a mistake; try again")
            .internal(format!("{what} brought the wrong thing"))
    }
}
