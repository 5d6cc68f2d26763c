//! Objects and records in memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::failure::{Failure, Reason};
use entrepot_core::integrity;
use entrepot_core::upstream::Fault;
use entrepot_engine::ports::{Blobs, Claim, Filled, Follower, Meta, Record, Stored, Ticket};
use entrepot_oci::Digest;
use entrepot_oci::range::ByteSpan;

use super::clock::{Clock, Signal};
use super::upstream::Arriving;

/// Bytes at an object's end that followers do not get before the digest matches.
pub(crate) const HELD_BACK: usize = 16;

/// See the module.
#[derive(Clone)]
pub(crate) struct Store(Rc<Inner>);

struct Inner {
    clock: Clock,
    lag: Cell<u64>,
    records: RefCell<BTreeMap<String, (Bytes, Option<u64>)>>,
    objects: RefCell<BTreeMap<Digest, Bytes>>,
    fills: RefCell<BTreeMap<Digest, Rc<Fill>>>,
    apart: Cell<bool>,
    disk_ends: Cell<Option<u64>>,
}

pub(crate) struct Fill {
    by: String,
    state: RefCell<State>,
    signal: Signal,
}

#[derive(Default)]
struct State {
    size: Option<u64>,
    /// From the first one, without a gap.
    bytes: Vec<u8>,
    /// What came before its turn, by the place of its first byte.
    ahead: BTreeMap<u64, Bytes>,
    in_order: bool,
    ended: Option<Result<(), Failure>>,
}

impl State {
    fn put(&mut self, at: u64, piece: Bytes) {
        assert!(at >= self.bytes.len() as u64, "byte {at} came twice");
        assert!(self.ahead.insert(at, piece).is_none_or(|there| there.is_empty()), "byte {at} came twice");
        while let Some(next) = self.ahead.first_entry().filter(|next| *next.key() <= self.bytes.len() as u64)
        {
            self.bytes.extend_from_slice(&next.remove());
        }
        if self.in_order {
            self.ahead.clear();
        }
    }
}

impl Store {
    pub(crate) fn new(clock: Clock) -> Store {
        let (lag, records, objects, fills, apart, disk_ends) = Default::default();
        Store(Rc::new(Inner { clock, lag, records, objects, fills, apart, disk_ends }))
    }

    /// From now on nobody can follow a fill.
    pub(crate) fn fill_apart(&self) {
        self.0.apart.set(true);
    }

    /// No byte of an object from this one on goes to the disk: they must come in order.
    pub(crate) fn disk_ends(&self, at: u64) {
        self.0.disk_ends.set(Some(at));
    }

    /// From now on a record that is read arrives so many milliseconds after it was looked up.
    pub(crate) fn lag(&self, millis: u64) {
        self.0.lag.set(millis);
    }

    /// The keys of the records whose kind is `kind`, as they would be found now.
    pub(crate) fn records(&self, kind: &str) -> Vec<String> {
        let live =
            |(_, until): &(Bytes, Option<u64>)| until.is_none_or(|until| self.0.clock.millis() < until);
        let records = self.0.records.borrow();
        let found =
            records.iter().filter(|(key, record)| key.split('|').next() == Some(kind) && live(record));
        found.map(|(key, _)| key.clone()).collect()
    }

    pub(crate) fn objects(&self) -> Vec<Digest> {
        self.0.objects.borrow().keys().copied().collect()
    }

    pub(crate) fn evict(&self, digest: Digest) {
        self.0.objects.borrow_mut().remove(&digest).expect("only what is stored can be evicted");
    }

    /// Everything that is kept, for comparing.
    pub(crate) fn snapshot(&self) -> impl PartialEq + fmt::Debug + use<> {
        (self.0.records.borrow().clone(), self.0.objects.borrow().clone())
    }
}

impl Meta for Store {
    async fn get(&self, key: &str) -> Option<Record> {
        let found = self.0.records.borrow().get(key).cloned();
        let now = self.0.clock.millis();
        self.0.clock.sleep(Duration::from_millis(self.0.lag.get())).await;
        let (value, until) = found?;
        until.is_none_or(|until| now < until).then(|| Record::new(value))
    }

