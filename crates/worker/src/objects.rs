//! Objects: R2 behind, the cache in front. No byte of a blob passes through here; streams of the runtime do.
//!
//! What R2 took in one piece it has verified itself (`sha256`, `sha512`). A larger one, put together from parts, counts
//! only once a marker stands beside it, which is written after it was read back.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use entrepot_core::failure::Failure;
use entrepot_engine::ports::{Blobs, Claim, Follower, Stored};
use entrepot_oci::Digest;
use entrepot_oci::digest::Algorithm;
use entrepot_oci::range::ByteSpan;
use web_sys::ReadableStream;
use worker::worker_sys::FixedLengthStream;
use worker::{Bucket, Object, Range};

use crate::front::{self, Front};
use crate::limits::{Limits, Tally};
use crate::outward::Incoming;
use crate::spawn::Spawn;
use crate::ticket::Ticket;

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct Objects(Rc<Parts>);

pub(crate) struct Parts {
    pub(crate) bucket: Bucket,
    pub(crate) front: Front,
    pub(crate) front_ttl: Duration,
    pub(crate) limits: Limits,
    pub(crate) tally: Tally,
    pub(crate) spawn: Spawn,
    /// What was used, for the ledger.
    pub(crate) used: RefCell<Vec<Digest>>,
    /// What was stored, with its size in bytes.
    pub(crate) filled: RefCell<Vec<(Digest, u64)>>,
}

impl std::ops::Deref for Objects {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// What the keys of all objects begin with.
pub(crate) const OBJECTS: &str = "objects/";

/// Where an object lies in the bucket.
pub(crate) fn key(digest: &Digest) -> String {
    format!("{OBJECTS}{}", digest.to_string().replace(':', "/"))
}

/// Where the marker of an object lies that was put together from parts.
pub(crate) fn marker(digest: &Digest) -> String {
    format!("verified/{}", digest.to_string().replace(':', "/"))
}

impl Objects {
    pub(crate) fn new(parts: Parts) -> Objects {
        Objects(Rc::new(parts))
    }

    /// Some bytes of a stored object.
    pub(crate) async fn part(&self, digest: &Digest, span: ByteSpan) -> Option<ReadableStream> {
        let _slot = self.tally.slot().await;
        let range = Range::OffsetWithLength { offset: span.start, length: span.len() };
        let object = self.bucket.get(key(digest)).range(range).execute().await.ok()??;
        stream(&object)
    }

    /// The store does not have what the cache in front said it has.
    pub(crate) async fn forget(&self, digest: &Digest) {
        self.front.remove(&self.front.object(digest)).await;
    }

    /// The object, if it may be believed.
    async fn verified(&self, digest: &Digest, object: Option<Object>) -> Option<Object> {
        let object = object?;
        if has_sum(&object, digest) {
            return Some(object);
        }
        self.tally.note();
        let marked = self.bucket.head(marker(digest)).await.ok()?.is_some();
        marked.then_some(object)
    }

    async fn get(&self, digest: &Digest) -> Option<Object> {
        let slot = self.tally.slot().await;
        let found = self.bucket.get(key(digest)).execute().await;
        drop(slot);
        let found = found.inspect_err(|error| worker::console_error!("{}: {error}", key(digest))).ok()?;
        self.verified(digest, found).await
    }

    /// Puts a stored object in front, by itself, so that the next client in this place is served from there.
    fn bring_forward(&self, digest: Digest, size: u64) {
        if size > self.limits.front || size == 0 || self.front_ttl.is_zero() {
            return;
        }
        let objects = self.clone();
        self.spawn.run(async move {
            if let Some(stream) = objects.get(&digest).await.as_ref().and_then(stream) {
                let key = objects.front.object(&digest);
                objects.front.put(&key, front::Body::Stream(stream), size, objects.front_ttl).await;
            }
        });
    }

    fn touch(&self, digest: Digest) {
        self.used.borrow_mut().push(digest);
    }
}

impl Blobs for Objects {
    type Upstream = Incoming;
    type Body = Body;
    type Stored = Found;
    type Follower = Nobody;
    type Ticket = Ticket;

    async fn claim(&self, digest: Digest, _by: &str) -> Claim<Found, Nobody, Ticket> {
        if let Some(response) = self.front.get(&self.front.object(&digest)).await {
            let length = response.headers().get("content-length").ok().flatten();
            let size = length.and_then(|length| length.parse().ok());
            if let (Some(size), Some(stream)) = (size, response.body()) {
                return Claim::Stored(Found { objects: self.clone(), digest, size, stream: Some(stream) });
            }
        }
        if let Some(object) = self.get(&digest).await {
            let (size, stream) = (object.size(), stream(&object));
            self.bring_forward(digest, size);
            return Claim::Stored(Found { objects: self.clone(), digest, size, stream });
        }
        Claim::Apart(Ticket::new(self.clone(), digest))
    }

