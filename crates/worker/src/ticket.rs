//! Filling one object of R2.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::pin::pin;

use entrepot_core::failure::{Failure, Reason};
use entrepot_core::upstream::Fault;
use entrepot_engine::ports::{self, Filled};
use entrepot_oci::Digest;
use entrepot_oci::digest::Algorithm;
use futures_util::future::{Either, select, try_join};
use js_sys::Uint8Array;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, ReadableStreamDefaultReader, WritableStreamDefaultWriter};
use worker::crypto::{DigestStream, DigestStreamAlgorithm};
use worker::worker_sys::FixedLengthStream;
use worker::{MultipartUpload, UploadedPart};

use crate::objects::{self, Objects, summed};
use crate::outward::Incoming;

/// See [`ports::Ticket`].
pub(crate) struct Ticket {
    objects: Objects,
    digest: Digest,
    size: Option<u64>,
    /// What the store made of it.
    stored: RefCell<Result<u64, Failure>>,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.digest)
    }
}

impl Ticket {
    pub(crate) fn new(objects: Objects, digest: Digest) -> Ticket {
        let stored = Err(Failure::new(Reason::StoreFailed, format!("{digest} was not stored")));
        Ticket { objects, digest, size: None, stored: RefCell::new(stored) }
    }
}

impl ports::Ticket for Ticket {
    type Upstream = Incoming;

    async fn begin(&mut self, size: Option<u64>) {
        self.size = size;
    }

    /// One stream goes straight into the bucket.
    fn takes_pieces(&self) -> bool {
        false
    }

    /// All or nothing: what broke is fetched anew from its first byte, for R2 takes no part of a part.
    async fn fill(
        &self,
        _wanted: Range<u64>,
        offset: u64,
        body: Incoming,
        _stall: std::time::Duration,
    ) -> Filled {
        let Some(size) = self.size.or(body.length) else {
            // The store takes only what is of known length.
            return Filled::Abandoned;
        };
        let Some(stream) = body.stream.filter(|_| offset == 0) else {
            return Filled::Broken { received: 0, fault: Fault::BadFraming };
        };
        let stored = if size <= self.objects.limits.put {
            self.put(size, stream).await
        } else {
            self.put_in_parts(size, stream).await
        };
        match stored {
            Ok(()) => *self.stored.borrow_mut() = Ok(size),
            Err(Unstored::Broken) => return Filled::Broken { received: 0, fault: Fault::Reset },
            Err(Unstored::Refused(failure)) => {
                worker::console_error!("{failure}: {}", failure.internal.as_deref().unwrap_or("refused"));
                *self.stored.borrow_mut() = Err(failure);
            }
        }
        Filled::Whole
    }

    async fn in_order(&self) -> u64 {
        0
    }

    async fn seal(self) -> Result<u64, Failure> {
        let stored = self.stored.into_inner();
        if let Ok(size) = stored {
            self.objects.filled.borrow_mut().push((self.digest, size));
        }
        stored
    }

    fn fail(self, _failure: Failure) {}
}

/// Why nothing was stored.
enum Unstored {
    /// Upstream's body did not come whole.
    Broken,
    /// The store would not have it.
    Refused(Failure),
}

impl From<JsValue> for Unstored {
    fn from(_: JsValue) -> Unstored {
        Unstored::Broken
    }
}

impl Ticket {
    /// The platform hashes what it takes, and stores nothing that does not match.
    async fn put(&self, size: u64, stream: ReadableStream) -> Result<(), Unstored> {
        let _slot = self.objects.tally.slot().await;
        let counted = FixedLengthStream::new_big_int(size.into())?;
        let piped = pin!(JsFuture::from(stream.pipe_to(&counted.writable())));
        let put = self.objects.bucket.put(objects::key(&self.digest), counted.readable());
        let put = pin!(summed(put, &self.digest).execute());
        // Each failure brings the other: what came first tells which of them it was.
        let (upstream_broke, put) = match select(piped, put).await {
            Either::Left((piped, put)) => (piped.is_err(), put.await),
            Either::Right((put, _)) => (false, put),
        };
        match put {
            Ok(_) => Ok(()),
            // Another try is worth something only where the body never came whole.
            Err(error) if upstream_broke && !is_mismatch(&error.to_string()) => Err(Unstored::Broken),
            Err(error) => Err(Unstored::Refused(self.refused(&error.to_string()))),
        }
    }

