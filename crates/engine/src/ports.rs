//! What a host lends the engine.
//!
//! Plain `async fn` in traits, without `Send`: a native host proves `Send` where it spawns a concrete future, a Worker
//! never needs it. A port that cannot do its work says so with a value; none of them panics, and none decides policy.
#![expect(
    async_fn_in_trait,
    reason = "hosts are concrete types; the native one asserts Send where it spawns"
)]

use std::any::Any;
use std::fmt::Debug;
use std::ops::{Deref, Range};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::access::SigningKey;
use entrepot_core::config::{Config, Source};
use entrepot_core::failure::Failure;
use entrepot_core::limit::{LimitKey, Verdict};
use entrepot_core::time::Now;
use entrepot_core::upstream::{Fault, Identity, Outbound, SmallFault, UpstreamState};
use entrepot_oci::Digest;
use entrepot_oci::range::ByteSpan;
use serde::de::DeserializeOwned;

use crate::job::{Job, Landed};
use entrepot_core::event::Event;

/// Everything together. `Engine` holds one of these.
pub trait Host: Sized + 'static {
    type Http: Http;
    type Meta: Meta;
    type Blobs: Blobs<Upstream = <Self::Http as Http>::Body>;
    type Flight: Flight;

    fn http(&self) -> &Self::Http;
    fn meta(&self) -> &Self::Meta;
    fn blobs(&self) -> &Self::Blobs;
    fn flight(&self) -> &Self::Flight;

    /// The configuration in force; a request takes it once and keeps it to its end.
    fn config(&self) -> impl Deref<Target = Config>;
    fn signing_key(&self) -> SigningKey;
    fn now(&self) -> Now;
    fn random(&self) -> u64;
    async fn sleep(&self, duration: Duration);

    /// What is remembered of upstreams. No guard outlives the closure, and nothing in it waits.
    fn state<R>(&self, with: impl FnOnce(&mut UpstreamState) -> R) -> R;
    /// Charges one request to `key`'s bucket. Exact natively; a Worker's binding answers only yes or no.
    async fn charge(&self, key: LimitKey, now: Now) -> Verdict;
    /// What we may present to `source`: its static credentials, or what its helper answers.
    async fn identity(&self, source: &Source) -> Result<Identity, Failure>;
    /// Hands on work that outlives the answer.
    fn start(&self, job: Job<Self>);
    fn observe(&self, event: Event);
}

/// One request to an upstream: no redirect followed, no header added but what HTTP itself needs.
pub trait Http {
    /// A body on its way in. The engine moves it and never looks inside.
    type Body;

    async fn send(&self, request: Outbound) -> Result<(http::response::Parts, Self::Body), Fault>;
    /// The whole body, if it has at most `max` bytes.
    async fn read_small(&self, body: Self::Body, max: usize) -> Result<Bytes, SmallFault>;
}

/// Small records under a key. A record that cannot be read is absent; one that cannot be written is lost, and the host
/// says so in its own log: neither ever fails a pull.
pub trait Meta {
    async fn get(&self, key: &str) -> Option<Record>;
    /// Keeps `value` for `keep` at least, or for as long as there is room.
    async fn put(&self, key: String, value: Bytes, keep: Option<Duration>);
    async fn remove(&self, key: &str);
}

/// A small record, and what it means once that has been read: a host that keeps it in memory spares who asks again the
/// reading. Cloning shares both.
#[derive(Clone, Debug)]
pub struct Record(Arc<Kept>);

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    /// What whoever read it first took it for; `None` where it cannot be read.
    meaning: OnceLock<Option<Box<dyn Any + Send + Sync>>>,
}

impl Record {
    pub fn new(bytes: impl Into<Bytes>) -> Record {
        Record(Arc::new(Kept { bytes: bytes.into(), meaning: OnceLock::new() }))
    }

    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The record as a `T`, which it is always read as; `None` if it is not one.
    pub(crate) fn read<T: DeserializeOwned + Clone + Send + Sync + 'static>(&self) -> Option<T> {
        let read = || Some(Box::new(serde_json::from_slice::<T>(&self.0.bytes).ok()?) as Box<_>);
        self.0.meaning.get_or_init(read).as_ref()?.downcast_ref::<T>().cloned()
    }
}

/// Objects under their digest. One file for each, however many repositories show it.
pub trait Blobs {
    type Upstream;
    /// What an answer carries.
    type Body: Debug;
    type Stored: Stored<Body = Self::Body>;
    type Follower: Follower<Body = Self::Body>;
    type Ticket: Ticket<Upstream = Self::Upstream>;

