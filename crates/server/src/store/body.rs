//! The bytes of an answer, from a file, from a fill under way, or straight through from upstream.

use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use entrepot_oci::range::ByteSpan;
use futures_util::Stream;
use futures_util::stream;

use super::fill::{Piece, Place};
use super::layout::read_at;

/// Bytes that all bodies together may hold, each at most one chunk.
const BUDGET: usize = 32 << 20;
const CHUNK: std::ops::RangeInclusive<usize> = (16 << 10)..=(256 << 10);

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

/// Divides the memory for chunks among the bodies that are being sent.
#[derive(Debug, Default)]
pub(crate) struct Chunks(Arc<AtomicUsize>);

/// One body's share.
#[derive(Debug)]
pub(crate) struct Share(Arc<AtomicUsize>);

impl Chunks {
    pub(crate) fn share(&self) -> Share {
        self.0.fetch_add(1, Ordering::Relaxed);
        Share(self.0.clone())
    }
}

impl Share {
    fn bytes(&self) -> usize {
        (BUDGET / self.0.load(Ordering::Relaxed).max(1)).clamp(*CHUNK.start(), *CHUNK.end())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
        match read(file.clone(), at, span.end, share.bytes()).await {
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
        let max = share.bytes().min(usize::try_from(span.end - at).unwrap_or(usize::MAX));
        let piece = place.piece(at, max).await.map_err(|failure| BodyBroken(failure.to_string()))?;
        let bytes = match piece {
            Piece::Memory(bytes) => bytes,
            Piece::File(file, there) => read(file, at, at + there, max)
                .await
                .map_err(|error| BodyBroken(format!("reading the object being filled at byte {at}: {error}")))?,
            Piece::Lost => return Err(BodyBroken("too slow for an object that the disk cannot take".into())),
        };
        let next = at + bytes.len() as u64;
        place.move_to(next);
        Ok(Some((bytes, (next, place, share))))
    }))
}

/// Up to `max` bytes from `at`, never past `end`, never none.
async fn read(file: Arc<File>, at: u64, end: u64, max: usize) -> std::io::Result<Bytes> {
    let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(max);
    let read = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; length];
        let read = read_at(&file, &mut buffer, at)?;
        buffer.truncate(read);
        Ok::<_, std::io::Error>(buffer)
    });
    let buffer = read.await.map_err(std::io::Error::other)??;
    if buffer.is_empty() {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(buffer.into())
}