    /// One that is too large for one put. It is read back, and does not count before it was found to be right.
    async fn put_in_parts(&self, size: u64, stream: ReadableStream) -> Result<(), Unstored> {
        self.objects.tally.note();
        let key = objects::key(&self.digest);
        let upload = self.objects.bucket.create_multipart_upload(&key).execute().await;
        let upload = upload.map_err(|error| Unstored::Refused(self.refused(&error.to_string())))?;
        let parts = match self.upload(&upload, size, stream).await {
            Ok(parts) => parts,
            Err(error) => {
                // Parts that nobody completes are paid for.
                let _ = upload.abort().await;
                return Err(error);
            }
        };
        let completed = upload.complete(parts).await;
        completed.map_err(|error| Unstored::Refused(self.refused(&error.to_string())))?;
        if self.reads_back().await {
            let marked = self.objects.bucket.put(objects::marker(&self.digest), Vec::new()).execute().await;
            return marked.map(drop).map_err(|error| Unstored::Refused(self.refused(&error.to_string())));
        }
        let _ = self.objects.bucket.delete(key).await;
        Err(Unstored::Refused(self.mismatch()))
    }

    async fn upload(
        &self,
        upload: &MultipartUpload,
        size: u64,
        stream: ReadableStream,
    ) -> Result<Vec<UploadedPart>, Unstored> {
        let mut pieces = Pieces::of(&stream);
        let mut parts = Vec::new();
        let mut offset = 0;
        while offset < size {
            let length = self.objects.limits.part.min(size - offset);
            let number = u16::try_from(parts.len() + 1).map_err(|_| {
                Unstored::Refused(Failure::new(
                    Reason::TooLarge,
                    format!("{} has too many parts", self.digest),
                ))
            })?;
            self.objects.tally.note();
            let counted = FixedLengthStream::new_big_int(length.into())?;
            let writer = counted.writable().get_writer()?;
            let sent = async {
                let sent = upload.upload_part(number, counted.readable()).await;
                sent.map_err(|error| Unstored::Refused(self.refused(&error.to_string())))
            };
            let (part, ()) = try_join(sent, async { Ok(pieces.write(&writer, length).await?) }).await?;
            parts.push(part);
            offset += length;
        }
        // More than announced is not the object that was announced.
        if pieces.next().await?.is_some() { Err(Unstored::Refused(self.mismatch())) } else { Ok(parts) }
    }

    async fn reads_back(&self) -> bool {
        self.objects.tally.note();
        let Ok(Some(object)) = self.objects.bucket.get(objects::key(&self.digest)).execute().await else {
            return false;
        };
        let Some(stream) = objects::stream(&object) else {
            return false;
        };
        let digest = DigestStream::new(match self.digest.algorithm() {
            Algorithm::Sha256 => DigestStreamAlgorithm::Sha256,
            Algorithm::Sha512 => DigestStreamAlgorithm::Sha512,
        });
        if JsFuture::from(stream.pipe_to(digest.raw())).await.is_err() {
            return false;
        }
        digest.digest().await.is_ok_and(|found| found.to_vec() == objects::bytes_of(&self.digest))
    }

    fn refused(&self, error: &str) -> Failure {
        if is_mismatch(error) {
            return self.mismatch();
        }
        Failure::new(Reason::StoreFailed, format!("{} cannot be stored", self.digest)).internal(error)
    }

    fn mismatch(&self) -> Failure {
        Failure::new(Reason::DigestMismatch, format!("upstream's bytes are not {}", self.digest))
    }
}

/// R2 says so in words only.
fn is_mismatch(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    error.contains("did not match") || error.contains("checksum") || error.contains("digest")
}

/// The pieces of a stream, as handles: their bytes stay outside.
struct Pieces {
    reader: ReadableStreamDefaultReader,
    rest: Option<Uint8Array>,
}

impl Pieces {
    fn of(stream: &ReadableStream) -> Pieces {
        Pieces { reader: stream.get_reader().unchecked_into(), rest: None }
    }

    async fn next(&mut self) -> Result<Option<Uint8Array>, JsValue> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let read = JsFuture::from(self.reader.read()).await?;
        let value = js_sys::Reflect::get(&read, &"value".into())?;
        Ok(value.dyn_into().ok())
    }

    /// Writes exactly `length` bytes, and closes the writer.
    async fn write(&mut self, writer: &WritableStreamDefaultWriter, length: u64) -> Result<(), JsValue> {
        let mut left = length;
        while left > 0 {
            let piece = self.next().await?.ok_or(JsValue::NULL)?;
            let size = u64::from(piece.length());
            let piece = if size > left {
                // Less than `size`, which fits.
                let cut = left as u32;
                self.rest = Some(piece.subarray(cut, piece.length()));
                piece.subarray(0, cut)
            } else {
                piece
            };
            left -= u64::from(piece.length());
            JsFuture::from(writer.write_with_chunk(&piece)).await?;
        }
        JsFuture::from(writer.close()).await.map(drop)
    }
}