    async fn put(&self, key: String, value: Bytes, keep: Option<Duration>) {
        let until = keep.map(|keep| self.0.clock.millis() + u64::try_from(keep.as_millis()).unwrap());
        self.0.records.borrow_mut().insert(key, (value, until));
    }

    async fn remove(&self, key: &str) {
        self.0.records.borrow_mut().remove(key);
    }
}

impl Blobs for Store {
    type Upstream = Arriving;
    type Body = Body;
    type Stored = Whole;
    type Follower = Following;
    type Ticket = Filling;

    async fn claim(&self, digest: Digest, by: &str) -> Claim<Whole, Following, Filling> {
        if let Some(bytes) = self.0.objects.borrow().get(&digest) {
            return Claim::Stored(Whole(bytes.clone()));
        }
        let mut fills = self.0.fills.borrow_mut();
        if let Some(fill) = fills.get(&digest) {
            return Claim::Filling { follower: Following(fill.clone()), ours: fill.by == by };
        }
        let fill = Rc::new(Fill { by: by.to_owned(), state: RefCell::default(), signal: Signal::default() });
        fills.insert(digest, fill.clone());
        if self.0.apart.get() {
            return Claim::Apart(Filling { store: self.clone(), digest, fill });
        }
        Claim::Yours(Filling { store: self.clone(), digest, fill: fill.clone() }, Following(fill))
    }

    fn is_followed(&self) -> bool {
        !self.0.apart.get()
    }

    async fn stored(&self, digest: Digest) -> Option<Whole> {
        self.0.objects.borrow().get(&digest).cloned().map(Whole)
    }

    async fn keep(&self, digest: Digest, bytes: Bytes) {
        assert_eq!(
            Digest::of(digest.algorithm(), &bytes),
            digest,
            "the engine keeps only what it has checked"
        );
        self.0.objects.borrow_mut().insert(digest, bytes);
    }

    async fn read(&self, digest: Digest, max: usize) -> Option<Bytes> {
        self.0.objects.borrow().get(&digest).filter(|bytes| bytes.len() <= max).cloned()
    }

    fn through(&self, digest: Digest, whole: Option<u64>, stall: Duration, body: Arriving) -> Body {
        // A host whose fills are apart does not look inside.
        let whole = whole.filter(|_| !self.0.apart.get());
        Body::Through { digest, whole, stall, body }
    }
}

#[derive(Debug)]
pub(crate) struct Whole(Bytes);

impl Stored for Whole {
    type Body = Body;

    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn body(self, span: ByteSpan) -> Body {
        Body::Stored(self.0.slice(span.start as usize..span.end as usize))
    }
}

pub(crate) struct Following(Rc<Fill>);

impl Follower for Following {
    type Body = Body;

    async fn head(&mut self) -> Result<u64, Failure> {
        let fill = &self.0;
        fill.signal
            .until(|| {
                let state = fill.state.borrow();
                match (&state.ended, state.size) {
                    (Some(Err(failure)), _) => Some(Err(failure.clone())),
                    (_, size) => size.map(Ok),
                }
            })
            .await
    }

    fn body(self, span: ByteSpan) -> Body {
        Body::Following(self.0, span)
    }
}

/// The bytes of an answer.
pub(crate) enum Body {
    Stored(Bytes),
    Following(Rc<Fill>, ByteSpan),
    Through { digest: Digest, whole: Option<u64>, stall: Duration, body: Arriving },
}

