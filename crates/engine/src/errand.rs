//! Work as a value that can be sent: for a host whose requests cannot wait for one another, and so send their work to the
//! one place where it is done once.

use std::net::IpAddr;

use bytes::Bytes;
use entrepot_core::config::Config;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::freshness::TagRecord;
use entrepot_core::list::{ListAsk, ListRecord};
use entrepot_core::upstream::What;
use entrepot_oci::media::MediaType;
use entrepot_oci::name::{Repository, Tag};
use entrepot_oci::{Digest, Reference};
use serde::{Deserialize, Serialize};

use crate::job::{Held, Landed, Place, Work};

/// What is to be done, and where. Both ends have the same configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Errand {
    /// The source's name.
    source: String,
    repository: Repository,
    trusted: bool,
    credentialed: bool,
    client: Option<IpAddr>,
    task: Task,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Task {
    Fetch(Reference),
    Look(Reference),
    Revalidate(Tag, TagRecord),
    Show(Digest),
    Probe(What),
    List(ListAsk),
    Fill(Digest),
}

/// What an errand asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    Work(Work),
    Fill(Place, Digest),
}

impl Errand {
    /// The errand that does `work`. `None` for tokens, which stay with whoever presents them.
    pub fn of(work: &Work) -> Option<Errand> {
        let (place, task) = match work.clone() {
            Work::Fetch(place, reference) => (place, Task::Fetch(reference)),
            Work::Look(place, reference) => (place, Task::Look(reference)),
            Work::Revalidate(place, tag, record) => (place, Task::Revalidate(tag, record)),
            Work::Show(place, digest) => (place, Task::Show(digest)),
            Work::Probe(place, what) => (place, Task::Probe(what)),
            Work::List(place, ask) => (place, Task::List(ask)),
            Work::Token(_) => return None,
        };
        Some(Errand::new(&place, task))
    }

    pub fn fill(place: &Place, digest: Digest) -> Errand {
        Errand::new(place, Task::Fill(digest))
    }

    fn new(place: &Place, task: Task) -> Errand {
        Errand {
            source: place.source.name.to_string(),
            repository: place.repository.clone(),
            trusted: place.trusted,
            credentialed: place.credentialed,
            client: place.client,
            task,
        }
    }

    /// What is asked for. `None`: `config` has no such source, so whoever sent it has another configuration.
    pub fn asked(self, config: &Config) -> Option<Asked> {
        let source = config.sources.iter().find(|source| *source.name == *self.source)?.clone();
        let place = Place {
            source,
            repository: self.repository,
            trusted: self.trusted,
            credentialed: self.credentialed,
            client: self.client,
        };
        Some(Asked::Work(match self.task {
            Task::Fetch(reference) => Work::Fetch(place, reference),
            Task::Look(reference) => Work::Look(place, reference),
            Task::Revalidate(tag, record) => Work::Revalidate(place, tag, record),
            Task::Show(digest) => Work::Show(place, digest),
            Task::Probe(what) => Work::Probe(place, what),
            Task::List(ask) => Work::List(place, ask),
            Task::Fill(digest) => return Some(Asked::Fill(place, digest)),
        }))
    }
}

/// What an errand brought, on its way back.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    /// Its bytes follow.
    Manifest(Digest, MediaType),
    Head(TagRecord),
    Shown(Option<u64>),
    Public,
    List(ListRecord),
    Failed(Failure),
}

/// Spells what a flight brought: a line of JSON, and behind it a manifest's own bytes. A token never leaves: it is told as
/// a failure.
pub fn spell(landed: &Result<Landed, Failure>) -> Vec<u8> {
    let (outcome, bytes) = match landed {
        Ok(Landed::Manifest(held)) => {
            (Outcome::Manifest(held.digest, held.media_type.clone()), held.bytes.clone())
        }
        Ok(Landed::Head(record)) => (Outcome::Head(record.clone()), Bytes::new()),
        Ok(Landed::Shown(size)) => (Outcome::Shown(*size), Bytes::new()),
        Ok(Landed::Public) => (Outcome::Public, Bytes::new()),
        Ok(Landed::List(record)) => (Outcome::List(record.clone()), Bytes::new()),
        Ok(Landed::Token(_)) => {
            (Outcome::Failed(Failure::new(Reason::Internal, "a token is no errand")), Bytes::new())
        }
        Err(failure) => (Outcome::Failed(failure.clone()), Bytes::new()),
    };
    let mut spelt = serde_json::to_vec(&outcome).unwrap_or_default();
    spelt.push(b'\n');
    spelt.extend_from_slice(&bytes);
    spelt
}

/// Reads what [`spell`] wrote. `None` when it is nothing of the kind, or of another version: then the work is not done.
pub fn read(spelt: Bytes) -> Option<Result<Landed, Failure>> {
    let end = spelt.iter().position(|&byte| byte == b'\n')?;
    Some(Ok(match serde_json::from_slice(&spelt[..end]).ok()? {
        Outcome::Manifest(digest, media_type) => {
            Landed::Manifest(Held { digest, media_type, bytes: spelt.slice(end + 1..) })
        }
        Outcome::Head(record) => Landed::Head(record),
        Outcome::Shown(size) => Landed::Shown(size),
        Outcome::Public => Landed::Public,
        Outcome::List(record) => Landed::List(record),
        Outcome::Failed(failure) => return Some(Err(failure)),
    }))
}