    fn is_followed(&self) -> bool {
        false
    }

    async fn stored(&self, digest: Digest) -> Option<Found> {
        self.tally.note();
        let found = self.bucket.head(key(&digest)).await.ok()?;
        let object = self.verified(&digest, found).await?;
        Some(Found { objects: self.clone(), digest, size: object.size(), stream: None })
    }

    async fn keep(&self, digest: Digest, bytes: Bytes) {
        let _slot = self.tally.slot().await;
        let size = bytes.len() as u64;
        let put = self.bucket.put(key(&digest), bytes.to_vec());
        match summed(put, &digest).execute().await {
            Ok(_) => self.filled.borrow_mut().push((digest, size)),
            Err(error) => worker::console_error!("{digest} cannot be stored: {error}"),
        }
    }

    async fn read(&self, digest: Digest, max: usize) -> Option<Bytes> {
        let key = self.front.object(&digest);
        if let Some(response) = self.front.get(&key).await
            && let Ok(bytes) = worker::Response::from(response).bytes().await
            && bytes.len() <= max
        {
            self.touch(digest);
            return Some(bytes.into());
        }
        let object = self.get(&digest).await.filter(|object| object.size() <= max as u64)?;
        let bytes = Bytes::from(object.body()?.bytes().await.ok()?);
        self.touch(digest);
        let (front, keep, kept) = (self.front.clone(), self.front_ttl, bytes.clone());
        self.spawn.run(async move {
            let size = kept.len() as u64;
            front.put(&key, front::Body::Bytes(&kept), size, keep).await;
        });
        Some(bytes)
    }

    /// As it comes: nothing here looks inside. Where upstream does not say how long it is, it is held to what the manifest
    /// says.
    fn through(&self, _digest: Digest, whole: Option<u64>, _stall: Duration, body: Incoming) -> Body {
        match (body.stream, body.length, whole) {
            (Some(stream), None, Some(size)) => Body::Whole(counted(&stream, size)),
            (stream, ..) => Body::Whole(stream),
        }
    }
}

/// Whether R2 took it in one piece, and so has compared its digest.
pub(crate) fn has_sum(object: &Object, digest: &Digest) -> bool {
    let sums = object.checksum();
    match digest.algorithm() {
        Algorithm::Sha256 => sums.sha256.is_some(),
        Algorithm::Sha512 => sums.sha512.is_some(),
    }
}

/// Has R2 check what it takes.
pub(crate) fn summed<'b>(
    put: worker::PutOptionsBuilder<'b>,
    digest: &Digest,
) -> worker::PutOptionsBuilder<'b> {
    match digest.algorithm() {
        Algorithm::Sha256 => put.sha256(bytes_of(digest)),
        Algorithm::Sha512 => put.sha512(bytes_of(digest)),
    }
}

/// The hash itself.
pub(crate) fn bytes_of(digest: &Digest) -> &[u8] {
    match digest {
        Digest::Sha256(bytes) => bytes,
        Digest::Sha512(bytes) => bytes.as_slice(),
    }
}

pub(crate) fn stream(object: &Object) -> Option<ReadableStream> {
    match object.body()?.response_body().ok()? {
        worker::ResponseBody::Stream(stream) => Some(stream),
        _ => None,
    }
}

/// The stream as one that breaks unless it has `size` bytes.
fn counted(stream: &ReadableStream, size: u64) -> Option<ReadableStream> {
    let counted = FixedLengthStream::new_big_int(size.into()).ok()?;
    // How the piping ends, the readable side tells.
    let _ = stream.pipe_to(&counted.writable());
    Some(counted.readable())
}

/// A verified object.
pub(crate) struct Found {
    objects: Objects,
    digest: Digest,
    size: u64,
    stream: Option<ReadableStream>,
}

impl Stored for Found {
    type Body = Body;

    fn size(&self) -> u64 {
        self.size
    }

    fn body(self, span: ByteSpan) -> Body {
        self.objects.touch(self.digest);
        match self.stream {
            Some(stream) if span == ByteSpan::whole(self.size) => Body::Whole(Some(stream)),
            _ => Body::Part { objects: self.objects, digest: self.digest, span },
        }
    }
}

/// What an answer carries.
pub(crate) enum Body {
    Whole(Option<ReadableStream>),
    /// Asked of the store when the answer is made.
    Part {
        objects: Objects,
        digest: Digest,
        span: ByteSpan,
    },
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Body::Whole(_) => f.write_str("Whole"),
            Body::Part { digest, span, .. } => write!(f, "Part({digest}, {span:?})"),
        }
    }
}

/// There are no followers here.
pub(crate) enum Nobody {}

impl Follower for Nobody {
    type Body = Body;

    async fn head(&mut self) -> Result<u64, Failure> {
        match *self {}
    }

    fn body(self, _span: ByteSpan) -> Body {
        match self {}
    }
}
