//! Work that outlives the answer that started it. A job is data: the host decides where it runs.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use entrepot_core::ahead::Puller;
use entrepot_core::config::Source;
use entrepot_core::freshness::TagRecord;
use entrepot_core::list::{ListAsk, ListRecord};
use entrepot_core::resolve;
use entrepot_core::upstream::{Token, TokenAsk, What};
use entrepot_oci::media::MediaType;
use entrepot_oci::name::{Repository, Tag};
use entrepot_oci::{Digest, Reference};

use crate::ports::{Blobs, Flight, Host};

/// See the module. Hand it to [`crate::Engine::run`].
#[derive(Debug)]
pub enum Job<H: Host> {
    /// Fills one object; belongs to no client.
    Fill { place: Place, digest: Digest, ticket: <H::Blobs as Blobs>::Ticket },
    /// Work that is waited for.
    Fly { lead: <H::Flight as Flight>::Lead, work: Work },
    /// What a client is about to ask for.
    Ahead { place: Place, ahead: Ahead },
}

/// What can be fetched before it is asked for.
#[derive(Clone, Debug)]
pub enum Ahead {
    /// Whatever such a client asks for after this manifest.
    Of(Held, Puller),
    /// One after the other.
    Blobs(Vec<Digest>),
}

/// What a flight does.
#[derive(Clone, Debug)]
pub enum Work {
    /// GET a manifest, check it and keep it.
    Fetch(Place, Reference),
    /// HEAD a manifest of which nothing is held.
    Look(Place, Reference),
    /// HEAD a tag that is held but no longer believed.
    Revalidate(Place, Tag, TagRecord),
    Token(TokenAsk),
    /// HEAD a blob.
    Show(Place, Digest),
    /// Whether anyone may see the repository.
    Probe(Place, What),
    List(Place, ListAsk),
}

/// A repository upstream, and as whom we ask for it.
#[derive(Clone, Debug)]
pub struct Place {
    pub source: Arc<Source>,
    pub repository: Repository,
    /// The source's credentials are presented, if it has any.
    pub trusted: bool,
    /// Whether what comes back rests on our credentials.
    pub credentialed: bool,
    /// For whom it is asked first. Part of no key: what comes back is the same for others.
    pub client: Option<IpAddr>,
}

/// What a flight brings.
#[derive(Clone, Debug)]
pub enum Landed {
    Manifest(Held),
    Head(TagRecord),
    /// Upstream shows the blob; its size, if it says that.
    Shown(Option<u64>),
    Token(Token),
    Public,
    List(ListRecord),
}

/// A manifest at hand: its bytes are verbatim, and hash to `digest`.
#[derive(Clone, Debug)]
pub struct Held {
    pub digest: Digest,
    pub media_type: MediaType,
    pub bytes: Bytes,
}

impl Work {
    /// Where it is done. `None` for tokens.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Work::Fetch(place, _)
            | Work::Look(place, _)
            | Work::Revalidate(place, ..)
            | Work::Show(place, _)
            | Work::Probe(place, _)
            | Work::List(place, _) => Some(place),
            Work::Token(_) => None,
        }
    }

    /// Those with equal keys bring the same thing.
    pub fn key(&self) -> String {
        match self {
            Work::Fetch(place, reference) => place.key("fetch", reference),
            Work::Look(place, reference) => place.key("look", reference),
            Work::Revalidate(place, tag, _) => place.key("revalidate", tag.as_str()),
            Work::Show(place, digest) => place.key("show", digest),
            Work::Probe(place, _) => place.key("probe", ""),
            Work::List(place, ask) => place.key("list", ask.key()),
            Work::Token(ask) => format!("token {:?}", ask.key),
        }
    }
}

impl Work {
    /// The key of the record that whoever asks for this has looked at before, and that it may write anew.
    pub fn record(&self) -> Option<String> {
        match self {
            Work::Fetch(place, Reference::Tag(tag)) | Work::Look(place, Reference::Tag(tag)) => {
                Some(place.shared_key("tag", tag.as_str()))
            }
            Work::Revalidate(place, tag, _) => Some(place.shared_key("tag", tag.as_str())),
            Work::Show(place, digest) => Some(place.shared_key("blob", digest)),
            Work::Probe(place, _) => Some(place.shared_key("public", "")),
            Work::List(place, ask) => Some(place.shared_key("list", ask.key())),
            Work::Fetch(..) | Work::Look(..) | Work::Token(_) => None,
        }
    }
}

impl Place {
    /// A key as all records of this repository have it, for a host that keeps them together.
    pub fn records(&self) -> String {
        self.shared_key("", "")
    }

    /// Names something in this repository as whoever is asked sees it.
    pub(crate) fn key(&self, kind: &str, rest: impl Display) -> String {
        let who = if self.trusted { "known" } else { "anonymous" };
        self.shared_key(kind, format_args!("{who} {rest}"))
    }

    /// As [`Place::key`], for what is true whoever asks.
    pub(crate) fn shared_key(&self, kind: &str, rest: impl Display) -> String {
        resolve::record_key(&self.source, &self.repository, kind, rest)
    }
}