impl Body {
    /// What the client gets, and whether it is all that was promised.
    pub(crate) async fn read(self) -> (Vec<u8>, bool) {
        match self {
            Body::Stored(bytes) => (bytes.to_vec(), true),
            Body::Following(fill, span) => {
                let ended = fill.signal.until(|| fill.state.borrow().ended.clone()).await;
                let state = fill.state.borrow();
                // What was released before the end.
                let held_back =
                    state.size.map_or(usize::MAX, |size| (size as usize).saturating_sub(HELD_BACK));
                let released =
                    if ended.is_ok() { state.bytes.len() } else { state.bytes.len().min(held_back) };
                let end = released.min(span.end as usize).max(span.start as usize);
                (state.bytes[(span.start as usize).min(end)..end].to_vec(), end as u64 == span.end)
            }
            Body::Through { digest, whole, stall, mut body } => {
                let mut bytes = Vec::new();
                while let Some(piece) = body.next(stall).await {
                    let Ok(piece) = piece else { return (bytes, false) };
                    bytes.extend_from_slice(&piece);
                }
                let good = whole.is_none_or(|size| {
                    size == bytes.len() as u64 && Digest::of(digest.algorithm(), &bytes) == digest
                });
                if !good {
                    bytes.truncate(bytes.len().saturating_sub(HELD_BACK));
                }
                (bytes, good)
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Body::Stored(_) => "Stored",
            Body::Following(..) => "Following",
            Body::Through { .. } => "Through",
        })
    }
}

pub(crate) struct Filling {
    store: Store,
    digest: Digest,
    fill: Rc<Fill>,
}

impl Filling {
    fn end(&self, ended: Result<(), Failure>) {
        let mut fills = self.store.0.fills.borrow_mut();
        if fills.get(&self.digest).is_some_and(|fill| Rc::ptr_eq(fill, &self.fill)) {
            fills.remove(&self.digest);
        }
        let mut state = self.fill.state.borrow_mut();
        if ended.is_ok() {
            state.size = Some(state.bytes.len() as u64);
        }
        state.ended.get_or_insert(ended);
        self.fill.signal.notify();
    }
}

impl Ticket for Filling {
    type Upstream = Arriving;

    async fn begin(&mut self, size: Option<u64>) {
        self.fill.state.borrow_mut().size = size;
        self.fill.signal.notify();
    }

    fn takes_pieces(&self) -> bool {
        !self.store.0.apart.get() && !self.fill.state.borrow().in_order
    }

    async fn fill(&self, wanted: Range<u64>, offset: u64, mut body: Arriving, stall: Duration) -> Filled {
        let mut at = wanted.start;
        let Some(mut skip) = at.checked_sub(offset) else {
            return Filled::Broken { received: at, fault: Fault::BadFraming };
        };
        while let Some(piece) = body.next(stall).await {
            let piece = match piece {
                Ok(piece) => piece,
                Err(fault) => return Filled::Broken { received: at, fault },
            };
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let piece = piece.slice(skipped as usize..);
            if at + piece.len() as u64 > wanted.end {
                return Filled::TooLong;
            }
            let mut state = self.fill.state.borrow_mut();
            state.in_order |= self.store.0.disk_ends.get().is_some_and(|end| at >= end);
            if state.in_order && at > state.bytes.len() as u64 {
                return Filled::InOrder;
            }
            at += piece.len() as u64;
            state.put(at - piece.len() as u64, piece);
        }
        let size = self.fill.state.borrow().size;
        if at < wanted.end && size.is_some() {
            Filled::Broken { received: at, fault: Fault::Reset }
        } else {
            Filled::Whole
        }
    }

    async fn in_order(&self) -> u64 {
        let mut state = self.fill.state.borrow_mut();
        state.ahead.clear();
        state.bytes.len() as u64
    }

    async fn seal(self) -> Result<u64, Failure> {
        let bytes = Bytes::from(self.fill.state.borrow().bytes.clone());
        let found = Digest::of(self.digest.algorithm(), &bytes);
        if found != self.digest {
            let failure = integrity::other_blob(&self.digest, &found, bytes.len() as u64);
            self.end(Err(failure.clone()));
            return Err(failure);
        }
        let size = bytes.len() as u64;
        self.store.0.objects.borrow_mut().insert(self.digest, bytes);
        self.end(Ok(()));
        Ok(size)
    }

    fn fail(self, failure: Failure) {
        self.end(Err(failure));
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        self.end(Err(Failure::new(Reason::Internal, "the fill was lost")));
    }
}

impl fmt::Debug for Filling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filling({})", self.digest)
    }
}
