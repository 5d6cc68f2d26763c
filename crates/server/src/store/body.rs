//! The bytes of an answer, from a file, from a fill under way, or straight through from upstream.

use std::fs::File;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use entrepot_oci::range::ByteSpan;
use futures_util::Stream;
use futures_util::stream;
use futures_util::task::AtomicWaker;

use super::fill::{Piece, Place};
use super::layout::read_at;

/// Bytes that all bodies together may hold before each gets the smallest chunk only. A body holds one chunk at a time.
const BUDGET: usize = 16 << 20;
const CHUNK: std::ops::RangeInclusive<usize> = (8 << 10)..=(256 << 10);
/// What part of the free budget one chunk may take.
const PART: usize = 16;

/// A body that breaks never ends cleanly: the client must see that bytes are missing.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BodyBroken(pub String);

/// A stream of bytes on its way to a client.
pub(crate) struct Body(Pin<Box<dyn Stream<Item = Result<Bytes, BodyBroken>> + Send>>);

impl Body {
    pub(crate) fn new(stream: impl Stream<Item = Result<Bytes, BodyBroken>> + Send + 'static) -> Body {
        Body(Box::pin(stream))
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Body")
    }
}

impl Stream for Body {
    type Item = Result<Bytes, BodyBroken>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

/// Divides the memory for chunks among the bodies that are being sent: the more is held, the smaller the next chunk.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Arc<AtomicUsize>);

/// One body's share: the chunk that is on its way to the client.
#[derive(Debug)]
pub(crate) struct Share(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Bytes that all bodies hold.
    held: Arc<AtomicUsize>,
    /// Bytes that this one holds.
    chunk: AtomicUsize,
    sent: AtomicWaker,
}

/// Bytes that are given back to the budget when the connection has let go of them.
struct Chunk {
    bytes: Vec<u8>,
    of: Arc<Shared>,
}

impl Chunks {
    pub(crate) fn share(&self) -> Share {
        Share(Arc::new(Shared { held: self.0.clone(), chunk: AtomicUsize::new(0), sent: AtomicWaker::new() }))
    }
}

impl Share {
    /// Waits until the last chunk is sent. A connection gathers all that it is given while its client does not read; so
    /// that a slow client holds one chunk only, it is given the next one then.
    async fn sent(&self) {
        let held = |share: &Shared| share.chunk.load(Ordering::Acquire) > 0;
        poll_fn(|cx| {
            if !held(&self.0) {
                return Poll::Ready(());
            }
            self.0.sent.register(cx.waker());
            // It may have been sent in between.
            if held(&self.0) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Takes memory for the next chunk, of which `most` bytes can be used.
    fn take(&self, most: u64) -> Chunk {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        // Of few sizes only, so that the memory of one serves the next.
        let size = |held: usize| {
            let part = (BUDGET.saturating_sub(held) / PART).clamp(*CHUNK.start(), *CHUNK.end());
            (1 << part.ilog2()).min(most)
        };
        let mut taken = 0;
        let _ = self.0.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            taken = size(held);
            Some(held + taken)
        });
        self.0.chunk.store(taken, Ordering::Release);
        // Allocated here and not where it is read: each of those many threads would gather free memory of its own.
        Chunk { bytes: vec![0; taken], of: self.0.clone() }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.of.held.fetch_sub(self.bytes.capacity(), Ordering::Relaxed);
        self.of.chunk.store(0, Ordering::Release);
        self.of.sent.wake();
    }
}

/// The bytes of `span` of a whole file. `keep` lives as long as the body; `broken` hears of a read error.
pub(crate) fn from_file<K: Send + Sync + 'static>(
    file: Arc<File>,
    span: ByteSpan,
    share: Share,
    keep: K,
    broken: impl Fn(&K, &std::io::Error) + Send + Sync + 'static,
) -> Body {
    let state = (span.start, file, share, keep, broken);
    Body::new(stream::try_unfold(state, move |(at, file, share, keep, broken)| async move {
        if at >= span.end {
            return Ok(None);
        }
        share.sent().await;
        match read(file.clone(), at, share.take(span.end - at)).await {
            Ok(bytes) => {
                let next = at + bytes.len() as u64;
                Ok(Some((bytes, (next, file, share, keep, broken))))
            }
            Err(error) => {
                broken(&keep, &error);
                Err(BodyBroken(format!("reading the stored object at byte {at}: {error}")))
            }
        }
    }))
}

/// The bytes of `span` of an object that is being filled, as they are released.
pub(crate) fn following(place: Place, span: ByteSpan, share: Share) -> Body {
    place.move_to(span.start);
    let state = (span.start, place, share);
    Body::new(stream::try_unfold(state, move |(at, mut place, share)| async move {
        if at >= span.end {
            return Ok(None);
        }
        share.sent().await;
        let max = usize::try_from(span.end - at).unwrap_or(usize::MAX).min(*CHUNK.end());
        let piece = place.piece(at, max).await.map_err(|failure| BodyBroken(failure.to_string()))?;
        let bytes = match piece {
            Piece::Memory(bytes) => bytes,
            Piece::File(file, there) => read(file, at, share.take(there)).await.map_err(|error| {
                BodyBroken(format!("reading the object being filled at byte {at}: {error}"))
            })?,
            Piece::Lost => {
                return Err(BodyBroken("too slow for an object that the disk cannot take".into()));
            }
        };
        let next = at + bytes.len() as u64;
        place.move_to(next);
        Ok(Some((bytes, (next, place, share))))
    }))
}

/// Up to a chunk of bytes from `at`, never none.
async fn read(file: Arc<File>, at: u64, mut chunk: Chunk) -> std::io::Result<Bytes> {
    let read = tokio::task::spawn_blocking(move || {
        let read = read_at(&file, &mut chunk.bytes, at)?;
        chunk.bytes.truncate(read);
        Ok::<_, std::io::Error>(chunk)
    });
    let chunk = read.await.map_err(std::io::Error::other)??;
    if chunk.bytes.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Bytes::from_owner(chunk))
}