    /// Who serves `digest`: the store, a fill under way, or a fill that the caller must start. `by` names where the caller
    /// would fill it from.
    async fn claim(&self, digest: Digest, by: &str) -> Claim<Self::Stored, Self::Follower, Self::Ticket>;
    /// Whether requests follow fills that others have begun: [`Blobs::claim`] never answers [`Claim::Apart`].
    fn is_followed(&self) -> bool;
    /// The stored object, if there is one; starts nothing.
    async fn stored(&self, digest: Digest) -> Option<Self::Stored>;
    /// Keeps a small object (a manifest). The caller has checked its digest.
    async fn keep(&self, digest: Digest, bytes: Bytes);
    /// Reads a small object back, if it is stored and has at most `max` bytes.
    async fn read(&self, digest: Digest, max: usize) -> Option<Bytes>;
    /// A body that goes straight through and is stored nowhere. Where it is the whole object, its last bytes are held
    /// back until `digest` matches (on hosts that can look inside).
    fn through(
        &self,
        digest: Digest,
        whole: Option<u64>,
        stall: Duration,
        body: Self::Upstream,
    ) -> Self::Body;
}

/// The answer to [`Blobs::claim`].
#[derive(Debug)]
pub enum Claim<S, F, T> {
    Stored(S),
    /// Somebody's fill is under way: follow it. `ours`: it was claimed by the same name.
    Filling {
        follower: F,
        ours: bool,
    },
    /// Nobody's: start a fill job with the ticket, and follow it. Dropping the ticket fails the followers.
    Yours(T, F),
    /// Not stored, and on this host no request can follow another's fill: pass upstream's answer through, and start a fill
    /// job with the ticket, whose bytes are the store's alone.
    Apart(T),
}

/// A whole, verified object. It is not evicted while this lives.
pub trait Stored {
    type Body;

    /// Bytes.
    fn size(&self) -> u64;
    fn body(self, span: ByteSpan) -> Self::Body;
}

/// One client's view of a fill.
pub trait Follower {
    type Body;

    /// The object's size, as soon as it is known, or why there will be no object. A host may keep the size of a small
    /// object to itself until the digest matches, so that a wrong one is a clear answer.
    async fn head(&mut self) -> Result<u64, Failure>;
    /// The bytes of `span` as they arrive. The last bytes of the object wait until the digest matches; when it does not,
    /// the body breaks.
    fn body(self, span: ByteSpan) -> Self::Body;
}

/// The right and the duty to fill one object.
pub trait Ticket: Debug {
    type Upstream;

    /// Whether [`Ticket::fill`] may be called for several pieces at once. A host may know better once it has begun.
    fn takes_pieces(&self) -> bool;
    /// Upstream answered: the followers may start. `size` is unknown when upstream did not say.
    async fn begin(&mut self, size: Option<u64>);
    /// Takes the bytes that are `wanted` from `body`, whose first byte is byte `offset` of the object and not after the
    /// first one wanted. The end of what is wanted is the body's, or the object's where its size is unknown. A pause longer
    /// than `stall` ends it.
    async fn fill(&self, wanted: Range<u64>, offset: u64, body: Self::Upstream, stall: Duration) -> Filled;
    /// Forgets what came before its turn. How many bytes there are from the object's first one on; nothing that was given up
    /// comes after them any more.
    async fn in_order(&self) -> u64;
    /// All bytes are in: verifies, releases the held-back tail, stores. The size, or what did not match.
    async fn seal(self) -> Result<u64, Failure>;
    /// There will be no object.
    fn fail(self, failure: Failure);
}

/// How a body ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filled {
    /// All that was wanted is there.
    Whole,
    /// The body broke; the next byte wanted is byte `received` of the object.
    Broken { received: u64, fault: Fault },
    /// The body is longer than its head said, or than any object may be.
    TooLong,
    /// Pieces can no longer be taken: what was received without a gap counts, and the rest must come in order after it.
    InOrder,
    /// Nobody is left who wants it and it cannot be stored.
    Abandoned,
}

/// Waiting for work that another request may have begun. A host that cannot wait for other requests (a Worker) lets each
/// lead a flight of its own.
pub trait Flight {
    type Lead: Lead;
    type Wait: Wait;

    fn join(&self, key: &str) -> Joined<Self::Lead, Self::Wait>;
}

/// The answer to [`Flight::join`].
#[derive(Debug)]
pub enum Joined<L, W> {
    /// First to come: start the job with the lead, and wait for it like everyone else.
    Lead(L, W),
    Wait(W),
}

/// The duty to land. Dropped without landing, it tells the waiting so.
pub trait Lead: Debug {
    fn land(self, landed: Result<Landed, Failure>);
}

/// The hope that somebody lands.
pub trait Wait {
    async fn landed(self) -> Result<Landed, Failure>;
}
