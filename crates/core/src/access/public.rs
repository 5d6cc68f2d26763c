//! Whether a repository is public: what an anonymous HEAD upstream may see, asked once per repository and hour.

use std::time::Duration;

use entrepot_oci::media::MediaType;
use http::header;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Reason};
use crate::freshness::REVALIDATION_WAIT;
use crate::time::Wall;
use crate::upstream::Reply;

/// How long an anonymous HEAD's verdict on a repository stands.
pub const PROBE_TTL: Duration = Duration::from_secs(3600);

/// What an anonymous HEAD upstream said of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicRecord {
    pub public: bool,
    pub checked: Wall,
}

/// What to do after an anonymous HEAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probed {
    /// Anyone may see it. Store the record.
    Public(PublicRecord),
    /// Upstream wants an identity: 401, and nothing is fetched on our credentials. Store the record.
    Private(PublicRecord, Failure),
    /// Upstream could not be asked, but it last said that the repository is public, and public content outlives an
    /// outage.
    StillPublic,
    /// Nothing is known, so nothing is served on our credentials; the failure says why.
    Unknown(Failure),
}

/// The verdict on record: `Some(public)` while it stands, `None` when upstream must be asked (again).
pub fn probe_verdict(record: Option<&PublicRecord>, now: Wall) -> Option<bool> {
    let record = record?;
    // A record from the future: the clock was set back, so its age is unknown.
    let stands = record.checked <= now && now.since(record.checked) < PROBE_TTL;
    stands.then_some(record.public)
}

/// How long a client waits for an anonymous HEAD. A repository that was public when upstream was last asked counts as
/// public while upstream is slow, as it does while upstream is away; otherwise the answer is needed.
pub fn probe_wait(record: Option<&PublicRecord>) -> Option<Duration> {
    record.is_some_and(|record| record.public).then_some(REVALIDATION_WAIT)
}

/// Whether a 200 to an anonymous HEAD for a manifest is the registry showing one: it names a manifest's type, or the
/// digest. Anything may answer 200 with a page, and nothing of this answer is ever hashed.
///
/// Errors: what upstream did instead.
pub fn shown(reply: &Reply) -> Result<(), Failure> {
    let headers = &reply.headers;
    let typed = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().ok().and_then(|text| MediaType::parse(text).ok()));
    let shown = match typed {
        Some(found) => found.is_some_and(|found| found.is_manifest()),
        None => headers.contains_key("docker-content-digest"),
    };
    if shown {
        return Ok(());
    }
    Err(Failure::new(
        Reason::UpstreamBadAnswer,
        "upstream answered an anonymous request with what is not a manifest",
    ))
}

/// Judges the outcome of an anonymous HEAD for a manifest of the repository. A 404 says nothing about the repository (a
/// tag may be missing in a public one), so it is passed on and not remembered.
pub fn after_probe(before: Option<&PublicRecord>, outcome: Result<(), &Failure>, now: Wall) -> Probed {
    match outcome {
        Ok(()) => Probed::Public(PublicRecord { public: true, checked: now }),
        Err(failure) if failure.reason.is_refusal() => {
            Probed::Private(PublicRecord { public: false, checked: now }, identity_needed())
        }
        Err(failure) if failure.reason.is_absence() => Probed::Unknown(failure.clone()),
        Err(_) if before.is_some_and(|record| record.public) => Probed::StillPublic,
        Err(failure) => Probed::Unknown(failure.clone()),
    }
}

/// What an anonymous client hears about a repository that is not public, warm or cold.
pub fn identity_needed() -> Failure {
    Failure::new(
        Reason::Unauthorized,
        "upstream does not show this repository to everyone: log in to this mirror",
    )
}
